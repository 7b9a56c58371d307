"""Halving and doubling of feature maps by one smooth filter, alone or together with a 3x3 convolution.

Everything is an ordinary (transposed) convolution, so derivatives of any order exist on every device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def smoothing_filter() -> Float[Tensor, "row column"]:
    """The filter of StyleGAN2: the outer product of (1, 3, 3, 1) with itself, over 64, so that it sums to 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def doubled(
    x: Float[Tensor, "instance channel height width"], kernel: Float[Tensor, "row column"]
) -> Float[Tensor, "instance channel height_2 width_2"]:
    """Twice the height and width: zeros put between the values, then smoothed by 4 times `kernel` (4x4)."""
    return F.conv_transpose2d(x, _depthwise(4 * kernel, x), stride=2, padding=1, groups=x.shape[1])


def halved(
    x: Float[Tensor, "instance channel height width"], kernel: Float[Tensor, "row column"]
) -> Float[Tensor, "instance channel height_2 width_2"]:
    """Half the height and width: smoothed by `kernel` (4x4), then every second value kept."""
    return F.conv2d(x, _depthwise(kernel, x), stride=2, padding=1, groups=x.shape[1])


def doubling_convolution(
    x: Float[Tensor, "instance channel height width"],
    weight: Float[Tensor, "out channel 3 3"],
    kernel: Float[Tensor, "row column"],
) -> Float[Tensor, "instance out height_2 width_2"]:
    """A transposed 3x3 convolution of stride 2, then smoothed by 4 times `kernel`: twice the height and width."""
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return F.conv2d(y, _depthwise(4 * kernel, y), padding=1, groups=y.shape[1])


def halving_convolution(
    x: Float[Tensor, "instance channel height width"],
    weight: Float[Tensor, "out channel 3 3"],
    kernel: Float[Tensor, "row column"],
) -> Float[Tensor, "instance out height_2 width_2"]:
    """Smoothed by `kernel`, then a 3x3 convolution of stride 2: half the height and width."""
    y = F.conv2d(x, _depthwise(kernel, x), padding=2, groups=x.shape[1])
    return F.conv2d(y, weight, stride=2)


def _depthwise(kernel: Tensor, like: Tensor) -> Tensor:
    return kernel.expand(like.shape[1], 1, *kernel.shape)
