"""The Cox partial likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.losses.cox_torch import partial_likelihood_in_torch, terms_in_torch, weighted


def cox_partial_likelihood(
    log_risk: Float[Tensor, " instance"], outcome: SurvivalOutcome, *, ties: Ties = Ties.EFRON
) -> Float[Tensor, " instance"]:
    """Negative log partial likelihood, one contribution per instance, in any row order.

    An instance with an event at time u, one of `d` of its stratum with that time, contributes

        w * ((1/d) sum over l = 0 .. d-1 of log(R - (l/d) D)  -  log_risk),

    where R sums w exp(`log_risk`) over all instances of the stratum with entry < u <= time, D over the `d` tied events
    (Efron; Breslow leaves out D), and w is the weight in `outcome`. Censored instances contribute 0, on the graph. The
    sum over instances is minus the log partial likelihood of R's `survival::coxph` with the same weights, strata and
    start-stop times. Every cause counts as an event; for one cause of several, pass `outcome.of_cause(k)`.

    Sums run in float64 relative to the largest log-risk, so log-risks of +-1,000 in float32 neither overflow nor lose
    their gradient. On a CPU a compiled pass is used; elsewhere, under function transforms and for higher derivatives,
    plain torch. The work grows like n log n, with delayed entry too, whatever the number of strata.

    Args:
        log_risk: One log-risk per instance. A constant added to all of a stratum changes nothing.
        outcome: What was observed of the same instances, with their entries, weights and strata where it has them.
        ties: Rule for equal event times.

    Raises:
        InvalidValueError: If `log_risk` is not one value per instance of `outcome`.
        InvalidTypeError: If `ties` is no member of `Ties`.

    References:
        Cox 1972; Breslow 1974; Efron 1977.
    """
    check_choice("ties", ties, Ties)
    if log_risk.ndim != 1 or log_risk.shape != outcome.time.shape:
        raise InvalidValueError(
            "`log_risk` must have one value per instance; "
            f"got shape {tuple(log_risk.shape)} for {len(outcome)} outcomes. "
            "Index a column (log_risk[:, 0]) to drop an axis."
        )
    if log_risk.shape[0] == 0:
        return log_risk * 0
    if _compiled_serves(log_risk):
        return weighted(_compiled_terms, log_risk, outcome, ties)
    return partial_likelihood_in_torch(log_risk, outcome, ties)


def _compiled_serves(log_risk: Tensor) -> bool:
    """Whether the compiled pass can follow: it knows CPU memory and reverse mode only."""
    return (
        log_risk.device.type == "cpu"
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and forward_ad.unpack_dual(log_risk).tangent is None
    )


def _compiled_terms(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    return _CompiledTerms.apply(log_risk, outcome, ties)  # pyright: ignore[reportReturnType]


def _compiled_pass(outcome: SurvivalOutcome, log_risk: np.ndarray, ties: Ties) -> Any:
    from survlens.losses import cox_intervals, cox_scan  # numba takes 0.5 s to import

    kind = cox_scan.ScanPass if outcome.entry is None else cox_intervals.IntervalPass
    return kind(outcome, log_risk, ties)


class _CompiledTerms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
        ctx.work = _compiled_pass(outcome, _numpy(log_risk), ties)
        ctx.outcome, ctx.ties = outcome, ties
        ctx.save_for_backward(log_risk)
        return _scatter(ctx.work.loss, ctx.work.order, log_risk.dtype)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        (cotangent,) = cotangents
        if torch.is_grad_enabled():  # somebody asked for a derivative of this derivative
            (log_risk,) = ctx.saved_tensors
            loss = terms_in_torch(log_risk, ctx.outcome, ctx.ties)
            return torch.autograd.grad(loss, log_risk, cotangent, create_graph=True)[0], None, None
        order = ctx.work.order
        gradient = ctx.work.gradient(_numpy(cotangent)[order].astype(np.float64))
        return _scatter(gradient, order, cotangent.dtype), None, None


def _numpy(values: Tensor) -> np.ndarray:
    known = values.dtype in (torch.float32, torch.float64)  # numpy has no bfloat16
    return values.detach().numpy() if known else values.detach().float().numpy()


def _scatter(ordered: np.ndarray, order: np.ndarray, dtype: torch.dtype) -> Tensor:
    # Writing to random places is slow: half the bytes where nothing is lost by it.
    values = np.empty(len(order), np.float64 if dtype == torch.float64 else np.float32)
    values[order] = ordered
    return torch.from_numpy(values).to(dtype)
