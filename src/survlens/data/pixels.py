"""How images become tensors of one size; every constant comes from training rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from survlens.core.errors import DataError
from survlens.data.raster import LUMINANCE, ImageReference


class Channels(Enum):
    """Colour of the images that a model sees."""

    GREY = "grey"
    RGB = "rgb"


class ImageScaling(Enum):
    """Range of the values that a model sees."""

    UNIT = "unit"
    STANDARDISE = "standardise"


@dataclass(frozen=True, slots=True)
class ImageEncoding:
    """Size, colour and range of images.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        channels: Number of channels.
        resize: Whether images of another size are resized, without keeping their proportions; otherwise refused.
        mean: Training mean of each channel, or empty where values stay in [0, 1].
        std: Training standard deviation of each channel, or empty.
    """

    height: int
    width: int
    channels: int
    resize: bool
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

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
        wanted = {None: found, Channels.GREY: 1, Channels.RGB: 3}[channels]
        plain = ImageEncoding(*(size or (height, width)), wanted, size is not None)
        if scaling is ImageScaling.UNIT:
            return plain
        mean, std = _moments(plain.encode(reference.read(), reference.name) for reference in images)
        return ImageEncoding(plain.height, plain.width, plain.channels, plain.resize, mean, std)

    def encode(self, image: np.ndarray, name: str = "image") -> Float32[Tensor, "channel height width"]:
        """One image in [0, 1], (channel, height, width), at the size, colour and range of training.

        Raises:
            DataError: If it has another size and `resize` is off, or channels that cannot be converted.
        """
        pixels = self._sized(torch.from_numpy(self._coloured(image, name)), name)
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
