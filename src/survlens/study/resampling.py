"""Scores of pairs over many resamples at once: the pairs are compared once, a draw only weights them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from survlens.evaluate.alignment import log_survival_at
from survlens.evaluate.censoring import CensoringModel
from survlens.study.scoring import Draws, Scored

Reweighted = Callable[[Draws], np.ndarray]
"""From how often each row is drawn, (draw, row), to the score of each draw."""

MOST_PAIRS = 1 << 26
"""Pairs of patients that are held at once; more leave the interval out."""


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
    """`cumulative_dynamic_auc` at one time of each draw; None where there are too many pairs to hold."""
    followed, event = scored.outcome.numpy()
    cases = np.flatnonzero((event > 0) & (followed <= time))
    controls = np.flatnonzero(followed > time)
    if not len(cases) or not len(controls) or len(cases) * len(controls) > MOST_PAIRS:
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
