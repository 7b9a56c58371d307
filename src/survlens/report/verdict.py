"""The sentence at the top of the report: what the comparison shows, said plainly."""

from __future__ import annotations

import math
from dataclasses import dataclass

from survlens.report.records import Difference, Metrics, ModelResult
from survlens.report.wording import decimal, difference_text, is_unclear, score_text

_C = "concordance_index"
_IPA = "integrated_ipa"
FEW_EVENTS = 100
"""Fewer events among the scored patients make scores and comparisons imprecise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline of the report and what has to be said beside it."""

    headline: str
    remarks: tuple[str, ...]


def verdict(metrics: Metrics) -> Verdict:
    """Says what the held-out scores show.

    In this order: no model did better than Kaplan-Meier; the image did or did not add to the clinical table (paired
    difference of Harrell's C between the primary model, if it sees the image, and clinical-only Cox); or the comparison
    could not be made.

    Args:
        metrics: Scores of every model.
    """
    models = [model for model in metrics.models if model.name != metrics.reference]
    if not any(model.score(_C) is not None or model.score(_IPA) is not None for model in models):
        return Verdict("No model was scored, so nothing can be said about any of them.", ())
    ranks, gains = _above(models, _C, 0.5), _above(models, _IPA, 0.0)
    if not ranks and not gains:
        headline = (
            "No model was shown to do better than the Kaplan-Meier curve, which predicts the same for every patient: "
            "no interval of C lies above 0.5 and none of the integrated IPA above 0."
        )
        return Verdict(headline, _remarks_on_image(metrics, models))
    headline, remarks = _image_sentence(metrics, models)
    return Verdict(headline, remarks + _remarks_on_gain(models, ranks=ranks, gains=gains))


def _above(models: list[ModelResult], name: str, neutral: float) -> bool:
    """Whether the interval of any model lies above `neutral`."""
    scores = (model.score(name) for model in models)
    return any(s is not None and s.interval is not None and s.interval.lower > neutral for s in scores)


def _remarks_on_gain(models: list[ModelResult], *, ranks: bool, gains: bool) -> tuple[str, ...]:
    if not gains and any(model.score(_IPA) is not None for model in models):
        return (
            "No model's survival probabilities were shown to be more accurate than those of the Kaplan-Meier curve "
            "(every interval of the integrated IPA covers 0 or lies below it).",
        )
    if not ranks:
        return ("No model was shown to rank patients better than chance (no interval of C lies above 0.5).",)
    return ()


def _remarks_on_image(metrics: Metrics, models: list[ModelResult]) -> tuple[str, ...]:
    return (_image_sentence(metrics, models)[0],) if any(model.uses_image for model in models) else ()


def _value(model: ModelResult) -> float:
    score = model.score(_C)
    return -math.inf if score is None or math.isnan(score.value) else score.value


def _image_sentence(metrics: Metrics, models: list[ModelResult]) -> tuple[str, tuple[str, ...]]:
    candidates = [model for model in models if model.uses_image and _value(model) > -math.inf]
    clinical = metrics.model(metrics.clinical)
    if not candidates:
        return _without_image(metrics, models, clinical), ()
    chosen = _chosen(metrics, candidates)
    remarks = _remark_on_choice(metrics, chosen, candidates, clinical)
    if clinical is None:
        said = (
            "Whether the image adds to clinical data could not be tested, because the study has no clinical table; "
            f"{chosen.label} had {_c(chosen)}."
        )
        return said, remarks
    gap = metrics.difference(_C, chosen.name, clinical.name)
    beside = _remark_on_fusion(metrics, chosen, candidates, clinical)
    return _compare(chosen, clinical, gap), _remark_on_size(metrics, gap) + remarks + beside


def _without_image(metrics: Metrics, models: list[ModelResult], clinical: ModelResult | None) -> str:
    """The primary model beside the clinical one; where they are the same or the study names none, the best model."""
    primary = metrics.model(metrics.primary)
    if primary is None or clinical is None or primary is clinical or primary not in models:
        best = max(models, key=_value)
        return f"No model here used the image; the best model, {best.label}, had {_c(best)}."
    gap = metrics.difference(_C, primary.name, clinical.name)
    said = f"{primary.label} had {_c(primary)}, {clinical.label} {_c(clinical)}"
    if gap is None or gap.lower is None or gap.upper is None or math.isnan(gap.difference):
        return f"No model here used the image; {said}."
    doubt = f"; difference {difference_text(gap.difference, gap.lower, gap.upper)}."
    if is_unclear(gap.lower, gap.upper, 0.0):
        return f"No model here used the image, and the primary model was not shown to do better: {said}{doubt}"
    way = "better" if gap.difference > 0 else "worse"
    return f"No model here used the image; the primary model did {way} than {clinical.label}: {said}{doubt}"


def _chosen(metrics: Metrics, candidates: list[ModelResult]) -> ModelResult:
    """The model of the headline, never picked by its score on the patients who are scored.

    The primary model of the study; where that does not see the image, the first that sees image and table.
    """
    primary = metrics.model(metrics.primary)
    if primary in candidates:
        return primary  # type: ignore[return-value]
    return next((model for model in candidates if "table" in model.inputs), candidates[0])


def _compare(best: ModelResult, clinical: ModelResult, gap: Difference | None) -> str:
    beside = f"{best.label} had {_c(best)}, {clinical.label} {_c(clinical)}"
    if gap is None or gap.lower is None or gap.upper is None or math.isnan(gap.difference):
        return f"Whether the image adds to the clinical table is unclear, for lack of a paired interval: {beside}."
    said = f"{beside}; difference {difference_text(gap.difference, gap.lower, gap.upper)}."
    who = "The image" if "table" in best.inputs else "The image alone"
    if is_unclear(gap.lower, gap.upper, 0.0):
        if who == "The image":
            return f"The image was not shown to add anything to the clinical table: {said}"
        return f"The image alone was not shown to do better than the clinical table: {said}"
    if gap.difference < 0:
        worse = "Image and table together" if who == "The image" else who
        return f"{worse} did worse than the clinical table: {said}"
    if who == "The image":
        return f"The image added to the clinical table: {said}"
    return f"The image alone did better than the clinical table: {said}"


def _remark_on_size(metrics: Metrics, gap: Difference | None) -> tuple[str, ...]:
    """How large a gain could have stayed unseen, where few patients had the event and none was seen."""
    if metrics.n_events >= FEW_EVENTS or gap is None or gap.lower is None or gap.upper is None:
        return ()
    if not is_unclear(gap.lower, gap.upper, 0.0):
        return ()
    seen = decimal((gap.upper - gap.lower) / 2, 2)
    return (
        f"Only {metrics.n_events} scored patients had the event, so the comparison is blunt: a gain of C below about "
        f"{seen} could not have been told from none. Until more patients say otherwise, the clinical table alone is "
        "the simpler model.",
    )


def _c(model: ModelResult) -> str:
    return score_text(model.score(_C), digits=3)


def _remark_on_choice(
    metrics: Metrics, chosen: ModelResult, candidates: list[ModelResult], clinical: ModelResult | None
) -> tuple[str, ...]:
    """What the best image model did, with the warning that it was found on the patients who are scored."""
    best = max(candidates, key=_value)
    if best is chosen or _value(best) <= _value(chosen):
        return ()
    gap = None if clinical is None else metrics.difference(_C, best.name, clinical.name)
    beside = "" if gap is None else f", difference {difference_text(gap.difference, gap.lower, gap.upper)}"
    return (
        f"The highest C among {len(candidates)} image models on these patients was that of {best.label}, {_c(best)}"
        f"{beside}; a model picked after looking is flattered, and its interval does not account for the picking.",
    )


def _remark_on_fusion(
    metrics: Metrics, shown: ModelResult, candidates: list[ModelResult], clinical: ModelResult
) -> tuple[str, ...]:
    """What the first model of image and table together did, where the headline is about the image alone."""
    fused = [model for model in candidates if "table" in model.inputs]
    if not fused:
        return ("No model used image and table together, so what the image adds beside the table was not tested.",)
    if shown in fused:
        return ()
    chosen = fused[0]
    gap = metrics.difference(_C, chosen.name, clinical.name)
    beside = "" if gap is None else f", difference {difference_text(gap.difference, gap.lower, gap.upper)}"
    return (f"Image and table together ({chosen.label}) had {_c(chosen)}{beside}.",)
