"""`survlens reproduce phantom-explanations`: do explanations of volumes point at what the hazard depends on?"""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table


@click.command("phantom-explanations")
@click.option("--train", type=click.IntRange(50), default=400, show_default=True, help="Training patients.")
@click.option("--explained", type=click.IntRange(5), default=60, show_default=True, help="Patients drawn to explain.")
@click.option("--size", type=click.IntRange(12), default=16, show_default=True, help="Voxels along each axis.")
@click.option("--references", type=click.IntRange(1), default=4, show_default=True, help="Patients to compare with.")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Most epochs of a fit.")
@click.option(
    "--variant",
    type=click.Choice(["constant", "wears_off"]),
    default="constant",
    show_default=True,
    help="Whether the effect of tumour load stays or fades in time.",
)
@click.option(
    "--cox-vae",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Patients of a CoxVAE beside them.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("phantom-explanations"), show_default=True
)
@traceback_option
def phantom_explanations(
    train: int,
    explained: int,
    size: int,
    references: int,
    epochs: int,
    variant: str,
    cox_vae: int,
    seed: int,
    out: Path,
) -> None:
    """GradSHAP(t) and occlusion over time on phantoms: do they point at tumours, and not at healthy liver?"""
    from survlens.data.simulate.phantom import LoadEffect
    from survlens.study.reproduce import phantom_explanations as experiment
    from survlens.study.reproduce.located_phantoms import LocalisationPlan
    from survlens.study.reproduce.tables import write_findings

    plan = LocalisationPlan(
        train=train,
        explained=explained,
        size=size,
        references=references,
        epochs=epochs,
        effect=LoadEffect(variant),
        cox_vae=cox_vae,
        seed=seed,
    )
    findings = experiment.phantom_explanations(plan, say)
    path = write_findings(out, findings)
    for table in findings.tables:
        show_table(table.title, table.columns, table.cells())
    say(f"wrote {path}")
