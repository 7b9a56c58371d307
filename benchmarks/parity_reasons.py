"""Why a number of another library differs from R's: one sentence, and our own code with that one rule changed.

A reason counts only if the changed rule gives the other library's number; `parity.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from golden_table import coefficients, prediction_of

from survlens.core.nonparametric import StepCurve, breslow_baseline, censoring_survival, survival_curve
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.evaluate.pair_counts import count_pairs, dense_rank, sort_rows


@dataclass(frozen=True)
class Reason:
    """What the other library does, and its number by our code with that rule."""

    sentence: str
    reproduce: Callable[[Any], float]


def reciprocal(values: np.ndarray) -> np.ndarray:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def uno_at_t(data: Any) -> float:
    """Uno's C with 1 / G(T)^2."""
    risk, rows = np.array(data.golden["log_risk"]), sort_rows(data.outcome, np.inf)
    rank, ranks = dense_rank(risk[rows.order])
    factor = rows.event * reciprocal(censoring_survival(data.outcome).at(rows.time)) ** 2
    concordant, discordant, tied = count_pairs(rank, ranks, rows.event, rows.tail, factor, np.ones(len(rank)))
    return (concordant + tied / 2) / (concordant + discordant + tied)


def auc_at_t(data: Any) -> float:
    """AUC(t) with cases weighted by 1 / G(T)."""
    risk, t = np.array(data.golden["log_risk"]), data.horizon
    case, control = data.died & (data.time <= t), np.sort(risk[data.time > t])
    weight = reciprocal(censoring_survival(data.outcome).at(data.time[case]))
    below = np.searchsorted(control, risk[case], side="left") + np.searchsorted(control, risk[case], side="right")
    return float(weight @ below / (2 * weight.sum() * len(control)))


def brier(data: Any, case: np.ndarray, alive: StepCurve, *, by_weight: bool) -> np.ndarray:
    """Brier scores at R's times with given weights of cases, divided by n or by the sum of all weights."""
    times = np.array(data.golden["score"]["times"], float)
    prediction = prediction_of(np.array(data.golden["log_risk"]), data.outcome, Ties.BRESLOW)
    survival, scores = prediction.at(times).survival.numpy(), []
    for k, t in enumerate(times):
        dead, living = data.died & (data.time <= t), data.time > t
        weight = dead * case + living * reciprocal(alive.at(t))
        error = np.where(dead, survival[:, k], 1 - survival[:, k]) ** 2
        scores.append((weight @ error) / (weight.sum() if by_weight else len(weight)))
    return np.array(scores)


def brier_at_t(data: Any) -> np.ndarray:
    curve = censoring_survival(data.outcome)
    return brier(data, reciprocal(curve.at(data.time)), curve, by_weight=False)


def brier_normalised(data: Any) -> np.ndarray:
    exchanged = SurvivalOutcome.from_arrays(data.time, ~data.died, "days")
    curve = survival_curve(exchanged)
    return brier(data, reciprocal(curve.before(data.time)), curve, by_weight=True)


def averaged(scores: Callable[[Any], np.ndarray]) -> Callable[[Any], float]:
    def value(data: Any) -> float:
        times = np.array(data.golden["score"]["times"], float)
        return float(np.trapezoid(scores(data), times) / (times[-1] - times[0]))

    return value


def third(scores: Callable[[Any], np.ndarray]) -> Callable[[Any], float]:
    return lambda data: float(scores(data)[2])


def by_position(ties: Ties) -> Callable[[Any], float]:
    """Log likelihood whose risk sets are all rows before a row in falling order of time."""

    def value(data: Any) -> float:
        order = np.argsort(-data.time, kind="stable")
        log_risk = (data.design @ coefficients(data.golden, ties))[order]
        return float((log_risk - np.logaddexp.accumulate(log_risk))[data.died[order]].sum())

    return value


def efron_with_breslow_baseline(interpolated: bool) -> Callable[[Any], float]:
    def value(data: Any) -> float:
        log_risk = data.design @ coefficients(data.golden, Ties.EFRON)
        hazard = breslow_baseline(log_risk, data.outcome, ties=Ties.BRESLOW)
        times = np.unique(data.time)
        straight = np.interp(data.horizon, times, hazard.at(times))
        found = straight if interpolated else hazard.at(data.horizon)
        return float(np.exp(-found * np.exp(log_risk[0])))

    return value


def tied_times_twice(data: Any) -> float:
    """Antolini's C of a Cox model, in which a pair of equal times counts twice if one of them is an event."""
    risk = np.array(data.golden["log_risk"])
    earlier, later = np.triu_indices(len(risk), 1)
    order = np.argsort(data.time, kind="stable")
    i, j = order[earlier], order[later]
    tied = data.time[i] == data.time[j]
    both, one = tied & data.died[i] & data.died[j], tied & (data.died[i] != data.died[j])
    plain = ~tied & data.died[i]
    sign = np.where(one & data.died[j], -1, 1) * np.sign(risk[i] - risk[j])
    credit = np.where(both, np.where(sign == 0, 1.0, 0.5), (sign + 1) / 2)
    weight = plain + 2.0 * (both | one)
    return float(weight @ credit / weight.sum())


_AT_T = (
    "Events are weighted by 1/G(T). R and survlens use 1/G(T-), the value just before: at equal times the event comes "
    "first, so who had the event at T had not been at risk of a censoring at T."
)
_PYCOX_BRIER = (
    "The weighted errors are divided by the sum of the weights, not by n; and the censoring curve counts who had the "
    "event at T as at risk of a censoring at T."
)
_POSITION = (
    "The risk set of a row is every row before it in falling order of time, so tied events do not stand in each "
    "other's risk set, and the value depends on the order of the rows."
)
_BASELINE = "The coefficients are Efron's, the baseline is Breslow's. R and survlens use Efron's rule for both."

REASONS: dict[tuple[str, str], Reason] = {
    ("Cox log likelihood, Efron", "pycox"): Reason(_POSITION, by_position(Ties.EFRON)),
    ("Cox log likelihood, Breslow", "pycox"): Reason(_POSITION, by_position(Ties.BRESLOW)),
    ("Cox S(t, x), Efron", "scikit-survival"): Reason(_BASELINE, efron_with_breslow_baseline(interpolated=False)),
    ("Cox S(t, x), Efron", "lifelines"): Reason(
        f"{_BASELINE} Between two observed times the cumulative hazard is drawn as a straight line, which is why "
        "veteran, where t is not an observed time, differs from scikit-survival too.",
        efron_with_breslow_baseline(interpolated=True),
    ),
    ("Uno's C", "scikit-survival"): Reason(_AT_T, uno_at_t),
    ("Uno's C", "torchsurv"): Reason(_AT_T, uno_at_t),
    ("Antolini's C", "pycox"): Reason(
        'The default "adj_antolini" also compares two rows of one time and counts such a pair twice: two events get '
        'one half unless their curves are equal. With "antolini" equal survival would count as discordant; no Cox '
        "curves are equal here, so that value is R's.",
        tied_times_twice,
    ),
    ("Brier score", "scikit-survival"): Reason(_AT_T, third(brier_at_t)),
    ("Brier score", "torchsurv"): Reason(_AT_T, third(brier_at_t)),
    ("Brier score", "pycox"): Reason(_PYCOX_BRIER, third(brier_normalised)),
    ("Integrated Brier score", "scikit-survival"): Reason(_AT_T, averaged(brier_at_t)),
    ("Integrated Brier score", "torchsurv"): Reason(_AT_T, averaged(brier_at_t)),
    ("Integrated Brier score", "pycox"): Reason(_PYCOX_BRIER, averaged(brier_normalised)),
    ("AUC(t)", "scikit-survival"): Reason(_AT_T, auc_at_t),
    ("AUC(t)", "torchsurv"): Reason(_AT_T, auc_at_t),
}
