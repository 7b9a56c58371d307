"""Does a higher risk mean an earlier event? Concordance of Harrell, Uno and Antolini."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.score import Interval, Score
from survlens.evaluate.alignment import RiskLike, aligned_risk, check_horizon, check_prediction, log_survival_at
from survlens.evaluate.censoring import CensoringModel
from survlens.evaluate.pair_counts import (
    SortedRows,
    concordance_of_draws,
    count_pairs,
    count_pairs_of_rows,
    count_pairs_over_time,
    dense_rank,
    sort_rows,
    tied_event_pairs,
)

_TIES = "equal risks count one half; equal times are comparable if one is censored"
_BLOCK = 1 << 22
"""Survival values held at once by Antolini's concordance."""


def concordance_index(
    risk: RiskLike, outcome: SurvivalOutcome, *, horizon: float | None = None, confidence: float | None = None
) -> Score:
    """Harrell's concordance: the share of comparable pairs in which the one who dies first had the higher risk.

    C = (concordant + tied_risk / 2) / (concordant + discordant + tied_risk), as R's `survival::concordance`. A pair is
    comparable where the shorter `time` ended in an event. At equal times, an event and a censoring are comparable (the
    censored one lived longer) and two events are not. All causes count as events. Cost: n log n.

    Args:
        risk: One number per row of `outcome`, higher is worse; compared exactly, without a tolerance.
        outcome: What was observed.
        horizon: Events after it count as censored.
        confidence: Level of an interval from the infinitesimal jackknife (value -+ z * std_error, cut at 0 and 1), with
            the standard error in the settings; rows count as independent, so use `bootstrap` for clustered patients.

    Returns:
        The score; NaN with `settings["undefined"]` where no pair is comparable.

    Raises:
        InvalidValueError: If lengths differ or a risk is NaN.

    References:
        Harrell, Califf, Pryor, Lee and Rosati 1982; Therneau and Watson 2015.
    """
    rows = sort_rows(outcome, check_horizon(horizon))
    settings: dict[str, float | int | str] = {"ties": _TIES, "horizon": "none" if horizon is None else float(horizon)}
    ones = np.ones(len(outcome))
    return _from_pairs("concordance_index", aligned_risk(risk, outcome), rows, ones, settings, confidence)


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
    rows = sort_rows(outcome, check_horizon(horizon))
    settings: dict[str, float | int | str] = {
        "ties": _TIES,
        "horizon": "none" if horizon is None else float(horizon),
        "censoring_model": "Kaplan-Meier of the training rows, weight 1 / G(T-)^2",
    }
    factor = _ipcw_factor(rows, outcome, training)
    return _from_pairs("concordance_index_ipcw", aligned_risk(risk, outcome), rows, factor, settings, confidence)


def concordance_index_antolini(
    prediction: SurvivalPrediction, outcome: SurvivalOutcome, *, horizon: float | None = None
) -> Score:
    """Time-dependent concordance: the share of comparable pairs with S_i(T_i) < S_j(T_i), i being the earlier event.

    Equal survival counts one half. Pairs are comparable as in `concordance_index`. Cost: n times the events, in blocks.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        horizon: Events after it count as censored.

    Raises:
        InvalidValueError: If an event up to `horizon` lies past the last knot of `prediction`.

    References:
        Antolini, Boracchi and Biganzoli 2005.
    """
    check_prediction(prediction, outcome)
    rows = sort_rows(outcome, check_horizon(horizon))
    settings: dict[str, float | int | str] = {
        "ties": _TIES.replace("risks", "survival probabilities"),
        "horizon": "none" if horizon is None else float(horizon),
    }
    counts = np.zeros(3, dtype=np.int64)
    for survival, cases, columns in _survival_blocks(prediction, rows):
        counts += np.array(count_pairs_over_time(survival, cases, columns, rows.tail), dtype=np.int64)
    return _score("concordance_index_antolini", tuple(counts.tolist()), settings)


def reweighted_concordance(
    risk: RiskLike, outcome: SurvivalOutcome, *, horizon: float | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `concordance_index` of each draw; sorts once."""
    rows = sort_rows(outcome, check_horizon(horizon))
    return _reweighted(aligned_risk(risk, outcome), rows, np.ones(len(outcome)))


def reweighted_concordance_ipcw(
    risk: RiskLike, outcome: SurvivalOutcome, training: SurvivalOutcome, *, horizon: float | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `concordance_index_ipcw` of each draw."""
    rows = sort_rows(outcome, check_horizon(horizon))
    return _reweighted(aligned_risk(risk, outcome), rows, _ipcw_factor(rows, outcome, training))


def _reweighted(risk: np.ndarray, rows: SortedRows, factor: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    rank, ranks = dense_rank(risk[rows.order])

    def concordance(weights: np.ndarray) -> np.ndarray:
        in_order = np.ascontiguousarray(weights[:, rows.order])
        return concordance_of_draws(rank, ranks, rows.event, rows.tail, factor, in_order)

    return concordance


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
    settings: dict[str, float | int | str],
    confidence: float | None,
) -> Score:
    rank, ranks = dense_rank(risk[rows.order])
    ones = np.ones(len(rank))
    counts = count_pairs(rank, ranks, rows.event, rows.tail, factor, ones)
    tied_time, tied_both = tied_event_pairs(rows, rank, ranks)
    score = _score(name, counts, settings | {"tied_time": tied_time, "tied_both": tied_both})
    if confidence is None or np.isnan(score.value):
        return score
    net, pairs = count_pairs_of_rows(rank, ranks, rows.event, rows.tail, factor, ones)
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


def _survival_blocks(
    prediction: SurvivalPrediction, rows: SortedRows
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of log S (time, sorted row) with the events that read them: positions and block rows."""
    cases = np.flatnonzero(rows.event)
    knots = prediction.times.detach().cpu()
    times = torch.from_numpy(rows.time[cases]).to(knots.dtype)
    if len(cases) and float(times[-1]) > float(knots[-1]) * (1 + 1e-12):
        raise InvalidValueError(
            f"`outcome` must have its events in (0, {float(knots[-1]):g}] {prediction.unit}, the predicted range; "
            f"got an event at {float(times[-1]):g}. "
            f"Pass horizon={float(knots[-1]):g} to count later events as censored."
        )
    reached = times.double().numpy()
    if prediction.interpolation is Interpolation.STEP:
        # Events between two knots read the same column, so a coarse grid costs few columns.
        knot = torch.searchsorted(knots, times, right=True).numpy()
        _, first, column = np.unique(knot, return_index=True, return_inverse=True)
        needed = reached[first]
    else:
        needed, column = np.unique(reached, return_inverse=True)
    width = max(1, _BLOCK // max(1, len(rows.time)))
    for start in range(0, len(needed), width):
        log_survival = log_survival_at(prediction, needed[start : start + width]).numpy()
        chosen = (column >= start) & (column < start + width)
        yield np.ascontiguousarray(log_survival[rows.order].T), cases[chosen], column[chosen] - start
