"""The discriminator of StyleGAN2."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.modulated import GAIN, EqualisedLinear, activation
from survlens.blocks.resampling import halved, halving_convolution, smoothing_filter
from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2.shape import StyleGAN2Shape

_BRANCH = math.sqrt(0.5)


class EqualisedConvolution(nn.Module):
    """A convolution whose weights are stored at unit variance, with the leaky rectifier, or halving and without it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        kernel: Side of the kernel, 1 or 3.
        generator: Source of the start weights.
        halving: Whether height and width are halved.
        active: Whether a bias and the leaky rectifier follow.
        limit: Largest absolute value of the result before `gain`; None for no limit.
        gain: Positive factor on the result.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        generator: torch.Generator,
        halving: bool = False,
        active: bool = True,
        limit: float | None = None,
        gain: float = 1.0,
    ):
        super().__init__()
        self.halving, self.limit = halving, None if limit is None else limit * gain
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel, generator=generator))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if active else None
        self.register_buffer("resample_filter", smoothing_filter())
        self._gain = gain * GAIN if active else gain
        self._scale = self._gain / math.sqrt(in_channels * kernel**2)

    def forward(self, x: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance out high wide"]:
        """The next feature maps."""
        weight = self.weight * self._scale
        if not self.halving:
            y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        elif weight.shape[-1] == 1:
            y = F.conv2d(halved(x, self.resample_filter), weight)
        else:
            y = halving_convolution(x, weight, self.resample_filter)
        if self.bias is None:
            return y
        return activation(y + (self.bias * self._gain)[:, None, None], self.limit)


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a short cut, to half the side; the first block starts from the picture.

    Args:
        shape: Sizes of the network.
        side: Side of the input.
        generator: Source of the start weights.
    """

    resample_filter: Tensor

    def __init__(self, shape: StyleGAN2Shape, side: int, *, generator: torch.Generator):
        super().__init__()
        before, after, limit = shape.channels(side), shape.channels(side // 2), shape.conv_clamp
        if side == shape.resolution:
            self.fromrgb = EqualisedConvolution(shape.image_channels, before, 1, generator=generator, limit=limit)
        self.conv0 = EqualisedConvolution(before, before, 3, generator=generator, limit=limit)
        self.conv1 = EqualisedConvolution(
            before, after, 3, generator=generator, halving=True, limit=limit, gain=_BRANCH
        )
        self.skip = EqualisedConvolution(
            before, after, 1, generator=generator, halving=True, active=False, gain=_BRANCH
        )
        self.register_buffer("resample_filter", smoothing_filter())
        self.first = side == shape.resolution

    def forward(self, x: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance out high wide"]:
        """Feature maps of half the side, from a picture (first block) or feature maps."""
        if self.first:
            x = self.fromrgb(x)
        return self.skip(x) + self.conv1(self.conv0(x))


class DiscriminatorEnd(nn.Module):
    """How much the pictures of a group differ, as one more feature map; then a convolution and two linear layers.

    Args:
        shape: Sizes of the network.
        generator: Source of the start weights.
    """

    def __init__(self, shape: StyleGAN2Shape, *, generator: torch.Generator):
        super().__init__()
        channels, side = shape.channels(4), 4
        self.group = shape.minibatch_group
        self.conv = EqualisedConvolution(channels + 1, channels, 3, generator=generator, limit=shape.conv_clamp)
        self.fc = EqualisedLinear(channels * side**2, channels, generator=generator, active=True)
        self.out = EqualisedLinear(channels, 1, generator=generator)

    def forward(self, x: Float[Tensor, "instance channel 4 4"]) -> Float[Tensor, " instance"]:
        """One logit per instance."""
        x = torch.cat([x, minibatch_deviation(x, self.group)], dim=1)
        return self.out(self.fc(self.conv(x).flatten(1)))[:, 0]


class Discriminator(nn.Module):
    """Pictures to logits, high for real ones (Karras et al. 2020).

    Parameters and buffers have the names of the published checkpoints, so that these load strictly.

    Args:
        shape: Sizes of the network.
        seed: Seed of the start weights.

    References:
        Karras et al. 2020 (StyleGAN2).
    """

    def __init__(self, shape: StyleGAN2Shape, *, seed: int):
        super().__init__()
        self.shape = shape
        source = torch.Generator().manual_seed(seed)
        self.sides = tuple(reversed(shape.sides[1:]))
        for side in self.sides:
            self.add_module(f"b{side}", DiscriminatorBlock(shape, side, generator=source))
        self.b4 = DiscriminatorEnd(shape, generator=source)

    def features(
        self, pictures: Float[Tensor, "instance channel height width"]
    ) -> tuple[Float[Tensor, "instance _ _ _"], ...]:
        """Feature maps after each block, from fine to coarse; those of a picture do not depend on the others.

        Args:
            pictures: Pictures in [-1, 1].

        Raises:
            InvalidValueError: If the pictures have another size or number of channels.
        """
        size = (self.shape.image_channels, self.shape.resolution, self.shape.resolution)
        if tuple(pictures.shape[1:]) != size:
            raise InvalidValueError(f"`pictures` must be of size {size}; got {tuple(pictures.shape[1:])}.")
        maps, x = [], pictures
        for side in self.sides:
            x = cast(DiscriminatorBlock, self.get_submodule(f"b{side}"))(x)
            maps.append(x)
        return tuple(maps)

    def forward(self, pictures: Float[Tensor, "instance channel height width"]) -> Float[Tensor, " instance"]:
        """One logit per picture in [-1, 1]; it depends on the other pictures of its group.

        Raises:
            InvalidValueError: If the pictures have another size, or their number is no multiple of the group's.
        """
        return self.b4(self.features(pictures)[-1])


def minibatch_deviation(
    x: Float[Tensor, "instance channel height width"], group: int
) -> Float[Tensor, "instance 1 height width"]:
    """Mean over channels and pixels of the standard deviation within a group, as a map for each of its members.

    N instances form N / g groups of g = min(`group`, N): i, i + N / g, i + 2 N / g, ...

    Raises:
        InvalidValueError: If N is no multiple of g.
    """
    instances = len(x)
    size = min(group, instances)
    if instances % size:
        raise InvalidValueError(
            f"`x` must hold a multiple of {size} instances, the size of a group; got {instances}. "
            "Leave out the last ones or fill the batch."
        )
    groups = x.unflatten(0, (size, -1))
    # Written out, because `var` over the first axis takes twenty times as long on the CPU.
    deviation = ((groups - groups.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt()
    per_group = deviation.mean(dim=(1, 2, 3))
    return per_group.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
