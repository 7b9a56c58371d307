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

    A pair is comparable if the shorter time ended in an event; an event precedes a censoring at the same time.

    Attributes:
        concordant: Comparable pairs whose earlier event has the higher risk.
        discordant: Comparable pairs whose earlier event has the lower risk.
        tied_risk: Comparable pairs of equal risk.
        tied_time: Pairs of events at one time with different risks.
        tied_both: Pairs of events at one time with equal risks.
    """

    concordant: int
    discordant: int
    tied_risk: int
    tied_time: int
    tied_both: int

    @property
    def comparable(self) -> int:
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
    """Counts the pairs of `risk` against `outcome` in O(n log n), with whole numbers only.

    Any cause counts as an event. Risks are compared exactly: no tolerance makes a tie.

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
    # Events get an even key and censorings at the same time the odd key above it: j outlives i iff key_j > key_i.
    key = 2 * np.unique(time, return_inverse=True)[1].astype(np.int64) + ~died
    comparable = _pairs_above(key, np.zeros_like(key), died)
    tied_risk = _pairs_above(key, rank, died)
    same_time = _pairs_within(key[died])
    tied_both = _pairs_within(key[died] * len(rank) + rank[died])
    order = np.lexsort((rank, key))
    concordant = _inversions(rank[order], died[order])
    return PairCounts(concordant, comparable - tied_risk - concordant, tied_risk, same_time - tied_both, tied_both)


def _pairs_above(key: np.ndarray, group: np.ndarray, counted: np.ndarray) -> int:
    """Pairs (i, j) of one group with `key[j] > key[i]` and i counted."""
    joint = group * (int(key.max(initial=0)) + 1) + key
    order = np.argsort(joint)
    above = _runs(group[order])[1] - _runs(joint[order])[1]
    return int(above[counted[order]].sum())


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First position of, and first position after, the run of equal labels that each position stands in."""
    starts = np.flatnonzero(np.concatenate(([True], labels[1:] != labels[:-1])))
    ends = np.concatenate((starts[1:], [len(labels)]))
    lengths = ends - starts
    return np.repeat(starts, lengths), np.repeat(ends, lengths)


def _pairs_within(labels: np.ndarray) -> int:
    counts = np.unique(labels, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(rank: np.ndarray, counted: np.ndarray) -> int:
    """Pairs of positions p < q with `rank[q] < rank[p]` and p counted.

    Two ranks differ first at one binary digit. Digit by digit from the highest, rows that agree so far stand together
    in their first order, and each counted 1 meets the 0s after it; then every group is split, zeros first.
    """
    total, position = 0, np.arange(len(rank))
    for digit in range(int(rank.max(initial=0)).bit_length() - 1, -1, -1):
        start, end = _runs(rank >> (digit + 1))
        one = ((rank >> digit) & 1).astype(bool)
        zeros = np.concatenate(([0], np.cumsum(~one)))
        zeros_after = zeros[end] - zeros[:-1]
        total += int(zeros_after[one & counted].sum())
        place = np.where(one, position + zeros_after, start + zeros[:-1] - zeros[start])
        rank, counted = _placed(rank, place), _placed(counted, place)
    return total


def _placed(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    moved = np.empty_like(values)
    moved[place] = values
    return moved
