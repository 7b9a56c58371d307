"""Orthogonal low-pass filters, and what is built from them: doubling, halving, and four bands of frequencies.

A filter h of length 2m is orthogonal where sum_k h_k h_{k-2j} is 1 for j = 0 and 0 otherwise. Doubling with h followed
by halving with h is then the identity, exactly, whatever the picture.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float64
from torch import Tensor

SYMLET_6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""Nearly symmetric filter of 12 taps with 6 vanishing moments (Daubechies 1993): it keeps polynomials of degree 5."""

SYMLET_2 = tuple(
    (number + sign * math.sqrt(3)) / (4 * math.sqrt(2)) for number, sign in ((1, 1), (3, 1), (3, -1), (1, -1))
)
"""Filter of 4 taps with 2 vanishing moments (Daubechies 1993)."""


def centre(taps: tuple[float, ...] = SYMLET_6) -> float:
    """Where pixel 0 lies on the doubled axis: sum_k k h_k / sum_k h_k."""
    return sum(place * tap for place, tap in enumerate(taps)) / sum(taps)


@cache
def doubling_matrix(pixels: int) -> Float64[Tensor, "fine pixel"]:
    """Doubles an axis that goes on as its mirror image for ever; one period of the result, its first value again last.

    Pixel i comes to lie at 2 i + `centre()`, modulo 4 (pixels - 1).

    Args:
        pixels: Length of the axis, at least 2.
    """
    period = 2 * (pixels - 1)
    matrix = torch.zeros(2 * period + 1, pixels, dtype=torch.float64)
    for row in range(2 * period + 1):
        for place in range(row % 2, len(SYMLET_6), 2):
            mirrored = ((row - place) // 2) % period
            matrix[row, min(mirrored, period - mirrored)] += math.sqrt(2) * SYMLET_6[place]
    return matrix


@cache
def halving_matrix(pixels: int) -> Float64[Tensor, "pixel fine"]:
    """Halves an axis of 2 `pixels` + 10 values, of which value k lies at pixel (k - `centre()`) / 2."""
    matrix = torch.zeros(pixels, 2 * pixels + len(SYMLET_6) - 2, dtype=torch.float64)
    for row in range(pixels):
        matrix[row, 2 * row : 2 * row + len(SYMLET_6)] = torch.tensor(SYMLET_6, dtype=torch.float64) / math.sqrt(2)
    return matrix


@cache
def octave_bands() -> Float64[Tensor, "band place"]:
    """Four symmetric filters for [0, pi/8], [pi/8, pi/4], [pi/4, pi/2] and [pi/2, pi], which add up to the identity.

    With a the half-band filter |H|^2 / 2 of `SYMLET_2`, and a_j the same with 2^j - 1 zeros between its values, the low
    passes l_0 = identity, l_1 = a, l_2 = a * a_1, l_3 = a * a_1 * a_2 differ by one octave each.
    """
    taps = torch.tensor(SYMLET_2, dtype=torch.float64)
    half_band = _convolve(taps, taps.flip(0)) / 2
    low = [torch.ones(1, dtype=torch.float64)]
    for octave in range(3):
        spread = torch.zeros((len(half_band) - 1) * 2**octave + 1, dtype=torch.float64)
        spread[:: 2**octave] = half_band
        low.append(_convolve(low[-1], spread))
    length = len(low[-1])
    low = [torch.nn.functional.pad(taps, ((length - len(taps)) // 2,) * 2) for taps in low]
    return torch.stack([low[3], low[2] - low[3], low[1] - low[2], low[0] - low[1]])


def _convolve(left: Tensor, right: Tensor) -> Tensor:
    return torch.nn.functional.conv1d(left[None, None], right.flip(0)[None, None], padding=len(right) - 1)[0, 0]
