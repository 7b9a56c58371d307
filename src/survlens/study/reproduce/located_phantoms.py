"""Networks on phantoms, whose tumours are known, and where explanations of them point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.pair_counts import pair_counts
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, log_hazard_rate, survival
from survlens.data.geometry import box_of
from survlens.data.loaders import TensorSource
from survlens.data.simulate.phantom import (
    LOG_HAZARD_PER_LOAD,
    LoadEffect,
    Organ,
    PhantomStudy,
    phantom_survival,
)
from survlens.evaluate.attribution_values import Part
from survlens.evaluate.localisation import Localisation, mask_localisation
from survlens.evaluate.score_over_time import Intervals
from survlens.explain.expected import GradSHAP
from survlens.explain.occlusion import Occlusion
from survlens.explain.references import References
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel
from survlens.study.reproduce.phantom_latents import CoxVAEPlan, fit_phantom_vae, phantom_parts
from survlens.study.reproduce.tables import Record
from survlens.training.fit import fit
from survlens.training.objectives import SurvivalObjective
from survlens.training.settings import FitSettings

if TYPE_CHECKING:
    pass

WINDOW = (-160.0, 240.0)
"""Hounsfield units that become 0 and 1."""
_STEP = 30.0  # Hounsfield units that count as 1 where values are taken from the liver's median
FADING = 0.35
"""By how much the effect of load falls with the logarithm of time where it wears off."""
_INTERVALS = 10
_COX_VAE = "scan and shares of liver and tumour (CoxVAE)"
_GAIN = 8.0  # tumours fill a few hundredths of a volume: the mean over it is brought to the order of 1


class Seen(Enum):
    """What a network is given.

    SCAN_AND_MASK: the windowed scan and the mask of tumours as two channels, as the CoxVAE is.
    LIVER: the scan within the liver (tumours included, but not marked) from its median, 0 elsewhere: tumours have to be
    found.
    """

    SCAN_AND_MASK = "scan and tumour mask"
    LIVER = "scan within the liver"

    def of(self, study: PhantomStudy) -> Float[Tensor, "instance channel x y z"]:
        """The input of every patient."""
        volumes, labels = study.volumes[:, 0], study.labels
        if self is Seen.SCAN_AND_MASK:
            scan = ((volumes - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clip(0, 1)
            channels = np.stack([scan, labels == Organ.TUMOUR.value], axis=1)
            return torch.from_numpy(channels.astype(np.float32))
        found = np.zeros_like(volumes)
        for row, organ in enumerate(labels >= Organ.LIVER.value):
            within = volumes[row][organ]
            found[row][organ] = ((within - np.median(within)) / _STEP).clip(-4, 4)
        return torch.from_numpy(found[:, None].astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalisationPlan:
    """Sizes of the experiment.

    Attributes:
        train: Patients to fit to.
        validation: Patients on whom the best epoch is chosen.
        explained: Patients explained, further ones; those with tumours of too few voxels are left out.
        size: Voxels along each axis.
        least_voxels: Fewest tumour voxels of a patient who is explained.
        times: Months at which survival is explained.
        references: Training patients to compare with.
        window: Side of the box that is covered, in voxels.
        stride: Step of the box.
        epochs: Most epochs of a fit.
        effect: How the effect of tumour load depends on time.
        draws: Bootstrap draws of patients behind the intervals.
        cox_vae: Patients of the CoxVAE, which has phantoms of its own: scan, share of liver and share of tumour as
            channels; 0 for none.
        tolerance: Of the sums of GradSHAP(t).
        seed: Seed of everything.
    """

    train: int = 400
    validation: int = 150
    explained: int = 60
    size: int = 16
    least_voxels: int = 3
    times: tuple[float, ...] = (3.0, 12.0, 24.0, 36.0)
    references: int = 4
    window: int = 2
    stride: int = 1
    epochs: int = 40
    effect: LoadEffect = LoadEffect.CONSTANT
    draws: int = 1000
    cox_vae: int = 0
    tolerance: float = 1e-3
    seed: int = 0

    @property
    def target(self) -> Target:
        """What is explained: survival, or the log-hazard where the effect of load wears off.

        Survival at a time keeps all that came before; only the hazard forgets an effect that has gone.
        """
        return log_hazard_rate if self.effect is LoadEffect.WEARS_OFF else survival

    @property
    def harmful(self) -> Part:
        """Contributions to the target that raise the risk."""
        return Part.RAISING if self.effect is LoadEffect.WEARS_OFF else Part.LOWERING

    @property
    def slope(self) -> Float[np.ndarray, " time"]:
        """True effect on the log-hazard of one standard deviation of log load at each of `times`."""
        fading = FADING if self.effect is LoadEffect.WEARS_OFF else 0.0
        return LOG_HAZARD_PER_LOAD - fading * np.log(np.array(self.times))


class LoadNetwork(nn.Module):
    """Two convolutions that see a voxel and its neighbours, their mean over the volume, and a layer on that.

    Args:
        channels: Channels of the volume.
        width: Width of every layer.
    """

    def __init__(self, channels: int, width: int = 8):
        super().__init__()
        self.voxels = nn.Sequential(
            nn.Conv3d(channels, width, 3, padding=1), nn.SiLU(), nn.Conv3d(width, width, 1), nn.SiLU()
        )
        self.whole = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.out_features = width

    def forward(self, volumes: Float[Tensor, "instance channel x y z"]) -> Float[Tensor, "instance embedding"]:
        """The embedding."""
        return self.whole(self.voxels(volumes).mean((2, 3, 4)) * _GAIN)


@dataclass(frozen=True, slots=True, eq=False)
class LocatedExplanations:
    """Explanations of one network beside the truth.

    Attributes:
        given: What the network is given.
        rows: Patients explained, among those drawn for it.
        pictures: First channel of what the network sees of each, in [0, 1].
        tumour: Where the tumours of each are.
        attributions: By method.
        scores: By method and part of the contributions.
        fit: How well the network orders the patients drawn.
    """

    given: str
    rows: np.ndarray
    pictures: Float[np.ndarray, "instance x y z"]
    tumour: Bool[np.ndarray, "instance x y z"]
    attributions: Mapping[str, Attribution]
    scores: Mapping[tuple[str, Part], Localisation]
    fit: Record


def located_explanations(
    seen: Seen, plan: LocalisationPlan, tell: Callable[[str], object] = lambda _: None
) -> LocatedExplanations:
    """Fits one network, explains patients with tumours, and compares with their masks.

    Args:
        seen: What the network is given.
        plan: Sizes.
        tell: Told of every step.
    """
    train, validation, drawn = _around_livers(
        [
            phantom_survival(count, size=plan.size, effect=plan.effect, seed=3 * plan.seed + part)
            for part, count in enumerate((plan.train, plan.validation, plan.explained))
        ]
    )
    inputs = seen.of(train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        encoder = LoadNetwork(inputs.shape[1])
        model = SurvivalModel({"image": encoder}, _head(encoder.out_features, train.outcome, plan))
    settings = FitSettings(epochs=plan.epochs, batch=64, learning_rate=1e-2, patience=12, seed=plan.seed)
    known = TensorSource({"image": inputs}, train.outcome)
    watched = TensorSource({"image": seen.of(validation)}, validation.outcome)
    fit(model, known, watched, SurvivalObjective(), settings)
    tell(f"{seen.value}: fitted")
    tumour = drawn.labels == Organ.TUMOUR.value
    rows = np.flatnonzero(tumour.sum((1, 2, 3)) >= plan.least_voxels)
    given = seen.of(drawn)
    regions = tumour[rows], drawn.labels[rows] == Organ.LIVER.value
    attributions, scores = _located(seen.value, model, {"image": given[rows]}, {"image": inputs}, regions, plan, tell)
    with torch.no_grad():
        risk = _risk(model, {"image": given}, plan)
    fitted = _fit_row(seen.value, risk, drawn.outcome, drawn.load, drawn.log_hazard, len(rows))
    pictures = given[rows, 0].numpy()
    if seen is Seen.LIVER:
        pictures = (pictures + 4) / 8
    return LocatedExplanations(seen.value, rows, pictures, regions[0], attributions, scores, fitted)


def cox_vae_explanations(plan: LocalisationPlan, tell: Callable[[str], object] = lambda _: None) -> LocatedExplanations:
    """Fits the CoxVAE of the phantoms (τ = 0.9), and explains as many test patients with tumours as of other networks.

    Args:
        plan: Sizes.
        tell: Told of every step.
    """
    vae_plan = CoxVAEPlan(size=plan.size, patients=plan.cox_vae, seed=plan.seed)
    parts = phantom_parts(vae_plan)
    model = fit_phantom_vae(parts, vae_plan, 0.9).model
    tell(f"{_COX_VAE}: fitted")
    drawn = parts.test[: plan.explained]
    shares = parts.volumes[drawn].numpy()
    tumour = shares[:, 2] >= 0.5
    rows = np.flatnonzero(tumour.sum((1, 2, 3)) >= plan.least_voxels)
    regions = tumour[rows], (shares[rows, 1] >= 0.5) & (shares[rows, 2] < 0.05)
    explained = parts.inputs(drawn[rows])
    survival_plan = replace(plan, effect=LoadEffect.CONSTANT)
    found = _located(_COX_VAE, model, explained, parts.inputs(parts.train), regions, survival_plan, tell)
    with torch.no_grad():
        risk = _risk(model, parts.inputs(drawn), survival_plan)
    truth = parts.load[drawn], parts.log_hazard[drawn]
    fitted = _fit_row(_COX_VAE, risk, parts.outcome[drawn], *truth, len(rows))
    return LocatedExplanations(_COX_VAE, rows, shares[rows, 0], regions[0], *found, fitted)


def _head(width: int, outcome: SurvivalOutcome, plan: LocalisationPlan) -> nn.Module:
    if plan.effect is LoadEffect.WEARS_OFF:
        return LogisticHazard(width, TimeGrid.quantile(outcome, _INTERVALS))
    return CoxPH(width)


def _risk(model: Any, inputs: Inputs, plan: LocalisationPlan) -> np.ndarray:
    """The head's risk; where effects change in time, the probability of death by the first month that is explained."""
    if plan.effect is LoadEffect.CONSTANT:
        return model.risk(inputs).double().numpy()
    first = torch.tensor(plan.times[:1], dtype=torch.float64)
    return 1 - model.predict_survival(inputs, first).survival[:, 0].double().numpy()


def _located(
    given: str,
    model: nn.Module,
    explained: Inputs,
    training: Inputs,
    regions: tuple[np.ndarray, np.ndarray],
    plan: LocalisationPlan,
    tell: Callable[[str], object],
) -> tuple[dict[str, Attribution], dict[tuple[str, Part], Localisation]]:
    """Attributions of the image by both methods, and where they lie: in tumours, or in healthy liver."""
    times = torch.tensor(plan.times, dtype=torch.float64)
    drawn = References.sample(training, plan.references, seed=plan.seed)
    mean = References.mean(training)
    methods = {
        "GradSHAP(t)": GradSHAP(drawn, tolerance=plan.tolerance, modalities=("image",)),
        "occlusion": Occlusion(mean, window=plan.window, stride=plan.stride, modalities=("image",)),
    }
    attributions: dict[str, Attribution] = {}
    scores: dict[tuple[str, Part], Localisation] = {}
    for name, method in methods.items():
        attributions[name] = method(model, explained, times, plan.target)["image"]
        tell(f"{given}: explained by {name}")
        for part in (plan.harmful, Part.ABSOLUTE):
            scores[name, part] = mask_localisation(
                attributions[name],
                regions[0],
                against=regions[1],
                part=part,
                intervals=Intervals(draws=plan.draws, seed=plan.seed),
            )
    return attributions, scores


def _around_livers(studies: Sequence[PhantomStudy]) -> list[PhantomStudy]:
    """Volumes cut to the box that the livers of the first study reach, with a margin of one voxel."""
    reached = np.asarray((studies[0].labels >= Organ.LIVER.value).any(0))
    low, high = box_of(reached, (1, 1, 1)).clip(0, reached.shape)
    box = tuple(slice(start, stop) for start, stop in zip(low.tolist(), high.tolist(), strict=True))
    return [replace(each, volumes=each.volumes[:, :, *box], labels=each.labels[:, *box]) for each in studies]


def _fit_row(
    given: str, risk: np.ndarray, outcome: SurvivalOutcome, load: np.ndarray, truth: np.ndarray, explained: int
) -> Record:
    ranks = np.stack([each.argsort().argsort() for each in (risk, load)])
    return {
        "given": given,
        "patients": len(outcome),
        "explained": explained,
        "C": pair_counts(risk, outcome).concordance,
        "C of the true load": pair_counts(load, outcome).concordance,
        "C of the truth": pair_counts(truth, outcome).concordance,
        "rank correlation with load": float(np.asarray(np.corrcoef(ranks))[0, 1]),
    }
