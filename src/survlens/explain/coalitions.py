"""Players, coalitions, and rows that are partly the instance and partly a reference.

A player is a set of features that enter and leave together: a column, a group of columns, a picture, a region of it.
The game of an instance x is v(S) = mean over references x' of F(x_S, x'_rest): the players of S have the values of x,
all others those of x'. It is the interventional game: features outside S are drawn without regard to those inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import count_key, has_bags, modalities_of, row_of_item, rows_of_modality, select_rows
from survlens.core.protocols import Inputs, SurvivalPredictor
from survlens.core.targets import Target
from survlens.explain.asked import AskedModel, asked, column_count
from survlens.explain.curve_rows import CurveRows, curve_rows
from survlens.explain.layout import checked_times
from survlens.explain.references import ReferenceSource


@dataclass(frozen=True, slots=True, eq=False)
class Player:
    """Features of one modality that enter and leave a coalition together.

    Attributes:
        name: What it is called in tables and on axes.
        modality: The input that it is part of.
        columns: Its columns, of a table; None with `mask` None for the whole modality.
        mask: Its part of one picture: a map of (height, width), the same for every channel, or of all axes.
    """

    name: str
    modality: str
    columns: Sequence[int] | None = None
    mask: Bool[Tensor, "..."] | None = None

    def where(self, shape: tuple[int, ...]) -> Bool[Tensor, "..."]:
        """Which of the features of one row of `shape` belong to the player.

        Raises:
            InvalidValueError: If columns or mask do not fit the modality.
        """
        if self.columns is not None:
            wrong = [each for each in self.columns if len(shape) != 1 or not 0 <= each < shape[0]]
            if wrong or not len(self.columns) or self.mask is not None:
                raise InvalidValueError(
                    f"`columns` of the player {self.name!r} must number columns of {self.modality!r}, which has the "
                    f"shape {shape}, and stand alone; got {list(self.columns)}."
                )
            found = torch.zeros(shape, dtype=torch.bool)
            found[list(self.columns)] = True
            return found
        if self.mask is None:
            return torch.ones(shape, dtype=torch.bool)
        if tuple(self.mask.shape) not in {shape, shape[1:]} or self.mask.dtype != torch.bool or not self.mask.any():
            raise InvalidValueError(
                f"`mask` of the player {self.name!r} must be true somewhere and have the shape {shape} or {shape[1:]}; "
                f"got {self.mask.dtype} of {tuple(self.mask.shape)}."
            )
        return self.mask.cpu().expand(shape)


def column_players(modality: str, groups: Mapping[str, Sequence[int]]) -> tuple[Player, ...]:
    """Groups of columns of a table, by name."""
    return tuple(Player(name, modality, columns=tuple(columns)) for name, columns in groups.items())


def region_players(modality: str, labels: Int64[Tensor, "..."]) -> tuple[Player, ...]:
    """Regions of a picture from a map of labels, such as superpixels; every label is a player, 0 as well.

    Args:
        modality: The picture.
        labels: Label of each pixel or voxel.
    """
    found = labels.unique().tolist()
    return tuple(Player(f"{modality}_{label}", modality, mask=labels == label) for label in found)


def default_players(inputs: Inputs) -> tuple[Player, ...]:
    """Every column of every table, and every other modality as a whole."""
    players: list[Player] = []
    for name in modalities_of(inputs):
        tensor = inputs[name]
        if tensor.ndim == 2:
            players += [Player(f"{name}_{column}", name, columns=(column,)) for column in range(tensor.shape[1])]
        else:
            players.append(Player(name, name))
    return tuple(players)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Who plays, and which features belong to whom.

    Attributes:
        players: The players, in order.
        owners: Number of the player that each feature of one row of a modality belongs to.
        single: Modalities of which every player is one column, in order.
    """

    players: tuple[Player, ...]
    owners: Mapping[str, Int64[Tensor, "..."]]
    single: frozenset[str]

    @staticmethod
    def of(players: Sequence[Player] | None, inputs: Inputs) -> Table:
        """The table of `players`, or of the default players.

        Raises:
            InvalidValueError: If players name an unknown modality, share a feature, or leave one out.
        """
        chosen = default_players(inputs) if players is None else tuple(players)
        known = modalities_of(inputs)
        wrong = [each.modality for each in chosen if each.modality not in known]
        if wrong or len({each.name for each in chosen}) != len(chosen):
            raise InvalidValueError(
                f"`players` must have distinct names and modalities among {', '.join(known)}; "
                f"got {', '.join(wrong) or 'a name twice'}."
            )
        owners, single = {}, []
        for name in known:
            shape = tuple(inputs[name].shape[1:])
            count = torch.zeros(shape, dtype=torch.int64)
            owner = torch.zeros(shape, dtype=torch.int64)
            for number, player in enumerate(chosen):
                if player.modality == name:
                    where = player.where(shape)
                    count += where
                    owner = torch.where(where, number, owner)
            if not bool((count == 1).all()):
                raise InvalidValueError(
                    f"`players` must cover every feature of {name!r} once; got {int((count == 0).sum())} features of "
                    f"no player and {int((count > 1).sum())} of several. Add one Player for the rest."
                )
            owners[name] = owner.to(inputs[name].device)
            if len(shape) == 1 and bool((owner.diff() == 1).all()):
                single.append(name)
        return Table(chosen, owners, frozenset(single))

    def __len__(self) -> int:
        return len(self.players)

    def mixed(self, own: Inputs, references: Inputs, coalitions: Bool[Tensor, "coalition player"]) -> dict[str, Tensor]:
        """Every coalition with every reference: the values of `own` for its players, of the reference for the others.

        Args:
            own: One row, or as many as there are references.
            references: Rows laid out as those of `own`.
            coalitions: Who has their own values.

        Returns:
            Rows of the first coalition with all references, then those of the second, and so on.
        """
        found: dict[str, Tensor] = {}
        for name, tensor in references.items():
            if name not in self.owners:
                found[name] = tensor.repeat(len(coalitions))
                continue
            inside = coalitions.to(tensor.device)[:, self.owners[name]][:, None]
            both = torch.where(inside, _spread(own, references, name)[None], tensor[None])
            found[name] = both.reshape(-1, *tensor.shape[1:])
        return found

    def differ(self, instance: Inputs, references: Inputs) -> Bool[Tensor, "reference player"]:
        """Whether a player has another value in the one row of `instance` than in each reference."""
        count = rows_of_modality(references, next(iter(self.owners)))
        found = torch.zeros((count, len(self)), dtype=torch.int64)
        for name, owner in self.owners.items():
            unlike = (_spread(instance, references, name) != references[name]).flatten(1).cpu().long()
            of_items = torch.zeros((len(unlike), len(self)), dtype=torch.int64)
            of_items.index_add_(1, owner.flatten().cpu(), unlike)
            place = torch.arange(count)
            if has_bags(references, name):
                place = row_of_item(references[count_key(name)]).cpu()
            found.index_add_(0, place, of_items)
        return found > 0

    def by_modality(self, whole: Attribution) -> dict[str, Attribution]:
        """The contributions of all players, taken apart by modality."""
        found = {}
        for name in self.owners:
            mine = [number for number, player in enumerate(self.players) if player.modality == name]
            groups = {"group": np.array([self.players[number].name for number in mine])}
            error = whole.sampling_error
            found[name] = replace(
                whole,
                values=whole.values[:, mine],
                dims=("feature",) if name in self.single else ("group",),
                coords={} if name in self.single else groups,
                sampling_error=None if error is None else error[:, mine],
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """The game of one instance: what the target is worth, on average over references, when a coalition is known.

    Attributes:
        model: The model, asked.
        table: The players.
        instance: One row.
        source: Its references.
        times: Times asked for.
        target: What is explained.
        memory: Bytes that a batch may take.
    """

    model: AskedModel
    table: Table
    instance: Inputs
    source: ReferenceSource
    times: Float[Tensor, " time"]
    target: Target
    memory: int

    @property
    def columns(self) -> int:
        """Number of values of a coalition."""
        return column_count(self.times, self.target)

    @property
    def weights(self) -> Float[Tensor, " reference"]:
        """Weight of each reference."""
        return self.source.weights.double().cpu()

    def own_value(self) -> Float[Tensor, " column"]:
        """F(x): what all players are worth together, whatever the reference."""
        return self.model.values(self.instance, self.times, self.target)[0].cpu()

    def blocks(self) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """References in blocks that fit into a batch: which they are, and their rows."""
        count = len(self.weights)
        step = min(count, self.rows_at_once)
        for first in range(0, count, step):
            numbers = torch.arange(first, min(first + step, count))
            yield (
                slice(first, first + len(numbers)),
                self.source.starts(self.instance, torch.zeros_like(numbers), numbers),
            )

    @property
    def rows_at_once(self) -> int:
        """How many mixed rows fit into a batch."""
        return self.model.rows_at_once(self.instance, self.columns, self.memory)

    def batches(
        self, coalitions: Bool[Tensor, "coalition player"], references: Inputs
    ) -> Iterator[tuple[slice, CurveRows]]:
        """The target of every coalition with every reference, batch by batch: which coalitions, and their rows."""
        count = rows_of_modality(references, next(iter(self.table.owners)))
        step = max(self.rows_at_once // count, 1)
        for first in range(0, len(coalitions), step):
            where = slice(first, min(first + step, len(coalitions)))
            mixed = self.table.mixed(self.instance, references, coalitions[where])
            yield where, curve_rows(self.model, mixed, self.times, self.target)

    def worth(self, coalitions: Bool[Tensor, "coalition player"]) -> Float[Tensor, "coalition column"]:
        """v(S) of each coalition."""
        found = torch.zeros((len(coalitions), self.columns), dtype=torch.float64)
        for block, references in self.blocks():
            for where, rows in self.batches(coalitions, references):
                found[where] += rows.averaged(self.weights[block])
        return found


def _spread(own: Inputs, references: Inputs, name: str) -> Tensor:
    """A modality of one row repeated for every reference where it has several items, else as it is."""
    times = len(references[name]) // max(len(own[name]), 1)
    return own[name].repeat(times, *[1] * (own[name].ndim - 1)) if has_bags(own, name) else own[name]


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Contributions of the players of one game, and what they should add up to.

    Attributes:
        contributions: Value of each player.
        empty: v of nobody: the mean of F over the references.
        error: Standard error of the contributions, where something was drawn.
    """

    contributions: Float[Tensor, "player column"]
    empty: Float[Tensor, " column"]
    error: Float[Tensor, "player column"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of every game: references, players, and the words that go with the answer.

    Attributes:
        source: Where the references come from.
        players: Who plays; by default every column of a table, and every other modality as a whole.
        memory: Bytes that a batch may take.
        method: Name of the method.
        paper: Where it comes from.
        notes: What a reader should know.
    """

    source: ReferenceSource
    players: Sequence[Player] | None
    memory: int
    method: str
    paper: str
    notes: tuple[str, ...]

    def answered(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target,
        solve: Callable[[Game], Solution],
    ) -> dict[str, Attribution]:
        """The contributions in the game of every row of `inputs`, by modality."""
        when = checked_times(times)
        with asked(model) as held:
            ready = held.ready(inputs)
            table = Table.of(self.players, ready)
            rows = rows_of_modality(ready, next(iter(table.owners)))
            found, own = [], []
            for row in range(rows):
                instance = select_rows(ready, torch.tensor([row]))
                game = Game(held, table, instance, self.source, when, target, self.memory)
                found.append(solve(game))
                own.append(game.own_value())
            unit = held.unit(ready)
        values = torch.stack([each.contributions for each in found])
        prediction, empty = torch.stack(own), torch.stack([each.empty for each in found])
        errors = [each.error for each in found if each.error is not None]
        whole = Attribution(
            values=values,
            times=target.axis(when),
            unit=unit,
            target=target.name,
            method=self.method,
            reference=self.source.description,
            paper=self.paper,
            additive=True,
            prediction=prediction,
            reference_prediction=empty,
            completeness_gap=prediction - empty - values.sum(1),
            sampling_error=torch.stack(errors) if errors else None,
            notes=self.notes,
        )
        return table.by_modality(whole)
