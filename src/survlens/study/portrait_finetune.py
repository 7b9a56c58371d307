"""The job of `survlens portrait finetune`: a StyleGAN2 on the photographs of training patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from survlens.artifacts.run_folder import write_json
from survlens.core.errors import UsageError
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.shape import StyleGAN2Shape
from survlens.study.portrait_embed import read_networks, record_of
from survlens.study.portrait_files import PATIENT, TEST, TRAIN, PhotoTable
from survlens.training.adversarial import finetune
from survlens.training.adversarial_history import AdversarialHistory, AdversarialRow
from survlens.training.adversarial_settings import AdversarialSettings
from survlens.training.picture_distance import weights_hash
from survlens.training.training_photographs import FITTED_ON, TrainingRecord

RECORD = "patients.json"


@dataclass(frozen=True, slots=True)
class FinetunePlan:
    """What is trained, and on whom.

    Attributes:
        settings: How.
        checkpoint: Networks to start from; None for new ones of `shape`.
        shape: Sizes of new networks.
        everybody: Whether photographs of the test part are trained on too; the report then says so.
    """

    settings: AdversarialSettings
    checkpoint: Path | None = None
    shape: StyleGAN2Shape | None = None
    everybody: bool = False


def finetune_job(
    table: PhotoTable, out: Path, plan: FinetunePlan, *, tell: Callable[[str], object] = lambda _: None
) -> AdversarialHistory:
    """Trains on the photographs of the training part, and goes on where an interrupted call stopped.

    Written are the files of `survlens.training.adversarial.finetune` and `patients.json`, which says how many patients
    of the test part were trained on. Networks that were fine-tuned before bring their record along: what they saw stays
    seen.

    Args:
        table: Aligned photographs.
        out: Folder to write.
        plan: What and on whom.
        tell: Told of the progress.

    Raises:
        UsageError: If there is neither a checkpoint nor a shape, the checkpoint has no discriminator, no row trains, or
            `out` holds a training that began with other networks.
    """
    generator, discriminator = _networks(plan)
    rows = table if plan.everybody else table[table.part(TRAIN)]
    if not len(rows):
        raise UsageError("`part` must be train in some rows; got none. Correct the table of photographs.")
    pictures = (rows.pictures(generator.shape.resolution) * 255).round().to(torch.uint8)
    patients = rows.words(PATIENT).tolist()
    tell(f"{len(rows)} photographs of {len(set(patients))} patients")
    total = plan.settings.steps

    def on_row(row: AdversarialRow) -> None:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in row.values.items() if name.startswith("loss"))
        tell(f"step {row.step} of {total}: {losses}, p {row.values.get('p', 0.0):.2f}")

    held_out = set(table.words(PATIENT)[table.part(TEST)].tolist())
    both = len(held_out & set(patients))
    try:
        history = finetune(
            generator, discriminator, pictures, plan.settings, folder=out, patients=patients, resume=True,
            beginning=f"networks {weights_hash(generator)}, {weights_hash(discriminator)}", on_row=on_row,
        )  # fmt: skip
    finally:
        before = record_of(plan.checkpoint)
        if before is not None and (out / FITTED_ON).is_file():
            whole = TrainingRecord.read(out).joined(before)
            whole.write(out)
            both = both if whole.patients is None else whole.patients.seen(held_out)
    write_json(out / RECORD, {"patients": len(set(patients)), "held_out": len(held_out), "held_out_trained_on": both})
    if both:
        tell(f"{both} patients of the test part were trained on: what is scored on them is not out of sample")
    return history


def _networks(plan: FinetunePlan) -> tuple[Generator, Discriminator]:
    if plan.checkpoint is not None:
        generator, discriminator = read_networks(plan.checkpoint)
        if discriminator is None:
            raise UsageError("the checkpoint must hold a discriminator to be fine-tuned; got a generator only.")
        return generator, discriminator
    if plan.shape is None:
        raise UsageError("fine-tuning needs a checkpoint. Give --checkpoint, or --from-scratch with a side.")
    return Generator(plan.shape, seed=plan.settings.seed), Discriminator(plan.shape, seed=plan.settings.seed + 1)
