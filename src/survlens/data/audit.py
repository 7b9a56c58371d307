"""Looking at a table and its images before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from survlens.data.columns import nearest
from survlens.data.covariate_checks import covariate_findings
from survlens.data.description import covariate_summary as covariate_summary
from survlens.data.description import flow as flow
from survlens.data.description import follow_up as follow_up
from survlens.data.findings import AuditReport as AuditReport
from survlens.data.findings import Finding as Finding
from survlens.data.findings import Severity as Severity
from survlens.data.findings import finding
from survlens.data.image_checks import image_findings
from survlens.data.outcome_checks import RawOutcome, cohort_findings, event_findings, patient_findings, time_findings
from survlens.data.raster import Reader
from survlens.data.risk_set_checks import risk_set_findings
from survlens.data.scan_rows import scan_findings
from survlens.data.schema import CohortSchema


def audit(
    frame: pd.DataFrame,
    schema: CohortSchema,
    *,
    root: str | Path | None = None,
    splits_column: str | None = None,
    reader: Reader | None = None,
    scan_quality: bool = False,
) -> AuditReport:
    """Looks for everything that would spoil a study; bad data are findings, never exceptions.

    Args:
        frame: The table as it was read.
        schema: What its columns are.
        root: Folder that image paths start from.
        splits_column: Column of a given split; that of `schema` by default.
        reader: What reads the images; PNG, JPEG and TIFF by default.
        scan_quality: Whether to look for what is doubtful in scans and masks, too, and not only for what stops a study.
    """
    if not frame.columns.is_unique:
        names = ", ".join(sorted(set(frame.columns[frame.columns.duplicated()].astype(str))))
        message = f"column names must be unique; got {names} more than once. Rename them."
        return AuditReport((finding("repeated-column", Severity.ERROR, message),), _counts(None))
    frame = frame.reset_index(drop=True)
    found = list(_missing_columns(frame, schema))
    if len(frame) == 0:
        found.append(finding("no-rows", Severity.ERROR, "the table must have rows; got none below its header."))
        return AuditReport(tuple(found), _counts(None))
    raw = RawOutcome.of(frame, schema)
    found += _table_findings(frame, schema, raw, splits_column or schema.split)
    if schema.has_scans and (schema.scan is None or schema.scan in frame):
        quality = scan_quality and not schema.missing(frame)
        found += scan_findings(frame, schema, raw.patient, root=root, quality=quality)
    for column in () if schema.has_scans else (schema.image, schema.mask):
        if column is not None and column in frame:
            seen = image_findings(frame, column, raw.patient, root=root, reader=reader)
            # Two patients may well have the same (empty) mask: only reading it is checked.
            found += [one for one in seen if column == schema.image or one.severity is Severity.ERROR
                      and not one.code.startswith("duplicate")]  # fmt: skip
    order = list(Severity)
    return AuditReport(tuple(sorted(found, key=lambda one: order.index(one.severity))), _counts(raw))


def _missing_columns(frame: pd.DataFrame, schema: CohortSchema) -> Iterator[Finding]:
    for name, role in schema.missing(frame).items():
        message = (
            f"`{role}` must name a column of the table; {name!r} is not there. {nearest(name, list(frame.columns))}"
        )
        yield finding("missing-column", Severity.ERROR, message, column=name)


def _table_findings(frame: pd.DataFrame, schema: CohortSchema, raw: RawOutcome, split: str | None) -> Iterator[Finding]:
    if schema.time in frame:
        yield from time_findings(frame, schema)
    if schema.event in frame:
        yield from event_findings(frame, schema)
    yield from risk_set_findings(frame, schema, raw)
    yield from patient_findings(frame, schema, raw, split)
    if schema.time in frame and schema.event in frame:
        yield from cohort_findings(raw, schema)
    yield from covariate_findings(frame, schema, raw)


def _counts(raw: RawOutcome | None) -> dict[str, int]:
    if raw is None:
        return {"instances": 0, "patients": 0, "events": 0}
    rows = raw.first_rows()
    return {"instances": int(raw.usable.sum()), "patients": len(rows), "events": int(raw.event[rows].sum())}
