"""Reading the batches of an epoch from a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.loaders import Source, TensorSource

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
    for rows in batches:
        part = slice(start, start + len(rows))
        start += len(rows)
        yield {name: tensor[part] for name, tensor in inputs.items()}, outcome[part]


def read_in_order(source: Source, batch: int, place: Place) -> Iterator[tuple[Inputs, SurvivalOutcome]]:
    """All rows in their own order, `batch` at a time."""
    for rows in torch.arange(len(source)).split(batch):
        yield place(*source.batch(rows))


def _fits_twice(source: Source) -> bool:
    if not isinstance(source, TensorSource):
        return False
    return sum(tensor.nbytes for tensor in source.inputs.values()) <= _WHOLE_EPOCH_BYTES
