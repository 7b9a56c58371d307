"""`survlens reproduce`: published experiments, one command each."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.reproduce_cnn_survival import cnn_survival
from survlens.cli.reproduce_explanations import COMMANDS
from survlens.cli.reproduce_phantoms import phantom_explanations
from survlens.cli.reproduce_portraits import portraits
from survlens.cli.reproduce_scans import coxvae
from survlens.cli.run import run_file
from survlens.cli.screen import say, show_table

_SHOWN = {
    "concordance": "C",
    "oracle": "oracle C",
    "component_truth": "|ρ| PC1, truth",
    "component_time": "|ρ| PC1, time",
    "digit_accuracy": "digit accuracy",
    "error": "MSE",
    "traversal": "ρ traversal",
    "traversal_from": "from digit",
    "traversal_to": "to digit",
}


@click.group()
def reproduce() -> None:
    """Repeat a published experiment."""


for command in COMMANDS:
    reproduce.add_command(command)
reproduce.add_command(cnn_survival)
reproduce.add_command(coxvae)
reproduce.add_command(phantom_explanations)
reproduce.add_command(portraits)


@reproduce.command("surv-mnist")
@click.option(
    "--data",
    "mnist",
    required=True,
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the idx files of MNIST (test, training or both; gzipped or not).",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("surv-mnist"), show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the run that stands in DIR.")
@traceback_option
def surv_mnist(mnist: Path, out: Path, seed: int, overwrite: bool) -> None:
    """CoxVAE on MNIST with simulated survival: embeddings for three values of τ, and downstream models."""

    def write(folder: Path) -> Path:
        from survlens.study.reproduce.surv_mnist import write_surv_mnist

        return write_surv_mnist(folder, mnist, seed=seed)

    run_file(out, write, made_by=f"survlens reproduce surv-mnist --seed {seed}", overwrite=overwrite)


@reproduce.command("surv-digits")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", default=Path("surv-digits"), show_default=True)
@click.option("--seeds", type=click.IntRange(1, 100), default=5, show_default=True, help="How many seeds.")
@traceback_option
def surv_digits(out: Path, seeds: int) -> None:
    """CoxVAE on small digits with simulated survival, over several seeds: a table."""
    from survlens.artifacts.run_folder import write_json
    from survlens.study.reproduce import surv_digits as experiment

    rows = experiment.surv_digits(seeds=range(seeds), tell=say)
    table = experiment.summary(rows)
    write_json(out / "surv_digits.json", {"rows": rows, "summary": table})
    shown = [(f"{row['tau']:g}", *(f"{row[key][0]:.3f} ± {row[key][1]:.3f}" for key in _SHOWN)) for row in table]
    show_table(f"mean ± SD over {seeds} seeds, held-out pictures", ("τ", *_SHOWN.values()), shown)
    say(f"wrote {out / 'surv_digits.json'}")
