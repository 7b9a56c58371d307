"""Residual blocks shared by encoders and generators."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.spatial import channel_norm, convolution, halving_mean


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv(act(norm(conv(act(norm(x)))))), resampled by 2 down, 2 up, or not at all.

    Pre-activation order (He et al. 2016). Down: the first convolution has stride 2. Up: nearest neighbour before it.
    Without `normalised`, norm is the identity. The shortcut of a block that goes down takes every second pixel; with
    `averaged` it takes the mean of 2 along each axis, so that nothing smaller than two pixels is lost.
    """

    def __init__(
        self,
        dimensions: int,
        in_channels: int,
        out_channels: int,
        *,
        down: bool = False,
        up: bool = False,
        normalised: bool = True,
        averaged: bool = False,
    ):
        super().__init__()
        stride = 2 if down else 1
        self.resize = nn.Upsample(scale_factor=2, mode="nearest") if up else nn.Identity()
        self.body = nn.Sequential(
            channel_norm(in_channels) if normalised else nn.Identity(),
            nn.SiLU(),
            convolution(dimensions, in_channels, out_channels, stride=stride),
            channel_norm(out_channels) if normalised else nn.Identity(),
            nn.SiLU(),
            convolution(dimensions, out_channels, out_channels),
        )
        shortcut: list[nn.Module] = []
        if down and averaged:
            shortcut.append(halving_mean(dimensions))
        if in_channels != out_channels or (down and not averaged):
            kept = 1 if averaged else stride
            shortcut.append(convolution(dimensions, in_channels, out_channels, kernel=1, stride=kept))
        self.shortcut = shortcut[0] if len(shortcut) == 1 else nn.Sequential(*shortcut)

    def forward(self, x: Float[Tensor, "instance channel *space"]) -> Float[Tensor, "instance out *smaller"]:
        """The block's output."""
        x = self.resize(x)
        return self.shortcut(x) + self.body(x)
