"""How sure is a score? Patient-clustered bootstrap, paired differences, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.score import Direction, Interval, Score
from survlens.evaluate.accuracy import (
    integrated_brier_score,
    integrated_ipa,
    reweighted_integrated_brier_score,
    reweighted_integrated_ipa,
)
from survlens.evaluate.concordance import (
    concordance_index,
    concordance_index_antolini,
    concordance_index_ipcw,
    reweighted_concordance,
    reweighted_concordance_antolini,
    reweighted_concordance_ipcw,
)
from survlens.evaluate.decision import net_benefit, reweighted_net_benefit
from survlens.evaluate.resampling import Resampling

Scored = SurvivalPrediction | CompetingRisksPrediction | np.ndarray | Tensor
"""What a score is computed from: curves, curves by cause, or one risk per row."""

_REWEIGHTED: dict[Callable[..., object], Callable[..., Callable[[np.ndarray], np.ndarray]]] = {
    concordance_index: reweighted_concordance,
    concordance_index_ipcw: reweighted_concordance_ipcw,
    concordance_index_antolini: reweighted_concordance_antolini,
    integrated_brier_score: reweighted_integrated_brier_score,
    integrated_ipa: reweighted_integrated_ipa,
    net_benefit: reweighted_net_benefit,
}
"""Scores that can be computed from multiplicities without copying rows."""

_DEFINING = (
    "horizon",
    "from",
    "unit",
    "n",
    "n_events",
    "ties",
    "risk",
    "censoring_model",
    "null_model",
    "threshold",
    "cause",
)
"""Settings that a difference shares with the two scores it is made of."""


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """A score with its distribution over resampled patients.

    Attributes:
        score: The score of all rows, with its 95 % percentile interval.
        draws: Its value on every draw; NaN where a draw does not define it.
        resamples: Fingerprint of the draws: two bootstraps with the same one are paired.
    """

    score: Score
    draws: np.ndarray = field(repr=False)
    resamples: str

    @property
    def undefined(self) -> int:
        """Number of draws that do not define the score; the interval leaves them out."""
        return int(np.isnan(self.draws).sum())

    def interval(self, confidence: float = 0.95) -> Interval:
        """Percentile interval over the defined draws."""
        defined = self.draws[~np.isnan(self.draws)]
        tail = (1 - confidence) / 2
        limits = np.quantile(defined, [tail, 1 - tail]) if defined.size else (float("nan"), float("nan"))
        method = f"percentile bootstrap of patients, {len(self.draws)} draws"
        return Interval(float(limits[0]), float(limits[1]), confidence, method)


def bootstrap(
    score: Callable[..., Score],
    prediction: Scored,
    outcome: SurvivalOutcome,
    *,
    patient: Sequence[object] | np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """Resamples whole patients with replacement and scores every draw.

    The concordances of Harrell, Uno and Antolini, the integrated scores and the net benefit, alone or as
    `functools.partial` with keywords, are computed from the multiplicities of rows prepared once (the grid of an
    integral stays that of all rows); any other score gets the resampled rows, so fix its times. Draws that the score
    refuses or leaves undefined are counted.

    Args:
        score: Called as score(prediction, outcome).
        prediction: Curves or risks of the rows of `outcome`.
        outcome: What was observed.
        patient: Whose row it is; rows of one patient are drawn together. By default each row is a patient.
        draws: Number of resamples.
        seed: The same seed, rows and patients give the same draws for every score and model.

    Raises:
        InvalidValueError: If `patient` has another length than `outcome`, or `draws` < 1.
    """
    whole = score(prediction, outcome)
    resampling = Resampling.of(outcome, patient, draws, seed)
    reweighted = _reweighted(score, prediction, outcome)
    blocks = [
        _score_rows(score, prediction, outcome, block) if reweighted is None else reweighted(block)
        for block in resampling.multiplicities()
    ]
    return _summary(whole, np.concatenate(blocks), resampling.fingerprint())


def paired_difference(first: Bootstrap, second: Bootstrap) -> Bootstrap:
    """The score of `first` minus that of `second`, both on the same draws, so that what they share cancels.

    Args:
        first: Bootstrap of one model.
        second: Bootstrap of another model on the same rows, patients, draws and seed.

    Returns:
        The difference, named after the score; its settings hold the share of draws above 0.

    Raises:
        InvalidValueError: If the two are different scores or were made on different draws.
    """
    if first.score.name != second.score.name or first.resamples != second.resamples:
        raise InvalidValueError(
            "`first` and `second` must be one score on the same draws; "
            f"got {first.score.name} on {first.resamples[:8]} and {second.score.name} on {second.resamples[:8]}. "
            "Bootstrap both with the same rows, `patient`, `draws` and `seed`."
        )
    values = first.draws - second.draws
    defined = values[~np.isnan(values)]
    settings: dict[str, float | int | str] = {
        name: first.score.settings[name] for name in _DEFINING if name in first.score.settings
    } | {
        "first": first.score.value,
        "second": second.score.value,
        "share_of_draws_above_zero": float((defined > 0).mean()) if defined.size else float("nan"),
    }
    difference = Score(
        f"{first.score.name}_difference",
        first.score.value - second.score.value,
        None,
        Direction.HIGHER if first.score.direction is Direction.HIGHER else first.score.direction,
        first.score.category,
        settings,
    )
    return _summary(difference, values, first.resamples)


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """How a score varies when training is repeated with other seeds; it is no confidence interval.

    Attributes:
        mean: Mean over seeds.
        deviation: Standard deviation over seeds (n - 1); NaN for one seed.
        smallest: Smallest value.
        largest: Largest value.
        n_seeds: Number of seeds.
    """

    mean: float
    deviation: float
    smallest: float
    largest: float
    n_seeds: int


def seed_spread(values: Sequence[float] | np.ndarray) -> SeedSpread:
    """Mean, standard deviation and range of one score over training seeds.

    Raises:
        InvalidValueError: If there is no value, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise InvalidValueError(f"`values` must be finite numbers, one per seed; got {array.tolist()}.")
    deviation = float(array.std(ddof=1)) if array.size > 1 else float("nan")
    return SeedSpread(float(array.mean()), deviation, float(array.min()), float(array.max()), int(array.size))


def _reweighted(
    score: Callable[..., Score], prediction: Scored, outcome: SurvivalOutcome
) -> Callable[[np.ndarray], np.ndarray] | None:
    settings, positional = {}, ()
    if isinstance(score, partial):
        settings = {name: value for name, value in score.keywords.items() if name != "confidence"}
        positional, score = score.args, score.func
    if score not in _REWEIGHTED or positional:
        return None
    return _REWEIGHTED[score](prediction, outcome, **settings)


def _score_rows(
    score: Callable[..., Score], prediction: Scored, outcome: SurvivalOutcome, multiplicities: np.ndarray
) -> np.ndarray:
    values = np.empty(len(multiplicities))
    everyone = np.arange(len(outcome))
    for k, times_drawn in enumerate(multiplicities):
        rows = np.repeat(everyone, times_drawn)
        try:
            values[k] = score(prediction[rows], outcome[rows]).value
        except (InvalidValueError, ArithmeticError):
            values[k] = np.nan
    return values


def _summary(score: Score, draws: np.ndarray, resamples: str) -> Bootstrap:
    settings = dict(score.settings) | {"draws": len(draws), "undefined_draws": int(np.isnan(draws).sum())}
    plain = Score(score.name, score.value, None, score.direction, score.category, settings)
    made = Bootstrap(plain, draws, resamples)
    return Bootstrap(plain.with_interval(made.interval()), draws, resamples)
