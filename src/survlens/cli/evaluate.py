"""`survlens evaluate`: the scores of a run, computed anew from its predictions."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table, told_warnings


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of [evaluation] or [report]."
)
@traceback_option
def evaluate(run: Path, overrides: tuple[str, ...]) -> None:
    """Score the predictions in the folder RUN again, and write metrics.json."""
    from survlens.artifacts.run_folder import RunFolder, read_json
    from survlens.study.evaluate import evaluate_run, summary_rows

    folder = RunFolder.open(run)
    with told_warnings():
        evaluate_run(folder, overrides)
    metrics = read_json(folder.metrics)
    heads = ("model", "concordance", "integrated Brier", "integrated IPA")
    show_table(metrics["scored_on"], heads, summary_rows(metrics))
    say(f"wrote {folder.metrics}")
