"""The target of many rows of a batch, of which only sums are wanted.

A head with one raw output u makes every curve from this one number: F(t | x) = A_t(u(x)), and A_t is smooth in u for
the heads there are. So over the range of u in a batch, A_t is replaced by its Chebyshev interpolant

    A_t(u) = sum over k of c_k(t) T_k(u),

and sums over rows are taken of T_k(u) before any time comes in: a batch costs the same for one time and for a
thousand. The degree is raised until the last quarter of the coefficients is at rounding; where that does not happen,
rows are asked one by one.

Between the knots of a step curve or a straight one, S(t) is a weighted mean of S at the two knots around t. Where
there are fewer knots than times, sums are taken of S at the knots. Where the logarithm of S is straight, it is one
product away from its values at the knots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.prediction import Interpolation
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, survival
from survlens.explain.asked import AskedModel
from survlens.explain.held import RawCurves
from survlens.explain.outer.chebyshev import coefficients_of, nodes

_DEGREES = (32, 64, 128)
_TOLERANCE = 1e-14
_WORTHWHILE = 4  # as many times more rows than nodes, at least
_PROBED = 8  # rows on which a shortcut is checked


@dataclass(frozen=True, slots=True)
class CurveRows:
    """The target of rows, as a product: values = parts @ curves; rows are coalitions by references.

    Attributes:
        parts: What each row is made of.
        curves: The columns of each part; None where the parts are the columns themselves.
    """

    parts: Float[Tensor, "row part"]
    curves: Float[Tensor, "part column"] | None

    def weighted(self, weights: Float[Tensor, "sum coalition"]) -> Float[Tensor, "sum reference column"]:
        """Weighted sums over the coalitions, for each reference."""
        weights, count, parts = weights.to(self.parts), weights.shape[1], self.parts.shape[1]
        references = len(self.parts) // count
        if self._by_row:
            sums = (weights @ self.parts.reshape(count, references * parts)).unflatten(1, (references, parts))
        else:
            sums = (weights @ self.parts.T.reshape(parts, count, references)).permute(1, 2, 0)
        return self._columns(sums.flatten(0, 1)).unflatten(0, (len(weights), references)).cpu()

    def averaged(self, share: Float[Tensor, " reference"]) -> Float[Tensor, "coalition column"]:
        """Weighted means over the references, for each coalition."""
        share, parts = share.to(self.parts), self.parts.shape[1]
        if self._by_row:
            return self._columns(share @ self.parts.reshape(-1, len(share), parts)).cpu()
        return self._columns((self.parts.T.reshape(parts, -1, len(share)) @ share).T).cpu()

    @property
    def values(self) -> Float[Tensor, "row column"]:
        """The target of each row."""
        return self._columns(self.parts)

    @property
    def _by_row(self) -> bool:
        """Whether the parts of a row lie beside each other, and not the rows of a part."""
        return self.parts.is_contiguous()

    def _columns(self, parts: Tensor) -> Tensor:
        return parts if self.curves is None else parts @ self.curves


def curve_rows(model: AskedModel, inputs: Inputs, times: Float[Tensor, " time"], target: Target) -> CurveRows:
    """The target of every row of `inputs`, all in one batch."""
    if model.held is None:
        return CurveRows(model.values(inputs, times, target), None)
    head, raw = model.held.head, model.held.raw(inputs).double()
    found = _interpolated(raw, times, target, head) if raw.shape[1] == 1 else _at_knots(raw, times, target, head)
    return CurveRows(target(RawCurves(head, raw), times).double(), None) if found is None else found


def _at_knots(raw: Tensor, times: Tensor, target: Target, head: object) -> CurveRows | None:
    """Survival from its values at the knots, where these are fewer than times and it is straight between them."""
    if target is not survival:
        return None
    few = RawCurves(head, raw[:_PROBED])
    own = few.survival()
    straight = own.interpolation is not Interpolation.EXPONENTIAL
    if len(own.times) >= (1 if straight else 2) * len(times):
        return None
    asked = times.to(own.times)
    knots = torch.nn.functional.pad(own.times, (1, 0))
    if own.interpolation is Interpolation.STEP:
        left = torch.searchsorted(knots, asked, right=True) - 1
        right, share = left, torch.zeros_like(asked)
    else:
        right = torch.searchsorted(knots, asked).clamp(1, len(knots) - 1)
        left = right - 1
        share = ((asked - knots[left]) / (knots[right] - knots[left])).clamp(max=1.0)
    column = torch.arange(len(asked), device=asked.device)
    curves = torch.zeros((len(knots), len(asked)), dtype=torch.float64, device=raw.device)
    curves[left, column] = 1 - share
    curves[right, column] += share

    def rows_of(curves_of: RawCurves) -> CurveRows:
        there = curves_of.survival()
        if straight:
            return CurveRows(torch.nn.functional.pad(there.survival, (1, 0), value=1.0), curves)
        return CurveRows((there.log_survival @ curves[1:]).exp(), None)

    # A head that answers from a formula, or refuses a time, is found out on a few rows.
    if not bool(((rows_of(few).values - target(few, times)).abs() <= 1e-12).all()):
        return None
    found = rows_of(RawCurves(head, raw))
    return found if bool(torch.isfinite(found.parts).all()) else None


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
        largest = curves.abs().amax(0).clamp(min=torch.finfo(curves.dtype).tiny)
        sizes = (curves.abs() / largest).amax(1)
        above = (sizes > _TOLERANCE).nonzero()
        terms = int(above[-1]) + 1 if len(above) else 1
        if terms <= degree * 3 // 4 and bool(torch.isfinite(sizes).all()):
            return CurveRows(_chebyshev((raw[:, 0] - middle) / reach, max(terms, 2)).T, curves[: max(terms, 2)])
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
