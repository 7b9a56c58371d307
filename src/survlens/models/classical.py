"""The two models that stand in every comparison: Kaplan-Meier without covariates, and Cox regression."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.special import ndtr, ndtri

from survlens.core.errors import FitError, InvalidValueError
from survlens.core.nonparametric import kaplan_meier
from survlens.core.prediction import SurvivalPrediction
from survlens.core.ties import Ties
from survlens.models.estimator import SurvivalEstimator
from survlens.models.matrix import Covariates
from survlens.models.newton import independent_columns, maximise, warn_if_monotone
from survlens.models.partial_likelihood import RiskSets
from survlens.models.proportional import ProportionalHazards, standardised, step_prediction


class KaplanMeierModel(SurvivalEstimator):
    """Everyone gets the Kaplan-Meier curve of the training rows, and risk 0: the reference that every model must beat.

    Args:
        unit: Unit of time, for a `y` that does not know it.

    References:
        Kaplan and Meier 1958.
    """

    _fitted: ClassVar[tuple[str, ...]] = ("times_", "survival_")

    def __init__(self, *, unit: str = "time"):
        self.unit = unit

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> KaplanMeierModel:
        """Fits the curve; `X` and `groups` are not used, but `X` is checked."""
        outcome = self._training_rows(X, y)[1]
        curve = kaplan_meier(outcome)
        self.times_, self.survival_ = curve.times, curve.survival
        return self

    def _risk(self, values: Float64[np.ndarray, "instance feature"]) -> Float64[np.ndarray, " instance"]:
        return np.zeros(len(values))

    def _curves(self, values: Float64[np.ndarray, "instance feature"]) -> SurvivalPrediction:
        with np.errstate(divide="ignore"):
            row = np.log(self.survival_)
        return step_prediction(self.times_, np.tile(row, (len(values), 1)), self.unit_)


class CoxRegression(ProportionalHazards):
    """Cox's proportional-hazards regression with standard errors, plain or with a ridge.

    Maximises log-likelihood / n - penalty / 2 * |b|^2, where b are the coefficients of covariates with standard
    deviation 1; so a penalty means the same for every n and every scale. As in R, a column that is constant or a
    linear combination of earlier ones is left out of a fit without penalty: its coefficient is 0, its standard error
    NaN. Under a penalty the standard errors are those of the penalised information, and their intervals are those of a
    normal prior.

    Args:
        penalty: Weight of the ridge; 0 for none.
        ties: Rule for equal event times.
        unit: Unit of time, for a `y` that does not know it.

    Attributes:
        standard_error_: Standard error of each coefficient.
        covariance_: Covariance matrix of the coefficients.
        log_likelihood_: Log partial likelihood at the coefficients, without the penalty.
        log_likelihood_null_: Log partial likelihood at zero.

    Warns:
        ConvergenceWarning: If a covariate separates the events, so that its coefficient may be infinite.

    References:
        Cox 1972; Efron 1977.
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        *("covariance_", "log_likelihood_", "log_likelihood_null_"),
        *ProportionalHazards._fitted,
    )
    _choices: ClassVar = {"ties": Ties}

    def __init__(self, *, penalty: float = 0.0, ties: Ties = Ties.EFRON, unit: str = "time"):
        self.penalty = penalty
        self.ties = ties
        self.unit = unit

    def _ties(self) -> Ties:
        return self.ties

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> CoxRegression:
        """Fits coefficients, covariance and baseline; `groups` is not used."""
        matrix, outcome = self._training_rows(X, y)
        if not (np.isfinite(self.penalty) and self.penalty >= 0):
            raise InvalidValueError(f"`penalty` must be finite and >= 0; got {self.penalty}.")
        risk_sets = RiskSets.of(outcome, self.ties)
        scaled, spread = standardised(matrix.values[risk_sets.order])
        kept = self._kept(scaled[risk_sets.followed_to_an_event()])
        ridge = self.penalty * len(outcome)
        columns = scaled[:, kept]
        fit = maximise(risk_sets, columns, ridge=ridge)
        information = risk_sets.information(columns, columns @ fit.coef)
        if not self.penalty:
            null = risk_sets.information(columns, np.zeros(len(columns)))
            warn_if_monotone(information, null, tuple(np.array(matrix.names, dtype=object)[kept]))
        self.log_likelihood_ = fit.log_likelihood
        self.log_likelihood_null_ = float(risk_sets.log_likelihood(np.zeros(len(scaled))))
        coef, self.covariance_ = np.zeros(len(kept)), np.full((len(kept), len(kept)), np.nan)
        coef[kept] = fit.coef / spread[kept]
        inverse = np.linalg.inv(information + ridge * np.eye(len(fit.coef)))
        self.covariance_[np.ix_(kept, kept)] = inverse / np.outer(spread[kept], spread[kept])
        self._set_coefficients(coef, matrix.values, outcome)
        return self

    def _kept(self, scaled: np.ndarray) -> np.ndarray:
        if self.penalty:
            return scaled.std(0) > 0
        kept = independent_columns(scaled)
        if kept.any() and kept.sum() >= len(scaled) - 1:
            raise FitError(
                f"`X` must have fewer columns than rows at risk at an event, in a fit without penalty; got "
                f"{scaled.shape[1]} for {len(scaled)}. Set `penalty` > 0, or use RidgeCox or LassoCox."
            )
        return kept

    @property
    def standard_error_(self) -> Float64[np.ndarray, " feature"]:
        """Standard error of each coefficient; NaN where the column was left out."""
        self._check_fitted()
        return np.sqrt(np.diag(self.covariance_))

    def summary(self, *, confidence: float = 0.95) -> pd.DataFrame:
        """One row per covariate: coefficient, standard error, hazard ratio with Wald limits, z and p.

        Args:
            confidence: Level of the limits.
        """
        if not 0 < confidence < 1:
            raise InvalidValueError(f"`confidence` must lie in (0, 1); got {confidence}.")
        error = self.standard_error_
        reach = ndtri(0.5 + confidence / 2) * error
        z = self.coef_ / error
        with np.errstate(over="ignore"):
            columns = {
                "coef": self.coef_,
                "standard_error": error,
                "hazard_ratio": np.exp(self.coef_),
                "lower": np.exp(self.coef_ - reach),
                "upper": np.exp(self.coef_ + reach),
                "z": z,
                "p": 2 * ndtr(-np.abs(z)),
            }
        return pd.DataFrame(columns, index=pd.Index(self.feature_names_, name="covariate"))
