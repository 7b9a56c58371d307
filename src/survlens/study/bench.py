"""What all models of one split share: rows, preprocessing, tensors and the times that are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.bags import BagSource
from survlens.data.cohort import Cohort
from survlens.data.loaders import CohortSource, Indices, Source, SubsetSource, TensorSource, as_rows
from survlens.data.preprocessing import Preprocessing, PreprocessingSettings, Unseen
from survlens.data.splits import Split, Splits, k_fold, validation_part
from survlens.study.covariate_names import chosen
from survlens.study.model_settings import Modality
from survlens.study.settings import DataSettings

MOST_TIMES = 256
"""Curves are kept at the horizons and at no more than this many event times."""


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """One split of a cohort, ready for models.

    Attributes:
        cohort: All rows.
        split: Rows of training, validation and test.
        fold: Number of the split, from 1.
        preprocessing: Fitted on training and validation rows.
        table: Features of all rows; no columns where there are no covariates.
        sources: Rows of the whole cohort by what a model looks at.
        times: Times at which curves are kept.
        fingerprint: Hash of the training rows.
        kept_bags: Rows of patients with several images that were asked for before.
    """

    cohort: Cohort
    split: Split
    fold: int
    preprocessing: Preprocessing
    table: Tensor
    sources: Mapping[frozenset[Modality], Source]
    times: np.ndarray
    fingerprint: str
    kept_bags: dict[object, BagSource] = field(default_factory=dict)

    @staticmethod
    def of(cohort: Cohort, split: Split, fold: int, data: DataSettings, times: np.ndarray) -> Bench:
        """Fits the preprocessing of one split and transforms the table of all rows.

        A value that cannot be used stops the run here, before anything of this split is trained.

        Raises:
            DataError: If a row holds a value that training rows do not have.
        """
        return Bench._of(cohort, split, fold, preprocessing_settings(data), times)

    def inner(self, folds: int, seed: int) -> Iterator[Bench]:
        """Benches of the inner folds of the rows that may be learnt from, by patient; no test row is in any of them.

        Each has a part of its training patients set apart to tell when to stop, as large a share as here. A category
        that only held-out patients have counts as missing.

        Args:
            folds: Number of inner folds.
            seed: Seed of the folds.

        Raises:
            DataError: If there are fewer patients than folds, or fewer than two patients with an event.
        """
        learnt = self.cohort[fitted_rows(self.split)]
        set_apart = 0 if self.split.validation is None else len(np.unique(self.cohort.patient[self.split.validation]))
        fraction = set_apart / learnt.n_patients
        settings = replace(self.preprocessing.settings, unseen=Unseen.AS_MISSING)
        times = np.array([float(learnt.outcome.time.max())])
        for at, split in enumerate(k_fold(learnt, folds=folds, seed=seed)):
            if fraction:
                train, validation = validation_part(learnt, split.train, fraction=fraction, seed=seed + 2000 + at)
                split = replace(split, train=train, validation=validation)
            yield Bench._of(learnt, split, self.fold, settings, times)

    @staticmethod
    def _of(cohort: Cohort, split: Split, fold: int, settings: PreprocessingSettings, times: np.ndarray) -> Bench:
        learnt = cohort[fitted_rows(split)]
        preprocessing = Preprocessing.fit(learnt, settings)
        table = preprocessing.transform_table(cohort.table)
        pictures = None if preprocessing.image is None else CohortSource(cohort, replace(preprocessing, columns=()))
        sources = _sources(cohort, table, pictures)
        return Bench(cohort, split, fold, preprocessing, table, sources, times, learnt.fingerprint())

    def taking(self, patterns: tuple[str, ...] | None) -> Bench:
        """The same split for a model that takes some of the covariates.

        Args:
            patterns: Names of covariates, or patterns of them; None for all.
        """
        if patterns is None:
            return self
        known = self.preprocessing.columns
        names = chosen(patterns, [column.name for column in known])
        kept = replace(self.preprocessing, columns=tuple(column for column in known if column.name in names))
        features = [self.preprocessing.feature_names.index(name) for name in kept.feature_names]
        table = self.table[:, features]
        sources = _sources(self.cohort, table, self.sources.get(frozenset({Modality.IMAGE})))
        return replace(self, preprocessing=kept, table=table, sources=sources)

    def bags(self, inputs: tuple[Modality, ...], max_items: int | None) -> BagSource:
        """Patients of the cohort with all their images; at most `max_items` of them are read in an epoch.

        Raises:
            DataError: If the model takes a covariate that differs between rows of a patient.
        """
        columns = self.preprocessing.columns if Modality.TABLE in inputs else ()
        names = [column.name for column in columns]
        key = (tuple(names), max_items)
        if key not in self.kept_bags:
            covariates = tuple(each for each in self.cohort.covariates if each.name in names)
            table = self.cohort.table[[each.name for each in covariates]]
            cohort = replace(self.cohort, table=table, covariates=covariates)
            preprocessing = replace(self.preprocessing, columns=columns)
            self.kept_bags[key] = BagSource(cohort, preprocessing, max_items=max_items)
        return self.kept_bags[key]

    @property
    def rows(self) -> np.ndarray:
        """Rows of all parts of the split: training, validation, test."""
        return np.concatenate(list(self.split.parts().values()))

    @property
    def parts(self) -> np.ndarray:
        """Name of the part of each of `rows`."""
        return np.concatenate([np.full(len(rows), name) for name, rows in self.split.parts().items()])

    def subset(self, inputs: tuple[Modality, ...], rows: np.ndarray) -> SubsetSource:
        """Some rows as a source of what a model looks at."""
        return SubsetSource(self.sources[frozenset(inputs)], rows)

    def one_per_patient(self, rows: np.ndarray) -> np.ndarray:
        """The first of `rows` of each patient: a patient with many images counts once."""
        return rows[np.sort(np.unique(self.cohort.patient[rows], return_index=True)[1])]


class WithTable:
    """Pictures of another source beside a table that is in memory."""

    def __init__(self, pictures: Source, table: Tensor):
        self.pictures, self.table = pictures, table
        self.outcome = pictures.outcome

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Pictures, features and outcome of some rows."""
        inputs, outcome = self.pictures.batch(indices)
        return {**inputs, "table": self.table[as_rows(indices)]}, outcome


def _sources(cohort: Cohort, table: Tensor, pictures: Source | None) -> dict[frozenset[Modality], Source]:
    """Rows of a cohort by what a model looks at."""
    sources: dict[frozenset[Modality], Source] = {}
    if table.shape[1]:
        sources[frozenset({Modality.TABLE})] = TensorSource({"table": table}, cohort.outcome)
    if pictures is not None:
        sources[frozenset({Modality.IMAGE})] = pictures
        sources[frozenset({Modality.IMAGE, Modality.TABLE})] = WithTable(pictures, table)
    return sources


def fitted_rows(split: Split) -> np.ndarray:
    """Rows that may be learnt from: training and validation."""
    return split.train if split.validation is None else np.concatenate([split.train, split.validation])


def preprocessing_settings(data: DataSettings) -> PreprocessingSettings:
    """How a study's data become tensors."""
    return PreprocessingSettings(
        image_size=data.image_size if data.image is not None else None,
        channels=data.channels,
        image_scaling=data.image_scaling,
        unseen=data.unseen,
        mask_channel=data.mask is not None and not data.has_scans,
    )


def check_tables(cohort: Cohort, splits: Splits, data: DataSettings) -> None:
    """Stops at a value of any split that its training rows do not have, before hours are spent on the splits before it.

    Raises:
        DataError: If there is one.
    """
    plain = replace(cohort, images=None, masks=None)
    settings = replace(preprocessing_settings(data), mask_channel=False)
    for split in splits if cohort.covariates else ():
        Preprocessing.fit(plain[fitted_rows(split)], settings).transform_table(cohort.table)


def curve_times(outcome: SurvivalOutcome, horizons: tuple[float, ...]) -> np.ndarray:
    """Times at which curves are kept: the horizons and the event times, thinned by quantiles where they are many."""
    time, event = outcome.numpy()
    events = np.unique(time[event > 0])
    if len(events) > MOST_TIMES:
        events = np.unique(np.quantile(events, np.linspace(0, 1, MOST_TIMES), method="nearest"))
    last = float(time.max())
    return np.unique(np.concatenate([events, [each for each in horizons if each <= last], [last]]))


def default_horizons(outcome: SurvivalOutcome) -> tuple[float, ...]:
    """Quartiles of the event times, to two significant digits."""
    time, event = outcome.numpy()
    quartiles = np.quantile(time[event > 0], [0.25, 0.5, 0.75])
    rounded = sorted({float(f"{value:.2g}") for value in quartiles})
    last = float(time.max())
    return tuple(value for value in rounded if 0 < value < last)
