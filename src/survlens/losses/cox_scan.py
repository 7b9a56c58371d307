"""Compiled passes over sorted rows for the Cox partial likelihood, one stratum after another, without delayed entry.

Importing this module imports numba (0.5 s), so `survlens.losses.cox` does it on first use.

Notation: rows are visited in the order of time; a *block* is the rows of one time; `d` events of a block share its
denominators M_l = Q + (1 - l/d) D, l = 0 .. d - 1 (Breslow: l = 0 only), where D sums exp(log_risk) over the tied
events and Q over everyone else at risk. Written with Q, nothing is subtracted, so nothing cancels when the tied events
are the whole risk set.

Nothing overflows. Going back in time the risk set only grows, so its largest log-risk is a running maximum (`peak`),
and sums are kept relative to it. Going forward in time R = Q + D only falls, so 1/R only grows, and the sum over past
events of 1/M is kept relative to the latest 1/R; the factor exp(log_risk) / R that it meets is a share of a risk set,
at most 1. Both ways together take one exponential per row and one more where the peak moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from survlens.core.outcome import SurvivalOutcome
from survlens.core.row_order import by_stratum_and_time
from survlens.core.ties import Ties

_LOGS_AT_ONCE = 16


class ScanPass:
    """Losses of rows without delayed entry, and later their gradient.

    Args:
        outcome: What was observed.
        log_risk: One float per instance.
        ties: Rule for equal event times.

    Attributes:
        order: Positions of the rows by stratum and time.
        loss: Losses in that order.
    """

    def __init__(self, outcome: SurvivalOutcome, log_risk: np.ndarray, ties: Ties):
        self.order, self._time, self._bounds = by_stratum_and_time(outcome)
        self._died = (outcome.numpy()[1] > 0)[self.order]
        ordered = log_risk[self.order].astype(np.float64)
        self.loss, *self._kept = scan_back(self._time, self._died, ordered, self._bounds, ties is Ties.EFRON)

    def gradient(self, cotangent: np.ndarray) -> np.ndarray:
        """Gradient of sum(cotangent * loss) by log-risk; both in `order`."""
        return scan_forward(self._time, self._died, self._bounds, *self._kept, cotangent)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled on first use and kept on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep the compiled code: a read-only installation without a home
        return numba.njit(nogil=True)(function)


@compiled
def tied_means(others: float, tied: float, events: int, efron: bool) -> tuple[float, float, float]:
    """Means over l of log(M_l / R), R / M_l and (1 - l/d) R / M_l."""
    if not efron or events == 1:
        return 0.0, 1.0, 1.0
    total = others + tied
    others, tied = others / total, tied / total
    logs, product, inverse, own = 0.0, 1.0, 0.0, 0.0
    for rank in range(events):
        weight = 1.0 - rank / events
        ratio = others + weight * tied
        # One logarithm for several factors: each lies in [1/d, 1], so the product keeps its digits.
        product *= ratio
        if rank % _LOGS_AT_ONCE == _LOGS_AT_ONCE - 1:
            logs += np.log(product)
            product = 1.0
        inverse += 1.0 / ratio
        own += weight / ratio
    return (logs + np.log(product)) / events, inverse / events, own / events


@compiled
def _back(
    time: np.ndarray,
    died: np.ndarray,
    log_risk: np.ndarray,
    efron: bool,
    loss: np.ndarray,
    share: np.ndarray,
    peaks: np.ndarray,
    blocks: np.ndarray,
) -> int:
    count, stop = 0, len(time)
    peak, others = -np.inf, 0.0
    while stop > 0:
        first = stop - 1
        now, highest, events = time[first], log_risk[first], int(died[first])
        while first > 0 and time[first - 1] == now:
            first -= 1
            highest = max(highest, log_risk[first])
            events += died[first]
        if highest > peak:
            others *= np.exp(peak - highest)
            peak = highest
        if stop - first == 1:  # the common case without ties, free of inner loops
            share[first] = np.exp(log_risk[first] - peak)
            peaks[first] = peak
            others += share[first]
            if events:
                loss[first] = peak + np.log(others) - log_risk[first]
                blocks[count, 0], blocks[count, 1], blocks[count, 2], blocks[count, 3] = others, 1.0, 1.0, float(first)
                count += 1
            stop = first
            continue
        tied = 0.0
        for k in range(first, stop):
            share[k] = np.exp(log_risk[k] - peak)
            peaks[k] = peak
            if died[k]:
                tied += share[k]
            else:
                others += share[k]
        if events > 0:
            mean_log, inverse, own = tied_means(others, tied, events, efron)
            others += tied
            mean_log += peak + np.log(others)
            for k in range(first, stop):
                if died[k]:
                    loss[k] = mean_log - log_risk[k]
            blocks[count] = others, inverse, own, float(first)
            count += 1
        stop = first
    return count


@compiled
def scan_back(
    time: np.ndarray, died: np.ndarray, log_risk: np.ndarray, bounds: np.ndarray, efron: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """From the last of the sorted rows to the first: losses, and what the way forward needs.

    Stratum s is the rows from bounds[s] up to bounds[s + 1].

    Returns:
        For each row its loss, exp(log_risk - peak) and the peak. For each event time, latest first, (R relative to the
        peak, mean over l of R / M_l, mean over l of (1 - l/d) R / M_l, position of its first row in the stratum); those
        of stratum s stand from bounds[s] on. For each stratum the number of its event times.
    """
    n = len(time)
    loss, share, peaks, blocks = np.zeros(n), np.empty(n), np.empty(n), np.empty((n, 4))
    counts = np.empty(len(bounds) - 1, np.int64)
    for s in range(len(counts)):
        rows = slice(bounds[s], bounds[s + 1])
        counts[s] = _back(
            time[rows], died[rows], log_risk[rows], efron, loss[rows], share[rows], peaks[rows], blocks[rows]
        )
    return loss, share, peaks, blocks, counts


@compiled
def _forward(
    time: np.ndarray,
    died: np.ndarray,
    share: np.ndarray,
    peaks: np.ndarray,
    blocks: np.ndarray,
    cotangent: np.ndarray,
    gradient: np.ndarray,
) -> None:
    n = len(time)
    past, total, peak = 0.0, 1.0, 0.0
    for block in range(len(blocks) - 1, -1, -1):
        first = int(blocks[block, 3])
        stop = int(blocks[block - 1, 3]) if block > 0 else n
        past *= blocks[block, 0] / total
        if peaks[first] != peak and past != 0.0:
            past *= np.exp(peaks[first] - peak)
        total, peak = blocks[block, 0], peaks[first]
        weight = 0.0
        for k in range(first, stop):
            if time[k] != time[first]:
                break
            if died[k]:
                weight += cotangent[k]
        mine = (past + weight * blocks[block, 2]) / total
        past += weight * blocks[block, 1]
        theirs = past / total
        for k in range(first, stop):
            scale = share[k] if peaks[k] == peak else share[k] * np.exp(peaks[k] - peak)
            # Rows of a segment that had an event are those tied at its start.
            gradient[k] = scale * mine - cotangent[k] if died[k] else scale * theirs


@compiled
def scan_forward(
    time: np.ndarray,
    died: np.ndarray,
    bounds: np.ndarray,
    share: np.ndarray,
    peaks: np.ndarray,
    blocks: np.ndarray,
    counts: np.ndarray,
    cotangent: np.ndarray,
) -> np.ndarray:
    """From the first of the sorted rows to the last: gradient of sum(cotangent * loss) by log-risk."""
    gradient = np.zeros(len(time))
    for s in range(len(counts)):
        rows, mine = slice(bounds[s], bounds[s + 1]), slice(bounds[s], bounds[s] + counts[s])
        _forward(time[rows], died[rows], share[rows], peaks[rows], blocks[mine], cotangent[rows], gradient[rows])
    return gradient
