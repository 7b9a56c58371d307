"""Directions that ought to show nothing: random ones of equal length, and those of permuted outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.explain.directions import LatentDirection, Metric, steepest
from survlens.explain.latent_frame import Latents
from survlens.models.cross_fitting import patient_codes
from survlens.models.penalised import ridge_coefficients


def random_directions(direction: LatentDirection, count: int, *, seed: int = 0) -> tuple[LatentDirection, ...]:
    """Directions drawn evenly, whose steps are as long as those of `direction` in its metric.

    Args:
        direction: The direction they are held against.
        count: How many.
        seed: Seed of the draws.

    Raises:
        InvalidValueError: If `count` < 1.
    """
    if count < 1:
        raise InvalidValueError(f"`count` must be >= 1; got {count}.")
    drawn = np.random.default_rng(seed).normal(size=(count, direction.frame.width))
    whitened = direction.metric is Metric.WHITENED
    vectors = drawn @ direction.frame.root if whitened else drawn
    return tuple(_matched(direction, f"random direction {k + 1}", vector) for k, vector in enumerate(vectors))


def permuted_directions(
    direction: LatentDirection,
    latents: Latents,
    outcome: SurvivalOutcome,
    count: int,
    *,
    patient: Sequence[object] | np.ndarray | None = None,
    seed: int = 0,
) -> tuple[LatentDirection, ...]:
    """Directions fitted to outcomes that were dealt anew among patients, with steps as long as those of `direction`.

    They are fitted with the penalty of `direction`: a penalty chosen for noise would be the largest.

    Args:
        direction: The direction they are held against.
        latents: Latents of its training patients.
        outcome: Their outcome.
        count: How many.
        patient: Patient of each row; all rows of a patient get the outcome of one other patient.
        seed: Seed of the permutations.

    Raises:
        InvalidValueError: If `count` < 1 or lengths differ.
    """
    if count < 1:
        raise InvalidValueError(f"`count` must be >= 1; got {count}.")
    v = direction.frame.standardise(latents)
    code = patient_codes(len(v), patient)
    first = np.unique(code, return_index=True)[1]
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        dealt = outcome[first[rng.permutation(len(first))][code]]
        weights = ridge_coefficients(v, dealt, direction.penalty)
        vector = steepest(weights, direction.frame, direction.metric)
        made.append(_matched(direction, f"permuted outcomes {k + 1}", vector))
    return tuple(made)


def _matched(direction: LatentDirection, name: str, vector: np.ndarray) -> LatentDirection:
    unit = vector / np.linalg.norm(vector)
    step = direction.step
    if direction.metric is Metric.WHITENED:
        step = direction.length / float(np.linalg.norm(direction.frame.inverse @ unit))
    return replace(direction, name=name, vector=unit, step=step)
