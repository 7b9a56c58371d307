"""`survlens reproduce portraits`: drawn faces from the drawing to the edited picture."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.run import resumable
from survlens.cli.screen import say, show_table, told_warnings


@click.command()
@click.option(
    "--size", type=click.Choice(["16", "32", "64"]), default="32", show_default=True,
    help="Side of the pictures; 16 tests the chain in about a minute.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("portraits"), show_default=True)
@click.option("--pictures/--no-pictures", default=None, help="Networks that learn from pictures. [default: above 16]")
@traceback_option
def portraits(size: str, seed: int, out: Path, pictures: bool | None) -> None:
    """Drawn faces: generator, embedding, survival, and edits whose effect on the true illness is known."""
    from dataclasses import replace

    from survlens.study.reproduce.portrait_findings import not_shown, portrait_findings, write_portraits
    from survlens.study.reproduce.portraits import portrait_chain, usual_plan
    from survlens.study.reproduce.tables import write_findings

    plan = usual_plan(int(size), seed=seed)
    if pictures is not None:
        plan = replace(plan, survival=replace(plan.survival, pictures=pictures))
    with told_warnings(), resumable("the same command"):
        chain = portrait_chain(plan, out, say)
        findings = portrait_findings(chain)
        path = write_findings(out, findings)
        write_portraits(out, chain)
    for table in findings.tables[:4]:
        show_table(table.title, table.columns, table.cells())
    if missed := not_shown(chain):
        say(missed)
    say(f"wrote {path}")
