"""Scores and survival of groups: risk groups cut on training rows, log-rank test, subgroups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import SurvivalCurve, kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.score import Score
from survlens.evaluate.alignment import RiskLike, check_scored, float_vector


@dataclass(frozen=True, slots=True, eq=False)
class RiskGroups:
    """Cutpoints of the risk, fixed on training rows.

    Attributes:
        cutpoints: Increasing; group k holds the risks in (cutpoints[k - 1], cutpoints[k]].
    """

    cutpoints: np.ndarray

    def __len__(self) -> int:
        return len(self.cutpoints) + 1

    def assign(self, risk: RiskLike) -> np.ndarray:
        """Group of each row, 0 being the lowest risk."""
        return np.searchsorted(self.cutpoints, float_vector(risk, "risk"), side="left")


def risk_groups(training_risk: RiskLike, quantiles: Sequence[float] = (0.5,)) -> RiskGroups:
    """Cuts the risk at quantiles of the training rows; cutting on scored rows would make every split look good.

    Args:
        training_risk: Risks of the training rows.
        quantiles: Shares in (0, 1), increasing; (0.5,) splits at the median, (1/3, 2/3) makes three groups.

    Raises:
        InvalidValueError: If quantiles do not increase within (0, 1) or there is no risk.
    """
    shares = np.asarray(quantiles, dtype=np.float64)
    risk = float_vector(training_risk, "training_risk")
    if (
        shares.ndim != 1
        or not shares.size
        or (shares <= 0).any()
        or (shares >= 1).any()
        or (np.diff(shares) <= 0).any()
    ):
        raise InvalidValueError(f"`quantiles` must increase within (0, 1); got {list(quantiles)}.")
    if not risk.size:
        raise InvalidValueError("`training_risk` must hold at least one risk; got none.")
    return RiskGroups(np.unique(np.quantile(risk, shares)))


@dataclass(frozen=True, slots=True, eq=False)
class GroupCurve:
    """Kaplan-Meier curve of one group.

    Attributes:
        group: Its label.
        n: Rows.
        n_events: Events.
        curve: Kaplan-Meier with limits.
        at_risk: Rows still followed just before each time asked for.
    """

    group: object
    n: int
    n_events: int
    curve: SurvivalCurve
    at_risk: np.ndarray


def group_curves(
    groups: Sequence[object] | np.ndarray, outcome: SurvivalOutcome, times: Sequence[float] | np.ndarray
) -> tuple[GroupCurve, ...]:
    """Kaplan-Meier curve of every group that has rows, with the numbers at risk at `times`, in order of the labels.

    Delayed entries are honoured; weights count in the curves, and the numbers at risk are rows.
    """
    asked = np.asarray(times, dtype=np.float64)
    curves = []
    for group, rows in _rows_of_groups(groups, outcome):
        part = outcome[rows]
        entry = part.entries().detach().cpu().numpy()[:, None]
        at_risk = ((entry < asked) & (part.numpy()[0][:, None] >= asked)).sum(0)
        curves.append(GroupCurve(group, len(part), part.n_events, kaplan_meier(part), at_risk))
    return tuple(curves)


@dataclass(frozen=True, slots=True)
class LogRank:
    """Result of a log-rank test; NaN where fewer than two groups have rows or nothing happened.

    Attributes:
        chi2: Test statistic.
        df: Degrees of freedom: groups - 1.
        p_value: Probability of a larger statistic if all groups survive alike.
    """

    chi2: float
    df: int
    p_value: float


def log_rank_test(groups: Sequence[object] | np.ndarray, outcome: SurvivalOutcome) -> LogRank:
    """Compares the survival of groups over the whole follow-up.

    Chi2 = (O - E)' V^-1 (O - E) with O - E the events beyond expectation in each group, summed over event times, and V
    their hypergeometric covariance; as R's `survdiff`.

    Args:
        groups: Label of each row.
        outcome: What was observed; rows are at risk from their entry on. Strata are ignored.

    Raises:
        InvalidValueError: If rows have unequal weights, or lengths differ.

    References:
        Mantel 1966; Peto and Peto 1972.
    """
    check_scored(outcome, entries=True)
    parts = _rows_of_groups(groups, outcome)
    entry = outcome.entries().detach().cpu().numpy()
    time, event = outcome.numpy()
    if len(parts) < 2 or not (event > 0).any():
        return LogRank(float("nan"), max(len(parts) - 1, 0), float("nan"))
    times = np.unique(time[event > 0])
    at_risk = np.stack(
        [_count_from(time[rows], times) - _count_from(entry[rows], times) for _, rows in parts], axis=1
    ).astype(np.float64)
    deaths = np.stack([_count_at(time[rows][event[rows] > 0], times) for _, rows in parts], axis=1).astype(np.float64)
    n, d = at_risk.sum(1), deaths.sum(1)
    share = at_risk / n[:, None]
    excess = (deaths - d[:, None] * share).sum(0)[:-1]
    factor = d * (n - d) / np.maximum(n - 1, 1)
    covariance = np.diag((factor[:, None] * share).sum(0)) - np.einsum("t,ti,tj->ij", factor, share, share)
    chi2 = float(excess @ np.linalg.pinv(covariance[:-1, :-1]) @ excess)
    df = len(parts) - 1
    halves = torch.tensor([df / 2, chi2 / 2], dtype=torch.float64)
    return LogRank(chi2, df, float(torch.special.gammaincc(halves[0], halves[1])))


@dataclass(frozen=True, slots=True)
class SubgroupScore:
    """The score of one subgroup.

    Attributes:
        group: Its label.
        n: Rows.
        n_events: Events.
        score: The score; NaN, with the reason in its settings, where the subgroup does not define it.
    """

    group: object
    n: int
    n_events: int
    score: Score


def subgroup_scores(
    score: Callable[..., Score],
    prediction: SurvivalPrediction | np.ndarray | Tensor,
    outcome: SurvivalOutcome,
    groups: Sequence[object] | np.ndarray,
) -> tuple[SubgroupScore, ...]:
    """Scores every subgroup by itself, with its rows and events.

    Args:
        score: Called as score(prediction, outcome); may itself be a bootstrap's score.
        prediction: Curves or risks of the rows of `outcome`.
        outcome: What was observed.
        groups: Label of each row.
    """
    whole = score(prediction, outcome)
    results = []
    for group, rows in _rows_of_groups(groups, outcome):
        part = outcome[rows]
        try:
            result = score(prediction[rows], part)
        except InvalidValueError as error:
            settings = {"undefined": str(error)}
            result = Score(whole.name, float("nan"), None, whole.direction, whole.category, settings)
        results.append(SubgroupScore(group, len(part), part.n_events, result))
    return tuple(results)


def _rows_of_groups(groups: Sequence[object] | np.ndarray, outcome: SurvivalOutcome) -> list[tuple[object, np.ndarray]]:
    labels = np.asarray(groups)
    if labels.shape != (len(outcome),):
        raise InvalidValueError(
            f"`groups` must have one label per row of `outcome`; got shape {labels.shape} for {len(outcome)} rows."
        )
    distinct, code = np.unique(labels, return_inverse=True)
    return [(label, np.flatnonzero(code == k)) for k, label in enumerate(distinct.tolist())]


def _count_from(time: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How many of `time` are at or after each of `times`."""
    return len(time) - np.searchsorted(np.sort(time), times, side="left")


def _count_at(time: np.ndarray, times: np.ndarray) -> np.ndarray:
    ordered = np.sort(time)
    return np.searchsorted(ordered, times, side="right") - np.searchsorted(ordered, times, side="left")
