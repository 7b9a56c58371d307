"""Reading the batches of an epoch from a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from survlens.core.inputs import count_key, select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.loaders import ItemSource, Source, TensorSource

Place = Callable[[Inputs, SurvivalOutcome], tuple[Inputs, SurvivalOutcome]]
_WHOLE_EPOCH_BYTES = 64 * 2**20


def read_batches(source: Source, batches: Sequence[Tensor], place: Place) -> Iterator[tuple[Inputs, SurvivalOutcome]]:
    """The batches with the given rows.

    Small sources in memory are put in order once an epoch and cut into slices, because gathering rows for every batch
    would cost as much as a small network.
    """
    if not _fits_twice(source):
        for rows in batches:
            yield place(*source.batch(rows))
        return
    inputs, outcome = place(*source.batch(torch.cat(list(batches))))
    start = 0
    bags = any(count_key(name) in inputs for name in inputs)
    for rows in batches:
        part = slice(start, start + len(rows))
        start += len(rows)
        if bags:
            taken = torch.arange(part.start, part.stop, device=outcome.time.device)
            yield select_rows(inputs, taken), outcome[part]
        else:
            yield {name: tensor[part] for name, tensor in inputs.items()}, outcome[part]


def read_in_order(source: Source, batch: int, place: Place) -> Iterator[tuple[Inputs, SurvivalOutcome]]:
    """All rows in their own order, `batch` at a time; fewer where they hold more than `batch` items."""
    for rows in rows_in_order(source, batch):
        yield place(*source.batch(rows))


def rows_in_order(source: Source, batch: int) -> Sequence[Int64[Tensor, " _"]]:
    """All rows in their own order, cut where more than `batch` rows or items would come together."""
    rows = torch.arange(len(source))
    if not isinstance(source, ItemSource) or bool((source.items <= 1).all()):
        return rows.split(batch)
    starts, held = [0], 0
    for row, items in enumerate(source.items.clamp(min=1).tolist()):
        if held + items > batch and row > starts[-1]:
            starts, held = [*starts, row], 0
        held += items
    return rows.tensor_split(starts[1:])


@torch.no_grad()
def embeddings_of(
    model: nn.Module, source: Source, *, batch: int = 256, device: torch.device | str | None = None
) -> Float[Tensor, "instance embedding"]:
    """Embeddings of all rows of a source, on the CPU: one per patient where its rows are patients.

    The model is asked in eval mode, without the graph and batch by batch, and comes back as it was. The head of the
    model then gives risks and curves: `model.head.predict(embeddings)`.

    Args:
        model: Such as `SurvivalModel` or `CoxVAE`.
        source: The rows.
        batch: Rows, or items of rows, read at once.
        device: Where it is computed; where the model is by default.
    """
    asked: Any = model
    with _evaluated_on(model, device) as place:
        parts = [
            asked.embed({name: tensor.to(place) for name, tensor in source.batch(rows)[0].items()}).cpu()
            for rows in rows_in_order(source, batch)
        ]
    return torch.cat(parts)


@contextmanager
def _evaluated_on(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    home, training = next(model.parameters()).device, [module for module in model.modules() if module.training]
    place = home if device is None else torch.device(device)
    model.eval().to(place)
    try:
        yield place
    finally:
        model.to(home)
        for module in training:
            module.training = True


def _fits_twice(source: Source) -> bool:
    if not isinstance(source, TensorSource):
        return False
    return sum(tensor.nbytes for tensor in source.inputs.values()) <= _WHOLE_EPOCH_BYTES
