"""What a report is drawn from: the contents of a run folder as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from survlens.core.score import Score
from survlens.report.over_time_records import ExplanationOverTime
from survlens.report.portrait_records import Portraits


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What the study says of itself."""

    name: str
    description: str
    seed: str
    simulated: bool
    data_note: str


@dataclass(frozen=True, slots=True)
class BrierCurve:
    """Brier score of a model and of the null curve over time, and the gain 1 - brier / null."""

    times: tuple[float, ...]
    brier: tuple[float, ...]
    null: tuple[float, ...]
    ipa: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CalibrationGroup:
    """Patients of similar predicted risk, and how many of them had the event."""

    predicted: float
    observed: float
    lower: float
    upper: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Predicted against observed risk at one horizon."""

    horizon: float
    observed_expected: float | None
    slope: float | None
    ici: float | None
    e50: float | None
    e90: float | None
    groups: tuple[CalibrationGroup, ...]
    curve_predicted: tuple[float, ...]
    curve_observed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RiskGroup:
    """Kaplan-Meier curve of the patients of one predicted-risk group."""

    label: str
    n: int
    n_events: int
    times: tuple[float, ...]
    survival: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RiskGroups:
    """Risk groups of one model with their counts at risk (group, time) and the log-rank test."""

    groups: tuple[RiskGroup, ...]
    at_risk_times: tuple[float, ...]
    at_risk: tuple[tuple[int, ...], ...]
    chi2: float | None
    df: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Subgroup:
    """One score within one level of a covariate."""

    variable: str
    level: str
    n: int
    n_events: int
    score: Score


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """A score over repeats of the training with other seeds."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True, slots=True)
class ModelResult:
    """Everything that was measured of one model."""

    name: str
    label: str
    inputs: tuple[str, ...]
    family: str
    note: str
    scores: tuple[Score, ...]
    seed_spread: Mapping[str, SeedSpread] = field(default_factory=dict)
    brier_curve: BrierCurve | None = None
    calibration: tuple[Calibration, ...] = ()
    risk_groups: RiskGroups | None = None
    subgroups: tuple[Subgroup, ...] = ()

    @property
    def uses_image(self) -> bool:
        """Whether the model sees the image."""
        return "image" in self.inputs

    def score(self, name: str, horizon: float | None = None) -> Score | None:
        """The score of that name (and horizon), or None."""
        for score in self.scores:
            if score.name == name and (horizon is None or _close(score.settings.get("horizon"), horizon)):
                return score
        return None


@dataclass(frozen=True, slots=True)
class Difference:
    """Paired difference of one score: `model` minus `reference`."""

    score: str
    model: str
    reference: str
    difference: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The contents of metrics.json."""

    study: StudyFacts
    unit: str
    horizons: tuple[float, ...]
    scored_on: str
    n_patients: int
    n_events: int
    primary: str | None
    clinical: str | None
    reference: str | None
    oracle: Score | None
    models: tuple[ModelResult, ...]
    differences: tuple[Difference, ...]

    def model(self, name: str | None) -> ModelResult | None:
        """The model of that name, or None."""
        return next((m for m in self.models if m.name == name), None)

    def difference(self, score: str, model: str, reference: str) -> Difference | None:
        """Paired difference `model` minus `reference`, also where it was stored the other way round."""
        for d in self.differences:
            if (d.score, d.model, d.reference) == (score, model, reference):
                return d
            if (d.score, d.reference, d.model) == (score, model, reference):
                lower = None if d.upper is None else -d.upper
                upper = None if d.lower is None else -d.lower
                return Difference(score, model, reference, -d.difference, lower, upper)
        return None


@dataclass(frozen=True, slots=True)
class FlowStep:
    """How many were left after one step of the patient flow."""

    step: str
    instances: int | None
    patients: int | None
    events: int | None


@dataclass(frozen=True, slots=True)
class Covariate:
    """One row of the covariate table."""

    name: str
    kind: str
    n: int
    missing: int
    summary: str
    by_part: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CohortFacts:
    """The contents of cohort.json."""

    flow: tuple[FlowStep, ...]
    covariates: tuple[Covariate, ...]
    follow_up: tuple[float, float | None, float | None] | None
    events: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """A hazard ratio per standard deviation of the latent mean, with its 95 % limits.

    `value` is None where there is none because the dimension separates the events.
    """

    value: float | None
    lower: float | None
    upper: float | None

    @property
    def separated(self) -> bool:
        """Whether the dimension separates the events, so that no ratio is finite."""
        return self.value is None


@dataclass(frozen=True, slots=True)
class Dimension:
    """What is known of one latent dimension; `hazard_ratio` is per standard deviation of its mean.

    Attributes after `importance` are None in runs that were explained before they were written.
    """

    dimension: int
    head_weight: float | None
    head_weight_per_sd: float | None
    hazard_ratio: float | None
    lower: float | None
    upper: float | None
    p: float | None
    mean_kl: float | None
    active: bool
    reliability: float | None
    importance: float
    held_out: Ratio | None = None
    univariable: Ratio | None = None
    univariable_held_out: bool = False
    variance_inflation: float | None = None
    pixel_change: float | None = None
    separated: bool = False

    @property
    def training(self) -> Ratio | None:
        """The fit on the patients that trained the model."""
        if self.hazard_ratio is None and not self.separated:
            return None
        return Ratio(self.hazard_ratio, self.lower, self.upper)

    @property
    def judged(self) -> Ratio | None:
        """What the dimension is judged by: the held-out fit where there is one, else the training fit."""
        return self.training if self.held_out is None else self.held_out


@dataclass(frozen=True, slots=True, eq=False)
class Traversal:
    """Decoded pictures along each latent dimension.

    Attributes:
        images: Pictures in [0, 1], (dimension, step, channel, height, width).
        difference: Last step minus first, signed, (dimension, channel, height, width).
        steps: Position of each step.
        numbers: Number of the dimension of each row of `images`, from 1.
    """

    images: np.ndarray
    difference: np.ndarray
    steps: np.ndarray
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The latent dimensions of one model, ordered by importance; `explained` is the variance share of PC 1 and 2."""

    model: str
    label: str
    sd_scale: bool
    dimensions: tuple[Dimension, ...]
    reconstruction: Mapping[str, float]
    traversal: Traversal | None
    explained: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingPoints:
    """The first two principal components of one model's embedding, one value per image.

    Attributes:
        model: Name of the model.
        label: Its name for people.
        part: The part of the split that is shown; empty where rows are not marked.
        time: Observed time.
        event: Whether the event was observed.
        pc1: First principal component.
        pc2: Second principal component.
        true_log_hazard: The truth of a simulation, or None.
        explained: Share of the training variance along each component; empty where it is not known.
    """

    model: str
    label: str
    part: str
    time: np.ndarray
    event: np.ndarray
    pc1: np.ndarray
    pc2: np.ndarray
    true_log_hazard: np.ndarray | None
    explained: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Total loss per epoch of one model in training and validation patients; NaN where it was not computed."""

    model: str
    label: str
    epoch: np.ndarray
    training: np.ndarray
    validation: np.ndarray

    @property
    def best_epoch(self) -> float | None:
        """The epoch of the lowest validation loss."""
        known = np.isfinite(self.validation)
        return float(self.epoch[known][np.argmin(self.validation[known])]) if known.any() else None


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings that were chosen inside the training part of one split.

    Attributes:
        label: The model, for people.
        fold: Number of the split.
        settings: What was chosen, in words.
        score: What decided: "concordance" or "loss".
        value: Mean of that over the inner folds.
        candidates: Number of combinations that were tried.
        inner_folds: Number of inner folds.
    """

    label: str
    fold: int
    settings: str
    score: str
    value: float | None
    candidates: int
    inner_folds: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of the audit."""

    code: str
    severity: str
    message: str
    rows: int
    column: str


@dataclass(frozen=True, slots=True, eq=False)
class RunContent:
    """Everything a report shows.

    Attributes:
        metrics: Scores and curves.
        cohort: Cohort table and patient flow, or None.
        findings: Audit findings, or None where there was no audit.
        explanations: Latent dimensions, the primary model first.
        embeddings: Embeddings in the order of the models.
        histories: Training curves in the order of the models.
        choices: Settings that were chosen in each split, in the order of the models.
        environment: Versions, seed, command.
        hashes: Hash of the splits and of the files this report was drawn from.
        split: Kind of the split in the study file, or "" where it is not known.
        over_time: Explanations over time, those of the primary model first.
        unfinished: Explanations over time that were begun and not finished: model and name.
        portraits: Embedded and edited portraits, or None.
    """

    metrics: Metrics
    cohort: CohortFacts | None = None
    findings: tuple[Finding, ...] | None = None
    explanations: tuple[Explanation, ...] = ()
    embeddings: tuple[EmbeddingPoints, ...] = ()
    histories: tuple[History, ...] = ()
    choices: tuple[Choice, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    split: str = ""
    over_time: tuple[ExplanationOverTime, ...] = ()
    unfinished: tuple[str, ...] = ()
    portraits: Portraits | None = None


def _close(left: object, right: float) -> bool:
    return isinstance(left, int | float) and abs(float(left) - right) <= 1e-9 * max(1.0, abs(right))
