"""What the report shows of explanations over time, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.score import Category, Direction


@dataclass(frozen=True, slots=True)
class RankedFeature:
    """Importance of one feature over all explained patients.

    Attributes:
        modality: The input that it belongs to.
        feature: Its name.
        importance: Mean absolute attribution, averaged over times.
        lower: Lower limit; None without.
        upper: Upper limit; None without.
        rank: Its rank, 1 the most important.
        rank_lower: Lower limit of its rank; None without.
        rank_upper: Upper limit of its rank; None without.
    """

    modality: str
    feature: str
    importance: float
    lower: float | None
    upper: float | None
    rank: float | None
    rank_lower: float | None
    rank_upper: float | None


@dataclass(frozen=True, slots=True)
class GlobalRanking:
    """Features by importance, over all explained patients and by subgroup (column, value)."""

    features: tuple[RankedFeature, ...]
    subgroups: Mapping[str, Mapping[str, tuple[RankedFeature, ...]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of an explanation.

    Attributes:
        name: Name of the score.
        label: What it is called.
        value: Its value; None where it is not defined.
        lower: Lower limit; None without.
        upper: Upper limit; None without.
        direction: Which way is better.
        category: The question it answers.
        meaning: What it asks, in a sentence.
        standard: Value that tells good from bad, where the file gives one.
    """

    name: str
    label: str
    value: float | None
    lower: float | None
    upper: float | None
    direction: Direction
    category: Category
    meaning: str
    standard: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CheckCurve:
    """Change of the target against the share of features removed; limits are empty without an interval."""

    share: np.ndarray
    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Checks:
    """Checks of an explanation, its removal curves by name, and on how many patients they were made."""

    scores: tuple[Check, ...]
    curves: Mapping[str, CheckCurve]
    patients: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExplanationOverTime:
    """One explanation over time of one model.

    Attributes:
        name: Name of its folder.
        model: Name of the model.
        label: Name of the model for people.
        method: Name of the method for people.
        target: Name of the target.
        unit: Unit of time.
        reference: What it compares with, in words; empty where with nothing.
        rule: How the patients of the pictures were chosen, in words.
        fold: Number of the split, from 1; None where it was not written.
        patients: Number of patients explained.
        chosen: Positions of the patients of the pictures.
        notes: What a reader should know of how the values came about.
        attributions: By modality, and under "groups" the contributions of whole covariates and images.
        shown: Instance of each chosen patient in each attribution; patients that it lacks are left out.
        pictures: Pictures (item, channel, ...) in [0, 1] of the chosen patients, or None.
        picture_rows: Position in `chosen` of each picture.
        ranking: Importance over all patients, or None.
        checks: Checks, or None.
        missing: What was not found, in words.
    """

    name: str
    model: str
    label: str
    method: str
    target: str
    unit: str
    reference: str
    rule: str
    fold: int | None
    patients: int
    chosen: tuple[int, ...]
    notes: tuple[str, ...]
    attributions: Mapping[str, Attribution]
    shown: Mapping[str, Mapping[int, int]]
    pictures: np.ndarray | None
    picture_rows: np.ndarray
    ranking: GlobalRanking | None
    checks: Checks | None
    missing: tuple[str, ...] = field(default=())
