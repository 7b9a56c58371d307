"""Do explanations of volumes point at what the hazard depends on? Tables and figures of networks on phantoms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from survlens.data.simulate.phantom import LoadEffect
from survlens.evaluate.attribution_values import Part
from survlens.evaluate.localisation import Localisation
from survlens.evaluate.score_over_time import ScoreOverTime
from survlens.report.figures.located_explanations import (
    ExplainedSlice,
    explained_slices_figure,
    located_over_time_figure,
)
from survlens.study.reproduce.located_phantoms import (
    LocalisationPlan,
    LocatedExplanations,
    Seen,
    cox_vae_explanations,
    located_explanations,
)
from survlens.study.reproduce.tables import Findings, Record, ResultTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STRENGTH = "Sum inside / first month"


def phantom_explanations(plan: LocalisationPlan, tell: Callable[[str], object] = lambda _: None) -> Findings:
    """Fits a Cox network per kind of input, and measures where GradSHAP(t) and occlusion over time point.

    Scores: share of patients whose largest contribution lies in a tumour (pointing game), share of contributions in
    tumours and that by their share of voxels, and contribution per voxel of tumour against that of healthy liver.

    Args:
        plan: Sizes.
        tell: Told of every step.
    """
    found = [located_explanations(seen, plan, tell) for seen in Seen]
    if plan.cox_vae:
        found.append(cox_vae_explanations(plan, tell))
    by_time = _rows_by_time(found, plan)
    tables = (
        ResultTable("fit", "Networks on the patients drawn to be explained", [each.fit for each in found]),
        ResultTable(
            "over_time",
            "Mean over times, 95 % intervals over patients",
            [row for each in found for row in _score_rows(each, plan)],
        ),
        ResultTable("by_time", f"At each month, contributions to the {_words(plan)} that raise the risk", by_time),
    )
    remarks = [
        f"{plan.train} training patients, {plan.size}³ voxels; explained are those of {plan.explained} further "
        f"patients with at least {plan.least_voxels} voxels of tumour. References: {plan.references} of the training "
        "patients.",
        "Volumes are cut to the box that the livers of training patients reach. Covered are boxes of "
        f"{plan.window}³ voxels, and tumours are often smaller than one.",
        "A mass ratio of 1 is an even spread over the volume; 0.5 against the liver says that a voxel of tumour counts "
        "as much as one of healthy liver.",
        "The network that is given the mask of tumours is told where they are; that which is given the liver has to "
        "find them, and what it misses no explanation can show.",
    ]
    if plan.effect is LoadEffect.WEARS_OFF:
        remarks.append(
            "The effect of load wears off. Networks have a hazard per interval, and what is explained is the logarithm "
            "of the hazard: survival at a time keeps the harm of the months before. The true effect is that of one "
            "standard deviation of log load."
        )
    if plan.cox_vae:
        remarks.append(
            f"The CoxVAE has {plan.cox_vae} phantoms of its own, with age at its head, and proportional hazards; a "
            "voxel is tumour where at least half of it is."
        )
    figures = {
        "phantom_explanations": lambda: explained_slices_figure([_slice(each, plan) for each in found]),
        "phantom_explanations_over_time": lambda: _over_time(by_time, plan),
    }
    return Findings("phantom_explanations", "Explanations of phantoms beside the truth", tables, remarks, figures)


def _words(plan: LocalisationPlan) -> str:
    return "log-hazard" if plan.effect is LoadEffect.WEARS_OFF else "probability of survival"


def _score_rows(found: LocatedExplanations, plan: LocalisationPlan) -> list[Record]:
    rows: list[Record] = []
    for (method, part), scores in found.scores.items():
        words = "all" if part is Part.ABSOLUTE else "raise the risk"
        row: dict[str, Any] = {"given": found.given, "method": method, "contributions": words}
        for name, score in _named(scores).items():
            row[name] = score.score.value
            limits = score.score.interval
            row[f"{name}, from"], row[f"{name}, to"] = (None, None) if limits is None else (limits.lower, limits.upper)
        rows.append(row)
    return rows


def _rows_by_time(found: Sequence[LocatedExplanations], plan: LocalisationPlan) -> list[Record]:
    rows: list[Record] = []
    for each in found:
        for (method, part), scores in each.scores.items():
            if part is Part.ABSOLUTE:
                continue
            strength = _inside(each, method, part)
            for column, month in enumerate(scores.pointing.times):
                row: dict[str, Any] = {"given": each.given, "method": method, "month": float(month)}
                for name, score in _named(scores).items():
                    row[name] = float(score.values[column])
                row["sum inside"] = float(strength[column])
                if plan.effect is LoadEffect.WEARS_OFF:
                    row["true effect"] = float(plan.slope[column])
                rows.append(row)
    return rows


def _inside(found: LocatedExplanations, method: str, part: Part) -> Float[np.ndarray, " time"]:
    """Sum of the signed contributions in tumours, positive where they raise the risk; mean over patients."""
    attribution = found.attributions[method]
    values = part.of(attribution.numpy().astype(np.float64))
    if "channel" in attribution.dims:
        values = values.sum(1)
    return np.where(found.tumour[..., None], np.nan_to_num(values), 0).sum((1, 2, 3)).mean(0)


def _named(scores: Localisation) -> dict[str, ScoreOverTime]:
    found = {"pointing": scores.pointing, "mass": scores.mass, "mass ratio": scores.mass_ratio}
    return found if scores.against is None else {**found, "against liver": scores.against}


def _slice(found: LocatedExplanations, plan: LocalisationPlan) -> ExplainedSlice:
    """The slice with most tumour, of the patient with most tumour."""
    row = int(found.tumour.sum((1, 2, 3)).argmax())
    level = int(found.tumour[row].sum((0, 1)).argmax())
    maps = {}
    for method, attribution in found.attributions.items():
        values = attribution.numpy()[row].astype(np.float64)
        maps[method] = (values.sum(0) if "channel" in attribution.dims else values)[:, :, level]
    return ExplainedSlice(
        given=found.given,
        picture=found.pictures[row, :, :, level],
        tumour=found.tumour[row, :, :, level],
        maps=maps,
        times=plan.times,
        unit="months",
        label=f"contribution to {_words(plan)}",
    )


def _over_time(rows: Sequence[Record], plan: LocalisationPlan) -> Figure:
    """Pointing game, share of contributions in tumours, and their sum there, as share of that at the first month."""
    times = np.array(plan.times)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for title, name in (("Pointing game", "pointing"), ("Mass inside tumours", "mass"), (_STRENGTH, "sum inside")):
        lines: dict[str, list[float]] = {}
        for row in rows:
            lines.setdefault(f"{row['given']}: {row['method']}", []).append(row[name])
        of_first = title == _STRENGTH
        panels[title] = {key: np.array(each) / (each[0] if of_first else 1.0) for key, each in lines.items()}
    truth = {_STRENGTH: plan.slope / plan.slope[0]} if plan.effect is LoadEffect.WEARS_OFF else {}
    return located_over_time_figure(times, panels, truth, unit="months")
