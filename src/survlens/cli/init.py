"""`survlens init`: a commented study file to start from."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option(
    "--from",
    "table",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="TABLE",
    help="A csv or parquet file inside FOLDER; its columns are guessed.",
)
@traceback_option
def init(folder: Path, table: Path | None) -> None:
    """Write FOLDER/study.toml, with every setting explained; never overwrites one."""
    from survlens.study.init import write_study

    written = write_study(folder, table)
    say(f"wrote {written.path}")
    for line in written.open_questions:
        say(f"  look at: {line}")
    say(f"next: survlens check {written.path}")
