"""A compiled pass over the risk sets of a block of event times, for log-risks that change with time.

Importing this module imports numba (0.5 s), so `survlens.losses.event_risk_sets` does it on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep the compiled code: a read-only installation without a home
        return numba.njit(nogil=True)(function)


@_compiled
def risk_set_terms(
    value: np.ndarray,
    times: np.ndarray,
    reach: np.ndarray,
    bounds: np.ndarray,
    events: np.ndarray,
    died_at: np.ndarray,
    entry: np.ndarray,
    stratum: np.ndarray,
    log_weight: np.ndarray,
    efron: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Of each event the mean log denominator less its own log-risk, and of each pair the slope of the former.

    Args:
        value: Log-risk per group of tied events and row; rows by falling time.
        times: Time of each group.
        reach: How many rows have the time of a group or a later one.
        bounds: First event of each group, and the number of events.
        events: Row of each event.
        died_at: Time of the event of each row; 0 where it had none.
        entry: Entry of each row.
        stratum: Stratum of each row.
        log_weight: Log of the weight of each row.
        efron: Whether tied events share their denominators by Efron's rule.
    """
    terms, slope = np.empty(len(events)), np.zeros_like(value)
    for group in range(len(times)):
        now, rows = times[group], reach[group]
        here, count = stratum[events[bounds[group]]], bounds[group + 1] - bounds[group]
        peak = -np.inf
        for j in range(rows):
            if entry[j] < now and stratum[j] == here:
                peak = max(peak, value[group, j] + log_weight[j])
        others, tied = 0.0, 0.0
        for j in range(rows):
            if entry[j] < now and stratum[j] == here:
                share = np.exp(value[group, j] + log_weight[j] - peak)
                slope[group, j] = share
                if died_at[j] == now:
                    tied += share
                else:
                    others += share
        logs, inverse, own = 0.0, 0.0, 0.0
        for rank in range(count if efron else 1):
            part = 1.0 - rank / count
            total = others + part * tied  # nothing is subtracted, so nothing cancels
            logs += np.log(total)
            inverse += 1.0 / total
            own += part / total
        if efron:
            logs, inverse, own = logs / count, inverse / count, own / count
        for j in range(rows):
            slope[group, j] *= own if died_at[j] == now else inverse
        for event in range(bounds[group], bounds[group + 1]):
            terms[event] = peak + logs - value[group, events[event]]
    return terms, slope
