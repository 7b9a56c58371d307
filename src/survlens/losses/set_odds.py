"""Log-odds of a set of outcomes under a softmax, and their gradient in one pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import forward_ad


def log_odds_of_sets(
    scores: Float[Tensor, "instance score"],
    members: Bool[Tensor, "instance score"],
    possible: Bool[Tensor, "instance score"] | None = None,
) -> Float[Tensor, " instance"]:
    """Log of the sum of exp(score) over `members`, less that over the others, among what is `possible`.

    Each sum is taken relative to its own largest score, so nothing overflows, and nothing is lost where one of the sums
    is a tiny part of the whole. An empty sum is hugely negative and has no gradient. The gradient is the share of each
    score in its own sum, which the forward pass knows already; under function transforms and for higher derivatives,
    plain torch takes it.

    Args:
        scores: Unnormalised log-probabilities.
        members: What belongs to the first sum.
        possible: What belongs to either sum; everything where None.
    """
    others = ~members
    if possible is not None:
        members, others = members & possible, others & possible
    if torch._C._are_functorch_transforms_active() or forward_ad.unpack_dual(scores).tangent is not None:
        return _in_torch(scores, members, others)
    return _LogOdds.apply(scores, members, others)  # pyright: ignore[reportReturnType]


def _in_torch(scores: Tensor, members: Tensor, others: Tensor) -> Tensor:
    (first, _), (second, _) = _log_sum(scores, members), _log_sum(scores, others)
    return first - second


def _log_sum(scores: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum over what is chosen, and the share of each score in it."""
    # The exponential of what underflows takes a hundred times as long as another, so what is left out becomes exp(0).
    peak = scores.detach().masked_fill(~chosen, torch.finfo(scores.dtype).min / 2).amax(1, keepdim=True)
    shares = torch.where(chosen, scores - peak, 0.0).exp() * chosen
    total = shares.sum(1, keepdim=True).clamp(min=1)
    return (peak + total.log())[:, 0], shares / total


class _LogOdds(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, members: Tensor, others: Tensor) -> Tensor:
        (first, own), (second, rest) = _log_sum(scores, members), _log_sum(scores, others)
        ctx.save_for_backward(scores, members, others, own - rest)
        return first - second

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        (cotangent,) = cotangents
        scores, members, others, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody asked for a derivative of this derivative
            odds = _in_torch(scores, members, others)
            return torch.autograd.grad(odds, scores, cotangent, create_graph=True)[0], None, None
        return cotangent[:, None] * slope, None, None
