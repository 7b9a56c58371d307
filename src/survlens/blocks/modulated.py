"""Equalised layers and the modulated convolution of StyleGAN2 (Karras et al. 2020)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.resampling import doubling_convolution

SLOPE = 0.2
"""Slope of the leaky rectifier below 0."""

GAIN = math.sqrt(2)
"""Factor after the leaky rectifier, which keeps the variance."""


class EqualisedLinear(nn.Module):
    """A fully connected layer whose weights are stored at unit variance and scaled as they are used.

    y = (rate / sqrt(in_features)) W x + rate * b, with W ~ N(0, 1) / rate; where `active`, sqrt(2) * lrelu(y).

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        generator: Source of the start weights.
        rate: Learning rate relative to that of the optimiser, > 0.
        bias: Start value of the bias.
        active: Whether the leaky rectifier follows.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        generator: torch.Generator,
        rate: float = 1.0,
        bias: float = 0.0,
        active: bool = False,
    ):
        super().__init__()
        self.rate, self.active = rate, active
        self.weight = nn.Parameter(torch.randn(out_features, in_features, generator=generator) / rate)
        self.bias = nn.Parameter(torch.full((out_features,), bias))
        self._gain = rate / math.sqrt(in_features)

    def forward(self, x: Float[Tensor, "instance in_features"]) -> Float[Tensor, "instance out_features"]:
        """The scaled map of each instance."""
        # The rectifier commutes with positive factors: its gain is spent on the small tensors, not on the result.
        gain = GAIN if self.active else 1.0
        y = F.linear(x * (self._gain * gain), self.weight, self.bias * (self.rate * gain))
        return F.leaky_relu(y, SLOPE) if self.active else y


def modulated_convolution(
    x: Float[Tensor, "instance channel height width"],
    weight: Float[Tensor, "out channel row column"],
    style: Float[Tensor, "instance channel"],
    offset: Float[Tensor, "..."],
    *,
    gain: float = 1.0,
    demodulate: bool = True,
    doubling: Float[Tensor, "4 4"] | None = None,
) -> Float[Tensor, "instance out height_2 width_2"]:
    """A convolution whose input channels are scaled per instance: gain * d * conv(s * x, W) + offset.

    The weights of an instance are w'_oik = s_i W_oik, and d_o = 1 / sqrt(sum_ik w'_oik^2 + 1e-8) makes the output
    channels of unit variance again; without demodulation d = 1. Scaling the input and the output costs less than one
    kernel per instance, and is the same.

    Args:
        x: Feature maps.
        weight: W, shared by all instances.
        style: s, one factor per instance and input channel.
        offset: Added at the end; broadcast.
        gain: Positive factor on the convolution.
        demodulate: Whether d is applied.
        doubling: Smoothing filter; where it is given, the convolution doubles height and width.

    References:
        Karras et al. 2020 (StyleGAN2), equations 1 to 3.
    """
    scaled = x * style[:, :, None, None]
    if doubling is None:
        y = F.conv2d(scaled, weight, padding=weight.shape[-1] // 2)
    else:
        y = doubling_convolution(scaled, weight, doubling)
    if not demodulate:
        return y * gain + offset if gain != 1.0 else y + offset
    return torch.addcmul(offset, y, gain * demodulation(weight, style)[:, :, None, None])


def demodulation(
    weight: Float[Tensor, "out channel row column"], style: Float[Tensor, "instance channel"]
) -> Float[Tensor, "instance out"]:
    """1 / sqrt(sum over channels and pixels of (s W)^2 + 1e-8), in full precision also under autocast."""
    with torch.autocast(style.device.type, enabled=False):
        wide = torch.promote_types(style.dtype, weight.dtype)
        power = style.to(wide).square() @ weight.to(wide).square().sum(dim=(2, 3)).T
        return (power + 1e-8).rsqrt()


def activation(
    x: Float[Tensor, "instance channel height width"], limit: float | None
) -> Float[Tensor, "instance channel height width"]:
    """The leaky rectifier, without its gain, then limited to [-limit, limit]; overwrites `x`."""
    y = F.leaky_relu_(x, SLOPE)
    return y if limit is None else y.clamp(-limit, limit)
