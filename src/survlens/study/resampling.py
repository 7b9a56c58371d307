"""Scores over many resamples at once: patients or pairs are judged once, a draw only weights them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from survlens.core.nonparametric import survival_curve
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.accuracy import BrierCurve, NullModel
from survlens.evaluate.alignment import counted, log_survival_at
from survlens.evaluate.censoring import CensoringModel
from survlens.evaluate.squared_errors import WeightedRows, trapezoid_weights
from survlens.study.scoring import Draws, Scored

Reweighted = Callable[[Draws], np.ndarray]
"""From how often each row is drawn, (draw, row), to the score of each draw."""

MOST_PAIRS = 1 << 26
"""Pairs of patients that are held at once; more leave the interval out."""


def brier_by_fold(scored: Scored, times: np.ndarray) -> BrierCurve:
    """`brier_score` of all patients, those of each fold weighted by the censoring of their own training patients.

    BS(t) = sum over folds f of n_f / n BS_f(t), with n_f the test patients of a fold. The null model is the
    Kaplan-Meier curve of all scored rows.
    """
    null, total, null_total = _null(scored, times), np.zeros(len(times)), np.zeros(len(times))
    for part in scored.by_fold():
        rows = _weighted(scored, part, times)
        total += rows.sums_by_time(part.prediction)
        null_total += rows.null_sums(null[None], np.ones((1, len(part.outcome))))[0]
    n = len(scored.outcome)
    counts = counted(scored.outcome)
    return BrierCurve(times, total / n, null_total / n, scored.outcome.unit, NullModel.TEST, counts)


def reweighted_brier(scored: Scored, times: np.ndarray) -> tuple[Reweighted, Reweighted]:
    """Integrated Brier score and integrated IPA of `brier_by_fold`, of each draw.

    The null model is not fitted anew to a draw: a curve that knows each draw would beat the same curve held fixed.
    """
    average, null = trapezoid_weights(times), _null(scored, times)
    errors, null_errors = np.empty(len(scored.outcome)), np.empty(len(scored.outcome))
    for of_fold, part in zip(scored.rows_of_folds(), scored.by_fold(), strict=True):
        rows = _weighted(scored, part, times)
        errors[of_fold] = rows.sums_by_row(part.prediction, average)
        null_errors[of_fold] = rows.sums_by_row(_same_for_all(null, times, part), average)

    def brier(draws: Draws) -> np.ndarray:
        return draws @ errors / draws.sum(1)

    def ipa(draws: Draws) -> np.ndarray:
        below = draws @ null_errors
        return 1 - np.divide(draws @ errors, below, out=np.full(len(draws), np.nan), where=below > 0)

    return brier, ipa


def _null(scored: Scored, times: np.ndarray) -> np.ndarray:
    return survival_curve(scored.outcome).at(times)


def _weighted(scored: Scored, part: Scored, times: np.ndarray) -> WeightedRows:
    model = CensoringModel.fit(part.training, part.outcome)
    return WeightedRows.of(part.outcome, model.check_times(times, scored.outcome), model)


def _same_for_all(curve: np.ndarray, times: np.ndarray, part: Scored) -> SurvivalPrediction:
    with np.errstate(divide="ignore"):
        log_survival = torch.from_numpy(np.log(curve)).expand(len(part.outcome), -1)
    return SurvivalPrediction(torch.from_numpy(times), log_survival, Interpolation.STEP, part.outcome.unit)


def reweighted_antolini(scored: Scored, horizon: float) -> Reweighted | None:
    """`concordance_index_antolini` of each draw; None where there are too many pairs to hold.

    With K_ij = 1 where i has an event by `horizon` and j is followed longer (if tied: is censored), and
    c_ij = 1, 1/2 or 0 as S_i(T_i) lies below, at or above S_j(T_i): a draw with counts w scores w'(cK)w / w'Kw.
    """
    time, event = scored.outcome.numpy()
    cases = np.flatnonzero((event > 0) & (time <= horizon))
    if not len(cases) or len(cases) * len(time) > MOST_PAIRS:
        return None
    at_events, column = np.unique(time[cases], return_inverse=True)
    log_survival = log_survival_at(scored.prediction, at_events).numpy()
    of_others, own = log_survival.T[column], log_survival[cases, column][:, None]
    later = (time > time[cases][:, None]) | ((time == time[cases][:, None]) & (event == 0))
    credit = np.where(own < of_others, 1.0, np.where(own == of_others, 0.5, 0.0)) * later
    comparable = later.astype(np.float64)

    def concordance(draws: Draws) -> np.ndarray:
        weights = draws.astype(np.float64)
        return _ratio(weights[:, cases], credit, comparable, weights)

    return concordance


def reweighted_auc(scored: Scored, time: float) -> Reweighted | None:
    """`cumulative_dynamic_auc` at one time of each draw; None where there are too many pairs to hold.

    NaN on every draw where nobody had the event by `time`, or nobody is followed beyond it.
    """
    followed, event = scored.outcome.numpy()
    cases = np.flatnonzero((event > 0) & (followed <= time))
    controls = np.flatnonzero(followed > time)
    if not len(cases) or not len(controls):
        return lambda draws: np.full(len(draws), np.nan)
    if len(cases) * len(controls) > MOST_PAIRS:
        return None
    case_weight = CensoringModel.fit(scored.training, scored.outcome).case_weight(followed[cases])
    log_survival = log_survival_at(scored.prediction, np.array([time])).numpy()[:, 0]
    of_cases, of_controls = log_survival[cases][:, None], log_survival[controls]
    credit = np.where(of_cases < of_controls, 1.0, np.where(of_cases == of_controls, 0.5, 0.0))

    def auc(draws: Draws) -> np.ndarray:
        weights = draws.astype(np.float64)
        return _ratio(weights[:, cases] * case_weight, credit, np.ones_like(credit), weights[:, controls])

    return auc


def _ratio(left: np.ndarray, credit: np.ndarray, comparable: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Left' credit right / left' comparable right, draw by draw."""
    above = np.einsum("di,di->d", left @ credit, right)
    below = np.einsum("di,di->d", left @ comparable, right)
    return np.divide(above, below, out=np.full(len(left), np.nan), where=below > 0)
