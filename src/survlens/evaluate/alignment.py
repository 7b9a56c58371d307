"""Checks that what is scored, what was observed and what a model was trained on belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction

RiskLike = np.ndarray | Tensor | Sequence[float]


def float_vector(values: RiskLike, name: str) -> np.ndarray:
    """`values` as a float64 vector without NaN; float64 input keeps every digit."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = array.astype(np.float64)
    if array.ndim != 1:
        raise InvalidValueError(f"`{name}` must be one number per row; got shape {array.shape}.")
    if np.isnan(array).any():
        first = int(np.flatnonzero(np.isnan(array))[0])
        raise InvalidValueError(
            f"`{name}` must not be NaN; got NaN at position {first} ({int(np.isnan(array).sum())} such values). "
            "Check these rows' inputs."
        )
    return array


def aligned_risk(risk: RiskLike, outcome: SurvivalOutcome) -> np.ndarray:
    """`risk` as a float64 vector with one value per row of `outcome`."""
    array = float_vector(risk, "risk")
    if len(array) != len(outcome):
        raise InvalidValueError(
            f"`risk` and `outcome` must have one length; got {len(array)} and {len(outcome)}. Score the same rows."
        )
    return array


def check_prediction(prediction: SurvivalPrediction | CompetingRisksPrediction, outcome: SurvivalOutcome) -> None:
    """Refuses a prediction of other rows, or in another unit, than `outcome`."""
    if len(prediction) != len(outcome):
        raise InvalidValueError(
            f"`prediction` and `outcome` must have one length; got {len(prediction)} and {len(outcome)}. "
            "Score the same rows."
        )
    check_unit("prediction", prediction.unit, outcome)


def check_predicted(prediction: SurvivalPrediction | CompetingRisksPrediction, times: np.ndarray) -> None:
    """Refuses times past the last knot of `prediction`."""
    last = float(prediction.times[-1])
    if len(times) and times[-1] > last * (1 + 1e-12):
        raise InvalidValueError(
            f"`times` must lie in (0, {last:g}] {prediction.unit}, the predicted range; got {times[-1]:g}. "
            f"Score up to {last:g} (horizon={last:g}), or predict at times that reach the end of follow-up."
        )


@dataclass(frozen=True, slots=True, eq=False)
class CurveReader:
    """Reads log S (instance, time) at fixed times, block by block, in float64 and without a graph.

    Where the stored knots hold the answer their columns are read; building a prediction for every question would cost
    more than the score.
    """

    prediction: SurvivalPrediction
    times: np.ndarray
    columns: np.ndarray | None
    """Knot that answers each time, -1 before the first; None where curves must be interpolated."""

    @staticmethod
    def of(prediction: SurvivalPrediction, times: np.ndarray) -> CurveReader:
        """A reader of `prediction` at `times`, which lie in the predicted range."""
        knots = prediction.times.detach().cpu().numpy()
        asked = times.astype(knots.dtype)
        columns = np.searchsorted(knots, asked, side="right") - 1
        exact = bool((columns >= 0).all()) and bool((knots[columns] == asked).all())
        readable = exact or prediction.interpolation is Interpolation.STEP
        return CurveReader(prediction, times, columns if readable else None)

    def read(self, rows: slice) -> np.ndarray:
        """Log S of some rows; may be the stored values themselves, so do not write into it."""
        if self.columns is None:
            found = self.prediction[rows].at(torch.from_numpy(self.times)).log_survival
            return found.detach().cpu().double().numpy()
        stored = self.prediction.log_survival.detach()[rows].cpu().numpy()
        if not np.array_equal(self.columns, np.arange(stored.shape[1])):
            stored = np.take(stored, np.maximum(self.columns, 0), axis=1)
            stored[:, self.columns < 0] = 0.0
        return stored.astype(np.float64, copy=False)


def log_survival_at(prediction: SurvivalPrediction, times: np.ndarray) -> Tensor:
    """Log S (instance, time) of all rows in float64, as `CurveReader` reads it; do not write into it."""
    return torch.from_numpy(CurveReader.of(prediction, times).read(slice(None)))


def incidence_at(
    prediction: CompetingRisksPrediction, outcome: SurvivalOutcome, cause: int, times: np.ndarray
) -> np.ndarray:
    """F of `cause` (instance, time) in float64; stored columns are read where they hold the answer.

    Raises:
        InvalidValueError: If `prediction` is of other rows or another unit, or does not reach the times.
    """
    check_prediction(prediction, outcome)
    check_predicted(prediction, times)
    knots = prediction.times.detach().cpu().numpy()
    asked = times.astype(knots.dtype)
    column = np.searchsorted(knots, asked, side="right") - 1
    exact = bool((column >= 0).all()) and bool((knots[np.maximum(column, 0)] == asked).all())
    if not exact and prediction.interpolation is not Interpolation.STEP:
        return prediction.at(asked).incidence(cause).detach().cpu().double().numpy()
    stored = prediction.incidence(cause).detach().cpu().numpy()
    chosen = stored[:, np.maximum(column, 0)].astype(np.float64)
    chosen[:, column < 0] = 0.0
    return chosen


def own_log_survival(prediction: SurvivalPrediction, time: np.ndarray) -> np.ndarray:
    """Log S_i(T_i): of each row its own curve at its own time, within the predicted range, in float64."""
    knots = np.append(0.0, prediction.times.detach().cpu().numpy())
    stored = prediction.log_survival.detach().cpu().numpy()
    rows = np.arange(len(time))

    def value(knot: np.ndarray) -> np.ndarray:
        return np.where(knot > 0, stored[rows, np.maximum(knot - 1, 0)].astype(np.float64), 0.0)

    if prediction.interpolation is Interpolation.STEP:
        return value(np.searchsorted(knots, time.astype(knots.dtype), side="right") - 1)
    right = np.clip(np.searchsorted(knots, time, side="left"), 1, len(knots) - 1)
    start, end = value(right - 1), value(right)
    share = np.minimum((time - knots[right - 1]) / (knots[right] - knots[right - 1]), 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        if prediction.interpolation is Interpolation.EXPONENTIAL:
            between = start + share * (end - start)
        else:
            between = start + np.log1p(share * np.expm1(end - start))
    return np.where((share >= 1) | np.isinf(start), end, between)


def check_scored(
    outcome: SurvivalOutcome, name: str = "outcome", *, weights: bool = False, entries: bool = False
) -> None:
    """The one door for what a score cannot honour: delayed entries and weights, unless the score takes them.

    Strata pass and are ignored: they say which rows share a baseline while a model is fitted, and a score compares or
    averages all rows whatever baseline their prediction came from.

    Args:
        outcome: What a score was given.
        name: Argument it came as.
        weights: Whether the score counts each row `weight` times.
        entries: Whether the score counts rows as at risk from their entry on.

    Raises:
        InvalidValueError: If `outcome` has a delayed entry, or has weights, that the score would not use.
    """
    if not entries and outcome.entry is not None and bool((outcome.entry > 0).any()):
        late = int((outcome.entry > 0).sum())
        raise InvalidValueError(
            f"`{name}` must be followed from the origin to be scored; got {late} rows with a delayed entry. "
            "Score rows without one: pairs and censoring weights are not defined for lives seen only from their entry."
        )
    if not weights and outcome.weight is not None and bool((outcome.weight != outcome.weight[:1]).any()):
        raise InvalidValueError(
            f"`{name}` must have equal weights for this score; "
            f"got weights from {float(outcome.weight.min()):g} to {float(outcome.weight.max()):g}. "
            "Leave the weights out, or use a concordance, an AUC or a decision curve, which honour them."
        )


def counted(outcome: SurvivalOutcome) -> dict[str, float | int | str]:
    """Rows, events and unit that a score was computed from, for its settings."""
    return {"n": len(outcome), "n_events": outcome.n_events, "unit": outcome.unit}


def check_unit(name: str, unit: str, outcome: SurvivalOutcome) -> None:
    """Refuses two units of time in one score."""
    if unit != outcome.unit:
        raise InvalidValueError(
            f"`{name}` and `outcome` must share one unit of time; got {unit!r} and {outcome.unit!r}. "
            "Convert one of them; units are never converted silently."
        )


def check_horizon(horizon: float | None) -> float:
    """The horizon as a number; infinite where none was given."""
    if horizon is None:
        return float("inf")
    if not horizon > 0:
        raise InvalidValueError(f"`horizon` must be > 0; got {horizon}.")
    return float(horizon)
