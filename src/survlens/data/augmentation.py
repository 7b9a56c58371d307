"""Random changes of training images that do not change what they show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.loaders import Indices, ItemSource, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is changed at random, anew each time an image is asked for.

    Attributes:
        flips: Whether each axis of an image is mirrored with probability one half. Right for tissue, wrong where left
            and right differ, as in a chest.
        quarter_turns: Whether square images are turned by 0, 90, 180 or 270 degrees, each equally likely.
        gain: Standard deviation of the factor, around 1, that each channel of an image is multiplied by.
        shift: Standard deviation of what is added to each channel, in standard deviations of the image's channel.

    Raises:
        InvalidValueError: If `gain` or `shift` is negative.
    """

    flips: bool = False
    quarter_turns: bool = False
    gain: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.gain < 0 or self.shift < 0:
            raise InvalidValueError(f"`gain` and `shift` must be >= 0; got {self.gain} and {self.shift}.")

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return self.flips or self.quarter_turns or self.gain > 0 or self.shift > 0

    def __call__(
        self, images: Float[Tensor, "instance channel *place"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "instance channel *place"]:
        """Changed copies of `images`, each image by its own draws; the originals stay as they are."""
        axes = list(range(2, images.ndim))
        if self.flips:
            for axis in axes:
                mirrored = _coins(images, generator)
                images = torch.where(mirrored, images.flip(axis), images)
        if self.quarter_turns and len(axes) >= 2 and images.shape[-1] == images.shape[-2]:
            images = torch.where(_coins(images, generator), images.transpose(-1, -2), images)
            for axis in (-2, -1):
                images = torch.where(_coins(images, generator), images.flip(axis), images)
        if self.gain > 0 or self.shift > 0:
            shape = (images.shape[0], images.shape[1], *[1] * len(axes))
            spread = images.std(axes, keepdim=True, correction=0)
            factor = 1 + self.gain * torch.randn(shape, generator=generator).to(images)
            added = self.shift * torch.randn(shape, generator=generator).to(images) * spread
            images = images * factor + added
        return images


class AugmentedSource:
    """A source whose images are changed at random each time; everything else is as in the source.

    Draws come from torch's default generator, as those of dropout do: a training that is seeded is repeatable, and one
    that is resumed goes on with the draws that would have come.

    Args:
        source: Training rows. Never wrap rows that are scored.
        augmentation: What is changed.
        modality: Name of the images among the inputs.
    """

    def __init__(self, source: Source, augmentation: Augmentation, *, modality: str = "image") -> None:
        self.source, self.augmentation, self.modality = source, augmentation, modality
        self.outcome = source.outcome

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Changed inputs and the outcome of some rows, in the order asked for."""
        inputs, outcome = self.source.batch(indices)
        if self.modality not in inputs:
            raise InvalidValueError(f"`modality` must be one of {', '.join(inputs)}; got {self.modality!r}.")
        return {**inputs, self.modality: self.augmentation(inputs[self.modality])}, outcome

    @property
    def items(self) -> Int64[Tensor, " instance"]:
        """Number of items of each row; 1 where the source has no rows of several."""
        return self.source.items if isinstance(self.source, ItemSource) else torch.ones(len(self), dtype=torch.int64)

    def for_epoch(self, generator: torch.Generator) -> AugmentedSource:
        """The same rows with the items that one epoch of training reads."""
        if not isinstance(self.source, ItemSource):
            return self
        return AugmentedSource(self.source.for_epoch(generator), self.augmentation, modality=self.modality)


def _coins(images: Tensor, generator: torch.Generator | None) -> Tensor:
    heads = torch.rand(images.shape[0], generator=generator) < 0.5
    return heads.to(images.device).reshape(-1, *[1] * (images.ndim - 1))
