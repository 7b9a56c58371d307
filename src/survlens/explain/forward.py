"""Forward-mode derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad


@cache
def ready_forward_mode() -> None:
    """Loads the forward-mode rules of torch, whose first use warns of a deprecation inside torch."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def derivative(function: Callable[[Tensor], Tensor], point: Tensor, tangent: Tensor) -> Tensor:
    """Derivative of `function` at `point` along `tangent`, by forward-mode differentiation."""
    ready_forward_mode()
    with forward_ad.dual_level():
        result = function(forward_ad.make_dual(point, tangent.to(point)))
        moved = forward_ad.unpack_dual(result).tangent
    return torch.zeros_like(result) if moved is None else moved
