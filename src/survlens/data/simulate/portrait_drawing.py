"""Draws faces from factors: layers of shapes with smooth edges, on a grid of 32 points or more to a side.

Face coordinates (u, v) have the middle of an aligned square at the origin, u to the right and v downwards, and reach
from -1 to 1 along its sides. The eyes stand at (-0.25, -0.05) and (0.25, -0.05), the corners of the mouth at
(-0.19, 0.45) and (0.19, 0.45): a face without pose is aligned as `survlens.data.portrait_alignment` aligns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.data.simulate.portrait_factors import (
    FACTOR_NAMES,
    ILLNESS_LIMIT,
    OLDEST,
    YOUNGEST,
    HairStyle,
    checked_factors,
)

LANDMARKS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
"""Order of the landmarks; left and right as one sees them in the picture."""
EYE = (0.25, -0.05)
MOUTH = (0.19, 0.45)
FEATURE_TURN = 0.08
"""How far eyes and mouth move to the side per unit of yaw."""
SMALLEST, LARGEST = 16, 256

_COARSEST_GRID = 32
_PIXELS_AT_ONCE = 2**17
_LIGHT_SKIN, _DARK_SKIN = (0.93, 0.74, 0.62), (0.40, 0.25, 0.17)
_BLACK_HAIR, _BROWN_HAIR, _BLOND_HAIR, _GREY_HAIR = (
    (0.09, 0.07, 0.06),
    (0.40, 0.23, 0.11),
    (0.84, 0.66, 0.36),
    (0.80, 0.81, 0.83),
)


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """Drawn faces, and where in the pictures what is.

    Attributes:
        pictures: In [0, 1].
        face: Whether a pixel is mostly skin of the face, eyes and mouth included, hair and glasses not.
        background: Whether nothing of the person touches a pixel.
        landmarks: (x, y) of `LANDMARKS` in pixels; the middle of the first pixel is at (0.5, 0.5).
    """

    pictures: Float32[Tensor, "instance 3 height width"]
    face: Bool[Tensor, "instance height width"]
    background: Bool[Tensor, "instance height width"]
    landmarks: Float64[np.ndarray, "instance landmark 2"]


def draw(factors: pd.DataFrame, *, size: int = 32) -> Drawing:
    """Draws a face per row; the same factors give the same picture, at any size and beside any other rows.

    Args:
        factors: The columns of `portrait_factors.FACTORS`; others are not looked at.
        size: Height and width, a power of two from 16 to 256.

    Raises:
        DataError: If a factor is missing or lies outside its range.
        InvalidValueError: If `size` is none of these.
    """
    if size < SMALLEST or size > LARGEST or size & (size - 1):
        raise InvalidValueError(f"`size` must be a power of two from {SMALLEST} to {LARGEST}; got {size}.")
    table = checked_factors(factors).to_numpy(dtype=np.float64)
    finer = max(1, _COARSEST_GRID // size)
    step = max(1, _PIXELS_AT_ONCE // (size * finer) ** 2)
    parts = [_drawn(table[start : start + step], size, finer) for start in range(0, len(table), step)]
    if not parts:
        empty = torch.zeros((0, size, size))
        return Drawing(empty[:, None].repeat(1, 3, 1, 1), empty > 0, empty > 0, np.zeros((0, 4, 2)))
    pictures, face, person = (torch.cat(each) for each in zip(*parts, strict=True))
    return Drawing(pictures, face >= 0.5, person < 1e-3, landmarks_of(factors, size=size))


def landmarks_of(factors: pd.DataFrame, *, size: int) -> Float64[np.ndarray, "instance landmark 2"]:
    """Where eyes and corners of the mouth are, in pixels of a picture of `size`, in the order of `LANDMARKS`."""
    table = checked_factors(factors)
    points = np.array([[-EYE[0], EYE[1]], [EYE[0], EYE[1]], [-MOUTH[0], MOUTH[1]], [MOUTH[0], MOUTH[1]]])
    places = np.repeat(points[None], len(table), axis=0)
    places[:, :, 0] += FEATURE_TURN * table["yaw"].to_numpy()[:, None]
    angle = np.radians(table["roll"].to_numpy())
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    shift = table[["shift_x", "shift_y"]].to_numpy()
    placed = table["scale"].to_numpy()[:, None, None] * (places @ turn) + shift[:, None]
    return (placed + 1) * size / 2


class _Face:
    """One batch of faces while they are painted: places of all grid points, shared shapes and colours."""

    def __init__(self, values: Mapping[str, Tensor], side: int):
        self.values = values
        middle = (torch.arange(side, dtype=torch.float32) + 0.5) * (2 / side) - 1
        x, y = middle[None, None, :] - values["shift_x"], middle[None, :, None] - values["shift_y"]
        angle = torch.deg2rad(values["roll"])
        cosine, sine = torch.cos(angle) / values["scale"], torch.sin(angle) / values["scale"]
        self.u, self.v = cosine * x + sine * y, cosine * y - sine * x
        self.edge = 2 / side
        self.ill = (values["illness"] + ILLNESS_LIMIT) / (2 * ILLNESS_LIMIT)
        self.old = (values["age"] - YOUNGEST) / (OLDEST - YOUNGEST)
        self.side = self.u.abs()
        self.featured = self.u - FEATURE_TURN * values["yaw"]
        self.mirrored = self.featured.abs()
        self.width = 0.50 + 0.035 * values["face_width"] + 0.02 * values["sex"]
        self.chin = 0.80 + 0.03 * values["sex"]
        self.skin = _skin(values, self.ill)
        self.hair = _hair(values, self.old)
        self.canvas = torch.empty((len(angle), 3, side, side))
        self.person = torch.zeros_like(self.u)

    def paint(self, colour: Tensor, cover: Tensor) -> None:
        """Lays a colour (instance, 3, 1, 1) over the canvas where `cover` (instance, height, width) is above 0."""
        self.canvas.lerp_(colour.expand_as(self.canvas), cover[:, None].expand_as(self.canvas))

    def shade(self, factor: Tensor) -> None:
        """Multiplies the canvas by (instance, height, width)."""
        self.canvas.mul_(factor[:, None])

    def within(self, distance: Tensor) -> Tensor:
        """Share of a grid point inside a shape, by its signed distance to the edge."""
        return (distance / self.edge).add_(0.5).clamp_(0, 1)

    def bump(self, distance: Tensor, wide: float) -> Tensor:
        """A soft line: 1 on it and 1/e at `wide` from it; where a grid point is wider, thinned to its share of it."""
        whole = math.hypot(wide, 0.6 * self.edge)
        return torch.exp(-((distance / whole) ** 2)).mul_(wide / whole)

    def blob(self, across: Tensor, down: Tensor, wide: float, high: float) -> Tensor:
        """A soft spot with these half axes."""
        both = [math.hypot(each, 0.6 * self.edge) for each in (wide, high)]
        return torch.exp(-((across / both[0]) ** 2) - (down / both[1]) ** 2).mul_(wide * high / (both[0] * both[1]))

    def style(self, *styles: HairStyle) -> Tensor:
        """1 where the hair is worn in one of these ways, else 0."""
        return sum((self.values["hair_style"] == each.value).float() for each in styles) + torch.zeros_like(self.old)


def _drawn(table: np.ndarray, size: int, finer: int) -> tuple[Tensor, Tensor, Tensor]:
    columns = torch.from_numpy(table).to(torch.float32)
    face = _Face({name: columns[:, i, None, None] for i, name in enumerate(FACTOR_NAMES)}, size * finer)
    _background(face)
    _shoulders(face)
    skin = _head(face)
    _wrinkles(face, skin)
    _signs(face, skin)
    _eyes(face, skin)
    _nose(face)
    _mouth(face)
    _beard(face, skin)
    hair = _front_hair(face)
    _glasses(face)
    face.shade(1 + 0.05 * face.values["light"] + 0.07 * face.values["light_side"] * face.u)
    shown = skin * (1 - hair)
    pictures, shown, person = (
        torch.nn.functional.avg_pool2d(each, finer) for each in (face.canvas, shown[:, None], face.person[:, None])
    )
    return pictures.clamp_(0, 1), shown[:, 0], person[:, 0]


def _background(face: _Face) -> None:
    hue = 2 * math.pi * face.values["background_hue"]
    level = 0.38 + 0.42 * face.values["background_light"]
    channels = [level + 0.13 * torch.cos(hue - shift) for shift in (0.0, 2.0944, 4.1888)]
    face.canvas.copy_(torch.stack(channels, dim=1).expand_as(face.canvas))
    face.shade(1 - 0.10 * face.v)


def _shoulders(face: _Face) -> None:
    clothes = _rgb([0.30, 0.34, 0.42]) * (0.6 + 0.8 * face.values["texture"])[:, None]
    back = _back_hair(face)
    neck = face.within(torch.minimum(0.25 + 0.03 * face.values["sex"] - face.side, face.v - 0.3))
    body = face.within(_ellipse(face.u, face.v - 1.18, 0.95, 0.36))
    face.paint(face.hair * 0.85, back)
    face.paint(face.skin * 0.78, neck)
    face.paint(clothes, body)
    face.person = torch.maximum(torch.maximum(back, neck), body)


def _back_hair(face: _Face) -> Tensor:
    """Hair behind the head: down to the jaw (bob) or over the shoulders (long)."""
    down = 0.55 * face.style(HairStyle.BOB) + 1.05 * face.style(HairStyle.LONG)
    wide = face.width + 0.13
    below = (face.v / down.clamp(min=0.1)).clamp_(min=0)
    return face.within((1 - torch.sqrt((face.side / wide) ** 2 + below**4)) * wide) * (down > 0) * (face.v > 0)


def _head(face: _Face) -> Tensor:
    """Ears and the face with its shading; returns the share of skin of the face."""
    ears = face.within(_ellipse(face.side - face.width, face.v - 0.04, 0.06, 0.13))
    face.paint(face.skin * 0.86, ears)
    jaw = 0.25 + 0.15 * face.values["sex"] + 0.45 * face.old
    hollow = 1 - 0.12 * face.ill * face.bump(face.v - 0.36, 0.17)
    height = torch.where(face.v < 0, face.v / -0.80, face.v / face.chin) ** 2
    round_or_square = torch.where(face.v < 0, height, height + jaw * (height * height - height))
    skin = face.within((1 - torch.sqrt((face.side / (face.width * hollow)) ** 2 + round_or_square)) * face.width)
    face.paint(face.skin, skin)
    fall = (face.u - 0.1 * face.values["yaw"]) / face.width
    face.shade(1 - skin * (0.20 * fall * fall + 0.05 * (face.v - 0.1).clamp(min=0)))
    face.person = torch.maximum(torch.maximum(face.person, ears), skin)
    return skin


def _wrinkles(face: _Face, skin: Tensor) -> None:
    """What age writes: lines on the forehead and beside the eyes, and spots."""
    arch = face.v + 0.10 * face.featured**2
    lines = sum((face.bump(arch - place, 0.016) for place in (-0.30, -0.37, -0.44)), torch.zeros_like(face.u))
    lines = lines * face.bump(face.featured, 0.26)
    outer, drop = face.mirrored - 0.43, face.v - EYE[1]
    feet = sum((face.bump(drop - slope * outer, 0.013) for slope in (-0.9, 0.0, 0.9)), torch.zeros_like(face.u))
    feet = feet * face.bump(outer, 0.05)
    phase = 40 * face.values["texture"]
    spots = torch.sin(23 * face.u + phase) * torch.sin(29 * face.v + 1.7 * phase)
    spots = (spots * torch.sin(17 * (face.u + face.v) + 2.3 * phase) - 0.35).clamp_(min=0)
    cover = (0.55 * lines + 0.6 * feet + 0.5 * spots) * (face.old * skin)
    face.paint(face.skin * 0.45, cover.clamp_(0, 1))


def _signs(face: _Face, skin: Tensor) -> None:
    """What illness writes, pallor apart: cheeks that lose their red and fall in, rings under the eyes, folds."""
    blush = face.blob(face.mirrored - 0.30, face.v - 0.20, 0.13, 0.11)
    red = torch.cat([face.skin[:, :1] * 1.05, face.skin[:, 1:] * 0.68], dim=1)
    face.paint(red, blush * (0.75 * (1 - face.ill) * skin))
    sunken = face.blob(face.mirrored - 0.34, face.v - 0.36, 0.08, 0.17)
    rings = face.blob(face.mirrored - EYE[0], face.v - 0.06, 0.14, 0.055)
    face.paint(face.skin * _rgb([0.46, 0.44, 0.56]), ((0.7 * sunken + 0.85 * rings) * (face.ill * skin)).clamp_(0, 1))
    along = ((face.v - 0.22) / 0.36).clamp(0, 1)
    fold = face.bump(face.mirrored - (0.12 + 0.16 * torch.sqrt(along)), 0.022) * face.bump(face.v - 0.40, 0.15)
    face.paint(face.skin * 0.45, fold * (0.8 * face.ill * skin))


def _eyes(face: _Face, skin: Tensor) -> None:
    across, down = face.mirrored - EYE[0], face.v - EYE[1]
    lid = -0.062 + 0.075 * face.ill
    ball = face.within(_ellipse(across, down, 0.125, 0.066))
    open_ = ball * face.within(down - lid - 0.8 * across**2)
    face.paint(face.skin * 0.80, ball)
    face.paint(_rgb([0.96, 0.95, 0.93]), open_)
    iris_colour = torch.lerp(_rgb([0.24, 0.14, 0.08]), _rgb([0.34, 0.50, 0.62]), face.values["eye_colour"][:, None])
    centred = face.featured - torch.sign(face.featured) * EYE[0]
    away = torch.sqrt((centred - 0.02 * face.values["yaw"]) ** 2 + down**2)
    face.paint(iris_colour, open_ * face.within(0.058 - away))
    face.paint(_rgb([0.03, 0.03, 0.03]), open_ * face.within(0.027 - away))
    face.paint(_rgb([1.0, 1.0, 1.0]), open_ * face.blob(centred - 0.02, down + 0.02, 0.014, 0.014))
    lash = face.bump(down - lid - 0.8 * across**2, 0.016) * face.bump(across, 0.10)
    face.paint(face.skin * 0.25, 0.9 * lash * skin)
    brow = face.bump(face.v + 0.185 - 0.9 * (across - 0.01) ** 2 - 0.10 * face.ill * across.clamp(min=0), 0.026)
    brow = brow * face.bump(across, 0.12)
    face.paint(face.hair * 0.8, (0.85 + 0.15 * face.values["sex"]) * brow * skin)


def _nose(face: _Face) -> None:
    turned = face.u - 0.14 * face.values["yaw"]
    bridge = face.blob(turned - 0.075, face.v - 0.06, 0.03, 0.15)
    face.paint(face.skin * 0.72, 0.55 * bridge)
    tip = face.blob(turned, face.v - 0.17, 0.05, 0.06)
    face.paint(face.skin * 0.5 + 0.5, 0.22 * tip)
    wings = face.bump(torch.sqrt((turned * 0.9) ** 2 + (face.v - 0.17) ** 2) - 0.095, 0.018) * (face.v > 0.19)
    face.paint(face.skin * 0.55, 0.6 * wings)
    nostrils = face.blob(turned.abs() - 0.042, face.v - 0.238, 0.024, 0.013)
    face.paint(face.skin * 0.28, 0.85 * nostrils)


def _mouth(face: _Face) -> None:
    """Lips with the corners at `MOUTH`; the middle rises above them with illness, so that the corners droop."""
    across = (face.mirrored / MOUTH[0]) ** 2
    inner = (1 - across).clamp(min=0)
    line = MOUTH[1] + (0.045 - 0.10 * face.ill) * inner
    full = (0.065 - 0.025 * face.old) * torch.sqrt(inner) * (1 - 0.15 * face.values["sex"])
    lips = face.within(full - (face.v - line - 0.012).abs()) * (face.mirrored < MOUTH[0])
    red = face.skin * _rgb([0.86, 0.50, 0.50]) + _rgb([0.06, 0.0, 0.02])
    pale = face.skin * _rgb([0.80, 0.76, 0.80])
    face.paint(torch.lerp(red, pale, face.ill[:, None]), lips)
    face.paint(face.skin * 0.22, 0.85 * face.bump(face.v - line, 0.014) * face.within(MOUTH[0] - face.mirrored))
    face.paint(face.skin * 0.6, 0.4 * face.blob(face.featured, face.v - 0.585, 0.10, 0.022))


def _beard(face: _Face, skin: Tensor) -> None:
    around = torch.maximum(face.v - 0.34 - 0.02 * torch.sin(30 * face.u), (face.side - 0.40) * 0.8)
    lips = face.blob(face.featured, face.v - MOUTH[1] - 0.01, 0.17, 0.07)
    cover = face.within(around / 3) * skin * (1 - lips) * (face.v > 0.1)
    face.paint(face.hair * 0.9, 0.8 * cover * face.values["beard"])


def _front_hair(face: _Face) -> Tensor:
    """Hair over the forehead and beside the face; returns its share."""
    cropped, bob, long = (face.style(each) for each in (HairStyle.CROPPED, HairStyle.BOB, HairStyle.LONG))
    wide = face.width + 0.10 - 0.065 * cropped + 0.03 * (bob + long)
    top = 0.94 - 0.07 * cropped
    above = torch.sqrt((face.side / wide) ** 2 + ((face.v - 0.05) / top) ** 2)
    line = -0.46 - 0.20 * face.old + 0.07 * bob - 0.05 * long
    aside = ((face.u - 0.06 * face.style(HairStyle.SHORT)) / face.width) ** 2
    fall = (0.02 + 0.05 * (bob + long) - line) * (0.25 * aside + 0.75 * aside**3)
    cap = torch.minimum((1 - above) * wide, line + fall - face.v)
    cap = torch.minimum(cap, 0.06 + 0.05 * (bob + long) - face.v)
    locks = torch.minimum(face.side - (face.width - 0.07), wide - face.side)
    locks = torch.minimum(torch.minimum(locks, 0.62 * bob + 1.0 * long - 0.05 - face.v), face.v + 0.05)
    cover = torch.maximum(face.within(cap), face.within(locks) * (bob + long))
    thinned = float(np.sinc(38 * face.edge / (2 * math.pi)))
    strands = thinned * torch.sin(38 * face.u + 7 * face.v + 30 * face.values["texture"])
    gloss = face.bump(above - 0.75, 0.12) * (face.v < -0.3)
    face.paint(face.hair, cover)
    face.shade(1 + cover * (0.07 * strands + (0.10 + 0.12 * face.values["hair_light"]) * gloss))
    face.person = torch.maximum(face.person, cover)
    return cover


def _glasses(face: _Face) -> None:
    worn = face.values["glasses"]
    across, down = face.mirrored - EYE[0], face.v - EYE[1] - 0.01
    rim = _ellipse(across, down, 0.185, 0.135)
    bridge = face.bump(down + 0.02, 0.016) * (face.mirrored < 0.075)
    arms = face.bump(down + 0.02, 0.016) * ((face.mirrored > 0.43) & (face.side < face.width))
    frame = torch.maximum(torch.maximum(face.bump(rim, 0.018), bridge), arms)
    face.paint(_rgb([0.85, 0.92, 1.0]), 0.10 * face.within(rim) * worn)
    face.paint(_rgb([0.10, 0.09, 0.10]), 0.95 * frame * worn)
    face.person = torch.maximum(face.person, frame * worn)


def _skin(values: Mapping[str, Tensor], ill: Tensor) -> Tensor:
    """Skin tone moves along light and dark; pallor takes the colour out of it at nearly equal lightness."""
    tone = torch.lerp(_rgb(_LIGHT_SKIN), _rgb(_DARK_SKIN), values["skin_tone"][:, None])
    light = (tone * _rgb([0.299, 0.587, 0.114])).sum(1, keepdim=True)
    rosy = (tone - light) * 1.2 + light
    pale = (tone - light) * _rgb([0.05, 0.05, 0.20]) + light * _rgb([1.0, 1.03, 0.98])
    return torch.lerp(rosy, pale, ill[:, None])


def _hair(values: Mapping[str, Tensor], old: Tensor) -> Tensor:
    """Black over brown to blond, greyed by age."""
    place = values["hair_colour"][:, None]
    dark = torch.lerp(_rgb(_BLACK_HAIR), _rgb(_BROWN_HAIR), (2 * place).clamp(max=1))
    born = torch.lerp(dark, _rgb(_BLOND_HAIR), (2 * place - 1).clamp(min=0))
    return torch.lerp(born, _rgb(_GREY_HAIR), (1.15 * old - 0.1).clamp(0, 1)[:, None])


def _rgb(colour: tuple[float, ...] | list[float]) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32)[None, :, None, None]


def _ellipse(across: Tensor, down: Tensor, wide: float, high: float) -> Tensor:
    """About the signed distance to an ellipse, positive inside."""
    return (1 - torch.sqrt((across / wide) ** 2 + (down / high) ** 2)) * min(wide, high)
