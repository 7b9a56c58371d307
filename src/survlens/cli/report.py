"""`survlens report`: the report of a run, drawn anew from its files."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, told_warnings


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False, path_type=Path))
@traceback_option
def report(run: Path) -> None:
    """Write the figures and report.html of the folder RUN; no model is run."""
    from survlens.artifacts.run_folder import RunFolder
    from survlens.study.report import report_run

    with told_warnings():
        say(f"wrote {report_run(RunFolder.open(run))}")
