"""Descents that ask for a distance and its gradient at points, one point per photograph, and are told both.

Every photograph has a state of its own, so that it neither waits for the others nor is moved by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from survlens.training.inversion_settings import DescentRule, InversionSettings
from survlens.training.latent_spaces import LatentPoints

_MEMORY = 10
_ENOUGH = 1e-4
_BETA = (0.9, 0.999)
_EPSILON = 1e-8


class Descent(Protocol):
    """Where to look next, for each photograph of a batch."""

    def ask(self, step: int) -> Float[Tensor, "instance embedding"]:
        """Points of the latent space whose distance is wanted."""
        ...

    def tell(
        self, step: int, distance: Float[Tensor, " instance"], gradient: Float[Tensor, "instance embedding"]
    ) -> None:
        """Takes in the distance at the points asked for, and its gradient there."""
        ...

    def keep(self, rows: Bool[Tensor, " instance"]) -> None:
        """Forgets all other photographs."""
        ...


class AdamDescent:
    """Adam, with the ramp of the step size that `InversionSettings` defines.

    Args:
        points: The latent space.
        latents: Where to start.
        settings: Step size, ramps and noise.
        sources: A source of random numbers per photograph, for the noise.

    References:
        Karras et al. 2020.
    """

    def __init__(
        self,
        points: LatentPoints,
        latents: Float[Tensor, "instance embedding"],
        settings: InversionSettings,
        sources: Sequence[torch.Generator],
    ):
        self._points, self._settings, self._sources = points, settings, list(sources)
        self._latents = latents.clone()
        self._first, self._second = torch.zeros_like(latents), torch.zeros_like(latents)

    def ask(self, step: int) -> Float[Tensor, "instance embedding"]:
        """The points reached, with noise where there is any."""
        left = max(0.0, 1 - step / max(self._settings.steps, 1) / 0.75)
        size = self._settings.noise * self._points.spread * left**2
        if size == 0:
            return self._latents
        width = self._latents.shape[1]
        noise = torch.stack([torch.randn(width, generator=source) for source in self._sources]).to(self._latents)
        return self._points.settled(self._latents + size * noise)

    def tell(
        self, step: int, distance: Float[Tensor, " instance"], gradient: Float[Tensor, "instance embedding"]
    ) -> None:
        """Takes one step of Adam."""
        self._first.lerp_(gradient, 1 - _BETA[0])
        self._second.lerp_(gradient.square(), 1 - _BETA[1])
        mean = self._first / (1 - _BETA[0] ** (step + 1))
        root = (self._second / (1 - _BETA[1] ** (step + 1))).sqrt() + _EPSILON
        size = step_size(self._settings, step) * self._points.spread
        self._latents = self._points.settled(self._latents - size * mean / root)

    def keep(self, rows: Bool[Tensor, " instance"]) -> None:
        """Forgets all other photographs."""
        self._latents, self._first, self._second = (each[rows] for each in (self._latents, self._first, self._second))
        self._sources = [source for source, kept in zip(self._sources, rows.tolist(), strict=True) if kept]


class LBFGSDescent:
    """Limited-memory BFGS with backtracking, every photograph with its own memory and its own line search.

    The memory are the last ten pairs (change of the point, change of the gradient). A step that does not lower the
    distance by a ten-thousandth of what the slope promises is shortened, by the minimum of the parabola through what is
    known, to between a tenth and a half.

    Args:
        points: The latent space.
        latents: Where to start.
        settings: The first step is `learning_rate` standard deviations long in every coordinate, on average.

    References:
        Liu and Nocedal 1989.
    """

    def __init__(self, points: LatentPoints, latents: Float[Tensor, "instance embedding"], settings: InversionSettings):
        self._points = points
        self._first_length = settings.learning_rate * points.spread * latents.shape[1] ** 0.5
        self._latents, self._trial = latents.clone(), latents.clone()
        rows, width = latents.shape
        zeros = latents.new_zeros
        self._distance, self._length = zeros(rows), latents.new_ones(rows)
        self._gradient, self._direction = zeros(rows, width), zeros(rows, width)
        # Slot 0 holds the newest pair; a pair of zeros is none.
        self._moves, self._turns = zeros(rows, _MEMORY, width), zeros(rows, _MEMORY, width)
        self._inverse = zeros(rows, _MEMORY)
        self._refusals = zeros(rows)

    def ask(self, step: int) -> Float[Tensor, "instance embedding"]:
        """The start, then the points on the lines of search."""
        if step > 0:
            self._trial = self._points.settled(self._latents + self._length[:, None] * self._direction)
        return self._trial

    def tell(
        self, step: int, distance: Float[Tensor, " instance"], gradient: Float[Tensor, "instance embedding"]
    ) -> None:
        """Takes the points that are low enough, and shortens the steps to the others."""
        slope = (self._gradient * self._direction).sum(1)
        taken = distance <= self._distance + _ENOUGH * self._length * slope
        if step == 0:
            taken = torch.ones_like(taken)
        else:
            self._remember(taken, gradient)
        self._shorten(~taken, distance, slope)
        row = taken[:, None]
        self._latents = torch.where(row, self._trial, self._latents)
        self._gradient = torch.where(row, gradient, self._gradient)
        self._distance = torch.where(taken, distance, self._distance)
        self._refusals = torch.where(taken, 0.0, self._refusals + 1)
        self._look(taken | (self._refusals >= _MEMORY))

    def keep(self, rows: Bool[Tensor, " instance"]) -> None:
        """Forgets all other photographs."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[rows])

    def _remember(self, taken: Tensor, gradient: Tensor) -> None:
        move, turn = self._trial - self._latents, gradient - self._gradient
        curvature = (move * turn).sum(1)
        curved = taken & (curvature > 1e-10 * turn.square().sum(1)) & (curvature > 0)
        inverse = torch.where(curved, 1 / curvature.clamp(min=1e-30), 0.0)
        for memory, new in ((self._moves, move), (self._turns, turn), (self._inverse, inverse)):
            pushed = torch.cat([new[:, None], memory[:, :-1]], 1)
            memory.copy_(torch.where(curved.reshape(-1, *[1] * (memory.ndim - 1)), pushed, memory))

    def _shorten(self, refused: Tensor, distance: Tensor, slope: Tensor) -> None:
        length = self._length
        excess = (distance - self._distance - length * slope).clamp(min=1e-30)
        parabola = torch.nan_to_num(-slope * length.square() / (2 * excess))
        shorter = torch.minimum(torch.maximum(parabola, 0.1 * length), 0.5 * length)
        self._length = torch.where(refused, shorter, length)

    def _look(self, rows: Tensor) -> None:
        """A new direction for some photographs; one that has been refused too often forgets its memory first."""
        stuck = self._refusals >= _MEMORY
        self._refusals = torch.where(stuck, 0.0, self._refusals)
        for memory in (self._moves, self._turns, self._inverse):
            memory.mul_((~stuck).reshape(-1, *[1] * (memory.ndim - 1)))
        direction, shares = -self._gradient, []
        for pair in range(_MEMORY):
            share = self._inverse[:, pair] * (self._moves[:, pair] * direction).sum(1)
            direction = direction - share[:, None] * self._turns[:, pair]
            shares.append(share)
        known = self._inverse[:, 0] > 0
        steepest = self._first_length / self._gradient.norm(dim=1).clamp(min=1e-30)
        newest = 1 / (self._inverse[:, 0] * self._turns[:, 0].square().sum(1)).clamp(min=1e-30)
        direction = direction * torch.where(known, newest, steepest)[:, None]
        for pair in reversed(range(_MEMORY)):
            back = self._inverse[:, pair] * (self._turns[:, pair] * direction).sum(1)
            direction = direction + (shares[pair] - back)[:, None] * self._moves[:, pair]
        self._direction = torch.where(rows[:, None], direction, self._direction)
        self._length = torch.where(rows, torch.where(stuck, 0.1, 1.0), self._length)


def step_size(settings: InversionSettings, step: int) -> float:
    """Step size of Adam in standard deviations of the latent vector; see `InversionSettings`."""
    done = (step + 0.5) / settings.steps
    up = min(1.0, done / settings.ramp_up) if settings.ramp_up else 1.0
    down = min(1.0, (1 - done) / settings.ramp_down) if settings.ramp_down else 1.0
    return settings.learning_rate * up * (0.5 - 0.5 * math.cos(math.pi * down))


def descent_from(
    points: LatentPoints,
    latents: Float[Tensor, "instance embedding"],
    settings: InversionSettings,
    sources: Sequence[torch.Generator],
) -> Descent:
    """The descent that the settings ask for."""
    if settings.descent is DescentRule.LBFGS:
        return LBFGSDescent(points, latents, settings)
    return AdamDescent(points, latents, settings, sources)
