"""`survlens portrait`: photographs of faces to latent vectors, and edits that are tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from survlens.cli.group import traceback_option
from survlens.cli.run import resumable
from survlens.cli.screen import say, show_table, told_warnings

if TYPE_CHECKING:
    from survlens.core.score import Score

_TABLE = click.argument("photos", metavar="PHOTOS.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_GENERATOR = click.option(
    "--generator", required=True, metavar="PATH", type=click.Path(exists=True, path_type=Path),
    help="Folder that `finetune` wrote, or a converted checkpoint.",
)  # fmt: skip
_SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all draws.")
_DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True, help="Where."
)
_VGG = click.option(
    "--vgg", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Weights of VGG-16 (torchvision's names) for the distance; else the discriminator's features and pixels.",
)  # fmt: skip


def _out(default: str):  # noqa: ANN202
    return click.option(
        "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", default=Path(default),
        show_default=True, help="Folder to write; what it holds already is not done again.",
    )  # fmt: skip


@click.group()
def portrait() -> None:
    """Survival from portraits: align, finetune, embed, edit.

    Photographs, latent vectors and edited pictures are personal data. An edited picture is synthetic, and no forecast.
    """


@portrait.command()
@_TABLE
@_out("aligned")
@click.option("--size", type=int, default=256, show_default=True, help="Side of the aligned pictures, a power of two.")
@click.option(
    "--landmarks", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="CSV",
    help="Eyes and mouth of photographs. Those that it does not name have no face, unless --detector is given too.",
)  # fmt: skip
@click.option(
    "--detector", type=click.Choice(["dlib", "box"]),
    help="dlib needs the extra survlens[align]; box guesses from a box, and says so. [default: dlib, "
    "where there are no landmarks]",
)  # fmt: skip
@traceback_option
def align(photos: Path, out: Path, size: int, landmarks: Path | None, detector: str | None) -> None:
    """Cut upright squares around the faces of the photographs in PHOTOS.csv (columns photo and patient).

    Writes pictures, photos.csv for the next steps, and alignment.csv with what became of every photograph.
    """
    from survlens.data.face_detection import BoxFaceDetector, DlibFaceDetector
    from survlens.data.landmarks import read_landmarks
    from survlens.data.portrait_alignment import MarkedOrFound
    from survlens.study.portrait_align import align_job
    from survlens.study.portrait_files import PhotoTable

    detectors = {"dlib": DlibFaceDetector, "box": BoxFaceDetector}
    with told_warnings(), resumable("the same command"):
        if landmarks is None:
            finder = detectors[detector or "dlib"]()
        else:
            marked = read_landmarks(landmarks)
            finder = marked if detector is None else MarkedOrFound(marked, detectors[detector]())
        found = align_job(PhotoTable.read(photos), finder, out, size=size, tell=say)
    counts = found["outcome"].value_counts()
    show_table("photographs", ("outcome", "number"), [(str(name), str(n)) for name, n in counts.items()])
    remarked = int((found["remarks"].fillna("") != "").sum())
    say(f"{remarked} photographs with remarks in {out / 'alignment.csv'}")
    say(f"wrote {out / 'photos.csv'}")


@portrait.command()
@_TABLE
@_out("generator")
@click.option(
    "--checkpoint", type=click.Path(exists=True, path_type=Path), metavar="PATH",
    help="Networks to start from: a converted checkpoint, or a folder that `finetune` wrote.",
)  # fmt: skip
@click.option(
    "--from-scratch", "size", type=int, metavar="SIZE", help="New networks for pictures of that side instead."
)
@click.option("--channel-base", type=click.IntRange(16), default=16384, show_default=True, help="Of new networks.")
@click.option("--latent", type=click.IntRange(1), default=512, show_default=True, help="Of new networks.")
@click.option("--steps", type=click.IntRange(1), default=5000, show_default=True, help="Batches.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Photographs in a batch.")
@click.option("--learning-rate", type=float, help="Step size. [default: 0.0025; 0.0005 below 300 photographs]")
@click.option("--r1", type=float, help="Weight of the gradient penalty. [default: 0.0002 pixels / batch]")
@click.option("--freeze", type=click.IntRange(0), default=0, show_default=True, help="Discriminator blocks kept as is.")
@click.option("--mirror", is_flag=True, help="Mirror half of the photographs.")
@click.option("--everybody", is_flag=True, help="Train on the test part too; reports then say so.")
@click.option("--seconds", type=float, help="Stop after that time; the same command goes on.")
@_DEVICE
@_SEED
@traceback_option
def finetune(
    photos: Path,
    out: Path,
    checkpoint: Path | None,
    size: int | None,
    channel_base: int,
    latent: int,
    steps: int,
    batch: int,
    learning_rate: float | None,
    r1: float | None,
    freeze: int,
    mirror: bool,
    everybody: bool,
    seconds: float | None,
    device: str,
    seed: int,
) -> None:
    """Fine-tune a StyleGAN2 on the photographs of PHOTOS.csv whose part is train (all, without such a column)."""
    if (checkpoint is None) == (size is None):
        raise click.UsageError("Give one of --checkpoint and --from-scratch.")
    from survlens.generators.stylegan2.shape import StyleGAN2Shape
    from survlens.study.portrait_files import PhotoTable
    from survlens.study.portrait_finetune import FinetunePlan, finetune_job
    from survlens.training.adversarial_settings import AdversarialSettings, TrainingStart
    from survlens.training.settings import Device

    settings = AdversarialSettings(
        steps=steps, batch=batch, start=TrainingStart.SCRATCH if checkpoint is None else TrainingStart.FINE_TUNE,
        learning_rate=learning_rate, r1=r1, frozen_blocks=freeze, mirror=mirror, seconds=seconds,
        device=Device(device), seed=seed,
    )  # fmt: skip
    shape = None if size is None else StyleGAN2Shape(size, latent=latent, width=latent, channel_base=channel_base)
    plan = FinetunePlan(settings, checkpoint, shape, everybody)
    with told_warnings(), resumable("the same command"):
        history = finetune_job(PhotoTable.read(photos), out, plan, tell=say)
    say(f"wrote {out}" if history.finished else f"stopped before the end; the same command goes on in {out}")


@portrait.command()
@_TABLE
@_GENERATOR
@_out("embedding")
@click.option("--space", type=click.Choice(["w", "z"]), default="w", show_default=True, help="Latent space.")
@click.option(
    "--start", type=click.Choice(["warm", "cold", "best of"]), default="warm", show_default=True,
    help="Where descents start; warm: where an encoder of the training photographs says.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(0), default=100, show_default=True, help="Most steps of a descent.")
@click.option("--restarts", type=click.IntRange(0), default=1, show_default=True, help="Further starts, for agreement.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Photographs at a time.")
@click.option("--encoder-steps", type=click.IntRange(1), default=2000, show_default=True, help="Of a warm start.")
@_VGG
@_DEVICE
@_SEED
@traceback_option
def embed(
    photos: Path,
    generator: Path,
    out: Path,
    space: str,
    start: str,
    steps: int,
    restarts: int,
    batch: int,
    encoder_steps: int,
    vgg: Path | None,
    device: str,
    seed: int,
) -> None:
    """Find the latent vector of every photograph in PHOTOS.csv, and say how far two starts agree.

    Writes embedding.csv: PHOTOS.csv with the vectors as columns w1, w2, ..., for `survlens run` and `portrait edit`.
    """
    from survlens.study.portrait_embed import EmbedPlan, embed_job
    from survlens.study.portrait_files import PhotoTable
    from survlens.training.inversion_encoder import EncoderSettings
    from survlens.training.inversion_settings import InversionSettings, LatentSpace, Start
    from survlens.training.settings import Device

    where, what = Device(device), LatentSpace(space)
    inversion = InversionSettings(
        space=what, start=Start(start), steps=steps, restarts=restarts, batch=batch, device=where, seed=seed
    )
    encoder = EncoderSettings(space=what, steps=encoder_steps, device=where, seed=seed)
    plan = EmbedPlan(inversion, encoder, vgg)
    with told_warnings(), resumable("the same command"):
        found = embed_job(PhotoTable.read(photos), generator, out, plan, tell=say)
    rows = [
        (name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in found.summary().items()
    ]
    show_table("embedding", ("", ""), rows)
    say(f"wrote {out / 'embedding.csv'}")


@portrait.command()
@click.argument("embedding", metavar="EMBEDDING", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_GENERATOR
@click.option(
    "--run", "run_folder", type=click.Path(file_okay=False, path_type=Path), metavar="RUN", default=Path("portraits"),
    show_default=True, help="Folder of a run, whose report then shows the edits; or a new folder.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(0), help="Most steps of a descent. [default: those of the photographs]")
@click.option("--people", type=click.IntRange(2), default=60, show_default=True, help="Held-out patients to edit.")
@click.option("--random", type=click.IntRange(0), default=5, show_default=True, help="Random directions beside.")
@click.option("--permuted", type=click.IntRange(0), default=3, show_default=True, help="Permuted outcomes beside.")
@click.option("--age", default="age", show_default=True, help="Column of the age.")
@click.option("--unit", default="months", show_default=True, help="Unit of time.")
@click.option("--shown", type=click.IntRange(0), default=4, show_default=True, help="People whose pictures are kept.")
@_VGG
@_DEVICE
@_SEED
@traceback_option
def edit(
    embedding: Path,
    generator: Path,
    run_folder: Path,
    steps: int | None,
    people: int,
    random: int,
    permuted: int,
    age: str,
    unit: str,
    shown: int,
    vgg: Path | None,
    device: str,
    seed: int,
) -> None:
    """Edit held-out portraits along health and age directions, and test what their pictures show.

    EMBEDDING is the folder that `embed` wrote, from a table with the columns part (train, test), time and event.
    Every edited picture is embedded anew, and read by a risk model of patients whom the direction has not seen.
    """
    from dataclasses import replace

    from survlens.report.sections.portraits import ETHICS
    from survlens.report.wording import MISSING, decimal
    from survlens.study.portrait_edit_job import edit_job
    from survlens.study.portrait_edits import EditPlan
    from survlens.study.portrait_embed import EmbedPlan, recorded_settings
    from survlens.training.inversion_encoder import EncoderSettings
    from survlens.training.settings import Device

    inversion = replace(recorded_settings(embedding), restarts=0, batch=64, device=Device(device))
    if steps is not None:
        inversion = replace(inversion, steps=steps)
    plan = EditPlan(people=people, random=random, permuted=permuted, seed=seed)
    how = EmbedPlan(inversion, EncoderSettings(), vgg)
    with told_warnings(), resumable("the same command"):
        found = edit_job(embedding, generator, run_folder, how, plan, unit=unit, age=age, shown=shown, tell=say)
    readers = list(found.edits[0].readings)
    rows = []
    for each in found.edits:
        beside = found.comparisons[each.name]
        ratio, against = beside.age_over_health, beside.controls
        rows.append(
            (
                f"{each.name} (control)" if each.control else each.name,
                *(_with_interval(each.readings[reader].slope) for reader in readers),
                MISSING if ratio is None else _with_interval(ratio),
                MISSING if against is None else decimal(against.p_value),
                f"{100 * float(each.latents.capped.mean()):.0f} %",
                _with_interval(each.readings[readers[0]].strict),
            )
        )
    slopes = (f"slope on {reader}" for reader in readers)
    heads = ("direction", *slopes, "|age| / |health|", "controls as steep", "capped", "risk rises")
    show_table("edited pictures, 95 % intervals", heads, rows)
    for each in found.comparisons.values():
        if each.remark:
            say(each.remark)
    say(ETHICS[0])
    say(f"wrote {found.record}")


@portrait.command()
@click.argument("checkpoint", metavar="CHECKPOINT.pkl", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", metavar="OUT.safetensors", type=click.Path(dir_okay=False, path_type=Path))
@traceback_option
def convert(checkpoint: Path, out: Path) -> None:
    """Read an official StyleGAN2 pickle without executing anything in it, and write it as safetensors."""
    from survlens.artifacts.stylegan2_checkpoint import convert as convert_checkpoint

    weights = convert_checkpoint(checkpoint, out)
    show_table("networks", ("size", "value"), [(name, str(value)) for name, value in weights.settings.items()])
    say(f"wrote {out}")


def _with_interval(score: Score) -> str:
    """A value and, in brackets, its interval."""
    from survlens.report.wording import decimal, range_text

    if score.interval is None:
        return decimal(score.value)
    return f"{decimal(score.value)} ({range_text(score.interval.lower, score.interval.upper, 2)})"
