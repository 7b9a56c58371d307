"""A residual convolutional network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from survlens.blocks.residual import ResidualBlock
from survlens.blocks.spatial import channel_norm, convolution, global_mean
from survlens.core.errors import InvalidValueError

_GROUPS = 8
"""Groups of `channel_norm`."""


class ResidualCNN(nn.Module):
    """A stem, one residual block per width, most of them halving, then the mean over space or the flattened last map.

    Args:
        in_channels: Channels of the image or volume.
        channels: Width of each residual block.
        dimensions: 2 for images, 3 for volumes.
        image_size: Sides of the images; with them the last map is flattened, which keeps *where* things are.
            None takes the mean over space, and any size is accepted.
        dropout: Share of embedding units dropped in training.
        checkpointing: Whether training keeps only what lies between blocks and computes the rest a second time on the
            way back: less memory for more time, the same gradients.
        halvings: How many of the blocks halve the image, the first ones; all by default.
        averaged: Whether the shortcuts of halving blocks take means, not every second pixel.

    Raises:
        InvalidValueError: If there are more halvings than blocks, or the last map is one pixel in which normalisation
            would leave nothing.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        *,
        dimensions: int = 2,
        image_size: Sequence[int] | None = None,
        dropout: float = 0.0,
        checkpointing: bool = False,
        halvings: int | None = None,
        averaged: bool = False,
    ):
        super().__init__()
        self.in_channels, self.channels, self.dimensions = in_channels, tuple(channels), dimensions
        self.image_size, self.dropout = None if image_size is None else tuple(image_size), dropout
        self.checkpointing, self.averaged = checkpointing, averaged
        self.halvings = len(self.channels) if halvings is None else halvings
        if not 0 <= self.halvings <= len(self.channels):
            raise InvalidValueError(f"`halvings` must lie in [0, {len(self.channels)}], the blocks; got {halvings}.")
        widths = (self.channels[0], *self.channels)
        blocks = [
            ResidualBlock(dimensions, before, after, down=place < self.halvings, averaged=averaged)
            for place, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        ]
        self.stem = convolution(dimensions, in_channels, widths[0])
        self.blocks = nn.Sequential(*blocks, channel_norm(widths[-1]), nn.SiLU())
        flat = image_size is not None
        self.pool = nn.Sequential(nn.Identity() if flat else global_mean(dimensions), nn.Flatten(), nn.Dropout(dropout))
        sides = [halved(side, self.halvings) for side in self.image_size or ()]
        if sides and math.prod(sides) == 1 and self.channels[-1] <= _GROUPS:
            # One value per group, which normalisation turns into zero whatever it was.
            raise InvalidValueError(
                f"`channels` must end in more than {_GROUPS} where the last map is one pixel; got {self.channels} for "
                f"an `image_size` of {self.image_size}. Give fewer or wider blocks."
            )
        self.out_features = widths[-1] * math.prod(sides)

    def forward(self, x: Float[Tensor, "instance channel *space"]) -> Float[Tensor, "instance embedding"]:
        """The embedding."""
        x = self.stem(x)
        again = self.checkpointing and self.training and x.requires_grad
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return self.pool(x)


def halved(size: int, times: int) -> int:
    """`size` after `times` convolutions of stride 2 and padding 1."""
    for _ in range(times):
        size = (size + 1) // 2
    return size
