"""The latent spaces of a StyleGAN2, as a descent sees them: where to start, and what picture a point is."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.pictures import to_pictures_for_descent
from survlens.training.inversion_settings import LatentSpace

_AT_ONCE = 1024


class LatentPoints(Protocol):
    """One latent space of one generator.

    Attributes:
        mean: Mean of the latent vectors that the generator was trained with.
        spread: Root of the mean variance of their coordinates.
    """

    mean: Float[Tensor, " embedding"]
    spread: float

    def draw(self, count: int, source: torch.Generator) -> Float[Tensor, "instance embedding"]:
        """Latent vectors as the generator was trained with."""
        ...

    def settled(self, latents: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance embedding"]:
        """The nearest points that belong to the space."""
        ...

    def pictures(self, latents: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance channel height width"]:
        """Their pictures in [0, 1], with the stored noise; where they are clamped, the gradient passes on."""
        ...


class WPoints:
    """Vectors w, one for all slots of the generator.

    Args:
        generator: On the device where it shall run.
        draws: Random points from which mean and spread are computed.
        seed: Seed of these points.
    """

    def __init__(self, generator: Generator, *, draws: int, seed: int):
        self._generator = generator
        found = self.draw(draws, torch.Generator().manual_seed(seed)).double()
        self.mean = found.mean(0).to(next(generator.parameters()).dtype)
        self.spread = float(found.var(0).mean().sqrt())

    @torch.no_grad()
    def draw(self, count: int, source: torch.Generator) -> Float[Tensor, "instance embedding"]:
        """The w of random z."""
        weight = next(self._generator.parameters())
        parts = [min(_AT_ONCE, count - first) for first in range(0, count, _AT_ONCE)]
        latent = self._generator.shape.latent
        z = (torch.randn(part, latent, generator=source).to(weight) for part in parts)
        return torch.cat([self._generator.mapping.w(part) for part in z])

    def settled(self, latents: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance embedding"]:
        """The vectors as they are: every vector is a w."""
        return latents

    def pictures(self, latents: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance channel height width"]:
        """Their pictures in [0, 1], with the stored noise; where they are clamped, the gradient passes on."""
        ws = latents[:, None].expand(-1, self._generator.shape.slots, -1)
        return to_pictures_for_descent(self._generator.synthesis(ws))


class ZPoints:
    """Vectors z on the sphere of radius sqrt(latent): the generator sees their direction only.

    Args:
        generator: On the device where it shall run.
    """

    def __init__(self, generator: Generator):
        self._generator = generator
        self._weight = next(generator.parameters())
        self.mean = torch.zeros(generator.shape.latent).to(self._weight)
        self.spread = 1.0

    def draw(self, count: int, source: torch.Generator) -> Float[Tensor, "instance embedding"]:
        """Points spread evenly over the sphere."""
        return self.settled(torch.randn(count, self._generator.shape.latent, generator=source).to(self._weight))

    def settled(self, latents: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance embedding"]:
        """The points of the sphere in the same directions."""
        return latents * (latents.square().mean(1, keepdim=True) + 1e-12).rsqrt()

    def pictures(self, latents: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance channel height width"]:
        """Their pictures in [0, 1], with the stored noise; where they are clamped, the gradient passes on."""
        ws = self._generator.mapping.w(latents)[:, None].expand(-1, self._generator.shape.slots, -1)
        return to_pictures_for_descent(self._generator.synthesis(ws))


def latent_points(generator: Generator, space: LatentSpace, *, draws: int, seed: int) -> LatentPoints:
    """The points of a latent space of a generator.

    Args:
        generator: On the device where it shall run.
        space: Which space.
        draws: Random points from which the mean of w is computed.
        seed: Seed of these points.
    """
    return ZPoints(generator) if space is LatentSpace.Z else WPoints(generator, draws=draws, seed=seed)
