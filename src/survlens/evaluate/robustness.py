"""Does an explanation stay the same where it should? Sensitivity to the input, stability over seeds and refits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.protocols import Inputs
from survlens.core.score import Score
from survlens.evaluate.attribution_values import (
    Explained,
    paired_values,
    rank_correlation,
    relative_distance,
    time_weights,
    times_of,
)
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime, score_over_time

Explain = Callable[[Inputs], Explained]
"""From inputs to their attributions: an explainer with its model, times and target."""


class Repeats(Enum):
    """What differs between repeated explanations."""

    SEEDS = "seed"
    REFITS = "refit"


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """How much explanations change with the input.

    Attributes:
        largest: The largest relative change over perturbations, averaged over instances.
        average: The mean relative change over perturbations, averaged over instances.
    """

    largest: ScoreOverTime
    average: ScoreOverTime

    @property
    def scores(self) -> tuple[Score, ...]:
        """Both scores."""
        return self.largest.score, self.average.score


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """How much explanations change between repeats.

    Attributes:
        distance: Relative L2 distance, averaged over pairs of repeats and over instances.
        rank: Spearman's correlation of the contributions, averaged likewise.
    """

    distance: ScoreOverTime
    rank: ScoreOverTime

    @property
    def scores(self) -> tuple[Score, ...]:
        """Both scores."""
        return self.distance.score, self.rank.score


def sensitivity(
    explain: Explain,
    inputs: Inputs,
    radius: Mapping[str, float | Tensor],
    *,
    draws: int = 10,
    seed: int = 0,
    intervals: Intervals | None = None,
) -> Sensitivity:
    """Explains slightly changed inputs, and compares: ||phi(x + e) - phi(x)|| / ||phi(x)||, |e_j| <= radius_j.

    e is uniform in the box. Norms run over all features, and for the scores over all times too (weighted as in the
    trapezoidal mean), so that times at which nothing is said count little. Where phi(x) = 0, the change counts 1 if
    there is any.

    Args:
        explain: From inputs to their attributions.
        inputs: The rows explained.
        radius: By modality, half the width of the box: a number, or a tensor that broadcasts to a row, with 0 where a
            value must not move, such as the column of a category.
        draws: Number of perturbations.
        seed: Seed of the perturbations.
        intervals: How intervals are made.

    Raises:
        InvalidValueError: If a modality is missing, a radius is negative, or `draws` < 1.

    References:
        Yeh et al. 2019; Bhatt et al. 2020.
    """
    if draws < 1 or not radius or any(name not in inputs for name in radius):
        raise InvalidValueError(
            f"`radius` must name modalities of `inputs`, {', '.join(inputs)}, and `draws` must be >= 1; "
            f"got {', '.join(radius) or 'none'} and {draws}."
        )
    widths = {name: torch.as_tensor(each, dtype=torch.float64) for name, each in radius.items()}
    if any(bool((each < 0).any()) for each in widths.values()):
        raise InvalidValueError("`radius` must be >= 0 everywhere; got a negative one.")
    original, generator = explain(inputs), torch.Generator().manual_seed(seed)
    times = times_of(original)
    found = []
    for _ in range(draws):
        moved = dict(inputs)
        for name, width in widths.items():
            noise = 2 * torch.rand(inputs[name].shape, generator=generator, dtype=torch.float64) - 1
            moved[name] = inputs[name] + (width * noise).to(inputs[name])
        found.append(_distances(original, explain(moved), time_weights(times)))
    changes = np.stack(found)
    settings = {"perturbations": draws, "perturbation_seed": seed}
    return Sensitivity(
        *(
            _over_block(name, values, times, intervals or Intervals(), settings)
            for name, values in (("max_sensitivity", changes.max(0)), ("average_sensitivity", changes.mean(0)))
        )
    )


def stability(
    repeats: Sequence[Explained], over: Repeats = Repeats.SEEDS, *, intervals: Intervals | None = None
) -> Stability:
    """Compares explanations of the same rows, made again with other seeds or of models trained again, in all pairs.

    Args:
        repeats: At least two explanations.
        over: What differs between them, which gives the scores their names.
        intervals: How intervals are made.

    Raises:
        InvalidValueError: If there are fewer than two, or they differ in rows, features or times.

    References:
        Alvarez-Melis and Jaakkola 2018.
    """
    check_choice("over", over, Repeats)
    if len(repeats) < 2:
        raise InvalidValueError(f"`repeats` must hold at least two explanations; got {len(repeats)}.")
    times = times_of(repeats[0])
    pairs = list(combinations(repeats, 2))
    distance = np.mean([_distances(*pair, time_weights(times)) for pair in pairs], axis=0)
    rank = np.mean([[rank_correlation(*both) for both in paired_values(*pair)] for pair in pairs], axis=0)
    made, settings = intervals or Intervals(), {"repeats": len(repeats)}
    return Stability(
        _over_block(f"{over.value}_distance", distance, times, made, settings),
        score_over_time(f"{over.value}_rank_correlation", rank, times, made, settings=settings),
    )


def _distances(first: Explained, second: Explained, weights: np.ndarray) -> np.ndarray:
    """Relative distance of each instance at each time and, in the last column, over all times."""
    return np.stack(
        [
            np.append(relative_distance(one, other), relative_distance(one, other, weights))
            for one, other in paired_values(first, second)
        ]
    )


def _over_block(
    name: str, values: np.ndarray, times: np.ndarray, intervals: Intervals, settings: Mapping[str, float | int | str]
) -> ScoreOverTime:
    return score_over_time(name, values[:, :-1], times, intervals, overall=values[:, -1], settings=settings)
