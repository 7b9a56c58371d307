"""From a latent vector back to an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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

    @property
    def output_bias(self) -> Float[Tensor, " value"]:
        """Bias of the last layer, channel by channel."""
        return self.last.bias

    def forward(self, z: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Raw image."""
        return self.last(self.layers(z)).unflatten(1, self.image_shape)


class ResidualDecoder(nn.Module):
    """A linear map to a small feature map, then one residual block per width, most of them doubling.

    Sides that are no multiple of 2 to the number of doublings are drawn larger, and cut to size around the middle.

    Args:
        latent: Dimensions of the latent vector.
        image_shape: (channel, height, width) or (channel, height, width, depth).
        channels: Width of each residual block, from coarse to fine.
        checkpointing: Whether training keeps only what lies between blocks and computes the rest a second time on the
            way back: less memory for more time, the same gradients.
        template: Whether a linear map of the latent vector, with a bias for every value, is added to what the blocks
            draw. Started at the mean image and the principal components (`VariationalAutoencoder.start_at`), the blocks
            need only learn what these cannot draw.
        doublings: How many of the blocks double the image, the last ones; all by default.
        normalised: Whether the blocks normalise their maps. Normalised maps forget how long the latent vector is, so
            that walks through the latent space come to a halt.

    Raises:
        InvalidValueError: If there are more doublings than blocks.
    """

    def __init__(
        self,
        latent: int,
        image_shape: Sequence[int],
        channels: Sequence[int] = (128, 64, 32, 16),
        *,
        checkpointing: bool = False,
        template: bool = False,
        doublings: int | None = None,
        normalised: bool = True,
    ):
        super().__init__()
        self.latent, self.image_shape, self.channels = latent, tuple(image_shape), tuple(channels)
        self.checkpointing, self.template, self.normalised = checkpointing, template, normalised
        self.doublings = len(self.channels) if doublings is None else doublings
        if not 0 <= self.doublings <= len(self.channels):
            raise InvalidValueError(f"`doublings` must lie in [0, {len(self.channels)}], the blocks; got {doublings}.")
        dimensions, factor, kept = len(self.image_shape) - 1, 2**self.doublings, len(self.channels) - self.doublings
        self.start = (self.channels[0], *(-(-side // factor) for side in self.image_shape[1:]))
        widths = (self.channels[0], *self.channels)
        self.first = nn.Linear(latent, math.prod(self.start))
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(dimensions, before, after, up=place >= kept, normalised=normalised)
                for place, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
            ),
            channel_norm(widths[-1]) if normalised else nn.Identity(),
            nn.SiLU(),
            convolution(dimensions, widths[-1], self.image_shape[0]),
        )
        surplus = [small * factor - side for small, side in zip(self.start[1:], self.image_shape[1:], strict=True)]
        cuts = (slice(more // 2, more // 2 + side) for more, side in zip(surplus, self.image_shape[1:], strict=True))
        self._kept = (slice(None), slice(None), *cuts)
        if template:
            for weight in self.blocks[-1].parameters():
                nn.init.zeros_(weight)
            self.linear = nn.Linear(latent, math.prod(self.image_shape))
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    @property
    def output_bias(self) -> Float[Tensor, " value"]:
        """Bias of the last layer, one per channel or, with a template, per value; channel by channel."""
        return self.linear.bias if self.template else self.blocks[-1].bias  # type: ignore[return-value]

    def forward(self, z: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Raw image."""
        x = self.first(z).unflatten(1, self.start)
        again = self.checkpointing and self.training and x.requires_grad
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        x = x[self._kept]
        return x + self.linear(z).unflatten(1, self.image_shape) if self.template else x
