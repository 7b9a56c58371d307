"""`survlens reproduce cnn-survival`: pretraining, freezing and fine-tuning on three cohorts of phantoms."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table


@click.command("cnn-survival")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("cnn-survival"), show_default=True)
@click.option("--repetitions", type=click.IntRange(2, 200), default=20, show_default=True, help="Draws of all cohorts.")
@click.option("--pretrain", type=click.IntRange(10), default=422, show_default=True, help="Patients of cohort A.")
@click.option("--tune", type=click.IntRange(10), default=68, show_default=True, help="Patients of cohort B.")
@click.option("--test", type=click.IntRange(10), default=30, show_default=True, help="Patients of cohort C.")
@click.option(
    "--larger", type=click.IntRange(0), default=3, show_default=True, help="Repetitions with larger B and C as well."
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Most epochs of a training.")
@click.option("--no-shift", is_flag=True, help="Scan cohort A as B and C are scanned.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@traceback_option
def cnn_survival(
    out: Path,
    repetitions: int,
    pretrain: int,
    tune: int,
    test: int,
    larger: int,
    epochs: int,
    no_shift: bool,
    seed: int,
) -> None:
    """CNN-Survival, radiomics and transfer features on phantoms, beside size and the clinical table alone."""
    from survlens.study.reproduce.cnn_survival import CNNSurvivalPlan
    from survlens.study.reproduce.cnn_survival_findings import cnn_survival_experiment
    from survlens.study.reproduce.tables import write_findings

    plan = CNNSurvivalPlan(
        pretrain=pretrain,
        shift=not no_shift,
        tune=tune,
        test=test,
        repetitions=repetitions,
        larger=min(larger, repetitions),
        epochs=epochs,
        seed=seed,
    )
    found = cnn_survival_experiment(plan, say)
    path = write_findings(out, found)
    for table in found.tables:
        show_table(table.title, table.columns, table.cells())
    say(f"wrote {path}")
