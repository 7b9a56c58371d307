"""Derivatives of a target by the raw output through the levels of the curve, for the known heads in closed form.

Of the raw output z_l of knot l, the target at a time whose right knot is k has a derivative s_l a_t with a rate s_l
that does not depend on the time and a factor a_t that does not depend on l, but for three cases: l before k, at k and
after k. So means over many points of a line are products of (time, point) and (point, raw) matrices:

    hazards per interval, CoxTime    s_l = sigmoid(z_l) or dH_l    before -(w_k + w_(k-1)), at -w_k, after 0
    masses per interval              s_l = q_l                     after v_k + v_(k-1) with v_k = w_k F_k / S_k,
                                                                   at v_(k-1) - w_k, before -(w_k + w_(k-1))

with w_k the derivative of the target by log S_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from survlens.core.surfaces import log_survival_from_pmf_logits
from survlens.explain.outer.level_curves import LevelCurves, LevelWeights
from survlens.explain.outer.level_slopes import level_slopes
from survlens.explain.outer.rise_slopes import rise_slopes
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.losses.discrete import sequence_scores

_LEAST = -690.0  # exp of it can still be divided by


@dataclass(frozen=True, slots=True)
class Factors:
    """Rates s, (point, cause, knot), and what multiplies them before, at and after a time's knot.

    The three are (point, cause, time), or of one cause where all causes share them.
    """

    rates: Tensor
    before: Tensor
    at: Tensor
    after: Tensor | None

    def mean(self, right: Tensor, scale: Float[Tensor, " node"], points: int) -> Float[Tensor, "point column raw"]:
        """Sum over nodes of `scale` times the derivatives, where points come with all their nodes."""
        nodes, (_, causes, knots) = len(scale), self.rates.shape
        rates = self.rates.unflatten(0, (points, nodes)).permute(0, 2, 1, 3)  # (point, cause, node, knot)

        def summed(factor: Tensor) -> Tensor:
            scaled = factor.unflatten(0, (points, nodes)) * scale[:, None, None]
            return scaled.permute(0, 2, 3, 1).expand(-1, causes, -1, -1)  # (point, cause, time, node)

        knot = torch.arange(knots, device=right.device)
        found = (summed(self.before) @ rates).masked_fill_(knot >= right[:, None], 0)
        if self.after is not None:
            found += (summed(self.after) @ rates).masked_fill_(knot <= right[:, None], 0)
        own = (summed(self.at) * rates[..., right].transpose(2, 3)).sum(3)
        found[:, :, torch.arange(len(right), device=right.device), right] = own
        return found.transpose(1, 2).flatten(2)


@singledispatch
def mean_cotangents(
    head: Any,
    raw: Float[Tensor, "node raw"],
    curves: LevelCurves,
    weights: LevelWeights,
    scale: Float[Tensor, " scale"],
    points: int,
) -> Float[Tensor, "point column raw"]:
    """Sum over the nodes of each point of `scale` times the derivatives of the target by the raw output.

    Where the target asks for the rises between levels, the general form written here holds for known heads too.

    Args:
        head: Decides on the form; an unknown one by one forward derivative per raw output.
        raw: Raw outputs of the nodes, those of a point one after another.
        curves: Their curves.
        weights: Derivatives of the target by the levels of the curves.
        scale: Weight of each node of a point.
        points: Number of points.
    """
    eye = torch.eye(raw.shape[1], dtype=raw.dtype, device=raw.device).expand(len(raw), -1, -1)
    rises = level_slopes(head, raw, eye, curves.of_causes).unflatten(0, (points, len(scale)))
    found = raw.new_zeros((points, len(weights.right), raw.shape[1]))
    for cause, knot, asked, moved in weights.by_level():
        found[:, asked] += (moved.unflatten(0, (points, -1)) * scale[:, None]).transpose(1, 2) @ rises[
            :, :, cause, knot
        ]
    if weights.at_rise is not None:
        rises = rise_slopes(head, raw, eye).unflatten(0, (points, len(scale)))
        for knot, asked, moved in weights.by_rise():
            found[:, asked] += (moved.unflatten(0, (points, -1)) * scale[:, None]).transpose(1, 2) @ rises[:, :, knot]
    return found


@mean_cotangents.register(LogisticHazard)
@mean_cotangents.register(PCHazard)
def _of_hazards(
    head: Any, raw: Tensor, curves: LevelCurves, weights: LevelWeights, scale: Tensor, points: int
) -> Tensor:
    return _running(raw.sigmoid(), weights).mean(weights.right, scale, points)


@mean_cotangents.register
def _of_jumps(
    head: CoxTime, raw: Tensor, curves: LevelCurves, weights: LevelWeights, scale: Tensor, points: int
) -> Tensor:
    rises = (raw + head.baseline.log_jumps.to(raw.device)).exp()
    return _running(rises, weights).mean(weights.right, scale, points)


@mean_cotangents.register
def _of_masses(
    head: PMF, raw: Tensor, curves: LevelCurves, weights: LevelWeights, scale: Tensor, points: int
) -> Tensor:
    mass = pad(raw, (0, 1)).softmax(1)[:, None, :-1]
    return _masses(mass, raw, weights).mean(weights.right, scale, points)


@mean_cotangents.register
def _of_sequences(
    head: MTLR, raw: Tensor, curves: LevelCurves, weights: LevelWeights, scale: Tensor, points: int
) -> Tensor:
    scores = sequence_scores(raw)
    mass = pad(scores, (0, 1)).softmax(1)[:, None, :-1]
    return _masses(mass, scores, weights).mean(weights.right, scale, points).cumsum(2)


@mean_cotangents.register
def _of_causes(
    head: DeepHit, raw: Tensor, curves: LevelCurves, weights: LevelWeights, scale: Tensor, points: int
) -> Tensor:
    shape = (head.n_causes, raw.shape[1] // head.n_causes)
    mass = pad(raw, (0, 1)).softmax(1)[:, :-1].unflatten(1, shape)
    if not curves.of_causes:
        return _masses(mass, raw.unflatten(1, shape).logsumexp(1), weights).mean(weights.right, scale, points)
    running = pad(mass.cumsum(2), (1, 0))
    shared = weights.at_right * running[..., weights.right + 1] + weights.at_left * running[..., weights.right]
    after = -shared.sum(1, keepdim=True).expand_as(shared)
    at = after + weights.at_right
    return Factors(mass, at + weights.at_left, at, after).mean(weights.right, scale, points)


def _running(rates: Tensor, weights: LevelWeights) -> Factors:
    """Where log S_k is minus a running sum, with the slope -s_l by each raw output up to k."""
    return Factors(rates[:, None], -(weights.at_right + weights.at_left), -weights.at_right, None)


def _masses(mass: Float[Tensor, "point cause knot"], scores: Tensor, weights: LevelWeights) -> Factors:
    """Where the masses are a softmax: `scores` are those of all causes together."""
    log_survival = log_survival_from_pmf_logits(scores)
    odds = pad(mass.sum(1).cumsum(1) / log_survival.clamp(min=_LEAST).exp(), (1, 0))[:, None]  # F / S
    right, left = odds[..., weights.right + 1] * weights.at_right, odds[..., weights.right] * weights.at_left
    return Factors(mass, -(weights.at_right + weights.at_left), left - weights.at_right, left + right)
