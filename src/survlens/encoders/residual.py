"""A residual convolutional network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.residual import ResidualBlock
from survlens.blocks.spatial import channel_norm, convolution, global_mean


class ResidualCNN(nn.Module):
    """A stem, one halving residual block per width, then the mean over space or the flattened last map.

    Args:
        in_channels: Channels of the image or volume.
        channels: Width of each residual block.
        dimensions: 2 for images, 3 for volumes.
        image_size: Sides of the images; with them the last map is flattened, which keeps *where* things are.
            None takes the mean over space, and any size is accepted.
        dropout: Share of embedding units dropped in training.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        *,
        dimensions: int = 2,
        image_size: Sequence[int] | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.in_channels, self.channels, self.dimensions = in_channels, tuple(channels), dimensions
        self.image_size, self.dropout = None if image_size is None else tuple(image_size), dropout
        widths = (self.channels[0], *self.channels)
        blocks = [
            ResidualBlock(dimensions, before, after, down=True)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        ]
        self.stem = convolution(dimensions, in_channels, widths[0])
        self.blocks = nn.Sequential(*blocks, channel_norm(widths[-1]), nn.SiLU())
        flat = image_size is not None
        self.pool = nn.Sequential(nn.Identity() if flat else global_mean(dimensions), nn.Flatten(), nn.Dropout(dropout))
        sides = [halved(side, len(self.channels)) for side in self.image_size or ()]
        self.out_features = widths[-1] * math.prod(sides)

    def forward(self, x: Float[Tensor, "instance channel *space"]) -> Float[Tensor, "instance embedding"]:
        """The embedding."""
        return self.pool(self.blocks(self.stem(x)))


def halved(size: int, times: int) -> int:
    """`size` after `times` convolutions of stride 2 and padding 1."""
    for _ in range(times):
        size = (size + 1) // 2
    return size
