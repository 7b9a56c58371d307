"""Weights that stand in for those who were censored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import StepCurve, censoring_survival
from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.alignment import check_scored, check_unit


@dataclass(frozen=True, slots=True, eq=False)
class CensoringModel:
    """Kaplan-Meier curve G of the censoring time, and how far it is known.

    Attributes:
        curve: G(t) = P(censoring time > t).
        last: End of the follow-up that fitted it.
        vanishes: First time with G = 0, where everyone left was censored; infinite where G stays above 0.
    """

    curve: StepCurve
    last: float
    vanishes: float

    @staticmethod
    def fit(training: SurvivalOutcome, outcome: SurvivalOutcome) -> CensoringModel:
        """Fits G on `training`, to weight the rows of `outcome`."""
        if not len(training) or not len(outcome):
            raise InvalidValueError(
                f"`training` and `outcome` must hold at least one row; got {len(training)} and {len(outcome)}."
            )
        check_unit("training", training.unit, outcome)
        check_scored(training, "training", weights=True)
        curve = censoring_survival(training)
        gone = np.flatnonzero(curve.values <= 0)
        vanishes = float(curve.times[gone[0]]) if gone.size else float("inf")
        return CensoringModel(curve, float(curve.times[-1]), vanishes)

    def case_weight(self, times: np.ndarray) -> np.ndarray:
        """1 / G(T-) at event times T: just before, because of equal times the event comes first."""
        if len(times) and times.max() > self.last:
            raise InvalidValueError(
                f"`outcome` must have its events within the follow-up of `training`, up to {self.last:g} "
                f"{self.curve.unit}, where the censoring weights are known; "
                f"got an event at {times.max():g}. Pass horizon={self.last:g} or less."
            )
        return 1.0 / self.curve.before(times)

    def control_weight(self, times: np.ndarray) -> np.ndarray:
        """1 / G(t) of those who are still followed at t."""
        return 1.0 / self.curve.at(times)

    def check_times(self, times: np.ndarray, outcome: SurvivalOutcome) -> np.ndarray:
        """Times as a vector, refused where they do not increase or leave the follow-up on which a score is defined."""
        times = np.atleast_1d(np.asarray(times, dtype=np.float64))
        if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise InvalidValueError(f"`times` must be finite and increase strictly; got {times.tolist()}.")
        last = min(self.last, float(outcome.time.max()))
        outside = times[(times <= 0) | (times > last) | (times >= self.vanishes)]
        if outside.size:
            end = f"{self.vanishes:g})" if self.vanishes <= last else f"{last:g}]"
            raise InvalidValueError(
                f"`times` must lie in (0, {end} {outcome.unit}, the follow-up shared by `outcome` and `training` on "
                f"which someone is still uncensored; got {outside[0]:g}. Drop the times outside, or choose an earlier "
                "horizon."
            )
        return times

    def last_scored(self, outcome: SurvivalOutcome) -> float:
        """Largest observed time of `outcome` at which a score is defined."""
        time = outcome.numpy()[0]
        legal = time[(time <= self.last) & (time < self.vanishes)]
        if not legal.size:
            raise InvalidValueError(
                f"`outcome` must have a time before {min(self.last, self.vanishes):g} {outcome.unit}, where the "
                f"censoring weights of `training` end; its smallest is {time.min():g}. "
                "Check that both use one time axis."
            )
        return float(legal.max())
