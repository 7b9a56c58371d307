"""How far the colours of generated pictures have drifted from those of photographs.

Pale or yellow skin is what survival is read from, so a generator whose colours drift cannot be believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d

_SIDE = 32
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = tuple(sum(row) for row in _TO_XYZ)


@dataclass(frozen=True, slots=True)
class ColourDrift:
    """Difference of the mean colours of two sets of pictures, in CIE Lab.

    Attributes:
        lightness: Difference of L*: above 0 where the generated pictures are lighter.
        redness: Difference of a*: below 0 where they are less red, hence paler.
        yellowness: Difference of b*.
        chance: Distance to be expected of two sets of that size whose colours are alike.
    """

    lightness: float
    redness: float
    yellowness: float
    chance: float

    @property
    def distance(self) -> float:
        """Length of the difference; about 2.3 is just noticeable."""
        return (self.lightness**2 + self.redness**2 + self.yellowness**2) ** 0.5


def lab(colours: Float[Tensor, "instance 3 height width"]) -> Float64[Tensor, "instance 3 height width"]:
    """CIE Lab (white of daylight D65) of sRGB colours in [0, 1].

    Args:
        colours: Pictures in [0, 1].

    References:
        IEC 61966-2-1; CIE 15.
    """
    values = colours.double()
    linear = torch.where(values <= 0.04045, values / 12.92, ((values.clamp_min(0) + 0.055) / 1.055) ** 2.4)
    matrix = values.new_tensor(_TO_XYZ) / values.new_tensor(_WHITE)[:, None]
    x, y, z = torch.einsum("ij,njhw->inhw", matrix, linear)
    edge = 6 / 29
    x, y, z = (torch.where(t > edge**3, t.clamp_min(1e-12) ** (1 / 3), t / (3 * edge**2) + 4 / 29) for t in (x, y, z))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def mean_lab(pictures: Float[Tensor, "instance channel height width"]) -> Float64[Tensor, "instance 3"]:
    """Mean Lab colour of each picture, shrunk to about 32 pixels before.

    Args:
        pictures: Pictures in [0, 1], of three channels or one, which then is grey.
    """
    small = avg_pool2d(pictures, max(pictures.shape[-1] // _SIDE, 1))
    return lab(small.expand(-1, 3, -1, -1)).mean((2, 3))


def colour_drift(generated: Float64[Tensor, "instance 3"], photographs: Float64[Tensor, "instance_2 3"]) -> ColourDrift:
    """Drift of the mean colours of generated pictures from those of photographs, both from `mean_lab`.

    Args:
        generated: Mean Lab colour of each generated picture.
        photographs: Mean Lab colour of each photograph.
    """
    lightness, redness, yellowness = (generated.mean(0) - photographs.mean(0)).tolist()
    spread = sum(float(colours.var(0, correction=0).sum()) / len(colours) for colours in (generated, photographs))
    return ColourDrift(lightness, redness, yellowness, spread**0.5)
