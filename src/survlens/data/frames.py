"""The parts of a cohort, column by column, out of a data frame; every refusal names column, rows and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from survlens.core.errors import DataError
from survlens.data.columns import as_text, column_of, events_from, is_none, parse_numbers, row_text, value_text
from survlens.data.raster import ImageReference, RasterReader, Reader
from survlens.data.schema import CohortSchema, ZeroTimes
from survlens.data.table import Covariate, CovariateKind


def numbers_of(frame: pd.DataFrame, column: str, rows: np.ndarray) -> np.ndarray:
    """A column of numbers, NaN where missing; `rows` are the positions of its rows in the file."""
    numbers, unreadable = parse_numbers(column_of(frame, column))
    wrong = np.flatnonzero(unreadable)
    if wrong.size:
        values = column_of(frame, column).iloc[wrong]
        comma = values.astype(str).str.fullmatch(r"\s*[+-]?\d+,\d+\s*").any()
        step = "Write decimals with a point." if comma else "Correct or empty these cells, or list it as categorical."
        raise DataError(f"`{column}` must hold numbers; got {value_text(values)} in {row_text(rows[wrong])}. {step}")
    return numbers


def outcome_columns(frame: pd.DataFrame, schema: CohortSchema) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, events and which rows are kept."""
    rows = np.arange(len(frame))
    time = numbers_of(frame, schema.time, rows)
    missing = np.flatnonzero(np.isnan(time))
    if missing.size:
        raise DataError(
            f"`{schema.time}` must hold a time in every row; got {row_text(missing)} empty. Fill or remove them."
        )
    negative = np.flatnonzero(time < 0)
    if negative.size:
        raise DataError(
            f"`{schema.time}` must be > 0; got {value_text(time[negative])} in {row_text(negative)}. "
            "Check the dates it was computed from."
        )
    zero = time == 0
    if zero.any() and schema.zero_times is ZeroTimes.ERROR:
        raise DataError(
            f"`{schema.time}` must be > 0; got 0 in {row_text(np.flatnonzero(zero))}. Set zero_times to 'drop' "
            "to leave these rows out, or to 'smallest' to give them half of the smallest time."
        )
    if zero.all():
        raise DataError(f"`{schema.time}` must be > 0; got 0 in all {len(zero)} rows. Name the column of the times.")
    event = events_from(column_of(frame, schema.event), name=schema.event, event_values=schema.event_values)
    if schema.zero_times is ZeroTimes.SMALLEST:
        return np.where(zero, time[~zero].min() / 2, time), event, np.ones(len(frame), bool)
    return time, event, ~zero


def optional_outcome(frame: pd.DataFrame, schema: CohortSchema, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Entries, weights and strata of the rows that are kept, by the name that an outcome gives them."""
    found: dict[str, np.ndarray] = {}
    if schema.entry is not None:
        entry = numbers_of(frame, schema.entry, rows)
        found["entry"] = np.where(np.isnan(entry), 0.0, entry)
    if schema.weight is not None:
        found["weight"] = numbers_of(frame, schema.weight, rows)
    if schema.stratum is not None:
        stratum = numbers_of(frame, schema.stratum, rows)
        _refuse_rows(~is_stratum(stratum), "hold whole numbers >= 0", schema.stratum, stratum, rows, NUMBER_STRATA)
        found["stratum"] = stratum.astype(np.int64)
    return found


def check_optional(found: dict[str, np.ndarray], time: np.ndarray, schema: CohortSchema, rows: np.ndarray) -> None:
    """Raises `DataError` where an entry does not come before its time or a weight is not positive."""
    if "entry" in found:
        entry = found["entry"]
        rule = f"be >= 0 and before `{schema.time}`"
        _refuse_rows(~is_entry(entry, time), rule, str(schema.entry), entry, rows, LATE)
    if "weight" in found:
        weight = found["weight"]
        _refuse_rows(~is_weight(weight), "be finite and > 0", str(schema.weight), weight, rows, WEIGHTLESS)


NUMBER_STRATA = "Number the strata 0, 1, 2 ..."
LATE = "Who entered later was never at risk: correct or remove these rows."
WEIGHTLESS = "Remove rows that count nothing."


def is_entry(entry: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Whether observation began at 0 or later, and before it ended."""
    return (entry >= 0) & (entry < time)


def is_weight(weight: np.ndarray) -> np.ndarray:
    """Whether a row counts a finite, positive number of times."""
    return np.isfinite(weight) & (weight > 0)


def is_stratum(stratum: np.ndarray) -> np.ndarray:
    """Whether a number can name a stratum."""
    return (stratum >= 0) & (stratum < 2**31) & (np.floor(stratum) == stratum)


def _refuse_rows(wrong: np.ndarray, rule: str, column: str, values: np.ndarray, rows: np.ndarray, step: str) -> None:
    if wrong.any():
        raise DataError(f"`{column}` must {rule}; got {value_text(values[wrong])} in {row_text(rows[wrong])}. {step}")


def instance_names(frame: pd.DataFrame, schema: CohortSchema, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patients and unique row names."""
    numbers = np.array([str(row + 2) for row in rows], dtype=object)
    patient = numbers if schema.patient is None else _full_text(frame, schema.patient, rows)
    if schema.instance is not None:
        instance = _full_text(frame, schema.instance, rows)
        repeated = np.flatnonzero(pd.Series(instance).duplicated(keep=False))
        if repeated.size:
            raise DataError(
                f"`{schema.instance}` must be different in every row; got {value_text(instance[repeated])} more than "
                f"once ({row_text(rows[repeated])}). Leave `instance` out to have rows numbered."
            )
        return patient, instance
    if len(set(patient)) == len(patient):
        return patient, patient
    count = pd.Series(patient).groupby(patient).cumcount().to_numpy() + 1
    return patient, np.array([f"{name}#{k}" for name, k in zip(patient, count, strict=True)], dtype=object)


def _full_text(frame: pd.DataFrame, column: str, rows: np.ndarray) -> np.ndarray:
    words = as_text(column_of(frame, column))
    empty = np.flatnonzero(is_none(words))
    if empty.size:
        raise DataError(
            f"`{column}` must be filled in every row; got {row_text(rows[empty])} empty. Fill or remove them."
        )
    return words


def covariate_columns(
    frame: pd.DataFrame, schema: CohortSchema, rows: np.ndarray
) -> tuple[pd.DataFrame, tuple[Covariate, ...]]:
    """The covariates as float64 or text, and what they are."""
    columns: dict[str, np.ndarray] = {}
    covariates: list[Covariate] = []
    for name in schema.numeric:
        columns[name] = numbers_of(frame, name, rows)
        covariates.append(Covariate(name, CovariateKind.NUMERIC))
    for name in schema.categorical:
        columns[name] = as_text(column_of(frame, name))
        levels = tuple(sorted({word for word in columns[name] if word is not None}))
        covariates.append(Covariate(name, CovariateKind.CATEGORICAL, levels))
    for name, levels in schema.ordered.items():
        columns[name] = as_text(column_of(frame, name))
        unknown = np.flatnonzero([word is not None and word not in levels for word in columns[name]])
        if unknown.size:
            raise DataError(
                f"`{name}` must be one of {', '.join(levels)}; got {value_text(columns[name][unknown])} in "
                f"{row_text(rows[unknown])}. Correct these cells, or add the level to `ordered`."
            )
        covariates.append(Covariate(name, CovariateKind.ORDERED, levels))
    return pd.DataFrame(columns, index=range(len(frame))), tuple(covariates)


def groups_of(frame: pd.DataFrame, schema: CohortSchema) -> pd.DataFrame:
    """The columns by which rows are split or counted."""
    names = [name for name in (schema.site, schema.date, schema.split, *schema.keep) if name is not None]
    return frame.loc[:, list(dict.fromkeys(names))].reset_index(drop=True)


def resolve(path: str, root: str | Path) -> Path:
    """The file that `path` names below `root`.

    Raises:
        DataError: If it lies outside `root`, by `..`, as an absolute path or through a symbolic link.
    """
    base = Path(root).resolve()
    try:
        found = (base / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"a path must be usable; got {path!r} ({error}). Correct the cell.") from error
    if not found.is_relative_to(base):
        raise DataError(
            f"a path must stay inside the data root; got {path!r}, which leads out of it. Move the file there."
        )
    return found


def references(
    frame: pd.DataFrame, column: str | None, rows: np.ndarray, root: str | Path | None, reader: Reader | None
) -> tuple[ImageReference, ...] | None:
    """Lazy references to the files that a column names."""
    if column is None:
        return None
    if root is None:
        raise DataError(
            f"`root` must be given with the image column {column!r}; got None. Pass the folder of the images."
        )
    chosen: Reader = RasterReader() if reader is None else reader
    found: list[ImageReference] = []
    trouble: list[tuple[int, str]] = []
    for row, path in zip(rows, _full_text(frame, column, rows), strict=True):
        target, problem = locate(path, root, chosen)
        if problem:
            trouble.append((row, problem))
        else:
            found.append(chosen.reference(target, path))
    if trouble:
        raise DataError(
            f"`{column}` must name readable images; got {trouble[0][1]} ({row_text(row for row, _ in trouble)})."
        )
    return tuple(found)


def is_file(path: Path) -> bool:
    """Whether a file stands there; no for a name that no file system takes."""
    try:
        return path.is_file()
    except OSError:
        return False


def locate(path: str, root: str | Path, reader: Reader) -> tuple[Path, str]:
    """The file below `root`, and what is wrong with it ("" where nothing is)."""
    try:
        target = resolve(path, root)
    except DataError as error:
        return Path(), str(error).rstrip(".")
    if not is_file(target):
        return target, f"{path!r}, which does not exist. Check the path and the data root"
    if target.suffix.lower() not in reader.suffixes:
        return target, f"{path!r}, which is none of {', '.join(sorted(reader.suffixes))}. Convert the file"
    return target, ""
