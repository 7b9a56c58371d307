"""Are the predicted distributions right as a whole? D-calibration: S_i(T_i) must be uniform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.score import Category, Direction, Score
from survlens.evaluate.alignment import (
    check_horizon,
    check_predicted,
    check_prediction,
    check_scored,
    counted,
    own_log_survival,
)


@dataclass(frozen=True, slots=True, eq=False)
class DistributionCalibration:
    """Rows by the survival probability that was predicted for the time at which they had their event.

    Attributes:
        edges: Limits of the bins of the predicted probability, from 0 to 1.
        counts: Rows in each bin; a censored row is spread over the bins that its event may still fall in.
        settings: How they were counted.
    """

    edges: np.ndarray
    counts: np.ndarray
    settings: dict[str, float | int | str]

    @property
    def expected(self) -> np.ndarray:
        """Rows that each bin would hold if the predictions were right."""
        return self.counts.sum() * np.diff(self.edges)

    @property
    def chi2(self) -> float:
        """Sum over bins of (counts - expected)^2 / expected."""
        return float(((self.counts - self.expected) ** 2 / self.expected).sum())

    @property
    def df(self) -> int:
        """Degrees of freedom: bins - 1."""
        return len(self.counts) - 1

    @property
    def p_value(self) -> float:
        """Probability of a larger statistic if the predictions are right: too large, never too small, when censored."""
        halves = torch.tensor([self.df / 2, self.chi2 / 2], dtype=torch.float64)
        return float(torch.special.gammaincc(halves[0], halves[1]))

    def score(self) -> Score:
        """The statistic, with degrees of freedom and p-value in its settings."""
        settings = self.settings | {"df": self.df, "p_value": self.p_value, "bins": len(self.counts)}
        return Score("d_calibration", self.chi2, None, Direction.LOWER, Category.CALIBRATION, settings)


def d_calibration(
    prediction: SurvivalPrediction, outcome: SurvivalOutcome, *, bins: int = 10, horizon: float | None = None
) -> DistributionCalibration:
    """Compares the share of rows with S_i(T_i) in each bin of [0, 1] with the width of the bin.

    If the curves are right, S_i(T_i) is uniform. An event counts 1 in the bin of s = S_i(T_i). A row censored with
    s in [a, b) will have its event at a probability below s, each equally likely: it counts (s - a) / s in its own bin
    and width / s in every lower one. Pearson's statistic has bins - 1 degrees of freedom without censoring; spreading
    makes it smaller than that, so the test then errs on the safe side and loses power.

    A small p-value says that the predictions are wrong; a large one does not say that they are useful: the marginal
    Kaplan-Meier curve for everybody passes. Curves that jump by more than a bin cannot pass.

    Args:
        prediction: Survival curves of the rows of `outcome`.
        outcome: What was observed; all causes count as events.
        bins: Number of bins of equal width, >= 2.
        horizon: Rows still followed then count as censored at it; needed where follow-up outlasts the prediction.

    Raises:
        InvalidValueError: If `bins` < 2, a time lies past the predicted range, or `outcome` is empty, has late entries
            or weights.

    References:
        Haider, Hoehn, Davis and Greiner 2020.
    """
    check_prediction(prediction, outcome)
    check_scored(outcome)
    if bins < 2:
        raise InvalidValueError(f"`bins` must be >= 2; got {bins}.")
    if not len(outcome):
        raise InvalidValueError("`outcome` must hold at least one row; got none.")
    end = check_horizon(horizon)
    time, event = outcome.numpy()
    died, time = (event > 0) & (time <= end), np.minimum(time, end)
    check_predicted(prediction, np.sort(time)[-1:])
    survival = np.exp(own_log_survival(prediction, time))
    settings = counted(outcome) | {
        "horizon": "none" if horizon is None else float(horizon),
        "censoring_model": "censored rows are spread over the bins below S(T), as the prediction says",
    }
    return DistributionCalibration(np.linspace(0, 1, bins + 1), _counts(survival, died, bins), settings)


def _counts(survival: np.ndarray, died: np.ndarray, bins: int) -> np.ndarray:
    own = np.minimum((survival * bins).astype(np.int64), bins - 1)
    counts = np.bincount(own[died], minlength=bins).astype(np.float64)
    s, bin_of = survival[~died], own[~died]
    # At s = 0 nothing is left below: the row counts whole in the lowest bin.
    share_of_own = np.divide(s - bin_of / bins, s, out=np.ones_like(s), where=s > 0)
    share_of_lower = np.divide(1 / bins, s, out=np.zeros_like(s), where=bin_of > 0)
    counts += np.bincount(bin_of, weights=share_of_own, minlength=bins)
    lower = np.bincount(bin_of, weights=share_of_lower, minlength=bins)
    return counts + np.append(np.cumsum(lower[::-1])[::-1][1:], 0.0)
