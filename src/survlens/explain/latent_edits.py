"""Latent vectors moved along a direction, within the range of the training patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from survlens.core.errors import InvalidValueError
from survlens.explain.directions import LatentDirection


@dataclass(frozen=True, slots=True, eq=False)
class EditedLatents:
    """Latent vectors of instances at steps along a direction.

    Attributes:
        latents: The vectors.
        asked: Change of the prediction asked for at each step, in its standard deviations.
        reached: Change along the direction that each vector has, in the same unit: less where it was capped, or where
            a sphere bends away.
        capped: Which vectors stopped at the edge of the training range.
        distance: Mahalanobis distance of each vector.
        direction: Name of the direction.
    """

    latents: Float64[np.ndarray, "instance step latent"]
    asked: Float64[np.ndarray, " step"]
    reached: Float64[np.ndarray, "instance step"]
    capped: Bool[np.ndarray, "instance step"]
    distance: Float64[np.ndarray, "instance step"]
    direction: str


def edited(
    direction: LatentDirection,
    latents: Float64[np.ndarray, "instance latent"],
    steps: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0),
) -> EditedLatents:
    """Moves every vector along a direction; step k changes the linear prediction by steps[k] standard deviations.

    x_k = mean + scale * (v + s vector), with s = steps[k] * direction.step, shortened where the Mahalanobis distance
    would exceed the reach of the training patients, or that of the vector itself where it is beyond. On a sphere the
    result is put back onto it.

    Args:
        direction: The direction.
        latents: Vectors to start from.
        steps: Where to stop, rising; 0 is the vector itself.

    Raises:
        InvalidValueError: If `steps` do not rise or are not finite.
    """
    asked = np.asarray(steps, dtype=np.float64)
    if asked.ndim != 1 or not asked.size or not np.isfinite(asked).all() or (np.diff(asked) <= 0).any():
        raise InvalidValueError(f"`steps` must be finite and rise; got {list(steps)}.")
    frame = direction.frame
    v = frame.standardise(latents)
    whitened, ahead = v @ frame.inverse, frame.inverse @ direction.vector
    wanted = np.broadcast_to(asked * direction.step, (len(v), len(asked)))
    edge = np.maximum(frame.reach, np.linalg.norm(whitened, axis=1) * (1 + 1e-12))[:, None]
    furthest = _to_edge(whitened, ahead, edge, np.sign(asked))
    taken = np.sign(wanted) * np.minimum(np.abs(wanted), furthest)
    moved = frame.restore(v[:, None] + taken[..., None] * direction.vector)
    reached = (frame.standardise(moved) - v[:, None]) @ direction.vector / direction.step
    return EditedLatents(
        moved, asked, reached, np.abs(wanted) > furthest, np.asarray(frame.distance(moved)), direction.name
    )


def _to_edge(whitened: np.ndarray, ahead: np.ndarray, edge: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Largest s >= 0 with |u + s sign a| <= edge: the positive root of a quadratic that is <= 0 at s = 0."""
    square = float(ahead @ ahead)
    half = (whitened @ ahead)[:, None] * sign
    inside = (whitened**2).sum(1)[:, None] - edge**2
    return np.maximum((-half + np.sqrt(np.maximum(half**2 - square * inside, 0.0))) / square, 0.0)
