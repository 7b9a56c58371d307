"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.spatial import channel_norm, convolution, global_mean


class CNN(nn.Module):
    """Convolution, normalisation and activation at each width, halving the size; then the mean over space.

    Args:
        in_channels: Channels of the image or volume.
        channels: Width of each stage; the last is the width of the embedding.
        dimensions: 2 for images, 3 for volumes.
        dropout: Share of embedding units dropped in training.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int] = (16, 32, 64), *, dimensions: int = 2, dropout: float = 0.0
    ):
        super().__init__()
        self.in_channels, self.channels, self.dimensions, self.dropout = (
            in_channels,
            tuple(channels),
            dimensions,
            dropout,
        )
        layers: list[nn.Module] = []
        for width in self.channels:
            layers += [convolution(dimensions, in_channels, width, stride=2), channel_norm(width), nn.SiLU()]
            layers += [convolution(dimensions, width, width), channel_norm(width), nn.SiLU()]
            in_channels = width
        self.layers = nn.Sequential(*layers, global_mean(dimensions), nn.Flatten(), nn.Dropout(dropout))
        self.out_features = self.channels[-1]

    def forward(self, x: Float[Tensor, "instance channel *space"]) -> Float[Tensor, "instance embedding"]:
        """The embedding."""
        return self.layers(x)
