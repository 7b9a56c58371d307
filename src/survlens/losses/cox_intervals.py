"""Compiled passes for the Cox partial likelihood with delayed entry.

Importing this module imports numba (0.5 s), so `survlens.losses.cox` does it on first use.

With delayed entry the risk set of a stratum grows and falls, so no running sum follows it without subtracting those
who leave, and what a subtraction leaves of 1e300 - 1e300 is noise. Here nothing is subtracted. All event times of all
strata stand on one axis of *ranks*, stratum after stratum, and a row is at risk on a range of ranks, first .. last.
Write both ends in binary: the highest bit in which they differ, the *level* k, names one place where the range crosses
from the lower to the upper half of an aligned stretch of 2^k ranks. Left of it the row covers every rank from `first`
on, right of it every rank up to `last`. So one running sum from the left over each lower half and one from the right
over each upper half add up all rows of a level at all ranks: two numbers per row, and one sweep over the ranks per
level, of which there are log2 of the number of event times. The gradient is the transpose: the same sweeps, run the
other way.

Sums are of exp(log_risk - scale). Where log-risks lie further apart than `_BAND`, they are cut into bands with one
scale each, swept one after another and put together at each rank relative to the highest band found there; exponentials
then neither overflow nor vanish.
"""

from __future__ import annotations

import numpy as np

from survlens.core.outcome import SurvivalOutcome
from survlens.core.row_order import by_stratum, by_stratum_and_time, by_value
from survlens.core.ties import Ties
from survlens.losses.cox_scan import compiled, tied_means

_BAND = 500.0


class IntervalPass:
    """Losses of rows with delayed entry and any number of strata, and later their gradient.

    Args:
        outcome: What was observed.
        log_risk: One float per instance.
        ties: Rule for equal event times.

    Attributes:
        order: Positions of the rows by stratum and time.
        loss: Losses in that order.
    """

    def __init__(self, outcome: SurvivalOutcome, log_risk: np.ndarray, ties: Ties):
        self.order, time, bounds = by_stratum_and_time(outcome)
        died = (outcome.numpy()[1] > 0)[self.order]
        entry = outcome.entries().detach().cpu().numpy()[self.order] + 0.0  # no -0.0, whose bits sort last
        entered, _ = by_value(entry)
        if len(bounds) > 2:
            entered = entered[by_stratum(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))[entered])[0]]
        self._first, self._last, self._ranks = ranges(time, died, entry, entered, bounds)
        self._levels = by_level(self._first, self._last)
        self._events = np.flatnonzero(died)
        self._rank = self._last[self._events] + 1
        score = log_risk[self.order].astype(np.float64)
        self._share, self._bands = _bands(score)
        self._risk_sets()
        deaths = np.bincount(self._rank, minlength=self._ranks)
        logs, self._inverse, self._own = means(self._others, self._tied, deaths, ties is Ties.EFRON)
        self._total = self._others + self._tied
        with np.errstate(divide="ignore", invalid="ignore"):
            logs += self._peak + np.log(self._total)
        self.loss = np.zeros(len(time))
        self.loss[self._events] = logs[self._rank] - score[self._events]

    def _risk_sets(self) -> None:
        """At each rank the tied events and everyone else, relative to the highest band at risk there."""
        self._peak = np.full(self._ranks, np.nan)
        self._others, self._tied = np.zeros(self._ranks), np.zeros(self._ranks)
        for scale, rows in self._bands:  # from the highest
            share = self._share if rows is None else np.where(rows, self._share, 0.0)
            others = sums_at_ranks(*self._levels, self._first, self._last, share, self._ranks)
            tied = np.bincount(self._rank, weights=share[self._events], minlength=self._ranks)
            self._peak[np.isnan(self._peak) & (others + tied != 0)] = scale
            factor = self._from_peak(scale)
            self._others += others * factor
            self._tied += tied * factor

    def _from_peak(self, scale: float) -> np.ndarray:
        """exp(scale - peak); 1 at ranks that nobody of this band or of a higher one reaches."""
        return np.exp(np.fmin(scale - self._peak, 0.0))

    def gradient(self, cotangent: np.ndarray) -> np.ndarray:
        """Gradient of sum(cotangent * loss) by log-risk; both in `order`."""
        weight = np.bincount(self._rank, weights=cotangent[self._events], minlength=self._ranks)
        with np.errstate(divide="ignore", invalid="ignore"):
            theirs, own = weight * self._inverse / self._total, weight * self._own / self._total
        gradient = np.zeros(len(cotangent))
        for scale, rows in self._bands:
            factor = self._from_peak(scale)
            sums = sums_at_rows(*self._levels, self._first, self._last, theirs * factor)
            sums[self._events] += (own * factor)[self._rank]
            gradient += self._share * sums if rows is None else np.where(rows, self._share * sums, 0.0)
        gradient[self._events] -= cotangent[self._events]
        return gradient


def _bands(score: np.ndarray) -> tuple[np.ndarray, list[tuple[float, np.ndarray | None]]]:
    """Shares exp(score - scale of the band), and for each band, highest first, its scale and rows (None: all)."""
    finite = np.isfinite(score)
    top = float(score[finite].max()) if finite.any() else 0.0
    with np.errstate(invalid="ignore"):
        band = np.where(finite, np.floor((top - score) / _BAND), 0.0)
        share = np.exp(score - (top - _BAND * band))
    if not band.any():
        return share, [(top, None)]
    return share, [(top - _BAND * number, band == number) for number in np.unique(band)]


@compiled
def ranges(
    time: np.ndarray, died: np.ndarray, entry: np.ndarray, entered: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """First and last rank at which each row is at risk *beside* the events, and the number of ranks.

    Rows stand by stratum and time, `entered` lists them by stratum and entry. Where last < first a row is at risk at no
    rank. An event's own rank is last + 1: it is counted among the tied events there.
    """
    n = len(time)
    first, last, rank_time = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    count = 0
    for s in range(len(bounds) - 1):
        rank, start = count, bounds[s]
        while start < bounds[s + 1]:
            stop, events = start, 0
            while stop < bounds[s + 1] and time[stop] == time[start]:
                events += died[stop]
                stop += 1
            if events:
                rank_time[count] = time[start]
                count += 1
            for row in range(start, stop):
                last[row] = count - 1 - died[row]
            start = stop
        for k in range(bounds[s], bounds[s + 1]):
            row = entered[k]
            while rank < count and rank_time[rank] <= entry[row]:
                rank += 1
            first[row] = rank
    return first, last, count


@compiled
def by_level(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows by level, and where each level begins among them; level 0 is ranges of one rank."""
    n = len(first)
    level, starts = np.empty(n, np.int8), np.zeros(66, np.int64)
    for row in range(n):
        level[row] = -1
        if first[row] <= last[row]:
            differ, bits = first[row] ^ last[row], 0
            while differ:
                differ >>= 1
                bits += 1
            level[row] = bits
            starts[bits + 1] += 1
    starts = np.cumsum(starts)
    place, rows = starts.copy(), np.empty(starts[-1], np.int64)
    for row in range(n):
        if level[row] >= 0:
            rows[place[level[row]]] = row
            place[level[row]] += 1
    return rows, starts


@compiled
def sums_at_ranks(
    rows: np.ndarray, starts: np.ndarray, first: np.ndarray, last: np.ndarray, share: np.ndarray, ranks: int
) -> np.ndarray:
    """At each rank the sum of `share` over the rows whose range covers it."""
    total, slots = np.zeros(ranks), np.empty(ranks)
    for row in rows[starts[0] : starts[1]]:
        total[first[row]] += share[row]
    for level in range(1, len(starts) - 1):
        if starts[level] == starts[level + 1]:
            continue
        slots[:] = 0.0
        for row in rows[starts[level] : starts[level + 1]]:
            slots[first[row]] += share[row]
            slots[last[row]] += share[row]
        half = 1 << (level - 1)
        for middle in range(half, ranks, 2 * half):
            running = 0.0
            for rank in range(middle - half, middle):
                running += slots[rank]
                total[rank] += running
            running = 0.0
            for rank in range(min(middle + half, ranks) - 1, middle - 1, -1):
                running += slots[rank]
                total[rank] += running
    return total


@compiled
def sums_at_rows(
    rows: np.ndarray, starts: np.ndarray, first: np.ndarray, last: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """For each row the sum of `value` over the ranks of its range: the transpose of `sums_at_ranks`."""
    ranks = len(value)
    total, slots = np.zeros(len(first)), np.empty(ranks)
    for row in rows[starts[0] : starts[1]]:
        total[row] = value[first[row]]
    for level in range(1, len(starts) - 1):
        if starts[level] == starts[level + 1]:
            continue
        half = 1 << (level - 1)
        for middle in range(half, ranks, 2 * half):
            running = 0.0
            for rank in range(middle - 1, middle - half - 1, -1):
                running += value[rank]
                slots[rank] = running
            running = 0.0
            for rank in range(middle, min(middle + half, ranks)):
                running += value[rank]
                slots[rank] = running
        for row in rows[starts[level] : starts[level + 1]]:
            total[row] = slots[first[row]] + slots[last[row]]
    return total


@compiled
def means(
    others: np.ndarray, tied: np.ndarray, deaths: np.ndarray, efron: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`tied_means` at every rank."""
    logs, inverse, own = np.empty(len(others)), np.empty(len(others)), np.empty(len(others))
    for rank in range(len(others)):
        logs[rank], inverse[rank], own[rank] = tied_means(others[rank], tied[rank], deaths[rank], efron)
    return logs, inverse, own
