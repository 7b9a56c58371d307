"""Sources whose rows are patients: several images each, and modalities that some patients lack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from survlens.core.errors import DataError, InvalidValueError
from survlens.core.inputs import count_key, modalities_of, present_key
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.cohort import Cohort
from survlens.data.loaders import ImageCache, Indices, Source, as_rows
from survlens.data.preprocessing import Preprocessing


class BagSource:
    """Patients of a cohort: one row per patient, with all images of the patient and the table once.

    A patient without images lacks that modality: take cohorts of the patients who have images and of those who have a
    table, and join them with `JoinedSource`.

    Args:
        cohort: One row per image.
        preprocessing: Fitted on training rows.
        image: Name of the images among the inputs.
        table: Name of the covariates among the inputs.
        max_items: In training, at most so many images of a patient are read in an epoch, drawn anew each epoch; all are
            read where a model predicts. None: all in training too.
        cache_bytes: Memory for decoded images.

    Attributes:
        patient: Name of the patient of each row, in the order of their first rows in the cohort.
        images_of: Rows of the cohort of each patient.
        items: Number of images of each patient.

    Raises:
        DataError: If the covariates of a patient differ between rows.
    """

    def __init__(
        self,
        cohort: Cohort,
        preprocessing: Preprocessing,
        *,
        image: str = "image",
        table: str = "table",
        max_items: int | None = None,
        cache_bytes: int = 2 * 1024**3,
    ) -> None:
        if max_items is not None and max_items < 1:
            raise InvalidValueError(f"`max_items` must be >= 1 or None; got {max_items}.")
        first = cohort.per_patient()
        code = {name: number for number, name in enumerate(cohort.patient[first])}
        rows_of = np.array([code[name] for name in cohort.patient], dtype=np.int64)
        self.cohort, self.preprocessing, self.max_items = cohort, preprocessing, max_items
        self.image, self.table = image, table
        self.patient, self.outcome = cohort.patient[first], cohort.outcome[first]
        self.images_of = np.split(np.argsort(rows_of, kind="stable"), np.cumsum(np.bincount(rows_of))[:-1])
        self._table = None
        if preprocessing.columns:
            _check_one_table(cohort, rows_of, first)
            self._table = preprocessing.transform_table(cohort.table.iloc[first])
        self._images = None if preprocessing.image is None else ImageCache(cohort, preprocessing, cache_bytes)
        self.items = torch.tensor([0 if self._images is None else len(rows) for rows in self.images_of])

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some patients, in the order asked for, with all their images."""
        return self._batch(as_rows(indices), self.images_of)

    def for_epoch(self, generator: torch.Generator) -> Source:
        """The same patients with at most `max_items` images each, drawn without replacement."""
        return self if self.max_items is None or self._images is None else _DrawnBags(self, generator, self.max_items)

    def _batch(self, rows: Tensor, images_of: Sequence[np.ndarray]) -> tuple[Inputs, SurvivalOutcome]:
        inputs: dict[str, Tensor] = {}
        if self._table is not None:
            inputs[self.table] = self._table[rows]
        if self._images is not None:
            chosen = [images_of[row] for row in rows.tolist()]
            inputs[self.image] = self._images.at(np.concatenate([np.empty(0, np.int64), *chosen]))
            inputs[count_key(self.image)] = torch.tensor([len(images) for images in chosen], dtype=torch.int64)
        return inputs, self.outcome[rows]


class _DrawnBags:
    """A `BagSource` with the images that one epoch reads."""

    def __init__(self, source: BagSource, generator: torch.Generator, most: int) -> None:
        self.source, self.outcome = source, source.outcome
        self._images_of = [rows[_drawn(len(rows), most, generator)] for rows in source.images_of]

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        return self.source._batch(as_rows(indices), self._images_of)


class JoinedSource:
    """Patients of several sources, each of which brings modalities that the others do not have.

    A row is a patient of any source. In the modalities of a source that does not know the patient, the row is stated to
    be missing. Rows are in the order of the sources, and within them in their own.

    Args:
        sources: With modalities of different names; `BagSource(..., image="slide")` gives names.

    Attributes:
        patient: Name of the patient of each row.

    Raises:
        InvalidValueError: If two sources bring a modality of one name.
        DataError: If two sources differ in the outcome of a patient.
    """

    def __init__(self, sources: Sequence[BagSource]) -> None:
        self.sources = tuple(sources)
        if not self.sources:
            raise InvalidValueError("`sources` must hold at least one source; got none.")
        names = [name for source in self.sources for name in modalities_of(source.batch([])[0])]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidValueError(
                f"`sources` must bring modalities of different names; got {', '.join(twice)} twice. "
                'Name them: BagSource(..., image="slide", table="blood").'
            )
        patients = dict.fromkeys(name for source in self.sources for name in source.patient)
        self.patient = np.array(list(patients), dtype=object)
        place = {name: row for row, name in enumerate(patients)}
        # Row of each patient in each source, -1 where the source does not know them.
        self._rows = torch.full((len(self.sources), len(place)), -1, dtype=torch.int64)
        for number, source in enumerate(self.sources):
            at = torch.tensor([place[name] for name in source.patient], dtype=torch.int64)
            self._rows[number, at] = torch.arange(len(source))
        self.outcome = self._joined_outcome()

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def items(self) -> Int64[Tensor, " instance"]:
        """Number of items of each patient, over all sources."""
        total = torch.zeros(len(self), dtype=torch.int64)
        for source, rows in zip(self.sources, self._rows, strict=True):
            total[rows >= 0] += source.items[rows[rows >= 0]]
        return total

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs and outcome of some patients, in the order asked for."""
        return self._batch(as_rows(indices), self.sources)

    def for_epoch(self, generator: torch.Generator) -> Source:
        """The same patients with the items that one epoch of training reads."""
        return _JoinedEpoch(self, [source.for_epoch(generator) for source in self.sources])

    def _batch(self, rows: Tensor, sources: Sequence[Source]) -> tuple[Inputs, SurvivalOutcome]:
        inputs: dict[str, Tensor] = {}
        for source, known in zip(sources, self._rows[:, rows], strict=True):
            here = known >= 0
            found, _ = source.batch(known[here])
            for name in modalities_of(found):
                inputs |= _spread(found, name, here)
        return inputs, self.outcome[rows]

    def _joined_outcome(self) -> SurvivalOutcome:
        everyone = SurvivalOutcome.concatenate([source.outcome for source in self.sources])
        starts = np.cumsum([0, *(len(source) for source in self.sources[:-1])])
        at = self._rows + torch.from_numpy(starts)[:, None]
        first = torch.where(self._rows >= 0, at, len(everyone)).amin(dim=0)
        for number, source in enumerate(self.sources):
            here = self._rows[number] >= 0
            one, other = everyone[first[here]], everyone[at[number, here]]
            differ = (one.time != other.time) | (one.event != other.event)
            if bool(differ.any()):
                raise DataError(
                    f"all sources must give a patient one outcome; got two for {int(differ.sum())} of the "
                    f"{len(source)} patients of source {number + 1}. Correct the tables."
                )
        return everyone[first]


class _JoinedEpoch:
    """A `JoinedSource` with the items that one epoch reads."""

    def __init__(self, joined: JoinedSource, sources: Sequence[Source]) -> None:
        self.joined, self.sources, self.outcome = joined, sources, joined.outcome

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        return self.joined._batch(as_rows(indices), self.sources)


def _drawn(count: int, most: int, generator: torch.Generator) -> np.ndarray:
    """At most `most` of `count` positions, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(torch.randperm(count, generator=generator)[:most].numpy())


def _spread(found: Inputs, name: str, here: Tensor) -> dict[str, Tensor]:
    """A modality of the rows where `here`, among all rows."""
    value = found[name]
    if count_key(name) in found:
        counts = torch.zeros(len(here), dtype=torch.int64)
        counts[here] = found[count_key(name)]
        return {name: value, count_key(name): counts}
    spread = value.new_zeros((len(here), *value.shape[1:]))
    spread[here] = value
    return {name: spread, present_key(name): here}


def _check_one_table(cohort: Cohort, patient: np.ndarray, first: np.ndarray) -> None:
    for covariate in cohort.covariates:
        column = cohort.table[covariate.name]
        own = column.iloc[first[patient]].reset_index(drop=True)
        differs = (column != own) & ~(column.isna() & own.isna())
        if bool(differs.any()):
            patients = len(set(patient[differs.to_numpy()]))
            raise DataError(
                f"`{covariate.name}` must have one value per patient where patients are the rows; got several for "
                f"{patients} patients. Give each patient one value in the table, or leave the covariate out."
            )
