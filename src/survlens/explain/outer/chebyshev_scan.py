"""Compiled Chebyshev polynomials of many points: each recurrence runs in registers, one pass per point.

Importing this module imports numba (0.5 s), so it is done on first use. See `chebyshev` for formulas.
"""

from __future__ import annotations

import math
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
def mean_basis(start: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """Means of T_q over the pieces from `start` to `end`, for q < `count`: (piece, term)."""
    found = np.empty((start.shape[0], count))
    for i in range(start.shape[0]):
        first = math.acos(min(1.0, max(-1.0, start[i])))
        last = math.acos(min(1.0, max(-1.0, end[i])))
        middle, half = 2 * math.cos((first + last) / 2), 2 * math.cos((first - last) / 2)
        u_middle, u_half, v_middle, v_half = 1.0, 1.0, 0.0, 0.0
        before, two_before = 0.0, 0.0
        for q in range(count):
            product = u_middle * u_half
            found[i, q] = product / (q + 1) / 2
            if q > 1:
                found[i, q] -= two_before / (q - 1) / 2
            two_before, before = before, product
            u_middle, v_middle = middle * u_middle - v_middle, u_middle
            u_half, v_half = half * u_half - v_half, u_half
        found[i, 0] = 1.0
    return found
