"""Compiled walks along lines on which each of many numbers has straight pieces of its own.

On a stretch, g_l of knot l is piecewise linear with its own breaks. The breaks of all knots together cut the stretch
into parts on which nothing bends; at each only one knot changes its piece. Importing this module imports numba (0.5 s),
so it is done on first use.

Notation: piece q belongs to knot `knot[q]`, begins at `begin[q]` in [0, 1] of its stretch and has there the value
`value[q]`, then rises by `rise[q]` per unit. Pieces are sorted by stretch, then by where they begin; those of stretch p
are `first[p]` to `first[p + 1]`, and the first of every knot begins at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# Sums may be taken in any order, so that several are taken at a time; NaN and infinity keep their meaning.
_REORDER = {"reassoc", "contract", "nsz"}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True, fastmath=_REORDER)(function)
    except RuntimeError:  # nowhere to keep the compiled code: a read-only installation without a home
        return numba.njit(nogil=True, fastmath=_REORDER)(function)


@_compiled
def parts_of(
    first: np.ndarray, begin: np.ndarray, longest: np.ndarray, cut_at_breaks: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts at most `longest[p]` long, where asked for without a break in between: (stretch, left, right) of each."""
    count = 0
    for p in range(first.shape[0] - 1):
        left = 0.0
        for q in range(first[p], first[p + 1] + 1):
            right = begin[q] if q < first[p + 1] else 1.0
            if right > left and (cut_at_breaks or q == first[p + 1]):
                count += int(np.ceil((right - left) / longest[p]))
                left = right
    stretch = np.empty(count, np.int64)
    lefts, rights = np.empty(count), np.empty(count)
    count = 0
    for p in range(first.shape[0] - 1):
        left = 0.0
        for q in range(first[p], first[p + 1] + 1):
            right = begin[q] if q < first[p + 1] else 1.0
            if right > left and (cut_at_breaks or q == first[p + 1]):
                cuts = int(np.ceil((right - left) / longest[p]))
                for cut in range(cuts):
                    stretch[count] = p
                    lefts[count] = left + (right - left) * cut / cuts
                    rights[count] = left + (right - left) * (cut + 1) / cuts
                    count += 1
                left = right
    return stretch, lefts, rights


@_compiled
def values_at(
    first: np.ndarray,
    knot: np.ndarray,
    begin: np.ndarray,
    value: np.ndarray,
    rise: np.ndarray,
    stretch: np.ndarray,
    where: np.ndarray,
    knots: int,
) -> np.ndarray:
    """Values of all knots at positions `where` of `stretch`, both in order: (position, knot)."""
    found = np.empty((where.shape[0], knots))
    now = np.zeros(knots, np.int64)
    q, before = 0, -1
    for i in range(where.shape[0]):
        p = stretch[i]
        if p != before:
            q, before = first[p], p
        while q < first[p + 1] and begin[q] <= where[i]:
            now[knot[q]] = q
            q += 1
        for k in range(knots):
            j = now[k]
            found[i, k] = value[j] + rise[j] * (where[i] - begin[j])
    return found


@_compiled
def sums_of_running_hazard(
    first: np.ndarray,
    knot: np.ndarray,
    begin: np.ndarray,
    slopes: np.ndarray,
    stretch: np.ndarray,
    lefts: np.ndarray,
    rights: np.ndarray,
    rises: np.ndarray,
    before_knot: np.ndarray,
    at_knot: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """Sum over nodes i of factors times sums over knots of rises times slopes, (stretch, time, embedding).

    At time t with knot r = `right[t]`: `before_knot[i, t]` times the sum over k < r of rises[i, k] slopes_k, plus
    `at_knot[i, t]` times rises[i, r] slopes_r. `right` does not fall. Each part has the two nodes of Gauss-Legendre.
    Where a slope changes by D at b within a part, the two nodes get D in shares under which both the length and the
    centre of (b, end) come out right: the part then counts as if it had been cut at b, up to the third order of its
    length.
    """
    last = right[right.shape[0] - 1]
    knots, width, times = last + 1, slopes.shape[1], right.shape[0]
    found = np.zeros((first.shape[0] - 1, times, width))
    now = np.zeros(knots, np.int64)
    mixed = np.zeros((2, knots, width))
    touched = np.empty(begin.shape[0], np.int64)
    running = np.zeros(width)
    q, before = 0, -1
    for part in range(stretch.shape[0]):
        p, left, stop = stretch[part], lefts[part], rights[part]
        half = (stop - left) / 2
        apart = 2 * half / np.sqrt(3.0)
        node = left + half - apart / 2
        if p != before:
            q, before = first[p], p
        changes = 0
        while q < first[p + 1] and begin[q] < stop:
            k, b = knot[q], begin[q]
            if k < knots:
                if b <= left:
                    for e in range(width):
                        mixed[0, k, e] = mixed[1, k, e] = slopes[q, e]
                else:
                    length = stop - b
                    second = (length * ((stop + b) / 2 - node) / apart) / half
                    initial = length / half - second
                    for e in range(width):
                        change = slopes[q, e] - slopes[now[k], e]
                        mixed[0, k, e] += initial * change
                        mixed[1, k, e] += second * change
                    touched[changes] = k
                    changes += 1
                now[k] = q
            q += 1
        for side in range(2):
            i = 2 * part + side
            running[:] = 0.0
            t = 0
            for k in range(knots):
                rise = rises[i, k]
                while t < times and right[t] == k:
                    full, own = before_knot[i, t], at_knot[i, t] * rise
                    for e in range(width):
                        found[p, t, e] += full * running[e] + own * mixed[side, k, e]
                    t += 1
                for e in range(width):
                    running[e] += rise * mixed[side, k, e]
        for change_number in range(changes):
            k = touched[change_number]
            for e in range(width):
                mixed[0, k, e] = mixed[1, k, e] = slopes[now[k], e]
    return found


@_compiled
def sums_over_knots(
    first: np.ndarray,
    knot: np.ndarray,
    begin: np.ndarray,
    slopes: np.ndarray,
    stretch: np.ndarray,
    lefts: np.ndarray,
    rights: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Sum over nodes and knots of `weights` (node, knot) times slopes, (stretch, embedding).

    With nodes and changes of slopes as in `sums_of_running_hazard`.
    """
    knots, width = weights.shape[1], slopes.shape[1]
    found = np.zeros((first.shape[0] - 1, width))
    now = np.zeros(knots, np.int64)
    q, before = 0, -1
    for part in range(stretch.shape[0]):
        p, left, stop = stretch[part], lefts[part], rights[part]
        half = (stop - left) / 2
        apart = 2 * half / np.sqrt(3.0)
        node = left + half - apart / 2
        if p != before:
            q, before = first[p], p
        # the slopes of a part are those at its start, plus the shares of what changes within
        while q < first[p + 1] and begin[q] <= left:
            now[knot[q]] = q
            q += 1
        for k in range(knots):
            total = weights[2 * part, k] + weights[2 * part + 1, k]
            for e in range(width):
                found[p, e] += total * slopes[now[k], e]
        while q < first[p + 1] and begin[q] < stop:
            k, b = knot[q], begin[q]
            length = stop - b
            second = (length * ((stop + b) / 2 - node) / apart) / half
            initial = length / half - second
            scale = initial * weights[2 * part, k] + second * weights[2 * part + 1, k]
            for e in range(width):
                found[p, e] += scale * (slopes[q, e] - slopes[now[k], e])
            now[k] = q
            q += 1
    return found
