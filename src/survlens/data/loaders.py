"""Sources of batches: tensors in memory, or a cohort whose images are decoded when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import check_inputs, modalities_of, select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.cohort import Cohort
from survlens.data.preprocessing import Preprocessing

Indices = Tensor | np.ndarray | Sequence[int]
"""Positions of rows in a source."""


@runtime_checkable
class Source(Protocol):
    """Rows that can be asked for in batches."""

    @property
    def outcome(self) -> SurvivalOutcome:
        """Outcome of all rows."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some rows, in the order asked for."""
        ...


@runtime_checkable
class ItemSource(Source, Protocol):
    """Rows that hold different numbers of items."""

    @property
    def items(self) -> Int64[Tensor, " instance"]:
        """Number of items of each row, over all modalities that have several."""
        ...

    def for_epoch(self, generator: torch.Generator) -> Source:
        """The same rows with the items that one epoch of training reads."""
        ...


class TensorSource:
    """Rows that are tensors already.

    Args:
        inputs: Tensors by modality, one row per instance; beside them what rows lack and how many items they have, as
            `survlens.core.inputs` says.
        outcome: Outcome of the same rows.

    Raises:
        InvalidValueError: If their numbers of rows differ.
    """

    def __init__(self, inputs: Inputs, outcome: SurvivalOutcome) -> None:
        rows = check_inputs(inputs, modalities_of(inputs))
        if rows != len(outcome):
            raise InvalidValueError(f"`inputs` and `outcome` must have one number of rows; got {rows}, {len(outcome)}.")
        self.inputs = dict(inputs)
        self.outcome = outcome

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some rows, in the order asked for."""
        rows = as_rows(indices)
        return select_rows(self.inputs, rows), self.outcome[rows]


class ImageCache:
    """Decoded images of a cohort: the first rows that fit in memory are kept, the others decoded each time.

    Args:
        cohort: With images.
        preprocessing: Fitted on training rows with images.
        cache_bytes: Memory for decoded images.
    """

    def __init__(self, cohort: Cohort, preprocessing: Preprocessing, cache_bytes: int) -> None:
        self._cohort, self._preprocessing = cohort, preprocessing
        self._shape = preprocessing.image_shape or ()
        kept = min(len(cohort), cache_bytes // (4 * int(np.prod(self._shape))))
        self._cache = torch.empty((kept, *self._shape), dtype=torch.float32)
        self._cached = np.zeros(kept, dtype=bool)

    def at(self, rows: np.ndarray) -> Float32[Tensor, "item channel *space"]:
        """Images of some rows, counted from 0."""
        for row in rows[rows < len(self._cached)]:
            if not self._cached[row]:
                self._cache[row] = self._preprocessing.image_at(self._cohort, int(row))
                self._cached[row] = True
        if (rows < len(self._cached)).all():
            return self._cache[torch.from_numpy(np.ascontiguousarray(rows))]
        return torch.stack([
            self._cache[row]
            if row < len(self._cached)
            else self._preprocessing.image_at(self._cohort, int(row))
            for row in rows
        ])  # fmt: skip


class CohortSource:
    """Rows of a cohort; each image is decoded when first asked for and kept while memory allows.

    Args:
        cohort: The rows.
        preprocessing: Fitted on training rows.
        cache_bytes: Memory for decoded images; the first rows that fit in it are kept, the others decoded each time.
    """

    def __init__(self, cohort: Cohort, preprocessing: Preprocessing, *, cache_bytes: int = 2 * 1024**3) -> None:
        self.cohort = cohort
        self.preprocessing = preprocessing
        self.outcome = cohort.outcome
        self._table = preprocessing.transform_table(cohort.table) if preprocessing.columns else None
        self._images = None if preprocessing.image is None else ImageCache(cohort, preprocessing, cache_bytes)

    def __len__(self) -> int:
        return len(self.cohort)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some rows, in the order asked for."""
        rows = as_rows(indices)
        inputs: dict[str, Tensor] = {}
        if self._table is not None:
            inputs["table"] = self._table[rows]
        if self._images is not None:
            inputs["image"] = self._images.at(torch.where(rows < 0, rows + len(self), rows).numpy())
        return inputs, self.outcome[rows]


class SubsetSource:
    """Some rows of another source, whose cache it shares."""

    def __init__(self, source: Source, indices: Indices) -> None:
        self.source = source
        self.indices = as_rows(indices)
        self.outcome = source.outcome[self.indices]

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some rows, in the order asked for."""
        return self.source.batch(self.indices[as_rows(indices)])

    @property
    def items(self) -> Int64[Tensor, " instance"]:
        """Number of items of each row; 1 where the source has no rows of several."""
        if not isinstance(self.source, ItemSource):
            return torch.ones(len(self), dtype=torch.int64)
        return self.source.items[self.indices]

    def for_epoch(self, generator: torch.Generator) -> SubsetSource:
        """The same rows with the items that one epoch of training reads."""
        if not isinstance(self.source, ItemSource):
            return self
        return SubsetSource(self.source.for_epoch(generator), self.indices)


def subset(source: Source, indices: Indices) -> SubsetSource:
    """The rows of `source` at `indices`, as a source."""
    return SubsetSource(source, indices)


def as_rows(indices: Indices) -> Tensor:
    """Positions as an int64 tensor; a boolean mask gives the positions where it is true."""
    rows = indices if isinstance(indices, Tensor) else torch.from_numpy(np.array(indices))
    if rows.dtype == torch.bool:
        return rows.nonzero()[:, 0]
    if rows.ndim != 1 or (rows.is_floating_point() and rows.numel()):
        raise InvalidValueError(
            f"`indices` must be a vector of whole numbers; got {rows.dtype} of shape {tuple(rows.shape)}."
        )
    return rows.to(torch.int64)
