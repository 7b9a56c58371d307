"""Contributions at many times from those at a few of them.

Whatever the path, phi(t) is a sum of dA_t/du(u_s) g_s, so as a function of t it lies in the span of the functions
t -> dA_t/du(u). That span is narrow: under a Cox head some twenty times say all about a thousand. They are found from
cotangents at some raw outputs by a QR decomposition with pivots; what the other times are of them follows, and is
checked at the end at times that are taken for nothing else.

The variance over references is a sum of products of two such functions, a wider span, of which fewer digits matter: it
is right to about 1 % of the largest variance of any time, so that a variance far below that one is not told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.linalg import qr
from torch import Tensor

from survlens.core.targets import Scope
from survlens.explain.outer.outer_maps import OuterMap

MANY = 32
"""Times from which on a few are looked for."""

_WIDEST = 2  # at most one of so many times is taken, or all are
_CHECKS = 3
_SKETCHES = 320  # sums of cotangents that stand for all of them
_OF_PRODUCTS = 1e-5
_PRODUCTS_MAY_MISS = 1e-2
_ROUNDING = 1e-11


@dataclass(frozen=True, slots=True, eq=False)
class FewColumns:
    """Times to take, and the others as sums of them.

    Attributes:
        outer: The outer map at the times taken.
        taken: Positions of the times taken, among all.
        sums: phi at all times as sums of phi at those taken.
        products: The same for products of two.
        checks: Which of those taken stand for nothing but to be compared.
        tolerance: Difference, as a share of the largest value, that they may show.
    """

    outer: OuterMap
    taken: Int64[Tensor, " taken"]
    sums: Float[Tensor, "taken time"]
    products: Float[Tensor, "taken time"]
    checks: Int64[Tensor, " check"]
    tolerance: float

    def holds(self, values: Float[Tensor, "*feature taken"]) -> bool:
        """Whether the sums give what was found at the times that are checked."""
        if not values.numel():
            return True
        implied = values @ self.sums[:, self.taken[self.checks]]
        return bool((implied - values[..., self.checks]).abs().max() <= self.tolerance * values.abs().max())

    def of_all(self, values: Float[Tensor, "*feature taken"]) -> Float[Tensor, "*feature time"]:
        """Contributions at all times."""
        return values @ self.sums

    def squares_of_all(self, squares: Float[Tensor, "*feature taken"]) -> Float[Tensor, "*feature time"]:
        """Variances at all times; rounding may leave one a little below 0."""
        return squares @ self.products

    def bounds_of_all(self, errors: Float[Tensor, "row taken"]) -> Float[Tensor, "row time"]:
        """Errors at all times: the larger of those at the two times taken around each."""
        order = self.taken.argsort()
        places = torch.arange(self.sums.shape[1], device=errors.device)
        right = torch.searchsorted(self.taken[order], places).clamp(max=len(order) - 1)
        left = (right - 1).clamp(min=0)
        exact = self.taken[order][right] == places
        return torch.maximum(errors[:, order[right]], errors[:, order[torch.where(exact, right, left)]])


def few_columns(
    outer: OuterMap, raw: Float[Tensor, "point raw"], *, rounding: float, products: bool
) -> FewColumns | None:
    """A few times that say all about those of `outer`; None where they would not be much fewer.

    Args:
        outer: The outer map at all times.
        raw: Raw outputs such as will be met.
        rounding: Rounding of the network, beyond which no digit matters.
        products: Whether variances are asked for too.
    """
    count = len(outer.times)
    if outer.target.scope is Scope.WHOLE or count < MANY or len(raw) < 4:
        return None
    tolerance = max(_ROUNDING, rounding)
    met = outer.cotangents(raw).permute(0, 2, 1).flatten(0, 1).cpu().numpy()
    size = np.abs(met).max(0)
    if not np.isfinite(size).all() or size.max() == 0:
        return None
    size = np.maximum(size, 1e-12 * size.max())
    generator = np.random.default_rng(0)
    sketch = _sketched(met / size, generator)
    taken, squares = _pivots(sketch, tolerance / 10), _products(sketch, generator)
    if products:
        taken = np.union1d(taken, _pivots(squares, _OF_PRODUCTS))
    if _WIDEST * (len(taken) + _CHECKS) > count:
        return None
    sums = np.linalg.lstsq(sketch[:, taken], sketch, rcond=tolerance * 1e-3)[0]
    if np.abs((met / size)[:, taken] @ sums - met / size).max() > tolerance * 30:
        return None
    of_products = sums
    if products:
        of_products = np.linalg.lstsq(squares[:, taken], squares, rcond=_OF_PRODUCTS / 10)[0]
        fresh = _products(_sketched(met / size, generator), generator)
        if np.abs(fresh[:, taken] @ of_products - fresh).max() > _PRODUCTS_MAY_MISS * np.abs(fresh).max():
            return None
    rest = np.setdiff1d(np.arange(count), taken)
    checks = generator.choice(rest, _CHECKS, replace=False)
    order = np.sort(np.concatenate([taken, checks]))
    place = np.searchsorted(order, taken)

    def whole(found: np.ndarray, scale: np.ndarray) -> Tensor:
        matrix = np.zeros((len(order), count))
        matrix[place] = found * scale / scale[taken][:, None]
        return torch.from_numpy(matrix).to(raw.device)

    positions = torch.from_numpy(order).to(raw.device)
    return FewColumns(
        outer=replace(outer, times=outer.times[positions]),
        taken=positions,
        sums=whole(sums, size),
        products=whole(of_products, size**2),
        checks=torch.from_numpy(np.searchsorted(order, np.sort(checks))).to(raw.device),
        tolerance=100 * tolerance,
    )


def _sketched(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """At most `_SKETCHES` rows that span what all rows span."""
    if len(rows) <= _SKETCHES:
        return rows
    return generator.standard_normal((_SKETCHES, len(rows))) @ rows / np.sqrt(len(rows))


def _products(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Products of random sums of rows with each other."""
    first, second = (generator.standard_normal((_SKETCHES, len(rows))) @ rows for _ in range(2))
    found = first * second
    return found / np.abs(found).max()


def _pivots(rows: np.ndarray, tolerance: float) -> np.ndarray:
    """Columns of which the others are sums, but for a share `tolerance` of the largest."""
    decomposed: Any = qr(rows, mode="r", pivoting=True)
    triangle, order = decomposed
    sizes = np.abs(np.diagonal(triangle))
    return np.sort(order[: int((sizes > tolerance * sizes[0]).sum())])
