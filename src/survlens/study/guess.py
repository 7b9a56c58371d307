"""Guesses which column of a table is what, for a study file that a person will read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from survlens.data.columns import column_of, parse_events, parse_numbers

_TIME = r"(follow.?up|surv|overall|^os|^pfs|^dfs|^rfs|duration|tte|time|^(days|months|years)$)"
_EVENT = r"(died|dead|death|deceased|event|status|vital|relapse|recurrence)"
_PATIENT = r"(patient|subject|case|person|^pid$|^id$|mrn)"
_SITE = r"(^site|hospital|cent(er|re)|institution|scanner)"
_DATE = r"(date|^year)"
_IMAGE = r".+\.(png|jpe?g|tiff?)"
_UNITS = {"days": r"day", "months": r"month", "years": r"year|yrs", "weeks": r"week"}
_MOST_LEVELS = 20


@dataclass(slots=True)
class GuessedColumns:
    """What each column seems to be; None where nothing fits.

    Attributes:
        time: Follow-up time.
        event: Event.
        unit: Unit of `time`, read from its name.
        patient: Patient.
        image: Image paths.
        mask: Mask paths.
        site: Hospital.
        date: Date of inclusion.
        numeric: Numeric covariates.
        categorical: Categorical covariates.
        left_out: Columns that are none of these.
    """

    time: str | None = None
    event: str | None = None
    unit: str | None = None
    patient: str | None = None
    image: str | None = None
    mask: str | None = None
    site: str | None = None
    date: str | None = None
    numeric: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def guess_columns(frame: pd.DataFrame) -> GuessedColumns:
    """Guesses from names and values; every guess has to be looked at by a person."""
    free = [str(name) for name in frame.columns]
    guess = GuessedColumns()
    guess.mask = _take(free, frame, "mask|seg", _is_image)
    guess.image = _take(free, frame, ".", _is_image)
    guess.patient = _take(free, frame, _PATIENT, _is_name)
    guess.event = _take(free, frame, _EVENT, _is_event)
    guess.time = _take(free, frame, _TIME, _is_time)
    guess.site = _take(free, frame, _SITE, _is_level)
    guess.date = _take(free, frame, _DATE, _is_date)
    guess.unit = next((unit for unit, pattern in _UNITS.items() if re.search(pattern, guess.time or "", re.I)), None)
    for name in free:
        if guess.event is None and re.search(_EVENT, name, re.I) and _is_level(column_of(frame, name)):
            guess.left_out.append(name)  # an outcome in codes that the reader must name; never a covariate
        elif _is_number(column_of(frame, name)):
            guess.numeric.append(name)
        elif _is_level(column_of(frame, name)):
            guess.categorical.append(name)
        else:
            guess.left_out.append(name)
    return guess


def _take(free: list[str], frame: pd.DataFrame, pattern: str, fits: Callable[[pd.Series], bool]) -> str | None:
    """Removes and returns the first column whose name and values fit."""
    for name in free:
        if re.search(pattern, name, re.I) and fits(column_of(frame, name)):
            free.remove(name)
            return name
    return None


def _words(column: pd.Series) -> Sequence[str]:
    return column.dropna().astype(str).tolist()


def _is_image(column: pd.Series) -> bool:
    words = _words(column)
    return bool(words) and all(re.fullmatch(_IMAGE, word, re.I) for word in words[:100])


def _is_name(column: pd.Series) -> bool:
    return column.notna().all() and column.nunique() > 0.01 * len(column)


def _is_event(column: pd.Series) -> bool:
    return column.nunique() <= 2 and not pd.isna(parse_events(column.dropna())).any()


def _is_number(column: pd.Series) -> bool:
    return column.dtype.kind in "iufb" and column.notna().any() and not _is_key(column)


def _is_key(column: pd.Series) -> bool:
    """A whole number that differs in every row names rows."""
    return column.dtype.kind in "iu" and len(column) > 20 and column.is_unique


def _is_time(column: pd.Series) -> bool:
    numbers, unreadable = parse_numbers(column)
    return column.dtype.kind in "iuf" and not unreadable.any() and bool((numbers[numbers == numbers] >= 0).all())


def _is_level(column: pd.Series) -> bool:
    return 2 <= column.nunique() <= min(_MOST_LEVELS, max(2, len(column) // 5))


def _is_date(column: pd.Series) -> bool:
    words = _words(column)
    return bool(words) and all(re.fullmatch(r"\d{4}(-\d{2}-\d{2})?", word) for word in words[:100])
