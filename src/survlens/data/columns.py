"""From the raw values of one column to numbers, text or events, and the words that name rows and values in messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from survlens.core.errors import DataError, InvalidValueError

_EVENT_WORDS = {
    **dict.fromkeys(("1", "yes", "event", "dead", "died", "death", "deceased", "1:deceased"), 1),
    **dict.fromkeys(("0", "no", "censored", "alive", "living", "0:living"), 0),
}


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """One column of a frame."""
    return cast(pd.Series, frame[name])


def is_none(words: np.ndarray) -> np.ndarray:
    """Where text that `as_text` gave is missing."""
    return np.array([word is None for word in words], dtype=bool)


def row_text(positions: Iterable[int]) -> str:
    """Names rows as the user sees them in the file, where the header is row 1."""
    rows = [int(position) + 2 for position in positions]
    shown = ", ".join(str(row) for row in rows[:5])
    more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


def value_text(values: Iterable[object]) -> str:
    """The first distinct values, for a message."""
    distinct = list(dict.fromkeys(str(value) if isinstance(value, int | float) else repr(value) for value in values))
    return ", ".join(distinct[:5]) + (", ..." if len(distinct) > 5 else "")


def nearest(name: str, names: Sequence[str]) -> str:
    """A sentence that offers the most similar name, or lists the first names."""
    close = difflib.get_close_matches(name.lower(), [other.lower() for other in names], n=1)
    if close:
        return f"Did you mean {next(other for other in names if other.lower() == close[0])!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"Its columns are: {shown}."


def parse_numbers(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column, NaN where missing, and which values are neither a finite number nor missing."""
    missing = values.isna().to_numpy()
    if values.dtype == object and values.isin([True, False]).any():
        values = values.map(lambda value: float(value) if isinstance(value, bool | np.bool_) else value)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if values.dtype.kind in "mM":
        return np.full(len(values), np.nan), ~missing
    coerced = cast(pd.Series, pd.to_numeric(values, errors="coerce"))
    numbers = coerced.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    unreadable = ~missing & ~np.isfinite(numbers)
    return np.where(unreadable, np.nan, numbers), unreadable


def as_text(values: pd.Series) -> np.ndarray:
    """Values as stripped text (whole floats without ".0"), None where missing."""

    def word(value: object) -> str | None:
        if isinstance(value, float | np.floating) and float(value).is_integer():
            return str(int(value))
        return str(value).strip()

    codes, distinct = pd.factorize(values.astype(object), use_na_sentinel=True)
    words = np.array([*(word(value) for value in distinct), None], dtype=object)
    found = words[codes]
    found[np.equal(found, "")] = None
    return found


def parse_events(values: pd.Series, event_values: Mapping[str | int | bool, int] | None = None) -> np.ndarray:
    """Events of a column as floats: 1 event, 0 censored, NaN missing or not understood."""
    table = _EVENT_WORDS if event_values is None else {_key(name): code for name, code in event_values.items()}
    words = as_text(values)
    codes, distinct = pd.factorize(words, use_na_sentinel=True)
    known = np.array([*(table.get(_key(word), np.nan) for word in distinct), np.nan], dtype=np.float64)
    return known[codes]


def _key(value: object) -> str:
    word = str(value).strip().lower()
    return {"true": "1", "false": "0"}.get(word, word)


def events_from(
    values: Sequence[object] | np.ndarray | pd.Series,
    *,
    name: str,
    event_values: Mapping[str | int | bool, int] | None = None,
) -> np.ndarray:
    """Events as integers: 1 where an event was seen, 0 where the row was censored.

    Booleans, 0 and 1 (also 0.0 and 1.0, as tables with gaps store them) and a few plain words (dead, alive, deceased,
    living, yes, no, event, censored) are understood; anything else needs `event_values`.

    Args:
        values: The column.
        name: Its name, for the message.
        event_values: What each value means, for example {"relapse": 1, "none": 0}; case does not matter.

    Raises:
        DataError: If a value is missing or not understood.
        InvalidValueError: If `event_values` maps to anything but 0 and 1.
    """
    if event_values is not None and not set(event_values.values()) <= {0, 1}:
        raise InvalidValueError(f"`event_values` must map to 0 (censored) or 1 (event); got {dict(event_values)}.")
    column = pd.Series(np.asarray(values)) if not isinstance(values, pd.Series) else values
    codes = parse_events(column, event_values)
    wrong = np.flatnonzero(np.isnan(codes))
    if wrong.size:
        raise DataError(_event_message(column, wrong, name, event_values))
    return codes.astype(np.int64)


def _event_message(column: pd.Series, wrong: np.ndarray, name: str, event_values: Mapping | None) -> str:
    missing = column.isna().to_numpy()[wrong]
    if missing.all():
        return f"`{name}` must hold an event in every row; got {row_text(wrong)} empty. Remove or fill them."
    bad = column.iloc[wrong[~missing]]
    if event_values is not None:
        rule, step = f"one of {value_text(event_values)} (event_values)", "Add the value to event_values."
    elif set(as_text(column.dropna())) == {"1", "2"}:
        rule, step = "0 or 1", "If 2 means dead and 1 alive, as in R, pass event_values={1: 0, 2: 1}."
    else:
        rule = "0 or 1, true or false, dead or alive"
        step = (
            f'Say what they mean: event_values={{"{bad.iloc[0]}": 1, ...}}. For several causes use '
            "SurvivalOutcome.from_arrays(time, event, unit)."
        )
    return f"`{name}` must be {rule}; got {value_text(bad)} in {row_text(wrong[~missing])}. {step}"
