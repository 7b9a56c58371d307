"""`survlens run`: a study from its file to its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table, told_warnings


@click.command()
@click.argument("study", metavar="STUDY.toml", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run. [default: runs/STUDY]")
@click.option("--resume", is_flag=True, help="Go on in DIR where an earlier run stopped.")
@click.option("--overwrite", is_flag=True, help="Replace the run that stands in DIR.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting: model.NAME.tau=0.3.")
@click.option(
    "--models", metavar="NAMES", help="Only these models (comma between), those they need and the references."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where networks are trained.")
@click.option("--dry-run", is_flag=True, help="Load a batch, take one step, and say what would be written.")
@traceback_option
def run(
    study: Path,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    overrides: tuple[str, ...],
    models: str | None,
    device: str | None,
    dry_run: bool,
) -> None:
    """Fit, evaluate, explain and report a study."""
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    from survlens.artifacts.run_folder import RunFolder
    from survlens.study.dry_run import dry_run as try_study
    from survlens.study.run import chosen_models, on_device, prepare, run_study, units_of
    from survlens.study.toml_source import read_study, read_text
    from survlens.training.settings import Device

    settings = read_study(study, overrides)
    if models is not None:
        settings = chosen_models(settings, [name.strip() for name in models.split(",") if name.strip()])
    if device is not None:
        settings = on_device(settings, Device(device))
    folder = out or Path("runs") / study.resolve().parent.name
    with told_warnings():
        prepared = prepare(settings)
        if dry_run:
            steps, files = try_study(prepared, RunFolder(folder))
            show_table("one step of every model", ("model", "what was done"), steps)
            show_table(f"{folder} would hold", ("file", "what"), files)
            return
        home = RunFolder.create(folder, overwrite=overwrite, resume=resume)
        say(f"{len(units_of(prepared.settings, prepared.splits))} fits, written to {folder}")
        with resumable(folder):
            run_study(prepared, home, text=read_text(study), watch=watch, resume=resume)
            finish(home)


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Says on Ctrl-C that finished work was kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        kept = str(error) or "Finished fits were kept."
        raise KeyboardInterrupt(f"interrupted. {kept} Go on with the same command and --resume ({folder}).") from error


def finish(home) -> None:  # noqa: ANN001
    """Evaluates, explains and reports a run."""
    from survlens.study.evaluate import evaluate_run
    from survlens.study.explain import explain_run
    from survlens.study.report import report_run

    evaluate_run(home)
    explain_run(home)
    say(f"wrote {report_run(home)}")


@contextmanager
def watch(name: str, epochs: int) -> Iterator:
    """Shows the epochs of one fit: a bar on a terminal, a line per epoch elsewhere."""
    from rich.console import Console

    from survlens.training.progress import training_progress

    with training_progress(Console(stderr=True), epochs, name=name) as on_epoch:
        yield on_epoch


def run_file(out: Path, write: Callable[[Path], Path], *, overwrite: bool = False) -> None:
    """Writes data and a study file into a run folder, and runs it; one that was interrupted goes on.

    Args:
        out: Folder of the run.
        write: Writes data and study file into the folder it is given, and returns the latter.
        overwrite: Replace the run that stands there.
    """
    if (out / "report.html").exists() and not overwrite:
        say(f"{out} holds a finished report: {out / 'report.html'}")
        return
    from survlens.artifacts.run_folder import RunFolder, read_json
    from survlens.study.evaluate import summary_rows
    from survlens.study.run import prepare, run_study, units_of
    from survlens.study.toml_source import read_study, read_text

    begun = (out / "progress.json").exists() and not overwrite
    home = RunFolder.create(out, overwrite=overwrite and out.exists(), resume=begun)
    file = home.study if begun else write(home.path)
    with told_warnings():
        prepared = prepare(read_study(file))
        say(f"{len(units_of(prepared.settings, prepared.splits))} fits, written to {out}")
        with resumable(out):
            run_study(prepared, home, text=read_text(file), watch=watch, resume=begun)
            finish(home)
    rows = summary_rows(read_json(home.metrics))
    show_table("test patients", ("model", "concordance", "integrated Brier", "integrated IPA"), rows)
