"""Is it worth acting on the prediction? Decision curves with censoring and competing risks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.score import Category, Direction, Score
from survlens.evaluate.alignment import (
    RiskLike,
    aligned_risk,
    check_predicted,
    check_prediction,
    check_scored,
    counted,
    incidence_at,
    log_survival_at,
)
from survlens.evaluate.incidence import IncidenceRows
from survlens.evaluate.resampling import Resampling

_THRESHOLDS = tuple(k / 100 for k in range(1, 100))

Predicted = SurvivalPrediction | CompetingRisksPrediction | RiskLike
"""Curves, curves by cause, or one probability of an event by the horizon per row."""


@dataclass(frozen=True, slots=True, eq=False)
class DecisionCurve:
    """Net benefit of treating those whose predicted risk reaches a threshold; treating nobody has 0.

    Attributes:
        thresholds: Threshold probabilities, increasing.
        net_benefit: Net benefit of the model; NaN where the risk of those it would treat is not known at the horizon.
        treat_all: Net benefit of treating everybody.
        share_treated: Share of rows that the model would treat.
        observed_risk: Observed risk of all rows by the horizon: the largest possible net benefit.
        lower: Lower limits of `net_benefit`, or None where no draws were asked for.
        upper: Upper limits of `net_benefit`.
        settings: Horizon, unit, counts, estimate, and how the limits were made.
    """

    thresholds: np.ndarray
    net_benefit: np.ndarray
    treat_all: np.ndarray
    share_treated: np.ndarray
    observed_risk: float
    lower: np.ndarray | None
    upper: np.ndarray | None
    settings: dict[str, float | int | str]

    @property
    def treat_none(self) -> np.ndarray:
        """Net benefit of treating nobody: 0."""
        return np.zeros_like(self.thresholds)

    @property
    def standardised(self) -> np.ndarray:
        """Net benefit divided by the observed risk: 1 is a perfect rule."""
        possible = self.observed_risk if self.observed_risk > 0 else np.nan
        return self.net_benefit / possible

    def score(self, threshold: float) -> Score:
        """The net benefit at one of `thresholds`."""
        found = np.flatnonzero(np.isclose(self.thresholds, threshold, rtol=1e-12, atol=0))
        if not found.size:
            raise InvalidValueError(f"`threshold` must be one of the curve's thresholds; got {threshold:g}.")
        k = int(found[0])
        settings = self.settings | {
            "threshold": float(threshold),
            "treat_all": float(self.treat_all[k]),
            "share_treated": float(self.share_treated[k]),
        }
        if np.isnan(self.net_benefit[k]):
            settings["undefined"] = "nobody whom the model would treat is followed to the horizon"
        value = float(self.net_benefit[k])
        return Score("net_benefit", value, None, Direction.HIGHER, Category.CLINICAL_USE, settings)


def decision_curve(
    prediction: Predicted,
    outcome: SurvivalOutcome,
    horizon: float,
    *,
    thresholds: Sequence[float] | np.ndarray = _THRESHOLDS,
    cause: int | None = None,
    patient: Sequence[object] | np.ndarray | None = None,
    draws: int = 0,
    seed: int = 0,
) -> DecisionCurve:
    """Net benefit of acting on the predicted risk, over threshold probabilities.

    NB(p) = q (F - (1 - F) p / (1 - p)), with q the share of rows whose predicted risk by the horizon is p or more, and
    F the observed risk of those rows: 1 - Kaplan-Meier, or the Aalen-Johansen estimate of `cause`, so that censored
    rows count as long as they were seen. The threshold p is the risk at which a patient would be indifferent: p / (1 -
    p) is the harm of an unneeded treatment in units of the benefit of a needed one. A model is useful where its curve
    lies above both `treat_all` and 0. Where nobody reaches the threshold, NB is 0.

    Args:
        prediction: Curves, or the probability of an event by the horizon of each row; curves by cause with `cause`.
        outcome: What was observed; a row counts as often as its weight says.
        horizon: End point, within the follow-up and the predicted range.
        thresholds: Threshold probabilities in (0, 1), increasing.
        cause: The cause to be prevented; by default any event.
        patient: Whose row it is; rows of one patient are drawn together.
        draws: Resamples of patients for the 95 % percentile limits; 0 for none.
        seed: The same seed, rows and patients give the draws of `bootstrap`.

    Raises:
        InvalidValueError: If a threshold or a predicted risk lies outside its range, the horizon leaves the follow-up
            or the predicted range, rows enter late, or lengths or units differ.

    References:
        Vickers and Elkin 2006; Vickers, Cronin, Elkin and Gonen 2008.
    """
    levels = _thresholds(thresholds)
    decisions = _Decisions.of(prediction, outcome, horizon, levels, cause)
    whole, share_treated = decisions.net_benefit(None)
    observed = decisions.rows.risk()
    treat_all = observed - (1 - observed) * _odds(levels)
    settings = _settings(outcome, horizon, cause)
    lower = upper = None
    if draws:
        resampling = Resampling.of(outcome, patient, draws, seed)
        drawn = np.array(
            [decisions.net_benefit(one)[0] for block in resampling.multiplicities() for one in block], dtype=np.float64
        )
        limits = np.full((2, len(levels)), np.nan)
        defined = ~np.isnan(drawn).all(0)
        limits[:, defined] = np.nanquantile(drawn[:, defined], [0.025, 0.975], axis=0)
        lower, upper = limits
        settings |= {
            "draws": draws,
            "undefined_draws": int(np.isnan(drawn).any(1).sum()),
            "interval_method": f"percentile bootstrap of patients, {draws} draws",
        }
    return DecisionCurve(levels, whole, treat_all, share_treated, observed, lower, upper, settings)


def net_benefit(
    prediction: Predicted, outcome: SurvivalOutcome, horizon: float, threshold: float, *, cause: int | None = None
) -> Score:
    """The net benefit at one threshold, as in `decision_curve`; give it to `bootstrap` for an interval or a difference.

    Args:
        prediction: As `decision_curve`.
        outcome: What was observed.
        horizon: End point.
        threshold: Threshold probability in (0, 1).
        cause: The cause to be prevented; by default any event.
    """
    return decision_curve(prediction, outcome, horizon, thresholds=(threshold,), cause=cause).score(threshold)


def reweighted_net_benefit(
    prediction: Predicted, outcome: SurvivalOutcome, horizon: float, threshold: float, *, cause: int | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from multiplicities (draw, instance) to `net_benefit` of each draw."""
    decisions = _Decisions.of(prediction, outcome, horizon, _thresholds((threshold,)), cause)
    return lambda weights: np.array([decisions.net_benefit(one)[0][0] for one in weights])


@dataclass(frozen=True, slots=True, eq=False)
class _Decisions:
    """Which rows each threshold would treat, beside their prepared outcomes."""

    rows: IncidenceRows
    levels: np.ndarray
    band: np.ndarray
    """How many of the thresholds each row's risk reaches."""

    @staticmethod
    def of(
        prediction: Predicted, outcome: SurvivalOutcome, horizon: float, levels: np.ndarray, cause: int | None
    ) -> _Decisions:
        risk = predicted_risk(prediction, outcome, horizon, cause)
        band = np.searchsorted(levels, risk, side="right")
        return _Decisions(IncidenceRows.of(outcome, horizon, cause), levels, band)

    def net_benefit(self, multiplicity: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Net benefit and share treated at every threshold."""
        risk, share = self.rows.risk_above(self.band, len(self.levels), multiplicity)
        value = share * (risk - (1 - risk) * _odds(self.levels))
        return np.where(share > 0, value, 0.0), share


def predicted_risk(
    prediction: Predicted, outcome: SurvivalOutcome, horizon: float, cause: int | None = None
) -> np.ndarray:
    """Predicted probability of an event (of `cause`) by the horizon, of each row of `outcome`, in float64.

    Raises:
        InvalidValueError: If the horizon leaves the follow-up or the predicted range, rows enter late, curves by cause
            come without a `cause`, or lengths or units differ.
    """
    check_scored(outcome, weights=True)
    last = float(outcome.time.max()) if len(outcome) else 0.0
    if not 0 < horizon <= last:
        raise InvalidValueError(
            f"`horizon` must lie in (0, {last:g}] {outcome.unit}, the follow-up of `outcome`; got {horizon:g}. "
            "Choose an earlier horizon."
        )
    times = np.array([float(horizon)])
    if isinstance(prediction, CompetingRisksPrediction):
        if cause is None:
            raise InvalidValueError("`cause` must be given with curves by cause; got None. Say which event it is.")
        return incidence_at(prediction, outcome, cause, times)[:, 0]
    if isinstance(prediction, SurvivalPrediction):
        if cause is not None and outcome.n_causes > 1:
            raise InvalidValueError(
                f"`prediction` must tell causes apart to be scored on cause {cause}; got curves of any event. "
                "Give a CompetingRisksPrediction, or the probability of that cause by the horizon."
            )
        check_prediction(prediction, outcome)
        check_predicted(prediction, times)
        return -np.expm1(log_survival_at(prediction, times).numpy()[:, 0])
    risk = aligned_risk(prediction, outcome)
    if (risk < 0).any() or (risk > 1).any():
        wrong = risk[(risk < 0) | (risk > 1)]
        raise InvalidValueError(
            f"`prediction` must be probabilities in [0, 1]; got {wrong[0]:g}. "
            "Give the predicted risk by the horizon, not a log-risk."
        )
    return risk


def _thresholds(thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    levels = np.asarray(thresholds, dtype=np.float64)
    rising = levels.ndim == 1 and levels.size > 0 and bool((np.diff(levels) > 0).all())
    if not rising or not ((levels > 0) & (levels < 1)).all():
        raise InvalidValueError(f"`thresholds` must increase within (0, 1); got {levels.tolist()}.")
    return levels


def _odds(levels: np.ndarray) -> np.ndarray:
    return levels / (1 - levels)


def _settings(outcome: SurvivalOutcome, horizon: float, cause: int | None) -> dict[str, float | int | str]:
    settings = counted(outcome) | {
        "horizon": float(horizon),
        "censoring_model": "observed risk among the treated by "
        + ("Kaplan-Meier" if cause is None else "the Aalen-Johansen estimator"),
    }
    return settings if cause is None else settings | {"cause": cause}
