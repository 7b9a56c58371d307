"""Random changes of pictures that the discriminator sees instead of them, so that it cannot learn them by heart."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2 import augmentation_colour as colour
from survlens.generators.stylegan2 import augmentation_geometry as geometry
from survlens.generators.stylegan2.augmentation_corruption import balanced_gains, cut_out, refilter
from survlens.generators.stylegan2.augmentation_geometry import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Which changes are made, and how often: a change is drawn with probability p times its share.

    The changes of photographs and of generated pictures are drawn alike, and the generator learns the distribution
    before them as long as p stays well below 1 (Karras et al. 2020). The default is for portraits: hue and luma flip,
    which turn a pale skin into another one, are rare, since pallor is what survival is read from. `published` has the
    shares of the paper.

    Attributes:
        flip: Mirrored left to right, in half of the draws.
        quarter_turn: Turned by 0, 90, 180 or 270 degrees.
        pixel_shift: Moved by whole pixels, up to an eighth of the side.
        scale: Sizes 2^N(0, 0.2^2).
        rotation: Turned by any angle, before or after `stretch`.
        stretch: Made 2^N(0, 0.2^2) as wide, and as much less high.
        shift: Moved by N(0, 0.125^2) of the side.
        brightness: N(0, 0.2^2) added.
        contrast: Multiplied by 2^N(0, 0.5^2).
        luma_flip: Dark and light exchanged, in half of the draws.
        hue: Colours turned around the grey axis by any angle.
        saturation: Distance from grey multiplied by 2^N(0, 1).
        band: Each of four bands of frequencies multiplied by 2^N(0, 1), at constant power.
        noise: Noise of standard deviation |N(0, 0.1^2)| added.
        cutout: A square of half the side set to middle grey.

    Raises:
        InvalidValueError: If a share lies outside [0, 1].

    References:
        Karras et al. 2020 (ADA).
    """

    flip: float = 1.0
    quarter_turn: float = 1.0
    pixel_shift: float = 1.0
    scale: float = 1.0
    rotation: float = 1.0
    stretch: float = 1.0
    shift: float = 1.0
    brightness: float = 1.0
    contrast: float = 1.0
    luma_flip: float = 0.1
    hue: float = 0.1
    saturation: float = 1.0
    band: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise InvalidValueError(f"`{field.name}` must lie in [0, 1]; got {getattr(self, field.name)}.")

    @staticmethod
    def published() -> Augmentation:
        """Pixel moves, geometry and colour in full, as published."""
        return Augmentation(luma_flip=1.0, hue=1.0)

    @staticmethod
    def none() -> Augmentation:
        """No change at all; name those that are wanted with `dataclasses.replace`."""
        return Augmentation(**{field.name: 0.0 for field in fields(Augmentation)})

    def __call__(
        self, pictures: Float[Tensor, "instance channel size size"], p: float, generator: torch.Generator
    ) -> Float[Tensor, "instance channel size size"]:
        """Changed pictures in float32, each by its own draws; at p = 0 the same pictures.

        Derivatives of any order with respect to the pictures exist. The draws are made on the CPU, the same number of
        them at every p, so that a picture changed at one p is changed at every larger one by the same generator.

        Args:
            pictures: Square pictures in [-1, 1], of one channel or three.
            p: Probability in [0, 1].
            generator: Source of random numbers, on the CPU.

        Raises:
            InvalidValueError: If `p` lies outside [0, 1], or the pictures are not square with one channel or three.
        """
        _check(pictures, p)
        if p == 0 or not len(pictures):
            return pictures
        with torch.autocast(pictures.device.type, enabled=False):
            draws = _Draws(len(pictures), p, generator)
            placement = self._placement(draws, pictures.shape[-1])
            matrix = self._colours(draws)
            changed = colour.recolour(geometry.place(pictures.float(), placement), matrix)
            return self._corrupted(changed, draws)

    def _placement(self, draws: _Draws, size: int) -> Placement:
        mirror = 1 - 2 * draws.where(self.flip, draws.uniform().round(), 0.0)
        turns = draws.where(self.quarter_turn, (4 * draws.uniform()).floor(), 0.0)
        moves = [((2 * draws.uniform() - 1) * size / 8).round() for _ in range(2)]
        moved = draws.chosen(self.pixel_shift)
        x, y = (torch.where(moved, move, 0.0) for move in moves)
        on_pixels = geometry.scaling(mirror, torch.ones_like(mirror)) @ geometry.quarter_turns(turns)
        on_pixels = on_pixels @ geometry.shift(x, y)

        scale = 2 ** draws.where(self.scale, 0.2 * draws.normal(), 0.0)
        # Turned before or after the stretch, or both: any turn has the probability p x share.
        turn = 1 - math.sqrt(1 - draws.p * self.rotation)
        before, after = (
            torch.where(draws.uniform() < turn, (2 * draws.uniform() - 1) * math.pi, 0.0) for _ in range(2)
        )
        stretch = 2 ** draws.where(self.stretch, 0.2 * draws.normal(), 0.0)
        shifts = [0.125 * size * draws.normal() for _ in range(2)]
        shifted = draws.chosen(self.shift)
        right, down = (torch.where(shifted, move, 0.0) for move in shifts)
        between = geometry.scaling(scale, scale) @ geometry.rotation(before) @ geometry.scaling(stretch, 1 / stretch)
        between = between @ geometry.rotation(after) @ geometry.shift(right, down)
        still = (scale == 1) & (before == 0) & (stretch == 1) & (after == 0) & (right == 0) & (down == 0)
        return Placement(on_pixels @ between, still)

    def _colours(self, draws: _Draws) -> colour.Matrices:
        changes = (
            colour.brightness(draws.where(self.brightness, 0.2 * draws.normal(), 0.0)),
            colour.contrast(2 ** draws.where(self.contrast, 0.5 * draws.normal(), 0.0)),
            colour.luma_flip(draws.where(self.luma_flip, draws.uniform().round(), 0.0)),
            colour.hue(draws.where(self.hue, (2 * draws.uniform() - 1) * math.pi, 0.0)),
            colour.saturation(2 ** draws.where(self.saturation, draws.normal(), 0.0)),
        )
        matrix = colour.identity(draws.instances)
        for change in changes:
            # A product of unit matrices written with roots is not quite the unit matrix.
            plain = torch.isclose(change, colour.identity(1), rtol=0.0, atol=1e-12).all(2).all(1)
            matrix = torch.where(plain[:, None, None], matrix, change @ matrix)
        return matrix

    def _corrupted(self, pictures: Tensor, draws: _Draws) -> Tensor:
        if self.band:
            factors = torch.stack([2 ** draws.where(self.band, draws.normal(), 0.0) for _ in range(4)], 1)
            pictures = refilter(pictures, balanced_gains(factors))
        if self.noise:
            size = draws.where(self.noise, 0.1 * draws.normal().abs(), 0.0).float()
            values = torch.randn(pictures.shape, generator=draws.generator) * size[:, None, None, None]
            pictures = pictures + values.to(pictures.device)
        if self.cutout:
            centre = torch.stack([draws.uniform(), draws.uniform()], 1)
            pictures = cut_out(pictures, centre, draws.where(self.cutout, torch.full_like(centre[:, 0], 0.5), 0.0))
        return pictures


@dataclass(frozen=True, slots=True)
class _Draws:
    instances: int
    p: float
    generator: torch.Generator

    def uniform(self) -> Tensor:
        return torch.rand(self.instances, generator=self.generator, dtype=torch.float64)

    def normal(self) -> Tensor:
        return torch.randn(self.instances, generator=self.generator, dtype=torch.float64)

    def chosen(self, share: float) -> Tensor:
        return self.uniform() < self.p * share

    def where(self, share: float, change: Tensor, otherwise: float) -> Tensor:
        return torch.where(self.chosen(share), change, otherwise)


def _check(pictures: Tensor, p: float) -> None:
    if not 0 <= p <= 1:
        raise InvalidValueError(f"`p` must lie in [0, 1]; got {p}.")
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or pictures.shape[2] != pictures.shape[3]:
        raise InvalidValueError(
            "`pictures` must be square and have one channel or three, (instance, channel, size, size); "
            f"got shape {tuple(pictures.shape)}."
        )
