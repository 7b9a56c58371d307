"""Flips, turns, shifts and stretches of pictures as one affine map each, differentiable as often as needed.

Coordinates are (x, y) in pixels from the centre of the picture, x to the right and y down. A matrix takes a place in
the changed picture to the place in the original that it shows. Beyond its border a picture goes on as its mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import grid_sample

from survlens.generators.stylegan2.wavelets import centre, doubling_matrix, halving_matrix

Matrices = Float64[Tensor, "instance 3 3"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the pixels of changed pictures come from.

    Attributes:
        matrix: From a place in the changed picture to one in the original.
        on_pixels: Whether that takes pixels to pixels, so that nothing has to be interpolated.
    """

    matrix: Matrices
    on_pixels: Bool[Tensor, " instance"]


def identity(instances: int) -> Matrices:
    """Pictures as they are."""
    return torch.eye(3, dtype=torch.float64).repeat(instances, 1, 1)


def scaling(x: Float64[Tensor, " instance"], y: Float64[Tensor, " instance"]) -> Matrices:
    """Pictures made `x` times as wide and `y` times as high; -1 mirrors them."""
    matrix = identity(len(x))
    matrix[:, 0, 0], matrix[:, 1, 1] = 1 / x, 1 / y
    return matrix


def rotation(angle: Float64[Tensor, " instance"]) -> Matrices:
    """Pictures turned clockwise by `angle` in radians."""
    return _turned(angle.cos(), angle.sin())


def quarter_turns(count: Float64[Tensor, " instance"]) -> Matrices:
    """Pictures turned clockwise by whole quarters, exactly."""
    cosine = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    quarter = count.long() % 4
    return _turned(cosine[quarter], cosine[(quarter - 1) % 4])


def shift(x: Float64[Tensor, " instance"], y: Float64[Tensor, " instance"]) -> Matrices:
    """Pictures moved by `x` pixels to the right and `y` pixels down."""
    matrix = identity(len(x))
    matrix[:, 0, 2], matrix[:, 1, 2] = -x, -y
    return matrix


def _turned(cosine: Tensor, sine: Tensor) -> Tensor:
    matrix = identity(len(cosine))
    matrix[:, 0, 0], matrix[:, 0, 1] = cosine, sine
    matrix[:, 1, 0], matrix[:, 1, 1] = -sine, cosine
    return matrix


def place(
    pictures: Float[Tensor, "instance channel size size"], placement: Placement
) -> Float[Tensor, "instance channel size size"]:
    """Pictures after their affine maps.

    Where pixels fall on pixels they are only moved. Elsewhere the picture is doubled by an orthogonal filter, read at
    the places that the map says, linearly between four values, and halved by the same filter.

    Args:
        pictures: Square pictures.
        placement: Their maps, on the CPU.
    """
    unchanged = (placement.matrix == torch.eye(3, dtype=torch.float64)).all(2).all(1)
    groups = (
        (unchanged, lambda part, matrix: part),
        (placement.on_pixels & ~unchanged, _move),
        (~placement.on_pixels & ~unchanged, _warp),
    )
    rows = [mask.nonzero()[:, 0] for mask, _ in groups]
    if len(rows[0]) == len(pictures):
        return pictures
    parts = [
        change(pictures.index_select(0, chosen.to(pictures.device)), placement.matrix[chosen])
        for chosen, (_, change) in zip(rows, groups, strict=True)
        if len(chosen)
    ]
    order = torch.cat(rows).argsort()
    return torch.cat(parts).index_select(0, order.to(pictures.device))


def _move(pictures: Tensor, matrix: Tensor) -> Tensor:
    """Pixels of the original at whole places; all numbers are exact."""
    size = pictures.shape[-1]
    middle, period = (size - 1) / 2, 2 * (size - 1)
    axis = torch.arange(size, dtype=torch.float64) - middle
    places = _sources(matrix, axis) + middle
    mirrored = places.round().long() % period
    index = torch.minimum(mirrored, period - mirrored)
    flat = (index[..., 1] * size + index[..., 0]).flatten(1).to(pictures.device)
    return pictures.flatten(2).gather(2, flat[:, None].expand(-1, pictures.shape[1], -1)).view_as(pictures)


def _warp(pictures: Tensor, matrix: Tensor) -> Tensor:
    size, device = pictures.shape[-1], pictures.device
    middle, period = (size - 1) / 2, 4 * (size - 1)
    up, down = (build(size).to(device, torch.float32) for build in (doubling_matrix, halving_matrix))
    axis = ((torch.arange(down.shape[1], dtype=torch.float64) - centre()) / 2 - middle).to(device, torch.float32)
    # On the doubled axis a place x is 2 (x + middle) + centre, of which -1 to 1 is one period.
    to_grid = matrix[:, :2] * (4 / period)
    to_grid[:, :, 2] += (2 * middle + centre()) * 2 / period - 1
    grid = _sources(to_grid.to(device, torch.float32), axis)
    grid = torch.addcmul(grid, (grid / 2).round_(), grid.new_tensor(-2.0))
    return down @ sample(up @ pictures @ up.T, grid) @ down.T


def _sources(matrix: Tensor, axis: Tensor) -> Tensor:
    """Places (instance, row, column, 2) that the matrices give for all pairs of values of an axis."""
    along_x = axis[None, :, None] * matrix[:, None, :2, 0]
    along_y = axis[None, :, None] * matrix[:, None, :2, 1] + matrix[:, None, :2, 2]
    return along_x[:, None] + along_y[:, :, None]


def sample(
    pictures: Float[Tensor, "instance channel height width"], grid: Float[Tensor, "instance row column 2"]
) -> Float[Tensor, "instance channel row column"]:
    """Values at places, linear between four pixels, with derivatives of any order with respect to the pictures.

    Reading values is linear in the picture, its derivative spreads values, and the derivative of spreading is reading.
    `torch.nn.functional.grid_sample` has the first derivative only, which a penalty on gradients cannot do with. The
    grid gets no gradient.

    Args:
        pictures: What is read.
        grid: Places (x, y), where -1 is the centre of the first and 1 that of the last pixel.
    """
    return _Read.apply(pictures, grid)  # type: ignore[return-value]


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pictures: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = pictures.shape[-2:]
        return grid_sample(pictures, grid, padding_mode="border", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Spread.apply(gradients[0], ctx.saved_tensors[0], ctx.size), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(grid)
        shape = values.new_zeros(()).expand(*values.shape[:2], *size)  # only its shape is asked for
        bilinear, border = 0, 1
        spread, _ = torch.ops.aten.grid_sampler_2d_backward(
            values.contiguous(), shape, grid, bilinear, border, True, [True, False]
        )
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Read.apply(gradients[0], ctx.saved_tensors[0]), None, None
