"""Does the model tell who has the event by a time from who does not? Cumulative/dynamic AUC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction, Times
from survlens.core.score import Score
from survlens.evaluate.alignment import (
    RiskLike,
    aligned_risk,
    check_predicted,
    check_prediction,
    check_scored,
    counted,
    log_survival_at,
)
from survlens.evaluate.censoring import CensoringModel


@dataclass(frozen=True, slots=True, eq=False)
class AucCurve:
    """Cumulative/dynamic AUC at times.

    Attributes:
        times: Where it was asked, in `unit`.
        values: AUC; NaN where no row had the event, or none is still followed.
        n_cases: Rows with an event by each time.
        n_controls: Rows still followed after each time.
        unit: Unit of time.
        counts: Rows and events scored, for the settings of the scores.
        cause: The cause whose events are the cases, or None where any event is.
    """

    times: np.ndarray
    values: np.ndarray
    n_cases: np.ndarray
    n_controls: np.ndarray
    unit: str
    counts: Mapping[str, float | int | str] = field(default_factory=dict)
    cause: int | None = None

    def score(self, time: float) -> Score:
        """The AUC at one of `times`."""
        found = np.flatnonzero(np.isclose(self.times, time, rtol=1e-12, atol=0))
        if not found.size:
            raise InvalidValueError(f"`time` must be one of the curve's times {self.times.tolist()}; got {time:g}.")
        k = int(found[0])
        settings = dict(self.counts) | {
            "horizon": float(time),
            "unit": self.unit,
            "ties": "equal risks count one half",
            "censoring_model": "Kaplan-Meier of the training rows; events 1 / G(T-), survivors 1 / G(t)",
            "n_cases": int(self.n_cases[k]),
            "n_controls": int(self.n_controls[k]),
        }
        if np.isnan(self.values[k]):
            settings["undefined"] = "no event by this time, or nobody followed beyond it"
        if self.cause is None:
            return Score("cumulative_dynamic_auc", float(self.values[k]), settings=settings)
        settings["cause"] = self.cause
        return Score("cumulative_dynamic_auc_of_cause", float(self.values[k]), settings=settings)


def cumulative_dynamic_auc(
    prediction: SurvivalPrediction | RiskLike, outcome: SurvivalOutcome, times: Times, *, training: SurvivalOutcome
) -> AucCurve:
    """Probability that a row with an event by t had a higher risk than one followed beyond t.

    AUC(t) = sum over i, j of [T_i <= t, event_i] [T_j > t] ([r_i > r_j] + [r_i = r_j] / 2) / G(T_i-), divided by the
    same sum without the comparison; survivors all weigh 1 / G(t), which cancels. Cost: n log n per time.

    Args:
        prediction: Survival curves (the risk at t is then 1 - S(t)), or one risk per row for all times.
        outcome: What was observed; with weights, a pair counts the product of its two.
        times: Where to score, strictly increasing, within the follow-up of `outcome` and `training`.
        training: Outcome of the training rows; fits the censoring model.

    Raises:
        InvalidValueError: If times leave the follow-up or the predicted range, or lengths or units differ.

    References:
        Uno, Cai, Tian and Wei 2007; Hung and Chiang 2010.
    """
    asked = times.detach().cpu().numpy() if isinstance(times, torch.Tensor) else np.asarray(times)
    model = CensoringModel.fit(training, outcome)
    grid = model.check_times(asked, outcome)
    if isinstance(prediction, SurvivalPrediction):
        check_prediction(prediction, outcome)
        check_predicted(prediction, grid)
        risks = -log_survival_at(prediction, grid).numpy()
    else:
        risks = np.broadcast_to(aligned_risk(prediction, outcome)[:, None], (len(outcome), len(grid)))
    check_scored(outcome, weights=True)
    own = outcome.weights().detach().cpu().numpy()
    time, event = outcome.numpy()
    scored = (event > 0) & (time <= grid[-1])
    weight = np.zeros(len(time))
    weight[scored] = model.case_weight(time[scored]) * own[scored]
    values, cases, controls = np.empty(len(grid)), np.empty(len(grid), int), np.empty(len(grid), int)
    for k, end in enumerate(grid):
        case, control = scored & (time <= end), time > end
        cases[k], controls[k] = case.sum(), control.sum()
        values[k] = weighted_auc(risks[case, k], weight[case], risks[control, k], own[control])
    return AucCurve(grid, values, cases, controls, outcome.unit, counted(outcome))


def weighted_auc(cases: np.ndarray, case_weight: np.ndarray, controls: np.ndarray, control_weight: np.ndarray) -> float:
    """Weighted share of pairs in which the case has the higher risk, equal risks counting one half; NaN without pairs.

    Args:
        cases: Risks of the cases.
        case_weight: Their weights.
        controls: Risks of the controls.
        control_weight: Their weights.
    """
    if not len(cases) or not len(controls):
        return float("nan")
    order, by_risk = np.argsort(controls), np.argsort(cases)
    cases, case_weight = cases[by_risk], case_weight[by_risk]
    held = np.append(0.0, np.cumsum(control_weight[order]))
    below = held[np.searchsorted(controls[order], cases, side="left")]
    upto = held[np.searchsorted(controls[order], cases, side="right")]
    return float(case_weight @ ((below + upto) / 2) / (case_weight.sum() * held[-1]))
