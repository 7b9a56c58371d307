"""On how many features does an explanation rest?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survlens.core.score import Score
from survlens.evaluate.attribution_values import Explained, instance_values, times_of
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime, score_over_time


@dataclass(frozen=True, slots=True, eq=False)
class Complexity:
    """How spread out contributions are.

    Attributes:
        effective_features: exp of the entropy of the shares |phi| / sum of |phi|: from 1 to the number of features.
        sparseness: Gini index of |phi|: from 0, all alike, to 1 - 1/p, one alone.
    """

    effective_features: ScoreOverTime
    sparseness: ScoreOverTime

    @property
    def scores(self) -> tuple[Score, ...]:
        """Both scores."""
        return self.effective_features.score, self.sparseness.score


def attribution_complexity(explained: Explained, *, intervals: Intervals | None = None) -> Complexity:
    """Effective number of features and sparseness per instance and time, over all its modalities and items.

    A simple explanation is easier to read and not more true: compare only explanations that are equally faithful.
    Where all contributions are 0, all features count alike.

    Args:
        explained: Attributions.
        intervals: How intervals are made.

    References:
        Bhatt et al. 2020; Chalasani et al. 2020.
    """
    times, made = times_of(explained), intervals or Intervals()
    effective, sparse = [], []
    for values in instance_values(explained):
        size = np.sort(np.abs(values), axis=0)
        total, count = size.sum(0), len(size)
        share = np.where(total > 0, size / np.where(total > 0, total, 1.0), 1.0 / count)
        effective.append(np.exp(-(share * np.log(np.where(share > 0, share, 1.0))).sum(0)))
        place = (count - np.arange(1, count + 1) + 0.5) / count
        sparse.append(1 - 2 * place @ share)
    return Complexity(
        score_over_time("effective_features", np.asarray(effective), times, made),
        score_over_time("sparseness", np.asarray(sparse), times, made),
    )
