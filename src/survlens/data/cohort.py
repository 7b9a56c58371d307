"""A cohort: the rows of a table with their patients, outcomes, covariates and images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from survlens.core.errors import DataError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.frames import (
    check_optional,
    covariate_columns,
    groups_of,
    instance_names,
    optional_outcome,
    outcome_columns,
    references,
)
from survlens.data.raster import ArrayImage, ImageReference, Reader
from survlens.data.scan_rows import ScanImage, scan_rows
from survlens.data.schema import CohortSchema as CohortSchema
from survlens.data.schema import ZeroTimes as ZeroTimes
from survlens.data.table import Covariate, CovariateKind, outcome_from, read_table


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cohort:
    """Instances (one row per image, or per patient) with what is known of them.

    Attributes:
        instance: Unique name of each row.
        patient: The patient each row belongs to; all rows of a patient have one outcome.
        outcome: What was observed.
        table: The covariates, one column each: float64 with NaN, or text with None.
        covariates: What the columns of `table` are.
        images: One reference per row, all to pictures or all to scans; or None.
        masks: One reference per row, or None.
        groups: Further columns by which rows are split or counted: site, date, split and the columns kept.

    Raises:
        DataError: If names are not unique, lengths differ, or one patient has two outcomes.
    """

    instance: np.ndarray
    patient: np.ndarray
    outcome: SurvivalOutcome
    table: pd.DataFrame
    covariates: tuple[Covariate, ...]
    images: tuple[ImageReference | ScanImage, ...] | None
    masks: tuple[ImageReference, ...] | None
    groups: pd.DataFrame

    def __post_init__(self) -> None:
        sizes = {
            name: len(getattr(self, name))
            for name in ("instance", "patient", "outcome", "table", "images", "masks", "groups")
            if getattr(self, name) is not None
        }
        if len(set(sizes.values())) > 1:
            raise DataError(f"the parts of a cohort must have one length; got {sizes}. Check that their rows match.")
        if tuple(self.table.columns) != tuple(covariate.name for covariate in self.covariates):
            raise DataError(f"`covariates` must name the columns of `table`, {list(self.table.columns)}; got others.")
        if len(np.unique(self.instance)) < len(self.instance):
            raise DataError("`instance` must be unique; got repeated names. Leave it out to have rows numbered.")
        one_outcome_per_patient(self.patient, self.outcome)

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, schema: CohortSchema, *, root: str | Path | None = None, reader: Reader | None = None
    ) -> Cohort:
        """Builds a cohort from a data frame.

        Args:
            frame: One row per image, or per patient.
            schema: What its columns are.
            root: Folder that image paths start from and may not leave.
            reader: What reads the images; PNG, JPEG and TIFF by default.

        Raises:
            DataError: If the table cannot be used as it is; the message names column, rows and what to do.
        """
        schema.check(frame)
        time, event, keep = outcome_columns(frame, schema)
        frame = frame.iloc[keep].reset_index(drop=True)
        rows = np.flatnonzero(keep)
        patient, instance = instance_names(frame, schema, rows)
        table, covariates = covariate_columns(frame, schema, rows)
        optional = optional_outcome(frame, schema, rows)
        check_optional(optional, time[keep], schema, rows)
        outcome = SurvivalOutcome.from_arrays(time[keep], event[keep], schema.unit, **optional)
        groups = groups_of(frame, schema)
        if not schema.has_scans:
            images = references(frame, schema.image, rows, root, reader)
            masks = references(frame, schema.mask, rows, root, reader)
            return cls(instance, patient, outcome, table, covariates, images, masks, groups)
        places, scans = scan_rows(frame, schema, rows, root)
        if schema.scans is not None and schema.scans.slices > 1:
            names = [f"{instance[row]}/{scan.rank + 1}" for row, scan in zip(places, scans, strict=True)]
            instance = np.array(names, dtype=object)
        table, groups = (part.iloc[places].reset_index(drop=True) for part in (table, groups))
        return cls(instance, patient[places], outcome[places], table, covariates, scans, None, groups)

    @classmethod
    def from_csv(cls, path: str | Path, schema: CohortSchema, *, root: str | Path | None = None) -> Cohort:
        """Builds a cohort from a csv file; image paths start from its folder, or from `root`."""
        return cls.from_frame(read_table(path), schema, root=Path(path).parent if root is None else root)

    @classmethod
    def from_parquet(cls, path: str | Path, schema: CohortSchema, *, root: str | Path | None = None) -> Cohort:
        """Builds a cohort from a parquet file; image paths start from its folder, or from `root`."""
        return cls.from_csv(path, schema, root=root)

    @classmethod
    def from_arrays(
        cls,
        y: object,
        *,
        unit: str | None = None,
        table: pd.DataFrame | np.ndarray | None = None,
        images: np.ndarray | None = None,
        patient: Sequence[object] | np.ndarray | None = None,
    ) -> Cohort:
        """Builds a cohort from arrays in memory.

        Args:
            y: The outcome, in any shape that `outcome_from` takes.
            unit: Unit of time.
            table: Covariates; numbers are numeric, text is categorical, an ordered pandas category is ordered.
            images: (instance, height, width) or (instance, channel, height, width), as `ArrayImage` takes them.
            patient: Patient of each row; every row is a patient of its own by default.
        """
        outcome = outcome_from(y, unit=unit)
        n = len(outcome)
        frame = pd.DataFrame(index=range(n)) if table is None else _as_frame(table)
        if images is not None and images.ndim not in (3, 4):
            raise InvalidValueError(
                f"`images` must be (instance, height, width) or (instance, channel, height, width); got {images.shape}."
            )
        if len(frame) != n or (images is not None and len(images) != n) or (patient is not None and len(patient) != n):
            sizes = {"y": n, "table": len(frame), "images": images, "patient": patient}
            counted = {
                name: part if isinstance(part, int) else len(part) for name, part in sizes.items() if part is not None
            }
            raise DataError(f"the arrays of a cohort must have one length; got {counted}. Check that their rows match.")
        typed, covariates = covariate_columns(frame, CohortSchema.inferred(frame), np.arange(n))
        names = np.array([str(i) for i in range(n)], dtype=object)
        lazy = None if images is None else tuple(ArrayImage(images[i], f"image {i}") for i in range(n))
        owner = names if patient is None else np.array([str(value) for value in patient], dtype=object)
        return cls(names, owner, outcome, typed, covariates, lazy, None, pd.DataFrame(index=range(n)))

    def __repr__(self) -> str:
        """Counts alone: the names of patients belong in no log."""
        parts = [f"{len(self)} instances", f"{self.n_patients} patients", f"{len(self.covariates)} covariates"]
        return f"<Cohort: {', '.join(parts)}, {'no images' if self.images is None else 'images'}>"

    def __len__(self) -> int:
        return len(self.outcome)

    def __getitem__(self, index: int | slice | np.ndarray | torch.Tensor | Sequence[int]) -> Cohort:
        rows = rows_at(index, len(self))
        return Cohort(
            self.instance[rows],
            self.patient[rows],
            self.outcome[rows],
            self.table.iloc[rows].reset_index(drop=True),
            self.covariates,
            None if self.images is None else tuple(self.images[i] for i in rows),
            None if self.masks is None else tuple(self.masks[i] for i in rows),
            self.groups.iloc[rows].reset_index(drop=True),
        )

    @property
    def n_patients(self) -> int:
        """Number of different patients."""
        return len(np.unique(self.patient))

    def per_patient(self) -> np.ndarray:
        """Index of the first row of each patient, in their order in the cohort."""
        return np.sort(np.unique(self.patient, return_index=True)[1])

    def fingerprint(self) -> str:
        """SHA-256 of everything a model can learn from, including the content of the images.

        Names are not part of it, only which rows belong together, so no patient can be guessed from it.
        """
        digest = hashlib.sha256(self.outcome.unit.encode())
        for array in (*self.outcome.numpy(), *optional_columns(self.outcome).values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(pd.factorize(self.patient)[0].astype(np.int64).tobytes())
        for covariate in self.covariates:
            digest.update(f"{covariate.name}\0{covariate.kind.value}\0{covariate.levels}\0".encode())
            digest.update("\0".join(map(repr, self.table[covariate.name].tolist())).encode())
        for reference in (*(self.images or ()), *(self.masks or ())):
            digest.update(reference.identity.encode())
        return digest.hexdigest()


def rows_at(index: int | slice | np.ndarray | torch.Tensor | Sequence[int], n: int) -> np.ndarray:
    """Positions that an index, a slice, a mask or a list of positions picks out of `n`."""
    if isinstance(index, slice):
        return np.arange(n)[index]
    chosen = np.asarray(index)
    return np.atleast_1d(np.arange(n)[chosen if chosen.size else chosen.astype(np.int64)])


def _as_frame(table: pd.DataFrame | np.ndarray) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        names = [str(name) for name in table.columns]
        if len(set(names)) < len(names):
            raise DataError(f"`table` must have unique column names; got {names}. Rename the repeated ones.")
        return table.set_axis(names, axis=1).reset_index(drop=True)
    array = np.asarray(table)
    if array.ndim != 2:
        raise InvalidValueError(f"`table` must have rows and columns; got shape {array.shape}.")
    return pd.DataFrame(array, columns=pd.Index([f"x{i}" for i in range(array.shape[1])]))


def optional_columns(outcome: SurvivalOutcome) -> dict[str, np.ndarray]:
    """Entries, weights and strata of an outcome as arrays, by name; only those that it has."""
    named = {"entry": outcome.entry, "weight": outcome.weight, "stratum": outcome.stratum}
    return {name: column.numpy() for name, column in named.items() if column is not None}


def one_outcome_per_patient(patient: np.ndarray, outcome: SurvivalOutcome) -> None:
    """Raises `DataError` where rows of one patient disagree in time, event, entry, weight or stratum."""
    time, event = outcome.numpy()
    codes, names = pd.factorize(patient)
    first = np.unique(codes, return_index=True)[1]
    columns = (time, event, *optional_columns(outcome).values())
    differs = np.logical_or.reduce([column != column[first][codes] for column in columns]) if len(codes) else codes > 0
    if differs.any():
        shown = list(dict.fromkeys(names[codes[differs]]))
        raise DataError(
            f"all rows of one patient must have one outcome; got two for {len(shown)} patients, such as "
            f"{', '.join(map(repr, shown[:3]))}. Correct the table, or give the rows patient names of their own."
        )


def concatenate(first: Cohort, second: Cohort) -> Cohort:
    """Rows of `first`, then of `second`; names that occur in both get a number.

    Raises:
        DataError: If units, covariates or images differ in kind.
    """
    kinds = [[(covariate.name, covariate.kind) for covariate in cohort.covariates] for cohort in (first, second)]
    for what, one, other in (
        ("unit", first.outcome.unit, second.outcome.unit),
        ("covariates", *([f"{name} ({kind.value})" for name, kind in part] for part in kinds)),
        ("images", first.images is not None, second.images is not None),
        ("masks", first.masks is not None, second.masks is not None),
    ):
        if one != other:
            raise DataError(f"two cohorts must agree in `{what}` to be joined; got {one} and {other}. Load both alike.")
    outcome = SurvivalOutcome.concatenate([first.outcome, second.outcome])
    instance = np.concatenate([first.instance, second.instance])
    if len(set(instance)) < len(instance):
        instance = np.array([f"{name}/{k}" for k, part in enumerate((first, second)) for name in part.instance], object)
    return Cohort(
        instance,
        np.concatenate([first.patient, second.patient]),
        outcome,
        pd.concat([first.table, second.table], ignore_index=True),
        tuple(map(_joined, first.covariates, second.covariates)),
        None if first.images is None else first.images + (second.images or ()),
        None if first.masks is None else first.masks + (second.masks or ()),
        pd.concat([first.groups, second.groups], ignore_index=True),
    )


def _joined(first: Covariate, second: Covariate) -> Covariate:
    if first.levels == second.levels:
        return first
    if first.kind is CovariateKind.ORDERED:
        raise DataError(f"`{first.name}` must have one order of levels; got {first.levels} and {second.levels}.")
    return Covariate(first.name, first.kind, tuple(sorted({*(first.levels or ()), *(second.levels or ())})))
