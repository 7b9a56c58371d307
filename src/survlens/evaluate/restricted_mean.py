"""How much life within a horizon? Restricted mean survival time, its difference, and whether predictions agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.score import Category, Direction, Interval, Score
from survlens.evaluate.alignment import check_predicted, check_prediction, check_scored, counted


@dataclass(frozen=True, slots=True)
class RestrictedMean:
    """Mean survival time within a horizon, with its doubt.

    Attributes:
        value: Area under the Kaplan-Meier curve from 0 to `horizon`, in `unit`.
        std_error: Its standard error.
        lower: Lower confidence limit.
        upper: Upper confidence limit.
        horizon: End point.
        unit: Unit of time.
        n: Rows.
        n_events: Events up to the horizon.
    """

    value: float
    std_error: float
    lower: float
    upper: float
    horizon: float
    unit: str
    n: int
    n_events: int


@dataclass(frozen=True, slots=True)
class RestrictedMeanDifference:
    """The restricted mean of one group minus that of another.

    Attributes:
        value: `second` - `first`, in the unit of both.
        std_error: Its standard error; the groups are independent.
        lower: Lower confidence limit.
        upper: Upper confidence limit.
        p_value: Two-sided, of the hypothesis that both means are equal; NaN without a standard error.
        labels: Labels of the first and second group.
        first: Restricted mean of the first group.
        second: Restricted mean of the second group.
    """

    value: float
    std_error: float
    lower: float
    upper: float
    p_value: float
    labels: tuple[object, object]
    first: RestrictedMean
    second: RestrictedMean


def restricted_mean_survival_time(
    outcome: SurvivalOutcome, horizon: float, *, confidence: float = 0.95
) -> RestrictedMean:
    """Mean survival time up to a horizon, without a model: the area under the Kaplan-Meier curve S.

    mu = integral of S from 0 to `horizon`; its variance is the sum over event times u of A_u^2 d_u / (n_u (n_u - d_u)),
    with A_u the area from u to `horizon`, d_u the events and n_u the rows at risk. This is the value and standard error
    that R's `survfit` prints as rmean. The limits are mu -+ z * std_error, cut at 0 and the horizon.

    Args:
        outcome: What was observed; all causes count as events. Weights and delayed entries are honoured as in
            `kaplan_meier`.
        horizon: End point, > 0; past the last time only where the curve has reached 0 by then.
        confidence: Level of the limits.

    Raises:
        InvalidValueError: If the curve is not known up to `horizon`, or `outcome` is empty.

    References:
        Royston and Parmar 2013.
    """
    if not 0 < confidence < 1:
        raise InvalidValueError(f"`confidence` must lie in (0, 1); got {confidence}.")
    if not len(outcome):
        raise InvalidValueError("`outcome` must hold at least one row; got none.")
    curve = kaplan_meier(outcome)
    last = float(curve.times[-1])
    if not horizon > 0 or (horizon > last and curve.survival[-1] > 0):
        raise InvalidValueError(
            f"`horizon` must lie in (0, {last:g}] {outcome.unit}, where survival is known; got {horizon:g}. "
            "Choose an earlier horizon, common to all groups that you compare."
        )
    inside = curve.times < horizon
    knots = np.concatenate(([0.0], curve.times[inside], [horizon]))
    areas = np.diff(knots) * np.append(1.0, curve.survival[inside])
    area_after = np.cumsum(areas[::-1])[::-1][1:]
    at_risk, events = curve.n_risk[inside], curve.n_event[inside]
    jumps = np.divide(events, at_risk * (at_risk - events), out=np.zeros_like(at_risk), where=at_risk > events)
    value, std_error = float(areas.sum()), float(np.sqrt((area_after**2 * jumps).sum()))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * std_error
    time, event = outcome.numpy()
    return RestrictedMean(
        value,
        std_error,
        max(value - reach, 0.0),
        min(value + reach, float(horizon)),
        float(horizon),
        outcome.unit,
        len(outcome),
        int(((event > 0) & (time <= horizon)).sum()),
    )


def restricted_mean_difference(
    groups: Sequence[object] | np.ndarray, outcome: SurvivalOutcome, horizon: float, *, confidence: float = 0.95
) -> RestrictedMeanDifference:
    """Life gained within a horizon by the second of two groups: the difference of their restricted means.

    It needs no proportional hazards, and its unit is that of time.

    Args:
        groups: Label of each row; exactly two labels, compared in their order.
        outcome: What was observed.
        horizon: End point, within the follow-up of both groups.
        confidence: Level of the limits.

    Raises:
        InvalidValueError: If there are not two labels, or as `restricted_mean_survival_time`.

    References:
        Royston and Parmar 2013.
    """
    labels = np.asarray(groups)
    if labels.shape != (len(outcome),):
        raise InvalidValueError(
            f"`groups` must have one label per row of `outcome`; got shape {labels.shape} for {len(outcome)} rows."
        )
    distinct = np.unique(labels)
    if len(distinct) != 2:
        raise InvalidValueError(f"`groups` must have two labels; got {len(distinct)}. Select the rows of two groups.")
    first, second = (
        restricted_mean_survival_time(outcome[np.flatnonzero(labels == label)], horizon, confidence=confidence)
        for label in distinct
    )
    value, error = second.value - first.value, math.hypot(first.std_error, second.std_error)
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * error
    p_value = math.erfc(abs(value) / error / math.sqrt(2)) if error > 0 else float("nan")
    both = (distinct[0].item(), distinct[1].item())
    return RestrictedMeanDifference(value, error, value - reach, value + reach, p_value, both, first, second)


def restricted_mean_error(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float) -> Score:
    """Mean predicted restricted mean survival time minus the observed one: 0 is calibrated in the large.

    Above 0 the model promises too long a life. The interval is that of the observed mean, with the predictions fixed.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        horizon: End point, within the follow-up and the predicted range.

    Raises:
        InvalidValueError: As `restricted_mean_survival_time`, or if lengths or units differ.
    """
    check_prediction(prediction, outcome)
    check_scored(outcome, weights=True)
    observed = restricted_mean_survival_time(outcome, horizon)
    check_predicted(prediction, np.array([float(horizon)]))
    weight = outcome.weights().detach().cpu()
    predicted = prediction.restricted_mean(horizon).detach().cpu().double()
    expected = float(weight @ predicted / weight.sum())
    settings = counted(outcome) | {
        "horizon": float(horizon),
        "observed": observed.value,
        "expected": expected,
        "std_error": observed.std_error,
        "target": 0,
    }
    value = expected - observed.value
    reach = NormalDist().inv_cdf(0.975) * observed.std_error
    interval = Interval(value - reach, value + reach, 0.95, "Greenwood variance of the observed mean")
    return Score("restricted_mean_error", value, interval, Direction.TARGET, Category.CALIBRATION, settings)
