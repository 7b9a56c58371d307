"""`survlens run`: a study from its file to its report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table, told_warnings

if TYPE_CHECKING:
    from survlens.artifacts.run_folder import RunFolder


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
    from survlens.study.run import chosen_models, on_device, prepare, run_study
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
        with resumable(f"the same command and --resume ({folder})"):
            run_study(prepared, home, text=read_text(study), watch=watch, count=count, resume=resume, tell=say)
            finish(home)


@contextmanager
def resumable(again: str) -> Iterator[None]:
    """Says on Ctrl-C that finished work was kept, and with what (`again`) to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        kept = str(error) or "Finished fits were kept."
        raise KeyboardInterrupt(f"interrupted. {kept} Go on with {again}.") from error


def finish(home, explain: Callable | None = None) -> None:  # noqa: ANN001
    """Evaluates, explains and reports a run; `explain` adds explanations over time before the report."""
    from survlens.study.evaluate import evaluate_run
    from survlens.study.explain import explain_run
    from survlens.study.report import report_run

    evaluate_run(home)
    explain_run(home)
    if explain is not None:
        explain(home)
    say(f"wrote {report_run(home)}")


@contextmanager
def watch(name: str, epochs: int) -> Iterator:
    """Shows the epochs of one fit: a bar on a terminal, a line per epoch elsewhere."""
    from rich.console import Console

    from survlens.training.progress import training_progress

    with training_progress(Console(stderr=True), epochs, name=name) as on_epoch:
        yield on_epoch


@contextmanager
def count(name: str, fits: int) -> Iterator:
    """Shows how many inner fits are done: a bar on a terminal, a line for each elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, said: say(f"{name}: inner fit {done}/{fits}  {said}")
        return
    shown = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, TextColumn("{task.fields[said]}", markup=False), console=console) as bar:
        task = bar.add_task(f"{name}, inner fits", total=fits, said="")
        yield lambda done, said: bar.update(task, completed=done, said=said)


def run_file(
    out: Path,
    write: Callable[[Path], Path],
    *,
    made_by: str,
    overwrite: bool = False,
    explain: Callable | None = None,
) -> None:
    """Writes data and a study file into a run folder, and runs it; one that was interrupted goes on.

    Args:
        out: Folder of the run.
        write: Writes data and study file into the folder it is given, and returns the latter.
        made_by: The command with its settings, first line of the study file: another one is refused in its folder.
        overwrite: Replace the run that stands there.
        explain: Writes explanations over time into the finished run.
    """
    mark, stands = _MADE_BY + made_by, _first_line(out / "study.toml")
    if stands is not None and stands != mark and not overwrite:
        raise click.UsageError(f"{out} holds another study than `{made_by}`. Pass --overwrite, or another --out.")
    if (out / "report.html").exists() and not overwrite:
        say(f"{out} holds a finished report: {out / 'report.html'}")
        return
    from survlens.artifacts.atomic import write_text
    from survlens.artifacts.run_folder import read_json
    from survlens.study.evaluate import summary_rows
    from survlens.study.run import prepare, run_study
    from survlens.study.toml_source import read_study, read_text

    begun = (out / "resolved.json").exists() and not overwrite
    with told_warnings(), resumable("the same command"):
        home = _home(out, stands, overwrite=overwrite)
        if not begun:
            write_text(home.study, mark + "\n")
            file = write(home.path)
            write_text(file, f"{mark}\n{read_text(file)}")
        prepared = prepare(read_study(home.study))
        run_study(prepared, home, text=read_text(home.study), watch=watch, count=count, resume=begun, tell=say)
        finish(home, explain)
    metrics = read_json(home.metrics)
    rows = summary_rows(metrics)
    show_table(metrics["scored_on"], ("model", "concordance", "integrated Brier", "integrated IPA"), rows)


_MADE_BY = "# Made by: "


def _first_line(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\r\n")


def _home(out: Path, stands: str | None, *, overwrite: bool) -> RunFolder:
    """The run folder, without the data of the run that is replaced; one cut short before its first fit goes on."""
    from survlens.artifacts.run_folder import RunFolder

    ours = stands is not None and stands.startswith(_MADE_BY)
    replaced = overwrite and (not ours or (out / "resolved.json").exists())
    home = RunFolder.create(out, overwrite=replaced, resume=ours and not replaced)
    if ours and overwrite:
        shutil.rmtree(out / "data", ignore_errors=True)
    return home
