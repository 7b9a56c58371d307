"""Radiomics features that PyRadiomics or MIRP wrote into a csv file, as covariates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd

from survlens.core.errors import DataError
from survlens.data.columns import as_text, column_of, is_none, nearest, parse_numbers, row_text, value_text
from survlens.data.table import Covariate, CovariateKind, read_table

_PYRADIOMICS = re.compile(r"[^_]+_(shape|shape2D|firstorder|glcm|glrlm|glszm|gldm|gldzm|ngtdm|ngldm)_[0-9A-Za-z]+")
_MIRP = re.compile(r"(\w+_)?(morph|loc|stat|ivh|ih|cm|rlm|szm|dzm|ngt|ngl)_[\w.-]+")
_DIAGNOSTICS = "diagnostics_"


class RadiomicsWriter(Enum):
    """Which program's names the columns have."""

    PYRADIOMICS = "PyRadiomics"
    MIRP = "MIRP"


@dataclass(frozen=True, slots=True, eq=False)
class RadiomicsColumns:
    """Features of a csv file, and what was left out of it.

    Attributes:
        features: A row for each case, named by its identifier; a column of numbers for each feature, missing as NaN.
        writer: Whose names they are.
        diagnostics: Columns about the extraction (versions, hashes, boxes) that were dropped.
        other: Columns besides features, identifier and diagnostics that were dropped, such as paths.
        missing: Of features with empty cells, how many.
        unnamed: Rows without an identifier, which belong to nobody and were dropped; the first row of cases is 0.
    """

    features: pd.DataFrame
    writer: RadiomicsWriter
    diagnostics: tuple[str, ...]
    other: tuple[str, ...]
    missing: dict[str, int]
    unnamed: tuple[int, ...]

    @property
    def covariates(self) -> tuple[Covariate, ...]:
        """The features as numeric covariates of a cohort."""
        return tuple(Covariate(str(name), CovariateKind.NUMERIC) for name in self.features.columns)

    def describe(self) -> str:
        """One sentence on what was read and what was dropped."""
        left = [f"{len(self.diagnostics)} diagnostic columns dropped"] if self.diagnostics else []
        left += [f"{len(self.other)} other columns dropped ({value_text(self.other)})"] if self.other else []
        left += [f"{len(self.missing)} features with empty cells"] if self.missing else []
        left += [f"{row_text(self.unnamed)} dropped, without identifier"] if self.unnamed else []
        rows, columns = self.features.shape
        return (
            f"{columns:,} {self.writer.value} features of {rows:,} cases" + "".join(f"; {each}" for each in left) + "."
        )


def read_radiomics_csv(path: str | Path, *, identifier: str) -> RadiomicsColumns:
    """Reads a table of features with a row for each case.

    Features are known by their names: PyRadiomics writes `image_class_Feature`, MIRP `family_feature` after the name of
    the filter, if any.

    Args:
        path: A csv, tsv or parquet file.
        identifier: The column that names the case.

    Raises:
        DataError: If the file is no table, lacks the identifier, names a case twice, has no feature, or holds text in
            one.
        CorruptFileError: If the file cannot be read.
    """
    frame = read_table(path)
    names = [str(name) for name in frame.columns]
    if identifier not in names:
        raise DataError(f"`identifier` must be a column of the file; got {identifier!r}. {nearest(identifier, names)}")
    cases = as_text(column_of(frame, identifier))
    nobody = is_none(cases)
    _check_cases(cases, nobody, identifier)
    rest = [name for name in names if name != identifier]
    diagnostics = tuple(name for name in rest if name.startswith(_DIAGNOSTICS))
    candidates = [name for name in rest if name not in set(diagnostics)]
    matching = {
        writer: [name for name in candidates if pattern.fullmatch(name)]
        for writer, pattern in ((RadiomicsWriter.PYRADIOMICS, _PYRADIOMICS), (RadiomicsWriter.MIRP, _MIRP))
    }
    writer = max(matching, key=lambda each: len(matching[each]))
    features = matching[writer]
    if not features:
        raise DataError(
            f"`path` must hold columns of PyRadiomics or MIRP features; got {value_text(candidates)}. "
            "Take the file as the program wrote it, a row for each case."
        )
    numbers = {name: _numbers(frame, name)[~nobody] for name in features}
    missing = {name: int(np.isnan(values).sum()) for name, values in numbers.items()}
    return RadiomicsColumns(
        features=pd.DataFrame(numbers, index=pd.Index(cases[~nobody].astype(str), name=identifier)),
        writer=writer,
        diagnostics=diagnostics,
        other=tuple(name for name in candidates if name not in set(features)),
        missing={name: count for name, count in missing.items() if count},
        unnamed=tuple(int(row) for row in np.flatnonzero(nobody)),
    )


def _check_cases(cases: np.ndarray, nobody: np.ndarray, identifier: str) -> None:
    twice = np.flatnonzero(pd.Series(cases).duplicated() & ~nobody)
    if twice.size:
        raise DataError(
            f"`{identifier}` must name each case once; got {value_text(cases[twice])} again in {row_text(twice)}. "
            "Keep one region for each case, or make the names differ."
        )
    if nobody.all():
        raise DataError(f"`{identifier}` must name the cases; got none. Take the column with the patients.")


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    column = column_of(frame, name)
    numbers, unreadable = parse_numbers(column)
    wrong = np.flatnonzero(unreadable)
    if wrong.size:
        raise DataError(
            f"`{name}` must hold finite numbers; got {value_text(column.iloc[wrong])} in {row_text(wrong)}. "
            "Extract these cases again or remove them."
        )
    return numbers
