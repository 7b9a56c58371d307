"""Features taken out of an instance: what can be removed, what stands in its place, and what the model says then."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import check_inputs, item_count, select_rows
from survlens.core.protocols import Inputs
from survlens.evaluate.attribution_values import Explained, Part, Predict, items_by_instance, parts_of


class Filling(Protocol):
    """What stands in the place of what is removed; `survlens.explain.References` and `Blurred` are fillings.

    With several rows the model is asked for each, and its answers are averaged with `weights`.
    """

    @property
    def weights(self) -> Float[Tensor, " reference"]:
        """Weight of each filling of a row; they add up to 1."""
        ...

    def starts(
        self, inputs: Inputs, rows: Int64[Tensor, " path"], numbers: Int64[Tensor, " path"]
    ) -> dict[str, Tensor]:
        """Filling `numbers[i]` of row `rows[i]` of `inputs`, laid out as that row, for every i."""
        ...


def words_of(filling: object) -> str:
    """What a filling calls itself."""
    return str(getattr(filling, "description", type(filling).__name__))


def content_generator(instance: Inputs, seed: int) -> np.random.Generator:
    """Random numbers decided by the seed and the values of the instance, whatever its position and company."""
    prints = [zlib.crc32(tensor.detach().cpu().numpy().tobytes()) for tensor in instance.values()]
    return np.random.default_rng([seed, *prints])


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Rows to ask the model about, whose answers are averaged over fillings.

    Attributes:
        inputs: The rows: all with the first filling, all with the second, ...
        weights: Weight of each filling.
        rows: Rows of `inputs`.
    """

    inputs: dict[str, Tensor]
    weights: np.ndarray
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Removable:
    """One instance, cut into what is removed as a whole.

    Attributes:
        instance: The instance, as inputs of one row.
        labels: Unit of every value of a modality, broadcasting to (item, *axes).
        contributions: Contribution of each unit at each time.
        absolute: Size of each unit's contribution at each time.
        fillings: What stands in for each modality: (filling, item, *axes).
        weights: Weight of each filling.
    """

    instance: dict[str, Tensor]
    labels: dict[str, Tensor]
    contributions: Float64[np.ndarray, "unit time"]
    absolute: Float64[np.ndarray, "unit time"]
    fillings: dict[str, Tensor]
    weights: Float64[np.ndarray, " reference"]

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.contributions)

    def part(self, part: Part) -> Float64[np.ndarray, "unit time"]:
        """What decides the order of the units."""
        return self.absolute if part is Part.ABSOLUTE else part.of(self.contributions)

    def generator(self, seed: int) -> np.random.Generator:
        """Random numbers of this instance."""
        return content_generator(self.instance, seed)

    def without(self, removed: Bool[np.ndarray, "row unit"]) -> Question:
        """The instance with the units of each row of `removed` replaced."""
        draws, rows = len(self.weights), len(removed)
        others = {name: tensor for name, tensor in self.instance.items() if name not in self.labels}
        found = select_rows(others, torch.zeros(draws * rows, dtype=torch.int64))
        for name, labels in self.labels.items():
            kept = self.instance[name]
            chosen = torch.from_numpy(removed).to(labels.device)[:, labels]
            filled = self.fillings[name][:, None]
            found[name] = torch.where(chosen, filled, kept).reshape(-1, *kept.shape[1:])
        return Question(found, self.weights, draws * rows)


def removable_instances(inputs: Inputs, explained: Explained, filling: Filling, patch: int) -> Iterator[Removable]:
    """Cuts one instance after another: a table into features, an image into squares of `patch` pixels, all channels.

    A square adds up its contributions. Its size is the absolute value of that sum where contributions are additive,
    and the sum of absolute values elsewhere.

    Raises:
        InvalidValueError: If `explained` does not fit `inputs`, or `patch` < 1.
    """
    if patch < 1:
        raise InvalidValueError(f"`patch` must be >= 1 pixel; got {patch}.")
    parts = parts_of(explained)
    check_fit(inputs, explained, parts)
    weights = filling.weights.detach().cpu().double().numpy()
    items = {name: items_by_instance(part) for name, part in parts.items()}
    for i in range(next(iter(parts.values())).instances):
        one = select_rows(inputs, torch.tensor([i]))
        first = torch.zeros(len(weights), dtype=torch.int64)
        filled = filling.starts(one, first, torch.arange(len(weights)))
        labels: dict[str, Tensor] = {}
        sums, sizes, start = [], [], 0
        for name, part in parts.items():
            if not int(item_count(one, name).sum()):
                continue
            labels[name] = _labels(tuple(one[name].shape), patch) + start
            values = part.values[items[name][i]].detach().cpu().double().numpy()
            summed, absolute = _by_unit(values, labels[name].numpy() - start)
            sums.append(summed)
            sizes.append(np.abs(summed) if part.additive else absolute)
            start += len(summed)
            labels[name] = labels[name].to(one[name].device)
        fillings = {name: filled[name].to(one[name]).reshape(len(weights), *one[name].shape) for name in labels}
        nothing = np.zeros((0, len(next(iter(parts.values())).times)))
        yield Removable(
            one, labels, np.concatenate(sums or [nothing]), np.concatenate(sizes or [nothing]), fillings, weights
        )


class Inquiry(Protocol):
    """Everything to ask about one instance."""

    @property
    def rows(self) -> int:
        """Number of answers wanted, averaged over fillings."""
        ...

    def questions(self, batch: int) -> Iterator[Question]:
        """What to ask, in questions of at most `batch` rows, or of one answer with all its fillings."""
        ...


Asked = TypeVar("Asked", bound=Inquiry)


def answered(
    predict: Predict, inquiries: Iterable[Asked], batch: int, columns: int
) -> Iterator[tuple[Asked, np.ndarray]]:
    """Every inquiry with its answers (row, time), in order; small ones share a call of the model.

    Raises:
        InvalidValueError: If the answer is not (row, time) with the times of the attribution, or not finite.
    """
    queue: deque[Asked] = deque()

    def questions() -> Iterator[Question]:
        for inquiry in inquiries:
            queue.append(inquiry)
            yield from inquiry.questions(batch)

    pieces = [np.zeros((0, columns))]
    for answer in _answers(predict, questions(), batch, columns):
        while not queue[0].rows:
            yield queue.popleft(), np.zeros((0, columns))
        pieces.append(answer)
        if sum(map(len, pieces)) == queue[0].rows:
            yield queue.popleft(), np.concatenate(pieces)
            pieces = [np.zeros((0, columns))]
    yield from ((inquiry, np.zeros((0, columns))) for inquiry in queue)


def _answers(predict: Predict, asked: Iterable[Question], batch: int, columns: int) -> Iterator[np.ndarray]:
    waiting: list[Question] = []
    for question in asked:
        if waiting and sum(each.rows for each in waiting) + question.rows > batch:
            yield from _answers_together(predict, waiting, columns)
            waiting = []
        waiting.append(question)
    if waiting:
        yield from _answers_together(predict, waiting, columns)


def _answers_together(predict: Predict, waiting: list[Question], columns: int) -> Iterator[np.ndarray]:
    names = waiting[0].inputs
    joined = {name: torch.cat([question.inputs[name] for question in waiting]) for name in names}
    with torch.no_grad():
        found = predict(joined)
    rows = sum(question.rows for question in waiting)
    if tuple(found.shape) != (rows, columns) or not bool(torch.isfinite(found).all()):
        raise InvalidValueError(
            f"`predict` must answer with finite numbers of the shape {(rows, columns)}, one per row and time of the "
            f"attribution; got the shape {tuple(found.shape)}. Ask the model at the times of the attribution."
        )
    parts = torch.split(found.detach().cpu().double(), [question.rows for question in waiting])
    for question, part in zip(waiting, parts, strict=True):
        by_filling = part.numpy().reshape(len(question.weights), -1, columns)
        yield np.tensordot(question.weights, by_filling, 1)


def check_fit(inputs: Inputs, explained: Explained, parts: Mapping[str, Attribution]) -> None:
    """Raises where attributions do not speak of every value of `inputs`.

    Raises:
        InvalidValueError: If modalities, instances or shapes differ.
    """
    if isinstance(explained, Attribution):
        raise InvalidValueError(
            "`explained` must be keyed by modality, to know what to remove; got one attribution. "
            'Pass {"table": attribution}, as an explainer returns it.'
        )
    rows = check_inputs(inputs, parts)
    for name, part in parts.items():
        expected = (*inputs[name].shape, len(part.times))
        if part.instances != rows or tuple(part.values.shape) != expected:
            raise InvalidValueError(
                f"`explained[{name!r}]` must have a contribution for every value of the {rows} rows of `inputs`, "
                f"{expected}; got {part.instances} instances and {tuple(part.values.shape)}. "
                "Explain these inputs, each value by itself."
            )


def _labels(shape: tuple[int, ...], patch: int) -> Tensor:
    """Unit of each value of (item, feature) or (item, channel, *space); channels share the unit of their pixel."""
    items, space = shape[0], shape[2:]
    if not space:
        return torch.arange(int(np.prod(shape))).reshape(shape)
    counts = [-(-side // patch) for side in space]
    label = torch.zeros(space, dtype=torch.int64)
    for axis, (side, count) in enumerate(zip(space, counts, strict=True)):
        along = (torch.arange(side) // patch).reshape([-1 if each == axis else 1 for each in range(len(space))])
        label = label * count + along
    item = torch.arange(items).reshape(-1, *[1] * (len(space) + 1)) * int(np.prod(counts))
    return (item + label).expand(shape)


def _by_unit(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the values and of their absolute values in each unit: (unit, time)."""
    columns, flat = values.reshape(-1, values.shape[-1]), labels.reshape(-1)
    count = int(flat.max()) + 1
    found = [np.zeros((count, columns.shape[1])) for _ in range(2)]
    if count == len(flat):
        found[0][flat], found[1][flat] = columns, np.abs(columns)
        return found[0], found[1]
    for column in range(columns.shape[1]):
        found[0][:, column] = np.bincount(flat, columns[:, column], count)
        found[1][:, column] = np.bincount(flat, np.abs(columns[:, column]), count)
    return found[0], found[1]
