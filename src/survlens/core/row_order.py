"""Rows by stratum and time, fast."""

from __future__ import annotations

import numpy as np

from survlens.core.outcome import SurvivalOutcome


def by_stratum_and_time(outcome: SurvivalOutcome) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the rows by stratum and, within it, by time; the times in that order; where each stratum begins.

    The third holds one number more than there are strata: stratum s is the rows from the s-th number to the next.
    """
    order, time = by_value(outcome.numpy()[0])
    if outcome.stratum is None:
        return order, time, np.array([0, len(time)])
    again, ordered = by_stratum(outcome.stratum.detach().cpu().numpy()[order])
    edges = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return order[again], time[again], np.concatenate(([0], edges, [len(time)]))


def by_stratum(stratum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows by stratum, otherwise in the order in which they stand; and the sorted numbers of strata.

    Numbers of strata and positions are packed into one number, which sorts faster than positions do.
    """
    width = len(stratum).bit_length()
    if int(stratum.max()).bit_length() + width > 63:
        stratum = np.unique(stratum, return_inverse=True)[1]
    packed = stratum << width | np.arange(len(stratum))
    packed.sort()
    return packed & ((1 << width) - 1), packed >> width


def by_value(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows by a float >= 0, and the sorted values.

    Numpy sorts numbers two to three times as fast as it sorts positions, so the two are packed into one number. Bits of
    floats >= 0 order like the floats; above them the smallest is taken off, and below as many are dropped as the
    positions need. What that leaves out of order is a row here and there, which timsort puts right in one pass.
    """
    if len(values) < 4096:
        order = values.argsort()
        return order, values[order]
    bits, width = values.view(np.int64), len(values).bit_length()
    lowest = bits.min()
    drop = max(0, int(bits.max() - lowest).bit_length() + width - 63)
    packed = (bits - lowest >> drop << width) | np.arange(len(values))
    packed.sort()
    order = packed & ((1 << width) - 1)
    values = values[order]
    if drop and (values[1:] < values[:-1]).any():
        again = values.argsort(kind="stable")
        order, values = order[again], values[again]
    return order, values
