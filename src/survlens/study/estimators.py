"""From a [[model]] section to a classical estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from survlens.models.classical import CoxRegression
from survlens.models.classical import KaplanMeierModel as KaplanMeierEstimator
from survlens.models.estimator import SurvivalEstimator
from survlens.models.forest import RandomSurvivalForest
from survlens.models.penalised import LassoCox
from survlens.study.bench import MOST_TIMES
from survlens.study.model_settings import (
    CoxModel,
    DownstreamModel,
    EstimatorKind,
    ForestModel,
    KaplanMeierModel,
    LassoCoxModel,
    ModelEntry,
)

FUSION_PENALTY = 0.01
"""Ridge of the weights of a late fusion, whose members are often much alike."""


def estimator(entry: ModelEntry, seed: int) -> SurvivalEstimator:
    """The unfitted estimator of a classical model."""
    return _BUILDERS[type(entry.settings)](entry.settings, seed)


def is_classical(entry: ModelEntry) -> bool:
    """Whether `estimator` knows the model."""
    return type(entry.settings) in _BUILDERS


def _forest(trees: int, leaf: int, seed: int) -> RandomSurvivalForest:
    """A forest grown on no more times than a study keeps of a curve."""
    return RandomSurvivalForest(trees=trees, min_leaf=leaf, seed=seed, jobs=-1, time_points=MOST_TIMES)


def _downstream(settings: Any, seed: int) -> SurvivalEstimator:
    builders: Mapping[EstimatorKind, Callable[[], SurvivalEstimator]] = {
        EstimatorKind.COX: lambda: CoxRegression(penalty=settings.penalty),
        EstimatorKind.FOREST: lambda: _forest(settings.trees, 15, seed),
        EstimatorKind.LASSO_COX: lambda: LassoCox(l1_ratio=settings.l1_ratio, seed=seed),
    }
    return builders[settings.estimator]()


_BUILDERS: Mapping[type, Callable[[Any, int], SurvivalEstimator]] = {
    KaplanMeierModel: lambda settings, seed: KaplanMeierEstimator(),
    CoxModel: lambda settings, seed: CoxRegression(penalty=settings.penalty),
    LassoCoxModel: lambda settings, seed: LassoCox(l1_ratio=settings.l1_ratio, seed=seed),
    ForestModel: lambda settings, seed: _forest(settings.trees, settings.leaf, seed),
    DownstreamModel: _downstream,
}
