"""Portraits from end to end on drawn faces (after Hagag et al.), so that every claim has a truth beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from survlens.artifacts.run_folder import write_json
from survlens.core.outcome import SurvivalOutcome
from survlens.data.fitted_on import FittedOn
from survlens.data.simulate.portrait_reader import portrait_reader
from survlens.data.simulate.portraits import Known, PortraitCohort, portrait_cohort
from survlens.generators.stylegan2.augmentation import Augmentation
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.shape import StyleGAN2Shape
from survlens.study.portrait_edit_job import Judge, fitted_judge, two_folds
from survlens.study.portrait_edits import (
    EditPlan,
    FittedDirections,
    JudgedEdit,
    Reader,
    fitted_directions,
    judged_edits,
)
from survlens.study.portrait_survival import PortraitRows, Step, SurvivalFindings, SurvivalPlan, portrait_survival
from survlens.training.adversarial import finetune
from survlens.training.adversarial_settings import AdversarialSettings
from survlens.training.adversarial_settings import TrainingStart as Training
from survlens.training.inversion import embed
from survlens.training.inversion_encoder import EncoderSettings, LatentEncoder, fit_encoder
from survlens.training.inversion_result import Embedding
from survlens.training.inversion_settings import InversionSettings, Start
from survlens.training.picture_distance import PictureDistance, PyramidDistance
from survlens.training.thread_count import threads_for_side

Tell = Callable[[str], object]
READ = ("illness", "age")
"""Factors that the independent reader reads from edited pictures."""
READ_BY_FACTOR = (
    "a regression that was fitted to other drawings and knows neither generator, latent vector nor hazard, in standard "
    "deviations of the true value over training faces"
)
"""How `factor_readers` read."""


@dataclass(frozen=True, slots=True)
class PortraitPlan:
    """Sizes of the experiment.

    Attributes:
        size: Side of the pictures.
        patients: Patients, of whom `train` train and the others are held out.
        train: Training patients.
        channel_base: Channels times side of both networks.
        latent: Width of z and w.
        generator_steps: Batches of the training of the generator, from scratch.
        generator_batch: Pictures of a batch.
        encoder_steps: Steps of the encoder.
        descent_steps: Steps of the descent of each photograph, from the encoder's answer.
        edit_steps: Steps of the descent of each edited picture.
        restarted: Photographs that are embedded twice more, from cold starts.
        restart_steps: Steps of these descents.
        survival: How survival models are fitted.
        edits: How portraits are edited.
        seed: Seed of everything random.
    """

    size: int = 32
    patients: int = 1500
    train: int = 1000
    channel_base: int = 512
    latent: int = 64
    generator_steps: int = 4000
    generator_batch: int = 16
    encoder_steps: int = 400
    descent_steps: int = 30
    edit_steps: int = 10
    restarted: int = 64
    restart_steps: int = 90
    survival: SurvivalPlan = field(default_factory=lambda: SurvivalPlan(inner_folds=2, epochs=5))
    edits: EditPlan = field(default_factory=lambda: EditPlan(people=40, random=4, permuted=2))
    seed: int = 0


def usual_plan(size: int, *, seed: int = 0) -> PortraitPlan:
    """The sizes that go with a side: 16 for a test of the chain, 32 and 64 for its claims.

    Args:
        size: 16, 32 or 64.
        seed: Seed of everything random.
    """
    if size > 16:
        edits = EditPlan(people=40, random=4, permuted=2, seed=seed)
        survival = SurvivalPlan(inner_folds=2, epochs=5, seed=seed)
        return PortraitPlan(size=size, channel_base=16 * size, survival=survival, edits=edits, seed=seed)
    survival = SurvivalPlan(
        inner_folds=2, tried=(Step(1e-3, 1e-4),), epochs=15, trees=100, pictures=False, draws=500, seed=seed
    )
    return PortraitPlan(
        size=16, patients=700, train=450, channel_base=256, latent=48, generator_steps=260, encoder_steps=80,
        descent_steps=14, edit_steps=4, restarted=16, restart_steps=40, survival=survival,
        edits=EditPlan(people=30, random=3, permuted=1, resamples=10, draws=500, seed=seed), seed=seed,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedCohort:
    """The cohort with its generator and its latent vectors.

    Attributes:
        cohort: Drawn patients, a photograph each.
        train: Training rows.
        test: Held-out rows.
        generator: Trained on the photographs of `train`.
        encoder: Fitted on the photographs of `train`.
        distance: What the descents made small.
        embedding: Of all photographs.
        restarted: Of the first held-out photographs, with a second start.
        fitted_on: On whom generator and encoder were fitted.
        history: Rows of the training, for a table.
    """

    cohort: PortraitCohort
    train: np.ndarray
    test: np.ndarray
    generator: Generator
    encoder: LatentEncoder
    distance: PictureDistance
    embedding: Embedding
    restarted: Embedding
    fitted_on: tuple[FittedOn, ...]
    history: Mapping[str, float]

    @property
    def latents(self) -> np.ndarray:
        """The latent vectors in float64."""
        return self.embedding.latents.double().numpy()


def embedded_cohort(plan: PortraitPlan, out: Path | None, tell: Tell = lambda _: None) -> EmbeddedCohort:
    """Draws the cohort, trains the generator and the encoder on training patients, and embeds everybody.

    Args:
        plan: Sizes.
        out: Folder in which what is finished is kept, so that a killed run goes on; None for none.
        tell: Told of the progress.
    """
    cohort = portrait_cohort(plan.patients, size=plan.size, seed=plan.seed)
    train, test = np.arange(plan.train), np.arange(plan.train, plan.patients)
    tell(f"drew {plan.patients} faces of {plan.size} pixels, {plan.train} of them to train on")
    photographs = cohort.pictures[torch.as_tensor(train)]
    shape = StyleGAN2Shape(
        plan.size, latent=plan.latent, width=plan.latent, mapping_layers=4, channel_base=plan.channel_base
    )
    generator = Generator(shape, seed=plan.seed)
    discriminator = Discriminator(shape, seed=plan.seed + 1)
    history = finetune(
        generator,
        discriminator,
        photographs,
        _training(plan),
        folder=None if out is None else out / "generator",
        patients=cohort.patient[train].tolist(),
        resume=True,
        on_row=lambda row: tell(f"generator: step {row.step} of {plan.generator_steps}"),
    )
    distance = PyramidDistance()
    encoder = _encoder(generator, photographs, plan, distance, out, tell)
    descent = InversionSettings(
        start=Start.WARM, steps=plan.descent_steps, restarts=0, batch=64, mean_draws=2000, patience=None, seed=plan.seed
    )
    folder = None if out is None else out / "embedding"
    tell("embedding")
    found = embed(generator, cohort.pictures, descent, distance, encoder=encoder, folder=folder, resume=True)
    again = InversionSettings(
        start=Start.COLD, steps=plan.restart_steps, restarts=1, candidates=32, batch=64, mean_draws=2000,
        patience=None, seed=plan.seed,
    )  # fmt: skip
    some = cohort.pictures[torch.as_tensor(test[: plan.restarted])]
    restarted = embed(generator, some, again, distance)
    names = cohort.patient[train].tolist()
    fitted_on = tuple(FittedOn.of(what, names) for what in ("generator", "encoder"))
    last = history.rows[-1].values if history.rows else {}
    return EmbeddedCohort(
        cohort, train, test, generator, encoder, distance, found, restarted, fitted_on, dict(last)
    )  # fmt: skip


def _training(plan: PortraitPlan) -> AdversarialSettings:
    """From scratch in little time: no changes for the discriminator, one vector per picture, a fast average."""
    return AdversarialSettings(
        steps=plan.generator_steps,
        batch=plan.generator_batch,
        start=Training.SCRATCH,
        learning_rate=0.004,
        r1=0.02,
        path_length=0.0,
        style_mixing=0.0,
        average_images=2000,
        augmentation=Augmentation(),
        adapted=False,
        reuse_generated=True,
        log_interval=max(1, plan.generator_steps // 10),
        seed=plan.seed,
    )


def _encoder(
    generator: Generator,
    photographs: Tensor,
    plan: PortraitPlan,
    distance: PictureDistance,
    out: Path | None,
    tell: Tell,
) -> LatentEncoder:
    path = None if out is None else out / "encoder.safetensors"
    if path is not None and path.is_file():
        return LatentEncoder.load(path)
    tell("encoder")
    settings = EncoderSettings(
        steps=plan.encoder_steps, passes=1, channels=16, channel_max=64 if plan.size == 16 else 128,
        learning_rate=2e-3, mean_draws=2000, seed=plan.seed,
    )  # fmt: skip
    encoder = fit_encoder(generator, photographs, settings, distance)
    if path is not None:
        encoder.save(path)
    return encoder


@dataclass(frozen=True, slots=True, eq=False)
class PortraitChain:
    """Everything that the experiment computed."""

    plan: PortraitPlan
    embedded: EmbeddedCohort
    survival: SurvivalFindings
    directions: FittedDirections
    edits: tuple[JudgedEdit, ...]
    judge: Judge


def portrait_chain(plan: PortraitPlan, out: Path | None = None, tell: Tell = lambda _: None) -> PortraitChain:
    """Runs the whole chain.

    Args:
        plan: Sizes.
        out: Folder in which networks and vectors are kept, so that a killed run goes on; None for none.
        tell: Told of the progress.
    """
    with threads_for_side(plan.size):
        return _chain(plan, out, tell)


def _chain(plan: PortraitPlan, out: Path | None, tell: Tell) -> PortraitChain:
    if out is not None:
        write_json(out / "plan.json", {"size": plan.size, "seed": plan.seed, "patients": plan.patients})
    embedded = embedded_cohort(plan, out, tell)
    cohort, train, test = embedded.cohort, embedded.train, embedded.test
    rows = PortraitRows(
        embedded.latents, cohort.clinical, cohort.outcome, cohort.patient, cohort.pictures, subgroups_of(cohort)
    )
    known = {"oracle, what a photograph shows": cohort.expected(Known.PHOTOGRAPH), "oracle": cohort.log_hazard}
    survival = portrait_survival(rows, train, test, plan.survival, known=known, tell=tell)
    directions, judge, edits = edited_cohort(embedded, plan, tell)
    return PortraitChain(plan, embedded, survival, directions, edits, judge)


def edited_cohort(
    embedded: EmbeddedCohort, plan: PortraitPlan, tell: Tell = lambda _: None
) -> tuple[FittedDirections, Judge, tuple[JudgedEdit, ...]]:
    """Directions of one fold of the training patients, a judge of the other, and edits of held-out faces."""
    cohort, latents = embedded.cohort, embedded.latents
    outcome: SurvivalOutcome = cohort.outcome
    patient = cohort.patient.astype(str)
    own, other = two_folds(embedded.train, patient, outcome, seed=plan.seed)
    age = cohort.factors["age"].to_numpy(dtype=np.float64)
    directions = fitted_directions(latents[own], outcome[own], patient[own], age=age[own], plan=plan.edits)
    tell(directions.agreement.sentence())
    descent = InversionSettings(
        start=Start.WARM, steps=plan.edit_steps, restarts=0, batch=128, mean_draws=2000, patience=None, seed=plan.seed
    )

    def again(pictures: Tensor) -> np.ndarray:
        found = embed(embedded.generator, pictures, descent, embedded.distance, encoder=embedded.encoder)
        return found.latents.double().numpy()

    judge = fitted_judge(latents, outcome, patient, other, own, seed=plan.seed)
    readers: dict[str, Reader] = {**judge.readers(again), **factor_readers(cohort, embedded.train)}
    edits = judged_edits(
        directions,
        latents[embedded.test],
        patient[embedded.test],
        embedded.generator.decode,
        readers,
        background=cohort.background[torch.as_tensor(embedded.test)],
        plan=plan.edits,
        tell=tell,
    )
    return directions, judge, edits


def factor_readers(cohort: PortraitCohort, train: np.ndarray) -> dict[str, Reader]:
    """Readers of illness and age that know neither generator nor hazard, in standard deviations over training faces."""

    def reader(name: str) -> Reader:
        spread = float(cohort.factors[name].to_numpy()[train].std())
        return lambda pictures: portrait_reader()(pictures)[name].to_numpy() / spread

    return {name: reader(name) for name in READ}


def subgroups_of(cohort: PortraitCohort) -> dict[str, np.ndarray]:
    """Columns whose levels are scored apart: sex, age, skin tone, glasses."""
    factors = cohort.factors
    skin = np.digitize(factors["skin_tone"].to_numpy(), [1 / 3, 2 / 3])
    return {
        "sex": np.where(factors["sex"].to_numpy() > 0, "male", "female"),
        "age": np.where(factors["age"].to_numpy() < 62, "under 62", "62 or more"),
        "skin tone": np.array(["light", "medium", "dark"])[skin],
        "glasses": np.where(factors["glasses"].to_numpy() > 0, "yes", "no"),
    }
