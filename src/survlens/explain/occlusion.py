"""Occlusion over time: what a prediction loses when a part of the input is covered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import count_key, has_bags, modalities_of, row_of_item, select_rows
from survlens.core.protocols import Inputs, SurvivalPredictor
from survlens.core.targets import Target, survival
from survlens.explain.asked import AskedModel, asked, column_count, values_of
from survlens.explain.groups import Group, column_groups
from survlens.explain.layout import axis_names, checked_times
from survlens.explain.memory import MEMORY
from survlens.explain.references import ReferenceSource


class Parts(Protocol):
    """Parts of one item that are covered one at a time."""

    def count(self, item: int) -> int:
        """How many parts item number `item` has."""
        ...

    def masks(self, item: int, numbers: Int64[Tensor, " part"]) -> Bool[Tensor, "part *place"]:
        """Which places of item number `item` belong to its parts `numbers`."""
        ...


@dataclass(frozen=True, slots=True)
class Windows:
    """Boxes at regular steps, the last one of each axis moved back to end at the border.

    Attributes:
        space: Size of the picture along its axes.
        window: Size of the box along them.
        stride: Step between boxes.
    """

    space: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def starts(self) -> tuple[list[int], ...]:
        """Where boxes begin along each axis."""
        found = []
        for size, box, step in zip(self.space, self.window, self.stride, strict=True):
            last = max(size - box, 0)
            found.append([*range(0, last, step), last])
        return tuple(found)

    def count(self, item: int) -> int:
        """How many boxes there are, the same for all items."""
        return int(np.prod([len(each) for each in self.starts]))

    def masks(self, item: int, numbers: Int64[Tensor, " part"]) -> Bool[Tensor, "part *place"]:
        """The places of some boxes."""
        starts = self.starts
        places = np.unravel_index(numbers.numpy(), [len(each) for each in starts])
        found = torch.ones((len(numbers), *self.space), dtype=torch.bool)
        for axis, (begin, chosen) in enumerate(zip(starts, places, strict=True)):
            low = torch.tensor(begin)[torch.as_tensor(chosen)][:, None]
            along = torch.arange(self.space[axis])
            inside = (along >= low) & (along < low + self.window[axis])
            shape = [len(numbers), *(self.space[axis] if each == axis else 1 for each in range(len(self.space)))]
            found &= inside.reshape(shape)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class GroupParts:
    """Groups of features of one modality.

    Attributes:
        groups: The groups.
        shape: Shape of one item of the modality.
        items: Number of its items.

    Raises:
        InvalidValueError: If the mask of a group does not fit.
    """

    groups: tuple[Group, ...]
    shape: tuple[int, ...]
    items: int

    def __post_init__(self) -> None:
        for group in self.groups:
            mask = group.mask
            if mask is None:
                continue
            try:
                torch.broadcast_to(mask, (self.items, *self.shape))
            except RuntimeError as error:
                raise InvalidValueError(
                    f"`mask` of the group {group.name!r} must broadcast to {(self.items, *self.shape)}, the items of "
                    f"{group.modality!r}; got {tuple(mask.shape)}."
                ) from error

    def count(self, item: int) -> int:
        """How many groups there are."""
        return len(self.groups)

    def masks(self, item: int, numbers: Int64[Tensor, " part"]) -> Bool[Tensor, "part *place"]:
        """Which features of an item belong to some of the groups."""
        found = torch.ones((len(numbers), *self.shape), dtype=torch.bool)
        for place, number in enumerate(numbers.tolist()):
            mask = self.groups[number].mask
            if mask is not None:
                found[place] = torch.broadcast_to(mask.cpu(), (self.items, *self.shape))[item]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Occlusion:
    """What covering a part changes, F(t | x) - F(t | x covered), at all times and for any model of survival.

    Pictures are covered by a box that moves by `stride` over all channels; a pixel has the mean effect of the boxes
    over it. Of tables one column is covered at a time. With `groups`, each group is covered as a whole and has one
    value. The effects of parts do not sum to a difference of the target.

    Attributes:
        fill: Where the values under the cover come from, such as `References.mean(training)` or `Blurred(4)`; with
            several references the effects are averaged.
        window: Size of the box, in pixels or one size per axis; at most the picture.
        stride: Step of the box, likewise; half a window where None.
        modalities: Inputs to explain; all where None.
        groups: Groups that are covered instead of boxes and columns.
        memory: Bytes that a batch may take.

    Raises:
        InvalidValueError: If a size is not >= 1.

    References:
        Zeiler and Fergus 2014.
    """

    fill: ReferenceSource
    window: int | tuple[int, ...] = 16
    stride: int | tuple[int, ...] | None = None
    modalities: tuple[str, ...] | None = None
    groups: Sequence[Group] | None = None
    memory: int = MEMORY

    def __post_init__(self) -> None:
        sizes = [self.window, *(() if self.stride is None else (self.stride,))]
        if any(each < 1 for size in sizes for each in ((size,) if isinstance(size, int) else size)):
            raise InvalidValueError(f"`window` and `stride` must be >= 1; got {self.window} and {self.stride}.")

    def __call__(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target = survival,
    ) -> dict[str, Attribution]:
        """The effects of covering the parts of every row of `inputs`, by modality."""
        when = checked_times(times)
        with asked(model) as held:
            ready = held.ready(inputs)
            game = Covering(held, ready, self.fill, when, target, self.memory)
            if self.groups is not None:
                return self._of_groups(game, self.groups)
            return {name: self._of_modality(game, name) for name in game.chosen(self.modalities)}

    def _of_modality(self, game: Covering, name: str) -> Attribution:
        shape = tuple(game.inputs[name].shape[1:])
        if len(shape) == 1:
            columns = column_groups(name, {str(each): (each,) for each in range(shape[0])}, shape[0])
            values = game.effects(name, GroupParts(columns, shape, len(game.inputs[name])))
            return game.attribution(name, values, "Occlusion", ("feature",))
        space = shape[1:]
        window = _sizes("window", self.window, space)
        stride = tuple(max(each // 2, 1) for each in window)
        if self.stride is not None:
            stride = _sizes("stride", self.stride, space)
        if any(step > box for step, box in zip(stride, window, strict=True)):
            raise InvalidValueError(
                f"`stride` must be at most `window`, or pixels are left out; got {stride} and {window}."
            )
        values = game.spread(name, Windows(space, window, stride))
        words = f"covered by boxes of {' x '.join(map(str, window))} at steps of {' x '.join(map(str, stride))}"
        return game.attribution(name, values, "Occlusion", axis_names(len(shape))[1:], (words,))

    def _of_groups(self, game: Covering, groups: Sequence[Group]) -> dict[str, Attribution]:
        found = {}
        for name in game.chosen(self.modalities):
            mine = tuple(each for each in groups if each.modality == name)
            if not mine:
                continue
            shape = tuple(game.inputs[name].shape[1:])
            values = game.effects(name, GroupParts(mine, shape, len(game.inputs[name])))
            labels = {"group": np.array([each.name for each in mine])}
            found[name] = game.attribution(name, values, "Occlusion", ("group",), coords=labels)
        if not found:
            raise InvalidValueError(
                f"`groups` must be of the inputs {', '.join(modalities_of(game.inputs))}; "
                f"got {', '.join(each.modality for each in groups) or 'none'}."
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Covering:
    """A model asked for rows of which parts are covered.

    Attributes:
        model: The model.
        inputs: Ready rows.
        fill: Where covered values come from.
        times: Times asked for.
        target: What is explained.
        memory: Bytes that a batch may take.
    """

    model: AskedModel
    inputs: Inputs
    fill: ReferenceSource
    times: Float[Tensor, " time"]
    target: Target
    memory: int

    def chosen(self, modalities: tuple[str, ...] | None) -> tuple[str, ...]:
        """The modalities to explain.

        Raises:
            InvalidValueError: If one is not there.
        """
        known = modalities_of(self.inputs)
        unknown = [name for name in modalities or () if name not in known]
        if unknown or modalities == ():
            raise InvalidValueError(
                f"`modalities` must be among {', '.join(known)}; got {', '.join(unknown) or 'none'}."
            )
        return modalities or known

    def spread(self, name: str, parts: Parts) -> Float[Tensor, "item *place column"]:
        """Mean effect of the parts over each place; 0 where there is none."""
        places = self._places(name, parts)
        shape = (len(self.inputs[name]), *places, column_count(self.times, self.target))
        total, covered = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape[:-1], dtype=torch.float64)
        for item, masks, effects, _ in self._batches(name, parts):
            flat = masks.flatten(1).double()
            total[item] += (flat.T @ effects).reshape(shape[1:])
            covered[item] += flat.sum(0).reshape(places)
        return total / covered.clamp(min=1)[..., None]

    def effects(self, name: str, parts: Parts) -> Float[Tensor, "item part column"]:
        """Effect of every part, where all items have equally many."""
        items = len(self.inputs[name])
        count = parts.count(0) if items else 0
        found = torch.zeros((items, count, column_count(self.times, self.target)), dtype=torch.float64)
        for item, _, effects, numbers in self._batches(name, parts):
            found[item, numbers] = effects
        return found

    def attribution(
        self,
        name: str,
        values: Tensor,
        method: str,
        dims: tuple[str, ...],
        notes: tuple[str, ...] = (),
        coords: dict[str, np.ndarray] | None = None,
    ) -> Attribution:
        """The values with their labels."""
        rows = row_of_item(self.inputs[count_key(name)]) if has_bags(self.inputs, name) else None
        return Attribution(
            values=values,
            times=self.target.axis(self.times),
            unit=self.model.unit(self.inputs),
            target=self.target.name,
            method=method,
            dims=dims,
            reference=self.fill.description,
            paper="Zeiler and Fergus 2014",
            coords=coords or {},
            prediction=values_of(self.model, self.inputs, self.times, self.target, self.memory).cpu(),
            rows=None if rows is None else rows.cpu(),
            notes=notes,
        )

    def _places(self, name: str, parts: Parts) -> tuple[int, ...]:
        return tuple(parts.masks(0, torch.zeros(0, dtype=torch.int64)).shape[1:]) if len(self.inputs[name]) else ()

    def _batches(self, name: str, parts: Parts) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Parts of one item at a time with their effects: item, masks, effects, numbers of the parts."""
        own = values_of(self.model, self.inputs, self.times, self.target, self.memory)
        device = self.inputs[name].device
        row_of = torch.arange(len(self.inputs[name]), device=device)
        first = torch.zeros_like(row_of)
        if has_bags(self.inputs, name):
            count = self.inputs[count_key(name)]
            row_of = row_of_item(count)
            first = (count.cumsum(0) - count)[row_of]
        columns = column_count(self.times, self.target)
        pending: list[tuple[int, Tensor, Tensor]] = []
        rows_pending = 0
        for item in range(len(self.inputs[name])):
            row = select_rows(self.inputs, row_of[item : item + 1])
            step = self.model.rows_at_once(row, columns, self.memory)
            for numbers in torch.arange(parts.count(item)).split(step):
                if rows_pending + len(numbers) > step:
                    yield from self._asked(name, pending, row_of, first, own)
                    pending, rows_pending = [], 0
                pending.append((item, parts.masks(item, numbers), numbers))
                rows_pending += len(numbers)
        yield from self._asked(name, pending, row_of, first, own)

    def _asked(
        self, name: str, covers: list[tuple[int, Tensor, Tensor]], row_of: Tensor, first: Tensor, own: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        if not covers:
            return
        device = row_of.device
        items = torch.cat([torch.full((len(numbers),), item, device=device) for item, _, numbers in covers])
        masks = torch.cat([mask for _, mask, _ in covers]).to(device)
        rows = row_of[items]
        batch = select_rows(self.inputs, rows)
        places = torch.arange(len(items), device=device)
        if has_bags(self.inputs, name):  # where the covered item lies among the items of the batch
            counts = batch[count_key(name)]
            places = counts.cumsum(0) - counts + items - first[items]
        shape = (len(masks), *[1] * (batch[name].ndim - masks.ndim), *masks.shape[1:])
        values = torch.zeros((len(items), own.shape[1]), dtype=torch.float64, device=own.device)
        for number, weight in enumerate(self.fill.weights.tolist()):
            under = self.fill.starts(self.inputs, rows, torch.full_like(rows, number))[name].to(batch[name])
            covered = batch[name].clone()
            covered[places] = torch.where(masks.reshape(shape), under[places], batch[name][places])
            values += weight * self.model.values({**batch, name: covered}, self.times, self.target)
        effects = (own[rows] - values).cpu()
        low = 0
        for item, mask, numbers in covers:
            yield item, mask, effects[low : low + len(numbers)], numbers
            low += len(numbers)


def _sizes(argument: str, sizes: int | tuple[int, ...], space: tuple[int, ...]) -> tuple[int, ...]:
    """One size per axis, at most that of the picture."""
    each = (sizes,) * len(space) if isinstance(sizes, int) else sizes
    if len(each) != len(space):
        raise InvalidValueError(
            f"`{argument}` must have one size for each of the {len(space)} axes of the picture; got {each}."
        )
    return tuple(min(size, whole) for size, whole in zip(each, space, strict=True))
