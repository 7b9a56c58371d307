"""Log S of all rows at the time of every event, one time after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numba import njit

from survlens.core.errors import InvalidValueError
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.pair_counts import SortedRows

_BLOCK = 1 << 19
"""Survival values held at once."""

Block = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Log S (time, sorted row), the events that read it (sorted rows), and the line that each event reads."""
Lines = Callable[[np.ndarray], np.ndarray]
"""Log S (knot, sorted row) at some knots, knot 0 being the origin."""


def columns_at_events(prediction: SurvivalPrediction, rows: SortedRows) -> Iterator[Block]:
    """Blocks of log S at the times of the events, in float64 and in the order of `rows`.

    Under STEP, events between two knots read the same line, so a coarse grid costs few lines.

    Args:
        prediction: Survival curves.
        rows: Its rows in order of time.

    Raises:
        InvalidValueError: If an event lies past the last knot.
    """
    cases = np.flatnonzero(rows.event)
    knots = prediction.times.detach().cpu().numpy()
    times = rows.time[cases].astype(knots.dtype)
    if len(cases) and times[-1] > knots[-1] * (1 + 1e-12):
        raise InvalidValueError(
            f"`outcome` must have its events in (0, {float(knots[-1]):g}] {prediction.unit}, the predicted range; "
            f"got an event at {float(times[-1]):g}. "
            f"Pass horizon={float(knots[-1]):g} to count later events as censored."
        )
    stored = prediction.log_survival.detach().cpu().numpy()

    def lines(which: np.ndarray) -> np.ndarray:
        values = stored[:, np.maximum(which, 1) - 1][rows.order].T.astype(np.float64, order="C")
        values[which == 0] = 0.0
        return values

    if prediction.interpolation is Interpolation.STEP:
        yield from _at_knots(lines, len(stored), cases, np.searchsorted(knots, times, side="right"))
    else:
        linear = prediction.interpolation is Interpolation.LINEAR
        yield from _between_knots(lines, len(stored), cases, times.astype(np.float64), knots.astype(np.float64), linear)


def _at_knots(lines: Lines, n: int, cases: np.ndarray, knot: np.ndarray) -> Iterator[Block]:
    needed, column = np.unique(knot, return_inverse=True)
    width = max(1, _BLOCK // max(1, n))
    for start in range(0, len(needed), width):
        chosen = (column >= start) & (column < start + width)
        yield lines(needed[start : start + width]), cases[chosen], column[chosen] - start


def _between_knots(
    lines: Lines, n: int, cases: np.ndarray, times: np.ndarray, knots: np.ndarray, linear: bool
) -> Iterator[Block]:
    needed, column = np.unique(times, return_inverse=True)
    right = np.minimum(np.searchsorted(knots, needed, side="left"), len(knots) - 1)
    starts = np.append(0.0, knots)[right]
    share = np.minimum((needed - starts) / (knots[right] - starts), 1.0)
    width = max(1, _BLOCK // max(1, n))
    for interval in np.unique(right):
        start, end = lines(np.array([interval, interval + 1]))
        with np.errstate(invalid="ignore"):
            fall = np.where(np.isinf(start), 0.0, end - start)
        fall = np.expm1(fall) if linear else fall
        inside = np.flatnonzero(right == interval)
        for first in range(inside[0], inside[-1] + 1, width):
            last = min(first + width, inside[-1] + 1)
            chosen = (column >= first) & (column < last)
            yield _mixed(start, end, fall, share[first:last], linear), cases[chosen], column[chosen] - first


@njit(cache=True)
def _mixed(start: np.ndarray, end: np.ndarray, fall: np.ndarray, share: np.ndarray, linear: bool) -> np.ndarray:
    """Log S between two knots: straight in S if `linear`, with `fall` = S_end / S_start - 1, else straight in log S."""
    values = np.empty((len(share), len(start)))
    for k in range(len(share)):
        s = share[k]
        if s >= 1.0:
            values[k] = end
        elif linear:
            for j in range(len(start)):
                values[k, j] = start[j] + np.log1p(s * fall[j])
        else:
            for j in range(len(start)):
                values[k, j] = start[j] + s * fall[j]
    return values
