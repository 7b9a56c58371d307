"""Edits of portraits beside each other: age against health, edits against controls, and versions against resamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from survlens.core.score import Score
from survlens.evaluate.edits import AgainstControls, against_controls, slope_ratio
from survlens.evaluate.score_over_time import Intervals
from survlens.explain.direction_agreement import DirectionAgreement
from survlens.study.portrait_edits import (
    AGE,
    COVARIATE,
    ILLNESS,
    PROJECTED,
    RAW,
    RISK,
    EditPlan,
    FittedDirections,
    JudgedEdit,
)

WORDS = {RAW: "the hazard", PROJECTED: "the hazard with age projected out", COVARIATE: "the hazard at equal age"}
"""What the versions lead to, in sentences."""


@dataclass(frozen=True, slots=True, eq=False)
class EditComparison:
    """What is known of one edit beside others.

    Attributes:
        age_over_health: |slope on age| over |slope on health|; None where one is not read, or for controls.
        controls: The slope on health beside those of controls; None without controls, or for one.
        agreement: How far the direction comes back from other patients; None where that was not measured.
        remark: The sentence that stands beside its pictures, or "".
    """

    age_over_health: Score | None
    controls: AgainstControls | None
    agreement: DirectionAgreement | None
    remark: str


def health_reader(edit: JudgedEdit) -> str:
    """Who reads health: the true illness where faces are drawn, else the risk."""
    return ILLNESS if ILLNESS in edit.readings else RISK


def compared(edits: Sequence[JudgedEdit], directions: FittedDirections, plan: EditPlan) -> dict[str, EditComparison]:
    """Every edit beside the others, by its name.

    Args:
        edits: Judged edits of the same people.
        directions: Their directions.
        plan: How intervals are made.
    """
    made = Intervals(plan.draws, plan.seed)
    beside = beside_controls(edits, health_reader(edits[0]), plan) if edits else {}
    found: dict[str, EditComparison] = {}
    for edit in edits:
        health, agreement = health_reader(edit), directions.agreements.get(edit.name)
        ratio = None
        if not edit.control and edit.name != AGE and {AGE, health} <= edit.readings.keys():
            ratio = slope_ratio(edit.readings[AGE], edit.readings[health], name="edit_age_over_health", intervals=made)
        remark = "" if agreement is None else agreement.sentence(WORDS[edit.name])
        found[edit.name] = EditComparison(ratio, beside.get(edit.name), agreement, remark)
    return found


def beside_controls(edits: Sequence[JudgedEdit], reader: str, plan: EditPlan) -> dict[str, AgainstControls]:
    """Each edit that is no control, held against all controls, by what one reader says."""
    controls = {edit.name: edit.readings[reader] for edit in edits if edit.control}
    if not controls:
        return {}
    intervals = Intervals(plan.draws, plan.seed)
    return {
        edit.name: against_controls(edit.readings[reader], controls, intervals=intervals)
        for edit in edits
        if not edit.control
    }


def ratio_of(edits: Sequence[JudgedEdit], reader: str, name: str, of: str, plan: EditPlan) -> Score | None:
    """|slope of a reader along direction `name`| over that along direction `of`; None where one is missing."""
    found = {edit.name: edit.readings[reader] for edit in edits}
    if name not in found or of not in found:
        return None
    return slope_ratio(found[name], found[of], name=f"{reader}_slope_ratio", intervals=Intervals(plan.draws, plan.seed))
