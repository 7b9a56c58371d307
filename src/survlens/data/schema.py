"""What the columns of a table are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import pandas as pd

from survlens.core.errors import DataError, UsageError
from survlens.data.columns import nearest
from survlens.data.scans import ScanSettings

_SINGLE = ("time", "event", "patient", "image", "scan", "mask", "structure", "instance", "entry", "weight")


class ZeroTimes(Enum):
    """What happens to rows whose time is 0."""

    ERROR = "error"
    DROP = "drop"
    SMALLEST = "smallest"


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSchema:
    """Says which column of a table is what.

    Attributes:
        time: Column of the time from origin to event or end of follow-up.
        event: Column that says whether the event was seen.
        unit: Unit of `time`.
        patient: Column of the patient; each row is a patient of its own where it is None.
        image: Column of image paths.
        mask: Column of mask paths; of scans: NIfTI, RTSTRUCT or DICOM-SEG files, empty where a scan has none.
        scan: Column of paths of scans: NIfTI files, or folders with a DICOM series.
        structure: Column that names the structure of the mask, or the labels of a NIfTI mask.
        scan_folder: Folder of scans named by their patients, in place of the columns `scan` and `mask`.
        scans: How scans are prepared; as they are where None.
        scan_cache: Folder, from the data root, where prepared scans are kept; None for nowhere.
        instance: Column of unique row names; made from the patient where it is None.
        entry: Column of the time at which observation began (delayed entry); empty cells are 0.
        weight: Column of how often a patient counts, > 0.
        stratum: Column of the stratum, a whole number >= 0; risk sets stay within a stratum.
        numeric: Covariates that are numbers, also 0 and 1.
        categorical: Covariates that are names.
        ordered: Covariates with ordered levels, lowest first.
        site: Column of the hospital or scanner.
        date: Column of the date of entry (YYYY-MM-DD, or a year).
        split: Column that says to which part of a given split a row belongs.
        keep: Further columns to keep for subgroups.
        event_values: What the values of `event` mean, for example {"relapse": 1, "none": 0}.
        zero_times: What happens to rows whose time is 0; SMALLEST sets half of the smallest positive time.

    Raises:
        UsageError: If a column has two roles, or a required name is empty.
    """

    time: str
    event: str
    unit: str
    patient: str | None = None
    image: str | None = None
    mask: str | None = None
    scan: str | None = None
    structure: str | None = None
    scan_folder: str | None = None
    scans: ScanSettings | None = None
    scan_cache: str | None = None
    instance: str | None = None
    entry: str | None = None
    weight: str | None = None
    stratum: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    ordered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    site: str | None = None
    date: str | None = None
    split: str | None = None
    keep: tuple[str, ...] = ()
    event_values: Mapping[str | int | bool, int] | None = None
    zero_times: ZeroTimes = ZeroTimes.ERROR

    def __post_init__(self) -> None:
        for name in ("numeric", "categorical", "keep"):
            if isinstance(getattr(self, name), str):
                raise UsageError(
                    f"`{name}` must be a tuple of column names; got {getattr(self, name)!r}. Write it in brackets."
                )
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "ordered", {name: tuple(map(str, levels)) for name, levels in self.ordered.items()})
        for name in ("time", "event", "unit"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"`{name}` must be given; got {getattr(self, name)!r}.")
        self._check_roles()
        self._check_scans()
        for name, levels in self.ordered.items():
            if len(levels) < 2 or len(set(levels)) < len(levels):
                raise UsageError(f"`ordered` must list two or more different levels; got {levels} for {name!r}.")
        if self.event_values is not None and not set(self.event_values.values()) <= {0, 1}:
            raise UsageError(f"`event_values` must map to 0 (censored) or 1 (event); got {dict(self.event_values)}.")

    def _check_roles(self) -> None:
        outcome = [self.time, self.event, self.entry, self.weight]
        single = [*outcome, self.patient, self.image, self.scan, self.mask, self.structure, self.instance]
        exclusive = [name for name in single if name is not None] + list(self.covariates)
        twice = sorted({name for name in exclusive if exclusive.count(name) > 1} - {self._shared_name()})
        if twice:
            raise UsageError(f"each column must have one role; got {', '.join(map(repr, twice))} in two. Name it once.")

    def _check_scans(self) -> None:
        given = [name for name in ("image", "scan", "scan_folder") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"`{given[1]}` must be left out beside `{given[0]}`; got both. Give one of them.")
        if self.scan_folder is not None and (self.patient is None or self.mask is not None):
            raise UsageError(
                "`scan_folder` must stand beside `patient`, whose names it has, and without `mask`, which it holds; "
                f"got patient {self.patient!r} and mask {self.mask!r}."
            )
        if not self.has_scans and (self.scans is not None or self.structure is not None):
            raise UsageError("`scans` and `structure` must stand beside `scan` or `scan_folder`; got neither.")

    @property
    def has_scans(self) -> bool:
        """Whether rows have scans."""
        return self.scan is not None or self.scan_folder is not None

    def _shared_name(self) -> str | None:
        """One row per patient: patient and instance may be one column."""
        return self.patient if self.patient == self.instance and self.patient not in self.covariates else None

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of all covariates."""
        return (*self.numeric, *self.categorical, *self.ordered)

    @property
    def columns(self) -> dict[str, str]:
        """Every column that is used, and the setting that names it."""
        single = (*_SINGLE, "stratum", "site", "date", "split")
        named = {getattr(self, role): role for role in single if getattr(self, role) is not None}
        several = {name: role for role in ("numeric", "categorical", "ordered", "keep") for name in getattr(self, role)}
        return several | named

    def missing(self, frame: pd.DataFrame) -> dict[str, str]:
        """Columns that `frame` lacks, and the setting that names each."""
        return {name: role for name, role in self.columns.items() if name not in frame.columns}

    def check(self, frame: pd.DataFrame) -> None:
        """Raises `DataError` where a column is missing or there are no rows."""
        for name, role in self.missing(frame).items():
            raise DataError(
                f"`{role}` must name a column of the table; got {name!r}, which is not there. "
                f"{nearest(name, [str(column) for column in frame.columns])}"
            )
        if not frame.columns.is_unique:
            repeated = sorted(set(frame.columns[frame.columns.duplicated()].astype(str)))
            raise DataError(f"the table must have unique column names; got {repeated} more than once. Rename them.")
        if len(frame) == 0:
            raise DataError("the table must have rows; got none below its header. Check the file.")

    @staticmethod
    def inferred(frame: pd.DataFrame) -> CohortSchema:
        """A schema whose covariates are all columns of `frame`, by their types."""
        kinds = frame.dtypes.to_dict()
        ordered = {
            name: tuple(map(str, kind.categories))
            for name, kind in kinds.items()
            if isinstance(kind, pd.CategoricalDtype) and kind.ordered
        }
        numeric = tuple(name for name, kind in kinds.items() if pd.api.types.is_numeric_dtype(kind))
        categorical = tuple(name for name in kinds if name not in ordered and name not in numeric)
        return CohortSchema(
            time="\0time", event="\0event", unit="-", numeric=numeric, categorical=categorical, ordered=ordered
        )
