"""Reads the factors of drawn portraits from pixels alone, without the generator, the hazard or an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from survlens.core.errors import InvalidValueError
from survlens.data.simulate.portrait_drawing import draw
from survlens.data.simulate.portrait_factors import draw_factors

READABLE = ("illness", "age", "sex", "skin_tone", "glasses", "yaw", "hair_colour", "background_light")
"""Factors that are read; the others are circular, or categories, or too fine for small pictures."""
SIDE = 16
"""Pictures are averaged down to this side before they are read."""

_DARKEST = 0.05
_PENALTY = 5.0
_SEED = 1_000_003


@dataclass(frozen=True, slots=True, eq=False)
class PortraitReader:
    """Ridge regression of factors on the logarithms of pixels, fitted to freshly drawn faces.

    With x the pixels of a picture, averaged to 16 x 16 and cut to [0, 1], factor k is read as b_k + w_k' log(x + 0.05).
    Logarithms turn the brightness of light and skin into sums. Half of the faces of the fit are blurred and noisy, so
    that pictures of a generator, which are softer than drawings, are read nearly as well.

    Attributes:
        weights: w, a column per factor of `READABLE`.
        intercept: b.
        r2: Share of the variance of each factor that is read, on drawings that the fit has not seen.
        r2_soft: The same on those drawings blurred and with noise.
    """

    weights: Float64[np.ndarray, "feature factor"]
    intercept: Float64[np.ndarray, " factor"]
    r2: pd.Series
    r2_soft: pd.Series

    @staticmethod
    def fit(*, faces: int = 2000, held_out: int = 500, seed: int = _SEED) -> PortraitReader:
        """Draws faces, fits on them, and measures on others.

        Args:
            faces: Faces to fit on, >= 10.
            held_out: Faces to measure on, >= 10.
            seed: Seed of all draws.

        Raises:
            InvalidValueError: If there are fewer faces.
        """
        if min(faces, held_out) < 10:
            raise InvalidValueError(f"`faces` and `held_out` must be >= 10; got {faces} and {held_out}.")
        factors = draw_factors(faces + held_out, seed=seed)
        values = factors[list(READABLE)].to_numpy()
        sharp = draw(factors, size=SIDE).pictures
        soft = softened(sharp, generator=torch.Generator().manual_seed(seed))
        seen, unseen = _features(sharp), _features(soft)
        features = np.concatenate([seen[:faces], unseen[:faces]])
        wanted = np.concatenate([values[:faces], values[:faces]])
        middle, centre, spread = features.mean(0), wanted.mean(0), wanted.std(0)
        centred = features - middle
        gram = centred.T @ centred
        gram[np.diag_indices_from(gram)] += _PENALTY
        weights = np.linalg.solve(gram, centred.T @ ((wanted - centre) / spread)) * spread
        intercept = centre - middle @ weights
        explained = [
            1 - ((each[faces:] @ weights + intercept - values[faces:]) ** 2).mean(0) / values[faces:].var(0)
            for each in (seen, unseen)
        ]
        return PortraitReader(weights, intercept, *(pd.Series(each, index=list(READABLE)) for each in explained))

    def __call__(self, pictures: Float[Tensor, "instance 3 height width"]) -> pd.DataFrame:
        """Reads `READABLE` from every picture; a row per picture.

        Args:
            pictures: In [0, 1], square, with a side of 16 or a multiple of it.

        Raises:
            InvalidValueError: If they have another size, or values that are not finite.
        """
        return pd.DataFrame(_features(pictures) @ self.weights + self.intercept, columns=pd.Index(READABLE))


@cache
def portrait_reader() -> PortraitReader:
    """The reader that `read_factors` uses, fitted once in a process."""
    return PortraitReader.fit()


def read_factors(pictures: Float[Tensor, "instance 3 height width"]) -> pd.DataFrame:
    """Reads illness, age and the other factors of `READABLE` from pictures, drawn or generated; a row per picture.

    Args:
        pictures: In [0, 1], square, with a side of 16 or a multiple of it.

    Raises:
        InvalidValueError: If they have another size, or values that are not finite.
    """
    return portrait_reader()(pictures)


def softened(
    pictures: Float[Tensor, "instance 3 height width"], *, generator: torch.Generator
) -> Float[Tensor, "instance 3 height width"]:
    """Pictures with the faults of generated ones: blurred up to a binomial 3 x 3 filter, and noise up to 0.04.

    Args:
        pictures: In [0, 1].
        generator: Source of strengths and noise.
    """
    line = torch.tensor([0.25, 0.5, 0.25])
    filters = torch.outer(line, line).expand(3, 1, 3, 3)
    blurred = functional.conv2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), filters, groups=3)
    share, noise = torch.rand((2, len(pictures), 1, 1, 1), generator=generator)
    grain = torch.randn(pictures.shape, generator=generator) * (0.04 * noise)
    return (torch.lerp(pictures, blurred, share) + grain).clamp(0, 1)


def _features(pictures: Tensor) -> np.ndarray:
    height, width = pictures.shape[2:]
    if height != width or height % SIDE or not torch.isfinite(pictures).all():
        raise InvalidValueError(
            f"`pictures` must be finite, and square with a side of {SIDE} or a multiple; got {height} x {width}. "
            "Align or resize them first."
        )
    small = functional.avg_pool2d(pictures.detach().to("cpu", torch.float32), height // SIDE).clamp(0, 1)
    return torch.log(small + _DARKEST).flatten(1).double().numpy()
