"""`survlens reproduce coxvae`: the published experiment on volumes, on phantoms."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table


@click.command()
@click.option("--size", type=click.Choice(["16", "32", "64"]), default="16", show_default=True, help="Voxels per axis.")
@click.option("--patients", type=click.IntRange(60), help="By default 2000, and 2400 at 64 voxels.")
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True, help="Passes of each fit.")
@click.option(
    "--tau",
    "taus",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    help="Weight of the evidence bound, several times for a path. By default 0.9, and at 64 voxels 0.9, 0.95, 0.99.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--repetitions", type=click.IntRange(1), default=1, show_default=True, help="Cohorts.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("coxvae"), show_default=True)
@traceback_option
def coxvae(
    size: str, patients: int | None, epochs: int, taus: tuple[float, ...], seed: int, repetitions: int, out: Path
) -> None:
    """CoxVAE on abdominal phantoms: a path of τ, walks through the latent space, and models beside it."""
    from survlens.study.reproduce.phantom_cox_vae import phantom_cox_vae
    from survlens.study.reproduce.phantom_latents import plan_of_size
    from survlens.study.reproduce.tables import write_findings

    plan = plan_of_size(int(size), patients=patients, epochs=epochs, taus=taus or None, seed=seed)
    findings = phantom_cox_vae(plan, repetitions=repetitions, tell=say)
    path = write_findings(out, findings)
    *tables, claims = findings.tables
    for table in tables:
        show_table(table.title, table.columns, table.cells())
    cohorts = [f"cohort {number}" for number in range(1, repetitions + 1)]
    show_table(claims.title, ("", *cohorts), zip(claims.columns, *claims.cells(), strict=True))
    say(f"wrote {path}")
