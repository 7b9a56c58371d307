"""Looks at a cohort before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from survlens.core.errors import SurvlensError, UsageError
from survlens.data.audit import AuditReport, Finding, Severity, audit
from survlens.data.cohort import Cohort
from survlens.data.columns import as_text, column_of, is_none
from survlens.data.findings import finding
from survlens.data.frames import locate
from survlens.data.preprocessing import Preprocessing
from survlens.data.raster import ImageReference, RasterReader
from survlens.data.scan_rows import scan_identities
from survlens.data.schema import CohortSchema
from survlens.data.table import read_table
from survlens.study.advice import study_advice, table_advice
from survlens.study.cohort_schema import schema_of
from survlens.study.dividing import divided
from survlens.study.guess import guess_columns
from survlens.study.network_checks import check_networks
from survlens.study.settings import StudySettings


def check_study(settings: StudySettings) -> AuditReport:
    """Audits the table of a study, and that of its external cohort, and whether every split can be fitted on.

    Raises:
        DataError: If the table cannot be read.
    """
    paths, schema = settings.files(), schema_of(settings.data, settings.split)
    frame, beside = read_table(paths.table), None if paths.external is None else read_table(paths.external)
    report = audit_tables(settings, frame, beside, scan_quality=True)
    if not report.ok:
        return report
    try:
        other = None if beside is None else Cohort.from_frame(beside, schema, root=paths.root)
        cohort, _ = divided(settings, Cohort.from_frame(frame, schema, root=paths.root), other)
        check_networks(settings, cohort)
    except SurvlensError as error:
        found = finding("cannot-be-fitted", Severity.ERROR, str(error))
        return replace(report, findings=(found, *report.findings))
    return report


def audit_tables(
    settings: StudySettings, frame: pd.DataFrame, other: pd.DataFrame | None, *, scan_quality: bool = False
) -> AuditReport:
    """Audits the table of a study and that of its external cohort, which may share no patient and no image.

    Args:
        settings: The study.
        frame: Its table.
        other: Table of the external cohort, or None; its findings begin with its name.
        scan_quality: Whether to say what is doubtful in scans; a run reads them prepared instead, and not again.
    """
    paths, schema = settings.files(), schema_of(settings.data, settings.split)
    report = audit(frame, schema, root=paths.root, scan_quality=scan_quality)
    if other is None or paths.external is None:
        return _with_advice(report, lambda: study_advice(settings, Cohort.from_frame(frame, schema, root=paths.root)))
    name = paths.external.name
    beside = audit(other, schema, root=paths.root, scan_quality=scan_quality)
    found = [*report.findings, *beside.findings, *_shared(frame, other, schema, paths.root)]
    first = len(report.findings)
    found[first:] = [replace(one, message=f"{name}: {one.message}") for one in found[first:]]
    order = list(Severity)
    counts = {key: count + beside.counts.get(key, 0) for key, count in report.counts.items()}
    whole = AuditReport(tuple(sorted(found, key=lambda one: order.index(one.severity))), counts)

    def advise() -> list[Finding]:
        tested = Cohort.from_frame(other, schema, root=paths.root)
        outcome = tested.outcome[tested.per_patient()]
        return study_advice(settings, Cohort.from_frame(frame, schema, root=paths.root), outcome)

    return _with_advice(whole, advise)


def _with_advice(report: AuditReport, advise: Callable[[], list[Finding]]) -> AuditReport:
    """The report with what the cohort can support, where it can be used at all."""
    if not report.ok:
        return report
    try:
        found = [*report.findings, *advise()]
    except SurvlensError:
        # What stops a model stops its fit with a message of its own; advice is no place for it.
        return report
    order = list(Severity)
    return replace(report, findings=tuple(sorted(found, key=lambda one: order.index(one.severity))))


def _shared(frame: pd.DataFrame, other: pd.DataFrame, schema: CohortSchema, root: Path) -> Iterator[Finding]:
    """Patients and images of `other` that stand in `frame` too."""
    if not (frame.columns.is_unique and other.columns.is_unique):
        return
    patient, image = schema.patient, schema.image
    if patient is not None and patient in frame and patient in other:
        known, names = (as_text(column_of(table, patient)) for table in (frame, other))
        both = set(known[~is_none(known)])
        rows = [row for row, name in enumerate(names) if name in both]
        if rows:
            message = "patients stand in both tables. If they are others, put the hospital's name before their names."
            yield finding("patient-in-both", Severity.ERROR, message, positions=rows, column=patient)
    if schema.has_scans and (schema.scan is None or (schema.scan in frame and schema.scan in other)):
        seen = set(scan_identities(frame, schema, root).values())
        rows = [row for row, identity in scan_identities(other, schema, root).items() if identity in seen]
        if rows:
            message = "scans stand in both tables. Remove these rows from one of them."
            yield finding("image-in-both", Severity.ERROR, message, positions=rows, column=schema.scan or patient)
    if image is not None and image in frame and image in other:
        seen = set(_identities(frame, image, root).values())
        rows = [row for row, identity in _identities(other, image, root).items() if identity in seen]
        if rows:
            message = "images stand in both tables. Remove these rows from one of them."
            yield finding("image-in-both", Severity.ERROR, message, positions=rows, column=image)


def _identities(frame: pd.DataFrame, column: str, root: Path) -> dict[int, str]:
    """Hash of each image that can be read and shows something, by row."""
    paths, reader, found = as_text(column_of(frame, column)), RasterReader(), {}
    for row in (~is_none(paths)).nonzero()[0]:
        target, problem = locate(paths[row], root, reader)
        if not problem:
            try:
                reference: ImageReference = reader.reference(target, paths[row])
                if reference.thumbnail(16).std() >= 1:
                    found[int(row)] = reference.identity
            except SurvlensError:
                continue
    return found


def check_table(
    path: Path,
    *,
    time: str | None = None,
    event: str | None = None,
    patient: str | None = None,
    image: str | None = None,
    unit: str | None = None,
) -> AuditReport:
    """Audits a bare table; what is not named is guessed from names and values, all other columns are covariates.

    Args:
        path: csv or parquet file; image paths start from its folder.
        time: Column with the follow-up time.
        event: Column with the event.
        patient: Column that names the patient.
        image: Column with image paths.
        unit: Unit of `time`.

    Raises:
        UsageError: If time or event are neither named nor guessed.
        DataError: If the table cannot be read.
    """
    frame = read_table(path)
    named = [name for name in (time, event, patient, image) if name is not None]
    guess = guess_columns(frame.drop(columns=named, errors="ignore"))
    time, event = time or guess.time, event or guess.event
    for option, column in (("--time", time), ("--event", event)):
        if column is None:
            names = ", ".join(str(name) for name in frame.columns[:12])
            raise UsageError(f"`{option}` must name a column; got nothing, and none looks like it. Columns: {names}.")
    schema = CohortSchema(
        time=str(time),
        event=str(event),
        unit=unit or guess.unit or "(unit not given)",
        patient=patient or guess.patient,
        image=image or guess.image,
        site=guess.site,
        date=guess.date,
        numeric=tuple(guess.numeric),
        categorical=tuple(guess.categorical),
    )
    report = audit(frame, schema, root=path.parent)
    return _with_advice(report, lambda: _table_advice(Cohort.from_frame(frame, schema, root=path.parent)))


def _table_advice(cohort: Cohort) -> list[Finding]:
    plain = replace(cohort, images=None, masks=None)
    features = len(Preprocessing.fit(plain).feature_names) if cohort.covariates else 0
    return table_advice(cohort.outcome[cohort.per_patient()], features)
