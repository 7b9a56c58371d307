"""`survlens check`: what is wrong with the data, and where."""

from __future__ import annotations

import json
from pathlib import Path

import click

from survlens.cli.failures import ExitCode
from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table


@click.command()
@click.argument("source", metavar="STUDY.toml|TABLE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write the findings as json.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of the study file.")
@click.option("--time", metavar="COLUMN", help="Follow-up time, for a bare table; guessed where left out.")
@click.option("--event", metavar="COLUMN", help="Event, for a bare table.")
@click.option("--patient", metavar="COLUMN", help="Patient, for a bare table.")
@click.option("--image", metavar="COLUMN", help="Image paths, for a bare table.")
@click.option("--unit", metavar="UNIT", help="Unit of time, for a bare table.")
@traceback_option
@click.pass_context
def check(
    context: click.Context,
    source: Path,
    as_json: bool,
    overrides: tuple[str, ...],
    time: str | None,
    event: str | None,
    patient: str | None,
    image: str | None,
    unit: str | None,
) -> None:
    """Look at a study's data, or at a bare table, before anything is trained.

    Ends with exit code 3 where something must be mended first.
    """
    from survlens.study.check import check_study, check_table
    from survlens.study.toml_source import read_study

    columns = {"time": time, "event": event, "patient": patient, "image": image, "unit": unit}
    if source.suffix == ".toml":
        given = [f"--{name}" for name, value in columns.items() if value is not None]
        if given:
            raise click.UsageError(
                f"{', '.join(given)} belong to a bare table; {source.name} names its columns itself."
            )
        report = check_study(read_study(source, overrides))
    else:
        if overrides:
            raise click.UsageError(
                "--set belongs to a study file; name the columns of a table with --time, --event, ...."
            )
        report = check_table(source, **columns)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    elif report.findings:
        show_table(f"{source.name}: what was found", ("severity", "finding", "where", "what"), report.rows())
    if not report.ok:
        say("the data cannot be used as they are; mend what is listed as error.")
        context.exit(int(ExitCode.DATA))
    if not as_json:
        say("the data can be used.")
