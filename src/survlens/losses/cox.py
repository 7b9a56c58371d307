"""The Cox partial likelihood."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties


def cox_partial_likelihood(
    log_risk: Float[Tensor, " instance"], outcome: SurvivalOutcome, *, ties: Ties = Ties.EFRON
) -> Float[Tensor, " instance"]:
    """Negative log partial likelihood, one contribution per instance, in any row order.

    An instance with an event at time u, one of `d` with that time, contributes

        (1/d) sum over l = 0 .. d-1 of log(R - (l/d) D)  -  log_risk,

    where R sums exp(`log_risk`) over all instances with time >= u and D over the `d` tied events (Efron; Breslow leaves
    out D). Censored instances contribute 0, on the graph. The sum over instances is minus the log partial likelihood of
    R's `survival::coxph`. Every cause counts as an event: for one cause of several, set the others to 0 first.

    Sums run in float64 relative to the largest log-risk, so log-risks of +-1,000 in float32 neither overflow nor lose
    their gradient. On a CPU a compiled pass is used; elsewhere, under function transforms and for higher derivatives,
    plain torch.

    Args:
        log_risk: One log-risk per instance. A constant added to all of them changes nothing.
        outcome: What was observed of the same instances.
        ties: Rule for equal event times.

    Raises:
        InvalidValueError: If `log_risk` is not one value per instance of `outcome`.

    References:
        Cox 1972; Breslow 1974; Efron 1977.
    """
    if log_risk.ndim != 1 or log_risk.shape != outcome.time.shape:
        raise InvalidValueError(
            "`log_risk` must have one value per instance; "
            f"got shape {tuple(log_risk.shape)} for {len(outcome)} outcomes. "
            "Index a column (log_risk[:, 0]) to drop an axis."
        )
    if log_risk.shape[0] == 0:
        return log_risk * 0
    if _compiled_serves(log_risk):
        return _CompiledPartialLikelihood.apply(log_risk, outcome, ties)  # pyright: ignore[reportReturnType]
    return partial_likelihood_in_torch(log_risk, outcome, ties)


def _compiled_serves(log_risk: Tensor) -> bool:
    """Whether the compiled pass can follow: it knows CPU memory and reverse mode only."""
    return (
        log_risk.device.type == "cpu"
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and forward_ad.unpack_dual(log_risk).tangent is None
    )


def _scan() -> ModuleType:
    from survlens.losses import cox_scan  # numba takes 0.5 s to import

    return cox_scan


class _CompiledPartialLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
        time, event = outcome.numpy()
        order, time = _sort(time)
        died = (event > 0)[order]
        ordered = _numpy(log_risk)[order].astype(np.float64)
        loss, *ctx.kept = _scan().scan_back(time, died, ordered, ties is Ties.EFRON)
        ctx.rows = time, died, order
        ctx.outcome, ctx.ties = outcome, ties
        ctx.save_for_backward(log_risk)
        return _scatter(loss, order, log_risk.dtype)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        (cotangent,) = cotangents
        if torch.is_grad_enabled():  # somebody asked for a derivative of this derivative
            (log_risk,) = ctx.saved_tensors
            loss = partial_likelihood_in_torch(log_risk, ctx.outcome, ctx.ties)
            return torch.autograd.grad(loss, log_risk, cotangent, create_graph=True)[0], None, None
        time, died, order = ctx.rows
        weight = _numpy(cotangent)[order].astype(np.float64)
        gradient = _scan().scan_forward(time, died, *ctx.kept, weight)
        return _scatter(gradient, order, cotangent.dtype), None, None


def _sort(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows by time, and the sorted times.

    Numpy sorts numbers two to three times as fast as it sorts positions, so the two are packed into one number. Bits of
    positive floats order like the floats; above them the smallest is taken off, and below as many are dropped as the
    positions need. What that leaves out of order is a row here and there, which timsort puts right in one pass.
    """
    if len(time) < 4096:
        order = time.argsort()
        return order, time[order]
    bits, width = time.view(np.int64), len(time).bit_length()
    lowest = bits.min()
    drop = max(0, int(bits.max() - lowest).bit_length() + width - 63)
    packed = (bits - lowest >> drop << width) | np.arange(len(time))
    packed.sort()
    order = packed & ((1 << width) - 1)
    time = time[order]
    if drop and (time[1:] < time[:-1]).any():
        again = time.argsort(kind="stable")
        order, time = order[again], time[again]
    return order, time


def _numpy(values: Tensor) -> np.ndarray:
    known = values.dtype in (torch.float32, torch.float64)  # numpy has no bfloat16
    return values.detach().numpy() if known else values.detach().float().numpy()


def _scatter(ordered: np.ndarray, order: np.ndarray, dtype: torch.dtype) -> Tensor:
    # Writing to random places is slow: half the bytes where nothing is lost by it.
    values = np.empty(len(order), np.float64 if dtype == torch.float64 else np.float32)
    values[order] = ordered
    return torch.from_numpy(values).to(dtype)


def partial_likelihood_in_torch(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    """The same numbers by differentiable torch operations, on any device, to any order."""
    outcome = outcome.to(log_risk.device)
    if outcome.n_events == 0:
        return log_risk * 0
    # Latest time first, and at one time censored before events: then the risk set of an event is what stands before it,
    # and those of it without the events of the same time are what stands before the first of these.
    order = torch.argsort(outcome.event > 0, stable=True)
    order = order[torch.argsort(outcome.time[order], descending=True, stable=True)]
    score, time, died = log_risk[order].double(), outcome.time[order], outcome.event[order] > 0
    events = died.nonzero()[:, 0]
    _, group, sizes = torch.unique_consecutive(time[events], return_inverse=True, return_counts=True)
    last = sizes.cumsum(0) - 1
    running = torch.logcumsumexp(score, 0)
    log_total = running[events[last]][group]
    denominator = log_total
    if ties is Ties.EFRON:
        first = events[last - sizes + 1]
        scale = log_total.detach()
        # Shares of the risk set, Q/R + (1 - l/d) D/R: no subtraction, so nothing cancels where the tied events are all
        # of it. The derivative by log R is 0 and is left out.
        others = running[(first - 1).clamp(min=0)][group] - scale
        others = torch.where((first == 0)[group], torch.zeros_like(others), others.exp())
        members = (score[events] - scale).exp()
        tied = torch.zeros_like(members[: len(sizes)]).index_add(0, group, members)[group]
        rank = torch.arange(len(events), device=score.device, dtype=torch.float64) - (last - sizes + 1)[group]
        logs = scale + torch.log(others + (1 - rank / sizes[group]) * tied)
        denominator = (torch.zeros_like(logs[: len(sizes)]).index_add(0, group, logs) / sizes)[group]
    loss = torch.zeros_like(score).index_put((order[events],), denominator - score[events])
    return loss.to(log_risk.dtype)
