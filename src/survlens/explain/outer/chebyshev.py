"""Functions of one number by Chebyshev polynomials: nodes, coefficients, means over intervals, and when to trust them.

A smooth function on [-1, 1] is sum over q of c_q T_q(x) to rounding with few terms. The mean of T_q over an interval
with ends cos(a) and cos(b) needs no difference of nearly equal numbers: with m = (a + b) / 2 and h = (a - b) / 2

    mean of T_q = (U_q(cos m) U_q(cos h) / (q + 1) - U_(q-2)(cos m) U_(q-2)(cos h) / (q - 1)) / 2,

where U is the polynomial of the second kind and U_q(1) = q + 1; at h = 0 this is T_q(cos m).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def nodes(count: int) -> Float[Tensor, " node"]:
    """The `count` Chebyshev nodes of the first kind in (-1, 1), increasing."""
    return -torch.cos(math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count)


def coefficients_of(values: Float[Tensor, "node *rest"]) -> Float[Tensor, "term *rest"]:
    """Coefficients c_q of the polynomial through `values` at the nodes."""
    count = values.shape[0]
    matrix = basis(nodes(count), count).T * (2 / count)
    matrix[0] /= 2
    return torch.tensordot(matrix.to(values), values, dims=1)


def basis(x: Float[Tensor, " point"], count: int) -> Float[Tensor, "point term"]:
    """T_q(x) for q < `count`."""
    rows = [torch.ones_like(x), x]
    for _ in range(count - 2):
        rows.append(2 * x * rows[-1] - rows[-2])
    return torch.stack(rows[:count], dim=1)


def mean_basis(start: Float[Tensor, " piece"], end: Float[Tensor, " piece"], count: int) -> Float[Tensor, "piece term"]:
    """Means of T_q over the pieces from `start` to `end`, for q < `count`."""
    if start.device.type == "cpu" and start.dtype == torch.float64:
        from survlens.explain.outer import chebyshev_scan  # numba takes 0.5 s to import

        arrays = (each.detach().contiguous().numpy() for each in (start, end))
        return torch.from_numpy(chebyshev_scan.mean_basis(*arrays, count))
    first, last = start.clamp(-1, 1).acos(), end.clamp(-1, 1).acos()
    middle, half = ((first + last) / 2).cos(), ((first - last) / 2).cos()
    second = torch.empty((count, *start.shape), dtype=start.dtype, device=start.device)  # U_q(middle) U_q(half)
    before, now = (torch.zeros_like(middle), torch.zeros_like(half)), (torch.ones_like(middle), torch.ones_like(half))
    for term in range(count):
        torch.mul(now[0], now[1], out=second[term])
        before, now = now, (2 * middle * now[0] - before[0], 2 * half * now[1] - before[1])
    means = torch.ones_like(second)
    if count > 1:
        means[1] = second[1] / 4
    if count > 2:
        order = torch.arange(2, count, dtype=start.dtype, device=start.device)[:, None]
        means[2:] = (second[2:] / (order + 1) - second[:-2] / (order - 1)) / 2
    return means.T


def next_terms(coefficients: Float[Tensor, "term *rest"]) -> Float[Tensor, "*rest"]:
    """Size of the first terms left out, as the last two pairs of terms fall."""
    last, before = (coefficients[slice].abs().sum(0) for slice in (slice(-2, None), slice(-4, -2)))
    return last * (last / before.clamp(min=torch.finfo(before.dtype).tiny)).clamp(max=1.0)
