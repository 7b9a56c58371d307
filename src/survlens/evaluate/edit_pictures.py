"""Is it still the same person before the same background? Edited pictures against the picture that was edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.score import Category, Direction, Interval, Score
from survlens.evaluate.score_over_time import Intervals

Pictures = Float[Tensor, "instance channel height width"]
Edited = Float[Tensor, "instance step channel height width"]
Mask = Bool[Tensor, "instance height width"]
Embedding = Callable[[Pictures], Float[Tensor, "instance embedding"]]
"""From pictures in [0, 1] to vectors whose distance tells people apart."""


@dataclass(frozen=True, slots=True, eq=False)
class IdentityKept:
    """Whether edits stay with the person.

    Attributes:
        recognised: Share of edited pictures that are nearer to their own original than to any other instance's.
        distance: Mean distance to the own original over the mean distance between two instances' originals.
        by_step: That ratio at each step.
    """

    recognised: Score
    distance: Score
    by_step: np.ndarray


def identity_kept(
    original: Pictures,
    edited: Edited,
    *,
    embedding: Embedding | None = None,
    outside: Mask | None = None,
    reader: str = "pixels",
    intervals: Intervals | None = None,
) -> IdentityKept:
    """Distances of edited pictures from their originals, measured by those between different people.

    Args:
        original: The pictures that were edited, as the generator shows them unedited: a photograph would add the error
            of its embedding.
        edited: The pictures at each step.
        embedding: Tells people apart, such as a face recogniser; by default pixels.
        outside: Where the edit is not meant to change anything; pixels elsewhere are not looked at. All by default.
        reader: Name of the embedding, for the settings of the scores.
        intervals: How intervals over instances are made.

    Raises:
        InvalidValueError: If shapes disagree or there are fewer than two instances.
    """
    _check(original, edited)
    if len(original) < 2:
        raise InvalidValueError(f"`original` must hold two or more instances; got {len(original)}.")
    seen = _everywhere(original) if outside is None else _mask(outside, original, "outside")
    read = embedding or (lambda pictures: pictures.flatten(1))
    count, steps = edited.shape[:2]
    whole = seen.all()
    own = read(original * seen[:, None]) if not whole else read(original)
    apart = np.empty((count, count))
    to_own = np.empty((count, steps))
    nearest_other = np.empty((count, steps))
    for i in range(count):
        others = own if whole else read(original * seen[i])
        moved = read(edited[i] * seen[i])
        apart[i] = torch.linalg.vector_norm(others - others[i], dim=1).double().numpy()
        distances = torch.cdist(moved.double(), others.double()).numpy()
        to_own[i] = distances[:, i]
        nearest_other[i] = np.delete(distances, i, axis=1).min(1)
    between = apart[~np.eye(count, dtype=bool)].mean()
    made = intervals or Intervals()
    settings = {"reader": reader, "n": count, "steps": steps}
    settings |= {"region": "whole picture" if whole else "outside the region of the edit"}
    return IdentityKept(
        _mean("edit_identity_recognised", (to_own < nearest_other).mean(1), made, settings, Direction.HIGHER),
        _mean("edit_identity_distance", to_own.mean(1) / max(between, 1e-12), made, settings, Direction.LOWER),
        to_own.mean(0) / max(between, 1e-12),
    )


def background_change(
    original: Pictures, edited: Edited, background: Mask, *, intervals: Intervals | None = None
) -> Score:
    """Mean absolute change of background pixels over that of all others, averaged over the steps that change anything.

    0: the background stands still. 1: it changes as much as the rest, and the edit is of the whole picture.

    Args:
        original: The pictures that were edited, as the generator shows them unedited.
        edited: The pictures at each step.
        background: Where the background is.
        intervals: How the interval over instances is made.

    Raises:
        InvalidValueError: If shapes disagree, or an instance has no background or nothing else.
    """
    _check(original, edited)
    behind = _mask(background, original, "background").double()
    count = behind.sum((1, 2))
    total = behind[0].numel()
    if bool((count == 0).any()) or bool((count == total).any()):
        raise InvalidValueError("`background` must leave both background and foreground in every instance.")
    change = (edited - original[:, None]).abs().mean(2).double()
    outside = (change * behind[:, None]).sum((2, 3)) / count[:, None]
    inside = (change * (1 - behind[:, None])).sum((2, 3)) / (total - count)[:, None]
    share = (outside.sum(1) / inside.sum(1).clamp_min(1e-12)).numpy()
    settings = {"n": len(original), "steps": edited.shape[1], "change_of_background": float(outside.mean())}
    settings |= {"change_elsewhere": float(inside.mean())}
    return _mean("edit_background_change", share, intervals or Intervals(), settings, Direction.LOWER)


def _mean(
    name: str, values: np.ndarray, intervals: Intervals, settings: dict[str, float | int | str], better: Direction
) -> Score:
    lower, upper = intervals.limits(intervals.means(values[:, None], np.ones(len(values), dtype=bool)))
    interval = Interval(float(lower[0]), float(upper[0]), intervals.confidence, intervals.method)
    return Score(name, float(values.mean()), interval, better, Category.LOCALISATION, settings)


def _everywhere(original: Pictures) -> Mask:
    return torch.ones(len(original), *original.shape[2:], dtype=torch.bool)


def _mask(mask: Mask, original: Pictures, name: str) -> Mask:
    if mask.shape != (len(original), *original.shape[2:]):
        raise InvalidValueError(
            f"`{name}` must be of shape (instance, height, width) as the pictures; got {tuple(mask.shape)}."
        )
    return mask


def _check(original: Pictures, edited: Edited) -> None:
    if edited.ndim != 5 or (edited.shape[0], *edited.shape[2:]) != tuple(original.shape):
        raise InvalidValueError(
            f"`edited` must hold the steps of each picture of `original`; got {tuple(edited.shape)} for "
            f"{tuple(original.shape)}."
        )
