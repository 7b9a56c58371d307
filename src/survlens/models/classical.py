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
from survlens.models.chi_squared import chi_squared_table, quadratic_form
from survlens.models.cross_fitting import patient_codes
from survlens.models.estimator import SurvivalEstimator
from survlens.models.matrix import Covariates
from survlens.models.newton import maximise, separated_columns, told_columns, warn_of_separation
from survlens.models.partial_likelihood import RiskSets
from survlens.models.proportional import ProportionalHazards, standardised, step_prediction

_AGAINST_SEPARATION = "Set `penalty` > 0, or remove or merge the covariate."


class KaplanMeierModel(SurvivalEstimator):
    """Everyone gets the Kaplan-Meier curve of the training rows, and risk 0: the reference that every model must beat.

    Delayed entry and weights are honoured; strata are refused, because a curve for everyone has none.

    Args:
        unit: Unit of time, for a `y` that does not know it.

    References:
        Kaplan and Meier 1958.
    """

    _fitted: ClassVar[tuple[str, ...]] = ("times_", "survival_")
    _honours: ClassVar[tuple[str, ...]] = ("entry", "weight")

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
    """Cox's proportional-hazards regression with standard errors and tests, plain or with a ridge.

    Maximises log-likelihood / n - penalty / 2 * |b|^2, where b are the coefficients of covariates with standard
    deviation 1; so a penalty means the same for every n and every scale. As in R, a column that is constant or a
    linear combination of earlier ones is left out of a fit without penalty: its coefficient is 0, its standard error
    NaN. Under a penalty the standard errors are those of the penalised information, and their intervals are those of a
    normal prior.

    Delayed entry, weights and strata of the outcome are honoured as in R's `coxph`: who is at risk at u has
    entry < u <= time and the stratum of the event; under Efron's rule tied events count their mean weight. With weights
    n is their sum, so that a weight of 2 is a row that stands twice.

    Args:
        penalty: Weight of the ridge; 0 for none.
        ties: Rule for equal event times.
        robust: Whether `covariance_` is the sandwich of Lin and Wei: V (sum over patients of u u') V, with V the
            covariance of the model and u the sum of weight * score residual over the rows of a patient. It holds where
            rows of a patient depend on each other (name them with `groups`), weights are not counts, or hazards are not
            quite proportional.
        unit: Unit of time, for a `y` that does not know it.

    Attributes:
        standard_error_: Standard error of each coefficient.
        covariance_: Covariance matrix of the coefficients; the sandwich if `robust`.
        model_covariance_: Covariance matrix that holds if the model does: the inverse information.
        log_likelihood_: Log partial likelihood at the coefficients, without the penalty.
        log_likelihood_null_: Log partial likelihood at zero.
        score_statistics_: Quadratic form of the score at zero in the inverse information there (the log-rank statistic
            of one binary covariate) and, if `robust`, in that of the scores of patients, each with its degrees of
            freedom; empty under a penalty.
        effective_parameters_: trace(information (information + penalty)^-1): without a penalty, the number of columns
            that were not left out.
        separated_: Which covariates separate the events in a fit without penalty, so that the likelihood rises forever
            and their coefficients stand where the climb was stopped; see Heinze and Schemper 2001. Predictions use
            them; `summary` and whatever rests on their standard errors give NaN.
        n_rows_: Number of training rows.
        n_events_: Number of events.
        n_patients_: Number of patients that `groups` names; the number of rows where it was not given or not used.

    Warns:
        ConvergenceWarning: If a covariate separates the events, so that its coefficient may be infinite.

    References:
        Cox 1972; Efron 1977; Lin and Wei 1989; Heinze and Schemper 2001.
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        *("covariance_", "model_covariance_", "log_likelihood_", "log_likelihood_null_"),
        *("score_statistics_", "effective_parameters_", "separated_", "n_rows_", "n_events_", "n_patients_"),
        *ProportionalHazards._fitted,
    )
    _choices: ClassVar = {"ties": Ties}

    def __init__(self, *, penalty: float = 0.0, ties: Ties = Ties.EFRON, robust: bool = False, unit: str = "time"):
        self.penalty = penalty
        self.ties = ties
        self.robust = robust
        self.unit = unit

    def _ties(self) -> Ties:
        return self.ties

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> CoxRegression:
        """Fits coefficients, covariance and baseline.

        Args:
            X: Covariates.
            y: Outcome of the same instances.
            groups: Patient of each row, whose rows may depend on each other; used by robust errors only. None where
                every row is a patient.

        Raises:
            InvalidValueError: If `penalty` is negative, `X` is not finite, or lengths differ.
            FitError: If there is no event, or there are too many columns for a fit without penalty.
        """
        matrix, outcome = self._training_rows(X, y)
        if not (np.isfinite(self.penalty) and self.penalty >= 0):
            raise InvalidValueError(f"`penalty` must be finite and >= 0; got {self.penalty}.")
        patient = patient_codes(len(outcome), groups if self.robust else None)
        risk_sets = RiskSets.of(outcome, self.ties)
        scaled, spread = standardised(matrix.values[risk_sets.order], risk_sets.weight)
        kept = self._kept(scaled, risk_sets)
        ridge = self.penalty * float(risk_sets.weight.sum())
        columns = scaled[:, kept]
        fit = maximise(risk_sets, columns, ridge=ridge)
        information = risk_sets.information(columns, columns @ fit.coef)
        self.score_statistics_, self.separated_ = np.empty((0, 2)), np.zeros(len(kept), dtype=bool)
        if not self.penalty:
            null = risk_sets.information(columns, np.zeros(len(columns)))
            self.score_statistics_ = self._scores(risk_sets, columns, null, patient)
            self.separated_[kept] = separated_columns(information, null)
            names = [matrix.names[each] for each in np.flatnonzero(kept)]
            warn_of_separation(self.separated_[kept], fit.coef, names, _AGAINST_SEPARATION)
        self.log_likelihood_ = fit.log_likelihood
        self.log_likelihood_null_ = float(risk_sets.log_likelihood(np.zeros(len(scaled))))
        self.n_rows_, self.n_events_, self.n_patients_ = len(outcome), outcome.n_events, int(patient.max()) + 1
        inverse = np.linalg.inv(information + ridge * np.eye(len(fit.coef)))
        self.effective_parameters_ = float(np.trace(information @ inverse))
        coef = np.zeros(len(kept))
        coef[kept] = fit.coef / spread[kept]
        self.model_covariance_ = self.covariance_ = _unscaled(inverse, kept, spread)
        if self.robust:
            scores = _by_patient(risk_sets, columns, columns @ fit.coef, patient)
            self.covariance_ = _unscaled(inverse @ (scores.T @ scores) @ inverse, kept, spread)
        self._set_coefficients(coef, matrix.values, outcome)
        return self

    def _scores(
        self, risk_sets: RiskSets, columns: np.ndarray, null: np.ndarray, patient: np.ndarray
    ) -> Float64[np.ndarray, "test 2"]:
        zero = np.zeros(len(columns))
        score = risk_sets.gradient(columns, zero)
        variances = [null]
        if self.robust:
            scores = _by_patient(risk_sets, columns, zero, patient)
            variances.append(scores.T @ scores)
        return np.array([quadratic_form(score, variance) for variance in variances])

    def _kept(self, scaled: np.ndarray, risk_sets: RiskSets) -> np.ndarray:
        if self.penalty:
            return scaled.std(0) > 0
        kept, followed = told_columns(scaled, risk_sets), int(risk_sets.followed_to_an_event().sum())
        if kept.any() and kept.sum() >= followed - 1:
            raise FitError(
                f"`X` must have fewer columns than rows at risk at an event, in a fit without penalty; got "
                f"{scaled.shape[1]} for {followed}. Set `penalty` > 0, or use RidgeCox or LassoCox."
            )
        return kept

    @property
    def standard_error_(self) -> Float64[np.ndarray, " feature"]:
        """Standard error of each coefficient, robust if `robust`; NaN where the column was left out or separates."""
        self._check_fitted()
        return np.where(self.separated_, np.nan, np.sqrt(np.diag(self.covariance_)))

    @property
    def aic_(self) -> float:
        """Akaike's criterion: -2 * log-likelihood + 2 * effective parameters; smaller is better."""
        self._check_fitted()
        return -2 * self.log_likelihood_ + 2 * self.effective_parameters_

    def summary(self, *, confidence: float = 0.95) -> pd.DataFrame:
        """One row per covariate: coefficient, standard error, hazard ratio with Wald limits, z and p.

        If `robust`, standard error, limits, z and p are those of the sandwich, and `model_standard_error` stands beside
        it. `attrs["covariance"]` of the frame says which it is. A covariate that separates the events has True under
        `separated` and no numbers: `likelihood_ratio_tests` still has a test of it, and a penalty an estimate.

        Args:
            confidence: Level of the limits.
        """
        if not 0 < confidence < 1:
            raise InvalidValueError(f"`confidence` must lie in (0, 1); got {confidence}.")
        error = self.standard_error_
        reach = ndtri(0.5 + confidence / 2) * error
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.coef_ / error
        model_error = {"model_standard_error": np.sqrt(np.diag(self.model_covariance_))} if self.robust else {}
        with np.errstate(over="ignore"):
            columns = {
                "coef": self.coef_,
                "standard_error": error,
                **model_error,
                "hazard_ratio": np.exp(self.coef_),
                "lower": np.exp(self.coef_ - reach),
                "upper": np.exp(self.coef_ + reach),
                "z": z,
                "p": 2 * ndtr(-np.abs(z)),
            }
        table = pd.DataFrame(columns, index=pd.Index(self.feature_names_, name="covariate"))
        table.loc[self.separated_] = np.nan
        table["separated"] = self.separated_
        table.attrs["covariance"] = _covariance_in_words(self.robust, self.n_rows_, self.n_patients_)
        return table

    def tests(self) -> pd.DataFrame:
        """Tests of the whole model against no effect of any covariate: statistic, degrees of freedom and p of each.

        Likelihood ratio: 2 * (l(b) - l(0)). Wald: b' V^-1 b, with V the sandwich if `robust`. Score: u' I^-1 u, with
        score u and information I at zero; for one binary covariate without ties it is the log-rank test. If `robust`,
        the likelihood ratio and the score still take rows for independent; Wald and `robust_score` do not.

        Where covariates separate the events, Wald is NaN: an infinite coefficient has no standard error, and the number
        that the stopped climb leaves says nothing. Likelihood ratio and scores hold there as well.

        Raises:
            InvalidValueError: If the fit has a penalty, under which none of them is a chi-squared.
        """
        self._check_fitted()
        if self.penalty:
            raise InvalidValueError(f"`penalty` must be 0 for tests of a fit; got {self.penalty}. Fit without it.")
        kept = ~np.isnan(np.diag(self.model_covariance_))
        coef, covariance = self.coef_[kept], self.covariance_[np.ix_(kept, kept)]
        scores = [(statistic, int(df)) for statistic, df in self.score_statistics_]
        tests = {
            "likelihood_ratio": (2 * (self.log_likelihood_ - self.log_likelihood_null_), int(kept.sum())),
            "wald": (np.nan, 0) if self.separated_.any() else quadratic_form(coef, covariance),
            **dict(zip(("score", "robust_score"), scores, strict=False)),
        }
        return chi_squared_table(tests, "test")


def _unscaled(covariance: np.ndarray, kept: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Covariance on the scale of all columns, NaN for those that were left out."""
    whole = np.full((len(kept), len(kept)), np.nan)
    whole[np.ix_(kept, kept)] = covariance / np.outer(spread[kept], spread[kept])
    return whole


def _by_patient(risk_sets: RiskSets, columns: np.ndarray, log_risk: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Weighted score residuals, summed over the rows of each patient."""
    scores = risk_sets.weight[:, None] * risk_sets.score_residuals(columns, log_risk)
    total = np.zeros((int(patient.max()) + 1, scores.shape[1]))
    np.add.at(total, patient[risk_sets.order], scores)
    return total


def _covariance_in_words(robust: bool, n_rows: int, n_patients: int) -> str:
    if not robust:
        return "model-based"
    return "robust, by row" if n_patients == n_rows else f"robust, clustered by {n_patients} patients"
