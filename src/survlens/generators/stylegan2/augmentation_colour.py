"""Changes of colour as one 4 x 4 matrix per picture, on colours in [-1, 1] with a 1 behind them.

The grey axis is (1, 1, 1) / sqrt(3): luma is the length along it, hue the angle around it, saturation the distance.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Matrices = Float64[Tensor, "instance 4 4"]

_GREY = torch.full((3, 1), 1 / math.sqrt(3), dtype=torch.float64)
_ALONG = _GREY @ _GREY.T
_ACROSS = torch.eye(3, dtype=torch.float64) - _ALONG
_CROSS = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], dtype=torch.float64) / math.sqrt(3)


def identity(instances: int) -> Matrices:
    """Colours as they are."""
    return torch.eye(4, dtype=torch.float64).repeat(instances, 1, 1)


def brightness(offset: Float64[Tensor, " instance"]) -> Matrices:
    """Adds `offset` to every channel."""
    matrix = identity(len(offset))
    matrix[:, :3, 3] = offset[:, None]
    return matrix


def contrast(factor: Float64[Tensor, " instance"]) -> Matrices:
    """Multiplies every channel by `factor`; middle grey stays."""
    return _linear(factor[:, None, None] * torch.eye(3, dtype=torch.float64))


def luma_flip(flipped: Float64[Tensor, " instance"]) -> Matrices:
    """Mirrors the luma where `flipped` is 1: dark becomes light, while hue and saturation stay."""
    return _linear(_ACROSS + (1 - 2 * flipped)[:, None, None] * _ALONG)


def hue(angle: Float64[Tensor, " instance"]) -> Matrices:
    """Turns colours around the grey axis by `angle` in radians; at 2 pi / 3 red becomes green."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return _linear(_ALONG + cosine * _ACROSS + sine * _CROSS)


def saturation(factor: Float64[Tensor, " instance"]) -> Matrices:
    """Multiplies the distance from the grey axis by `factor`."""
    return _linear(_ALONG + factor[:, None, None] * _ACROSS)


def recolour(
    pictures: Float[Tensor, "instance channel height width"], matrix: Matrices
) -> Float[Tensor, "instance channel height width"]:
    """Pictures after their colour matrices; of a picture with one channel, all three colours are that channel.

    Args:
        pictures: Pictures of one channel or three, in [-1, 1] or beyond.
        matrix: The matrices, on the CPU.
    """
    if bool((matrix == torch.eye(4, dtype=torch.float64)).all()):
        return pictures
    linear, offset = matrix[:, :3, :3], matrix[:, :3, 3:]
    if pictures.shape[1] == 1:  # grey in, and the mean of the three colours out
        linear, offset = linear.sum(2, keepdim=True).mean(1, keepdim=True), offset.mean(1, keepdim=True)
    linear, offset = (part.to(pictures.device, pictures.dtype) for part in (linear, offset))
    return torch.baddbmm(offset, linear, pictures.flatten(2)).view_as(pictures)


def _linear(matrix: Tensor) -> Tensor:
    whole = identity(len(matrix))
    whole[:, :3, :3] = matrix
    return whole
