"""Audit of times, events and patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from survlens.core.outcome import SurvivalOutcome
from survlens.data.columns import as_text, column_of, is_none, parse_events, parse_numbers, value_text
from survlens.data.description import follow_up
from survlens.data.findings import Finding, Severity, finding
from survlens.data.schema import CohortSchema, ZeroTimes


@dataclass(frozen=True, slots=True, eq=False)
class RawOutcome:
    """Times, events and patients as far as they can be read.

    Attributes:
        time: NaN where missing or not a number.
        event: NaN where missing or not understood.
        patient: Number of the patient of each row, -1 where missing.
        unit: Unit of time.
    """

    time: np.ndarray
    event: np.ndarray
    patient: np.ndarray
    unit: str

    @staticmethod
    def of(frame: pd.DataFrame, schema: CohortSchema) -> RawOutcome:
        """Reads the columns that are there."""
        unknown = np.full(len(frame), np.nan)
        time = parse_numbers(column_of(frame, schema.time))[0] if schema.time in frame else unknown
        if schema.zero_times is ZeroTimes.SMALLEST and (time > 0).any():
            time = np.where(time == 0, time[time > 0].min() / 2, time)
        event = parse_events(column_of(frame, schema.event), schema.event_values) if schema.event in frame else unknown
        if schema.patient is None or schema.patient not in frame:
            patient = np.arange(len(frame))
        else:
            patient = pd.factorize(as_text(column_of(frame, schema.patient)), use_na_sentinel=True)[0]
        return RawOutcome(time, event, patient, schema.unit)

    @property
    def usable(self) -> np.ndarray:
        """Rows with a patient, an event and a time above 0."""
        return (self.time > 0) & ~np.isnan(self.event) & (self.patient >= 0)

    def first_rows(self) -> np.ndarray:
        """Position of the first usable row of each patient."""
        rows = np.flatnonzero(self.usable)
        return rows[np.sort(np.unique(self.patient[rows], return_index=True)[1])]

    def per_patient(self) -> SurvivalOutcome:
        """Outcome of each patient with a usable row."""
        rows = self.first_rows()
        return SurvivalOutcome.from_arrays(self.time[rows], self.event[rows].astype(np.int64), self.unit)


def time_findings(frame: pd.DataFrame, schema: CohortSchema) -> Iterator[Finding]:
    """Times that are missing, not numbers, negative or zero."""
    column = column_of(frame, schema.time)
    time, unreadable = parse_numbers(column)
    missing = np.isnan(time) & ~unreadable
    checks = (
        ("time-not-numeric", unreadable, "times must be numbers; got {values}. Write decimals with a point, no units."),
        ("time-missing", missing, "each row must have a time; got empty cells. Fill in or remove these rows."),
        ("time-negative", time < 0, "times must be > 0; got {values}. Check the dates they were computed from."),
    )
    for code, wrong, message in checks:
        rows = np.flatnonzero(wrong)
        if rows.size:
            text = message.format(values=value_text(column.iloc[rows]))
            yield finding(code, Severity.ERROR, text, positions=rows, column=schema.time)
    zero = np.flatnonzero(time == 0)
    if zero.size:
        severity, message = {
            ZeroTimes.ERROR: (Severity.ERROR, "times must be > 0; got 0. Set zero_times to 'drop' or 'smallest'."),
            ZeroTimes.DROP: (Severity.NOTE, "rows with time 0 are left out (zero_times = 'drop')."),
            ZeroTimes.SMALLEST: (Severity.NOTE, "time 0 becomes half of the smallest time (zero_times = 'smallest')."),
        }[schema.zero_times]
        yield finding("time-zero", severity, message, positions=zero, column=schema.time)


def event_findings(frame: pd.DataFrame, schema: CohortSchema) -> Iterator[Finding]:
    """Events that are missing or neither 0 nor 1."""
    column = column_of(frame, schema.event)
    unknown, missing = np.isnan(parse_events(column, schema.event_values)), is_none(as_text(column))
    rows = np.flatnonzero(unknown & ~missing)
    if rows.size:
        message = (
            f"events must be 0 or 1, true or false, dead or alive; got {value_text(column.iloc[rows])}. "
            "Say in event_values what each value means."
        )
        yield finding("event-not-binary", Severity.ERROR, message, positions=rows, column=schema.event)
    rows = np.flatnonzero(missing)
    if rows.size:
        message = "each row must have an event; got empty cells. Fill in or remove these rows."
        yield finding("event-missing", Severity.ERROR, message, positions=rows, column=schema.event)
    if "censor" in schema.event.lower() and schema.event_values is None:
        message = (
            "the event column must be 1 where the event was seen; this name sounds like 1 = censored. "
            "If so, set event_values to {1: 0, 0: 1}."
        )
        yield finding("event-may-be-inverted", Severity.WARNING, message, column=schema.event)


def patient_findings(
    frame: pd.DataFrame, schema: CohortSchema, raw: RawOutcome, split: str | None
) -> Iterator[Finding]:
    """Patients without name, with two outcomes, or in two parts of a given split; repeated row names."""
    if schema.instance is not None and schema.instance in frame:
        names = pd.Series(as_text(column_of(frame, schema.instance)))
        rows = np.flatnonzero(names.isna() | names.duplicated(keep=False))
        if rows.size:
            message = "row names must be filled and unique. Leave `instance` out to have rows numbered."
            yield finding("instance-repeated", Severity.ERROR, message, positions=rows, column=schema.instance)
    rows = np.flatnonzero(raw.patient < 0)
    if rows.size:
        message = "each row must name its patient; got empty cells. Fill in or remove these rows."
        yield finding("patient-missing", Severity.ERROR, message, positions=rows, column=schema.patient)
    differing = _mixed(raw.patient, np.stack([raw.time, raw.event], 1)[raw.usable], raw.usable)
    if differing.size:
        message = (
            f"all rows of a patient must have one time and one event; {len(set(raw.patient[differing]))} patients have "
            "two outcomes. Correct them, or check the patient column."
        )
        yield finding("patient-two-outcomes", Severity.ERROR, message, positions=differing, column=schema.patient)
    if split is not None and split in frame:
        parts = as_text(column_of(frame, split))
        known = (raw.patient >= 0) & ~is_none(parts)
        differing = _mixed(raw.patient, pd.factorize(parts)[0][known][:, None], known)
        if differing.size:
            count = len(set(raw.patient[differing]))
            message = f"all rows of a patient must stand in one part of the split; {count} stand in two. Move them."
            yield finding("patient-in-two-splits", Severity.ERROR, message, positions=differing, column=split)


def _mixed(patient: np.ndarray, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Known rows of the patients whose known rows differ in `values`."""
    rows = np.flatnonzero(known)
    if not rows.size:
        return rows
    codes, first, inverse = np.unique(patient[rows], return_index=True, return_inverse=True)
    differs = (values != values[first][inverse]).any(1)
    mixed = np.zeros(len(codes), dtype=bool)
    np.logical_or.at(mixed, inverse, differs)
    return rows[mixed[inverse]]


def cohort_findings(raw: RawOutcome, schema: CohortSchema) -> Iterator[Finding]:
    """What the usable patients as a whole allow: events, spread of times, follow-up."""
    if not raw.usable.any():
        yield finding(
            "no-usable-rows", Severity.ERROR, "a cohort must have rows with patient, time and event; got none."
        )
        return
    outcome = raw.per_patient()
    if outcome.n_events < 2:
        message = (
            f"two patients with an event are needed, one to train and one to test; got {outcome.n_events} among "
            f"{len(outcome)} patients. Check what the event column means."
        )
        code = "one-event" if outcome.n_events else "no-events"
        yield finding(code, Severity.ERROR, message, column=schema.event)
    if len(outcome) > 1 and float(outcome.time.min()) == float(outcome.time.max()):
        message = (
            f"times must differ between patients to be ordered; all are {float(outcome.time[0]):g} {raw.unit}. "
            "Check that this column is the follow-up."
        )
        yield finding("times-all-equal", Severity.ERROR, message, column=schema.time)
    followed = follow_up(outcome)
    median = "not reached" if followed["median"] is None else f"{followed['median']:.3g} {raw.unit}"
    limits = " to ".join(
        "not reached" if followed[end] is None else f"{followed[end]:.3g}" for end in ("lower", "upper")
    )
    yield finding(
        "follow-up",
        Severity.NOTE,
        f"median follow-up {median} (95 % CI {limits}), by reverse Kaplan-Meier; {outcome.n_events} events in "
        f"{len(outcome)} patients.",
        column=schema.time,
    )
