"""Residuals, the test of proportional hazards, likelihood-ratio tests and curves with limits for a fitted Cox model.

A fitted model holds no training row, so each function takes the rows of the fit again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64
from scipy.special import ndtri
from scipy.stats import rankdata

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import Limits, survival_curve
from survlens.core.outcome import SurvivalOutcome
from survlens.models.chi_squared import chi_squared_table, quadratic_form
from survlens.models.classical import CoxRegression
from survlens.models.matrix import Covariates
from survlens.models.newton import endless_directions, maximise
from survlens.models.partial_likelihood import RiskSets
from survlens.models.proportional import StratumOfRows, standardised

_SAME_FIT = 1e-7
_APART = 1e-3
"""Difference along a direction, in standard deviations of it, from which two rows differ."""


class TimeTransform(Enum):
    """Function of time with which a coefficient may change, in the test of proportional hazards.

    KAPLAN_MEIER: 1 - S(t-), by Kaplan-Meier of the outcome, whatever its strata and weights; robust to long tails.
    RANK: rank of the time among all times. IDENTITY: the time. LOG: its logarithm.
    """

    KAPLAN_MEIER = "km"
    RANK = "rank"
    IDENTITY = "identity"
    LOG = "log"


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of the fit, in the order of their risk sets; covariates less the training means."""

    sets: RiskSets
    columns: Float64[np.ndarray, "instance feature"]
    log_risk: Float64[np.ndarray, " instance"]
    kept: Bool[np.ndarray, " feature"]
    outcome: SurvivalOutcome

    @property
    def tested(self) -> Float64[np.ndarray, "instance feature"]:
        """Columns that were not left out of the fit."""
        return self.columns[:, self.kept]

    def in_row_order(self, values: np.ndarray) -> np.ndarray:
        """Values of positions, as values of rows."""
        placed = np.empty_like(values)
        placed[self.sets.order] = values
        return placed

    def of_events(self, values: Float64[np.ndarray, "event feature"]) -> Float64[np.ndarray, "instance feature"]:
        """Values of events, as values of rows; NaN for rows without an event."""
        whole = np.full((len(self.columns), values.shape[1]), np.nan)
        whole[self.sets.order[self.sets.events]] = values
        return whole


def _rows(model: CoxRegression, X: Covariates, y: object) -> _Rows:
    values, outcome = model._matrix(X), model._outcome(y)
    if len(values) != len(outcome):
        raise InvalidValueError(f"`X` and `y` must have one row per instance; got {len(values)} and {len(outcome)}.")
    sets = RiskSets.of(outcome, model.ties)
    columns = (values - model.centre_)[sets.order]
    log_risk = columns @ model.coef_
    value = float(sets.log_likelihood(log_risk)) if outcome.n_events else np.nan
    if not abs(value - model.log_likelihood_) <= _SAME_FIT * (1 + abs(model.log_likelihood_)):
        raise InvalidValueError(
            f"`X` and `y` must be the rows of the fit, of log-likelihood {model.log_likelihood_:.6g}; got rows of "
            f"{value:.6g}. Pass what was passed to `fit`."
        )
    return _Rows(sets, columns, log_risk, ~np.isnan(np.diag(model.model_covariance_)), outcome)


def martingale_residuals(model: CoxRegression, X: Covariates, y: object) -> Float64[np.ndarray, " instance"]:
    """Events of each row less those that the model expects of it: delta - exp(log-risk) * H0 over (entry, time].

    Under Efron's rule an event is exposed to its share of its own tie. Weighted, they sum to 0.

    Args:
        model: Fitted model.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.

    Raises:
        InvalidValueError: If the rows are not those of the fit.

    References:
        Therneau et al. 1990.
    """
    rows = _rows(model, X, y)
    return rows.in_row_order(rows.sets.martingale_residuals(rows.log_risk))


def score_residuals(model: CoxRegression, X: Covariates, y: object) -> Float64[np.ndarray, "instance feature"]:
    """What each row adds to the score, per unit of its weight: its part of the derivative of the log-likelihood.

    Weighted, they sum to the score: 0 without a penalty. As in R they are exact under Efron's rule, too.

    Args:
        model: Fitted model.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.

    Raises:
        InvalidValueError: If the rows are not those of the fit.

    References:
        Therneau et al. 1990; Lin and Wei 1989.
    """
    rows = _rows(model, X, y)
    return rows.in_row_order(rows.sets.score_residuals(rows.columns, rows.log_risk))


def dfbeta_residuals(model: CoxRegression, X: Covariates, y: object) -> Float64[np.ndarray, "instance feature"]:
    """Derivative of the coefficients by the weight of each row: score residual times model covariance.

    For a row of weight 1 it is about what the coefficients lose without the row. Columns that were left out are 0,
    those that separate the events NaN.

    Args:
        model: Fitted model.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.

    Raises:
        InvalidValueError: If the rows are not those of the fit.

    References:
        Cain and Lange 1984; Lin and Wei 1989.
    """
    residuals = score_residuals(model, X, y) @ np.nan_to_num(model.model_covariance_, nan=0.0)
    return np.where(model.separated_, np.nan, residuals)


def schoenfeld_residuals(model: CoxRegression, X: Covariates, y: object) -> Float64[np.ndarray, "instance feature"]:
    """Covariates of each event less their mean over its risk set; NaN for rows without an event.

    The mean is weighted by weight * exp(log-risk), and under Efron's rule averaged over the denominators of the tie.

    Args:
        model: Fitted model.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.

    Raises:
        InvalidValueError: If the rows are not those of the fit.

    References:
        Schoenfeld 1982.
    """
    rows = _rows(model, X, y)
    return rows.of_events(rows.sets.schoenfeld_residuals(rows.columns, rows.log_risk))


def scaled_schoenfeld_residuals(
    model: CoxRegression, X: Covariates, y: object
) -> Float64[np.ndarray, "instance feature"]:
    """Schoenfeld residuals times events * model covariance, plus the coefficients; NaN for rows without an event.

    Smoothed over time they show the course of each coefficient: flat, where hazards are proportional. NaN for columns
    that were left out or separate the events.

    Args:
        model: Fitted model.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.

    Raises:
        InvalidValueError: If the rows are not those of the fit.

    References:
        Grambsch and Therneau 1994.
    """
    covariance = np.nan_to_num(model.model_covariance_, nan=0.0)
    left_out = np.isnan(np.diag(model.model_covariance_))
    scaled = schoenfeld_residuals(model, X, y) @ covariance * model.n_events_ + model.coef_
    return np.where(left_out | model.separated_, np.nan, scaled)


def proportional_hazards_test(
    model: CoxRegression,
    X: Covariates,
    y: object,
    *,
    transform: TimeTransform = TimeTransform.KAPLAN_MEIER,
    terms: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Score test of gamma = 0 in the log-risk x' (b + gamma * g(t)): statistic, degrees of freedom and p.

    One row per covariate, or per term, and "GLOBAL" for all covariates. A small p says that the hazard ratio of the
    covariate changes over time, so that its coefficient is an average. The statistic is u' J^-1 u, with u = (0, sum
    over events of g * Schoenfeld residual) and J the information of (b, gamma) at the fit, as in `cox.zph` of R's
    survival 3; earlier versions, and lifelines, approximate J. A `robust` fit is tested with J, too.

    A covariate that separates the events is NaN and no part of a term or of "GLOBAL": its ratio is infinite at all
    times, and nothing tells whether it changes. The others are tested as among the rows that are still compared.

    Where delayed entry lets the Kaplan-Meier curve fall to 0 early, KAPLAN_MEIER is flat from there on: take RANK.

    Args:
        model: Fitted model without a penalty.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.
        transform: g(t).
        terms: Name to the covariates that are tested together, such as the columns of one factor; None for each alone.

    Raises:
        InvalidValueError: If the rows are not those of the fit, the fit has a penalty, or a term names an unknown
            covariate.

    References:
        Grambsch and Therneau 1994.
    """
    rows = _rows(model, X, y)
    if model.penalty:
        raise InvalidValueError(f"`model` must be fitted with penalty 0; got {model.penalty}. Fit without it.")
    of_term = _terms(terms, model.feature_names_, rows.kept, rows.kept & ~model.separated_)
    columns, sets = rows.tested, rows.sets
    at_row = _transformed(rows.outcome, transform)[sets.order]
    at_event = at_row[sets.events]
    at_event = at_event - at_event.mean()
    spread = np.abs(at_event).max(initial=0.0)
    g = at_event / spread if spread > 0 else at_event
    means = sets.means(columns, rows.log_risk)
    score = (g * sets.weight[sets.events]) @ columns[sets.events] - (g * sets.count) @ means
    plain, crossed, squared = (sets.information(columns, rows.log_risk, factor) for factor in (None, g, g**2))
    # The score of b is 0 at the fit, so of J^-1 only the block of gamma counts: the inverse of what b leaves of it.
    left = squared - crossed.T @ np.linalg.solve(plain, crossed)
    whole = np.diag(squared)
    tests = {
        name: quadratic_form(score[chosen], left[np.ix_(chosen, chosen)], out_of=whole[chosen])
        for name, chosen in of_term.items()
    }
    return chi_squared_table(tests, "covariate" if terms is None else "term")


def _transformed(outcome: SurvivalOutcome, transform: TimeTransform) -> Float64[np.ndarray, " instance"]:
    check_choice("transform", transform, TimeTransform)
    time = outcome.numpy()[0]
    if transform is TimeTransform.KAPLAN_MEIER:
        plain = SurvivalOutcome(outcome.time, outcome.event, outcome.unit, outcome.entry)
        return 1 - survival_curve(plain).before(time)
    if transform is TimeTransform.RANK:
        return rankdata(time)
    return np.log(time) if transform is TimeTransform.LOG else time


def _terms(
    terms: Mapping[str, Sequence[str]] | None, names: tuple[str, ...], kept: np.ndarray, tested: np.ndarray
) -> dict[str, Int64[np.ndarray, " column"]]:
    """Tested columns of each term, and all of them together, by their number among the columns that were kept."""
    place = dict(zip(names, np.cumsum(kept) - 1, strict=True))
    left_out = {name for name, stays in zip(names, tested, strict=True) if not stays}
    wanted = {name: [name] for name in names} if terms is None else terms
    unknown = sorted({column for columns in wanted.values() for column in columns} - set(names))
    if unknown:
        raise InvalidValueError(f"`terms` must name covariates of the fit; got {unknown[0]!r}. It has: {names[:12]}.")
    chosen = {name: [place[c] for c in columns if c not in left_out] for name, columns in wanted.items()}
    everything = {"GLOBAL": np.flatnonzero(tested[kept]).tolist()}
    return {name: np.array(columns, dtype=np.int64) for name, columns in {**chosen, **everything}.items()}


def likelihood_ratio_tests(model: CoxRegression, X: Covariates, y: object) -> pd.DataFrame:
    """Twice the log-likelihood that each covariate adds to the others: statistic, degrees of freedom and p.

    The model is fitted again without each covariate. For small cohorts and large effects it is more exact than Wald's p
    of `summary`, and it holds for a covariate that separates the events, whose Wald test does not. Rows are taken for
    independent, also for a `robust` fit.

    Args:
        model: Fitted model without a penalty.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.

    Raises:
        InvalidValueError: If the rows are not those of the fit, or the fit has a penalty.
    """
    rows = _rows(model, X, y)
    if model.penalty:
        raise InvalidValueError(f"`model` must be fitted with penalty 0; got {model.penalty}. Fit without it.")
    tests, scaled = {}, standardised(rows.columns)[0]
    for column, name in enumerate(model.feature_names_):
        others = rows.kept & (np.arange(len(rows.kept)) != column)
        without = maximise(rows.sets, scaled[:, others]).log_likelihood if rows.kept[column] else np.nan
        tests[name] = (2 * (model.log_likelihood_ - without), int(rows.kept[column]))
    return chi_squared_table(tests, "covariate")


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalLimits:
    """Predicted survival curves with pointwise confidence limits.

    Attributes:
        times: Times.
        survival: S, one row per instance.
        lower: Lower limit of S; NaN where a separating covariate leaves the curve undetermined.
        upper: Upper limit of S; NaN there as well.
        std_error: Standard error of log S; NaN there as well.
        confidence: Level of the limits.
        unit: Unit of `times`.
    """

    times: Float64[np.ndarray, " time"]
    survival: Float64[np.ndarray, "instance time"]
    lower: Float64[np.ndarray, "instance time"]
    upper: Float64[np.ndarray, "instance time"]
    std_error: Float64[np.ndarray, "instance time"]
    confidence: float
    unit: str


def survival_interval(
    model: CoxRegression,
    X: Covariates,
    y: object,
    new: Covariates,
    times: Sequence[float] | np.ndarray,
    *,
    stratum: StratumOfRows | None = None,
    confidence: float = 0.95,
    limits: Limits = Limits.LOG,
) -> SurvivalLimits:
    """Survival curves of new instances with confidence limits, as `survfit` of R gives them.

    For an instance z and the events up to t, each with its denominator D (on the scale of an instance at the training
    means) and risk-set mean m: var log S = r^2 * (sum of count / D^2 + d' V d), with r its hazard ratio,
    d = sum of (z - m) * count / D, and V the covariance of the model, the sandwich if it is `robust`. The limits are
    for the curve of such an instance, not for one life, and symmetric for log S or for log(-log S).

    Where covariates separate the events, the data determine only the curve of an instance that stands, along the
    separating direction, where those with events stood. From the first event that stood elsewhere, standard error and
    limits are NaN: S is near 1 or 0 there only because of where the climb was stopped.

    Args:
        model: Fitted model.
        X: Covariates of the rows of the fit.
        y: Outcome of the rows of the fit.
        new: Covariates of the instances whose curves are asked.
        times: Times, rising, up to the last of the fit.
        stratum: Stratum of each new instance, or one for all; for a model with strata only.
        confidence: Level of the limits.
        limits: Scale of the limits.

    Raises:
        InvalidValueError: If the rows are not those of the fit, or `times`, `stratum` or `confidence` are out of range.

    References:
        Tsiatis 1981; Efron 1977.
    """
    if not 0 < confidence < 1:
        raise InvalidValueError(f"`confidence` must lie in (0, 1); got {confidence}.")
    check_choice("limits", limits, Limits)
    prediction = model.predict_survival(new, times, stratum=stratum)
    rows = _rows(model, X, y)
    at, values = prediction.times.numpy(), model._matrix(new) - model.centre_
    asked = np.zeros(len(values)) if stratum is None else np.broadcast_to(np.asarray(stratum), len(values))
    sets, means = rows.sets, rows.sets.means(rows.columns, rows.log_risk)
    own_risk = values @ model.coef_
    row_of_event = sets.order[sets.events]
    moment = rows.outcome.numpy()[0][row_of_event]
    own_stratum = rows.outcome.strata().numpy()[row_of_event]
    covariance = np.nan_to_num(model.covariance_, nan=0.0)
    std_error = np.empty((len(values), len(at)))
    for k in np.unique(asked):
        inside = np.flatnonzero(own_stratum == k) if stratum is not None else np.arange(len(moment))
        order, asking = inside[np.argsort(moment[inside], kind="stable")], np.flatnonzero(asked == k)
        upto = np.searchsorted(moment[order], at, side="right")
        parts = (sets, means, order, upto, covariance)
        if not model.separated_.any():
            std_error[asking] = np.exp(own_risk[asking])[:, None] * _errors(*parts, values[asking], rows.log_risk)
            continue
        for row in asking:  # against each row's own risk, because risks may lie further apart than float64 can square
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                std_error[row] = _errors(*parts, values[[row]], rows.log_risk - own_risk[row])[0]
        std_error[asking] = np.where(_apart(rows, values[asking], sets.events[order], upto), np.nan, std_error[asking])
    survival = prediction.survival.numpy()
    lower, upper = _limits(prediction.log_survival.numpy(), std_error, float(ndtri(0.5 + confidence / 2)), limits)
    return SurvivalLimits(at, survival, lower, upper, std_error, confidence, prediction.unit)


def _errors(
    sets: RiskSets,
    means: Float64[np.ndarray, "event feature"],
    order: Int64[np.ndarray, " counted"],
    upto: Int64[np.ndarray, " time"],
    covariance: Float64[np.ndarray, "feature feature"],
    values: Float64[np.ndarray, "new feature"],
    log_risk: Float64[np.ndarray, " instance"],
) -> Float64[np.ndarray, "new time"]:
    """Standard error of log S per unit of the ratio of each new row to that which `log_risk` is relative to."""
    step = 1 / sets.denominators(log_risk)
    rate, squared = (sets.count * step)[order], (sets.count * step**2)[order]
    hazard, own = (np.concatenate(([0.0], np.cumsum(part)))[upto] for part in (rate, squared))
    drift = np.cumsum(np.pad(rate[:, None] * means[order], ((1, 0), (0, 0))), axis=0)[upto]
    lever = values[:, None, :] * hazard[:, None] - drift
    return np.sqrt(own + np.einsum("itf,fg,itg->it", lever, covariance, lever))


def _apart(
    rows: _Rows,
    values: Float64[np.ndarray, "new feature"],
    events: Int64[np.ndarray, " event"],
    upto: Int64[np.ndarray, " time"],
) -> Bool[np.ndarray, "new time"]:
    """Whether a new row differs, along an endless direction, from one of the events up to a time.

    At every event the rows whose risk does not vanish against the others stand where the event stands. A row elsewhere
    has an infinite ratio to them, or one that no data bear on. `events` rise in time; `upto` counts them to each time.
    """
    spread = standardised(rows.tested, rows.sets.weight)[1]
    columns = rows.tested / spread
    null = rows.sets.information(columns, np.zeros(len(columns)))
    directions = endless_directions(rows.sets.information(columns, rows.log_risk), null)
    along, new = columns @ directions, values[:, rows.kept] / spread @ directions
    allowed = _APART * along.std(axis=0)
    first = np.maximum(upto, 1) - 1
    highest, lowest = (extreme.accumulate(along[events])[first] for extreme in (np.maximum, np.minimum))
    apart = (highest > new[:, None] + allowed) | (lowest < new[:, None] - allowed)
    return apart.any(axis=2) & (upto > 0)


def _limits(
    log_survival: np.ndarray, std_error: np.ndarray, z: float, limits: Limits
) -> tuple[Float64[np.ndarray, "instance time"], Float64[np.ndarray, "instance time"]]:
    if limits is Limits.LOG:
        return np.exp(log_survival - z * std_error), np.exp(np.minimum(log_survival + z * std_error, 0.0))
    started = log_survival < 0
    reach = z * std_error / np.where(started, -log_survival, 1.0)
    return np.exp(log_survival * np.exp(reach)), np.exp(log_survival * np.exp(-reach))
