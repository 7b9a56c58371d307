"""The closed-form map from raw network output to a target at all times, and its contraction with network slopes.

F(t | x) = A_t(u(x)) with u the raw output, m numbers per point, so dF(t)/dx = (dA_t/du) (du/dx): times, target and
interpolation stand in the first factor only, which needs no network. A sum over points s (of a path, say)

    phi(t) = sum over s of dA_t/du(u_s) g_s,      g_s = weight_s du/dx(x_s) scaled by the features' differences,

is a matrix product of (time, s m) with (s m, feature), taken without ever holding a table of (s, feature, time).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.targets import Scope, Target
from survlens.explain.held import RawCurves

_NARROW = 3  # up to so many raw outputs, their cotangents are taken one by one at every time


@dataclass(frozen=True, slots=True)
class LevelCurves:
    """Curves given by their values at knots, as a target asks for them.

    `levels` is (point, 1, knot) of log-survival, or (point, cause, knot) of cumulative incidence.
    """

    knots: Tensor
    levels: Tensor
    interpolation: Interpolation
    unit: str
    of_causes: bool

    def survival(self, times: Tensor | None = None) -> SurvivalPrediction:
        """Survival curves at `times`, or at the knots."""
        if self.of_causes:
            return self.incidence(times).overall()
        curves = SurvivalPrediction(self.knots, self.levels[:, 0], self.interpolation, self.unit)
        return curves if times is None else curves.at(times)

    def incidence(self, times: Tensor | None = None) -> CompetingRisksPrediction:
        """Cumulative incidences at `times`, or at the knots."""
        curves = CompetingRisksPrediction(self.knots, self.levels.transpose(0, 1), self.interpolation, self.unit)
        return curves if times is None else curves.at(times)


@dataclass(frozen=True, slots=True)
class OuterMap:
    """A_t for one head, one target and a set of times.

    Attributes:
        head: A head with `predict_from_raw`.
        target: What is explained.
        times: Times that are asked, in the head's unit; a target of the whole curve ignores them.
    """

    head: Any
    target: Target
    times: Float[Tensor, " time"]

    @property
    def columns(self) -> Float[Tensor, " column"]:
        """Times of the columns of the result."""
        return self.target.axis(self.times)

    def values(self, raw: Float[Tensor, "point raw"]) -> Float[Tensor, "point column"]:
        """The target of each point, in float64."""
        return self.target(RawCurves(self.head, raw.double()), self.times)

    def accumulate(
        self, raw: Float[Tensor, "group point raw"], slopes: Float[Tensor, "group point raw feature"]
    ) -> Float[Tensor, "group feature column"]:
        """Sum over the points of each group of dA_t/du(raw) times slopes, in float64.

        Args:
            raw: Raw outputs u_s.
            slopes: Weighted slopes g_s of each raw output by each feature.
        """
        groups, points, width = raw.shape
        flat = raw.reshape(-1, width).double()
        if self.target.scope is Scope.WHOLE:
            weights = self._whole_cotangent(flat).reshape(groups, points * width, 1)
            return slopes.double().reshape(groups, points * width, -1).transpose(1, 2) @ weights
        if width <= _NARROW:
            weights = self._cotangents(flat).reshape(groups, points, -1, width).permute(0, 1, 3, 2)
            weights = weights.reshape(groups, points * width, -1)
            return slopes.double().reshape(groups, points * width, -1).transpose(1, 2) @ weights
        return self._by_levels(flat, slopes.double())

    def _whole_cotangent(self, raw: Tensor) -> Tensor:
        """dA/du of a target with one value, (point, raw)."""
        with torch.enable_grad():
            raw = raw.detach().requires_grad_(True)
            return torch.autograd.grad(self.values(raw).sum(), raw)[0]

    def _cotangents(self, raw: Tensor) -> Tensor:
        """dA_t/du at every time, (point, column, raw): one forward derivative per raw output."""
        columns = torch.eye(raw.shape[1], dtype=raw.dtype, device=raw.device)
        return torch.stack([derivative(self.values, raw, column.expand_as(raw)) for column in columns], dim=2)

    def _by_levels(self, raw: Tensor, slopes: Tensor) -> Tensor:
        """The sum where u has many columns: through the values at knots, on two of which each time depends."""
        groups, points, _, features = slopes.shape
        levels = self._levels(raw)
        causes, knots = levels.levels.shape[1:]
        # d level / du, (point, level, raw), times the slopes: the slopes of every level.
        rises = torch.stack(
            [
                derivative(lambda each: self._levels(each).levels, raw, column.expand_as(raw)).flatten(1)
                for column in torch.eye(raw.shape[1], dtype=raw.dtype, device=raw.device)
            ],
            dim=2,
        )
        level_slopes = (rises @ slopes.reshape(-1, *slopes.shape[2:])).reshape(groups, points, causes, knots, features)
        right = torch.searchsorted(levels.knots, self.times.to(levels.knots), right=False).clamp(max=knots - 1)
        result = slopes.new_zeros((groups, features, len(self.times)))
        for cause in range(causes):
            by_parity = [self._level_weights(levels, cause, parity) for parity in (0, 1)]
            for knot in right.unique().tolist():
                asked = (right == knot).nonzero()[:, 0]
                for level in (knot, knot - 1):
                    if level >= 0:
                        weights = by_parity[level % 2][:, asked].reshape(groups, points, -1)
                        result[:, :, asked] += level_slopes[:, :, cause, level].transpose(1, 2) @ weights
        return result

    def _levels(self, raw: Tensor) -> LevelCurves:
        curves = RawCurves(self.head, raw)
        if self.target.cause is None:
            found = curves.survival()
            return LevelCurves(found.times, found.log_survival[:, None], found.interpolation, found.unit, False)
        found = curves.incidence()
        levels = found.cumulative_incidence.transpose(0, 1)
        return LevelCurves(found.times, levels, found.interpolation, found.unit, True)

    def _level_weights(self, curves: LevelCurves, cause: int, parity: int) -> Tensor:
        """Derivative of the target at each time by the one of its two knots whose number has `parity`."""
        tangent = torch.zeros_like(curves.levels)
        tangent[:, cause, parity::2] = 1

        def of_levels(levels: Tensor) -> Tensor:
            moved = LevelCurves(curves.knots, levels, curves.interpolation, curves.unit, curves.of_causes)
            return self.target(moved, self.times)

        return derivative(of_levels, curves.levels, tangent)


def derivative(function: Callable[[Tensor], Tensor], point: Tensor, tangent: Tensor) -> Tensor:
    """Derivative of `function` at `point` along `tangent`, by forward-mode differentiation."""
    with forward_ad.dual_level():
        result = function(forward_ad.make_dual(point, tangent.to(point)))
        moved = forward_ad.unpack_dual(result).tangent
    return torch.zeros_like(result) if moved is None else moved
