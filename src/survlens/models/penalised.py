"""Cox regression whose penalty is chosen by cross-validation: ridge, LASSO and elastic net."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from survlens.core.errors import FitError, InvalidValueError, MissingDependencyError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.models.cross_fitting import patient_folds
from survlens.models.matrix import Covariates
from survlens.models.newton import maximise, separated_columns, told_columns, warn_of_separation
from survlens.models.partial_likelihood import RiskSets
from survlens.models.proportional import ProportionalHazards, standardised

Path = Float64[np.ndarray, "penalty feature"]
_FINAL, _IN_FOLD = 1e-9, 1e-7
"""Tolerance of a fit that is kept, and of one that only helps to choose the penalty."""
_FREE = 1e4
"""Stretch of a column that is not penalised."""
_NEARLY_NONE = 1e-10
"""Penalty that keeps a climb finite and leaves a separating column less than a millionth of its information."""


class PenaltyRule(Enum):
    """Which penalty of the path is taken.

    MINIMUM: the one of the smallest cross-validated deviance. ONE_STANDARD_ERROR: the largest whose deviance lies
        within one standard error of that.
    """

    MINIMUM = "minimum"
    ONE_STANDARD_ERROR = "one standard error"


class CrossValidatedCox(ProportionalHazards):
    """A path of penalised Cox fits, and the one that predicts best out of fold.

    The deviance of fold k is -2 * (l(b_k) - l_k(b_k)) per event of the fold, where b_k are the coefficients fitted
    without the fold, l is the log partial likelihood of all rows and l_k that of the rows without the fold. Covariates
    are scaled to standard deviation 1 on the rows of each fit.

    Attributes:
        penalties_: Penalties of the path, falling.
        coef_path_: Coefficients on the scale of the covariates, one row per penalty.
        deviance_: Cross-validated deviance per event, one value per penalty.
        deviance_error_: Its standard error over folds.
        penalty_: The penalty taken; `coef_` is its row of the path.

    References:
        Verweij and van Houwelingen 1993; Simon et al. 2011.
    """

    penalties: int | Sequence[float]
    folds: int
    rule: PenaltyRule
    seed: int

    _fitted: ClassVar[tuple[str, ...]] = (
        *("penalties_", "coef_path_", "deviance_", "deviance_error_", "penalty_"),
        *ProportionalHazards._fitted,
    )
    _choices: ClassVar = {"rule": PenaltyRule}

    @abstractmethod
    def _largest_penalty(self, steepest: float) -> float:
        """Where an automatic path starts, given the largest gradient per instance at zero."""

    @abstractmethod
    def _path(
        self, scaled: Float64[np.ndarray, "instance feature"], outcome: SurvivalOutcome, tolerance: float
    ) -> Path:
        """Coefficients at the penalties of `penalties_`, for standardised covariates.

        A path may end early, where a smaller penalty no longer changes the fit.
        """

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> CrossValidatedCox:
        """Fits the path, and chooses its penalty over folds of whole patients.

        Args:
            X: Covariates.
            y: Outcome of the same instances.
            groups: Patient of each row; None where every row is a patient.
        """
        matrix, outcome = self._training_rows(X, y)
        fold = patient_folds(outcome, groups, folds=self.folds, seed=self.seed)
        self.penalties_ = self._all_penalties(matrix.values, outcome)
        self.coef_path_ = self._unscaled_path(matrix.values, outcome, _FINAL)
        self.penalties_ = self.penalties_[: len(self.coef_path_)]
        self.deviance_, self.deviance_error_ = self._cross_validate(matrix.values, outcome, fold)
        taken = _taken(self.deviance_, self.deviance_error_, self.rule)
        self.penalty_ = float(self.penalties_[taken])
        self._set_coefficients(self.coef_path_[taken], matrix.values, outcome)
        return self

    def _all_penalties(self, values: np.ndarray, outcome: SurvivalOutcome) -> Float64[np.ndarray, " penalty"]:
        if not isinstance(self.penalties, int):
            given = np.sort(np.asarray(self.penalties, dtype=np.float64))[::-1]
            if not len(given) or not np.isfinite(given).all() or given[-1] <= 0:
                raise InvalidValueError(f"`penalties` must be finite and > 0; got {self.penalties}.")
            return given
        if self.penalties < 2:
            raise InvalidValueError(
                f"`penalties` must be at least two, or the values themselves; got {self.penalties}."
            )
        risk_sets = RiskSets.of(outcome, self._ties())
        scaled = standardised(values[risk_sets.order], risk_sets.weight)[0]
        steepest = np.abs(risk_sets.gradient(scaled, np.zeros(len(scaled)))).max(initial=0.0) / risk_sets.weight.sum()
        if steepest <= 1e-12:
            raise FitError("`X` must have a column that varies among those at risk; got none. Check the covariates.")
        smallest = 1e-3 if len(scaled) > scaled.shape[1] else 0.05
        return self._largest_penalty(steepest) * np.geomspace(1.0, smallest, self.penalties)

    def _unscaled_path(self, values: np.ndarray, outcome: SurvivalOutcome, tolerance: float) -> Path:
        scaled, spread = standardised(values, outcome.weights().numpy())
        return self._path(scaled, outcome, tolerance) / spread

    def _cross_validate(
        self, values: np.ndarray, outcome: SurvivalOutcome, fold: np.ndarray
    ) -> tuple[Float64[np.ndarray, " penalty"], Float64[np.ndarray, " penalty"]]:
        folds = [k for k in range(self.folds) if outcome[fold == k].n_events]
        died = np.where(outcome.numpy()[1] > 0, outcome.weights().numpy(), 0.0)
        events = np.array([died[fold == k].sum() for k in folds])
        whole = RiskSets.of(outcome, self._ties())
        deviances = np.empty((len(folds), len(self.penalties_)))
        for row, k in enumerate(folds):
            training = fold != k
            part = outcome[training]
            path = self._unscaled_path(values[training], part, _IN_FOLD)
            log_risk = values @ np.pad(path, ((0, len(self.penalties_) - len(path)), (0, 0)), mode="edge").T
            part_sets = RiskSets.of(part, self._ties())
            gain = whole.log_likelihood(log_risk[whole.order])
            gain = gain - part_sets.log_likelihood(log_risk[training][part_sets.order])
            deviances[row] = -2 * gain / events[row]
        weights = events / events.sum()
        deviances[np.isnan(deviances)] = np.inf  # a fit whose risks overflow beyond its rows is the worst
        mean = weights @ deviances
        spread = np.where(np.isinf(mean), np.inf, deviances) - np.where(np.isinf(mean), 0.0, mean)
        return mean, np.sqrt(weights @ spread**2 / max(len(folds) - 1, 1))


def _taken(deviance: np.ndarray, error: np.ndarray, rule: PenaltyRule) -> int:
    best = int(np.argmin(deviance))
    if rule is PenaltyRule.MINIMUM:
        return best
    return int(np.flatnonzero(deviance <= deviance[best] + error[best])[0])


class RidgeCox(CrossValidatedCox):
    """Cox regression that maximises log-likelihood / n - penalty / 2 * |b|^2, the penalty chosen by cross-validation.

    Delayed entry, weights and strata are honoured as by `CoxRegression`; with weights n and the events of a fold are
    sums of weights.

    Args:
        penalties: Length of an automatic path, or the penalties themselves.
        folds: Folds of the cross-validation.
        rule: Which penalty of the path to take.
        ties: Rule for equal event times.
        seed: Seed of the folds.
        unit: Unit of time, for a `y` that does not know it.

    References:
        Verweij and van Houwelingen 1994.
    """

    _choices: ClassVar = {"rule": PenaltyRule, "ties": Ties}

    def __init__(
        self,
        *,
        penalties: int | Sequence[float] = 20,
        folds: int = 5,
        rule: PenaltyRule = PenaltyRule.MINIMUM,
        ties: Ties = Ties.EFRON,
        seed: int = 0,
        unit: str = "time",
    ):
        self.penalties = penalties
        self.folds = folds
        self.rule = rule
        self.ties = ties
        self.seed = seed
        self.unit = unit

    def _ties(self) -> Ties:
        return self.ties

    def _largest_penalty(self, steepest: float) -> float:
        return 1e3 * steepest

    def _path(
        self, scaled: Float64[np.ndarray, "instance feature"], outcome: SurvivalOutcome, tolerance: float
    ) -> Path:
        risk_sets = RiskSets.of(outcome, self.ties)
        stretch = self._stretch(scaled.shape[1])
        rows, back = (scaled * stretch)[risk_sets.order], np.eye(scaled.shape[1])
        if scaled.shape[1] > len(scaled):
            # The ridge solution lies in the span of the rows, so n coordinates suffice.
            left, size, back = np.linalg.svd(rows, full_matrices=False)
            rows = left * size
        coef, path = np.zeros(rows.shape[1]), []
        for penalty in self.penalties_:
            ridge = penalty * float(risk_sets.weight.sum())
            coef = maximise(risk_sets, rows, ridge=ridge, start=coef, tolerance=tolerance).coef
            path.append(coef @ back * stretch)
        return np.array(path)

    def _stretch(self, columns: int) -> Float64[np.ndarray, " feature"]:
        """Factor on each standardised column: one that is stretched k-fold is shrunk by a penalty / k^2."""
        return np.ones(columns)


class PartialRidgeCox(RidgeCox):
    """`RidgeCox` whose penalty leaves out some columns, such as the age beside five hundred latent dimensions.

    Shrunk with them, age would leave its effect to whatever correlates with it. Equal event times are counted as by
    Efron.

    Args:
        unpenalised: Names of columns that are not shrunk; columns of a plain array are numbered from 0.
        penalties: Length of an automatic path, or the penalties themselves.
        folds: Folds of the cross-validation.
        rule: Which penalty of the path to take.
        seed: Seed of the folds.
        unit: Unit of time, for a `y` that does not know it.

    Raises:
        InvalidValueError: If a column is not one of `X` (by `fit`).

    Warns:
        ConvergenceWarning: If a column that is not shrunk separates the events, so that its coefficient stands where
            the climb was stopped. Shrunk columns always have a finite one.

    References:
        Verweij and van Houwelingen 1994.
    """

    _choices: ClassVar = {"rule": PenaltyRule}

    def __init__(
        self,
        *,
        unpenalised: Sequence[str | int] = (),
        penalties: int | Sequence[float] = 20,
        folds: int = 5,
        rule: PenaltyRule = PenaltyRule.MINIMUM,
        seed: int = 0,
        unit: str = "time",
    ):
        super().__init__(penalties=penalties, folds=folds, rule=rule, seed=seed, unit=unit)
        self.unpenalised = unpenalised

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> PartialRidgeCox:
        """Fits the path, and chooses its penalty over folds of whole patients.

        Args:
            X: Covariates.
            y: Outcome of the same instances.
            groups: Patient of each row; None where every row is a patient.
        """
        super().fit(X, y, groups)
        separated, coef = self._separated(self._matrix(X), self._outcome(y))
        names = [str(name) for name in self.feature_names_]
        warn_of_separation(separated, coef, names, "Leave it out of `unpenalised`, or remove or merge it.")
        return self

    def _separated(
        self, values: Float64[np.ndarray, "instance feature"], outcome: SurvivalOutcome
    ) -> tuple[Bool[np.ndarray, " feature"], Float64[np.ndarray, " feature"]]:
        """Which columns separate the events, and the coefficients of a fit of the columns that are not shrunk.

        The likelihood can rise forever along those columns only, and whether it does is theirs alone to say: what
        the shrunk columns add to the log-risk stays finite.
        """
        separated, coef = np.zeros(values.shape[1], dtype=bool), np.zeros(values.shape[1])
        free = np.flatnonzero(self._stretch(values.shape[1]) > 1)
        risk_sets = RiskSets.of(outcome, self.ties)
        columns = standardised(values[risk_sets.order][:, free], risk_sets.weight)[0]
        told = told_columns(columns, risk_sets)
        free, columns = free[told], columns[:, told]
        coef[free] = maximise(risk_sets, columns, ridge=_NEARLY_NONE * float(risk_sets.weight.sum())).coef
        null = risk_sets.information(columns, np.zeros(len(columns)))
        separated[free] = separated_columns(risk_sets.information(columns, columns @ coef[free]), null)
        return separated, coef

    def _stretch(self, columns: int) -> Float64[np.ndarray, " feature"]:
        stretch = super()._stretch(columns)
        for name in self.unpenalised:
            found = name if isinstance(name, int) and 0 <= name < columns else None
            if found is None and name in self.feature_names_:
                found = self.feature_names_.index(str(name))
            if found is None:
                raise InvalidValueError(
                    f"`unpenalised` must name columns of `X`; got {name!r} of {', '.join(self.feature_names_[:8])}."
                )
            stretch[found] = _FREE
        return stretch


def ridge_coefficients(
    X: Float64[np.ndarray, "instance feature"],
    outcome: SurvivalOutcome,
    penalty: float,
    *,
    unpenalised: Sequence[int] = (),
) -> Float64[np.ndarray, " feature"]:
    """Coefficients of `PartialRidgeCox` at one given penalty, without cross-validation and without a baseline.

    It is what a bootstrap repeats. Coefficients are exact to about 1e-4 standard errors.

    Args:
        X: Covariates.
        outcome: Outcome of the same rows.
        penalty: The penalty, > 0.
        unpenalised: Numbers of columns that are not shrunk.

    Raises:
        FitError: If there is no event, or the fit does not converge.
    """
    if not outcome.n_events:
        raise FitError(f"`outcome` must hold at least one event; got none in {len(outcome)} rows.")
    model = PartialRidgeCox(penalties=[penalty], unpenalised=tuple(unpenalised))
    model.feature_names_, model.penalties_ = (), model._all_penalties(X, outcome)
    return model._unscaled_path(X, outcome, _IN_FOLD)[0]


class LassoCox(CrossValidatedCox):
    """Cox regression with the LASSO or the elastic net, by scikit-survival's coordinate descent (Breslow ties).

    Maximises log-likelihood / n - penalty * (l1_ratio * |b|_1 + (1 - l1_ratio) / 2 * |b|^2), the penalty chosen by
    cross-validation; most coefficients are exactly 0. The path ends where the deviance no longer changes.
    Coefficients of standardised covariates are exact to about 1e-4, the tolerance of the descent. Delayed entry,
    weights and strata are refused, because the descent knows none of them.

    Args:
        l1_ratio: 1 for the LASSO, less for an elastic net.
        penalties: Length of an automatic path, or the penalties themselves.
        folds: Folds of the cross-validation.
        rule: Which penalty of the path to take.
        seed: Seed of the folds.
        unit: Unit of time, for a `y` that does not know it.

    Raises:
        MissingDependencyError: If scikit-survival is not installed (by `fit`).

    References:
        Tibshirani 1997; Simon et al. 2011.
    """

    _honours: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        l1_ratio: float = 1.0,
        penalties: int | Sequence[float] = 100,
        folds: int = 5,
        rule: PenaltyRule = PenaltyRule.MINIMUM,
        seed: int = 0,
        unit: str = "time",
    ):
        self.l1_ratio = l1_ratio
        self.penalties = penalties
        self.folds = folds
        self.rule = rule
        self.seed = seed
        self.unit = unit

    def _ties(self) -> Ties:
        return Ties.BRESLOW

    def _largest_penalty(self, steepest: float) -> float:
        return steepest / self.l1_ratio

    def _all_penalties(self, values: np.ndarray, outcome: SurvivalOutcome) -> Float64[np.ndarray, " penalty"]:
        if not 0 < self.l1_ratio <= 1:
            raise InvalidValueError(f"`l1_ratio` must lie in (0, 1]; got {self.l1_ratio}. Use RidgeCox for 0.")
        return super()._all_penalties(values, outcome)

    def _path(
        self, scaled: Float64[np.ndarray, "instance feature"], outcome: SurvivalOutcome, tolerance: float
    ) -> Path:
        try:
            from sksurv.linear_model import CoxnetSurvivalAnalysis
            from sksurv.util import Surv
        except ImportError:
            raise missing_baselines("LassoCox") from None
        time, event = outcome.numpy()
        kept = scaled.std(0) > 0
        solver = CoxnetSurvivalAnalysis(l1_ratio=self.l1_ratio, alphas=self.penalties_, tol=tolerance)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="all coefficients are zero")
            try:
                solver.fit(scaled[:, kept], Surv.from_arrays(event > 0, time))
            except ArithmeticError as err:
                raise FitError(
                    f"LassoCox failed at a small penalty ({err}). Give `penalties` that end above "
                    f"{self.penalties_[-1]:.3g}, or lower `l1_ratio`."
                ) from err
        path = np.zeros((solver.coef_.shape[1], scaled.shape[1]))
        path[:, kept] = solver.coef_.T
        return path


def missing_baselines(model: str) -> MissingDependencyError:
    """The error of a model that needs scikit-survival where it is not installed."""
    return MissingDependencyError(
        f'{model} needs scikit-survival, which is an extra: pip install "survlens[baselines]".'
    )
