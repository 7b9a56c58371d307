"""`survlens demo`: the whole way from images to a report, on data that come with survlens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from survlens.cli.group import traceback_option
from survlens.cli.run import run_file
from survlens.cli.screen import say

if TYPE_CHECKING:
    from survlens.artifacts.run_folder import RunFolder


@click.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("survlens-demo"), show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the whole demo.")
@click.option("--quick", is_flag=True, help="One seed and few epochs: to see that everything works.")
@click.option("--overwrite", is_flag=True, help="Replace the run that stands in DIR.")
@traceback_option
def demo(out: Path, seed: int, quick: bool, overwrite: bool) -> None:
    """Learn, evaluate, explain and report surv-digits: real pictures with simulated survival."""

    def write(folder: Path) -> Path:
        from survlens.study.demo import write_demo

        return write_demo(folder, seed=seed, quick=quick)

    made_by = f"survlens demo --seed {seed}{' --quick' if quick else ''}"
    run_file(out, write, made_by=made_by, overwrite=overwrite, explain=_explain)


def _explain(home: RunFolder) -> None:
    from survlens.cli.explain import progress
    from survlens.study.demo import demo_explanation
    from survlens.study.explaining import explain_patients

    explain_patients(home, demo_explanation(), count=progress, tell=say)
