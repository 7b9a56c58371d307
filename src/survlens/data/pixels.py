"""How images become tensors of one size; every constant comes from training rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from survlens.core.errors import DataError
from survlens.data.raster import LUMINANCE, ImageReference


class Channels(Enum):
    """Colour of the images that a model sees.

    STAINS: two channels, the amounts of haematoxylin and eosin in a stained tissue section, by colour deconvolution
    with the stain vectors of Ruifrok and Johnston 2001.
    """

    GREY = "grey"
    RGB = "rgb"
    STAINS = "stains"


class ImageScaling(Enum):
    """Range of the values that a model sees.

    UNIT keeps [0, 1]. STANDARDISE gives each channel mean 0 and standard deviation 1 over the training images.
    EACH_IMAGE does so within each image, which takes away how strongly it was stained or exposed.
    """

    UNIT = "unit"
    STANDARDISE = "standardise"
    EACH_IMAGE = "each_image"


_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density of red, green and blue of haematoxylin, eosin, and the rest (Ruifrok and Johnston 2001)."""
_UNMIX = np.linalg.inv(_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True))[:, :2].astype(np.float32)
_DARKEST = 1 / 256


@dataclass(frozen=True, slots=True)
class ImageEncoding:
    """Size, colour and range of images.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        channels: Number of channels.
        resize: Whether images of another size are resized, without keeping their proportions; otherwise refused.
        mean: Training mean of each channel, or empty where values stay as they are.
        std: Training standard deviation of each channel, or empty.
        each: Whether each image is standardised by its own mean and standard deviation.
        stains: Whether the channels are stains.
    """

    height: int
    width: int
    channels: int
    resize: bool
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    each: bool = False
    stains: bool = False

    @staticmethod
    def fit(
        images: Sequence[ImageReference],
        *,
        size: tuple[int, int] | None,
        channels: Channels | None,
        scaling: ImageScaling,
    ) -> ImageEncoding:
        """Fits on training images; the first tells size and channels where they are not given."""
        if not images:
            raise DataError("training rows must have images; got none. Check the split.")
        found, height, width = images[0].shape()
        wanted = {None: found, Channels.GREY: 1, Channels.RGB: 3, Channels.STAINS: 2}[channels]
        each, stains = scaling is ImageScaling.EACH_IMAGE, channels is Channels.STAINS
        plain = ImageEncoding(*(size or (height, width)), wanted, size is not None, each=each, stains=stains)
        if scaling is not ImageScaling.STANDARDISE:
            return plain
        mean, std = _moments(plain.encode(reference.read(), reference.name) for reference in images)
        return replace(plain, mean=mean, std=std)

    def encode(self, image: np.ndarray, name: str = "image") -> Float32[Tensor, "channel height width"]:
        """One image in [0, 1], (channel, height, width), at the size, colour and range of training.

        Raises:
            DataError: If it has another size and `resize` is off, or channels that cannot be converted.
        """
        pixels = self._sized(torch.from_numpy(self._coloured(image, name)), name)
        if self.stains:
            pixels = _stains(pixels)
        if self.each:
            spread = pixels.std((1, 2), keepdim=True, correction=0)
            return (pixels - pixels.mean((1, 2), keepdim=True)) / torch.where(spread > 0, spread, 1.0)
        if not self.mean:
            return pixels
        mean, std = (torch.tensor(value, dtype=torch.float32)[:, None, None] for value in (self.mean, self.std))
        return (pixels - mean) / std

    def encode_mask(self, mask: np.ndarray, name: str = "mask") -> Float32[Tensor, "1 height width"]:
        """One mask as 0 and 1, at the size of training: a pixel counts where its value is above 0."""
        inside = torch.from_numpy((mask.max(0, keepdims=True) > 0).astype(np.float32))
        return (self._sized(inside, name) >= 0.5).to(torch.float32)

    def _coloured(self, image: np.ndarray, name: str) -> np.ndarray:
        image = np.ascontiguousarray(image if image.ndim == 3 else image[None], dtype=np.float32)
        if self.stains:
            if image.shape[0] == 3:
                return image
            raise DataError(f"{name} must have 3 channels to tell stains apart; got {image.shape[0]}.")
        if image.shape[0] == self.channels:
            return image
        if self.channels == 3 and image.shape[0] == 1:
            return np.repeat(image, 3, axis=0)
        if self.channels == 1 and image.shape[0] == 3:
            return np.ascontiguousarray(np.tensordot(LUMINANCE, image, axes=1)[None])
        raise DataError(f"{name} must have {self.channels} channels; got {image.shape[0]}. Convert it to grey or RGB.")

    def _sized(self, pixels: Tensor, name: str) -> Tensor:
        height, width = int(pixels.shape[1]), int(pixels.shape[2])
        if (height, width) == (self.height, self.width):
            return pixels
        if not self.resize:
            raise DataError(
                f"{name} must have the size of the first training image, {self.height} x {self.width}; got {height} x "
                f"{width}. Set image_size to have all images resized."
            )
        resized = torch.nn.functional.interpolate(
            pixels[None], size=(self.height, self.width), mode="bilinear", antialias=True, align_corners=False
        )
        return resized[0].clamp_(0.0, 1.0)


def _stains(pixels: Tensor) -> Tensor:
    """Amounts of haematoxylin and eosin: -log of the light let through, unmixed."""
    density = -torch.log(pixels.clamp(min=_DARKEST))
    return torch.einsum("chw,cs->shw", density, torch.from_numpy(_UNMIX))


def _moments(images: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, in one pass (Chan's update, float64)."""
    count, mean, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for image in images:
        pixels = image.to(torch.float64).flatten(1)
        size = pixels.shape[1]
        own, delta = pixels.mean(1), pixels.mean(1) - mean
        squares = squares + ((pixels - own[:, None]) ** 2).sum(1) + delta**2 * (count * size / (count + size))
        mean = mean + delta * (size / (count + size))
        count += size
    std = (squares / count).sqrt()
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, torch.ones_like(std)).tolist())
