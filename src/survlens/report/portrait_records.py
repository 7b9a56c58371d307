"""What a report shows of embedded and edited portraits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from survlens.core.score import Score


@dataclass(frozen=True, slots=True, eq=False)
class EditRow:
    """Pictures of one person along one direction.

    Attributes:
        label: Who and which direction.
        pictures: In [0, 1], one per step.
        photograph: The photograph that was embedded, or None.
    """

    label: str
    pictures: Float[np.ndarray, "step channel height width"]
    photograph: Float[np.ndarray, "channel height width"] | None = None


@dataclass(frozen=True, slots=True)
class PortraitSubgroup:
    """The concordance in one level of a column."""

    column: str
    level: str
    n: int
    n_events: int
    score: Score


@dataclass(frozen=True, slots=True)
class DirectionTrust:
    """How far a direction comes back from other patients.

    Attributes:
        bootstrap: Mean cosine with the directions of resampled patients.
        halves: Mean cosine between the directions of two halves.
        expected: Estimated cosine with the direction that endless patients would give.
        reliable: Whether it is called reliable.
    """

    bootstrap: Score
    halves: Score
    expected: float
    reliable: bool


@dataclass(frozen=True, slots=True, eq=False)
class PortraitEdit:
    """Edits along one direction.

    Attributes:
        name: The direction.
        control: Whether it is a direction that ought to do nothing.
        remark: How far the direction can be trusted, or "".
        scores: What its edited pictures show besides slopes, by name.
        rows: Pictures of a few people; empty where none were kept.
        unit: What a step of 1 is along this direction.
        slopes: Change of each reading per step, by reader.
        age_over_health: Size of the slope on age over that on health; None where it is not known.
        control_p: Share of controls, the edit counted among them, that are at least as steep; None where not known.
        capped: Share of edits that were stopped at the edge of the training range; None where it is not known.
        trust: How far the direction comes back from other patients; None where it is not known.
    """

    name: str
    control: bool
    remark: str
    scores: Mapping[str, Score]
    rows: tuple[EditRow, ...]
    unit: str = ""
    slopes: Mapping[str, Score] = field(default_factory=dict)
    age_over_health: Score | None = None
    control_p: float | None = None
    capped: float | None = None
    trust: DirectionTrust | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Portraits:
    """Everything that a report shows of portraits.

    Attributes:
        embedding: What is known of the embedding, by name.
        agreement: Restart agreement of each photograph; empty where there was one start.
        space: Latent space.
        fitted_on: A sentence per part that was fitted: on whom.
        transductive: Whether a part was fitted on patients who are scored.
        steps: Steps of the edits.
        unit: What a step of 1 is.
        edits: Directions, with their edits.
        scores: Concordance of each model of held-out patients, by name.
        subgroups: Concordance in subgroups.
        remarks: Further sentences.
        readers: By what each value is read from edited pictures, and in which unit, by the name of the reader.
    """

    embedding: Mapping[str, str | float]
    agreement: np.ndarray
    space: str
    fitted_on: tuple[str, ...]
    transductive: bool
    steps: tuple[float, ...]
    unit: str
    edits: tuple[PortraitEdit, ...]
    scores: Mapping[str, Score]
    subgroups: tuple[PortraitSubgroup, ...]
    remarks: tuple[str, ...]
    readers: Mapping[str, str] = field(default_factory=dict)
