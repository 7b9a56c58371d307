"""Every score of one model, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from survlens.core.score import Score
from survlens.evaluate.concordance import (
    concordance_index,
    concordance_index_antolini,
    concordance_index_ipcw,
    reweighted_concordance,
    reweighted_concordance_ipcw,
)
from survlens.evaluate.discrimination import cumulative_dynamic_auc
from survlens.study.resampling import brier_by_fold, reweighted_antolini, reweighted_auc, reweighted_brier
from survlens.study.scoring import Drawn, Draws, Scored, within_folds

_NAMES = {"index_of_prediction_accuracy": "ipa", "integrated_index_of_prediction_accuracy": "integrated_ipa"}


@dataclass(frozen=True, slots=True, eq=False)
class ModelScores:
    """Scores of one model.

    Attributes:
        by_name: Scores over the whole follow-up.
        at_horizons: Scores at one horizon each.
    """

    by_name: Mapping[str, Drawn]
    at_horizons: tuple[Drawn, ...]

    def all(self) -> tuple[Drawn, ...]:
        """All of them."""
        return (*self.by_name.values(), *self.at_horizons)


def model_scores(scored: Scored, horizons: tuple[float, ...], draws: Draws) -> ModelScores:
    """Scores the test patients of one model.

    Args:
        scored: Patients with predictions.
        horizons: Times at which to score.
        draws: Resamples of the patients; none leaves intervals out.
    """
    last = scored.scored_until()
    whole = [
        within_fold_concordance(scored, draws),
        within_folds(
            scored,
            draws,
            lambda part: concordance_index_ipcw(part.risk, part.outcome, part.training, horizon=last),
            lambda part: reweighted_concordance_ipcw(part.risk, part.outcome, part.training, horizon=last),
        ),
        _antolini(scored, draws, last),
        *_integrated(scored, draws, last),
    ]
    return ModelScores({drawn.score.name: drawn for drawn in whole}, _at_horizons(scored, horizons, draws))


def within_fold_concordance(scored: Scored, draws: Draws) -> Drawn:
    """Harrell's concordance within each fold, averaged."""
    return within_folds(
        scored,
        draws,
        lambda part: concordance_index(part.risk, part.outcome),
        lambda part: reweighted_concordance(part.risk, part.outcome),
    )


def _antolini(scored: Scored, draws: Draws, last: float) -> Drawn:
    return within_folds(
        scored,
        draws,
        lambda part: concordance_index_antolini(part.prediction, part.outcome, horizon=last),
        lambda part: reweighted_antolini(part, last),
    )


def _integrated(scored: Scored, draws: Draws, last: float) -> tuple[Drawn, Drawn]:
    """Integrated Brier score and IPA, on the kept times up to `last`."""
    grid = scored.times[scored.times <= last]
    if len(grid) < 2:
        grid = np.array([last / 2, last])
    curve = brier_by_fold(scored, grid)
    return _accuracy(scored, draws, grid, (curve.integrated(), curve.integrated_ipa()))


def _at_horizons(scored: Scored, horizons: tuple[float, ...], draws: Draws) -> tuple[Drawn, ...]:
    if not horizons:
        return ()
    curve = brier_by_fold(scored, np.array(horizons, dtype=np.float64))
    found: list[Drawn] = []
    for time in horizons:
        pair = (curve.score(time), curve.ipa_score(time))
        found += [
            *_accuracy(scored, draws, np.array([time], dtype=np.float64), pair),
            within_fold_auc(scored, draws, time),
        ]
    return tuple(found)


def _accuracy(scored: Scored, draws: Draws, times: np.ndarray, pair: tuple[Score, Score]) -> tuple[Drawn, Drawn]:
    """A Brier score and an IPA over `times`, with their intervals."""
    brier, ipa = (_with_folds(renamed(score), len(scored.rows_of_folds())) for score in pair)
    if not len(draws):
        return Drawn(brier, np.empty(0)), Drawn(ipa, np.empty(0))
    of_brier, of_ipa = reweighted_brier(scored, times)
    return Drawn.of(brier, of_brier(draws)), Drawn.of(ipa, of_ipa(draws))


def _with_folds(score: Score, folds: int) -> Score:
    if folds == 1:
        return score
    pooling = "mean over patients; each weighted by the censoring of the training patients of its fold"
    return replace(score, settings={**score.settings, "folds": folds, "pooling": pooling})


def within_fold_auc(scored: Scored, draws: Draws, time: float) -> Drawn:
    """Cumulative/dynamic AUC at a time within each fold, averaged over the folds that define it."""
    return within_folds(scored, draws, lambda part: _auc(part, time), lambda part: reweighted_auc(part, time))


def _auc(part: Scored, time: float) -> Score:
    # Nobody of the fold may be followed up to a time that is within the follow-up of the others.
    if time <= float(part.outcome.time.max()):
        return cumulative_dynamic_auc(part.prediction, part.outcome, [time], training=part.training).score(time)
    followed, event = part.outcome.numpy()
    undefined = "nobody followed beyond this time"
    settings = {"horizon": time, "unit": part.outcome.unit, "undefined": undefined, "n_controls": 0}
    cases = int(((event > 0) & (followed <= time)).sum())
    return Score("cumulative_dynamic_auc", float("nan"), settings={**settings, "n_cases": cases})


def renamed(score: Score) -> Score:
    """The score under the short name that reports use."""
    return replace(score, name=_NAMES.get(score.name, score.name))
