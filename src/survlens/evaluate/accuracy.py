"""How far are predicted probabilities from what happened? Brier score, its integral, index of prediction accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import survival_curve
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction, Times
from survlens.core.score import Category, Direction, Score
from survlens.evaluate.alignment import check_predicted, check_prediction, check_scored, counted
from survlens.evaluate.censoring import CensoringModel
from survlens.evaluate.squared_errors import WeightedRows, trapezoid_weights


class NullModel(Enum):
    """Rows whose Kaplan-Meier curve is the model without covariates that IPA compares with.

    TEST: the scored rows, as R's riskRegression does; a hard opponent, because it knows their incidence.
    TRAINING: what could have been predicted before seeing the scored rows.
    """

    TEST = "test"
    TRAINING = "training"


@dataclass(frozen=True, slots=True, eq=False)
class BrierCurve:
    """Brier score at times, beside that of the null model.

    Attributes:
        times: Where it was asked, in `unit`.
        values: Brier score of the prediction; lower is better.
        null_values: Brier score of the Kaplan-Meier curve of the rows that `null_model` names.
        unit: Unit of time.
        null_model: Which rows the null model was fitted on.
        counts: Rows and events scored, for the settings of the scores.
        cause: The cause whose incidence was scored, or None where any event counts.
    """

    times: np.ndarray
    values: np.ndarray
    null_values: np.ndarray
    unit: str
    null_model: NullModel
    counts: Mapping[str, float | int | str] = field(default_factory=dict)
    cause: int | None = None

    @property
    def ipa(self) -> np.ndarray:
        """1 - Brier / null Brier: 1 is perfect, 0 as good as Kaplan-Meier, below 0 worse; NaN before any event."""
        return 1 - np.divide(
            self.values, self.null_values, out=np.full_like(self.values, np.nan), where=self.null_values > 0
        )

    def score(self, time: float) -> Score:
        """The Brier score at one of `times`."""
        return self._score("brier_score", self.values, time, Direction.LOWER)

    def ipa_score(self, time: float) -> Score:
        """The index of prediction accuracy at one of `times`."""
        return self._score("index_of_prediction_accuracy", self.ipa, time, Direction.HIGHER)

    def integrated(self) -> Score:
        """Trapezoidal integral of the Brier score over `times`, divided by their range."""
        name = self._named("integrated_brier_score")
        return Score(name, self._mean(self.values), None, Direction.LOWER, *self._integral_settings())

    def integrated_ipa(self) -> Score:
        """1 - integrated Brier score / that of the null model, over `times`."""
        null = self._mean(self.null_values)
        category, settings = self._integral_settings()
        settings |= {"null_model": self._null()}
        name = self._named("integrated_index_of_prediction_accuracy")
        if not null > 0:
            settings |= {"undefined": "the null model is never wrong: no events up to the last time"}
            return Score(name, float("nan"), None, Direction.HIGHER, category, settings)
        return Score(name, 1 - self._mean(self.values) / null, None, Direction.HIGHER, category, settings)

    def _mean(self, values: np.ndarray) -> float:
        if len(self.times) < 2:
            raise InvalidValueError(
                f"`times` must hold at least two times to integrate over; got {len(self.times)}. Add times."
            )
        return float(trapezoid_weights(self.times) @ values)

    def _integral_settings(self) -> tuple[Category, dict[str, float | int | str]]:
        return Category.ACCURACY, self._counts() | {
            "from": float(self.times[0]),
            "horizon": float(self.times[-1]),
            "unit": self.unit,
            "n_times": len(self.times),
            "rule": "trapezoid over the times, divided by their range",
            "censoring_model": _CENSORING,
        }

    def _score(self, name: str, values: np.ndarray, time: float, direction: Direction) -> Score:
        found = np.flatnonzero(np.isclose(self.times, time, rtol=1e-12, atol=0))
        if not found.size:
            raise InvalidValueError(f"`time` must be one of the curve's times {self.times.tolist()}; got {time:g}.")
        value = float(values[found[0]])
        settings = self._counts() | {
            "horizon": float(time),
            "unit": self.unit,
            "censoring_model": _CENSORING,
            "null_model": self._null(),
        }
        if np.isnan(value):
            settings["undefined"] = "no event up to this time"
        return Score(self._named(name), value, None, direction, Category.ACCURACY, settings)

    def _counts(self) -> dict[str, float | int | str]:
        return dict(self.counts) | ({} if self.cause is None else {"cause": self.cause})

    def _named(self, name: str) -> str:
        return name if self.cause is None else f"{name}_of_cause"

    def _null(self) -> str:
        estimate = "Kaplan-Meier" if self.cause is None else "Aalen-Johansen"
        return f"{estimate} of the {self.null_model.value} rows"


_CENSORING = "Kaplan-Meier of the training rows; events 1 / G(T-), survivors 1 / G(t)"


def brier_score(
    prediction: SurvivalPrediction,
    outcome: SurvivalOutcome,
    times: Times,
    *,
    training: SurvivalOutcome,
    null_model: NullModel = NullModel.TEST,
) -> BrierCurve:
    """Mean squared distance of S(t) from survival at t, those censored before t replaced by weights.

    BS(t) = 1/n sum over i of [T_i <= t, event] S_i(t)^2 / G(T_i-) + [T_i > t] (1 - S_i(t))^2 / G(t), with G the
    Kaplan-Meier curve of the censoring time of `training`. Events are weighted just before T, because of equal times
    the event comes first; weighting by G(T) would overstate the score where times are tied. All causes are events.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        times: Where to score, strictly increasing, within the follow-up of `outcome` and `training`, where G > 0.
        training: Outcome of the training rows; fits the censoring model.
        null_model: Rows whose Kaplan-Meier curve is the null model.

    Raises:
        InvalidValueError: If times leave the follow-up or the predicted range, or lengths or units differ.

    References:
        Graf, Schmoor, Sauerbrei and Schumacher 1999; Gerds and Schumacher 2006; Kattan and Gerds 2018.
    """
    check_choice("null_model", null_model, NullModel)
    rows = _rows(prediction, outcome, as_times(times), training)
    null = survival_curve(training if null_model is NullModel.TRAINING else outcome).at(rows.times)
    by_time = rows.sums_by_time(prediction)
    null_by_time = rows.null_sums(null[None], np.ones((1, len(outcome))))[0]
    n = len(outcome)
    return BrierCurve(rows.times, by_time / n, null_by_time / n, outcome.unit, null_model, counted(outcome))


def integrated_brier_score(
    prediction: SurvivalPrediction,
    outcome: SurvivalOutcome,
    *,
    training: SurvivalOutcome,
    times: Times | None = None,
    horizon: float | None = None,
) -> Score:
    """Brier score averaged over time: its trapezoidal integral over `times`, divided by their range.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed.
        training: Outcome of the training rows; fits the censoring model.
        times: Grid of the integral; by default every distinct time of `outcome` up to `horizon`. State it to compare
            with other work: the value depends on the grid.
        horizon: Last time of the default grid; by default the last time at which the score is defined.

    Raises:
        InvalidValueError: As `brier_score`; also if `times` and `horizon` are both given.
    """
    grid = integral_grid(outcome, training, times, horizon)
    return brier_score(prediction, outcome, grid, training=training).integrated()


def integrated_ipa(
    prediction: SurvivalPrediction,
    outcome: SurvivalOutcome,
    *,
    training: SurvivalOutcome,
    times: Times | None = None,
    horizon: float | None = None,
    null_model: NullModel = NullModel.TEST,
) -> Score:
    """1 - integrated Brier score / integrated Brier score of the null model, on the grid of `integrated_brier_score`.

    References:
        Kattan and Gerds 2018.
    """
    grid = integral_grid(outcome, training, times, horizon)
    return brier_score(prediction, outcome, grid, training=training, null_model=null_model).integrated_ipa()


def reweighted_integrated_brier_score(
    prediction: SurvivalPrediction,
    outcome: SurvivalOutcome,
    *,
    training: SurvivalOutcome,
    times: Times | None = None,
    horizon: float | None = None,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `integrated_brier_score` of each draw, on one grid for all."""
    rows = _rows(prediction, outcome, integral_grid(outcome, training, times, horizon), training)
    by_row = rows.sums_by_row(prediction, trapezoid_weights(rows.times))
    return lambda weights: weights @ by_row / weights.sum(1)


def reweighted_integrated_ipa(
    prediction: SurvivalPrediction,
    outcome: SurvivalOutcome,
    *,
    training: SurvivalOutcome,
    times: Times | None = None,
    horizon: float | None = None,
    null_model: NullModel = NullModel.TEST,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `integrated_ipa` of each draw, on one grid for all."""
    check_choice("null_model", null_model, NullModel)
    rows = _rows(prediction, outcome, integral_grid(outcome, training, times, horizon), training)
    average = trapezoid_weights(rows.times)
    by_row = rows.sums_by_row(prediction, average)
    fixed = survival_curve(training).at(rows.times)[None]
    curves = rows.kaplan_meier_of_draws() if null_model is NullModel.TEST else lambda weights: fixed

    def ipa(weights: np.ndarray) -> np.ndarray:
        null = rows.null_sums(curves(weights), weights) @ average
        return 1 - np.divide(weights @ by_row, null, out=np.full(len(weights), np.nan), where=null > 0)

    return ipa


def _rows(
    prediction: SurvivalPrediction, outcome: SurvivalOutcome, times: np.ndarray, training: SurvivalOutcome
) -> WeightedRows:
    check_prediction(prediction, outcome)
    check_scored(outcome)
    model = CensoringModel.fit(training, outcome)
    asked = model.check_times(times, outcome)
    check_predicted(prediction, asked)
    return WeightedRows.of(outcome, asked, model)


def as_times(times: Times) -> np.ndarray:
    """Times as a float64 vector."""
    array = times.detach().cpu().numpy() if isinstance(times, torch.Tensor) else np.asarray(times)
    return np.atleast_1d(array.astype(np.float64))


def integral_grid(
    outcome: SurvivalOutcome, training: SurvivalOutcome, times: Times | None, horizon: float | None
) -> np.ndarray:
    """Times over which an integrated score is taken: `times`, or every distinct time of `outcome` up to `horizon`."""
    if times is not None:
        if horizon is not None:
            raise InvalidValueError("`times` and `horizon` must not both be given. Cut `times` at the horizon instead.")
        return as_times(times)
    model = CensoringModel.fit(training, outcome)
    end = model.last_scored(outcome) if horizon is None else float(horizon)
    observed = np.unique(outcome.numpy()[0])
    return np.unique(np.append(observed[observed < end], end))
