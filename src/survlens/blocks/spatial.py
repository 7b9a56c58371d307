"""Layers by the number of spatial dimensions, so that one network serves images and volumes."""

from __future__ import annotations

from torch import nn

from survlens.core.errors import InvalidValueError

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


def convolution(
    dimensions: int, in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, bias: bool = True
) -> nn.Module:
    """A convolution over `dimensions` axes with the padding that keeps the size at stride 1."""
    if dimensions not in _CONVOLUTION:
        raise InvalidValueError(f"`dimensions` must be 2 (images) or 3 (volumes); got {dimensions}.")
    return _CONVOLUTION[dimensions](in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)


def channel_norm(channels: int, *, groups: int = 8) -> nn.GroupNorm:
    """Group normalisation, which treats every instance by itself: batches of one volume work as batches of many."""
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def global_mean(dimensions: int) -> nn.Module:
    """Mean over all spatial axes."""
    return nn.AdaptiveAvgPool2d(1) if dimensions == 2 else nn.AdaptiveAvgPool3d(1)


def halving_mean(dimensions: int) -> nn.Module:
    """Mean over blocks of 2 along every axis; of an odd side the last block is 1 wide."""
    return nn.AvgPool2d(2, ceil_mode=True) if dimensions == 2 else nn.AvgPool3d(2, ceil_mode=True)
