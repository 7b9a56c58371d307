"""`survlens simulate`: cohorts whose truth is known, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from survlens.cli.group import traceback_option
from survlens.cli.screen import say


@click.group()
def simulate() -> None:
    """Write a made-up cohort whose truth is known."""


@simulate.command()
@click.argument("out", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", type=click.IntRange(1), default=100, show_default=True)
@click.option("--size", type=click.IntRange(12), default=64, show_default=True, help="Voxels along each axis.")
@click.option(
    "--variant",
    type=click.Choice(["constant", "wears_off"]),
    default="constant",
    show_default=True,
    help="Whether the effect of tumour load stays or fades in time.",
)
@click.option("--format", "kind", type=click.Choice(["nifti", "dicom"]), default="nifti", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@traceback_option
def phantom(out: Path, patients: int, size: int, variant: str, kind: str, seed: int) -> None:
    """Write abdominal scans with liver tumours, their masks, a clinical table, and the truth apart.

    Survival depends on tumour load and age, and on nothing else; the size of the liver is a distractor. DICOM files
    name people and hospitals that do not exist. The same command goes on where one was interrupted.
    """
    from survlens.data.simulate.phantom import LoadEffect
    from survlens.data.simulate.phantom_files import PhantomFormat
    from survlens.study.simulate_phantom import PhantomPlan, simulate_phantom

    plan = PhantomPlan(
        patients=patients, size=size, effect=LoadEffect(variant), kind=PhantomFormat(kind), seed=seed
    )  # fmt: skip
    with _counted(patients) as on_patient:
        written = simulate_phantom(out, plan, on_patient)
    if not written:
        say(f"{out} holds this cohort already; nothing to do")
        return
    say(f"wrote {out / 'cohort.csv'}, with the truth in {out / 'truth.csv'}")


@simulate.command()
@click.argument("out", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", type=click.IntRange(1), default=300, show_default=True)
@click.option(
    "--size",
    type=click.Choice(["16", "32", "64", "128", "256"]),
    default="64",
    show_default=True,
    help="Height and width of the photographs, in pixels.",
)
@click.option("--photos-per-patient", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@traceback_option
def portraits(out: Path, patients: int, size: str, photos_per_patient: int, seed: int) -> None:
    """Write drawn faces, a clinical table with landmarks, a study file, and the truth apart.

    Survival depends on illness, which only the photograph shows, on age, and on stage, which only the table has. The
    same command goes on where one was interrupted.
    """
    from survlens.study.simulate_portraits import PortraitPlan, simulate_portraits

    plan = PortraitPlan(patients=patients, size=int(size), photos_per_patient=photos_per_patient, seed=seed)
    with _counted(patients) as on_patient:
        written = simulate_portraits(out, plan, on_patient)
    if not written:
        say(f"{out} holds this cohort already; nothing to do")
        return
    say(f"wrote {out / 'cohort.csv'}, with the truth in {out / 'truth.csv'}")


@contextmanager
def _counted(patients: int) -> Iterator[Callable[[int], None]]:
    """Shows how many patients are written: a bar on a terminal, ten lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, step = Console(stderr=True), max(patients // 10, 1)
    if not console.is_terminal:

        def tell(done: int) -> None:
            if done % step == 0 or done == patients:
                say(f"patient {done}/{patients}")

        yield tell
        return
    shown = (TextColumn("patients"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=console) as bar:
        task = bar.add_task("", total=patients)
        yield lambda done: bar.update(task, completed=done)
