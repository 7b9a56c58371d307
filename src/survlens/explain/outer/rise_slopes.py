"""How the rises of a curve between its knots change with the raw output, in closed form for the known heads.

The rise r_k = log S_(k-1) - log S_k of an interval decides its rate. Where it is small, the difference of two levels
has no digits left, but its logarithm is log softplus(a_k), with a_k the log-odds of the interval's hazard, so

    d log r_k = sigmoid(a_k) / softplus(a_k) da_k

    hazards per interval      a_k = z_k                              da_k = g_k
    masses per interval       a_k = z_k - log(1 + sum of exp(z_l) over l > k)    da_k = g_k - E_k
    CoxTime                   log r_k = log dH0_k + u_k              d log r_k = g_k

with E_k the mean slope given an event after knot k.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.surfaces import hazard_logits_from_pmf_logits
from survlens.explain.forward import derivative
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.losses.discrete import sequence_scores

_SERIES_BELOW = -20.0


@singledispatch
def rise_slopes(
    head: Any, raw: Float[Tensor, "point raw"], slopes: Float[Tensor, "point raw feature"]
) -> Float[Tensor, "point knot feature"]:
    """Slopes of the logarithm of every rise by every feature; for an unknown head by one derivative per raw output.

    Args:
        head: Decides on the form; its predictions know `log_rise`.
        raw: Raw outputs of the points.
        slopes: Their slopes.
    """
    columns = torch.eye(raw.shape[1], dtype=raw.dtype, device=raw.device)
    moved = [
        derivative(lambda each: head.predict_from_raw(each).log_rise, raw, column.expand_as(raw)) for column in columns
    ]
    return torch.stack(moved, dim=-1) @ slopes


@rise_slopes.register(LogisticHazard)
@rise_slopes.register(PCHazard)
def _of_hazards(head: Any, raw: Tensor, slopes: Tensor) -> Tensor:
    return _share(raw)[:, :, None] * slopes


@rise_slopes.register
def _of_jumps(head: CoxTime, raw: Tensor, slopes: Tensor) -> Tensor:
    return slopes


@rise_slopes.register
def _of_masses(head: PMF, raw: Tensor, slopes: Tensor) -> Tensor:
    return _mass_rises(raw, slopes)


@rise_slopes.register
def _of_sequences(head: MTLR, raw: Tensor, slopes: Tensor) -> Tensor:
    return _mass_rises(sequence_scores(raw), slopes.flip(1).cumsum(1).flip(1))


@rise_slopes.register
def _of_causes(head: DeepHit, raw: Tensor, slopes: Tensor) -> Tensor:
    shape = (head.n_causes, raw.shape[1] // head.n_causes)
    by_cause = raw.unflatten(1, shape)
    merged = (by_cause.softmax(1)[..., None] * slopes.unflatten(1, shape)).sum(1)
    return _mass_rises(by_cause.logsumexp(1), merged)


def _mass_rises(scores: Tensor, slopes: Tensor) -> Tensor:
    logits = hazard_logits_from_pmf_logits(scores)
    hazard, share = logits.sigmoid(), _share(logits)
    result = torch.empty_like(slopes)
    later = torch.zeros_like(slopes[:, 0])  # mean slope given an event after the last knot
    for knot in range(scores.shape[1] - 1, -1, -1):
        change = slopes[:, knot] - later
        result[:, knot] = share[:, knot, None] * change
        later = later + hazard[:, knot, None] * change
    return result


def _share(logits: Tensor) -> Tensor:
    """Sigmoid / softplus: what a logarithm of softplus moves by."""
    kept = logits.clamp(min=_SERIES_BELOW)
    direct = kept.sigmoid() / -torch.nn.functional.logsigmoid(-kept)
    return torch.where(logits < _SERIES_BELOW, 1 - logits.exp() / 2, direct)
