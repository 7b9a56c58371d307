"""Sums over points of slopes of a target, by way of the curve's levels: compiled where the head's form allows it.

    phi(t) = sum over points s and the two levels k around t of dF(t)/dlevel_k (s) dlevel_k/du (u_s) g_s

For heads of hazards and of masses the slopes of the levels are running sums over raw outputs, see
`survlens.explain.outer.level_slopes`; these are taken, and met with the times, while a point's slopes are at hand.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from survlens.core import surfaces
from survlens.explain.outer.level_curves import LevelWeights
from survlens.explain.outer.level_slopes import level_slopes
from survlens.explain.outer.rise_slopes import rise_slopes
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.losses.discrete import sequence_scores


def level_sum(
    head: Any,
    raw: Float[Tensor, "group point raw"],
    slopes: Float[Tensor, "group point raw feature"],
    rules: Float[Tensor, "rule point"],
    weights: LevelWeights,
    of_causes: bool,
) -> Float[Tensor, "rule group feature time"]:
    """Sums over the points of each group of the target's slopes, in float64, for several rules.

    Args:
        head: Decides on the form.
        raw: Raw outputs of the points, in float64.
        slopes: Their slopes.
        rules: Weights of the points of a group.
        weights: Derivatives of the target by the levels, one row per point of all groups.
        of_causes: Whether the levels are incidences of causes, or log S of all.
    """
    if raw.device.type == "cpu" and not of_causes and (form := _scanned(head, raw, slopes)) is not None:
        return _add_rises(_compiled_sum(*form, rules, weights), head, raw, slopes, rules, weights)
    rises = level_slopes(head, raw.flatten(0, 1), slopes.double().flatten(0, 1), of_causes)
    rises = rises.reshape(*raw.shape[:2], *rises.shape[1:])
    found = raw.new_zeros((len(rules), raw.shape[0], slopes.shape[3], weights.at_right.shape[2]))
    for cause, knot, asked, each in weights.by_level():
        by_point, rise = each.reshape(*raw.shape[:2], -1), rises[:, :, cause, knot].transpose(1, 2)
        for rule, summed in zip(rules, found, strict=True):
            summed[..., asked] += rise @ (by_point * rule[:, None])
    return _add_rises(found, head, raw, slopes, rules, weights)


def _add_rises(found: Tensor, head: Any, raw: Tensor, slopes: Tensor, rules: Tensor, weights: LevelWeights) -> Tensor:
    """`found` with what the target owes to the rises between levels."""
    if weights.at_rise is None:
        return found
    rises = rise_slopes(head, raw.flatten(0, 1), slopes.double().flatten(0, 1)).unflatten(0, raw.shape[:2])
    for knot, asked, each in weights.by_rise():
        by_point, rise = each.reshape(*raw.shape[:2], -1), rises[:, :, knot].transpose(1, 2)
        for rule, summed in zip(rules, found, strict=True):
            summed[..., asked] += rise @ (by_point * rule[:, None])
    return found


def _compiled_sum(
    slopes: Tensor, shares: Tensor, hazard: Tensor | None, rules: Tensor, weights: LevelWeights
) -> Tensor:
    from survlens.explain.outer import level_scan  # numba takes 0.5 s to import

    shape = slopes.shape[:2]
    right = weights.right.numpy()
    at_right, at_left = (each[:, 0].reshape(*shape, -1).numpy() for each in (weights.at_right, weights.at_left))
    found = shares.new_zeros((len(rules), shape[0], len(right), slopes.shape[3]))
    of_points = (slopes.contiguous().numpy(), shares.contiguous().numpy())
    asked = (rules.contiguous().numpy(), right, at_right, at_left, found.numpy())
    if hazard is None:
        level_scan.by_running_sums(*of_points, *asked)
    else:
        level_scan.by_masses(*of_points, hazard.contiguous().numpy(), *asked)
    return found.transpose(2, 3)


@singledispatch
def _scanned(head: Any, raw: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Slopes, their shares, and hazards for masses: what the compiled loops read. None where the form is another."""
    return None


@_scanned.register(LogisticHazard)
@_scanned.register(PCHazard)
def _of_hazards(head: Any, raw: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, None]:
    return slopes, raw.sigmoid(), None


@_scanned.register
def _of_jumps(head: CoxTime, raw: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, None]:
    return slopes, (raw + head.baseline.log_jumps.to(raw.device)).exp(), None


@_scanned.register
def _of_masses(head: PMF, raw: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return slopes, *_masses(raw)


@_scanned.register
def _of_sequences(head: MTLR, raw: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scores = sequence_scores(raw.flatten(0, 1)).reshape(raw.shape)
    return slopes.flip(2).cumsum(2).flip(2), *_masses(scores)


@_scanned.register
def _of_causes(head: DeepHit, raw: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if head.n_causes == 1:
        return slopes, *_masses(raw)
    shape = (head.n_causes, raw.shape[2] // head.n_causes)
    by_cause = raw.unflatten(2, shape)
    merged = (by_cause.softmax(2)[..., None] * slopes.unflatten(2, shape)).sum(2)
    return merged, *_masses(by_cause.logsumexp(2))


def _masses(scores: Float[Tensor, "group point knot"]) -> tuple[Tensor, Tensor]:
    """Masses softmax(scores, 0), and the hazards h_k = q_k / (q_k + all later ones)."""
    flat = scores.flatten(0, 1)
    mass = pad(flat, (0, 1)).softmax(1)[:, :-1]
    hazard = surfaces.hazard_from_log_survival(surfaces.log_survival_from_pmf_logits(flat))
    return mass.reshape(scores.shape), hazard.reshape(scores.shape)
