"""Images made from an image before features are taken: the filters of PyRadiomics (van Griethuysen 2017).

Arrays have the axes (z, y, x), as PyRadiomics sees a scan. A filter yields one image after the other under the name
that stands before its features, so that only one is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from survlens.core.errors import InvalidValueError

Image = Float64[np.ndarray, "z y x"]
Named = Iterator[tuple[str, Image]]

_ROOT = np.sqrt(7.0)
COIFLET = np.array([_ROOT - 3, 1 - _ROOT, 14 - 2 * _ROOT, 14 + 2 * _ROOT, 5 + _ROOT, 1 - _ROOT]) / (16 * np.sqrt(2.0))
"""Low-pass analysis filter of the coiflet with two vanishing moments, coif1 (Daubechies 1993)."""
_MIRROR = COIFLET[::-1] * np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])


@runtime_checkable
class Filter(Protocol):
    """Makes images from one."""

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """Names and images.

        Args:
            image: Finite numbers.
            spacing: Millimetres along each axis.
            in_plane: Whether the image is to be treated slice by slice.
        """
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """The image itself."""

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """The image under the name "original"."""
        yield "original", image


@dataclass(frozen=True, slots=True)
class Square:
    """x² / max|x|, which keeps the range."""

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """One image, "square"."""
        yield "square", image**2 / _largest(image)


@dataclass(frozen=True, slots=True)
class SquareRoot:
    """sign(x) √(|x| max|x|), which keeps the range."""

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """One image, "squareroot"."""
        yield "squareroot", np.sign(image) * np.sqrt(np.abs(image) * _largest(image))


@dataclass(frozen=True, slots=True)
class Logarithm:
    """sign(x) log(|x| + 1), stretched to the range of the image."""

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """One image, "logarithm"."""
        largest = _largest(image)
        yield "logarithm", np.sign(image) * np.log1p(np.abs(image)) * (largest / np.log1p(largest))


@dataclass(frozen=True, slots=True)
class Exponential:
    """exp(x log(max|x|) / max|x|), which keeps the largest value."""

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """One image, "exponential"."""
        largest = _largest(image)
        yield "exponential", np.exp(image * (np.log(largest) / largest))


@dataclass(frozen=True, slots=True)
class Gradient:
    """Length of the gradient per millimetre by central differences; beyond the border the image goes on unchanged."""

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """One image, "gradient"."""
        squares = np.zeros_like(image)
        for axis in _axes(in_plane):
            ends = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
            after = ends.take(range(2, ends.shape[axis]), axis)
            squares += ((after - ends.take(range(image.shape[axis]), axis)) / (2 * spacing[axis])) ** 2
        yield "gradient", np.sqrt(squares)


@dataclass(frozen=True, slots=True)
class LaplacianOfGaussian:
    """σ² times the Laplacian of the image smoothed by a Gaussian of σ millimetres, named "log-sigma-2-0-mm-3D".

    Smoothing and second derivative are sampled kernels out to 6 σ, corrected to be exact on parabolas; ITK, which
    PyRadiomics uses, takes a recursive approximation of the same kernels. Beyond its border the image goes on as it
    ends.

    Attributes:
        sigmas: Millimetres, > 0.

    Raises:
        InvalidValueError: If there is no sigma, or one is not > 0.
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sigmas or not all(np.isfinite(sigma) and sigma > 0 for sigma in self.sigmas):
            raise InvalidValueError(f"`sigmas` must be lengths > 0; got {self.sigmas}. (1, 2, 3) suits CT.")

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """One image for each sigma."""
        for sigma in self.sigmas:
            smoothed, bent = image, np.zeros_like(image)
            for axis in _axes(in_plane):
                smooth, bend = _gaussian_operators(sigma / spacing[axis], image.shape[axis])
                bent = _along(bent, smooth, axis) + _along(smoothed, bend * (sigma / spacing[axis]) ** 2, axis)
                smoothed = _along(smoothed, smooth, axis)
            yield f"log-sigma-{str(float(sigma)).replace('.', '-')}-mm-3D", bent


@dataclass(frozen=True, slots=True)
class Wavelet:
    """One undecimated step of the coiflet transform: "wavelet-LLH" and its like, eight images, four in a plane.

    Letters say low or high pass along x, y and z. The image goes round at its borders, after odd sides have been made
    even by their first slice.
    """

    def images(self, image: Image, spacing: Sequence[float], *, in_plane: bool) -> Named:
        """The sub-bands, low pass along every axis last."""
        axes = sorted(_axes(in_plane), reverse=True)
        even = np.pad(
            image, [(0, side % 2) if axis in axes else (0, 0) for axis, side in enumerate(image.shape)], "wrap"
        )
        inside = tuple(map(slice, image.shape))
        for letters, band in _bands(even, axes):
            yield f"wavelet-{letters}", np.ascontiguousarray(band[inside])


def _axes(in_plane: bool) -> tuple[int, ...]:
    return (1, 2) if in_plane else (0, 1, 2)


def _largest(image: Image) -> float:
    largest = float(np.abs(image).max())
    if largest == 0:
        raise InvalidValueError(
            "`volume` must not be zero everywhere for this filter; got zeros. Leave the filter out."
        )
    return largest


def _bands(image: Image, axes: Sequence[int]) -> Named:
    """High and low pass along each axis in turn, by their letters."""
    if not axes:
        yield "", image
        return
    for letter, kernel in (("H", _MIRROR), ("L", COIFLET)):
        for letters, band in _bands(_circular(image, kernel, axes[0]), axes[1:]):
            yield letter + letters, band


def _circular(image: Image, kernel: np.ndarray, axis: int) -> Image:
    """y[n] = sum over k of kernel[k] x[n + 3 - k], going round."""
    from scipy.ndimage import correlate1d

    return correlate1d(image, kernel[::-1], axis=axis, mode="wrap", origin=-1)


def _along(image: Image, operator: Float64[np.ndarray, "new old"], axis: int) -> Image:
    """An operator applied to every line along an axis."""
    if axis == 0:
        return (operator @ image.reshape(len(image), -1)).reshape(image.shape)
    return np.matmul(operator, image) if axis == 1 else image @ operator.T


def _gaussian_operators(sigma: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Smoothing, of sum 1, and second derivative, of sum 0 and exact on a parabola, for a sigma in voxels.

    As matrices, in which what reaches beyond the border falls on the voxel there: dense products of lines of a few
    hundred voxels are faster than convolutions.
    """
    reach = max(1, int(np.ceil(6 * sigma)))
    places = np.arange(-reach, reach + 1)
    smooth = np.exp(-0.5 * (places / sigma) ** 2)
    smooth /= smooth.sum()
    bend = smooth * ((places / sigma) ** 2 - 1)
    bend -= smooth * bend.sum()
    bend *= 2 / (bend * places**2).sum()
    columns = np.clip(np.arange(side)[:, None] + places, 0, side - 1)
    flat = (np.arange(side)[:, None] * side + columns).reshape(-1)
    operators = [np.bincount(flat, np.tile(kernel, side), side * side).reshape(side, side) for kernel in (smooth, bend)]
    return operators[0], operators[1]
