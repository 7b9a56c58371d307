"""How the values of a curve at its knots change with the raw output, in closed form for the known heads.

A curve is fixed by its levels: log S at the knots, or the cumulative incidence of each cause there. `level_slopes`
turns slopes of the raw output into slopes of the levels, level by level, without a (level, raw) matrix where the head
is known:

    hazards per interval      d log S_k = - sum over l <= k of sigmoid(z_l) g_l
    CoxTime                   d log S_k = - sum over l <= k of dH_l g_l,  dH_l = dH0_l exp(u_l)
    masses per interval       d log S_k = F_k E_k - sum over l <= k of q_l g_l

with q the masses, F_k their running sum and E_k the mean slope given an event after knot k, taken backwards by
E_(k-1) = h_k g_k + (1 - h_k) E_k; the tail has slope 0. Nothing is divided by S, so nothing is lost where S underflows.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from survlens.core import surfaces
from survlens.explain.forward import derivative
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.losses.discrete import sequence_scores

Levels = Float[Tensor, "point cause knot"]
Slopes = Float[Tensor, "point raw feature"]


def levels_of(head: Any, raw: Float[Tensor, "point raw"], of_causes: bool) -> Levels:
    """Values at the head's knots: log S as one layer, or the cumulative incidence of each cause."""
    if of_causes:
        return head.predict_incidence_from_raw(raw).cumulative_incidence.transpose(0, 1)
    return head.predict_from_raw(raw).log_survival[:, None]


@singledispatch
def level_slopes(
    head: Any, raw: Float[Tensor, "point raw"], slopes: Slopes, of_causes: bool
) -> Float[Tensor, "point cause knot feature"]:
    """Slopes of every level by every feature; for an unknown head by one forward derivative per raw output.

    Args:
        head: Decides on the form.
        raw: Raw outputs of the points.
        slopes: Their slopes.
        of_causes: Whether the levels are incidences of causes, or log S of all.
    """
    columns = torch.eye(raw.shape[1], dtype=raw.dtype, device=raw.device)
    rises = torch.stack(
        [derivative(lambda each: levels_of(head, each, of_causes), raw, column.expand_as(raw)) for column in columns],
        dim=-1,
    )  # (point, cause, knot, raw)
    return torch.einsum("nckm,nmp->nckp", rises, slopes)


@level_slopes.register(LogisticHazard)
@level_slopes.register(PCHazard)
def _of_hazards(head: Any, raw: Tensor, slopes: Tensor, of_causes: bool) -> Tensor:
    return -(raw.sigmoid()[:, :, None] * slopes).cumsum(1)[:, None]


@level_slopes.register
def _of_jumps(head: CoxTime, raw: Tensor, slopes: Tensor, of_causes: bool) -> Tensor:
    rises = (raw + head.baseline.log_jumps.to(raw.device)).exp()
    return -(rises[:, :, None] * slopes).cumsum(1)[:, None]


@level_slopes.register
def _of_masses(head: PMF, raw: Tensor, slopes: Tensor, of_causes: bool) -> Tensor:
    return _log_survival_slopes(raw, slopes)[:, None]


@level_slopes.register
def _of_sequences(head: MTLR, raw: Tensor, slopes: Tensor, of_causes: bool) -> Tensor:
    return _log_survival_slopes(sequence_scores(raw), slopes.flip(1).cumsum(1).flip(1))[:, None]


@level_slopes.register
def _of_causes(head: DeepHit, raw: Tensor, slopes: Tensor, of_causes: bool) -> Tensor:
    shape = (head.n_causes, raw.shape[1] // head.n_causes)
    by_cause = raw.unflatten(1, shape)
    slopes = slopes.unflatten(1, shape)
    if not of_causes:
        shares = by_cause.softmax(1)
        return _log_survival_slopes(by_cause.logsumexp(1), (shares[..., None] * slopes).sum(1))[:, None]
    mass = pad(raw, (0, 1)).softmax(1)[:, :-1].unflatten(1, shape)[..., None]
    moved = mass * slopes
    return moved.cumsum(2) - mass.cumsum(2) * moved.sum((1, 2), keepdim=True)


def _log_survival_slopes(scores: Tensor, slopes: Tensor) -> Tensor:
    """Slopes of log S where the masses are softmax(scores, 0), from slopes of the scores; (point, knot, feature)."""
    mass = pad(scores, (0, 1)).softmax(1)[:, :-1]
    log_survival = surfaces.log_survival_from_pmf_logits(scores)
    hazard = surfaces.hazard_from_log_survival(log_survival)
    before = mass.cumsum(1)
    result = (mass[:, :, None] * slopes).cumsum(1).neg_()
    later = torch.zeros_like(slopes[:, 0])  # mean slope given an event after the last knot
    for knot in range(scores.shape[1] - 1, -1, -1):
        result[:, knot] += before[:, knot, None] * later
        share = hazard[:, knot, None]
        later = later + share * (slopes[:, knot] - later)
    return result
