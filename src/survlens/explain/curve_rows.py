"""The target of many rows of a batch, of which only sums are wanted.

A head with one raw output u makes every curve from this one number: F(t | x) = A_t(u(x)), and A_t is smooth in u for
the heads there are. So over the range of u in a batch, A_t is replaced by its Chebyshev interpolant

    A_t(u) = sum over k of c_k(t) T_k(u),

and sums over rows are taken of T_k(u) before any time comes in: a batch costs the same for one time and for a
thousand. The degree is raised until the last quarter of the coefficients is at rounding; where that does not happen,
and for every other model, rows are asked one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.protocols import Inputs
from survlens.core.targets import Target
from survlens.explain.asked import AskedModel
from survlens.explain.chebyshev import coefficients_of, nodes
from survlens.explain.held import RawCurves

_DEGREES = (32, 64, 128)
_TOLERANCE = 3e-15
_WORTHWHILE = 4  # as many times more rows than nodes, at least


@dataclass(frozen=True, slots=True)
class CurveRows:
    """The target of rows, as a product: values = parts' @ curves; rows are coalitions by references.

    Attributes:
        parts: What each row is made of.
        curves: The columns of each part; None where the parts are the columns themselves.
    """

    parts: Float[Tensor, "part row"]
    curves: Float[Tensor, "part column"] | None

    def weighted(self, weights: Float[Tensor, "sum coalition"]) -> Float[Tensor, "sum reference column"]:
        """Weighted sums over the coalitions, for each reference."""
        by_coalition = self.parts.reshape(len(self.parts), weights.shape[1], -1)
        sums = torch.matmul(weights.to(self.parts), by_coalition)
        parts = sums.flatten(1).T
        curves = parts if self.curves is None else parts @ self.curves
        return curves.reshape(*sums.shape[1:], curves.shape[1]).cpu()

    def averaged(self, share: Float[Tensor, " reference"]) -> Float[Tensor, "coalition column"]:
        """Weighted means over the references, for each coalition."""
        means = (self.parts.reshape(len(self.parts), -1, len(share)) @ share.to(self.parts)).T
        return (means if self.curves is None else means @ self.curves).cpu()


def curve_rows(model: AskedModel, inputs: Inputs, times: Float[Tensor, " time"], target: Target) -> CurveRows:
    """The target of every row of `inputs`, all in one batch."""
    if model.held is None:
        return CurveRows(model.values(inputs, times, target).T, None)
    raw = model.held.raw(inputs).double()
    interpolated = _interpolated(raw, times, target, model.held.head) if raw.shape[1] == 1 else None
    if interpolated is not None:
        return interpolated
    return CurveRows(target(RawCurves(model.held.head, raw), times).double().T, None)


def _interpolated(raw: Tensor, times: Tensor, target: Target, head: object) -> CurveRows | None:
    low, high = float(raw.min()), float(raw.max())
    if not math.isfinite(low) or not math.isfinite(high):
        return None
    middle, reach = (low + high) / 2, max((high - low) / 2, 1e-3)
    for degree in _DEGREES:
        if len(raw) < _WORTHWHILE * degree:
            return None
        places, transform = _transform(degree)
        values = target(RawCurves(head, (middle + reach * places).to(raw)[:, None]), times).double()
        curves = transform.to(values) @ values
        sizes = curves.abs().amax(1)
        above = (sizes > _TOLERANCE * sizes.max()).nonzero()
        terms = int(above[-1]) + 1 if len(above) else 1
        if terms <= degree * 3 // 4 and bool(torch.isfinite(sizes).all()):
            return CurveRows(_chebyshev((raw[:, 0] - middle) / reach, max(terms, 2)), curves[: max(terms, 2)])
    return None


@cache
def _transform(degree: int) -> tuple[Tensor, Tensor]:
    """Chebyshev nodes, and the matrix from values there to coefficients."""
    return nodes(degree), coefficients_of(torch.eye(degree, dtype=torch.float64))


def _chebyshev(points: Float[Tensor, " row"], terms: int) -> Float[Tensor, "part row"]:
    """Polynomials T_0 ... of points in [-1, 1], by their recurrence."""
    found = points.new_empty((terms, len(points)))
    found[0], found[1] = 1, points
    twice, rows = 2 * points, found.unbind(0)
    for before, last, now in zip(rows, rows[1:], rows[2:], strict=False):
        torch.mul(twice, last, out=now).sub_(before)
    return found
