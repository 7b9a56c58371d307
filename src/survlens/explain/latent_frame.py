"""The frame in which latent vectors are measured: standardised, whitened, and how far training patients reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from survlens.core.errors import InvalidValueError
from survlens.data.fitted_on import FittedOn
from survlens.models.cross_fitting import patient_codes

Latents = Float64[np.ndarray, "instance latent"]
_QUANTILE = 0.99
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class LatentFrame:
    """Mean, scale and correlation of training latents.

    A latent vector x is standardised as v = (x - mean) / scale and whitened as u = R^-1 v, where R is the symmetric
    root of the correlation matrix, shrunk by the rule of Ledoit and Wolf. |u| is its Mahalanobis distance.

    Attributes:
        mean: Mean of each dimension over training patients.
        scale: Standard deviation of each.
        root: R.
        inverse: R^-1.
        reach: Distance within which 99 % of training patients lie, each measured in a frame made without their fold.
        sphere: Whether latent vectors live on the sphere of radius sqrt(latent), as `z` of a StyleGAN2 does.
        fitted_on: The training patients.
    """

    mean: Float64[np.ndarray, " latent"]
    scale: Float64[np.ndarray, " latent"]
    root: Float64[np.ndarray, "latent latent"]
    inverse: Float64[np.ndarray, "latent latent"]
    reach: float
    sphere: bool
    fitted_on: FittedOn

    @staticmethod
    def of(
        latents: Latents, *, patient: Sequence[object] | np.ndarray | None = None, sphere: bool = False, seed: int = 0
    ) -> LatentFrame:
        """The frame of training latents.

        Args:
            latents: Latent vectors of training patients only, at least ten.
            patient: Patient of each row; None where every row is a patient, named by its number.
            sphere: Whether the vectors live on the sphere of radius sqrt(latent).
            seed: Seed of the folds behind `reach`.

        Raises:
            InvalidValueError: If there are too few rows, a value is not finite, or a dimension does not vary.

        References:
            Ledoit and Wolf 2004.
        """
        values = np.asarray(latents, dtype=np.float64)
        if values.ndim != 2 or len(values) < 2 * _FOLDS or not np.isfinite(values).all():
            raise InvalidValueError(
                f"`latents` must be finite, of shape (instance, latent), with {2 * _FOLDS} rows or more; got shape "
                f"{values.shape}."
            )
        constant = int((values.std(0) <= 1e-12).sum())
        if constant:
            raise InvalidValueError(
                f"`latents` must vary in every dimension; got {constant} constant ones. Leave them out."
            )
        code = patient_codes(len(values), patient)
        if code.max() + 1 < 2 * _FOLDS:
            raise InvalidValueError(f"`patient` must name {2 * _FOLDS} or more; got {int(code.max()) + 1}.")
        fold = np.random.default_rng(seed).permutation(int(code.max()) + 1)[code] % _FOLDS
        distances = np.empty(len(values))
        for k in np.unique(fold):
            mean, scale, _, inverse = _moments(values[fold != k])
            distances[fold == k] = np.linalg.norm((values[fold == k] - mean) / scale @ inverse, axis=1)
        names = range(len(values)) if patient is None else patient
        reach = float(np.quantile(distances, _QUANTILE))
        return LatentFrame(*_moments(values), reach, sphere, FittedOn.of("standardisation of latent vectors", names))

    @property
    def width(self) -> int:
        """Number of dimensions."""
        return len(self.mean)

    def standardise(self, latents: np.ndarray) -> np.ndarray:
        """Latent vectors, in the last axis, in standard deviations from the training mean."""
        values = np.asarray(latents, dtype=np.float64)
        if values.shape[-1] != self.width:
            raise InvalidValueError(f"`latents` must have {self.width} dimensions; got {values.shape[-1]}.")
        return (values - self.mean) / self.scale

    def restore(self, standardised: np.ndarray) -> np.ndarray:
        """Latent vectors of standardised ones; on a sphere they are put back onto it."""
        values = standardised * self.scale + self.mean
        if self.sphere:
            values *= np.sqrt(self.width) / np.linalg.norm(values, axis=-1, keepdims=True)
        return values

    def distance(self, latents: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of each latent vector from the training mean."""
        return np.linalg.norm(self.standardise(latents) @ self.inverse, axis=-1)


def _moments(values: Latents) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.covariance import ledoit_wolf

    mean, scale = values.mean(0), values.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    correlation, _ = ledoit_wolf((values - mean) / scale, assume_centered=True)
    size, axes = np.linalg.eigh(correlation)
    size = np.sqrt(np.maximum(size, 1e-10))
    return mean, scale, axes * size @ axes.T, axes / size @ axes.T
