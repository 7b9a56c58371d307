"""The job of `survlens portrait edit`: health and age edits of held-out portraits, with everything that judges them.

Training patients are cut in two: directions are fitted to the first part, and the risk model that reads edited pictures
to the second. What is read is a latent vector found anew in the edited picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from survlens.explain.directions import ridge_penalty, ridge_weights
from survlens.explain.latent import per_patient
from survlens.generators.stylegan2.generator import Generator
from survlens.models.penalised import RidgeCox
from survlens.study.portrait_columns import SUMMARY
from survlens.study.portrait_comparison import EditComparison, compared
from survlens.study.portrait_edits import (
    AGE,
    RISK,
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
    TABLE,
    EmbedPlan,
    latents_of,
    networks_of,
    picture_distance,
    read_networks,
    recorded_settings,
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
READ_ANEW = (
    "a model of latent vectors found anew in the pictures, in standard deviations of its predictions over its own "
    "patients, who are training patients that the directions have not seen"
)
"""How `Judge` reads risk and age."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Models of risk and of age of patients whom the directions have not seen, and how good they are.

    Attributes:
        model: Risk, from latent vectors.
        spread: Standard deviation of its risk over its own patients.
        concordance: Its concordance on the patients of the directions, who are new to it.
        age: Age from latent vectors; None where age is not known.
        fitted_on: Its patients.
    """

    model: RidgeCox
    spread: float
    concordance: float
    age: AgeJudge | None
    fitted_on: FittedOn

    def readers(self, embedder: Embedder) -> dict[str, Reader]:
        """From pictures to risk and age, in standard deviations, by latent vectors found anew, once for both."""
        known: list[tuple[Tensor, np.ndarray]] = []

        def vectors(pictures: Tensor) -> np.ndarray:
            if not known or known[0][0] is not pictures:
                known[:] = [(pictures, embedder(pictures))]
            return known[0][1]

        risk: Reader = lambda pictures: self.model.predict(vectors(pictures)) / self.spread  # noqa: E731
        age = self.age
        return {RISK: risk} if age is None else {RISK: risk, AGE: lambda pictures: age.predict(vectors(pictures))}


@dataclass(frozen=True, slots=True, eq=False)
class AgeJudge:
    """Ridge regression of age on latent vectors.

    Attributes:
        weights: Coefficients, in standard deviations of the prediction over its own patients.
        r2: Share of the variance of age that it reads in the patients of the directions.
    """

    weights: np.ndarray
    r2: float

    def predict(self, latents: np.ndarray) -> np.ndarray:
        """Age up to a constant, in standard deviations."""
        return latents @ self.weights


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
    age: np.ndarray | None = None,
    seed: int,
) -> Judge:
    """A ridge Cox model, and a ridge regression of age, of the rows `own`, scored on the rows `others`."""
    model = RidgeCox(seed=seed)
    model.fit(latents[own], outcome[own], groups=patient[own])
    risk = model.predict(latents)
    means, held_out = per_patient(risk[others][:, None], outcome[others], patient[others])
    spread = max(float(risk[own].std()), 1e-12)
    known = None if age is None else _age_judge(latents, age, patient, own, others, seed=seed)
    return Judge(
        model, spread, concordance_index(means[:, 0], held_out).value, known, FittedOn.of("judge", patient[own])
    )


def _age_judge(
    latents: np.ndarray, age: np.ndarray, patient: np.ndarray, own: np.ndarray, others: np.ndarray, *, seed: int
) -> AgeJudge:
    mean, spread = latents[own].mean(0), np.maximum(latents[own].std(0), 1e-12)
    v = (latents - mean) / spread
    penalty = ridge_penalty(v[own], age[own], patient[own], seed=seed)
    weights = ridge_weights(v[own], age[own], penalty)
    read = v @ weights + age[own].mean()
    r2 = 1 - float(np.square(age[others] - read[others]).mean() / max(float(age[others].var()), 1e-12))
    return AgeJudge(weights / spread / max(float(read[own].std()), 1e-12), r2)


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
    comparisons: Mapping[str, EditComparison]
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
        raise UsageError(f"`space` must be that of the embedding, {found.space.value}; got another.")
    start = embed_plan.inversion.first_start()
    if start is not found.start:
        raise UsageError(f"`start` must be that of the embedding, {found.start.value}; got {start.value}.")
    changed = _changed_schedule(embed_plan.inversion, recorded_settings(embedding))
    if changed:
        tell(changed)
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
    judge = fitted_judge(latents, outcome, patient, other, own, age=known_age, seed=plan.seed)
    tell(f"risk model of the other patients: C {judge.concordance:.3f}")
    encoder = LatentEncoder.load(embedding / ENCODER) if start is Start.WARM else None
    readers = judge.readers(embedder_of(network, embed_plan.inversion, distance, encoder))
    edits = judged_edits(
        directions, latents[test], patient[test], _decoder(network, found.space), readers, plan=plan, tell=tell
    )
    sentences = [*before.get("fitted_on", []), directions.versions["hazard"].fitted_on.remark(patient[test])]
    sentences.append(judge.fitted_on.remark(patient[own]) + f" Its C on these: {judge.concordance:.3f}.")
    if judge.age is not None:
        sentences.append(
            f"Age is read by a ridge regression of the same patients; its R2 on these: {judge.age.r2:.2f}."
        )
    remarks = [*([changed] if changed else []), *before.get("remarks", [])]
    remarks += [f"Left out: {name}, because {reason}" for name, reason in directions.left_out.items()]
    facts = PortraitFacts(
        found.summary(), found.agreement.tolist(), found.space.value, sentences,
        bool(before.get("transductive", False)), remarks=remarks, readers=dict.fromkeys(readers, READ_ANEW),
    )  # fmt: skip
    first = test[np.sort(np.unique(patient[test], return_index=True)[1])][: plan.people]
    photographs = table[first[:shown]].pictures(network.shape.resolution) if shown else torch.empty(0)
    comparisons = compared(edits, directions, plan)
    record = write_record(run_folder, facts, edits, comparisons, photographs, shown=shown)
    for edit in edits:
        if not edit.control:
            _write_pictures(record.parent / "pictures", edit, shown)
    return EditJobResult(directions, edits, comparisons, judge, record)


def _changed_schedule(now: InversionSettings, then: InversionSettings) -> str:
    """How edited pictures are embedded in another way than the photographs, in words; "" where they are not."""
    before = then.identity()
    # Restarts and the random points that they start from say how far a vector can be trusted, and change none.
    free = {"restarts"} | (set() if then.first_start() is Start.BEST_OF else {"candidates"})
    changed = [f"{name} {value}, photographs {before[name]}" for name, value in now.identity().items()
               if name not in free and value != before[name]]  # fmt: skip
    if not changed:
        return ""
    return (
        f"Edited pictures were embedded in another way than the photographs ({'; '.join(changed)}), so part of what is "
        "read from them may come of that."
    )


def _decoder(network: Generator, space: LatentSpace) -> Callable[[Tensor], Tensor]:
    if space is LatentSpace.W:
        return network.decode
    return lambda z: network.decode(network.mapping(z))


def _write_pictures(folder: Path, edit: JudgedEdit, shown: int) -> None:
    name = edit.name.replace(",", "").replace(" ", "-")
    for person, strip in enumerate(edit.pictures[:shown], start=1):
        row = torch.cat(list(strip), dim=2)
        write_picture(folder / f"{name}-{person}.png", row)
