"""What every linear proportional-hazards model shares once its coefficients are known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.nonparametric import StepCurve, breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction, Times
from survlens.core.ties import Ties
from survlens.models.estimator import SurvivalEstimator
from survlens.models.matrix import Covariates

StratumOfRows = int | Sequence[int] | np.ndarray | Tensor
"""One stratum for all rows, or one for each."""


class ProportionalHazards(SurvivalEstimator):
    """S(t | x) = exp(-H0(t) * exp((x - centre)' coef)), a step curve with knots at the event times.

    The risk is the log hazard ratio against an instance with the training means. Weights count in the means as well.
    Where the training rows stood in strata, every stratum has a baseline H0 of its own, and `predict_survival` must be
    told the stratum of each row.

    Attributes:
        coef_: Log hazard ratio per unit of each covariate.
        centre_: Training mean of each covariate.
        strata_: Strata of the training rows, rising; empty where there were none.
        baseline_times_: Knots: the event times, and the last observed time; of one stratum after the other.
        baseline_hazard_: Cumulative hazard of an instance at `centre_`, at the knots.
        baseline_stratum_: Stratum of each knot; empty where there were no strata.
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        *("centre_", "coef_", "strata_", "baseline_stratum_"),
        *("baseline_times_", "baseline_hazard_"),
    )
    _honours: ClassVar[tuple[str, ...]] = ("entry", "weight", "stratum")

    @property
    def baseline_(self) -> StepCurve:
        """Cumulative hazard of an instance with the training means, of a model without strata.

        Raises:
            InvalidValueError: If the model has strata.
        """
        self._check_fitted()
        if len(self.strata_):
            raise InvalidValueError(
                f"A model with strata ({_listed(self.strata_)}) has no single baseline. Call baseline_of(stratum)."
            )
        return StepCurve(self.baseline_times_, self.baseline_hazard_, 0.0, self.unit_)

    def baseline_of(self, stratum: int) -> StepCurve:
        """Cumulative hazard of an instance of one stratum with the training means.

        Raises:
            InvalidValueError: If no training row was in that stratum.
        """
        self._check_fitted()
        self._strata_of_rows(stratum, 1)
        knots = self.baseline_stratum_ == stratum
        return StepCurve(self.baseline_times_[knots], self.baseline_hazard_[knots], 0.0, self.unit_)

    @abstractmethod
    def _ties(self) -> Ties: ...

    def _set_coefficients(
        self,
        coef: Float64[np.ndarray, " feature"],
        values: Float64[np.ndarray, "instance feature"],
        outcome: SurvivalOutcome,
    ) -> None:
        """Keeps the coefficients and fits the baselines that belong to them."""
        self.coef_, self.centre_ = coef, np.average(values, axis=0, weights=outcome.weights().numpy())
        log_risk = self._risk(values)
        self.strata_ = self.baseline_stratum_ = np.empty(0, dtype=np.int64)
        if outcome.stratum is None:
            self.baseline_times_, self.baseline_hazard_ = self._baseline(log_risk, outcome)
            return
        strata = outcome.stratum.numpy()
        self.strata_ = np.unique(strata)
        parts = [self._baseline(log_risk[strata == k], _one_stratum(outcome, k)) for k in self.strata_]
        self.baseline_stratum_ = np.repeat(self.strata_, [len(times) for times, _ in parts])
        self.baseline_times_ = np.concatenate([times for times, _ in parts])
        self.baseline_hazard_ = np.concatenate([hazard for _, hazard in parts])

    def _baseline(self, log_risk: np.ndarray, outcome: SurvivalOutcome) -> tuple[np.ndarray, np.ndarray]:
        return with_last_time(breslow_baseline(log_risk, outcome, ties=self._ties()), outcome)

    def predict_survival(
        self, X: Covariates, times: Times | None = None, *, stratum: StratumOfRows | None = None
    ) -> SurvivalPrediction:
        """Survival curves of the rows, at the knots of the fit or at `times`.

        Rows of several strata get curves up to the earliest of the last times of these strata.

        Args:
            X: Covariates.
            times: Times at which to give the curves; None for the knots.
            stratum: Stratum of each row, or one for all; for a model with strata only.

        Raises:
            InvalidValueError: If `times` reach past the last time of the training rows, or `stratum` is missing,
                unknown, or given to a model without strata.
        """
        values = self._matrix(X)
        curves = self._curves(values) if stratum is None else self._stratified_curves(values, stratum)
        return curves if times is None else curves.at(times)

    def _risk(self, values: Float64[np.ndarray, "instance feature"]) -> Float64[np.ndarray, " instance"]:
        return (values - self.centre_) @ self.coef_

    def _curves(self, values: Float64[np.ndarray, "instance feature"]) -> SurvivalPrediction:
        if len(self.strata_):
            raise InvalidValueError(
                f"`stratum` must name the stratum of each row ({_listed(self.strata_)}); got None. A model fitted with "
                "strata has one baseline for each."
            )
        return self._with_baseline(values, self.baseline_times_, self.baseline_hazard_)

    def _stratified_curves(self, values: np.ndarray, stratum: StratumOfRows) -> SurvivalPrediction:
        of_rows = self._strata_of_rows(stratum, len(values))
        asked, row = np.unique(of_rows, return_inverse=True)
        baselines = [self.baseline_of(int(k)) for k in (asked if len(asked) else self.strata_)]
        end = min(curve.times[-1] for curve in baselines)
        knots = np.unique(np.concatenate([curve.times for curve in baselines]))
        knots = knots[knots <= end]
        return self._with_baseline(values, knots, np.stack([curve.at(knots) for curve in baselines])[row])

    def _strata_of_rows(self, stratum: StratumOfRows, rows: int) -> Int64[np.ndarray, " instance"]:
        if not len(self.strata_):
            raise InvalidValueError("`stratum` must be None for a model that was fitted without strata. Leave it out.")
        given = stratum.detach().cpu().numpy() if isinstance(stratum, Tensor) else np.asarray(stratum)
        if given.dtype.kind not in "iu":
            raise InvalidTypeError(f"`stratum` must hold whole numbers; got {given.dtype}.")
        if given.shape not in ((), (rows,)):
            raise InvalidValueError(f"`stratum` must be one number or one per row; got {given.shape} for {rows} rows.")
        unknown = ~np.isin(given, self.strata_)
        if unknown.any():
            raise InvalidValueError(
                f"`stratum` must be one of the fit, {_listed(self.strata_)}; got {int(given[unknown].flat[0])}. "
                "A stratum without training rows has no baseline."
            )
        return np.broadcast_to(given, (rows,)).astype(np.int64)

    def _with_baseline(self, values: np.ndarray, times: np.ndarray, hazard: np.ndarray) -> SurvivalPrediction:
        with np.errstate(divide="ignore", over="ignore"):
            log_hazard = self._risk(values)[:, None] + np.log(hazard)
            return step_prediction(times, -np.exp(log_hazard), self.unit_)


def _one_stratum(outcome: SurvivalOutcome, stratum: int) -> SurvivalOutcome:
    """The rows of one stratum, as an outcome without strata."""
    part = outcome[np.flatnonzero(outcome.strata().numpy() == stratum)]
    return SurvivalOutcome(part.time, part.event, part.unit, part.entry, part.weight)


def _listed(strata: np.ndarray) -> str:
    shown = ", ".join(str(k) for k in strata[:8])
    return shown if len(strata) <= 8 else f"{shown}, ... {strata[-1]}"


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
    values: Float64[np.ndarray, "instance feature"], weight: Float64[np.ndarray, " instance"] | None = None
) -> tuple[Float64[np.ndarray, "instance feature"], Float64[np.ndarray, " feature"]]:
    """Columns with mean 0 and (population) standard deviation 1, and the deviations; constant columns become 0.

    Args:
        values: Columns.
        weight: How often each row counts; None for once.
    """
    centre, spread = values.mean(0), values.std(0)
    if weight is not None:
        centre = np.average(values, axis=0, weights=weight)
        spread = np.sqrt(np.average((values - centre) ** 2, axis=0, weights=weight))
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(values).max(0, initial=0.0))
    spread = np.where(varies, spread, 1.0)
    return np.where(varies, (values - centre) / spread, 0.0), spread
