"""Changed bands of frequencies, noise and cut-outs: changes that no map of places or colours can make."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import conv2d, pad

from survlens.generators.stylegan2.wavelets import octave_bands

USUAL_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Shares of the four bands in the power of a natural picture, from the lowest band on (Karras et al. 2020)."""


def balanced_gains(factors: Float64[Tensor, "instance band"]) -> Float64[Tensor, "instance band"]:
    """Gains of the four bands, one band after another changed by its factor and the power then put back.

        g <- g * t / sqrt(sum over bands j of share_j t_j^2),   t = 1 but for t_i = factor_i

    Args:
        factors: Factor of each band; 1 leaves it.
    """
    shares = torch.tensor(USUAL_POWER, dtype=torch.float64)
    gains = torch.ones_like(factors)
    for band in range(factors.shape[1]):
        changed = torch.ones_like(factors)
        changed[:, band] = factors[:, band]
        gains = gains * changed / (changed.square() @ shares).sqrt()[:, None]
    return gains


def refilter(
    pictures: Float[Tensor, "instance channel height width"], gains: Float64[Tensor, "instance band"]
) -> Float[Tensor, "instance channel height width"]:
    """Pictures whose four bands of frequencies are multiplied by `gains`, along both axes.

    Args:
        pictures: Pictures whose sides exceed 21 pixels, or are mirrored as often as needed.
        gains: Gain of each band of each picture, on the CPU.
    """
    if bool((gains == 1).all()):
        return pictures
    taps = (gains @ octave_bands()).to(pictures.device, pictures.dtype)
    taps = taps.repeat_interleave(pictures.shape[1], 0)
    reach = taps.shape[1] // 2
    wide = _mirrored(pictures, reach).flatten(0, 1)[None]
    wide = conv2d(wide, taps[:, None, None, :], groups=len(taps))
    return conv2d(wide, taps[:, None, :, None], groups=len(taps)).view_as(pictures)


def cut_out(
    pictures: Float[Tensor, "instance channel height width"],
    centre: Float64[Tensor, "instance 2"],
    side: Float64[Tensor, " instance"],
) -> Float[Tensor, "instance channel height width"]:
    """Pictures with a square set to middle grey.

    Args:
        pictures: Pictures in [-1, 1].
        centre: Centres (x, y) of the squares as shares of the width and height, on the CPU.
        side: Sides of the squares as shares; 0 for none.
    """
    if bool((side == 0).all()):
        return pictures
    inside = [
        ((torch.arange(size) + 0.5) / size - centre[:, axis : axis + 1]).abs() < side[:, None] / 2
        for axis, size in ((0, pictures.shape[3]), (1, pictures.shape[2]))
    ]
    hole = inside[1][:, None, :, None] & inside[0][:, None, None, :]
    return pictures.masked_fill(hole.to(pictures.device), 0.0)


def _mirrored(pictures: Tensor, reach: int) -> Tensor:
    """Reflected on all sides, as often as it takes."""
    while reach:
        step = min(reach, pictures.shape[-1] - 1, pictures.shape[-2] - 1)
        pictures, reach = pad(pictures, (step,) * 4, mode="reflect"), reach - step
    return pictures
