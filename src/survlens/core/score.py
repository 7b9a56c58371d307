"""The result of an evaluation: a number with its doubt and its definition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from survlens.core.errors import InvalidValueError


class Direction(Enum):
    """Which way a score is better."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    TARGET = "closer to its target is better"
    NONE = "neither is better"


class Category(Enum):
    """The question a score answers."""

    DISCRIMINATION = "discrimination"
    ACCURACY = "accuracy"
    CALIBRATION = "calibration"
    CLINICAL_USE = "clinical use"
    FAITHFULNESS = "faithfulness"
    ROBUSTNESS = "robustness"
    LOCALISATION = "localisation"
    RANDOMISATION = "randomisation"
    COMPLEXITY = "complexity"
    AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval and how it was made."""

    lower: float
    upper: float
    confidence: float = 0.95
    method: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InvalidValueError(f"`confidence` must lie in (0, 1); got {self.confidence}.")
        if self.lower > self.upper:
            raise InvalidValueError(f"`lower` must not exceed `upper`; got {self.lower} > {self.upper}.")

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper


@dataclass(frozen=True, slots=True)
class Score:
    """A number that judges predictions, with its interval and everything needed to compute it again.

    Attributes:
        name: Field name of the score ("concordance_index", "brier_score", ...).
        value: Its value; NaN where the data do not define it (then `settings["undefined"]` says why).
        interval: Its confidence interval, or None where none was asked for.
        direction: Which way is better.
        category: The question it answers.
        settings: Tie rule, horizon, unit, censoring model, counts: plain numbers and strings only.
    """

    name: str
    value: float
    interval: Interval | None = None
    direction: Direction = Direction.HIGHER
    category: Category = Category.DISCRIMINATION
    settings: Mapping[str, float | int | str] = field(default_factory=dict)

    def with_interval(self, interval: Interval) -> Score:
        """The same score with an interval."""
        return replace(self, interval=interval)

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"{self.name} undefined"
        doubt = "" if self.interval is None else f" ({self.interval.lower:.3f} to {self.interval.upper:.3f})"
        return f"{self.name} {self.value:.3f}{doubt}"

    def to_json(self) -> dict[str, object]:
        """Plain values for a json file; NaN becomes None."""
        return {
            "name": self.name,
            "value": None if math.isnan(self.value) else self.value,
            "lower": None if self.interval is None or math.isnan(self.interval.lower) else self.interval.lower,
            "upper": None if self.interval is None or math.isnan(self.interval.upper) else self.interval.upper,
            "confidence": None if self.interval is None else self.interval.confidence,
            "interval_method": None if self.interval is None else self.interval.method,
            "direction": self.direction.name.lower(),
            "category": self.category.value,
            "settings": dict(self.settings),
        }
