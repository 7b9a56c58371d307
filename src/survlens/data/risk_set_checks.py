"""Audit of delayed entry, weights and strata: what says who is at risk beside whom, and how often they count."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from survlens.data.columns import column_of, parse_numbers, value_text
from survlens.data.findings import Finding, Severity, finding
from survlens.data.frames import LATE, NUMBER_STRATA, WEIGHTLESS, is_entry, is_stratum, is_weight
from survlens.data.outcome_checks import RawOutcome
from survlens.data.schema import CohortSchema


def risk_set_findings(frame: pd.DataFrame, schema: CohortSchema, raw: RawOutcome) -> Iterator[Finding]:
    """Entries that do not come before their time, weights that are not positive, strata that are no numbers."""
    known = raw.time > 0
    if schema.entry is not None and schema.entry in frame:
        entry, unreadable = parse_numbers(column_of(frame, schema.entry))
        missing = np.isnan(entry) & ~unreadable
        wrong = unreadable | (~missing & ~(entry >= 0)) | (~missing & known & ~is_entry(entry, raw.time))
        text = f"entries must be numbers >= 0 and before the time; got {{values}}. {LATE}"
        yield from _wrong("entry-after-time", frame, schema.entry, wrong, text)
        late = int((np.nan_to_num(entry) > 0).sum())
        if late and not wrong.any():
            message = (
                f"{late} rows were observed from later than time 0: models count them as at risk from there, and no "
                "score counts them, because scores are defined for patients followed from time 0."
            )
            yield finding("delayed-entry", Severity.NOTE, message, column=schema.entry)
    if schema.weight is not None and schema.weight in frame:
        weight, _ = parse_numbers(column_of(frame, schema.weight))
        text = f"weights must be numbers > 0; got {{values}}. {WEIGHTLESS}"
        yield from _wrong("weight-not-positive", frame, schema.weight, ~is_weight(weight), text)
    if schema.stratum is not None and schema.stratum in frame:
        stratum, _ = parse_numbers(column_of(frame, schema.stratum))
        text = f"strata must be whole numbers >= 0; got {{values}}. {NUMBER_STRATA}"
        yield from _wrong("stratum-not-a-number", frame, schema.stratum, ~is_stratum(stratum), text)


def _wrong(code: str, frame: pd.DataFrame, column: str, wrong: np.ndarray, text: str) -> Iterator[Finding]:
    rows = np.flatnonzero(wrong)
    if rows.size:
        message = text.format(values=value_text(column_of(frame, column).iloc[rows]))
        yield finding(code, Severity.ERROR, message, positions=rows, column=column)
