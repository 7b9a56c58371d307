"""From z to w: the mapping network of StyleGAN2."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.modulated import EqualisedLinear
from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2.shape import StyleGAN2Shape

RATE = 0.01
"""Learning rate of the mapping network relative to that of the optimiser."""

MEMORY = 0.995
"""Share of the mean w that a step of training keeps."""


class Mapping(nn.Module):
    """Fully connected layers after z has been put on the sphere of radius sqrt(latent).

    Only the direction of z matters. In training mode the mean w follows each batch,
    w_avg <- 0.995 w_avg + 0.005 (mean over the batch of w).

    Args:
        shape: Sizes of the network.
        generator: Source of the start weights.
    """

    w_avg: Tensor

    def __init__(self, shape: StyleGAN2Shape, *, generator: torch.Generator):
        super().__init__()
        self.slots, self.layers = shape.slots, shape.mapping_layers
        for index in range(shape.mapping_layers):
            before = shape.width if index else shape.latent
            layer = EqualisedLinear(before, shape.width, generator=generator, rate=RATE, active=True)
            self.add_module(f"fc{index}", layer)
        self.register_buffer("w_avg", torch.zeros(shape.width))

    def w(self, z: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance width"]:
        """The w of each z, not truncated; leaves the mean w as it is."""
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for index in range(self.layers):
            x = cast(EqualisedLinear, self.get_submodule(f"fc{index}"))(x)
        return x

    def forward(
        self,
        z: Float[Tensor, "instance latent"],
        *,
        truncation: float = 1.0,
        truncated_slots: int | None = None,
        follow: bool = True,
    ) -> Float[Tensor, "instance slot width"]:
        """One w per slot, all alike: w_avg + truncation * (w - w_avg).

        Args:
            z: Latent vectors of any length > 0.
            truncation: 1 for none, 0 for the mean w; between them pictures are more alike and cleaner.
            truncated_slots: Only so many first slots are truncated; all by default.
            follow: Whether the mean w follows this batch, in training mode.

        Raises:
            InvalidValueError: If `truncated_slots` lies outside 0 to the number of slots.
        """
        kept = self.slots if truncated_slots is None else truncated_slots
        if not 0 <= kept <= self.slots:
            raise InvalidValueError(f"`truncated_slots` must lie in [0, {self.slots}]; got {truncated_slots}.")
        w = self.w(z)
        if self.training and follow:
            with torch.no_grad():
                self.w_avg.copy_(w.mean(dim=0).to(self.w_avg.dtype).lerp(self.w_avg, MEMORY))
        ws = w[:, None].expand(-1, self.slots, -1)
        if truncation == 1.0:
            return ws
        return torch.cat([self.w_avg.lerp(ws[:, :kept], truncation), ws[:, kept:]], dim=1)
