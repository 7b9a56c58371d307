"""Audit of covariates: values, leaks, and how many there are for the events."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from survlens.data.columns import as_text, column_of, is_none, parse_numbers, value_text
from survlens.data.findings import Finding, Severity, finding
from survlens.data.outcome_checks import RawOutcome
from survlens.data.schema import CohortSchema

MIN_EVENTS_PER_PARAMETER = 10
"""Fewer events per parameter are warned of (Peduzzi et al. 1995)."""

_TIME_CORRELATION, _EVENT_AUC, _FEWEST_PATIENTS = 0.98, 0.99, 20
_TELLING = frozenset(
    "survival survived surv death dead died deceased alive mortality vital followup censor censored event status os pfs"
    " dfs rfs efs relapse recurrence progression".split()
)


def covariate_findings(frame: pd.DataFrame, schema: CohortSchema, raw: RawOutcome) -> Iterator[Finding]:
    """All findings of the covariates that are there."""
    parameters = 0
    for name in schema.covariates:
        if name not in frame:
            continue
        values = _Values.of(column_of(frame, name), name, schema)
        yield from _value_findings(values, name, schema)
        yield from _leak_findings(values, name, raw)
        parameters += int(values.missing.any()) + (len(values.levels) - 1 if name in schema.categorical else 1)
    if parameters and raw.usable.any():
        events = raw.per_patient().n_events
        if events < MIN_EVENTS_PER_PARAMETER * parameters:
            message = (
                f"ten or more events per parameter are wanted; got {events} events for {parameters} parameters "
                f"({events / parameters:.1f} each). Choose fewer covariates beforehand, or penalise."
            )
            yield finding("few-events-per-parameter", Severity.WARNING, message)


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """One covariate: numbers (ranks of levels, NaN for names), what is missing, and text unless it is numeric."""

    column: pd.Series
    numbers: np.ndarray
    unreadable: np.ndarray
    missing: np.ndarray
    words: np.ndarray

    @staticmethod
    def of(column: pd.Series, name: str, schema: CohortSchema) -> _Values:
        if name in schema.numeric:
            numbers, unreadable = parse_numbers(column)
            return _Values(column, numbers, unreadable, np.isnan(numbers) & ~unreadable, np.zeros(0, dtype=object))
        words = as_text(column)
        rank = {level: float(i) for i, level in enumerate(schema.ordered.get(name, ()))}
        numbers = np.array([rank.get(word, np.nan) for word in words], dtype=np.float64)
        missing = is_none(words)
        return _Values(column, numbers, np.isnan(numbers) & ~missing & (name in schema.ordered), missing, words)

    @property
    def levels(self) -> list[str]:
        """Different texts that occur."""
        return sorted({word for word in self.words if word is not None})


def _value_findings(values: _Values, name: str, schema: CohortSchema) -> Iterator[Finding]:
    rows = np.flatnonzero(values.unreadable)
    found = value_text(values.column.iloc[rows])
    if rows.size and name in schema.numeric:
        message = f"must hold numbers; got {found}. Correct them, or list it as categorical."
        yield finding("not-numeric", Severity.ERROR, message, positions=rows, column=name)
    elif rows.size:
        message = f"must be one of {', '.join(schema.ordered[name])}; got {found}. Correct them, or add the level."
        yield finding("unknown-level", Severity.ERROR, message, positions=rows, column=name)
    missing = np.flatnonzero(values.missing)
    if missing.size == len(values.missing):
        message = "must have a value in some row; all are missing. Leave this covariate out."
        yield finding("all-missing", Severity.ERROR, message, column=name)
        return
    if missing.size:
        message = (
            f"{missing.size} of {len(values.missing)} values are missing; they are imputed, and a feature says so."
        )
        yield finding("missing-values", Severity.NOTE, message, positions=missing, column=name)
    elif values.column.nunique() == 1:
        message = f"has one value in all rows ({values.column.iloc[0]}), so it tells nothing. Leave it out."
        yield finding("constant", Severity.WARNING, message, column=name)
    if name in schema.categorical:
        counts = Counter(values.words)
        rare = [level for level in values.levels if counts[level] == 1]
        if rare:
            message = f"some levels occur once ({value_text(rare)}), so training rows may not have them. Merge them."
            rows = np.flatnonzero(pd.Series(values.words).isin(rare))
            yield finding("rare-level", Severity.WARNING, message, positions=rows, column=name)


def _leak_findings(values: _Values, name: str, raw: RawOutcome) -> Iterator[Finding]:
    tokens = set(
        re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower().replace("follow_up", "followup"))
    )
    if tokens & _TELLING:
        message = "sounds like the outcome itself. Leave it out if it was not known at time 0."
        yield finding("leaking-name", Severity.WARNING, message, column=name)
    rows = raw.first_rows() if raw.usable.any() else np.zeros(0, dtype=np.int64)
    if len(rows) < _FEWEST_PATIENTS:
        return
    time, event = raw.time[rows], raw.event[rows]
    correlation = abs(_rank_correlation(values.numbers[rows], time))
    if correlation > _TIME_CORRELATION:
        message = (
            f"orders patients as the time does (|rank correlation| {correlation:.3f}). Leave it out, or say why not."
        )
        yield finding("leaks-time", Severity.WARNING, message, column=name)
    separation = max(
        _separation(values.numbers[rows], event), _separation(values.missing[rows].astype(np.float64), event)
    )
    if separation > _EVENT_AUC:
        message = f"tells who had the event (AUC {separation:.3f}). Leave it out if it was not known at time 0."
        yield finding("leaks-event", Severity.WARNING, message, column=name)


def _rank_correlation(values: np.ndarray, time: np.ndarray) -> float:
    known = ~np.isnan(values)
    if known.sum() < _FEWEST_PATIENTS or np.ptp(values[known]) == 0 or np.ptp(time[known]) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(values[known]), _ranks(time[known]))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return pd.Series(values).rank().to_numpy()


def _separation(values: np.ndarray, event: np.ndarray) -> float:
    """Area under the ROC curve of the event, whichever way is higher; 0 where it is not defined."""
    known = ~np.isnan(values)
    values, died = values[known], event[known] > 0
    pairs = int(died.sum()) * int((~died).sum())
    if len(values) < _FEWEST_PATIENTS or not pairs:
        return 0.0
    area = (_ranks(values)[died].sum() - died.sum() * (died.sum() + 1) / 2) / pairs
    return float(max(area, 1 - area))
