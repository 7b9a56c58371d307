"""Kaplan-Meier, Nelson-Aalen, censoring weights and the baseline hazard.

Everything is float64 and right-continuous. Heads, scores and figures share these estimators.

All of them honour delayed entry (an instance is at risk in (entry, time]) and weights (an instance counts w times, as
if it stood there w times). Strata are for models: the curves pool them, and the baseline hazard, which would be wrong
then, refuses several. For one curve per stratum index the outcome: `kaplan_meier(outcome[outcome.strata() == 2])`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.risk_sets import Counts, counts, log_risk_sets
from survlens.core.ties import Ties


class EmptyRiskSetWarning(UserWarning):
    """Under delayed entry survival fell to 0 while others were still to come."""


@dataclass(frozen=True, slots=True, eq=False)
class StepCurve:
    """A right-continuous step function of time.

    Attributes:
        times: Jump times, increasing.
        values: Value from each jump on.
        initial: Value before the first jump.
        unit: Unit of time.
    """

    times: np.ndarray
    values: np.ndarray
    initial: float
    unit: str

    def at(self, times: np.ndarray | float) -> np.ndarray:
        """Value at `times`."""
        return self._pick(times, "right")

    def before(self, times: np.ndarray | float) -> np.ndarray:
        """Left limit at `times`: the value just before."""
        return self._pick(times, "left")

    def _pick(self, times: np.ndarray | float, side: Literal["left", "right"]) -> np.ndarray:
        padded = np.concatenate(([self.initial], self.values))
        return padded[np.searchsorted(self.times, np.asarray(times, dtype=np.float64), side=side)]


class Limits(Enum):
    """Scale on which the confidence limits of a survival curve are symmetric."""

    LOG = "log"
    LOG_LOG = "log-log"


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCurve:
    """A nonparametric survival curve with its counts.

    Attributes:
        times: Every distinct observed time (event or censoring), increasing.
        survival: S at `times`.
        n_risk: Instances at risk just before each time, summed by weight.
        n_event: Events at each time, summed by weight.
        std_error: Standard error of log S (Greenwood).
        lower: Lower confidence limit of S.
        upper: Upper confidence limit of S.
        unit: Unit of time.
    """

    times: np.ndarray
    survival: np.ndarray
    n_risk: np.ndarray
    n_event: np.ndarray
    std_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    unit: str

    @property
    def curve(self) -> StepCurve:
        """S(t) as a step function with S(0) = 1."""
        return StepCurve(self.times, self.survival, 1.0, self.unit)

    def at(self, times: np.ndarray | float) -> np.ndarray:
        """S at `times`; past the last time the last value is kept."""
        return self.curve.at(times)

    def before(self, times: np.ndarray | float) -> np.ndarray:
        """S just before `times`."""
        return self.curve.before(times)

    def quantile(self, probability: float) -> float:
        """Smallest time with S <= 1 - probability; the midpoint where S equals that level on a flat stretch, as R does.

        Infinite where the curve ends above the level.
        """
        return _crossing(self.times, self.survival, 1 - probability)

    def quantile_limits(self, probability: float) -> tuple[float, float]:
        """Confidence limits of `quantile`, by inverting the limits of S (Brookmeyer and Crowley)."""
        level = 1 - probability
        return _crossing(self.times, self.lower, level), _crossing(self.times, self.upper, level)


def _crossing(times: np.ndarray, survival: np.ndarray, level: float) -> float:
    tolerance = 1e-10
    below = np.flatnonzero(survival <= level + tolerance)
    if below.size == 0:
        return float("inf")
    first = int(below[0])
    if abs(survival[first] - level) <= tolerance:
        further = np.flatnonzero(survival < level - tolerance)
        if further.size:
            return float((times[first] + times[int(further[0])]) / 2)
    return float(times[first])


def _survival(at_risk: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """Product over times of 1 - flagged / at risk."""
    with np.errstate(divide="ignore"):
        return np.exp(np.cumsum(np.log1p(-flagged / np.where(at_risk > 0, at_risk, 1.0))))


def _product_limit(
    times: np.ndarray, at_risk: np.ndarray, flagged: np.ndarray, confidence: float, limits: Limits, unit: str
) -> SurvivalCurve:
    with np.errstate(divide="ignore", invalid="ignore"):
        survival = _survival(at_risk, flagged)
        variance = np.cumsum(np.where(flagged > 0, flagged / (at_risk * (at_risk - flagged)), 0.0))
        std_error = np.sqrt(variance)
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        if limits is Limits.LOG:
            lower, upper = survival * np.exp(-z * std_error), np.minimum(survival * np.exp(z * std_error), 1.0)
        else:
            log_survival = np.log(survival)
            spread = z * std_error / log_survival
            lower = np.exp(-np.exp(np.log(-log_survival) - spread))
            upper = np.exp(-np.exp(np.log(-log_survival) + spread))
    untouched = survival >= 1.0
    lower = np.where(untouched, 1.0, lower)
    upper = np.where(untouched, 1.0, upper)
    return SurvivalCurve(times, survival, at_risk, flagged, std_error, lower, upper, unit)


def kaplan_meier(outcome: SurvivalOutcome, *, confidence: float = 0.95, limits: Limits = Limits.LOG) -> SurvivalCurve:
    """Product-limit estimate S(t) = prod over event times u <= t of (1 - d_u / n_u), any event counting.

    `d_u` are the events at u and `n_u` the instances at risk just before u, both summed by weight. Limits are symmetric
    for log S (the default of R) or for log(-log S); with weights they are those of rows that stand there w times
    (Greenwood by weighted counts, R's for whole-numbered case weights). Where S reaches 0 the limits are undefined
    (NaN). Under delayed entry the first risk sets may be small; where all of one have an event, S is 0 from there on.

    Args:
        outcome: What was observed; strata are pooled.
        confidence: Level of the pointwise limits.
        limits: Scale of the limits.

    Raises:
        InvalidValueError: If `confidence` lies outside (0, 1).

    Warns:
        EmptyRiskSetWarning: If S falls to 0 before everybody has entered.

    References:
        Kaplan and Meier 1958; Greenwood 1926.
    """
    check_choice("limits", limits, Limits)
    if not 0 < confidence < 1:
        raise InvalidValueError(f"`confidence` must lie in (0, 1); got {confidence}.")
    found = _event_counts(outcome)
    return _product_limit(found.times, found.at_risk, found.events, confidence, limits, outcome.unit)


def _event_counts(outcome: SurvivalOutcome) -> Counts:
    """Counts, with a warning where a curve of events falls to 0 for want of others at risk."""
    found = counts(outcome)
    if outcome.entry is not None:
        alone = np.flatnonzero((found.events > 0) & (found.events >= found.at_risk))
        if len(alone) and alone[0] < len(found.times) - 1:
            time = found.times[alone[0]]
            warnings.warn(
                f"Survival falls to 0 at {time:g} {outcome.unit} and stays there: everybody at risk then had an event, "
                f"and {int((outcome.time > time).sum())} instances were observed only later. Early risk sets are small "
                "under delayed entry: estimate survival from a later origin, given survival up to there.",
                EmptyRiskSetWarning,
                stacklevel=3,
            )
    return found


def reverse_kaplan_meier(outcome: SurvivalOutcome, *, confidence: float = 0.95) -> SurvivalCurve:
    """Kaplan-Meier of the censoring time: who had the event is censored. Its median is the usual median follow-up.

    At a time where both happen, events come first, so those who had an event have left the risk set of censoring.

    References:
        Schemper and Smith 1996.
    """
    found = counts(outcome)
    return _product_limit(found.times, found.staying, found.censored, confidence, Limits.LOG, outcome.unit)


def censoring_survival(outcome: SurvivalOutcome) -> StepCurve:
    """G(t) = P(censoring time > t), by reverse Kaplan-Meier; `.before(t)` is G(t-), which weights cases."""
    found = counts(outcome)
    return StepCurve(found.times, _survival(found.staying, found.censored), 1.0, outcome.unit)


def survival_curve(outcome: SurvivalOutcome) -> StepCurve:
    """S(t) by Kaplan-Meier without its limits, for those who only need the curve; it warns as `kaplan_meier` does."""
    found = _event_counts(outcome)
    return StepCurve(found.times, _survival(found.at_risk, found.events), 1.0, outcome.unit)


def nelson_aalen(outcome: SurvivalOutcome) -> StepCurve:
    """Cumulative hazard H(t) = sum over event times u <= t of d_u / n_u, both summed by weight.

    References:
        Nelson 1972; Aalen 1978.
    """
    found = counts(outcome)
    return StepCurve(found.times, np.cumsum(found.events / found.at_risk), 0.0, outcome.unit)


def breslow_baseline(log_risk: np.ndarray | Tensor, outcome: SurvivalOutcome, *, ties: Ties = Ties.EFRON) -> StepCurve:
    """Cumulative baseline hazard of a Cox model, at the distinct event times, for log-risk 0.

    Breslow: H0 jumps at u by d_u / R_u, with `R_u` the sum of exp(log_risk) over the risk set. Efron: by the sum over l
    = 0 .. d_u - 1 of 1 / (R_u - l / d_u * D_u), with `D_u` the sum over the tied events. Log-risks far from 0 can push
    it out of the range of floats; `log_breslow_baseline` stays finite.

    With weights w every sum is of w exp(log_risk), `d_u` under Breslow is the sum of the events' weights, and under
    Efron the jump is their mean times the sum over l. With delayed entry the risk set is {entry < u <= time}.

    Args:
        log_risk: One value per instance.
        outcome: What was observed of the same instances, in any order, all of one stratum.
        ties: Rule for equal event times; use the one of the fit.

    Raises:
        InvalidValueError: If lengths differ, a log-risk is not finite, or there are several strata.

    References:
        Breslow 1972; Efron 1977.
    """
    curve = log_breslow_baseline(log_risk, outcome, ties=ties)
    with np.errstate(over="ignore"):
        return StepCurve(curve.times, np.exp(curve.values), 0.0, curve.unit)


def log_breslow_baseline(
    log_risk: np.ndarray | Tensor, outcome: SurvivalOutcome, *, ties: Ties = Ties.EFRON
) -> StepCurve:
    """Logarithm of `breslow_baseline`: finite whatever finite log-risks come in; minus infinity before the first event.

    All sums are kept as logarithms, because after the instances with the highest risks have left, what remains of the
    risk set is lost to any common scale.

    Args:
        log_risk: One value per instance.
        outcome: What was observed of the same instances, in any order.
        ties: Rule for equal event times.
    """
    check_choice("ties", ties, Ties)
    score = log_risk.detach().cpu().double().numpy() if isinstance(log_risk, Tensor) else np.asarray(log_risk, float)
    time, event = outcome.numpy()
    if score.shape != time.shape:
        raise InvalidValueError(f"`log_risk` must have one value per instance; got {score.shape} for {time.shape}.")
    if not np.isfinite(score).all():
        raise InvalidValueError("`log_risk` must be finite. The fit has diverged: lower the learning rate.")
    if outcome.stratum is not None and len(numbers := outcome.stratum.unique()) > 1:
        raise InvalidValueError(
            f"`outcome` must be of one stratum, as each has its own baseline hazard; got {len(numbers)}. "
            f"Estimate one after another, as in outcome[outcome.stratum == {int(numbers[0])}]."
        )
    if outcome.weight is not None:
        score = score + outcome.weight.log().cpu().numpy()
    times, deaths, log_total, others, tied = log_risk_sets(score, outcome)
    jumps = np.log(deaths) - log_total
    if ties is Ties.EFRON:
        group = np.repeat(np.arange(len(deaths)), deaths)
        part = 1 - (np.arange(len(group)) - (deaths.cumsum() - deaths)[group]) / deaths[group]
        # Q + (1 - l/d) D with Q = R - D: nothing cancels where the tied events are the whole risk set.
        terms = 1.0 / (others[group] + part * tied[group])
        jumps = np.log(np.bincount(group, weights=terms, minlength=len(deaths))) - log_total
    if outcome.weight is not None:
        died = event > 0
        weight = outcome.weight.cpu().numpy()[died]
        jumps += np.log(np.bincount(np.searchsorted(times, time[died]), weight, minlength=len(times)) / deaths)
    values = np.logaddexp.accumulate(jumps) if len(jumps) else jumps
    return StepCurve(times, values, -np.inf, outcome.unit)


def as_tensor(curve: StepCurve) -> tuple[Tensor, Tensor]:
    """Jump times and values as float64 tensors, to keep in buffers."""
    return torch.from_numpy(curve.times.copy()), torch.from_numpy(curve.values.copy())
