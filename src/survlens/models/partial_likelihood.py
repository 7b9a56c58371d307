"""The Cox partial likelihood of a table: value, gradient and information, in float64.

lifelines was measured first: it has Efron ties only, reaches R's coefficients on the veteran trial to 5e-7 (1e-2 at its
default precision), and takes 7.6 s for 1,900 rows of 260 columns. One Newton step here is two matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties

Matrix = Float64[np.ndarray, "instance feature"]
Vector = Float64[np.ndarray, " instance"]


@dataclass(frozen=True, slots=True, eq=False)
class RiskSets:
    """Rows in falling order of time, and for every event where its risk set ends.

    Every method takes its rows in that order: `values[risk_sets.order]`.

    The risk set of an event is every row from 0 to `last`. Its denominator is R - share * D, with R the sum of
    exp(log-risk) over the risk set, D the sum over the events tied with it, and share = l / d for the l-th of d tied
    events under Efron's rule (l = 0 .. d - 1), 0 under Breslow's.

    Attributes:
        order: Row of the data at each position.
        events: Positions of the events.
        last: Last position of each event's risk set.
        share: Share of the tied events that leaves each denominator.
        tie: Number of the tied group of each event.
        tie_start: First event of each tied group.
    """

    order: Int64[np.ndarray, " instance"]
    events: Int64[np.ndarray, " event"]
    last: Int64[np.ndarray, " event"]
    share: Float64[np.ndarray, " event"]
    tie: Int64[np.ndarray, " event"]
    tie_start: Int64[np.ndarray, " tie"]

    @staticmethod
    def of(outcome: SurvivalOutcome, ties: Ties) -> RiskSets:
        """Risk sets of `outcome`; any cause counts as an event."""
        time, event = outcome.numpy()
        order = np.argsort(-time, kind="stable")
        falling = time[order]
        events = np.flatnonzero(event[order] > 0)
        last = np.searchsorted(-falling, -falling[events], side="right") - 1
        tie_start = np.flatnonzero(np.concatenate(([True], np.diff(falling[events]) != 0)))[: len(events)]
        deaths = np.diff(tie_start, append=len(events))
        tie = np.repeat(np.arange(len(tie_start)), deaths)
        rank = np.arange(len(events)) - tie_start[tie]
        share = rank / deaths[tie] if ties is Ties.EFRON else np.zeros(len(events))
        return RiskSets(order, events, last, share, tie, tie_start)

    def log_likelihood(self, log_risk: Float64[np.ndarray, "instance *model"]) -> Float64[np.ndarray, "*model"]:
        """Sum over events of log-risk - log denominator, for one column of log-risks per model.

        A model whose risks span more than float64 can hold gets -inf.
        """
        shift = log_risk.max(0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            terms = np.log(self._denominators(np.exp(log_risk - shift))) + shift
            value = (log_risk[self.events] - terms).sum(0)
        return np.where(np.isfinite(value), value, -np.inf)

    def gradient(self, X: Matrix, log_risk: Vector) -> Float64[np.ndarray, " feature"]:
        """Gradient of the log-likelihood of a linear log-risk by its coefficients: X' (delta - exposure).

        Args:
            X: Covariates.
            log_risk: Log-risk of the same rows.
        """
        weight = np.exp(log_risk - log_risk.max())
        residual = -self._exposure(weight, self._denominators(weight))
        residual[self.events] += 1.0
        return X.T @ residual

    def information(self, X: Matrix, log_risk: Vector) -> Float64[np.ndarray, "feature feature"]:
        """Observed information of a linear log-risk: X' diag(exposure) X - sum over events of m m'.

        Here `m` is the mean of X over an event's risk set, weighted by exp(log-risk).

        Args:
            X: Covariates.
            log_risk: Log-risk of the same rows.
        """
        weight = np.exp(log_risk - log_risk.max())
        denominator = self._denominators(weight)
        rooted = X * np.sqrt(self._exposure(weight, denominator))[:, None]
        means = self._denominators(weight[:, None] * X) / denominator[:, None]
        return rooted.T @ rooted - means.T @ means

    def _exposure(self, weight: Vector, denominator: Float64[np.ndarray, " event"]) -> Vector:
        """Cumulative hazard that each row was under: its weight times the sum of 1 / denominator over its events.

        Those are the events that the row was at risk for, less its share of its own tie.
        """
        inverse = 1.0 / denominator
        at_risk_for = np.bincount(self.last, weights=inverse, minlength=len(weight))[::-1].cumsum()[::-1]
        own_tie = np.bincount(self.tie, weights=self.share * inverse)
        at_risk_for[self.events] -= own_tie[self.tie]
        return weight * np.maximum(at_risk_for, 0.0)

    def _denominators(self, values: np.ndarray) -> np.ndarray:
        """Sum of `values` over each event's risk set, less its share of the tied sum."""
        sums = np.cumsum(values, axis=0)[self.last]
        tied = np.add.reduceat(values[self.events], self.tie_start, axis=0)[self.tie]
        return sums - self.share.reshape(-1, *[1] * (values.ndim - 1)) * tied

    def followed_to_an_event(self) -> Bool[np.ndarray, " instance"]:
        """Which positions were at risk at one event at least; the others say nothing about the coefficients."""
        return np.arange(len(self.order)) <= self.last.max(initial=-1)
