"""How many Gauss-Legendre nodes the outer map needs along a straight piece of raw outputs.

The outer maps are analytic. Two things limit a rule of n nodes on an interval: poles, as of a sigmoid, at a distance
that the reach r of the piece sets (error rho^(-2n) with rho = z + sqrt(z^2 + 1), z = 2 pi / r), and growth, as of
exp(c alpha) (error (c / 4)^(2n) / (2n)!).
"""

from __future__ import annotations

import math
from functools import cache, singledispatch
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.pmf import PMF

_TOLERANCE = 1e-13
_MOST = 24
_NEGLIGIBLE = -100.0  # log S below which nothing of a curve shows in a sum
_STEEPEST = 60.0


@singledispatch
def reach(head: Any, change: Float[Tensor, "piece raw"]) -> Float[Tensor, " piece"]:
    """A bound on how far a piece moves what a head's link is applied to; 2 pi / reach is the distance of its poles."""
    return change.abs().sum(1)


@reach.register(CoxPH)
@reach.register(CoxTime)
def _of_logarithms(head: Any, change: Tensor) -> Tensor:
    return 2 * change.abs().amax(1)


@reach.register(PMF)
@reach.register(DeepHit)
def _of_scores(head: Any, change: Tensor) -> Tensor:
    return change.amax(1).clamp(min=0) - change.amin(1).clamp(max=0)


def growth(start: Float[Tensor, "piece knot"], end: Float[Tensor, "piece knot"]) -> Float[Tensor, " piece"]:
    """Largest change of log S along a piece, from its values at the ends, where S is not negligible."""
    shown = torch.maximum(start, end) > _NEGLIGIBLE
    change = torch.where(shown, start - end, torch.zeros_like(start)).abs()
    return change.amax(1).clamp(max=_STEEPEST)


@cache
def _limits() -> tuple[Tensor, Tensor]:
    """Largest reach and largest growth that n = 1, 2, .. nodes serve."""
    counts = np.arange(1, _MOST + 1)
    rho = _TOLERANCE ** (-1 / (2 * counts))
    log_factorial = np.array([math.lgamma(2 * n + 1) for n in counts])
    return (
        torch.from_numpy(4 * math.pi / (rho - 1 / rho)),
        torch.from_numpy(4 * np.exp((log_factorial + math.log(_TOLERANCE)) / (2 * counts))),
    )


def nodes_and_parts(
    reached: Float[Tensor, " piece"], grown: Float[Tensor, " piece"]
) -> tuple[Int64[Tensor, " piece"], Int64[Tensor, " piece"]]:
    """Number of nodes per part of a piece, and of equal parts to cut it into."""
    by_reach, by_growth = (limit.to(reached.device) for limit in _limits())
    parts = torch.maximum(reached / by_reach[-1], grown / by_growth[-1]).ceil().clamp(1, 1e4)
    needed = torch.maximum(torch.searchsorted(by_reach, reached / parts), torch.searchsorted(by_growth, grown / parts))
    return needed.clamp(max=_MOST - 1) + 1, parts.to(torch.int64)


@cache
def rule(count: int, parts: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights on (0, 1): `count` Gauss-Legendre nodes in each of `parts` equal parts."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    places = (np.arange(parts)[:, None] + (1 + nodes) / 2) / parts
    return tuple(places.ravel().tolist()), tuple(np.tile(weights / 2 / parts, parts).tolist())
