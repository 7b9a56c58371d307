"""A score that has a value for every instance and time, averaged with a bootstrap interval over instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.score import Interval, Score
from survlens.evaluate.attribution_definitions import ATTRIBUTION_DEFINITIONS
from survlens.evaluate.attribution_values import time_weights
from survlens.evaluate.resampling import Resampling

Statistic = Callable[[np.ndarray], np.ndarray]
"""From means over instances, (draw, column), to the value of each draw at each time and, last, over time."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """How intervals are made: instances are drawn with replacement.

    Attributes:
        draws: Number of draws.
        seed: The same seed gives the same draws.
        confidence: Level of the percentile interval.
        patient: Whose each instance is; those of one patient are drawn together. By default each is a patient.
    """

    draws: int = 1000
    seed: int = 0
    confidence: float = 0.95
    patient: Sequence[object] | np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.confidence < 1:
            raise InvalidValueError(
                f"`draws` must be >= 1 and `confidence` in (0, 1); got {self.draws} and {self.confidence}."
            )

    @property
    def method(self) -> str:
        """The method in words."""
        drawn = "instances" if self.patient is None else "patients"
        return f"percentile bootstrap of {drawn}, {self.draws} draws"

    def means(self, columns: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Means over drawn instances of the rows of `columns` (instance, column) that are `kept`, one row per draw.

        Raises:
            InvalidValueError: If `patient` has another length than there are instances.
        """
        if self.patient is not None and len(self.patient) != len(columns):
            raise InvalidValueError(
                f"`patient` must name the patient of each of the {len(columns)} instances; got {len(self.patient)}."
            )
        known = np.arange(len(columns)) if self.patient is None else np.asarray(self.patient)
        names, code = np.unique(known[kept], return_inverse=True)
        resampling = Resampling(code, len(names), self.draws, self.seed)
        drawn = (each.astype(np.float64) for each in resampling.multiplicities())
        return np.concatenate([each @ columns[kept] / each.sum(1, keepdims=True) for each in drawn])

    def limits(self, drawn: np.ndarray) -> np.ndarray:
        """Lower and upper limit of each column of `drawn` (draw, column)."""
        tail = (1 - self.confidence) / 2
        return np.quantile(drawn, [tail, 1 - tail], axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreOverTime:
    """A score of attributions: averaged over instances per time, and over times.

    Attributes:
        score: The average over instances and times, with its interval.
        times: Times.
        values: Average over instances at each time.
        lower: Lower limit at each time.
        upper: Upper limit at each time.
        per_instance: Value of each instance at each time; NaN where it is undefined, and then it is left out.
    """

    score: Score
    times: np.ndarray
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    per_instance: np.ndarray = field(repr=False)


def score_over_time(
    name: str,
    per_instance: np.ndarray,
    times: np.ndarray,
    intervals: Intervals,
    *,
    overall: np.ndarray | None = None,
    settings: Mapping[str, float | int | str] | None = None,
) -> ScoreOverTime:
    """Averages over instances, and over times by the trapezoidal mean unless `overall` gives a value per instance."""
    weights = time_weights(times)
    columns = np.column_stack([per_instance, per_instance @ weights if overall is None else overall])
    return statistic_over_time(name, columns, per_instance, times, intervals, settings=settings)


def statistic_over_time(
    name: str,
    columns: np.ndarray,
    per_instance: np.ndarray,
    times: np.ndarray,
    intervals: Intervals,
    *,
    statistic: Statistic = lambda means: means,
    settings: Mapping[str, float | int | str] | None = None,
) -> ScoreOverTime:
    """A function of means over instances, such as a ratio of two, with its interval.

    Args:
        name: Name of the score in `ATTRIBUTION_DEFINITIONS`.
        columns: What is averaged over instances.
        per_instance: Value of each instance at each time.
        times: Times.
        intervals: How intervals are made.
        statistic: From the averages to the value at each time and, in the last column, over time.
        settings: What a reader needs to compute it again.
    """
    definition = ATTRIBUTION_DEFINITIONS[name]
    kept = np.asarray(np.isfinite(columns).all(1))
    stated: dict[str, float | int | str] = {"n": int(kept.sum()), "undefined_instances": int((~kept).sum())}
    stated |= {"draws": intervals.draws, "seed": intervals.seed} | dict(settings or {})
    if kept.any():
        values = statistic(columns[kept].mean(0, keepdims=True))[0]
        lower, upper = intervals.limits(statistic(intervals.means(columns, kept)))
    else:
        stated["undefined"] = "no instance defines the score"
        values = lower = upper = np.full(len(times) + 1, np.nan)
    interval = Interval(float(lower[-1]), float(upper[-1]), intervals.confidence, intervals.method)
    score = Score(name, float(values[-1]), interval, definition.direction, definition.category, stated)
    return ScoreOverTime(score, times, values[:-1], lower[:-1], upper[:-1], per_instance)
