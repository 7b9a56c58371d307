"""Draws the report of a run."""

from __future__ import annotations

from pathlib import Path

from survlens.artifacts.run_folder import RunFolder, read_json
from survlens.report.document import write_report
from survlens.study.resolved import from_resolved


def report_run(run: RunFolder) -> Path:
    """Writes figures and report.html from the files of the run; no model is run.

    Returns:
        Path of the page.

    Raises:
        DataError: If the run has not been evaluated.
    """
    title = from_resolved(read_json(run.resolved)).report.title if run.resolved.exists() else ""
    return write_report(run.path, title=title or None)
