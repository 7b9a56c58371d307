"""Do explanations of volumes point at what the hazard depends on? Networks on phantoms, whose tumours are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.pair_counts import pair_counts
from survlens.core.targets import survival
from survlens.data.geometry import box_of
from survlens.data.loaders import TensorSource
from survlens.data.simulate.phantom import LoadEffect, Organ, PhantomStudy, phantom_survival
from survlens.evaluate.attribution_values import Part
from survlens.evaluate.localisation import Localisation, mask_localisation
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime
from survlens.explain.expected import GradSHAP
from survlens.explain.occlusion import Occlusion
from survlens.explain.references import References
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import SurvivalModel
from survlens.study.reproduce.tables import Findings, Record, ResultTable
from survlens.training.fit import fit
from survlens.training.objectives import SurvivalObjective
from survlens.training.settings import FitSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOW = (-160.0, 240.0)
"""Hounsfield units that become 0 and 1."""
_STEP = 30.0  # Hounsfield units that count as 1 where values are taken from the liver's median
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
    seed: int = 0


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
        seen: What the network is given.
        model: The network.
        rows: Patients explained, among those drawn for it.
        drawn: The patients drawn to be explained.
        attributions: By method.
        scores: By method and part of the contributions.
    """

    seen: Seen
    model: SurvivalModel
    rows: np.ndarray
    drawn: PhantomStudy
    attributions: Mapping[str, Attribution]
    scores: Mapping[tuple[str, Part], Localisation]


def phantom_explanations(plan: LocalisationPlan, tell: Callable[[str], object] = lambda _: None) -> Findings:
    """Fits a Cox network per kind of input, and measures where GradSHAP(t) and occlusion over time point.

    Scores: share of patients whose largest contribution lies in a tumour (pointing game), share of contributions in
    tumours and that by their share of voxels, and contribution per voxel of tumour against that of healthy liver.

    Args:
        plan: Sizes.
        tell: Told of every step.
    """
    found = [located_explanations(seen, plan, tell) for seen in Seen]
    rows = [row for each in found for row in _score_rows(each)]
    tables = (
        ResultTable("fit", "Networks on the patients drawn to be explained", [_fit_row(each) for each in found]),
        ResultTable("over_time", "Mean over times, 95 % intervals over patients", rows),
        ResultTable("by_time", "At each month, contributions that raise the risk", _rows_by_time(found)),
    )
    remarks = (
        f"{plan.train} training patients, {plan.size}³ voxels; explained are those of {plan.explained} further "
        f"patients with at least {plan.least_voxels} voxels of tumour. References: {plan.references} of the training "
        "patients.",
        "Volumes are cut to the box that the livers of training patients reach. Covered are boxes of "
        f"{plan.window}³ voxels, and tumours are often smaller than one.",
        "A mass ratio of 1 is an even spread over the volume; 0.5 against the liver says that a voxel of tumour counts "
        "as much as one of healthy liver.",
        "The network that is given the mask of tumours is told where they are; that which is given the liver has to "
        "find them, and what it misses no explanation can show.",
    )
    figures = {"phantom_explanations": lambda: _figure(found)}
    return Findings("phantom_explanations", "Explanations of phantoms beside the truth", tables, remarks, figures)


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
        model = SurvivalModel({"image": encoder}, CoxPH(encoder.out_features))
    settings = FitSettings(epochs=plan.epochs, batch=64, learning_rate=1e-2, patience=12, seed=plan.seed)
    known = TensorSource({"image": inputs}, train.outcome)
    watched = TensorSource({"image": seen.of(validation)}, validation.outcome)
    fit(model, known, watched, SurvivalObjective(), settings)
    tell(f"{seen.value}: fitted")
    tumour = drawn.labels == Organ.TUMOUR.value
    rows = np.flatnonzero(tumour.sum((1, 2, 3)) >= plan.least_voxels)
    explained = {"image": seen.of(drawn)[rows]}
    times = torch.tensor(plan.times, dtype=torch.float64)
    drawn_references = References.sample({"image": inputs}, plan.references, seed=plan.seed)
    methods = {
        "GradSHAP(t)": GradSHAP(drawn_references, tolerance=1e-3),
        "occlusion": Occlusion(References.mean({"image": inputs}), window=plan.window, stride=plan.stride),
    }
    attributions, scores = {}, {}
    for name, method in methods.items():
        attributions[name] = method(model, explained, times, survival)["image"]
        tell(f"{seen.value}: explained by {name}")
        for part in (Part.LOWERING, Part.ABSOLUTE):
            scores[name, part] = mask_localisation(
                attributions[name],
                tumour[rows],
                against=drawn.labels[rows] == Organ.LIVER.value,
                part=part,
                intervals=Intervals(draws=plan.draws, seed=plan.seed),
            )
    return LocatedExplanations(seen, model, rows, drawn, attributions, scores)


def _around_livers(studies: Sequence[PhantomStudy]) -> list[PhantomStudy]:
    """Volumes cut to the box that the livers of the first study reach, with a margin of one voxel."""
    reached = np.asarray((studies[0].labels >= Organ.LIVER.value).any(0))
    low, high = box_of(reached, (1, 1, 1)).clip(0, reached.shape)
    box = tuple(slice(start, stop) for start, stop in zip(low.tolist(), high.tolist(), strict=True))
    return [replace(each, volumes=each.volumes[:, :, *box], labels=each.labels[:, *box]) for each in studies]


def _fit_row(found: LocatedExplanations) -> Record:
    study = found.drawn
    with torch.no_grad():
        risk = found.model.risk({"image": found.seen.of(study)}).double().numpy()
    ranks = np.stack([each.argsort().argsort() for each in (risk, study.load)])
    return {
        "given": found.seen.value,
        "patients": len(study),
        "explained": len(found.rows),
        "C": pair_counts(risk, study.outcome).concordance,
        "C of the true load": pair_counts(study.load, study.outcome).concordance,
        "C of the truth": pair_counts(study.log_hazard, study.outcome).concordance,
        "rank correlation with load": float(np.asarray(np.corrcoef(ranks))[0, 1]),
    }


_PARTS: Mapping[Part, str] = {Part.LOWERING: "raise the risk", Part.ABSOLUTE: "all"}


def _score_rows(found: LocatedExplanations) -> list[Record]:
    rows: list[Record] = []
    for (method, part), scores in found.scores.items():
        row: dict[str, Any] = {"given": found.seen.value, "method": method, "contributions": _PARTS[part]}
        for name, score in _named(scores).items():
            row[name] = score.score.value
            limits = score.score.interval
            row[f"{name}, from"], row[f"{name}, to"] = (None, None) if limits is None else (limits.lower, limits.upper)
        rows.append(row)
    return rows


def _rows_by_time(found: Sequence[LocatedExplanations]) -> list[Record]:
    rows: list[Record] = []
    for each in found:
        for (method, part), scores in each.scores.items():
            if part is not Part.LOWERING:
                continue
            named = _named(scores)
            for column, month in enumerate(scores.pointing.times):
                row: dict[str, Any] = {"given": each.seen.value, "method": method, "month": float(month)}
                for name, score in named.items():
                    row[name] = float(score.values[column])
                rows.append(row)
    return rows


def _named(scores: Localisation) -> dict[str, ScoreOverTime]:
    found = {"pointing": scores.pointing, "mass": scores.mass, "mass ratio": scores.mass_ratio}
    return found if scores.against is None else {**found, "against liver": scores.against}


def _figure(found: Sequence[LocatedExplanations]) -> Figure:
    """The slice of the largest tumour of the first patient explained: what the network saw, and both explanations."""
    from matplotlib.figure import Figure

    methods = tuple(found[0].attributions)
    figure = Figure(figsize=(3 * (1 + len(methods)), 3 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 1 + len(methods), squeeze=False)
    for line, each in zip(axes, found, strict=True):
        tumour = each.drawn.labels[each.rows] == Organ.TUMOUR.value
        row = int(tumour.sum((1, 2, 3)).argmax())
        level = int(tumour[row].sum((0, 1)).argmax())
        edge = tumour[row, :, :, level].T.astype(float)
        line[0].imshow(each.seen.of(each.drawn)[each.rows[row], 0, :, :, level].numpy().T, cmap="gray", origin="lower")
        line[0].set_title(f"given: {each.seen.value}", fontsize=9)
        for axis, method in zip(line[1:], methods, strict=True):
            attribution = each.attributions[method]
            column = len(attribution.times) // 2
            whole = attribution.values[row].sum(0) if "channel" in attribution.dims else attribution.values[row]
            values = -whole[:, :, level, column].double().numpy().T
            reach = max(float(np.abs(values).max()), 1e-12)
            axis.imshow(values, cmap="RdBu_r", vmin=-reach, vmax=reach, origin="lower")
            axis.set_title(f"{method}, {attribution.times[column]:g} months", fontsize=9)
        for axis in line:
            axis.contour(edge, levels=[0.5], colors="black", linewidths=1)
            axis.set_xticks([])
            axis.set_yticks([])
    return figure
