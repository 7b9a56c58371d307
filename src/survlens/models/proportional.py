"""What every linear proportional-hazards model shares once its coefficients are known."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64

from survlens.core.nonparametric import StepCurve, breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.ties import Ties
from survlens.models.estimator import SurvivalEstimator


class ProportionalHazards(SurvivalEstimator):
    """S(t | x) = exp(-H0(t) * exp((x - centre)' coef)), a step curve with knots at the event times.

    The risk is the log hazard ratio against an instance with the training means.

    Attributes:
        coef_: Log hazard ratio per unit of each covariate.
        centre_: Training mean of each covariate.
        baseline_times_: Knots: the event times, and the last observed time.
        baseline_hazard_: Cumulative hazard of an instance at `centre_`, at the knots.
    """

    _fitted: ClassVar[tuple[str, ...]] = ("centre_", "coef_", "baseline_times_", "baseline_hazard_")

    @property
    def baseline_(self) -> StepCurve:
        """Cumulative hazard of an instance with the training means."""
        self._check_fitted()
        return StepCurve(self.baseline_times_, self.baseline_hazard_, 0.0, self.unit_)

    @abstractmethod
    def _ties(self) -> Ties: ...

    def _set_coefficients(
        self,
        coef: Float64[np.ndarray, " feature"],
        values: Float64[np.ndarray, "instance feature"],
        outcome: SurvivalOutcome,
    ) -> None:
        """Keeps the coefficients and fits the baseline that belongs to them."""
        self.coef_, self.centre_ = coef, values.mean(0)
        curve = breslow_baseline(self._risk(values), outcome, ties=self._ties())
        times, hazard = with_last_time(curve, outcome)
        self.baseline_times_, self.baseline_hazard_ = times, hazard

    def _risk(self, values: Float64[np.ndarray, "instance feature"]) -> Float64[np.ndarray, " instance"]:
        return (values - self.centre_) @ self.coef_

    def _curves(self, values: Float64[np.ndarray, "instance feature"]) -> SurvivalPrediction:
        with np.errstate(divide="ignore", over="ignore"):
            log_hazard = self._risk(values)[:, None] + np.log(self.baseline_hazard_)
            return step_prediction(self.baseline_times_, -np.exp(log_hazard), self.unit_)


def with_last_time(curve: StepCurve, outcome: SurvivalOutcome) -> tuple[np.ndarray, np.ndarray]:
    """Knots and values of a curve, with a knot at the last observed time, up to which it may be asked."""
    last = float(outcome.time.max())
    if len(curve.times) and curve.times[-1] >= last:
        return curve.times, curve.values
    end = curve.values[-1] if len(curve.values) else curve.initial
    return np.append(curve.times, last), np.append(curve.values, end)


def step_prediction(times: np.ndarray, log_survival: np.ndarray, unit: str) -> SurvivalPrediction:
    """A step prediction from arrays."""
    return SurvivalPrediction(
        torch.from_numpy(np.array(times)), torch.from_numpy(np.array(log_survival)), Interpolation.STEP, unit
    )


def standardised(
    values: Float64[np.ndarray, "instance feature"],
) -> tuple[Float64[np.ndarray, "instance feature"], Float64[np.ndarray, " feature"]]:
    """Columns with mean 0 and (population) standard deviation 1, and the deviations; constant columns become 0."""
    centre, spread = values.mean(0), values.std(0)
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(values).max(0, initial=0.0))
    spread = np.where(varies, spread, 1.0)
    return np.where(varies, (values - centre) / spread, 0.0), spread
