"""Counting comparable pairs of survival times in n log n.

A pair is comparable where the one who lives less long had the event. Of two equal times an event and a censoring are
comparable, because the censored one lived longer; two events are not.

Rows are sorted by time, events before censorings. Then the partners of an event are one unbroken tail of the rows, and
a Fenwick tree over the ranks of the risk counts, walking down the rows, how many of that tail have a lower risk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from survlens.core.outcome import SurvivalOutcome


@dataclass(frozen=True, slots=True, eq=False)
class SortedRows:
    """Rows sorted by time, events before censorings.

    Attributes:
        order: Position in the data of each sorted row.
        time: Sorted times.
        event: 1 where an event counts (seen, and not after the horizon).
        tail: First comparable partner of each row, were it an event; its partners are all rows from there on.
    """

    order: np.ndarray
    time: np.ndarray
    event: np.ndarray
    tail: np.ndarray


def sort_rows(outcome: SurvivalOutcome, horizon: float) -> SortedRows:
    """Sorts the rows; events after `horizon` become censorings."""
    time, cause = outcome.numpy()
    return sort_times(time, (cause > 0) & (time <= horizon))


def sort_times(time: np.ndarray, died: np.ndarray) -> SortedRows:
    """Sorts rows by time, those that `died` first.

    One fast sort by time, then places inside each run of equal times by counting, which is cheaper than a second key.
    """
    order = np.argsort(time)
    time = time[order]
    event = died[order].astype(np.int64)
    starts = np.concatenate(([True], time[1:] != time[:-1]))[: len(time)]
    run = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)[run]
    events_before = np.cumsum(event) - event
    events_of_run = np.bincount(run, weights=event, minlength=1).astype(np.int64)[run]
    tail = first + events_of_run
    events_in_run_before = events_before - events_before[first]
    place = np.where(
        event > 0, first + events_in_run_before, tail + np.arange(len(time)) - first - events_in_run_before
    )
    sorted_order, sorted_event = np.empty_like(order), np.empty_like(event)
    sorted_order[place], sorted_event[place] = order, event
    return SortedRows(sorted_order, time, sorted_event, tail)


def dense_rank(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Rank of each value from 1 on, equal values sharing one, and the number of ranks."""
    order = np.argsort(values)
    ordered = values[order]
    steps = np.concatenate(([1], (ordered[1:] != ordered[:-1]).astype(np.int64))) if len(values) else ordered
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.cumsum(steps)
    return rank, int(rank.max(initial=0))


def tied_event_pairs(rows: SortedRows, rank: np.ndarray, ranks: int) -> tuple[int, int]:
    """Pairs of events at one time: with different risks, and with equal risks."""
    events = rows.event > 0
    tied = _pairs(np.unique(rows.time[events], return_counts=True)[1])
    if tied == 0 or ranks == len(rank):
        return tied, 0
    cell = rows.tail[events] * (ranks + 1) + rank[events]
    both = _pairs(np.unique(cell, return_counts=True)[1])
    return tied - both, both


def _pairs(sizes: np.ndarray) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


@njit(cache=True)
def count_pairs(
    rank: np.ndarray, ranks: int, event: np.ndarray, tail: np.ndarray, case_weight: np.ndarray, weight: np.ndarray
) -> tuple[float, float, float]:
    """Concordant, discordant and risk-tied pairs, each counted case_weight[event] * weight[partner].

    Rows of weight 0 are absent.
    """
    tree = np.zeros(ranks + 1)
    at_rank = np.zeros(ranks + 1)
    total = concordant = discordant = tied = 0.0
    added = len(rank)
    for i in range(len(rank) - 1, -1, -1):
        if event[i] == 0 or case_weight[i] == 0.0:
            continue
        while added > tail[i]:
            added -= 1
            amount = weight[added]
            if amount != 0.0:
                total += amount
                at_rank[rank[added]] += amount
                node = rank[added]
                while node <= ranks:
                    tree[node] += amount
                    node += node & -node
        below = 0.0
        node = rank[i] - 1
        while node > 0:
            below += tree[node]
            node -= node & -node
        level = at_rank[rank[i]]
        concordant += case_weight[i] * below
        tied += case_weight[i] * level
        discordant += case_weight[i] * (total - below - level)
    return concordant, discordant, tied


@njit(cache=True)
def count_pairs_of_rows(
    rank: np.ndarray, ranks: int, event: np.ndarray, tail: np.ndarray, case_weight: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each row: concordant minus discordant pairs, and all comparable pairs, in which it stands on either side."""
    n = len(rank)
    net = np.zeros(n)
    pairs = np.zeros(n)
    tree = np.zeros(ranks + 1)
    at_rank = np.zeros(ranks + 1)
    total = 0.0
    added = n
    for i in range(n - 1, -1, -1):
        if event[i] == 0:
            continue
        while added > tail[i]:
            added -= 1
            total += weight[added]
            at_rank[rank[added]] += weight[added]
            node = rank[added]
            while node <= ranks:
                tree[node] += weight[added]
                node += node & -node
        below = 0.0
        node = rank[i] - 1
        while node > 0:
            below += tree[node]
            node -= node & -node
        net[i] += case_weight[i] * (below - (total - below - at_rank[rank[i]]))
        pairs[i] += case_weight[i] * total
    tree[:] = 0.0
    at_rank[:] = 0.0
    total = 0.0
    case = 0
    for j in range(n):
        while case < n and tail[case] <= j:
            if event[case] != 0:
                total += case_weight[case]
                at_rank[rank[case]] += case_weight[case]
                node = rank[case]
                while node <= ranks:
                    tree[node] += case_weight[case]
                    node += node & -node
            case += 1
        below = 0.0
        node = rank[j] - 1
        while node > 0:
            below += tree[node]
            node -= node & -node
        net[j] += weight[j] * ((total - below - at_rank[rank[j]]) - below)
        pairs[j] += weight[j] * total
    return net, pairs


@njit(cache=True)
def concordance_of_draws(
    rank: np.ndarray, ranks: int, event: np.ndarray, tail: np.ndarray, case_factor: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Concordance of each row of `weights` (multiplicities of the sorted rows); NaN without comparable pairs."""
    result = np.empty(len(weights))
    for draw in range(len(weights)):
        weight = weights[draw].astype(np.float64)
        concordant, discordant, tied = count_pairs(rank, ranks, event, tail, case_factor * weight, weight)
        pairs = concordant + discordant + tied
        result[draw] = (concordant + 0.5 * tied) / pairs if pairs > 0 else np.nan
    return result


@njit(cache=True, fastmath={"reassoc"})
def count_pairs_over_time(
    survival: np.ndarray, cases: np.ndarray, columns: np.ndarray, tail: np.ndarray, weight: np.ndarray
) -> tuple[float, float, float]:
    """Concordant, discordant and tied pairs where each event reads its own row of `survival` (time, instance).

    Each pair counts the product of its weights; whole weights are summed exactly in any order.
    """
    concordant = discordant = tied = 0.0
    n = survival.shape[1]
    for k in range(len(cases)):
        values = survival[columns[k]]
        own = values[cases[k]]
        longer = equal = total = 0.0
        for j in range(tail[cases[k]], n):
            longer += weight[j] if values[j] > own else 0.0
            equal += weight[j] if values[j] == own else 0.0
            total += weight[j]
        amount = weight[cases[k]]
        concordant += amount * longer
        tied += amount * equal
        discordant += amount * (total - longer - equal)
    return float(concordant), float(discordant), float(tied)


@njit(cache=True)
def wins_over_time(
    survival: np.ndarray, cases: np.ndarray, columns: np.ndarray, tail: np.ndarray, wins: np.ndarray
) -> None:
    """Fills `wins` (event, instance): 1 where an instance outlives the event and had the longer curve, 1/2 if equal."""
    n = survival.shape[1]
    for k in range(len(cases)):
        values = survival[columns[k]]
        own = values[cases[k]]
        first = tail[cases[k]]
        for j in range(first):
            wins[k, j] = 0.0
        for j in range(first, n):
            wins[k, j] = 1.0 if values[j] > own else (0.5 if values[j] == own else 0.0)
