"""Tables: what a covariate is, reading a file, and outcomes in the shapes that other libraries use."""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from torch import Tensor

from survlens.core.errors import CorruptFileError, DataError, InvalidTypeError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.columns import column_of, parse_events, parse_numbers, value_text
from survlens.data.columns import events_from as events_from

MISSING_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "#N/A", "<NA>", "[Not Available]", "'--")
"""Cells of a text table that count as missing; "None" does not, because it is often a level (no treatment)."""

_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")
_LEADING_ZERO = re.compile(r"0\d+")
_TRUTH = {"true": True, "false": False}
_EVENT_NAMES = frozenset(("event", "events", "status", "died", "dead", "death", "deceased"))


class CovariateKind(Enum):
    """What the values of a covariate are."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    ORDERED = "ordered"


@dataclass(frozen=True, slots=True)
class Covariate:
    """A column that a model may use.

    Attributes:
        name: Its column.
        kind: What its values are.
        levels: The possible values, in order for an ordered covariate; None for a numeric one.
    """

    name: str
    kind: CovariateKind
    levels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.kind is CovariateKind.NUMERIC) != (self.levels is None):
            raise InvalidValueError(
                f"`levels` must be given for a categorical or ordered covariate and for no other; "
                f"got {self.levels} for {self.name!r} ({self.kind.value})."
            )


def read_table(path: str | Path) -> pd.DataFrame:
    """Reads a csv (comma, semicolon or tab) or parquet file.

    Columns of numbers become numbers; identifiers with leading zeros ("007") stay text. In a semicolon file, numbers
    with a decimal comma are understood; in the others a quoted "1,5" stays text, because it may be a thousand.

    Raises:
        DataError: If there is no such file, or it is not a table with unique column names.
        CorruptFileError: If the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"`path` must be a table file; got {path}, which does not exist. Check the path.")
    if path.suffix.lower() in {".parquet", ".pq"}:
        return _read_parquet(path)
    if path.suffix.lower() not in {".csv", ".tsv", ".txt"}:
        raise DataError(f"`path` must end in .csv, .tsv, .txt or .parquet; got {path.name}. Export the table as csv.")
    return _read_text(path)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except Exception as error:
        raise CorruptFileError(f"{path.name} must be a parquet file; got {error}. Write it again.") from error
    return frame.reset_index() if frame.index.name is not None else frame.reset_index(drop=True)


def _read_text(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
        separator = max(",;\t", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or not names:
            raise DataError(
                f"{path.name} must start with a row of unique column names; got "
                f"{'nothing' if not names else value_text(repeated) + ' more than once'}. Rename the columns."
            )
        frame = _read_cells(path, separator)
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path.name} must be UTF-8 text; got other bytes. Save it as 'CSV UTF-8'.") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        raise CorruptFileError(
            f"{path.name} must have as many cells in each row as in its header; got {error}. Mend that row."
        ) from error
    filled = np.flatnonzero(frame.notna().to_numpy().any(axis=1))
    frame = frame.iloc[: filled[-1] + 1 if filled.size else 0]
    return pd.DataFrame({name: _typed(frame.iloc[:, i], separator == ";") for i, name in enumerate(names)})


def _read_cells(path: Path, separator: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path, sep=separator, dtype=str, encoding="utf-8-sig", keep_default_na=False, na_values=list(MISSING_WORDS),
            skipinitialspace=True, index_col=False, skip_blank_lines=False,
        )  # fmt: skip


def _typed(column: pd.Series, decimal_comma: bool) -> pd.Series:
    words = column.dropna().unique()
    if not len(words) or any(_LEADING_ZERO.fullmatch(word) for word in words if word[0] == "0"):
        return column
    try:
        return cast(pd.Series, pd.to_numeric(column))
    except (ValueError, TypeError):
        pass
    truth = {word: _TRUTH.get(word.lower()) for word in words[:7]}
    if len(words) < 7 and None not in truth.values():
        return column.map(truth)
    if decimal_comma and all(_DECIMAL_COMMA.fullmatch(word) for word in words):
        return cast(pd.Series, pd.to_numeric(column.str.replace(",", ".")))
    return column


def outcome_from(y: object, *, unit: str | None = None) -> SurvivalOutcome:
    """An outcome from any of the usual shapes.

    Understood are a `SurvivalOutcome`, a structured array with one boolean and one numeric field (as scikit-survival
    makes them), a tuple `(time, event)`, and a data frame or array of two columns. Which of two columns is the event is
    told by its name (event, status, died, dead, death), or else by its values.

    Args:
        y: The outcome.
        unit: Unit of time; may be left out for a `SurvivalOutcome` only, which knows it.

    Raises:
        DataError: If events are missing or not understood, or it cannot be told which column is the event.
        InvalidValueError: If times are not finite and positive, or units disagree.
        InvalidTypeError: If `y` has none of these shapes.
    """
    if isinstance(y, SurvivalOutcome):
        if unit is not None and unit != y.unit:
            raise InvalidValueError(f"`unit` must be that of `y`, {y.unit!r}; got {unit!r}. Convert times first.")
        return y
    if unit is None:
        raise InvalidValueError("`unit` must name the unit of time; got None. Say for example unit='months'.")
    frame = _two_columns(y)
    column = _event_column(frame)
    other = next(name for name in frame.columns if name != column)
    time, unreadable = parse_numbers(column_of(frame, other))
    wrong = np.flatnonzero(unreadable | ~(time > 0))
    if wrong.size:
        raise InvalidValueError(
            f"time ({other!r}) must be finite and > 0; got {value_text(frame[other].iloc[wrong])} at position "
            f"{wrong[0]} ({wrong.size} such values). Remove these rows, or say what a zero means in your data."
        )
    return SurvivalOutcome.from_arrays(time, events_from(column_of(frame, column), name=str(column)), unit)


def _two_columns(y: object) -> pd.DataFrame:
    if isinstance(y, pd.DataFrame):
        columns = {str(name): y.iloc[:, i].reset_index(drop=True) for i, name in enumerate(y.columns)}
    elif isinstance(y, np.ndarray) and y.dtype.names is not None:
        columns = {name: pd.Series(y[name]) for name in y.dtype.names}
    elif isinstance(y, tuple):
        columns = _from_tuple(y)
    elif isinstance(y, np.ndarray | Tensor | list):
        array = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
        if array.ndim != 2:
            raise InvalidTypeError(f"`y` must have two columns, time and event; got shape {array.shape}.")
        columns = {f"column {i}": pd.Series(array[:, i]) for i in range(array.shape[1])}
    else:
        raise InvalidTypeError(
            f"`y` must be a SurvivalOutcome, (time, event), a structured array or two columns; got {type(y).__name__}."
        )
    if len(columns) != 2:
        raise InvalidTypeError(f"`y` must have two columns, time and event; got {len(columns)}: {list(columns)}.")
    return pd.DataFrame(columns)


def _from_tuple(y: tuple) -> dict[str, pd.Series]:
    if len(y) != 2:
        raise InvalidTypeError(f"`y` must be (time, event); got a tuple of {len(y)}.")
    time, event = (np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part) for part in y)
    if time.ndim != 1 or time.shape != event.shape:
        raise InvalidValueError(
            f"`y` must be (time, event) of one length; got shapes {time.shape} and {event.shape}. Check their rows."
        )
    if time.dtype == bool and event.dtype != bool:
        raise InvalidValueError("`y` must be (time, event); got booleans first. Swap the two.")
    return {"time": pd.Series(time), "event": pd.Series(event)}


def _event_column(frame: pd.DataFrame) -> str:
    names = list(frame.columns)
    named = [name for name in names if set(re.split(r"[^a-z]+", name.lower())) & _EVENT_NAMES]
    flags = [name for name in names if re.search("censor", name.lower())]
    if flags:
        raise DataError(
            f"`y` must hold events (1 = event seen); got the column {flags[0]!r}, which sounds like 1 = censored. "
            f"Pass (time, 1 - censored), or rename the column to 'event' if 1 means event."
        )
    if len(named) == 1:
        return named[0]
    valued = [name for name in names if frame[name].dtype == bool]
    valued = valued or [name for name in names if not np.isnan(parse_events(column_of(frame, name))).any()]
    if len(valued) == 1:
        return valued[0]
    found = "; ".join(f"{name!r} holds {value_text(frame[name])}" for name in names)
    raise DataError(
        f"`y` must show which column is the event, by its name (event, status, died, dead) or by values of 0 and 1; "
        f"got {'both' if valued else 'neither'}: {found}. Pass (time, event), or name the column 'event'."
    )
