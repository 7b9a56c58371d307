"""From a latent vector back to an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.dense import dense_stack
from survlens.blocks.residual import ResidualBlock
from survlens.blocks.spatial import channel_norm, convolution
from survlens.core.errors import InvalidValueError


class DenseDecoder(nn.Module):
    """Fully connected layers, then the image; raw values, before the link of the likelihood.

    Args:
        latent: Dimensions of the latent vector.
        image_shape: (channel, height, width) or (channel, height, width, depth).
        hidden: Width of each hidden layer.
    """

    def __init__(self, latent: int, image_shape: Sequence[int], hidden: Sequence[int] = (256, 256)):
        super().__init__()
        self.latent, self.image_shape, self.hidden = latent, tuple(image_shape), tuple(hidden)
        self.layers = dense_stack(latent, self.hidden)
        self.last = nn.Linear(self.hidden[-1] if self.hidden else latent, math.prod(self.image_shape))

    def forward(self, z: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Raw image."""
        return self.last(self.layers(z)).unflatten(1, self.image_shape)


class ResidualDecoder(nn.Module):
    """A linear map to a small feature map, then one doubling residual block per width.

    Args:
        latent: Dimensions of the latent vector.
        image_shape: (channel, height, width) or (channel, height, width, depth); every side a multiple of
            2 to the number of widths.
        channels: Width of each residual block, from coarse to fine.
    """

    def __init__(self, latent: int, image_shape: Sequence[int], channels: Sequence[int] = (128, 64, 32, 16)):
        super().__init__()
        self.latent, self.image_shape, self.channels = latent, tuple(image_shape), tuple(channels)
        dimensions, factor = len(self.image_shape) - 1, 2 ** len(self.channels)
        if any(side % factor for side in self.image_shape[1:]):
            raise InvalidValueError(
                f"`image_shape` must have sides that are multiples of {factor} for {len(self.channels)} `channels`; "
                f"got {self.image_shape}. Resize the images, or give fewer channels."
            )
        self.start = (self.channels[0], *(side // factor for side in self.image_shape[1:]))
        widths = (self.channels[0], *self.channels)
        self.first = nn.Linear(latent, math.prod(self.start))
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(dimensions, before, after, up=True)
                for before, after in zip(widths[:-1], widths[1:], strict=True)
            ),
            channel_norm(widths[-1]),
            nn.SiLU(),
            convolution(dimensions, widths[-1], self.image_shape[0]),
        )

    def forward(self, z: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Raw image."""
        return self.blocks(self.first(z).unflatten(1, self.start))
