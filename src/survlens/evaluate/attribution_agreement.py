"""Do two explanations of the same rows say the same?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.score import Score
from survlens.evaluate.attribution_values import (
    Explained,
    paired_values,
    rank_correlation,
    relative_distance,
    time_weights,
    times_of,
    top_membership,
)
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime, score_over_time


@dataclass(frozen=True, slots=True, eq=False)
class AttributionAgreement:
    """How far two explanations agree.

    Attributes:
        rank: Spearman's correlation of the contributions.
        sign: Share of features with the same sign.
        top_k: Share of the largest contributions that both have in common.
        distance: Distance of the second from the first, relative to the size of the first.
    """

    rank: ScoreOverTime
    sign: ScoreOverTime
    top_k: ScoreOverTime
    distance: ScoreOverTime

    @property
    def scores(self) -> tuple[Score, ...]:
        """All four scores."""
        return self.rank.score, self.sign.score, self.top_k.score, self.distance.score


def agreement_between(
    first: Explained, second: Explained, *, top: int = 5, intervals: Intervals | None = None
) -> AttributionAgreement:
    """Compares two explanations of the same rows per instance and time.

    Two that agree may both be wrong, and methods that estimate different things, such as Aumann-Shapley and Shapley
    values, should differ where features interact. An instance is compared over all its features, modalities and items.

    Args:
        first: One explanation, whose size measures the distance.
        second: The other.
        top: How many of the largest contributions are compared; fewer where an instance has fewer features.
        intervals: How intervals are made.

    Raises:
        InvalidValueError: If the two differ in rows, features or times, or `top` < 1.

    References:
        Krishna et al. 2024.
    """
    if top < 1:
        raise InvalidValueError(f"`top` must be >= 1; got {top}.")
    times = times_of(first)
    weights, made = time_weights(times), intervals or Intervals()
    rank, sign, common, distance, overall = [], [], [], [], []
    for one, other in paired_values(first, second):
        count = min(top, len(one))
        members = [top_membership(np.abs(each), count) for each in (one, other)]
        rank.append(rank_correlation(one, other))
        sign.append((np.sign(one) == np.sign(other)).mean(0))
        common.append(np.minimum(*members).sum(0) / count)
        distance.append(relative_distance(one, other))
        overall.append(relative_distance(one, other, weights))
    return AttributionAgreement(
        score_over_time("rank_agreement", np.asarray(rank), times, made),
        score_over_time("sign_agreement", np.asarray(sign), times, made),
        score_over_time("top_k_agreement", np.asarray(common), times, made, settings={"top": top}),
        score_over_time("distance", np.asarray(distance), times, made, overall=np.asarray(overall)),
    )
