"""Occlusion of superpixels over time: what a prediction loses when a region of a picture is covered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.protocols import Inputs, SurvivalPredictor
from survlens.core.targets import Target, survival
from survlens.explain.asked import asked
from survlens.explain.layout import axis_names, checked_times
from survlens.explain.memory import MEMORY
from survlens.explain.occlusion import Covering
from survlens.explain.references import ReferenceSource

Segmenter = Callable[[Float[Tensor, "channel *space"]], Int64[Tensor, "*space"]]
"""From one picture to the label of each of its pixels."""


@dataclass(frozen=True, slots=True)
class GridSegments:
    """Cuts a picture into boxes of equal size, the last ones of each axis smaller where it does not come out even.

    Attributes:
        size: Edge of a box in pixels, >= 1, or one per axis.
    """

    size: int | tuple[int, ...] = 16

    def __call__(self, picture: Float[Tensor, "channel *space"]) -> Int64[Tensor, "*space"]:
        """Label of each pixel."""
        space = tuple(picture.shape[1:])
        sizes = (self.size,) * len(space) if isinstance(self.size, int) else self.size
        if len(sizes) != len(space) or min(sizes) < 1:
            raise InvalidValueError(f"`size` must be >= 1, one per axis of the picture {space}; got {self.size}.")
        found = torch.zeros(space, dtype=torch.int64)
        for axis, (length, size) in enumerate(zip(space, sizes, strict=True)):
            number = torch.arange(length) // size
            found = found * (int(number[-1]) + 1) + number.reshape(
                [length if each == axis else 1 for each in range(len(space))]
            )
        return found


@dataclass(frozen=True, slots=True)
class SLIC:
    """Superpixels by simple linear iterative clustering of colour and place; needs scikit-image.

    Attributes:
        segments: About how many superpixels, >= 1.
        compactness: Weight of place against colour, > 0; higher makes squarer regions.

    References:
        Achanta et al. 2012.
    """

    segments: int = 64
    compactness: float = 0.1

    def __call__(self, picture: Float[Tensor, "channel *space"]) -> Int64[Tensor, "*space"]:
        """Label of each pixel.

        Raises:
            InvalidTypeError: If scikit-image is not installed.
        """
        try:
            slic = import_module("skimage.segmentation").slic
        except ImportError as error:
            raise InvalidTypeError(
                "SLIC must have scikit-image; got an environment without it. Install it with `pip install "
                "scikit-image`, or cut regular boxes with GridSegments(size)."
            ) from error
        values = picture.detach().double().cpu().numpy()
        low, high = values.min(), values.max()
        scaled = (values - low) / max(high - low, 1e-12)
        labels = slic(
            np.moveaxis(scaled, 0, -1),
            n_segments=self.segments,
            compactness=self.compactness,
            channel_axis=-1,
            convert2lab=False,
            start_label=0,
        )
        return torch.as_tensor(np.ascontiguousarray(labels), dtype=torch.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    """Regions of each item by its map of labels."""

    labels: tuple[Tensor, ...]

    def count(self, item: int) -> int:
        return len(self.labels[item].unique())

    def masks(self, item: int, numbers: Int64[Tensor, " part"]) -> Bool[Tensor, "part *place"]:
        found = self.labels[item].unique()[numbers]
        return self.labels[item][None] == found.reshape(-1, *[1] * self.labels[item].ndim)


@dataclass(frozen=True, slots=True, eq=False)
class SuperpixelOcclusion:
    """What covering a region of a picture changes, F(t | x) - F(t | x covered), at all times and for any model.

    Every pixel has the effect of its region. Effects of regions do not sum to a difference of the target.

    Attributes:
        fill: Where the values under the cover come from.
        regions: A map of labels, for all pictures or with one map per picture in front, or a segmenter such as `SLIC()`
            or `GridSegments()` that makes one of each picture.
        modality: The picture.
        memory: Bytes that a batch may take.

    References:
        Zeiler and Fergus 2014; Achanta et al. 2012.
    """

    fill: ReferenceSource
    regions: Int64[Tensor, "..."] | Segmenter
    modality: str = "image"
    memory: int = MEMORY

    def __call__(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target = survival,
    ) -> dict[str, Attribution]:
        """The effects of covering the regions of the pictures of every row of `inputs`.

        Raises:
            InvalidValueError: If `modality` is no picture, or a map of labels does not fit.
        """
        when = checked_times(times)
        with asked(model) as held:
            ready = held.ready(inputs)
            game = Covering(held, ready, self.fill, when, target, self.memory)
            (name,) = game.chosen((self.modality,))
            if ready[name].ndim < 4:
                raise InvalidValueError(
                    f"`modality` must name pictures (item, channel, height, width, ...); got {name!r} of shape "
                    f"{tuple(ready[name].shape)}. Occlusion covers the columns of tables."
                )
            labels = self._labels(ready[name])
            values = game.spread(name, _Labelled(labels))
            counts = [len(each.unique()) for each in labels]
            words = f"regions per picture: {min(counts)} to {max(counts)}" if counts else "no pictures"
            dims = axis_names(ready[name].ndim - 1)[1:]
            return {name: game.attribution(name, values, "SuperpixelOcclusion", dims, (words,))}

    def _labels(self, pictures: Tensor) -> tuple[Tensor, ...]:
        space = tuple(pictures.shape[2:])
        if isinstance(self.regions, Tensor):
            given = self.regions.cpu()
            if tuple(given.shape) == space:
                return (given,) * len(pictures)
            found = tuple(given)
        else:
            found = tuple(self.regions(each) for each in pictures)
        if len(found) != len(pictures) or any(tuple(each.shape) != space for each in found):
            raise InvalidValueError(
                f"`regions` must give a label to each pixel of {space}, for all {len(pictures)} pictures or each; got "
                f"{len(found)} maps of {tuple(found[0].shape) if found else ()}."
            )
        return found
