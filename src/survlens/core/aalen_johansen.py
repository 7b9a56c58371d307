"""Cumulative incidence of every cause."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import StepCurve
from survlens.core.outcome import SurvivalOutcome
from survlens.core.risk_sets import counts


@dataclass(frozen=True, slots=True, eq=False)
class CumulativeIncidence:
    """Nonparametric cumulative incidences of every cause; row k - 1 is cause k.

    Attributes:
        times: Every distinct observed time (event or censoring), increasing.
        incidence: F_k at `times`, one row per cause.
        std_error: Standard error of F_k.
        lower: Lower confidence limit of F_k.
        upper: Upper confidence limit of F_k.
        survival: S at `times`, of an event of any cause; 1 minus the sum of the incidences.
        n_risk: Instances at risk just before each time, summed by weight.
        n_event: Events at each time, one row per cause, summed by weight.
        unit: Unit of time.
    """

    times: np.ndarray
    incidence: np.ndarray
    std_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    survival: np.ndarray
    n_risk: np.ndarray
    n_event: np.ndarray
    unit: str

    @property
    def n_causes(self) -> int:
        """Number of causes."""
        return len(self.incidence)

    def at(self, times: np.ndarray | float) -> np.ndarray:
        """F_k at `times`, one row per cause; 0 before the first time, and past the last one its value is kept."""
        padded = np.concatenate([np.zeros((self.n_causes, 1)), self.incidence], 1)
        return padded[:, np.searchsorted(self.times, np.asarray(times, dtype=np.float64), side="right")]

    def of_cause(self, cause: int) -> StepCurve:
        """F_k of one cause as a step function with F_k(0) = 0.

        Raises:
            InvalidValueError: If there is no such cause.
        """
        if not 1 <= cause <= self.n_causes:
            raise InvalidValueError(f"`cause` must lie in 1 .. {self.n_causes}; got {cause}.")
        return StepCurve(self.times, self.incidence[cause - 1], 0.0, self.unit)


def cumulative_incidence(
    outcome: SurvivalOutcome, *, n_causes: int | None = None, confidence: float = 0.95
) -> CumulativeIncidence:
    """Aalen-Johansen estimate F_k(t) = sum over event times u <= t of S(u-) d_ku / n_u, for every cause k.

    `d_ku` are the events of cause k at u, `n_u` the instances at risk just before u, both summed by weight, and S is
    Kaplan-Meier's survival of an event of any cause. With delayed entry n_u counts entry < u <= time. The variance is
    that of the delta method with multinomial increments,

        Var F_k(t) = sum over u <= t of (F_k(t) - F_k(u))^2 d_u / (n_u (n_u - d_u)) + S(u-)^2 d_ku (n_u - d_ku) / n_u^3
                     - 2 (F_k(t) - F_k(u)) S(u-) d_ku / n_u^2,

    which for one cause is Greenwood's. Limits are symmetric for log(-log F_k); where F_k is 0 they are 0, and where it
    is 1 they are undefined (NaN).

    Args:
        outcome: What was observed; strata are pooled.
        n_causes: Number of causes, where not every cause was seen; the largest seen one by default.
        confidence: Level of the pointwise limits.

    Raises:
        InvalidValueError: If nobody had an event and `n_causes` is not given, `n_causes` is below a cause that was
            seen, or `confidence` lies outside (0, 1).

    References:
        Aalen and Johansen 1978; Marubini and Valsecchi 1995.
    """
    if not 0 < confidence < 1:
        raise InvalidValueError(f"`confidence` must lie in (0, 1); got {confidence}.")
    causes = outcome.n_causes if n_causes is None else n_causes
    if causes < max(outcome.n_causes, 1):
        raise InvalidValueError(
            f"`n_causes` must be >= 1 and not below a cause that was seen; got {causes}, seen {outcome.n_causes}. "
            "Give the number of causes where nobody had an event."
        )
    found = counts(outcome)
    time, event = outcome.numpy()
    died = event > 0
    place = (event[died] - 1) * len(found.times) + np.searchsorted(found.times, time[died])
    weight = outcome.weights().detach().cpu().numpy()[died]
    deaths = np.bincount(place, weight, minlength=causes * len(found.times)).reshape(causes, len(found.times))
    with np.errstate(divide="ignore", invalid="ignore"):
        staying = found.staying / found.at_risk
        survival = np.cumprod(staying)
        greenwood = np.cumsum(found.events / (found.at_risk * found.staying))
    before, spread = _before(survival, 1.0), _before(greenwood, 0.0)
    hazard, alive = deaths / found.at_risk, before > 0
    incidence = np.cumsum(before * hazard, 1)
    std_error = _std_error(before, np.where(alive, spread, 0.0), hazard, found.at_risk)
    lower, upper = _limits(incidence, std_error, NormalDist().inv_cdf(0.5 + confidence / 2))
    return CumulativeIncidence(
        found.times, incidence, std_error, lower, upper, survival, found.at_risk, deaths, outcome.unit
    )


def _before(values: np.ndarray, initial: float) -> np.ndarray:
    return np.concatenate(([initial], values[:-1]))[: len(values)]


def _std_error(survival: np.ndarray, greenwood: np.ndarray, hazard: np.ndarray, at_risk: np.ndarray) -> np.ndarray:
    """The sum in the formula as a recursion over time, in which every term is known when its time comes.

    At each time the increments of the hazards are multinomial. Var S = S^2 G with Greenwood's sum G; Cov(S, F_k) = S x
    with x growing by S h_k (G - 1 / n); and Var F_k grows by the terms below. All on the right are values just before.
    """
    covariance = np.cumsum(survival * hazard * (greenwood - 1 / at_risk), 1)
    covariance = np.concatenate([np.zeros((len(hazard), 1)), covariance[:, :-1]], 1)[:, : len(survival)] * survival
    own = survival**2 * (hazard**2 * greenwood + hazard * (1 - hazard) / at_risk)
    return np.sqrt(np.maximum(np.cumsum(own + 2 * hazard * covariance, 1), 0.0))


def _limits(incidence: np.ndarray, std_error: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        width = np.exp(z * std_error / (incidence * -np.log(incidence)))
        lower, upper = incidence**width, incidence ** (1 / width)
    nothing, certain = incidence <= 0, incidence >= 1 - 1e-12
    lower, upper = (np.where(nothing, 0.0, np.where(certain, np.nan, limit)) for limit in (lower, upper))
    return lower, upper
