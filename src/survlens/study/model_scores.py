"""Every score of one model, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from survlens.core.score import Score
from survlens.evaluate.accuracy import (
    brier_score,
    reweighted_integrated_brier_score,
    reweighted_integrated_ipa,
)
from survlens.evaluate.concordance import (
    concordance_index,
    concordance_index_antolini,
    concordance_index_ipcw,
    reweighted_concordance,
    reweighted_concordance_ipcw,
)
from survlens.evaluate.discrimination import cumulative_dynamic_auc
from survlens.study.resampling import reweighted_antolini, reweighted_auc
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
    last = scored.last_time()
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
    """Integrated Brier score and IPA, on the kept times up to the last one that is defined."""
    grid = scored.times[scored.times <= last]
    if len(grid) < 2:
        grid = np.array([last / 2, last])
    prediction, outcome, training = scored.prediction, scored.outcome, scored.training
    curve = brier_score(prediction, outcome, grid, training=training)
    brier, ipa = curve.integrated(), renamed(curve.integrated_ipa())
    if not len(draws):
        return Drawn(brier, np.empty(0)), Drawn(ipa, np.empty(0))
    settings = {"training": training, "times": grid}
    return (
        Drawn.of(brier, reweighted_integrated_brier_score(prediction, outcome, **settings)(draws)),
        Drawn.of(ipa, reweighted_integrated_ipa(prediction, outcome, **settings)(draws)),
    )


def _at_horizons(scored: Scored, horizons: tuple[float, ...], draws: Draws) -> tuple[Drawn, ...]:
    if not horizons:
        return ()
    prediction, outcome, training = scored.prediction, scored.outcome, scored.training
    curve = brier_score(prediction, outcome, horizons, training=training)
    auc = cumulative_dynamic_auc(prediction, outcome, horizons, training=training)
    found: list[Drawn] = []
    for time in horizons:
        settings = {"training": training, "times": np.array([time])}
        brier = reweighted_integrated_brier_score(prediction, outcome, **settings)
        ipa = reweighted_integrated_ipa(prediction, outcome, **settings)
        pairs = ((curve.score(time), brier), (renamed(curve.ipa_score(time)), ipa))
        for score, reweighted in (*pairs, (auc.score(time), reweighted_auc(scored, time))):
            values = reweighted(draws) if reweighted is not None and len(draws) else np.empty(0)
            found.append(Drawn.of(score, values))
    return tuple(found)


def renamed(score: Score) -> Score:
    """The score under the short name that reports use."""
    return replace(score, name=_NAMES.get(score.name, score.name))
