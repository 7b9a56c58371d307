"""The job of `survlens portrait edit`: health and age edits of held-out portraits, with everything that judges them.

Training patients are cut in two: directions are fitted to the first part, and the risk model that reads edited pictures
to the second. What is read is a latent vector found anew in the edited picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from survlens.artifacts.run_folder import read_json
from survlens.core.errors import UsageError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.dealing import part_of
from survlens.data.fitted_on import FittedOn
from survlens.evaluate.concordance import concordance_index
from survlens.explain.latent import per_patient
from survlens.generators.stylegan2.generator import Generator
from survlens.models.penalised import RidgeCox
from survlens.study.portrait_edits import (
    EditPlan,
    FittedDirections,
    JudgedEdit,
    Reader,
    fitted_directions,
    judged_edits,
)
from survlens.study.portrait_embed import (
    ENCODER,
    FILE,
    SUMMARY,
    TABLE,
    EmbedPlan,
    latents_of,
    networks_of,
    picture_distance,
    read_networks,
)
from survlens.study.portrait_files import PATIENT, TEST, TRAIN, PhotoTable, write_picture
from survlens.study.portrait_record import PortraitFacts, write_record
from survlens.training.inversion import embed
from survlens.training.inversion_encoder import LatentEncoder
from survlens.training.inversion_result import Embedding
from survlens.training.inversion_settings import InversionSettings, LatentSpace, Start
from survlens.training.picture_distance import PictureDistance

Embedder = Callable[[Tensor], np.ndarray]
"""From pictures to latent vectors."""
JUDGE_SHARE = 0.4
"""Share of the training patients to whom the risk model that judges edits is fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A risk model of patients whom the directions have not seen, and how good it is.

    Attributes:
        model: Fitted on standardised or raw latent vectors.
        spread: Standard deviation of its risk over its own patients.
        concordance: Its concordance on the patients of the directions, who are new to it.
        fitted_on: Its patients.
    """

    model: RidgeCox
    spread: float
    concordance: float
    fitted_on: FittedOn

    def reader(self, embedder: Embedder) -> Reader:
        """From pictures to risk, in its standard deviations, by latent vectors found anew."""
        return lambda pictures: self.model.predict(embedder(pictures)) / self.spread


def two_folds(
    rows: np.ndarray, patient: np.ndarray, outcome: SurvivalOutcome, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training rows for the directions, and those for the judge: whole patients, stratified by event."""
    return part_of(patient, outcome, rows, fraction=JUDGE_SHARE, seed=seed, what="judge_share")


def fitted_judge(
    latents: np.ndarray,
    outcome: SurvivalOutcome,
    patient: np.ndarray,
    own: np.ndarray,
    others: np.ndarray,
    *,
    seed: int,
) -> Judge:
    """A ridge Cox model of the rows `own`, scored on the rows `others`."""
    model = RidgeCox(seed=seed)
    model.fit(latents[own], outcome[own], groups=patient[own])
    risk = model.predict(latents)
    means, held_out = per_patient(risk[others][:, None], outcome[others], patient[others])
    spread = max(float(risk[own].std()), 1e-12)
    return Judge(model, spread, concordance_index(means[:, 0], held_out).value, FittedOn.of("judge", patient[own]))


def embedder_of(
    generator: Generator, settings: InversionSettings, distance: PictureDistance, encoder: LatentEncoder | None
) -> Embedder:
    """Finds latent vectors anew, as the cohort was embedded, without restarts."""
    settings = replace(settings, restarts=0)
    return lambda pictures: embed(generator, pictures, settings, distance, encoder=encoder).latents.double().numpy()


@dataclass(frozen=True, slots=True, eq=False)
class EditJobResult:
    """What `edit_job` found, and where the record stands."""

    directions: FittedDirections
    edits: tuple[JudgedEdit, ...]
    judge: Judge
    record: Path


def edit_job(
    embedding: Path,
    generator: Path,
    run_folder: Path,
    embed_plan: EmbedPlan,
    plan: EditPlan,
    *,
    unit: str = "months",
    age: str | None = "age",
    shown: int = 4,
    tell: Callable[[str], object] = lambda _: None,
) -> EditJobResult:
    """Fits directions, edits held-out portraits, reads their pictures, and writes the record that a report shows.

    Args:
        embedding: Folder that `embed_job` wrote, from a table with the columns part, time and event.
        generator: Its weights, or the folder of a fine-tuned generator.
        run_folder: Folder of a run, whose report then shows it; or a new one.
        embed_plan: How edited pictures are embedded; as the photographs were.
        plan: How portraits are edited.
        unit: Unit of time.
        age: Column of the age; None, or a column that is not there, where it is not known.
        shown: People whose pictures are written.
        tell: Told of the progress.

    Raises:
        UsageError: If the embedding has no test part, or was made in another way than `embed_plan` says.
    """
    found, before = Embedding.load(embedding / FILE), read_json(embedding / SUMMARY)
    table = replace(PhotoTable.read(embedding / TABLE), folder=embedding / before["photographs"])
    network, discriminator = read_networks(generator)
    if embed_plan.inversion.space is not found.space:
        raise UsageError(f"`space` must be that of the embedding, {found.space.value}; got another. Give --space.")
    start = embed_plan.inversion.first_start()
    if start is not found.start:
        raise UsageError(
            f"`start` must be that of the embedding, {found.start.value}; got {start.value}. "
            f"Give --start '{found.start.value}'."
        )
    distance = picture_distance(discriminator, embed_plan)
    for name, now in networks_of(network, distance).items():
        then = before.get("networks", {}).get(name, now)
        if now != then:
            raise UsageError(
                f"the {name} must be the one that the photographs were embedded with ({then}); got {now}. "
                "Give the same --generator and --vgg, or embed the photographs again."
            )
    train, test = table.part(TRAIN), table.part(TEST)
    if not test.size:
        raise UsageError(
            "the table must have rows with part = test, whose pictures are edited; got none. Add the column."
        )
    if len(set(table.words(PATIENT)[test].tolist())) < 2:
        raise UsageError("two or more patients must have part = test, so that edits can be compared; got one.")
    latents = latents_of(table.frame, found.space.value)
    patient, outcome = table.words(PATIENT), table.outcome(unit)
    known_age = table.numbers(age) if age is not None and age in table.frame else None
    own, other = two_folds(train, patient, outcome, seed=plan.seed)
    directions = fitted_directions(
        latents[own],
        outcome[own],
        patient[own],
        age=None if known_age is None else known_age[own],
        plan=plan,
        sphere=found.space is LatentSpace.Z,
    )
    tell(directions.agreement.sentence())
    judge = fitted_judge(latents, outcome, patient, other, own, seed=plan.seed)
    tell(f"risk model of the other patients: C {judge.concordance:.3f}")
    encoder = LatentEncoder.load(embedding / ENCODER) if start is Start.WARM else None
    readers = {"risk": judge.reader(embedder_of(network, embed_plan.inversion, distance, encoder))}
    edits = judged_edits(
        directions, latents[test], patient[test], _decoder(network, found.space), readers, plan=plan, tell=tell
    )
    sentences = [*before.get("fitted_on", []), directions.versions["hazard"].fitted_on.remark(patient[test])]
    sentences.append(judge.fitted_on.remark(patient[own]) + f" Its C on these: {judge.concordance:.3f}.")
    remarks = [f"Left out: {name}, because {reason}" for name, reason in directions.left_out.items()]
    facts = PortraitFacts(
        found.summary(), found.agreement.tolist(), found.space.value, sentences,
        bool(before.get("transductive", False)), remarks=remarks,
    )  # fmt: skip
    first = test[np.sort(np.unique(patient[test], return_index=True)[1])][: plan.people]
    photographs = table[first[:shown]].pictures(network.shape.resolution) if shown else torch.empty(0)
    record = write_record(run_folder, facts, edits, directions.agreement, photographs, shown=shown)
    for edit in edits:
        if not edit.control:
            _write_pictures(record.parent / "pictures", edit, shown)
    return EditJobResult(directions, edits, judge, record)


def _decoder(network: Generator, space: LatentSpace) -> Callable[[Tensor], Tensor]:
    if space is LatentSpace.W:
        return network.decode
    return lambda z: network.decode(network.mapping(z))


def _write_pictures(folder: Path, edit: JudgedEdit, shown: int) -> None:
    name = edit.name.replace(",", "").replace(" ", "-")
    for person, strip in enumerate(edit.pictures[:shown], start=1):
        row = torch.cat(list(strip), dim=2)
        write_picture(folder / f"{name}-{person}.png", row)
