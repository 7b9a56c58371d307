"""What can be explained of a prediction: plain functions of curves and times.

A target asks `curves` for what it needs. `survival`, `cumulative_hazard`, `hazard_rate`, `log_hazard_rate`, `density`
and `incidence_of(cause)` have a value at every time; `restricted_mean(horizon)`, `risk_at(horizon)`,
`survival_quantile(probability)` and `time_lost_to(cause, horizon)` have one value per instance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.prediction import Interpolation, SurvivalPrediction


class Curves(Protocol):
    """What a target may ask: the prediction at times, or at the model's own knots."""

    def survival(self, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves at `times`, or at their own knots."""
        ...

    def incidence(self, times: Float[Tensor, " time"] | None = None) -> CompetingRisksPrediction:
        """Cumulative incidences at `times`, or at their own knots."""
        ...


class Scope(Enum):
    """What a target's value at a time depends on.

    AROUND: on the curve at the two knots around the time. WHOLE: on the whole curve; the target has one value.
    """

    AROUND = "around"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Target:
    """A function of curves and times that can be explained.

    Attributes:
        name: What it is called in tables and on axes.
        value: From curves and times to (instance, time); with one column where `scope` is WHOLE.
        scope: What the value at a time depends on.
        cause: Cause that it speaks of, or None for an event of any cause.
        horizon: Time that stands on the time axis of a WHOLE target; NaN where it has none.
        has_kinks: Whether its slope may jump where the curve changes smoothly, as that of a quantile does where it
            passes a knot. Rules for path integrals of smooth functions then understate their error.
    """

    name: str
    value: Callable[[Curves, Tensor], Tensor]
    scope: Scope = Scope.AROUND
    cause: int | None = None
    horizon: float = float("nan")
    has_kinks: bool = False

    def __call__(self, curves: Curves, times: Float[Tensor, " time"]) -> Float[Tensor, "instance column"]:
        """The value of each instance, at each of `times` or once."""
        return self.value(curves, times)

    def axis(self, times: Float[Tensor, " time"]) -> Float[Tensor, " column"]:
        """Times of the columns."""
        return times if self.scope is Scope.AROUND else times.new_tensor([self.horizon])


def _survival(curves: Curves, times: Tensor) -> Tensor:
    return curves.survival(times).survival


def _cumulative_hazard(curves: Curves, times: Tensor) -> Tensor:
    return curves.survival(times).cumulative_hazard


def _log_hazard_rate(curves: Curves, times: Tensor) -> Tensor:
    there = curves.survival(times)
    if there.interpolation is not Interpolation.STEP and there.log_hazard_rate is not None:
        return there.log_hazard_rate
    log_rate = _log_mean_rate(curves.survival(), times)
    if bool(torch.isinf(log_rate).any()):
        empty = times[torch.isinf(log_rate).any(0)]
        raise InvalidValueError(
            "`times` must lie in intervals with an event for the log-hazard of a step curve, which is minus infinity "
            f"elsewhere; got {[round(float(time), 4) for time in empty[:5]]}. "
            "Ask at event times, or explain hazard_rate."
        )
    return log_rate


def _hazard_rate(curves: Curves, times: Tensor) -> Tensor:
    there = curves.survival(times)
    if there.interpolation is not Interpolation.STEP and there.log_hazard_rate is not None:
        return there.log_hazard_rate.exp()
    prediction = curves.survival()
    if prediction.log_rise is not None:
        return _log_mean_rate(prediction, times).exp()
    rise = torch.nn.functional.pad(prediction.cumulative_hazard, (1, 0)).diff(dim=1)
    right, width = _interval(prediction, times)
    return rise[:, right] / width


def _log_mean_rate(prediction: SurvivalPrediction, times: Tensor) -> Tensor:
    """Log of the rise of H over the interval between knots that ends at or after each time, over its width."""
    right, width = _interval(prediction, times)
    if prediction.log_rise is not None:
        return prediction.log_rise[:, right] - width.log()
    rise = torch.nn.functional.pad(prediction.cumulative_hazard, (1, 0)).diff(dim=1)
    return rise[:, right].log() - width.log()


def _interval(prediction: SurvivalPrediction, times: Tensor) -> tuple[Tensor, Tensor]:
    """The knot at or after each time, and the width of the interval that it ends."""
    knots = torch.nn.functional.pad(prediction.times, (1, 0))
    right = torch.searchsorted(knots, times.to(knots), right=False).clamp(1, len(knots) - 1)
    return right - 1, knots[right] - knots[right - 1]


def _density(curves: Curves, times: Tensor) -> Tensor:
    there = curves.survival(times)
    if there.interpolation is not Interpolation.STEP and there.log_hazard_rate is not None:
        return (there.log_hazard_rate + there.log_survival).exp()
    return _hazard_rate(curves, times) * there.survival


survival = Target("survival", _survival)
cumulative_hazard = Target("cumulative_hazard", _cumulative_hazard)
log_hazard_rate = Target("log_hazard_rate", _log_hazard_rate)
hazard_rate = Target("hazard_rate", _hazard_rate)
density = Target("density", _density)


def incidence_of(cause: int) -> Target:
    """Cumulative incidence of a cause, F_k(t)."""
    return Target(f"incidence_{cause}", lambda curves, times: curves.incidence(times).incidence(cause), cause=cause)


def time_lost_to(cause: int, horizon: float) -> Target:
    """Mean time lost to a cause within `horizon`: the integral of its cumulative incidence."""
    return Target(
        f"time_lost_to_{cause}",
        lambda curves, times: curves.incidence().restricted_mean_time_lost(horizon, cause)[:, None],
        Scope.WHOLE,
        cause,
        horizon,
    )


def restricted_mean(horizon: float) -> Target:
    """Restricted mean survival time: the integral of S from 0 to `horizon`."""
    return Target(
        "restricted_mean",
        lambda curves, times: curves.survival().restricted_mean(horizon)[:, None],
        Scope.WHOLE,
        horizon=horizon,
    )


def risk_at(horizon: float) -> Target:
    """Probability of an event by `horizon`: 1 - S(horizon)."""
    return Target(
        "risk",
        lambda curves, times: -torch.expm1(curves.survival(times.new_tensor([horizon])).log_survival),
        Scope.WHOLE,
        horizon=horizon,
    )


def survival_quantile(probability: float = 0.5) -> Target:
    """Time by which a share `probability` has had the event; median survival by default. Not for step curves."""

    def value(curves: Curves, times: Tensor) -> Tensor:
        prediction = curves.survival()
        if prediction.interpolation is Interpolation.STEP:
            raise InvalidValueError(
                "A survival quantile of a step curve does not change continuously, so it cannot be explained; "
                "got a head with steps. Explain restricted_mean(horizon) instead."
            )
        found = prediction.quantile(probability)
        if bool(torch.isinf(found).any()):
            raise InvalidValueError(
                f"`probability` must be reached by every curve; got {int(torch.isinf(found).sum())} rows that stay "
                f"above S = {1 - probability:g}. Choose a smaller one, or explain restricted_mean(horizon)."
            )
        return found[:, None]

    return Target(f"survival_quantile({probability})", value, Scope.WHOLE, has_kinks=True)
