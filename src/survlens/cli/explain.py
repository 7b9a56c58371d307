"""`survlens explain`: what each held-out patient's features do to the prediction over time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.run import resumable
from survlens.cli.screen import say, told_warnings


def _times(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"must be numbers with commas between them, such as 6,12,24; got {text!r}.") from None


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", required=True, help="A model of the run.")
@click.option("--method", default="gradshap", show_default=True, help="How it is explained.")
@click.option("--target", default="survival", show_default=True, help="What is explained.")
@click.option(
    "--patients", default="all", show_default=True, metavar="WHO",
    help="Held-out patients: all, the two chosen for pictures, a number of them, or ID,ID.",
)  # fmt: skip
@click.option("--times", callback=_times, metavar="T,T,...", help="When. [default: 20 steps to the last horizon]")
@click.option("--references", type=int, default=50, show_default=True, help="Training patients to compare with.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all draws.")
@click.option("--fold", type=int, default=1, show_default=True, help="The split whose held-out patients are explained.")
@click.option("--training-seed", type=int, help="Seed of the fit; the first of the model by default.")
@click.option("--cause", type=int, help="Cause, of the targets incidence and time_lost.")
@click.option("--horizon", type=float, help="End, of the targets restricted_mean, risk and time_lost.")
@click.option("--probability", type=float, default=0.5, show_default=True, help="Share, of the target quantile.")
@click.option(
    "--tolerance", type=float, default=1e-3, show_default=True,
    help="Numerical error of a path integral, as a share of the largest contribution.",
)  # fmt: skip
@click.option(
    "--keep-images", type=click.Choice(["chosen", "all"]), default="chosen", show_default=True,
    help="Whose image attributions are written.",
)  # fmt: skip
@click.option("--checks", type=int, default=8, show_default=True, help="Patients to check it on; 0: no checks.")
@click.option("--memory", type=int, default=1024, show_default=True, metavar="MB", help="Bound on a block of patients.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True, help="Where.")
@click.option("--name", help="Name of the folder of the explanation. [default: METHOD-TARGET]")
@click.option("--study", type=click.Path(path_type=Path), metavar="STUDY.toml", help="The study file that was run.")
@click.option("--overwrite", is_flag=True, help="Replace an explanation of this name that was made otherwise.")
@traceback_option
def explain(
    run: Path,
    model: str,
    method: str,
    target: str,
    patients: str,
    times: tuple[float, ...],
    references: int,
    seed: int,
    fold: int,
    training_seed: int | None,
    cause: int | None,
    horizon: float | None,
    probability: float,
    tolerance: float,
    keep_images: str,
    checks: int,
    memory: int,
    device: str,
    name: str | None,
    study: Path | None,
    overwrite: bool,
) -> None:
    """Explain the predictions of a model of the folder RUN over time.

    Held-out patients of one fold are explained, compared with training patients of the same fold. What was stopped goes
    on with the same command. `survlens report RUN` then shows it. Names of patients stay in the folder RUN.
    """
    from survlens.artifacts.run_folder import RunFolder
    from survlens.study.explain_settings import ExplainSettings, KeptImages
    from survlens.study.explaining import explain_patients
    from survlens.training.settings import Device

    settings = ExplainSettings(
        model=model, method=method, target=target, patients=patients, times=times, references=references, seed=seed,
        fold=fold, training_seed=training_seed, cause=cause, horizon=horizon, probability=probability,
        tolerance=tolerance, keep_images=KeptImages(keep_images), checks=checks, memory=memory,
        device=Device(device), name=name,
    )  # fmt: skip
    with told_warnings(), resumable("the same command"):
        home = explain_patients(
            RunFolder.open(run), settings, study=study, overwrite=overwrite, count=progress, tell=say
        )
        say(f"wrote {home}")
        say(f"show it with: survlens report {run}")


@contextmanager
def progress(name: str, patients: int) -> Iterator:
    """Shows how many patients are explained: a bar on a terminal, a line for each block elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, said: say(f"{name}: {done}/{patients} patients  {said}")
        return
    shown = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, TextColumn("{task.fields[said]}", markup=False), console=console) as bar:
        task = bar.add_task(f"{name}, patients", total=patients, said="")
        yield lambda done, said: bar.update(task, completed=done, said=said)
