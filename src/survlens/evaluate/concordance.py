"""Does a higher risk mean an earlier event? Concordance of Harrell, Uno and Antolini."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.score import Interval, Score
from survlens.evaluate.alignment import (
    RiskLike,
    aligned_risk,
    check_horizon,
    check_prediction,
    check_scored,
    counted,
)
from survlens.evaluate.censoring import CensoringModel
from survlens.evaluate.curve_columns import columns_at_events
from survlens.evaluate.pair_counts import (
    SortedRows,
    concordance_of_draws,
    count_pairs,
    count_pairs_of_rows,
    count_pairs_over_time,
    dense_rank,
    sort_rows,
    tied_event_pairs,
    wins_over_time,
)

_TIES = "equal risks count one half; equal times are comparable if one is censored"
_RISK = "the given number per row, higher is worse"
_MANY = 200
"""Events reading one knot from which ranking all rows once is cheaper than comparing them with each event."""
_EVENTS = 128
"""Events whose comparisons are held at once while draws are weighted."""


def concordance_index(
    risk: RiskLike, outcome: SurvivalOutcome, *, horizon: float | None = None, confidence: float | None = None
) -> Score:
    """Harrell's concordance: the share of comparable pairs in which the one who dies first had the higher risk.

    C = (concordant + tied_risk / 2) / (concordant + discordant + tied_risk), as R's `survival::concordance`. A pair is
    comparable where the shorter `time` ended in an event. At equal times, an event and a censoring are comparable (the
    censored one lived longer) and two events are not. All causes count as events. Cost: n log n.

    Args:
        risk: One number per row of `outcome`, higher is worse; compared exactly, without a tolerance.
        outcome: What was observed; with weights, a pair counts the product of its two.
        horizon: Events after it count as censored.
        confidence: Level of an interval from the infinitesimal jackknife (value -+ z * std_error, cut at 0 and 1), with
            the standard error in the settings; rows count as independent, so use `bootstrap` for clustered patients,
            and for weighted rows.

    Returns:
        The score; NaN with `settings["undefined"]` where no pair is comparable.

    Raises:
        InvalidValueError: If lengths differ, a risk is NaN, rows enter late, or weights come with a `confidence`.

    References:
        Harrell, Califf, Pryor, Lee and Rosati 1982; Therneau and Watson 2015.
    """
    check_scored(outcome, weights=True)
    rows = sort_rows(outcome, check_horizon(horizon))
    settings = _settings(outcome, horizon) | {"risk": _RISK}
    factor, weight = np.ones(len(outcome)), _weights(outcome, rows)
    return _from_pairs("concordance_index", aligned_risk(risk, outcome), rows, factor, weight, settings, confidence)


def concordance_index_ipcw(
    risk: RiskLike,
    outcome: SurvivalOutcome,
    training: SurvivalOutcome,
    *,
    horizon: float | None = None,
    confidence: float | None = None,
) -> Score:
    """Uno's concordance: Harrell's, with each pair weighted by 1 / G(T-)^2 at its event time T.

    G is the Kaplan-Meier curve of the censoring time of `training`, so that the value does not depend on how follow-up
    was cut, as long as censoring does not depend on the covariates. Equal to R's `concordance(timewt = "n/G2")`.
    The interval treats the weights as known.

    Args:
        risk: One number per row of `outcome`, higher is worse.
        outcome: What was observed.
        training: Outcome of the training rows; fits the censoring model.
        horizon: Events after it count as censored. Weights explode near the end of follow-up: choose a horizon.
        confidence: Level of an interval from the infinitesimal jackknife.

    Raises:
        InvalidValueError: If an event up to `horizon` lies past the follow-up of `training`, where G is unknown or 0.

    References:
        Uno, Cai, Pencina, D'Agostino and Wei 2011.
    """
    check_scored(outcome, weights=True)
    rows = sort_rows(outcome, check_horizon(horizon))
    settings = _settings(outcome, horizon) | {
        "risk": _RISK,
        "censoring_model": "Kaplan-Meier of the training rows, weight 1 / G(T-)^2",
    }
    factor, weight = _ipcw_factor(rows, outcome, training), _weights(outcome, rows)
    return _from_pairs(
        "concordance_index_ipcw", aligned_risk(risk, outcome), rows, factor, weight, settings, confidence
    )


def concordance_index_antolini(
    prediction: SurvivalPrediction, outcome: SurvivalOutcome, *, horizon: float | None = None
) -> Score:
    """Time-dependent concordance: the share of comparable pairs with S_i(T_i) < S_j(T_i), i being the earlier event.

    Equal survival counts one half; the original definition counts it as discordant. Pairs are comparable as in
    `concordance_index`. Curves are compared by log S, in which survival near 0 and 1 stays apart. Cost: n times the
    events; where many events read one knot of a step prediction, n log n for each such knot.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed; with weights, a pair counts the product of its two.
        horizon: Events after it count as censored.

    Raises:
        InvalidValueError: If an event up to `horizon` lies past the last knot of `prediction`, or rows enter late.

    References:
        Antolini, Boracchi and Biganzoli 2005.
    """
    rows = _rows_over_time(prediction, outcome, horizon)
    settings = _settings(outcome, horizon) | {
        "ties": _TIES.replace("risks", "survival probabilities"),
        "risk": "1 - S(T) at the time T of the earlier event of each pair",
    }
    weight = _weights(outcome, rows)
    counts = np.zeros(3)
    for survival, cases, columns in columns_at_events(prediction, rows):
        counts += _count_block(survival, cases, columns, rows, weight)
    return _score("concordance_index_antolini", tuple(counts.tolist()), settings)


def reweighted_concordance_antolini(
    prediction: SurvivalPrediction, outcome: SurvivalOutcome, *, horizon: float | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `concordance_index_antolini` of each draw.

    With A the matrix of wins (event, instance), a draw of multiplicities w has w' A w wins: one product of matrices
    serves all draws, so a thousand draws cost little more than reading the curves a few times. Multiplicities are whole
    numbers and wins halves, which float32 holds exactly; weights are not, and are kept in float64.
    """
    rows = _rows_over_time(prediction, outcome, horizon)
    own = _weights(outcome, rows)
    kind = np.float32 if (own == 1).all() else np.float64

    def concordance(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, rows.order] * own
        partners = np.append(np.cumsum(drawn[:, ::-1], axis=1)[:, ::-1], np.zeros((len(drawn), 1)), axis=1)
        events = np.flatnonzero(rows.event)
        pairs = (drawn[:, events] * partners[:, rows.tail[events]]).sum(1)
        columns_of_draws = np.ascontiguousarray(drawn.T, dtype=kind)
        won = np.zeros(len(drawn))
        wins = np.empty((_EVENTS, len(rows.time)), dtype=kind)
        for survival, cases, columns in columns_at_events(prediction, rows):
            for start in range(0, len(cases), _EVENTS):
                part = slice(start, start + _EVENTS)
                chosen = cases[part]
                wins_over_time(survival, chosen, columns[part], rows.tail, wins)
                won += np.einsum("ed,de->d", wins[: len(chosen)] @ columns_of_draws, drawn[:, chosen])
        return np.divide(won, pairs, out=np.full(len(drawn), np.nan), where=pairs > 0)

    return concordance


def _rows_over_time(prediction: SurvivalPrediction, outcome: SurvivalOutcome, horizon: float | None) -> SortedRows:
    check_prediction(prediction, outcome)
    check_scored(outcome, weights=True)
    return sort_rows(outcome, check_horizon(horizon))


def _count_block(
    survival: np.ndarray, cases: np.ndarray, columns: np.ndarray, rows: SortedRows, weight: np.ndarray
) -> np.ndarray:
    """Concordant, discordant and tied pairs of the events of one block of columns."""
    counts = np.zeros(3)
    readers = np.bincount(columns, minlength=len(survival))
    for column in np.flatnonzero(readers >= _MANY):
        rank, ranks = dense_rank(-survival[column])
        factor = np.zeros(len(weight))
        factor[cases[columns == column]] = weight[cases[columns == column]]
        counts += np.array(count_pairs(rank, ranks, rows.event, rows.tail, factor, weight))
    few = readers[columns] < _MANY
    return counts + np.array(count_pairs_over_time(survival, cases[few], columns[few], rows.tail, weight))


def reweighted_concordance(
    risk: RiskLike, outcome: SurvivalOutcome, *, horizon: float | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `concordance_index` of each draw; sorts once."""
    check_scored(outcome, weights=True)
    rows = sort_rows(outcome, check_horizon(horizon))
    return _reweighted(aligned_risk(risk, outcome), rows, np.ones(len(outcome)), _weights(outcome, rows))


def reweighted_concordance_ipcw(
    risk: RiskLike, outcome: SurvivalOutcome, training: SurvivalOutcome, *, horizon: float | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `concordance_index_ipcw` of each draw."""
    check_scored(outcome, weights=True)
    rows = sort_rows(outcome, check_horizon(horizon))
    factor = _ipcw_factor(rows, outcome, training)
    return _reweighted(aligned_risk(risk, outcome), rows, factor, _weights(outcome, rows))


def _reweighted(
    risk: np.ndarray, rows: SortedRows, factor: np.ndarray, own: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    rank, ranks = dense_rank(risk[rows.order])
    plain = bool((own == 1).all())

    def concordance(weights: np.ndarray) -> np.ndarray:
        in_order = np.ascontiguousarray(weights[:, rows.order] if plain else weights[:, rows.order] * own)
        return concordance_of_draws(rank, ranks, rows.event, rows.tail, factor, in_order)

    return concordance


def _settings(outcome: SurvivalOutcome, horizon: float | None) -> dict[str, float | int | str]:
    return {"ties": _TIES, "horizon": "none" if horizon is None else float(horizon)} | counted(outcome)


def _weights(outcome: SurvivalOutcome, rows: SortedRows) -> np.ndarray:
    """Weight of each sorted row."""
    return outcome.weights().detach().cpu().numpy()[rows.order]


def _ipcw_factor(rows: SortedRows, outcome: SurvivalOutcome, training: SurvivalOutcome) -> np.ndarray:
    """1 / G(T-)^2 of the sorted rows that are events, 0 elsewhere."""
    model = CensoringModel.fit(training, outcome)
    events = rows.event > 0
    factor = np.zeros(len(rows.time))
    factor[events] = model.case_weight(rows.time[events]) ** 2
    return factor


def _from_pairs(
    name: str,
    risk: np.ndarray,
    rows: SortedRows,
    factor: np.ndarray,
    weight: np.ndarray,
    settings: dict[str, float | int | str],
    confidence: float | None,
) -> Score:
    plain = bool((weight == 1).all())
    if confidence is not None and not plain:
        raise InvalidValueError(
            f"`confidence` must be None where rows have weights; got {confidence}. Use `bootstrap` for the interval."
        )
    rank, ranks = dense_rank(risk[rows.order])
    counts = count_pairs(rank, ranks, rows.event, rows.tail, factor * weight, weight)
    if plain:
        tied_time, tied_both = tied_event_pairs(rows, rank, ranks)
        settings = settings | {"tied_time": tied_time, "tied_both": tied_both}
    score = _score(name, counts, settings)
    if confidence is None or np.isnan(score.value):
        return score
    net, pairs = count_pairs_of_rows(rank, ranks, rows.event, rows.tail, factor, weight)
    somers_d = 2 * score.value - 1
    std_error = float(np.sqrt(((net - somers_d * pairs) ** 2).sum()) / (2 * sum(counts)))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * std_error
    interval = Interval(
        max(score.value - reach, 0.0), min(score.value + reach, 1.0), confidence, "infinitesimal jackknife"
    )
    return Score(name, score.value, interval, settings={**score.settings, "std_error": std_error})


def _score(name: str, counts: tuple[float, ...], settings: dict[str, float | int | str]) -> Score:
    concordant, discordant, tied = (int(c) if float(c).is_integer() else float(c) for c in counts)
    pairs = concordant + discordant + tied
    settings = {"concordant": concordant, "discordant": discordant, "tied_risk": tied} | settings
    if pairs <= 0:
        return Score(name, float("nan"), settings=settings | {"undefined": "no two rows are comparable"})
    return Score(name, float((concordant + tied / 2) / pairs), settings=settings)
