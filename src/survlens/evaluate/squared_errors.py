"""Weighted squared errors behind the Brier score, summed by time or by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.row_order import by_value
from survlens.evaluate.alignment import CurveReader
from survlens.evaluate.censoring import CensoringModel

_BLOCK = 1 << 17
"""Survival probabilities held at once: few enough to stay in the cache between the exponential and the sums."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightedRows:
    """Rows with the weights that a squared error at each time gets.

    Attributes:
        times: Where errors are taken.
        time: Observed times.
        died: Whether an event was seen.
        first_dead: Index of the first of `times` at or after each row's own time.
        case_weight: 1 / G(T-) of rows with an event up to the last of `times`, else 0.
        control_weight: 1 / G(t) at `times`.
    """

    times: np.ndarray
    time: np.ndarray
    died: np.ndarray
    first_dead: np.ndarray
    case_weight: np.ndarray
    control_weight: np.ndarray

    @staticmethod
    def of(outcome: SurvivalOutcome, times: np.ndarray, model: CensoringModel) -> WeightedRows:
        """Weights of the rows of `outcome`."""
        time, event = outcome.numpy()
        order, ordered = by_value(time)  # ordered questions are answered several times faster
        first_dead, case_weight = np.empty(len(time), dtype=np.int64), np.zeros(len(time))
        first_dead[order] = np.searchsorted(times, ordered, side="left")
        scored = (event[order] > 0) & (ordered <= times[-1])
        case_weight[order[scored]] = model.case_weight(ordered[scored])
        return WeightedRows(times, time, event > 0, first_dead, case_weight, model.control_weight(times))

    def sums_by_time(self, prediction: SurvivalPrediction) -> np.ndarray:
        """Weighted squared errors of a prediction, summed over rows at each time."""
        sums = np.zeros(len(self.times))
        for rows, survival in self._survival(prediction):
            _add_by_time(survival, self.first_dead[rows], self.case_weight[rows], self.control_weight, sums)
        return sums

    def sums_by_row(self, prediction: SurvivalPrediction, time_weight: np.ndarray) -> np.ndarray:
        """Weighted squared errors of a prediction, summed over times by `time_weight` for each row."""
        sums = np.empty(len(self.time))
        of_alive = time_weight * self.control_weight
        for rows, survival in self._survival(prediction):
            sums[rows] = _by_row(survival, self.first_dead[rows], self.case_weight[rows], of_alive, time_weight)
        return sums

    def _survival(self, prediction: SurvivalPrediction) -> Iterator[tuple[slice, np.ndarray]]:
        reader = CurveReader.of(prediction, self.times)
        height = max(1, min(_BLOCK // len(self.times), len(self.time)))
        kept = np.empty((height, len(self.times)))  # one block, written over and over
        for start in range(0, len(self.time), height):
            rows = slice(start, start + height)
            log_survival = reader.read(rows)
            yield rows, np.exp(log_survival, out=kept[: len(log_survival)])

    def null_sums(self, survival: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Squared errors of one curve for all, summed over rows at each time, for each draw of row multiplicities.

        Args:
            survival: The curve at `times`, one row per draw.
            weights: Multiplicity of each row, one row per draw.
        """
        of_cases = self._up_to_each_time(weights * self.case_weight)
        alive = weights.sum(1, keepdims=True) - self._up_to_each_time(weights)
        return of_cases * survival**2 + alive * self.control_weight * (1 - survival) ** 2

    def _up_to_each_time(self, weights: np.ndarray) -> np.ndarray:
        """Sum of the weights of rows with a time up to each of `times`."""
        bins = len(self.times) + 1
        offset = np.arange(len(weights))[:, None] * bins + self.first_dead
        summed = np.bincount(offset.ravel(), weights=weights.ravel(), minlength=len(weights) * bins)
        return np.cumsum(summed.reshape(len(weights), bins), axis=1)[:, :-1]

    def kaplan_meier_of_draws(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from multiplicities (draw, instance) to the Kaplan-Meier curve of each draw at `times`."""
        order = np.argsort(self.time, kind="stable")
        ordered = self.time[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        column = np.searchsorted(ordered[starts], self.times, side="right")

        def survival(weights: np.ndarray) -> np.ndarray:
            at_time = np.add.reduceat(weights[:, order].astype(np.float64), starts, axis=1)
            deaths = np.add.reduceat((weights * self.died)[:, order].astype(np.float64), starts, axis=1)
            at_risk = np.cumsum(at_time[:, ::-1], axis=1)[:, ::-1]
            with np.errstate(divide="ignore"):
                steps = np.log1p(-deaths / np.maximum(at_risk, 1.0))
            return np.exp(np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))[:, column])

        return survival


def trapezoid_weights(times: np.ndarray) -> np.ndarray:
    """Weights that turn values at `times` into their trapezoidal mean over the range; 1 for a single time."""
    if len(times) == 1:
        return np.ones(1)
    gaps = np.diff(times)
    return (np.append(gaps, 0.0) + np.append(0.0, gaps)) / (2 * (times[-1] - times[0]))


@njit(cache=True, fastmath={"reassoc", "contract"})
def _add_by_time(
    survival: np.ndarray, first_dead: np.ndarray, case_weight: np.ndarray, control_weight: np.ndarray, sums: np.ndarray
) -> None:
    """Adds to each time the weighted (1 - S)^2 of rows still alive and S^2 of rows with an event.

    Both are computed for every cell and one is chosen, which the compiler turns into vector instructions.
    """
    for i in range(survival.shape[0]):
        first, weight = first_dead[i], case_weight[i]
        for k in range(survival.shape[1]):
            alive, dead = 1.0 - survival[i, k], survival[i, k]
            sums[k] += control_weight[k] * alive * alive if k < first else weight * dead * dead


@njit(cache=True, fastmath={"reassoc", "contract"})
def _by_row(
    survival: np.ndarray, first_dead: np.ndarray, case_weight: np.ndarray, of_alive: np.ndarray, of_dead: np.ndarray
) -> np.ndarray:
    """The same squared errors, summed over times for each row; the order of a sum is left to the compiler."""
    sums = np.zeros(survival.shape[0])
    for i in range(survival.shape[0]):
        row = survival[i]
        total = 0.0
        for k in range(first_dead[i]):
            total += of_alive[k] * (1.0 - row[k]) * (1.0 - row[k])
        if case_weight[i] > 0.0:
            late = 0.0
            for k in range(first_dead[i], len(row)):
                late += of_dead[k] * row[k] * row[k]
            total += case_weight[i] * late
        sums[i] = total
    return sums
