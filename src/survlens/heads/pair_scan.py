"""Compiled passes over all pairs of an instance and a time for a perceptron of one hidden layer.

Of U times, n instances and H hidden units, plain torch writes a table of U n H numbers and reads it several times; here
each is made where it is used. Importing this module imports numba (0.5 s), so it is done on first use.

Notation: `rows` is what the first layer makes of the instances (H, n), `shift` what it makes of the times (U, H), and
`weight` the last layer (H,): g[u, j] = sum over h of weight[h] max(0, rows[h, j] + shift[u, h]).
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
def pair_values(rows: np.ndarray, shift: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The value g of each pair."""
    values = np.zeros((shift.shape[0], rows.shape[1]), rows.dtype)
    for u in range(shift.shape[0]):
        for h in range(rows.shape[0]):
            move, factor = shift[u, h], weight[h]
            for j in range(rows.shape[1]):
                x = rows[h, j] + move
                values[u, j] += factor * (rows.dtype.type(0) if x < 0 else x)
    return values


@_compiled
def pair_slopes(
    rows: np.ndarray, shift: np.ndarray, weight: np.ndarray, cotangent: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of sum(cotangent * g) by `rows`, `shift` and `weight`."""
    by_rows, by_shift, by_weight = np.zeros_like(rows), np.zeros_like(shift), np.zeros_like(weight)
    for u in range(shift.shape[0]):
        for h in range(rows.shape[0]):
            move, factor = shift[u, h], weight[h]
            passed, product = rows.dtype.type(0), rows.dtype.type(0)
            for j in range(rows.shape[1]):
                x = rows[h, j] + move
                slope = cotangent[u, j] if x > 0 else rows.dtype.type(0)
                by_rows[h, j] += factor * slope
                passed += slope
                product += slope * x
            by_shift[u, h] = factor * passed
            by_weight[h] += product
    return by_rows, by_shift, by_weight
