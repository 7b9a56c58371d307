"""Do predicted risks agree with observed ones at a horizon? Ratio, slope, smooth curve, groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import Limits, breslow_baseline, kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.score import Category, Direction, Interval, Score
from survlens.evaluate.alignment import check_predicted, check_prediction, check_scored, counted, log_survival_at
from survlens.evaluate.calibration_fit import fit_cox

_LIKELIHOOD = "in the likelihood of the Cox model"
_Z = 1.959963984540054
_FEWEST_EVENTS = 5
"""Events needed for each parameter of a calibration model."""
_SMALLEST_RISK = 1e-6
"""Predicted risks are kept this far from 0 and 1, where log(-log S) is infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationCurve:
    """Observed risk by the horizon as a smooth function of the predicted risk.

    Attributes:
        predicted: Predicted risk of each row.
        observed: Smooth observed risk at that prediction; empty where undefined.
        horizon: End point of both, in the unit of the outcome.
        settings: Definition, and under "undefined" the reason why there is no curve.
    """

    predicted: np.ndarray
    observed: np.ndarray
    horizon: float
    settings: dict[str, float | int | str]

    def ici(self) -> Score:
        """Integrated calibration index: mean distance between observed and predicted risk."""
        return self._score("integrated_calibration_index", float(self._distance().mean()))

    def quantile(self, share: float) -> Score:
        """Distance not exceeded by a `share` of rows: 0.5 is E50, 0.9 is E90."""
        return self._score(f"calibration_error_e{round(100 * share)}", float(np.quantile(self._distance(), share)))

    def maximum(self) -> Score:
        """Largest distance between observed and predicted risk, over the rows."""
        return self._score("calibration_error_maximum", float(self._distance().max()))

    def _distance(self) -> np.ndarray:
        return np.abs(self.observed - self.predicted) if self.observed.size else np.array([np.nan])

    def _score(self, name: str, value: float) -> Score:
        return Score(name, value, None, Direction.LOWER, Category.CALIBRATION, self.settings)


@dataclass(frozen=True, slots=True)
class CalibrationGroup:
    """Rows of similar predicted risk.

    Attributes:
        predicted: Mean predicted risk.
        observed: 1 - Kaplan-Meier at the horizon; NaN where nobody of the group is followed that long.
        lower: Lower confidence limit of `observed`.
        upper: Upper confidence limit of `observed`.
        n: Rows.
        n_events: Events up to the horizon.
    """

    predicted: float
    observed: float
    lower: float
    upper: float
    n: int
    n_events: int


def observed_expected_ratio(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> Score:
    """Observed risk (1 - Kaplan-Meier at the horizon) divided by the mean predicted risk: 1 is calibrated in the large.

    Above 1 the model promises too long a life. The interval carries the Kaplan-Meier limits (log-log), with the
    predictions fixed.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        horizon: End point, within the follow-up and the predicted range.

    References:
        Crowson, Atkinson and Therneau 2016.
    """
    expected = float(_predicted_risk(prediction, outcome, horizon).mean())
    limits = kaplan_meier(outcome, limits=Limits.LOG_LOG)
    observed = 1 - float(limits.at(horizon))
    settings = _settings(outcome, horizon) | {"observed": observed, "expected": expected, "target": 1}
    name = "observed_expected_ratio"
    if not expected > 0:
        settings["undefined"] = "every predicted risk is 0"
        return Score(name, float("nan"), None, Direction.TARGET, Category.CALIBRATION, settings)
    last = np.searchsorted(limits.times, horizon, side="right") - 1
    lower, upper = (float("nan"), float("nan"))
    if last >= 0:
        lower, upper = (1 - float(limits.upper[last])) / expected, (1 - float(limits.lower[last])) / expected
    interval = Interval(lower, upper, 0.95, "Kaplan-Meier log-log limits") if lower < upper else None
    return Score(name, observed / expected, interval, Direction.TARGET, Category.CALIBRATION, settings)


def calibration_slope(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> Score:
    """Slope of a Cox model of the outcome on log(-log S(horizon)): 1 is right, below 1 the risks are too extreme.

    The follow-up is cut at the horizon. For a proportional-hazards prediction log(-log S) is the linear predictor plus
    a constant, so this is the usual slope. The interval is Wald's.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        horizon: End point, within the follow-up and the predicted range.

    References:
        Cox 1958; van Houwelingen 2000; Royston and Altman 2013.
    """
    risk = _predicted_risk(prediction, outcome, horizon)
    settings = _settings(outcome, horizon) | {"target": 1}
    settings |= {"model": "Cox on log(-log S), follow-up cut at the horizon", "censoring_model": _LIKELIHOOD}
    name = "calibration_slope"
    cut = _cut(outcome, horizon)
    position = _cloglog(risk)
    reason = _undefined(position, cut, 1)
    fit = None if reason else fit_cox(position[:, None], cut)
    if fit is None:
        settings["undefined"] = reason or "the Cox model does not converge: the predictions separate the events"
        return Score(name, float("nan"), None, Direction.TARGET, Category.CALIBRATION, settings)
    value, error = float(fit.coefficients[0]), float(fit.standard_errors[0])
    interval = Interval(value - _Z * error, value + _Z * error, 0.95, "Wald")
    settings["std_error"] = error
    return Score(name, value, interval, Direction.TARGET, Category.CALIBRATION, settings)


def calibration_curve(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> CalibrationCurve:
    """Smooth observed risk by the horizon, from a Cox model on a restricted cubic spline of log(-log S(horizon)).

    Three knots, at the 10th, 50th and 90th percentile; a straight line where they coincide. The follow-up is cut at the
    horizon, so that only proportional hazards up to there are assumed.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        horizon: End point, within the follow-up and the predicted range.

    References:
        Austin, Harrell and van Klaveren 2020; Harrell 2015.
    """
    risk = _predicted_risk(prediction, outcome, horizon)
    position, cut = _cloglog(risk), _cut(outcome, horizon)
    design = _spline(position)
    settings = _settings(outcome, horizon) | {
        "model": "Cox on a restricted cubic spline of log(-log S), follow-up cut at the horizon",
        "knots": 3 if design.shape[1] == 2 else 0,
        "events_to_horizon": cut.n_events,
        "censoring_model": _LIKELIHOOD,
    }
    reason = _undefined(position, cut, design.shape[1])
    fit = None if reason else fit_cox(design, cut)
    if fit is None:
        settings["undefined"] = reason or "the Cox model does not converge: the predictions separate the events"
        return CalibrationCurve(risk, np.empty(0), horizon, settings)
    log_risk = (design - design.mean(0)) @ fit.coefficients
    hazard = float(breslow_baseline(log_risk, cut).at(horizon))
    return CalibrationCurve(risk, -np.expm1(-hazard * np.exp(log_risk)), horizon, settings)


def integrated_calibration_index(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> Score:
    """Mean distance between smooth observed and predicted risk at the horizon (`calibration_curve`), in probability."""
    return calibration_curve(prediction, outcome, horizon).ici()


def calibration_error_e50(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> Score:
    """Median distance between smooth observed and predicted risk at the horizon (`calibration_curve`), in probability.

    References:
        Austin, Harrell and van Klaveren 2020.
    """
    return calibration_curve(prediction, outcome, horizon).quantile(0.5)


def calibration_error_e90(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> Score:
    """Distance between smooth observed and predicted risk that 90 % of rows do not exceed (`calibration_curve`).

    References:
        Austin, Harrell and van Klaveren 2020.
    """
    return calibration_curve(prediction, outcome, horizon).quantile(0.9)


def calibration_error_maximum(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> Score:
    """Largest distance between smooth observed and predicted risk over the rows (`calibration_curve`).

    It is read where the fewest rows are, so it is the least certain of the four.

    References:
        Austin, Harrell and van Klaveren 2020.
    """
    return calibration_curve(prediction, outcome, horizon).maximum()


def grouped_calibration(
    prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float, *, groups: int = 10
) -> tuple[CalibrationGroup, ...]:
    """Observed against mean predicted risk in groups cut at quantiles of the predicted risk, lowest first.

    Equal predictions stay together, so ties make fewer groups.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        horizon: End point, within the follow-up and the predicted range.
        groups: Number of groups asked for.
    """
    if groups < 1:
        raise InvalidValueError(f"`groups` must be >= 1; got {groups}.")
    risk = _predicted_risk(prediction, outcome, horizon)
    cuts = np.unique(np.quantile(risk, np.linspace(0, 1, groups + 1)[1:-1])) if groups > 1 else np.empty(0)
    label = np.searchsorted(cuts, risk, side="left")
    return tuple(_group(risk[label == k], outcome[np.flatnonzero(label == k)], horizon) for k in np.unique(label))


def _group(risk: np.ndarray, outcome: SurvivalOutcome, horizon: float) -> CalibrationGroup:
    curve = kaplan_meier(outcome, limits=Limits.LOG_LOG)
    time, event = outcome.numpy()
    n_events = int(((event > 0) & (time <= horizon)).sum())
    position = int(np.searchsorted(curve.times, horizon, side="right")) - 1
    observed = lower = upper = float("nan")
    if position < 0:
        observed = 0.0
    elif horizon <= curve.times[-1] or curve.survival[-1] == 0:
        observed = 1 - float(curve.survival[position])
        lower, upper = 1 - float(curve.upper[position]), 1 - float(curve.lower[position])
    return CalibrationGroup(float(risk.mean()), observed, lower, upper, len(risk), n_events)


def _predicted_risk(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> np.ndarray:
    check_prediction(prediction, outcome)
    check_scored(outcome)
    if not len(outcome):
        raise InvalidValueError("`outcome` must hold at least one row; got none.")
    last = float(outcome.time.max())
    if not 0 < horizon <= last:
        raise InvalidValueError(
            f"`horizon` must lie in (0, {last:g}] {outcome.unit}, the follow-up of `outcome`; got {horizon:g}. "
            "Choose an earlier horizon."
        )
    times = np.array([float(horizon)])
    check_predicted(prediction, times)
    return -np.expm1(log_survival_at(prediction, times).numpy()[:, 0])


def _settings(outcome: SurvivalOutcome, horizon: float) -> dict[str, float | int | str]:
    return counted(outcome) | {"horizon": float(horizon), "censoring_model": "Kaplan-Meier of the scored rows"}


def _cut(outcome: SurvivalOutcome, horizon: float) -> SurvivalOutcome:
    """Ends follow-up at the horizon."""
    time, event = outcome.numpy()
    return SurvivalOutcome.from_arrays(np.minimum(time, horizon), (event > 0) & (time <= horizon), outcome.unit)


def _cloglog(risk: np.ndarray) -> np.ndarray:
    return np.log(-np.log1p(-np.clip(risk, _SMALLEST_RISK, 1 - _SMALLEST_RISK)))


def _undefined(position: np.ndarray, outcome: SurvivalOutcome, parameters: int) -> str | None:
    if np.ptp(position) < 1e-9:
        return "all predicted risks are equal"
    if outcome.n_events < _FEWEST_EVENTS * parameters:
        return f"{outcome.n_events} events up to the horizon; {_FEWEST_EVENTS * parameters} are needed"
    return None


def _spline(position: np.ndarray) -> np.ndarray:
    """Restricted cubic spline with three knots: straight beyond the outer two."""
    first, middle, last = np.quantile(position, [0.1, 0.5, 0.9])
    if min(middle - first, last - middle) < 1e-6 * max(1e-300, float(np.ptp(position))):
        return position[:, None]
    cubes = [np.maximum(position - knot, 0.0) ** 3 for knot in (first, middle, last)]
    bend = cubes[0] - cubes[1] * (last - first) / (last - middle) + cubes[2] * (middle - first) / (last - middle)
    return np.stack([position, bend / (last - first) ** 2], axis=1)
