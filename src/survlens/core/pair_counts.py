"""Exact pair counts behind Harrell's concordance, in numpy only.

They serve `score` of the estimators, which may not import from `evaluate`; weighted and time-dependent concordance with
intervals live in `evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many pairs of instances a risk orders rightly, by the rules of R's `survival::concordance`.

    A pair is comparable if the shorter time ended in an event; an event precedes a censoring at the same time. With
    delayed entry the longer-lived must have entered before that event, and with strata both stand in one. With weights
    a pair counts the product of theirs, and the counts are no whole numbers.

    Attributes:
        concordant: Comparable pairs whose earlier event has the higher risk.
        discordant: Comparable pairs whose earlier event has the lower risk.
        tied_risk: Comparable pairs of equal risk.
        tied_time: Pairs of events at one time with different risks.
        tied_both: Pairs of events at one time with equal risks.
    """

    concordant: float
    discordant: float
    tied_risk: float
    tied_time: float
    tied_both: float

    @property
    def comparable(self) -> float:
        """Pairs that can be judged."""
        return self.concordant + self.discordant + self.tied_risk

    @property
    def concordance(self) -> float:
        """Harrell's C = (concordant + tied_risk / 2) / comparable; NaN where no pair is comparable.

        References:
            Harrell et al. 1982.
        """
        return (self.concordant + self.tied_risk / 2) / self.comparable if self.comparable else float("nan")


def pair_counts(risk: np.ndarray | Tensor, outcome: SurvivalOutcome) -> PairCounts:
    """Counts the pairs of `risk` against `outcome` in O(n log n), with whole numbers where there are no weights.

    Any cause counts as an event. Risks are compared exactly: no tolerance makes a tie. Entries, weights and strata of
    the outcome are honoured.

    Args:
        risk: One value per instance; higher is worse.
        outcome: What was observed of the same instances.

    Raises:
        InvalidValueError: If lengths differ or a risk is NaN.
    """
    values = risk.detach().cpu().double().numpy() if isinstance(risk, Tensor) else np.asarray(risk, dtype=np.float64)
    time, event = outcome.numpy()
    if values.shape != time.shape:
        raise InvalidValueError(f"`risk` must have one value per instance; got {values.shape} for {time.shape}.")
    if np.isnan(values).any():
        raise InvalidValueError(f"`risk` must not be NaN; got {int(np.isnan(values).sum())} such values.")
    died = event > 0
    rank = np.unique(values, return_inverse=True)[1].astype(np.int64)
    weight = np.ones(len(time), np.int64) if outcome.weight is None else outcome.weight.detach().cpu().numpy()
    # Events get an even key and censorings at the same time the odd key above it: j outlives i iff key_j > key_i. Each
    # stratum has its own stretch of ranks, and `group` keeps pairs within it.
    entry = outcome.entries().detach().cpu().numpy()
    moment = np.unique(np.concatenate((time, entry)), return_inverse=True)[1].astype(np.int64)
    key = 2 * moment[: len(time)] + ~died
    stratum = np.unique(outcome.strata().cpu().numpy(), return_inverse=True)[1].astype(np.int64)
    pairs = _Pairs(key, rank, stratum, weight * died, weight)
    comparable, tied_risk, concordant = pairs.counts()
    if outcome.entry is not None:  # who entered at an event or later was not there to be compared
        later = 2 * moment[len(time) :] + 1
        nothing = np.zeros_like(weight)
        absent = _Pairs(
            np.concatenate((key, later)), np.tile(rank, 2), np.tile(stratum, 2),
            np.concatenate((weight * died, nothing)), np.concatenate((nothing, weight)),
        )  # fmt: skip
        counts = zip((comparable, tied_risk, concordant), absent.counts(), strict=True)
        comparable, tied_risk, concordant = (whole - part for whole, part in counts)
    at_once = stratum[died] * (2 * len(moment) + 2) + key[died]
    same_time = _pairs_within(at_once, weight[died])
    tied_both = _pairs_within(at_once * (len(rank) + 1) + rank[died], weight[died])
    return PairCounts(concordant, comparable - tied_risk - concordant, tied_risk, same_time - tied_both, tied_both)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs (i, j) of one stratum with `key[j] > key[i]`, each counting left[i] * right[j]."""

    key: np.ndarray
    rank: np.ndarray
    stratum: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def counts(self) -> tuple[float, float, float]:
        """All pairs, those of equal risk, and those in which i has the higher risk."""
        place = self.stratum * (int(self.rank.max(initial=0)) + 1) + self.rank  # no inversion reaches across strata
        order = np.lexsort((self.rank, self.key, self.stratum))
        inverted = _inversions(place[order], self.left[order], self.right[order])
        return self._of_one(self.stratum), self._of_one(place), inverted

    def _of_one(self, group: np.ndarray) -> float:
        """Pairs whose members stand in one group."""
        joint = group * (int(self.key.max(initial=0)) + 1) + self.key
        order = np.argsort(joint)
        total = np.concatenate(([0], np.cumsum(self.right[order])))
        above = total[_runs(group[order])[1]] - total[_runs(joint[order])[1]]
        return (self.left[order] * above).sum().item()


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First position of, and first position after, the run of equal labels that each position stands in."""
    starts = np.flatnonzero(np.concatenate(([True], labels[1:] != labels[:-1])))
    ends = np.concatenate((starts[1:], [len(labels)]))
    lengths = ends - starts
    return np.repeat(starts, lengths), np.repeat(ends, lengths)


def _pairs_within(labels: np.ndarray, weight: np.ndarray) -> float:
    run = np.unique(labels, return_inverse=True)[1]
    total, squares = np.zeros(len(labels), weight.dtype), np.zeros(len(labels), weight.dtype)
    np.add.at(total, run, weight)
    np.add.at(squares, run, weight**2)
    return ((total**2 - squares).sum() / 2).item() if weight.dtype.kind == "f" else int((total**2 - squares).sum()) // 2


def _inversions(rank: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Sum of left[p] * right[q] over positions p < q with `rank[q] < rank[p]`.

    Two ranks differ first at one binary digit. Digit by digit from the highest, rows that agree so far stand together
    in their first order, and each 1 meets the 0s after it; then every group is split, zeros first.
    """
    total, position = right[:0].sum(), np.arange(len(rank))
    for digit in range(int(rank.max(initial=0)).bit_length() - 1, -1, -1):
        start, end = _runs(rank >> (digit + 1))
        one = ((rank >> digit) & 1).astype(bool)
        zeros = np.concatenate(([0], np.cumsum(~one)))
        weighed = np.concatenate(([0], np.cumsum(np.where(one, 0, right))))
        total += (left * (weighed[end] - weighed[:-1]))[one].sum()
        place = np.where(one, position + zeros[end] - zeros[:-1], start + zeros[:-1] - zeros[start])
        rank, left, right = (_placed(values, place) for values in (rank, left, right))
    return total.item()


def _placed(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    moved = np.empty_like(values)
    moved[place] = values
    return moved
