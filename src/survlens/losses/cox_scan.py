"""Compiled passes over sorted rows for the Cox partial likelihood.

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

_LOGS_AT_ONCE = 16


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep the compiled code: a read-only installation without a home
        return numba.njit(nogil=True)(function)


@_compiled
def _tied_means(others: float, tied: float, events: int, efron: bool) -> tuple[float, float, float]:
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


@_compiled
def scan_back(
    time: np.ndarray, died: np.ndarray, log_risk: np.ndarray, efron: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """From the last of the sorted rows to the first: losses, and what the way forward needs.

    Returns:
        For each row its loss, exp(log_risk - peak) and the peak; and for each event time, latest first, (R relative to
        the peak, mean over l of R / M_l, mean over l of (1 - l/d) R / M_l, position of its first row).
    """
    n = len(time)
    loss, share, peaks = np.zeros(n), np.empty(n), np.empty(n)
    blocks = np.empty((n, 4))
    count, stop = 0, n
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
            mean_log, inverse, own = _tied_means(others, tied, events, efron)
            others += tied
            mean_log += peak + np.log(others)
            for k in range(first, stop):
                if died[k]:
                    loss[k] = mean_log - log_risk[k]
            blocks[count] = others, inverse, own, float(first)
            count += 1
        stop = first
    return loss, share, peaks, blocks[:count]


@_compiled
def scan_forward(
    time: np.ndarray,
    died: np.ndarray,
    share: np.ndarray,
    peaks: np.ndarray,
    blocks: np.ndarray,
    cotangent: np.ndarray,
) -> np.ndarray:
    """From the first of the sorted rows to the last: gradient of sum(cotangent * loss) by log-risk."""
    n = len(time)
    gradient = np.zeros(n)
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
    return gradient
