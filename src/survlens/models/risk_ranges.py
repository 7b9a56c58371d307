"""Sums over risk sets, and over the risk sets that a row belongs to, without a difference of large sums.

Tied groups of events are numbered so that the groups at which a row is at risk follow each other. A sum over risk sets
is then the product with a matrix of rows of ones, and a sum per row the product with its transpose. Neither is formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_array

Rows = Float64[np.ndarray, "instance *column"]
Groups = Float64[np.ndarray, "tie *column"]


class AtRisk(Protocol):
    """Who is at risk at which tied group of events."""

    def over_risk_sets(self, values: Rows) -> Groups:
        """Sum of `values` over the risk set of each group."""
        ...

    def over_groups(self, values: Groups) -> Rows:
        """Sum of `values` over the groups at which each row is at risk."""
        ...

    def ever(self) -> Bool[np.ndarray, " instance"]:
        """Which rows are at risk at one group at least."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FollowedFromStart:
    """Rows in falling order of time, all at risk from the origin on, in one stratum: running sums suffice.

    Attributes:
        last: Last position of each group's risk set.
        n_rows: Number of rows.
    """

    last: Int64[np.ndarray, " tie"]
    n_rows: int

    def over_risk_sets(self, values: Rows) -> Groups:
        """Sum of `values` over the risk set of each group."""
        return np.cumsum(values, axis=0)[self.last]

    def over_groups(self, values: Groups) -> Rows:
        """Sum of `values` over the groups at which each row is at risk."""
        placed = np.zeros((self.n_rows, *values.shape[1:]))
        placed[self.last] = values
        return np.cumsum(placed[::-1], axis=0)[::-1]

    def ever(self) -> Bool[np.ndarray, " instance"]:
        """Which rows are at risk at one group at least."""
        return np.arange(self.n_rows) <= self.last.max(initial=-1)


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Rows whose groups reach over the border of two neighbouring blocks of `size`, in the left and the right one."""

    size: int
    left: csr_array
    right: csr_array


@dataclass(frozen=True, slots=True, eq=False)
class EnteredLate:
    """Rows with delayed entry or in several strata: each is at risk from group `first` to group `end` - 1.

    The difference of two running sums would lose a risk set of low risks after rows of high risk have left or before
    they enter. So every range is cut at the border of a block of 2^k groups into a tail of one block and a head of the
    next; tails and heads are running sums within a block. Cost and memory grow as rows + groups * log(groups).
    """

    levels: tuple[_Level, ...]
    single: csr_array
    at_risk: Bool[np.ndarray, " instance"]

    @staticmethod
    def of(first: Int64[np.ndarray, " instance"], end: Int64[np.ndarray, " instance"], n_groups: int) -> EnteredLate:
        """The ranges of rows that are at risk from group `first` to group `end` - 1; never, where `end` <= `first`."""
        shape, last = (n_groups, len(first)), end - 1
        at_risk = end > first
        single = _incidence(first, at_risk & (first == last), shape)
        levels, size = [], 1
        while size < n_groups:
            differ = first ^ last
            reach = at_risk & (differ >= size) & (differ < 2 * size)
            if reach.any():
                levels.append(_Level(size, _incidence(first, reach, shape), _incidence(last, reach, shape)))
            size *= 2
        return EnteredLate(tuple(levels), single, at_risk)

    def over_risk_sets(self, values: Rows) -> Groups:
        """Sum of `values` over the risk set of each group."""
        total = self.single @ values
        for level in self.levels:
            total = total + _within_blocks(level.left @ values, level.size)
            total = total + _within_blocks((level.right @ values), level.size, backwards=True)
        return total

    def over_groups(self, values: Groups) -> Rows:
        """Sum of `values` over the groups at which each row is at risk."""
        total = self.single.T @ values
        for level in self.levels:
            total = total + level.left.T @ _within_blocks(values, level.size, backwards=True)
            total = total + level.right.T @ _within_blocks(values, level.size)
        return total

    def ever(self) -> Bool[np.ndarray, " instance"]:
        """Which rows are at risk at one group at least."""
        return self.at_risk


def _incidence(group: np.ndarray, chosen: np.ndarray, shape: tuple[int, int]) -> csr_array:
    rows = np.flatnonzero(chosen)
    return csr_array((np.ones(len(rows)), (group[rows], rows)), shape=shape)


def _within_blocks(values: np.ndarray, size: int, *, backwards: bool = False) -> np.ndarray:
    """Running sums that start anew in every block of `size` rows."""
    blocks = -(-len(values) // size)
    padded = np.zeros((blocks * size, *values.shape[1:]))
    padded[: len(values)] = values
    cut = padded.reshape(blocks, size, *values.shape[1:])
    sums = np.cumsum(cut[:, ::-1], axis=1)[:, ::-1] if backwards else np.cumsum(cut, axis=1)
    return sums.reshape(padded.shape)[: len(values)]


def risk_ranges(
    time: Float64[np.ndarray, " instance"],
    entry: Float64[np.ndarray, " instance"],
    stratum: Int64[np.ndarray, " instance"],
    died: Bool[np.ndarray, " instance"],
) -> tuple[EnteredLate, Int64[np.ndarray, " event"], Int64[np.ndarray, " event"]]:
    """Who is at risk at which tied group: the risk set of an event at u in a stratum is entry < u <= time there.

    Args:
        time: Observed times.
        entry: Times at which observation began.
        stratum: Stratum of each row.
        died: Who had an event.

    Returns:
        The ranges; the rows of the events, sorted by group; and the group of each of these.
    """
    moments, place = np.unique(np.concatenate([time, entry]), return_inverse=True)
    own = np.unique(stratum, return_inverse=True)[1].astype(np.int64) * len(moments)
    leaves, enters = own + place[: len(time)], own + place[len(time) :]
    events = np.flatnonzero(died)
    events = events[np.argsort(leaves[events], kind="stable")]
    keys, group = np.unique(leaves[events], return_inverse=True)
    first, end = np.searchsorted(keys, enters, side="right"), np.searchsorted(keys, leaves, side="right")
    return EnteredLate.of(first, end, len(keys)), events, group
