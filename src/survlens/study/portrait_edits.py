"""Edits of held-out portraits along health directions and controls, each judged by what is read from its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import FitError, LeakageError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.score import Score
from survlens.evaluate.edit_pictures import IdentityKept, background_change, identity_kept
from survlens.evaluate.edits import EditResponse, edit_response
from survlens.evaluate.score_over_time import Intervals
from survlens.explain.direction_agreement import DirectionAgreement, direction_agreement
from survlens.explain.direction_controls import permuted_directions, random_directions
from survlens.explain.directions import LatentDirection, Metric, health_direction, value_direction, without
from survlens.explain.latent_edits import EditedLatents, edited
from survlens.explain.latent_frame import LatentFrame

Pictures = Float[Tensor, "instance channel height width"]
Reader = Callable[[Pictures], np.ndarray]
"""From pictures in [0, 1] to one number each, in standard deviations over training photographs."""
Decode = Callable[[Tensor], Pictures]
RAW, PROJECTED, COVARIATE = "hazard", "hazard, age projected out", "hazard, age as covariate"
AGE = "age"
RISK, ILLNESS = "risk", "illness"
"""Readers of health: the predicted risk, and where faces are drawn the true illness."""
_BATCH = 256


@dataclass(frozen=True, slots=True)
class EditPlan:
    """How portraits are edited.

    Attributes:
        steps: In standard deviations of predicted risk; 0 is the unedited picture.
        people: Most held-out patients whose pictures are edited.
        random: Random directions beside.
        permuted: Directions from permuted outcomes beside.
        metric: The length in which directions are steepest.
        resamples: Resamples behind the bootstrap cosine of the direction.
        draws: Resamples of patients behind every interval.
        seed: Seed of everything random.
    """

    steps: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    people: int = 60
    random: int = 5
    permuted: int = 3
    metric: Metric = Metric.WHITENED
    resamples: int = 30
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class FittedDirections:
    """Directions of training patients.

    Attributes:
        versions: The direction of the hazard, in its versions, and that of age where age is known.
        controls: Random directions, and those of permuted outcomes.
        agreements: How far each version comes back from other patients; none for age.
        frame: The frame that they share.
        left_out: Why a version is missing, by its name.
    """

    versions: Mapping[str, LatentDirection]
    controls: Mapping[str, LatentDirection]
    agreements: Mapping[str, DirectionAgreement]
    frame: LatentFrame
    left_out: Mapping[str, str]

    @property
    def agreement(self) -> DirectionAgreement:
        """How far the raw direction of the hazard comes back."""
        return self.agreements[RAW]


@dataclass(frozen=True, slots=True, eq=False)
class JudgedEdit:
    """What edited pictures along one direction show.

    Attributes:
        name: The direction.
        control: Whether it ought to do nothing.
        latents: The edited vectors.
        pictures: Their pictures.
        readings: How each reader's value follows the steps.
        identity: Whether edits stay with the person.
        background: How much the background changes beside the rest; None where it is not known.
    """

    name: str
    control: bool
    latents: EditedLatents
    pictures: Float[Tensor, "instance step channel height width"]
    readings: Mapping[str, EditResponse]
    identity: IdentityKept
    background: Score | None

    def scores(self) -> dict[str, Score]:
        """What a report shows beside slopes, by name."""
        found = {f"{name} rises": response.strict for name, response in self.readings.items()}
        found["recognised"] = self.identity.recognised
        return found if self.background is None else found | {"background change": self.background}


def fitted_directions(
    latents: np.ndarray,
    outcome: SurvivalOutcome,
    patient: np.ndarray,
    *,
    age: np.ndarray | None,
    plan: EditPlan,
    sphere: bool = False,
) -> FittedDirections:
    """Fits the direction of the hazard in its versions, and controls, on training patients.

    Args:
        latents: Latent vectors of training patients only.
        outcome: Their outcome.
        patient: Patient of each row.
        age: Age of each row; None where it is not known, and only the raw version can be made.
        plan: How.
        sphere: Whether latent vectors live on a sphere.
    """
    frame = LatentFrame.of(latents, patient=patient, sphere=sphere, seed=plan.seed)
    raw = health_direction(frame, latents, outcome, patient=patient, metric=plan.metric, seed=plan.seed)
    versions: dict[str, LatentDirection] = {RAW: raw}
    left_out: dict[str, str] = {}
    if age is None:
        left_out |= {name: "age is not known" for name in (PROJECTED, COVARIATE)}
    else:
        own = value_direction(frame, latents, age, patient=patient, metric=plan.metric, seed=plan.seed)
        makers: dict[str, Callable[[], LatentDirection]] = {
            PROJECTED: lambda: without(raw, own),
            COVARIATE: lambda: health_direction(
                frame, latents, outcome, patient=patient, covariates=age[:, None], metric=plan.metric, seed=plan.seed
            ),
        }
        for name, make in makers.items():
            try:
                versions[name] = make()
            except FitError as error:
                left_out[name] = str(error)
        versions[AGE] = own
    controls: tuple[LatentDirection, ...] = ()
    if plan.random:
        controls += random_directions(raw, plan.random, seed=plan.seed)
    if plan.permuted:
        controls += permuted_directions(raw, latents, outcome, plan.permuted, patient=patient, seed=plan.seed)
    besides: dict[str, tuple[np.ndarray | None, LatentDirection | None]] = {
        RAW: (None, None),
        PROJECTED: (None, versions.get(AGE)),
        COVARIATE: (None if age is None else age[:, None], None),
    }
    agreements = {
        name: direction_agreement(
            versions[name], latents, outcome, patient=patient, covariates=columns, aside=aside, draws=plan.resamples,
            seed=plan.seed,
        )
        for name, (columns, aside) in besides.items()
        if name in versions
    }  # fmt: skip
    return FittedDirections(versions, {each.name: each for each in controls}, agreements, frame, left_out)


def judged_edits(
    directions: FittedDirections,
    latents: np.ndarray,
    patient: np.ndarray,
    decode: Decode,
    readers: Mapping[str, Reader],
    *,
    background: Tensor | None = None,
    plan: EditPlan,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[JudgedEdit, ...]:
    """Edits held-out patients along every direction and reads the pictures.

    Args:
        directions: Directions of training patients.
        latents: Latent vectors of held-out photographs.
        patient: Their patients; the first photograph of each is edited.
        decode: From latent vectors to pictures in [0, 1].
        readers: What is read from pictures, by name. A reader of risk must find latent vectors anew in the picture, and
            its model must be fitted to patients whom the directions have not seen.
        background: Where the background of each held-out photograph is.
        plan: How.
        tell: Told of every direction.

    Raises:
        LeakageError: If a direction was fitted on a patient who is edited.
    """
    seen = directions.versions[RAW].fitted_on.seen(patient)
    if seen:
        raise LeakageError(
            f"patients who are edited must not have fitted the direction; got {seen} who did. Hold them out."
        )
    chosen = np.sort(np.unique(patient, return_index=True)[1])[: plan.people]
    intervals = Intervals(plan.draws, plan.seed)
    behind = None if background is None else background[torch.as_tensor(chosen)]
    original = _decoded(decode, latents[chosen][:, None])[:, 0]
    found = []
    for name, direction in {**directions.versions, **directions.controls}.items():
        moved = edited(direction, latents[chosen], plan.steps)
        pictures = _decoded(decode, moved.latents)
        flat = pictures.flatten(0, 1)
        read = {
            who: edit_response(
                plan.steps, np.asarray(reader(flat)).reshape(pictures.shape[:2]), reader=who, intervals=intervals
            )
            for who, reader in readers.items()
        }
        kept = identity_kept(original, pictures, intervals=intervals)
        change = None if behind is None else background_change(original, pictures, behind, intervals=intervals)
        found.append(JudgedEdit(name, name in directions.controls, moved, pictures, read, kept, change))
        tell(f"edited along {name}: " + ", ".join(f"{who} {each.slope.value:+.2f}" for who, each in read.items()))
    return tuple(found)


def _decoded(decode: Decode, latents: np.ndarray) -> Float[Tensor, "instance step channel height width"]:
    count, steps = latents.shape[:2]
    flat = torch.as_tensor(latents.reshape(count * steps, -1), dtype=torch.float32)
    with torch.no_grad():
        pictures = torch.cat([decode(part).cpu() for part in flat.split(_BATCH)])
    return pictures.reshape(count, steps, *pictures.shape[1:])
