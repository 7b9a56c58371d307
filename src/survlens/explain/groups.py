"""Contributions of groups of features over time: a modality, columns of a table, regions of an image.

The contribution of a group G to F(t | x) - F(t | x') is the integral over the line x' + alpha (x - x') of

    dA_t/du(u) . J_u(x' + alpha (x - x')) d_G,      d_G = x - x' on G and 0 elsewhere,

so one forward derivative along d_G per point gives the contribution at all times, whatever the number of pixels; the
encoders of the other modalities are not asked again. Where u is narrower than there are groups, reverse passes cost
less, and give all groups at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import check_inputs, select_rows, states_missing
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, survival
from survlens.explain.held import HeldModel, held_still
from survlens.explain.jacobian import pushforward, raw_slopes
from survlens.explain.layout import checked_times, items_of, unit_of
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.outer.piece_nodes import rule
from survlens.explain.references import ReferenceSource
from survlens.models.survival_model import SurvivalModel

_COPIES = 48  # of its inputs that a network is taken to hold, with their derivatives


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Features that are explained together.

    Attributes:
        name: What they are called on axes.
        modality: Input that they belong to.
        mask: Which of its features; it broadcasts to one row, or with a first axis to all rows (items, where a row has
            several). All of them where None.
    """

    name: str
    modality: str
    mask: Bool[Tensor, "*feature"] | None = None


def modality_groups(modalities: Sequence[str]) -> tuple[Group, ...]:
    """One group per modality."""
    return tuple(Group(name, name) for name in modalities)


def column_groups(modality: str, columns: Mapping[str, Sequence[int]], width: int) -> tuple[Group, ...]:
    """Groups of columns of a table.

    Args:
        modality: The table.
        columns: Positions of the columns of each group, by its name.
        width: Number of columns of the table.

    Raises:
        InvalidValueError: If there is no such column.
    """
    groups = []
    for name, chosen in columns.items():
        if not all(0 <= each < width for each in chosen):
            raise InvalidValueError(f"`columns` must lie in 0 .. {width - 1}; got {list(chosen)} for {name!r}.")
        mask = torch.zeros(width, dtype=torch.bool)
        mask[list(chosen)] = True
        groups.append(Group(name, modality, mask))
    return tuple(groups)


def region_groups(modality: str, labels: Int64[Tensor, "*place"], names: Mapping[int, str]) -> tuple[Group, ...]:
    """Groups of the pixels of an image that bear the same label.

    Args:
        modality: The image.
        labels: Label of each pixel, the same for all channels: (height, width), (height, width, depth), or with axes
            for the image and the channel in front, (instance, 1, height, width).
        names: Name of each label that is explained.
    """
    return tuple(Group(name, modality, labels == number) for number, name in names.items())


@dataclass(frozen=True, slots=True, eq=False)
class GroupedContributions:
    """How much each group of features moves the target from its value at the references, at every time.

    Aumann-Shapley contributions along straight lines, summed within groups and averaged over references: what GradSHAP
    gives, summed, at the price of one derivative per group. Gauss-Legendre nodes on the line are doubled for the rows
    whose contributions still change by more than `tolerance`.

    Attributes:
        groups: What is explained together; where they do not overlap and leave no feature out, contributions sum to
            F(x) - E F(x').
        references: What the rows are compared with.
        nodes: Nodes on each line to begin with, >= 2.
        most_nodes: Nodes at which doubling ends, whatever the error, which is returned.
        tolerance: Change on doubling, as a share of the largest contribution of the row, that is small enough.
        memory: Bytes that a batch of path points may take.

    Raises:
        InvalidValueError: If a setting is out of range, there is no group, or two have one name.

    References:
        Sundararajan et al. 2017; Lundberg and Lee 2017; Erion et al. 2021.
    """

    groups: tuple[Group, ...]
    references: ReferenceSource
    nodes: int = 8
    most_nodes: int = 64
    tolerance: float = 1e-3
    memory: int = MEMORY

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if not names or len(set(names)) < len(names):
            raise InvalidValueError(f"`groups` must have different names, and be one at least; got {names}.")
        if not 2 <= self.nodes <= self.most_nodes or not self.tolerance > 0:
            raise InvalidValueError(
                "`nodes` must be >= 2 and at most `most_nodes`, and `tolerance` > 0; "
                f"got {self.nodes}, {self.most_nodes} and {self.tolerance}."
            )

    def __call__(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], target: Target = survival
    ) -> dict[str, Attribution]:
        """The contributions of the groups for every row of `inputs`, under the key "groups".

        Raises:
            InvalidValueError: If a group is of an input that the model does not have, or its mask does not fit.
        """
        asked = checked_times(times)
        with held_still(model) as held:
            ready = held.ready(inputs)
            rows = check_inputs(ready, held.modalities)
            masks = self._masks(held, ready)
            outer = OuterMap(held.head, target, asked.to(held.device), self.memory)
            lines = _Lines(held, outer, ready, self.references, self.groups, masks, self.memory)
            everything = torch.arange(rows, device=held.device)
            found = lines.explained(everything, self.nodes)
            error = torch.full_like(found.values[:, 0], float("inf"))
            pending, nodes = everything, self.nodes
            while len(pending) and 2 * nodes <= self.most_nodes:
                nodes *= 2
                finer = lines.explained(pending, nodes)
                change = (finer.values - found.values[pending]).abs().amax(1)
                found.values[pending], found.errors[pending] = finer.values, finer.errors
                error[pending] = change
                size = finer.values.abs().amax((1, 2)).clamp(min=1e-300)
                pending = pending[change.amax(1) > self.tolerance * size]
            with torch.no_grad():
                raw = held.raw(ready)
            prediction, additive = outer.values(raw), _partition(self.groups, masks, ready, held.modalities)
            difference = prediction - found.reference_prediction
            return {
                "groups": Attribution(
                    values=found.values,
                    times=outer.columns,
                    unit=unit_of(held, raw),
                    target=target.name,
                    method="Grouped GradSHAP",
                    dims=("group",),
                    reference=self.references.description,
                    paper="Erion et al. 2021",
                    coords={"group": np.array([group.name for group in self.groups])},
                    additive=additive,
                    prediction=prediction,
                    reference_prediction=found.reference_prediction,
                    completeness_gap=difference - found.values.sum(1) if additive else None,
                    quadrature_error=error if self.most_nodes >= 2 * self.nodes else None,
                    sampling_error=found.errors if self.references.drawn else None,
                    notes=_notes(len(pending), nodes),
                )
            }

    def _masks(self, held: HeldModel, ready: Inputs) -> list[Tensor]:
        """The mask of each group for all rows, as numbers."""
        masks = []
        for group in self.groups:
            if group.modality not in held.modalities:
                raise InvalidValueError(
                    f"`groups` must be of {', '.join(held.modalities)}; got {group.modality!r} for {group.name!r}."
                )
            tensor = ready[group.modality]
            mask = torch.ones((), dtype=torch.bool) if group.mask is None else group.mask
            try:
                whole = mask.to(tensor.device).broadcast_to(tensor.shape)
            except RuntimeError:
                raise InvalidValueError(
                    f"`mask` of {group.name!r} must broadcast to {group.modality}, {tuple(tensor.shape)}; "
                    f"got {tuple(mask.shape)}."
                ) from None
            masks.append(whole)
        return masks


def _notes(unsettled: int, nodes: int) -> tuple[str, ...]:
    if not unsettled:
        return ()
    return (f"{unsettled} rows still changed by more than the tolerance at {nodes} nodes; see the quadrature error.",)


def _partition(groups: Sequence[Group], masks: Sequence[Tensor], inputs: Inputs, modalities: Sequence[str]) -> bool:
    """Whether every feature of every modality belongs to exactly one group."""
    for name in modalities:
        count = sum(
            (mask.to(torch.int64) for group, mask in zip(groups, masks, strict=True) if group.modality == name),
            torch.zeros(inputs[name].shape, dtype=torch.int64, device=inputs[name].device),
        )
        if not bool((count == 1).all()):
            return False
    return True


@dataclass(slots=True, eq=False)
class _Found:
    """Contributions (row, group, column), their error from drawing references, and the mean target there."""

    values: Tensor
    errors: Tensor
    reference_prediction: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """The lines from references to rows, and what is integrated along them."""

    held: HeldModel
    outer: OuterMap
    inputs: Inputs
    references: ReferenceSource
    groups: tuple[Group, ...]
    masks: list[Tensor]
    memory: int

    def explained(self, rows: Int64[Tensor, " row"], nodes: int) -> _Found:
        """The contributions of `rows` with `nodes` Gauss-Legendre nodes on each line."""
        share = self.references.weights.to(rows.device)
        count, columns = len(share), len(self.outer.columns)
        instances = check_inputs(self.inputs, self.held.modalities)
        numbers = sum(self.inputs[name].numel() for name in self.held.modalities) / max(instances, 1)
        at_once = rows_at_once(8 * _COPIES * numbers * nodes, self.memory)
        parts, starts = [], []
        for span in spans(len(rows) * count, at_once):
            path = torch.arange(span.start, span.stop, device=rows.device)
            found, start = self._of_paths(rows[path // count], path % count, nodes)
            parts.append(found)
            starts.append(start)
        by_path = torch.cat(parts).reshape(len(rows), count, len(self.groups), columns)
        values = torch.einsum("r,nrgt->ngt", share, by_path)
        spread = torch.einsum("r,nrgt->ngt", share, (by_path - values[:, None]) ** 2)
        errors = (spread / max(count - 1, 1)).sqrt()
        at_start = torch.cat(starts).reshape(len(rows), count, columns)
        return _Found(values, errors, torch.einsum("r,nrt->nt", share, at_start))

    def _of_paths(self, rows: Tensor, numbers: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
        """Contributions of each path, (path, group, column), and the target where it begins."""
        starts = self.references.starts(self.inputs, rows, numbers)
        starts = {name: tensor.to(self.inputs[name]) for name, tensor in starts.items()}
        places, weights = rule(nodes, 1)
        paths = torch.arange(len(rows), device=rows.device).repeat_interleave(nodes)
        ends = select_rows(self.inputs, rows[paths])
        begins = select_rows(starts, paths)
        alpha = torch.tensor(places, dtype=torch.float64, device=rows.device).repeat(len(rows))
        points, directions = dict(ends), {}
        for name in self.held.modalities:
            of_items = items_of(ends, name)
            each = alpha if of_items is None else alpha[of_items]
            directions[name] = ends[name] - begins[name]
            step = each.reshape(-1, *[1] * (directions[name].ndim - 1)).to(directions[name])
            points[name] = begins[name] + step * directions[name]
        masks = self._selected(rows[paths])
        raw, moved = self._moved(points, directions, masks)
        scale = raw.new_tensor(weights, dtype=torch.float64).repeat(len(rows))
        moved = (moved.double() * scale[:, None, None]).unflatten(0, (len(rows), nodes))
        found = self.outer.accumulate(raw.unflatten(0, (len(rows), nodes)), moved)
        with torch.no_grad():
            return found, self.outer.values(self.held.raw(starts))

    def _selected(self, rows: Tensor) -> list[Tensor]:
        """The masks of some rows, laid out as their inputs."""
        beside = {name: tensor for name, tensor in self.inputs.items() if name not in self.held.modalities}
        return [
            select_rows({**beside, group.modality: mask}, rows)[group.modality]
            for group, mask in zip(self.groups, self.masks, strict=True)
        ]

    def _moved(
        self, points: dict[str, Tensor], directions: dict[str, Tensor], masks: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Raw outputs, and their derivatives along each group, (point, raw, group)."""
        rows = check_inputs(points, self.held.modalities)
        with torch.no_grad():
            one = torch.zeros(min(rows, 1), dtype=torch.int64, device=masks[0].device)
            width = self.held.raw(select_rows(points, one)).shape[1]
        if width < len(self.groups):
            return self._by_reverse(points, directions, masks)
        along = [
            {group.modality: torch.where(mask, directions[group.modality], 0)}
            for group, mask in zip(self.groups, masks, strict=True)
        ]
        if isinstance(self.held.model, SurvivalModel) and not any(
            states_missing(points, name) for name in self.held.modalities
        ):
            return self._through_encoders(self.held.model, points, along)
        found = [pushforward(self.held.raw, points, each) for each in along]
        return found[0][0], torch.stack([moved for _, moved in found], dim=2)

    def _by_reverse(
        self, points: dict[str, Tensor], directions: dict[str, Tensor], masks: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        names = tuple(dict.fromkeys(group.modality for group in self.groups))
        raw, slopes = raw_slopes(self.held, points, names)
        columns = []
        for group, mask in zip(self.groups, masks, strict=True):
            name = group.modality
            direction = torch.where(mask, directions[name], 0).flatten(1)
            moved = torch.einsum("imf,if->im", slopes[name].flatten(2), direction)
            rows = items_of(points, name)
            columns.append(moved if rows is None else torch.zeros_like(raw).index_add(0, rows, moved))
        return raw, torch.stack(columns, dim=2)

    def _through_encoders(
        self, model: SurvivalModel, points: dict[str, Tensor], along: list[dict[str, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The same with each encoder apart, so that a group of one modality asks no other encoder."""
        embeddings: dict[str, Tensor] = {}
        moved: list[dict[str, Tensor]] = []
        for direction in along:
            ((name, _),) = direction.items()
            encoder: Any = model.encoders[name]
            embeddings[name], tangent = pushforward(lambda each, at=name, to=encoder: to(each[at]), points, direction)
            moved.append({name: tangent})
        with torch.no_grad():
            for name in model.modalities:
                if name not in embeddings:
                    embeddings[name] = model.encoders[name](points[name])
        found = [pushforward(lambda each: model.head.raw(model.fusion(each)), embeddings, each) for each in moved]  # type: ignore[operator]
        return found[0][0], torch.stack([each for _, each in found], dim=2)
