"""Explanations over time: what is explained, how far to trust it, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.report.blocks import Block, Bullets, Cell, Column, Estimate, Paragraph, Section, Table, left_out
from survlens.report.figures.attribution_words import moment, target_unit, target_words
from survlens.report.over_time_records import Check, ExplanationOverTime
from survlens.report.over_time_verdict import CheckVerdict, check_verdict, standard_text
from survlens.report.records import RunContent
from survlens.report.sections.over_time_importance import importance_pictures
from survlens.report.sections.over_time_pictures import (
    GROUPS,
    chosen_pictures,
    patient_name,
    removal_picture,
)
from survlens.report.wording import MISSING, compact, whole

_KEY, _TITLE = "over-time", "Explanations over time"
_UNSURE = frozenset((CheckVerdict.NOT_SHOWN, CheckVerdict.FAILED))


def explanations_over_time(content: RunContent) -> Section:
    """Every explanation of the run: its doubts and checks first, then its pictures."""
    begun = [f"Not finished, so not shown: {name}. Run `survlens explain` again." for name in content.unfinished]
    if not content.over_time and not begun:
        return left_out(_KEY, _TITLE, "nothing was explained over time; run `survlens explain` on this folder")
    blocks: list[Block] = [
        Paragraph(
            "An explanation says what moves the prediction of the model, not what moves the patient's survival. "
            "The pictures stand below the checks that say how far to trust them."
        )
    ]
    for number, explanation in enumerate(content.over_time, start=1):
        blocks += _one(explanation, number)
    blocks += [Bullets(tuple(begun))] if begun else []
    return Section(_KEY, _TITLE, tuple(blocks))


def _one(explanation: ExplanationOverTime, number: int) -> list[Block]:
    key = f"{_KEY}-{number}"
    blocks: list[Block] = [Paragraph(_what(explanation, number)), Bullets(_doubts(explanation))]
    blocks += _checks(explanation, key)
    if explanation.chosen and explanation.attributions:
        blocks.append(Paragraph(_whom(explanation)))
        blocks += chosen_pictures(explanation, key)
    blocks += importance_pictures(explanation, key)
    left = [f"Left out, since the run holds none: {each}." for each in explanation.missing]
    if said := (*explanation.notes, *left):
        blocks.append(Bullets(said))
    return blocks


def _what(explanation: ExplanationOverTime, number: int) -> str:
    """What is explained, by what, against what."""
    said = (
        f"Explanation {number}. Model: {explanation.label}. Method: {explanation.method}. It says how much each input "
        f"moves the {target_words(explanation.target)} that the model predicts {_times(explanation)}, for "
        f"{whole(explanation.patients)} held-out patients"
    )
    said += "" if explanation.fold is None else f" of fold {explanation.fold}"
    said += f", compared with {explanation.reference}." if explanation.reference else ", without a reference."
    known = list(explanation.attributions.values())
    if known and all(each.additive for each in known):
        return (
            f"{said} The contributions of a patient sum to the difference between the patient's prediction and the "
            "mean prediction of the references."
            if explanation.reference
            else f"{said} The contributions of a patient sum to the prediction."
        )
    return (
        f"{said} Its values do not sum to the prediction, so only their order and sign can be read." if known else said
    )


def _times(explanation: ExplanationOverTime) -> str:
    first = next(iter(explanation.attributions.values()), None)
    if first is None:
        return "over time"
    times = first.times.detach().cpu().numpy()
    unit = explanation.unit
    if not np.isfinite(times).all():
        return "as one value for the whole curve"
    if len(times) == 1:
        return moment(float(times[0]), explanation.target, unit)
    return f"at {len(times)} times from {compact(float(times[0]))} to {compact(float(times[-1]))} {unit}"


def _doubts(explanation: ExplanationOverTime) -> tuple[str, ...]:
    """The three doubts, told apart."""
    parts = [each for name, each in explanation.attributions.items() if name != GROUPS]
    parts = parts or list(explanation.attributions.values())
    unit = target_unit(explanation.target, explanation.unit)
    bracket = f" ({unit})" if unit else ""
    numerical = _finite([each.quadrature_error for each in parts])
    drawing, of_what = _drawing(explanation)
    gap = _finite([each.completeness_gap for each in parts])
    scale = _finite([each.values.abs().amax(dim=tuple(range(1, each.values.ndim))) for each in _summed(explanation)])
    largest = f"; the largest contribution is {compact(float(scale.max()))}" if scale.size else ""
    return (
        f"Numerical error of a contribution: at most {compact(float(numerical.max()))}{bracket}, as the method "
        f"estimates it{largest}."
        if numerical.size
        else "Numerical error of a contribution: not estimated by this method.",
        f"Error from drawing references: standard error of {of_what} {compact(float(np.median(drawing)))} at the "
        f"median, {compact(float(drawing.max()))} at most{bracket}. More references make it smaller."
        if drawing.size
        else "Error from drawing references: not estimated.",
        f"Completeness gap, what the contributions miss of the difference that they should sum to: at most "
        f"{compact(float(np.abs(gap).max()))}{bracket}. A small gap does not make an explanation right."
        if gap.size
        else "Completeness gap: not defined for this method.",
    )


def _drawing(explanation: ExplanationOverTime) -> tuple[np.ndarray, str]:
    """Standard errors over references, of features in a list where they are known, else of pixels."""
    known = [each for each in explanation.attributions.values() if each.sampling_error is not None]
    lists = [each for each in known if len(each.dims) == 1]
    return _finite([each.sampling_error for each in lists or known]), "a contribution" if lists else "a pixel"


def _summed(explanation: ExplanationOverTime) -> Sequence[Attribution]:
    """Contributions of whole groups where there are any, else of what is there."""
    groups = explanation.attributions.get(GROUPS)
    return [groups] if groups is not None else list(explanation.attributions.values())


def _finite(tensors: Sequence[Tensor | None]) -> np.ndarray:
    arrays = [np.asarray(each.detach().cpu()).ravel() for each in tensors if each is not None]
    joined = np.concatenate(arrays) if arrays else np.zeros(0)
    return joined[np.isfinite(joined)]


def _checks(explanation: ExplanationOverTime, key: str) -> list[Block]:
    """The checks with their verdicts, and a warning where one was not passed."""
    if explanation.checks is None or not explanation.checks.scores:
        return [
            Paragraph(
                "This explanation was not checked. It is not known whether it follows the prediction, nor whether it "
                "depends on what the model has learnt."
            )
        ]
    scores = explanation.checks.scores
    verdicts = [check_verdict(score, scores) for score in scores]
    blocks: list[Block] = []
    doubted = [f"{s.label.lower()} ({v.value})" for s, v in zip(scores, verdicts, strict=True) if v in _UNSURE]
    if doubted:
        blocks.append(Paragraph(f"Read the pictures with doubt. Not passed: {'; '.join(doubted)}."))
    heads = (
        Column("Check", numeric=False),
        Column("Value"),
        Column("Passed if the interval is", numeric=False),
        Column("Verdict", numeric=False),
        Column("What it asks", numeric=False),
    )
    rows = tuple(
        (score.label, _value(score), standard_text(score, scores), verdict.value, score.meaning)
        for score, verdict in zip(scores, verdicts, strict=True)
    )
    bold = frozenset(place for place, verdict in enumerate(verdicts) if verdict in _UNSURE)
    some = explanation.checks.patients
    note = "" if some is None else f"Checked on {whole(some)} of {whole(explanation.patients)} patients. "
    note += "Not shown: the 95 % interval covers the standard, or there is none. In bold: not passed."
    caption = f"Checks of explanation {key.rpartition('-')[2]}"
    return [*blocks, Table(caption, heads, rows, strong=bold, note=note), *removal_picture(explanation, key)]


def _value(check: Check) -> Cell:
    if check.value is None:
        return MISSING
    if check.lower is None or check.upper is None:
        return Estimate(compact(check.value))
    return Estimate(compact(check.value), f"{compact(check.lower)} to {compact(check.upper)}")


def _whom(explanation: ExplanationOverTime) -> str:
    names = " and ".join(patient_name(place) for place in range(len(explanation.chosen)))
    rule = explanation.rule or "a rule that was not written down"
    return f"Pictures of {names}, in that order. Chosen by a rule, before any picture was seen: {rule}."
