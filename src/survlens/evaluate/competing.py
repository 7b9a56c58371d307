"""Scores of one cause among several: concordance, AUC, Brier score, observed / expected.

A row that had another cause will never have this one. So it stays among those who outlive every event of this cause,
and a prediction of this cause should be near 0 for it. Only loss to follow-up is censoring, and its distribution G is
estimated from the censored rows of all causes. With one cause, every score here equals its single-risk counterpart.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from survlens.core.aalen_johansen import cumulative_incidence
from survlens.core.choices import check_choice
from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Times
from survlens.core.score import Category, Direction, Interval, Score
from survlens.evaluate.accuracy import BrierCurve, NullModel, as_times, integral_grid
from survlens.evaluate.alignment import (
    RiskLike,
    aligned_risk,
    check_horizon,
    check_scored,
    counted,
    incidence_at,
)
from survlens.evaluate.censoring import CensoringModel
from survlens.evaluate.decision import predicted_risk
from survlens.evaluate.discrimination import AucCurve, weighted_auc
from survlens.evaluate.pair_counts import count_pairs, dense_rank, sort_times

_TIES = "equal risks count one half; equal times are comparable unless both had this cause"
_RISK = "the given number per row, higher is worse"


def concordance_index_of_cause(
    risk: RiskLike, outcome: SurvivalOutcome, cause: int, *, horizon: float | None = None
) -> Score:
    """Harrell's concordance for one cause: rows that had another cause outlive every event of this one.

    Comparable are an event of `cause` at T with every row seen beyond T, and with every row that had another cause at
    any time. Censored rows leave as in `concordance_index`, so the value still depends on how follow-up was cut.

    Args:
        risk: One number per row of `outcome`, higher for an earlier or likelier event of `cause`.
        outcome: What was observed, with all causes; with weights, a pair counts the product of its two.
        cause: The cause that is predicted.
        horizon: Events of any cause after it count as censored.

    Raises:
        InvalidValueError: If `cause` < 1, lengths differ, a risk is NaN or rows enter late.

    References:
        Wolbers, Koller, Witteman and Steyerberg 2009.
    """
    settings = _settings(outcome, cause) | {"ties": _TIES, "risk": _RISK, "horizon": _stated(horizon)}
    factor = np.ones(len(outcome))
    return _concordance("concordance_index_of_cause", risk, outcome, cause, horizon, factor, factor, settings)


def concordance_index_ipcw_of_cause(
    risk: RiskLike, outcome: SurvivalOutcome, cause: int, training: SurvivalOutcome, *, horizon: float | None = None
) -> Score:
    """Concordance for one cause with each pair weighted by the inverse probability that both were seen.

    An event of `cause` at T weighs 1 / G(T-), and its partner 1 / G(T-) where it was seen beyond T, 1 / G(U-) where it
    had another cause at U before T.

    Args:
        risk: One number per row of `outcome`, higher is worse.
        outcome: What was observed, with all causes.
        cause: The cause that is predicted.
        training: Outcome of the training rows; fits the censoring model.
        horizon: Events of any cause after it count as censored. Weights explode near the end of follow-up.

    Raises:
        InvalidValueError: If an event up to `horizon` lies past the follow-up of `training`, where G is unknown or 0.

    References:
        Wolbers, Blanche, Koller, Witteman and Gerds 2014.
    """
    settings = _settings(outcome, cause) | {
        "ties": _TIES,
        "risk": _RISK,
        "horizon": _stated(horizon),
        "censoring_model": "Kaplan-Meier of the training rows, weight 1 / G(T-) for each of the pair, at the time it "
        "had to be seen until",
    }
    model = CensoringModel.fit(training, outcome)
    time, event = outcome.numpy()
    weight = np.zeros(len(time))
    seen = (event > 0) & (time <= check_horizon(horizon))
    weight[seen] = model.case_weight(time[seen])
    name = "concordance_index_ipcw_of_cause"
    return _concordance(name, risk, outcome, cause, horizon, weight**2, weight, settings)


def _concordance(
    name: str,
    risk: RiskLike,
    outcome: SurvivalOutcome,
    cause: int,
    horizon: float | None,
    later: np.ndarray,
    earlier: np.ndarray,
    settings: dict[str, float | int | str],
) -> Score:
    """Pairs of events of `cause` with rows seen longer, weighted by `later`, and with earlier rows of other causes.

    Args:
        name: Name of the score.
        risk: Risks of the rows.
        outcome: What was observed.
        cause: The cause that is predicted.
        horizon: Last time of an event.
        later: Factor of each event in pairs with rows seen beyond it.
        earlier: Factor of each event, and of each row of another cause before it, in pairs of the two.
        settings: Definition of the score.
    """
    time, event = outcome.numpy()
    died = (event > 0) & (time <= check_horizon(horizon))
    own = died & (event == cause)
    rows = sort_times(time, own)
    order, n = rows.order, len(time)
    values, weight = aligned_risk(risk, outcome)[order], outcome.weights().detach().cpu().numpy()[order]
    rank, ranks = dense_rank(values)
    counts = np.array(count_pairs(rank, ranks, rows.event, rows.tail, (later * own)[order] * weight, weight))
    # Read backwards, the rows before an event are one tail too.
    others = (earlier * (died & ~own))[order] * weight
    first = np.searchsorted(rows.time, rows.time, side="left")
    factor = (earlier * own)[order] * weight
    backwards = (np.ascontiguousarray(column[::-1]) for column in (rank, rows.event, n - first, factor, others))
    rank, event_back, tail, factor, others = backwards
    counts += np.array(count_pairs(rank, ranks, event_back, tail, factor, others))
    concordant, discordant, tied = (float(count) for count in counts)
    pairs = concordant + discordant + tied
    settings = {"concordant": concordant, "discordant": discordant, "tied_risk": tied} | settings
    if pairs <= 0:
        return Score(name, float("nan"), settings=settings | {"undefined": "no two rows are comparable"})
    return Score(name, (concordant + tied / 2) / pairs, settings=settings)


def cumulative_dynamic_auc_of_cause(
    prediction: CompetingRisksPrediction | RiskLike,
    outcome: SurvivalOutcome,
    cause: int,
    times: Times,
    *,
    training: SurvivalOutcome,
) -> AucCurve:
    """Probability that a row with an event of `cause` by t had a higher risk than a row without one by t.

    Controls are the rows followed beyond t, which weigh 1 / G(t), and those that had another cause at U <= t, which
    weigh 1 / G(U-). Cases weigh 1 / G(T-).

    Args:
        prediction: Curves by cause (the risk at t is then F_k(t)), or one risk per row for all times.
        outcome: What was observed, with all causes.
        cause: The cause that is predicted.
        times: Where to score, strictly increasing, within the follow-up of `outcome` and `training`.
        training: Outcome of the training rows; fits the censoring model.

    Raises:
        InvalidValueError: If times leave the follow-up or the predicted range, or lengths or units differ.

    References:
        Blanche, Dartigues and Jacqmin-Gadda 2013.
    """
    counts = _settings(outcome, cause)
    model = CensoringModel.fit(training, outcome)
    grid = model.check_times(as_times(times), outcome)
    if isinstance(prediction, CompetingRisksPrediction):
        risks = incidence_at(prediction, outcome, cause, grid)
    else:
        risks = np.broadcast_to(aligned_risk(prediction, outcome)[:, None], (len(outcome), len(grid)))
    time, event = outcome.numpy()
    own = outcome.weights().detach().cpu().numpy()
    died = (event > 0) & (time <= grid[-1])
    weight = np.zeros(len(time))
    weight[died] = model.case_weight(time[died]) * own[died]
    alive_weight = model.control_weight(grid)
    values, cases, controls = np.empty(len(grid)), np.empty(len(grid), int), np.empty(len(grid), int)
    for k, end in enumerate(grid):
        case = died & (time <= end) & (event == cause)
        alive = time > end
        control = alive | (died & (time <= end) & (event != cause))
        cases[k], controls[k] = case.sum(), control.sum()
        of_controls = np.where(alive, alive_weight[k] * own, weight)[control]
        values[k] = weighted_auc(risks[case, k], weight[case], risks[control, k], of_controls)
    return AucCurve(grid, values, cases, controls, outcome.unit, counts, cause)


def brier_score_of_cause(
    prediction: CompetingRisksPrediction,
    outcome: SurvivalOutcome,
    cause: int,
    times: Times,
    *,
    training: SurvivalOutcome,
    null_model: NullModel = NullModel.TEST,
) -> BrierCurve:
    """Mean squared distance of F_k(t) from whether cause k had happened by t, censored rows replaced by weights.

    BS(t) = 1/n sum over i of [T_i <= t, any event] ([cause k] - F_ki(t))^2 / G(T_i-) + [T_i > t] F_ki(t)^2 / G(t). The
    null model is the Aalen-Johansen curve for everybody.

    Args:
        prediction: Curves by cause of the rows of `outcome`.
        outcome: What was observed, with all causes.
        cause: The cause k that is predicted.
        times: Where to score, strictly increasing, within the follow-up of `outcome` and `training`.
        training: Outcome of the training rows; fits the censoring model.
        null_model: Rows whose Aalen-Johansen curve is the null model.

    Raises:
        InvalidValueError: If times leave the follow-up or the predicted range, or lengths or units differ.

    References:
        Schoop, Beyersmann, Schumacher and Binder 2011; Kattan and Gerds 2018.
    """
    check_scored(outcome)
    check_choice("null_model", null_model, NullModel)
    counts = _settings(outcome, cause)
    model = CensoringModel.fit(training, outcome)
    grid = model.check_times(as_times(times), outcome)
    incidence = incidence_at(prediction, outcome, cause, grid)
    time, event = outcome.numpy()
    died = (event > 0) & (time <= grid[-1])
    weight = np.zeros(len(time))
    weight[died] = model.case_weight(time[died])
    first_dead = np.searchsorted(grid, time, side="left")
    alive_weight = model.control_weight(grid)
    happened = (event == cause).astype(np.float64)
    fitted = training if null_model is NullModel.TRAINING else outcome
    null = cumulative_incidence(fitted, n_causes=max(cause, fitted.n_causes)).of_cause(cause).at(grid)
    values = _squared_errors(incidence, happened, first_dead, weight, alive_weight)
    everybody = np.broadcast_to(null, (len(time), len(grid)))
    null_values = _squared_errors(everybody, happened, first_dead, weight, alive_weight)
    n = len(time)
    return BrierCurve(grid, values / n, null_values / n, outcome.unit, null_model, counts, cause)


def integrated_brier_score_of_cause(
    prediction: CompetingRisksPrediction,
    outcome: SurvivalOutcome,
    cause: int,
    *,
    training: SurvivalOutcome,
    times: Times | None = None,
    horizon: float | None = None,
) -> Score:
    """`brier_score_of_cause` averaged over time, on the grid of `integrated_brier_score`.

    Args:
        prediction: Curves by cause of the rows of `outcome`.
        outcome: What was observed, with all causes.
        cause: The cause that is predicted.
        training: Outcome of the training rows; fits the censoring model.
        times: Grid of the integral; by default every distinct time of `outcome` up to `horizon`.
        horizon: Last time of the default grid.
    """
    grid = integral_grid(outcome, training, times, horizon)
    return brier_score_of_cause(prediction, outcome, cause, grid, training=training).integrated()


def observed_expected_ratio_of_cause(
    prediction: CompetingRisksPrediction | RiskLike, outcome: SurvivalOutcome, cause: int, horizon: float
) -> Score:
    """Aalen-Johansen risk of `cause` by the horizon divided by the mean predicted risk: 1 is calibrated in the large.

    The interval carries the Aalen-Johansen limits (log-log), with the predictions fixed.

    Args:
        prediction: Curves by cause, or the probability of `cause` by the horizon of each row.
        outcome: What was observed, with all causes; a row counts as often as its weight says.
        cause: The cause that is predicted.
        horizon: End point, within the follow-up and the predicted range.

    References:
        Crowson, Atkinson and Therneau 2016; Aalen and Johansen 1978.
    """
    settings = _settings(outcome, cause)
    risk = predicted_risk(prediction, outcome, horizon, cause)
    weight = outcome.weights().detach().cpu().numpy()
    expected = float(weight @ risk / weight.sum())
    curve = cumulative_incidence(outcome, n_causes=max(cause, outcome.n_causes))
    observed = float(curve.of_cause(cause).at(horizon))
    settings |= {
        "horizon": float(horizon),
        "observed": observed,
        "expected": expected,
        "target": 1,
        "censoring_model": "Aalen-Johansen of the scored rows",
    }
    name = "observed_expected_ratio_of_cause"
    if not expected > 0:
        settings["undefined"] = "every predicted risk is 0"
        return Score(name, float("nan"), None, Direction.TARGET, Category.CALIBRATION, settings)
    last = int(np.searchsorted(curve.times, horizon, side="right")) - 1
    lower, upper = (float(limit[cause - 1, last]) / expected for limit in (curve.lower, curve.upper))
    interval = Interval(lower, upper, 0.95, "Aalen-Johansen log-log limits") if last >= 0 and lower < upper else None
    return Score(name, observed / expected, interval, Direction.TARGET, Category.CALIBRATION, settings)


def _settings(outcome: SurvivalOutcome, cause: int) -> dict[str, float | int | str]:
    check_scored(outcome, weights=True)
    if cause < 1:
        raise InvalidValueError(f"`cause` must be >= 1; got {cause}.")
    return counted(outcome) | {"cause": cause, "events_of_cause": int((outcome.event == cause).sum())}


def _stated(horizon: float | None) -> float | str:
    return "none" if horizon is None else float(horizon)


@njit(cache=True)
def _squared_errors(
    incidence: np.ndarray,
    happened: np.ndarray,
    first_dead: np.ndarray,
    case_weight: np.ndarray,
    alive_weight: np.ndarray,
) -> np.ndarray:
    """Weighted squared errors of F, summed over rows at each time."""
    sums = np.zeros(incidence.shape[1])
    for i in range(incidence.shape[0]):
        for k in range(incidence.shape[1]):
            if k < first_dead[i]:
                sums[k] += alive_weight[k] * incidence[i, k] * incidence[i, k]
            elif case_weight[i] > 0.0:
                error = happened[i] - incidence[i, k]
                sums[k] += case_weight[i] * error * error
    return sums
