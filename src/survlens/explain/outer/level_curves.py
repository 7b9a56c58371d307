"""A target as a function of the values of a curve at its knots: which of them a time depends on, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.targets import Target, cumulative_hazard, survival
from survlens.explain.forward import derivative
from survlens.explain.held import RawCurves

_OF_LEVELS = (survival, cumulative_hazard)  # these never ask for a rate


@dataclass(frozen=True, slots=True)
class LevelCurves:
    """Curves given by their values at knots, as a target asks for them.

    `levels` is (point, 1, knot) of log-survival, or (point, cause, knot) of cumulative incidence. `log_rises` is
    (point, knot) of the logarithm of the fall of log-survival in each interval, where the head knows it: rates of
    small intervals follow from it, where the difference of two levels has lost its digits.
    """

    knots: Tensor
    levels: Tensor
    interpolation: Interpolation
    unit: str
    of_causes: bool
    log_rises: Tensor | None = None

    def survival(self, times: Tensor | None = None) -> SurvivalPrediction:
        """Survival curves at `times`, or at the knots."""
        if self.of_causes:
            return self.incidence(times).overall()
        curves = SurvivalPrediction(
            self.knots, self.levels[:, 0], self.interpolation, self.unit, log_rise=self.log_rises
        )
        return curves if times is None else curves.at(times)

    def incidence(self, times: Tensor | None = None) -> CompetingRisksPrediction:
        """Cumulative incidences at `times`, or at the knots."""
        curves = CompetingRisksPrediction(self.knots, self.levels.transpose(0, 1), self.interpolation, self.unit)
        return curves if times is None else curves.at(times)


def level_curves(head: Any, raw: Float[Tensor, "point raw"], of_causes: bool) -> LevelCurves:
    """The curves that `head` makes of raw outputs, by their levels."""
    curves = RawCurves(head, raw)
    if of_causes:
        found = curves.incidence()
        levels = found.cumulative_incidence.transpose(0, 1)
        return LevelCurves(found.times, levels, found.interpolation, found.unit, True)
    found = curves.survival()
    levels = found.log_survival[:, None]
    return LevelCurves(found.times, levels, found.interpolation, found.unit, False, found.log_rise)


@dataclass(frozen=True, slots=True)
class LevelWeights:
    """Derivatives of a target at each time by the two levels around it.

    Attributes:
        right: Knot at or after each time.
        at_right: Derivative by the level of that knot, (point, cause, time).
        at_left: Derivative by the level before it; 0 where there is none.
        at_rise: Derivative by the logarithm of the rise of -log S to that knot, (point, time); None where the target
            does not ask for it, or the head does not know it.
    """

    right: Tensor
    at_right: Tensor
    at_left: Tensor
    at_rise: Tensor | None = None

    def by_level(self) -> Iterator[tuple[int, int, slice, Tensor]]:
        """Cause, knot, positions of the times that depend on that level, and the derivatives, (point, position)."""
        for cause in range(self.at_right.shape[1]):
            for shift, weights in ((0, self.at_right), (1, self.at_left)):
                for knot, asked in self._by_knot():
                    if knot >= shift:
                        yield cause, knot - shift, asked, weights[:, cause, asked]

    def by_rise(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Knot, positions of the times in the interval that it ends, and the derivatives, (point, position)."""
        if self.at_rise is not None:
            for knot, asked in self._by_knot():
                yield knot, asked, self.at_rise[:, asked]

    def _by_knot(self) -> Iterator[tuple[int, slice]]:
        first = 0
        knots, counts = self.right.unique_consecutive(return_counts=True)
        for knot, count in zip(knots.tolist(), counts.tolist(), strict=True):
            yield knot, slice(first, first + count)
            first += count


def level_weights(curves: LevelCurves, target: Target, times: Float[Tensor, " time"]) -> LevelWeights:
    """Derivatives of the target at each time by the two levels around it, and by the rise between them."""
    if target in _OF_LEVELS:
        curves = replace(curves, log_rises=None)
    count = len(curves.knots)
    right = torch.searchsorted(curves.knots, times.to(curves.knots), right=False).clamp(max=count - 1)
    known = target == survival and not curves.of_causes
    if known and bool(torch.isfinite(curves.levels).all()) and bool(times[-1] <= curves.knots[-1]):
        return LevelWeights(right, *(each[:, None] for each in _survival_slopes(curves, times, right)))
    at_right, at_left = [], []
    for cause in range(curves.levels.shape[1]):
        by_parity = []
        for parity in (0, 1):
            tangent = torch.zeros_like(curves.levels)
            tangent[:, cause, parity::2] = 1
            by_parity.append(
                derivative(lambda levels: target(replace(curves, levels=levels), times), curves.levels, tangent)
            )
        even = right % 2 == 0
        at_right.append(torch.where(even, by_parity[0], by_parity[1]))
        at_left.append(torch.where(even, by_parity[1], by_parity[0]))
    at_rise = None
    if curves.log_rises is not None:
        ones = torch.ones_like(curves.log_rises)
        moved = derivative(lambda rises: target(replace(curves, log_rises=rises), times), curves.log_rises, ones)
        at_rise = moved if bool(moved.any()) else None
    return LevelWeights(right, torch.stack(at_right, dim=1), torch.stack(at_left, dim=1), at_rise)


def _survival_slopes(curves: LevelCurves, times: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of S at each time by log S at its two knots, by the rule between knots."""
    end = curves.levels[:, 0, right]
    start = torch.nn.functional.pad(curves.levels[:, 0], (1, 0))[:, right]
    ends = curves.knots[right]
    starts = torch.nn.functional.pad(curves.knots, (1, 0))[right]
    share = ((times.to(ends) - starts) / (ends - starts)).clamp(max=1.0)
    if curves.interpolation is Interpolation.LINEAR:
        return end.exp_().mul_(share), start.exp_().mul_(1 - share)
    if curves.interpolation is Interpolation.STEP:
        share = (share >= 1).to(share)
    survived = torch.lerp(start, end, share).exp_()
    return survived * share, survived.mul_(1 - share)
