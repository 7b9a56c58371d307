"""Second-order interactions over time: how much of a contribution two features make together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import has_bags, select_rows
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, survival
from survlens.explain.held import HeldModel, held_still
from survlens.explain.layout import checked_times, unit_of
from survlens.explain.memory import MEMORY, rows_at_once
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.network_kind import network_kind
from survlens.explain.references import ReferenceSource

_RECTIFIERS: frozenset[Any] = frozenset((nn.functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_))
_COPIES = 4  # of its Hessians that a point is taken to hold
_STEP = 1e-3  # in units of the raw output: a log-hazard or a log-odds
_DIFFERENCE = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))


class Curvature(Enum):
    """Which second derivatives of the target are counted.

    FULL: all of them, J' (d2A/du2) J + sum over k of (dA/du_k) d2u_k. NETWORK: the second term only, as some published
    code has it; under a linear log-risk nothing is left of S(t), though its features interact.
    """

    FULL = "full"
    NETWORK = "network"


@dataclass(frozen=True, slots=True, eq=False)
class IntegratedHessians:
    """IntHess(t): the contribution of every pair of features to the target at time t.

    With d = x - x' and the line x' + s d, of density -log s where it is the product of two uniform positions,

        Gamma_ij(t) = d_i d_j integral of -s log(s) d2F(t)/dx_i dx_j ds   (+ d_i integral of -log(s) dF(t)/dx_i ds
        where i = j),

    averaged over references. Gamma is symmetric, its rows sum to IntGrad(t), and all of it sums to F(x) - E F(x'). For
    F(t) = A_t(u(x)) the second derivatives are J' (d2A_t/du2) J + sum over k of (dA_t/du_k) d2u_k; for S(t) of a Cox
    model, S (dH dH' - d2H). All times take one Jacobian and one Hessian of u per point, on Gauss nodes for the weight
    -log s.

    A ReLU network has d2u = 0 wherever it exists; what its kinks bend is left out, and the completeness gap says how
    much that is. With `softplus_beta` every ReLU is replaced by softplus(beta z) / beta, and the smooth model is
    explained throughout: its own prediction and references are what contributions sum to.

    Attributes:
        references: What the rows are compared with.
        modality: The table that is explained; all other inputs keep the values of the row.
        nodes: Nodes of the quadrature along the line, at least 4.
        softplus_beta: Sharpness of the softplus in place of ReLU, > 0; None leaves the network as it is.
        curvature: Which terms are counted; anything but FULL is for comparisons.
        memory: Bytes that the Hessians of a batch of points may take.

    Raises:
        InvalidValueError: If a setting is out of range.

    References:
        Janizek et al. 2021.
    """

    references: ReferenceSource
    modality: str = "table"
    nodes: int = 16
    softplus_beta: float | None = None
    curvature: Curvature = Curvature.FULL
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if self.nodes < 4 or (self.softplus_beta is not None and not self.softplus_beta > 0):
            raise InvalidValueError(
                f"`nodes` must be >= 4 and `softplus_beta` > 0 or None; got {self.nodes} and {self.softplus_beta}."
            )

    def __call__(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], target: Target = survival
    ) -> dict[str, Attribution]:
        """The interactions of every row of `inputs`, with the axes feature and other, under the name of the table.

        Raises:
            InvalidValueError: If `modality` is no table of the model.
        """
        asked = checked_times(times)
        with held_still(model) as held, _Softened(self.softplus_beta):
            ready = held.ready(inputs)
            self._check(held, ready)
            outer = OuterMap(held.head, target, asked.to(held.device))
            with torch.no_grad():
                raw = held.raw(ready)
            prediction = outer.values(raw)
            values, coarse, reference = self._mean_over_references(held, outer, ready)
            found = Attribution(
                values=values,
                times=outer.columns,
                unit=unit_of(held, raw),
                target=target.name,
                method="IntHess",
                dims=("feature", "other"),
                reference=self.references.description,
                paper="Janizek et al. 2021",
                additive=True,
                prediction=prediction,
                reference_prediction=reference,
                completeness_gap=prediction - reference - values.sum((1, 2)),
                quadrature_error=(values - coarse).abs().amax((1, 2)),
                notes=self._notes(held, ready),
            )
        return {self.modality: found}

    def _check(self, held: HeldModel, ready: Inputs) -> None:
        name = self.modality
        if name not in held.modalities or ready[name].ndim != 2 or has_bags(ready, name):
            raise InvalidValueError(
                f"`modality` must name a table of the model, one row per instance; got {name!r} among "
                f"{', '.join(held.modalities)}. Interactions of pictures are taken between groups of pixels: explain "
                "those by SurvSHAP."
            )

    def _notes(self, held: HeldModel, ready: Inputs) -> tuple[str, ...]:
        notes: tuple[str, ...] = ()
        if len(held.modalities) > 1:
            notes += (f"Only {self.modality} moves along the path; other inputs keep the values of the row.",)
        if self.softplus_beta is not None:
            notes += (f"Every ReLU was replaced by softplus(beta z) / beta with beta = {self.softplus_beta:g}.",)
        elif len(ready[self.modality]) and ((kind := network_kind(held, ready)).calls or kind.unknown):
            notes += (
                "The network has kinks, where it has no second derivative: their part of the interactions is missing, "
                "which the completeness gap shows. Set softplus_beta to have it from a smooth network nearby.",
            )
        return notes

    def _mean_over_references(self, held: HeldModel, outer: OuterMap, ready: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        rows, features = ready[self.modality].shape
        weights = self.references.weights.to(held.device, torch.float64)
        columns = len(outer.columns)
        values = torch.zeros((rows, features, features, columns), dtype=torch.float64, device=held.device)
        coarse = torch.zeros_like(values)
        reference = torch.zeros((rows, columns), dtype=torch.float64, device=held.device)
        with torch.no_grad():
            one = torch.zeros(min(rows, 1), dtype=torch.int64, device=held.device)
            width = held.raw(select_rows(ready, one)).shape[1]
        at_once = rows_at_once(_COPIES * 8 * self.nodes * features * features * max(width, 1), self.memory)
        every = torch.arange(rows, device=held.device)
        for number, weight in enumerate(weights):
            for part in every.split(at_once):
                numbers = torch.full_like(part, number)
                start = self.references.starts(ready, part, numbers)[self.modality].to(ready[self.modality])
                own = select_rows(ready, part)
                with torch.no_grad():
                    reference[part] += weight * outer.values(held.raw({**own, self.modality: start}))
                for count, total in ((self.nodes, values), (self.nodes // 2, coarse)):
                    total[part] += weight * self._along(held, outer, own, start, count)
        return values, coarse, reference

    def _along(self, held: HeldModel, outer: OuterMap, own: Inputs, start: Tensor, count: int) -> Tensor:
        """Gamma between `start` and `own`, (row, feature, other, column)."""
        positions, weights = (torch.as_tensor(each, device=start.device) for each in log_rule(count))
        rows, features = start.shape
        d = (own[self.modality] - start).double()
        points = (start.double()[:, None] + positions[:, None] * d[:, None]).flatten(0, 1).to(start)
        repeated = select_rows(own, torch.arange(rows, device=start.device).repeat_interleave(count))
        raw, slopes, bends = _derivatives(held, {**repeated, self.modality: points}, self.modality)
        pairs = (d[:, :, None] * d[:, None, :]).flatten(1)
        raw, slopes, bends = (each.unflatten(0, (rows, count)) for each in (raw, slopes, bends))
        second = (weights * positions)[:, None, None]
        total = outer.accumulate(raw, bends.flatten(3) * second * pairs[:, None, None])
        slopes = slopes * d[:, None, None]
        if self.curvature is Curvature.FULL:
            total = total + _outer_curvature(outer, raw, slopes, weights * positions)
        total = total.unflatten(1, (features, features))
        alone = outer.accumulate(raw, slopes * weights[:, None, None])
        return total + torch.diag_embed(alone.transpose(1, 2)).permute(0, 2, 3, 1)


def _derivatives(held: HeldModel, inputs: Inputs, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """u, du/dx and d2u/dx2 by one modality, in float64: (point, raw), (point, raw, feature), (..., other)."""
    with torch.enable_grad():
        moving = inputs[name].detach().requires_grad_(True)
        raw = held.raw({**inputs, name: moving})
        slopes, bends = [], []
        for column in range(raw.shape[1]):
            slope = _derivative(raw[:, column], moving)
            slopes.append(slope.detach())
            bends.append(torch.stack([_derivative(slope[:, i], moving).detach() for i in range(slope.shape[1])], dim=1))
    return raw.detach().double(), torch.stack(slopes, 1).double(), torch.stack(bends, 1).double()


def _derivative(value: Tensor, by: Tensor) -> Tensor:
    """Derivative of each entry of `value` by its row of `by`, with its graph; 0 where it does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    found = torch.autograd.grad(value.sum(), by, create_graph=True, allow_unused=True, materialize_grads=True)
    return found[0]


def _outer_curvature(
    outer: OuterMap, raw: Tensor, slopes: Float[Tensor, "row point raw feature"], weights: Float[Tensor, " point"]
) -> Float[Tensor, "row pair column"]:
    """Sum over points of weight times g' (d2A_t/du2) g, with g the slopes.

    The second derivative is a difference of exact first derivatives along each raw output, or along the slope of each
    feature where these are fewer. The four-point rule with steps of _STEP is right to about 1e-12 in float64; automatic
    second derivatives are not finite for heads whose survival reaches 0 at the last knot.
    """
    features = slopes.shape[3]
    weighted = slopes * weights[:, None, None]
    if raw.shape[2] < features:
        axes = torch.eye(raw.shape[2], dtype=raw.dtype, device=raw.device)
        total = slopes.new_zeros((slopes.shape[0], features * features, len(outer.columns)))
        for k, axis in enumerate(axes):
            pairs = (weighted[:, :, :, :, None] * slopes[:, :, k, None, None, :]).flatten(3)
            for place, share in _DIFFERENCE:
                total += share / _STEP * outer.accumulate(raw + place * _STEP * axis, pairs)
        total = total.unflatten(1, (features, features))
    else:
        columns = []
        for j in range(features):
            direction = slopes[..., j]
            length = direction.abs().amax(2, keepdim=True)
            step = torch.where(length > 0, _STEP / length, torch.zeros_like(length))
            scaled = weighted * (length / _STEP)[..., None]
            moved = [share * outer.accumulate(raw + place * step * direction, scaled) for place, share in _DIFFERENCE]
            columns.append(torch.stack(moved).sum(0))
        total = torch.stack(columns, dim=2)
    return ((total + total.transpose(1, 2)) / 2).flatten(1, 2)


class _Softened(TorchFunctionMode):
    """Replaces ReLU by a softplus of the same ends."""

    def __init__(self, beta: float | None):
        super().__init__()
        self.beta = beta

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: D105
        if self.beta is None or func not in _RECTIFIERS:
            return func(*args, **(kwargs or {}))
        return nn.functional.softplus(args[0], beta=self.beta)


@cache
def log_rule(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss rule of `count` nodes for integrals of -log(s) f(s) over (0, 1).

    By Lanczos' recurrence on a fine rule for the same weight, and the eigenvalues of its matrix (Golub and Welsch).
    """
    fine, share = np.polynomial.legendre.leggauss(400)
    place, share = (fine + 1) / 2, share / 2
    s = place**4
    weight = share * 4 * place**3 * -4 * np.log(place)
    total = weight.sum()
    basis = [np.sqrt(weight / total)]
    diagonal, beside = [], []
    for number in range(count):
        moved = s * basis[number]
        diagonal.append(float(basis[number] @ moved))
        for _ in range(2):
            for each in basis:
                moved = moved - (each @ moved) * each
        length = float(np.linalg.norm(moved))
        beside.append(length)
        basis.append(moved / length)
    matrix = np.diag(diagonal) + np.diag(beside[: count - 1], 1) + np.diag(beside[: count - 1], -1)
    nodes, vectors = np.linalg.eigh(matrix)
    return nodes, total * vectors[0] ** 2
