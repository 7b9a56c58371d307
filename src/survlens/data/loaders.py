"""Sources of batches: tensors in memory, or a cohort whose images are decoded when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from survlens.core.errors import InvalidValueError
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


class TensorSource:
    """Rows that are tensors already.

    Args:
        inputs: Tensors by modality, one row per instance.
        outcome: Outcome of the same rows.

    Raises:
        InvalidValueError: If their numbers of rows differ.
    """

    def __init__(self, inputs: Inputs, outcome: SurvivalOutcome) -> None:
        sizes = {name: int(value.shape[0]) for name, value in inputs.items()} | {"outcome": len(outcome)}
        if len(set(sizes.values())) > 1:
            raise InvalidValueError(f"`inputs` and `outcome` must have one number of rows; got {sizes}.")
        self.inputs = dict(inputs)
        self.outcome = outcome

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some rows, in the order asked for."""
        rows = as_rows(indices)
        return {name: value[rows] for name, value in self.inputs.items()}, self.outcome[rows]


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
        shape = preprocessing.image_shape
        kept = 0 if shape is None else min(len(cohort), cache_bytes // (4 * int(np.prod(shape))))
        self._cache = torch.empty((kept, *(shape or ())), dtype=torch.float32)
        self._cached = np.zeros(kept, dtype=bool)

    def __len__(self) -> int:
        return len(self.cohort)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some rows, in the order asked for."""
        rows = as_rows(indices)
        inputs: dict[str, Tensor] = {}
        if self._table is not None:
            inputs["table"] = self._table[rows]
        if self.preprocessing.image is not None:
            inputs["image"] = self._images(rows.numpy())
        return inputs, self.outcome[rows]

    def _images(self, rows: np.ndarray) -> Tensor:
        rows = np.where(rows < 0, rows + len(self), rows)
        for row in rows[rows < len(self._cached)]:
            if not self._cached[row]:
                self._cache[row] = self.preprocessing.image_at(self.cohort, int(row))
                self._cached[row] = True
        if (rows < len(self._cached)).all():
            return self._cache[torch.from_numpy(rows)]
        return torch.stack([
            self._cache[row] if row < len(self._cached) else self.preprocessing.image_at(self.cohort, int(row))
            for row in rows
        ])  # fmt: skip


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
