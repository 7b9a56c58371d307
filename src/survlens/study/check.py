"""Looks at a cohort before anything is trained."""

from __future__ import annotations

from pathlib import Path

from survlens.core.errors import UsageError
from survlens.data.audit import AuditReport, audit
from survlens.data.schema import CohortSchema
from survlens.data.table import read_table
from survlens.study.cohort_schema import schema_of
from survlens.study.guess import guess_columns
from survlens.study.settings import StudySettings


def check_study(settings: StudySettings) -> AuditReport:
    """Audits the table of a study.

    Raises:
        DataError: If the table cannot be read.
    """
    paths = settings.files()
    return audit(read_table(paths.table), schema_of(settings.data, settings.split), root=paths.root)


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
    return audit(frame, schema, root=path.parent)
