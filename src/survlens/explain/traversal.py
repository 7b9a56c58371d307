"""Walking along one latent dimension and decoding what is seen on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError


class Decoder(Protocol):
    """Anything that turns latent vectors into images."""

    def decode(self, latent: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Expected images."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Traversal:
    """Decoded images along each latent dimension.

    Attributes:
        images: (dimension, step, channel, *space), in [0, 1].
        difference: Image at the last step minus image at the first, signed.
        steps: Position of each step, in standard deviations of the latent mean from its training mean.
        dimensions: Number of each row's dimension, from 1, in the order asked for.
    """

    images: np.ndarray
    difference: np.ndarray
    steps: np.ndarray
    dimensions: np.ndarray


@torch.no_grad()
def traverse(
    model: Decoder,
    *,
    centre: np.ndarray,
    scale: np.ndarray,
    steps: Sequence[float] = (-4, -3, -2, -1, 0, 1, 2, 3, 4),
    dimensions: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> Traversal:
    """Moves along one dimension at a time, all others held at `centre`.

    Args:
        model: Decodes latent vectors.
        centre: Start, usually the mean of the training latents.
        scale: Length of one step in each dimension, usually the standard deviation of the training latents. Beyond
            two or three of them no training image has been: what is drawn there is extrapolated.
        steps: Where to stop, in units of `scale`.
        dimensions: Which dimensions, from 1, in order; all by default.
        device: Where `model` lives.

    Raises:
        InvalidValueError: If a dimension does not exist or lengths differ.
    """
    if centre.shape != scale.shape or centre.ndim != 1:
        raise InvalidValueError(f"`centre` and `scale` must have one length; got {centre.shape} and {scale.shape}.")
    chosen = list(range(1, len(centre) + 1)) if dimensions is None else list(dimensions)
    if any(not 1 <= number <= len(centre) for number in chosen):
        raise InvalidValueError(f"`dimensions` must lie in 1..{len(centre)}; got {chosen}.")
    walk = np.repeat(centre[None, None], len(steps), axis=1).repeat(len(chosen), axis=0)
    for row, number in enumerate(chosen):
        walk[row, :, number - 1] += np.asarray(steps, dtype=np.float64) * scale[number - 1]
    latent = torch.as_tensor(walk, dtype=torch.float32, device=device).flatten(0, 1)
    images = model.decode(latent).cpu().numpy()
    images = images.reshape(len(chosen), len(steps), *images.shape[1:])
    return Traversal(images, images[:, -1] - images[:, 0], np.asarray(steps, dtype=np.float64), np.asarray(chosen))
