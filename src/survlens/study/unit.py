"""One fit of a study, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from survlens.core.prediction import Extrapolate, SurvivalPrediction
from survlens.models.estimator import SurvivalEstimator
from survlens.models.proportional import ProportionalHazards
from survlens.study.model_settings import ModelEntry
from survlens.training.history import EpochRow

BLOCK = 256
"""Rows predicted at once."""

OnEpoch = Callable[[EpochRow], object]
Watch = Callable[[str, int], AbstractContextManager[OnEpoch]]
"""Given a name and a number of epochs: what is told of every epoch."""
OnFit = Callable[[int, str], object]
Count = Callable[[str, int], AbstractContextManager[OnFit]]
"""Given a name and a number of inner fits: what is told how many are done, and what the last one gave."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One fit of a study.

    Attributes:
        entry: The model.
        fold: Number of the split, from 1.
        seed: Seed of the fit.
    """

    entry: ModelEntry
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"fold{self.fold}-seed{self.seed}"

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.entry.name}, fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True, slots=True, eq=False)
class UnitResult:
    """What a fit predicts for the rows of its split.

    Attributes:
        risk: One number per row of `bench.rows`; higher is worse.
        survival: Survival probabilities, (row, time).
        embedding: Embeddings of the rows, for networks.
    """

    risk: np.ndarray
    survival: np.ndarray
    embedding: np.ndarray | None = None


def survival_at(prediction: SurvivalPrediction, times: np.ndarray) -> np.ndarray:
    """Survival probabilities at `times`; past the last knot the last value is kept (such times are not scored)."""
    knots = torch.as_tensor(times, dtype=prediction.times.dtype)
    return prediction.at(knots, extrapolate=Extrapolate.HOLD).survival.double().numpy()


def curves_of(
    model: SurvivalEstimator, frame: pd.DataFrame, times: np.ndarray, stratum: np.ndarray | None = None
) -> np.ndarray:
    """Survival probabilities of the rows of `frame` by a fitted estimator, (row, time).

    Args:
        model: The estimator.
        frame: Covariates.
        times: Times that are asked.
        stratum: Stratum of each row, for a model that was fitted with strata.
    """
    if isinstance(model, ProportionalHazards) and stratum is not None and len(model.strata_):
        found = np.empty((len(frame), len(times)))
        for each in np.unique(stratum):
            rows = np.flatnonzero(stratum == each)
            for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
                found[block] = survival_at(model.predict_survival(frame.iloc[block], stratum=int(each)), times)
        return found
    blocks = [frame.iloc[start : start + BLOCK] for start in range(0, len(frame), BLOCK)]
    return np.concatenate([survival_at(model.predict_survival(block), times) for block in blocks])
