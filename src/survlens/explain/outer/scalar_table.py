"""Weights of a raw output of one number f, from a table in f.

Under a Cox head the weight of a point of a path in dF(t) = w_t(f) df depends on the point through f alone, and is
smooth in it. So slopes are summed up against a few Chebyshev polynomials in f first, and these moments meet the
(polynomial, time) table only then: time enters once per group, not once per point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.explain.outer import chebyshev

_FEWEST, _MOST = 16, 256
_TOLERANCE = 1e-13  # of the largest weight of a time
_FAINT = 1e-8  # times whose weights are all below this share of the largest one are judged by that share


@dataclass(frozen=True, slots=True)
class ScalarTable:
    """w_t(f) = sum over q of c_qt T_q((f - middle) / half) for the times where that is exact to rounding.

    Attributes:
        middle: Middle of the range of f.
        half: Half its width.
        coefficients: c_qt.
        smooth: Which times the table serves; the others must be taken one by one.
    """

    middle: float
    half: float
    coefficients: Float[Tensor, "term column"]
    smooth: Tensor

    def basis(self, start: Float[Tensor, " point"], end: Float[Tensor, " point"] | None) -> Tensor:
        """Polynomials at the points `start`, or their means over the pieces to `end`; (point, term)."""
        terms = self.coefficients.shape[0]
        low = (start - self.middle) / self.half
        if end is None:
            return chebyshev.basis(low, terms)
        return chebyshev.mean_basis(low, (end - self.middle) / self.half, terms)

    def contract(
        self, basis: Float[Tensor, "group point term"], slopes: Float[Tensor, "group point feature"]
    ) -> Tensor:
        """Sum over the points of weights times slopes, (group, feature, column), in the cheaper order."""
        _, points, terms = basis.shape
        features, columns = slopes.shape[2], self.coefficients.shape[1]
        by_moments = features * terms * (points + columns)
        if by_moments <= points * columns * (terms + features):
            return (slopes.transpose(1, 2) @ basis) @ self.coefficients
        return slopes.transpose(1, 2) @ (basis @ self.coefficients)


def scalar_table(
    weights: Callable[[Tensor], Tensor], low: float, high: float, most: int, device: torch.device
) -> ScalarTable | None:
    """A table of `weights` on [low, high] with at most `most` nodes; None where it serves no time.

    Args:
        weights: From points f (point, 1) to w_t(f), (point, column).
        low: Lower end of the range.
        high: Its upper end.
        most: Largest number of nodes that is worth its price.
        device: Where the points are.
    """
    middle, half = (low + high) / 2, (high - low) / 2 * 1.02 + 1e-3
    if not half < float("inf"):
        return None
    count = _FEWEST
    while count <= min(most, _MOST):
        places = middle + half * chebyshev.nodes(count).to(device)
        found = weights(places[:, None])
        coefficients = chebyshev.coefficients_of(found)
        size = found.abs().amax(0)
        room = _TOLERANCE * torch.maximum(size, _FAINT * size.max())
        smooth = (chebyshev.next_terms(coefficients) <= room) & torch.isfinite(coefficients).all(0)
        if bool(smooth.all()) or (2 * count > min(most, _MOST) and bool(smooth.any())):
            return ScalarTable(middle, half, coefficients[:, smooth], smooth)
        count *= 2
    return None
