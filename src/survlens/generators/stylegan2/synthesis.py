"""From w to a picture: the synthesis network of StyleGAN2."""

from __future__ import annotations

import math
from enum import Enum
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.modulated import GAIN, EqualisedLinear, activation, modulated_convolution
from survlens.blocks.resampling import doubled, smoothing_filter
from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2.shape import StyleGAN2Shape


class NoiseKind(Enum):
    """What is added to the feature maps, times a learned strength per layer.

    CONSTANT: the stored noise, the same in every picture. RANDOM: a new draw per picture. NONE: nothing.
    """

    CONSTANT = "constant"
    RANDOM = "random"
    NONE = "none"


class StyleConvolution(nn.Module):
    """A modulated 3x3 convolution, noise, bias and the leaky rectifier.

    Args:
        shape: Sizes of the network.
        in_channels: Channels of the input.
        side: Side of the result.
        doubling: Whether the input has half that side.
        generator: Source of the start weights.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, shape: StyleGAN2Shape, in_channels: int, side: int, *, doubling: bool, generator: torch.Generator
    ):
        super().__init__()
        channels = shape.channels(side)
        self.doubling, self.limit = doubling, shape.conv_clamp
        self.affine = EqualisedLinear(shape.width, in_channels, generator=generator, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, 3, 3, generator=generator))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(side, side, generator=generator))
        self.register_buffer("resample_filter", smoothing_filter())

    def forward(
        self,
        x: Float[Tensor, "instance channel height width"],
        w: Float[Tensor, "instance latent"],
        *,
        noise: NoiseKind = NoiseKind.CONSTANT,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "instance out side side"]:
        """The next feature maps."""
        # The rectifier commutes with positive factors, so its gain goes into the convolution, the noise and the bias.
        offset = GAIN * self.bias[:, None, None]
        if noise is not NoiseKind.NONE:
            offset = offset + (GAIN * self.noise_strength) * self._noise(len(x), noise, generator)
        kernel = self.resample_filter if self.doubling else None
        y = modulated_convolution(x, self.weight, self.affine(w), offset, gain=GAIN, doubling=kernel)
        return activation(y, self.limit)

    def _noise(self, instances: int, kind: NoiseKind, generator: torch.Generator | None) -> Tensor:
        if kind is NoiseKind.CONSTANT:
            return self.noise_const
        fixed = self.noise_const
        device = fixed.device if generator is None else generator.device
        draw = torch.randn(instances, 1, *fixed.shape, generator=generator, dtype=fixed.dtype, device=device)
        return draw.to(fixed.device)


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to the channels of a picture, without demodulation.

    Args:
        shape: Sizes of the network.
        side: Side of the feature maps.
        generator: Source of the start weights.
    """

    def __init__(self, shape: StyleGAN2Shape, side: int, *, generator: torch.Generator):
        super().__init__()
        channels = shape.channels(side)
        self.limit = shape.conv_clamp
        self.affine = EqualisedLinear(shape.width, channels, generator=generator, bias=1.0)
        self.weight = nn.Parameter(torch.randn(shape.image_channels, channels, 1, 1, generator=generator))
        self.bias = nn.Parameter(torch.zeros(shape.image_channels))
        self._gain = 1 / math.sqrt(channels)

    def forward(
        self, x: Float[Tensor, "instance channel height width"], w: Float[Tensor, "instance latent"]
    ) -> Float[Tensor, "instance colour height width"]:
        """What the block adds to the picture."""
        style = self.affine(w) * self._gain
        y = modulated_convolution(x, self.weight, style, self.bias[:, None, None], demodulate=False)
        return y if self.limit is None else y.clamp(-self.limit, self.limit)


class SynthesisBlock(nn.Module):
    """The layers of one side: a constant (side 4) or a doubling convolution, a convolution, and the picture.

    Args:
        shape: Sizes of the network.
        side: Side of its feature maps.
        generator: Source of the start weights.
    """

    resample_filter: Tensor

    def __init__(self, shape: StyleGAN2Shape, side: int, *, generator: torch.Generator):
        super().__init__()
        channels = shape.channels(side)
        self.first = side == shape.sides[0]
        if self.first:
            self.const = nn.Parameter(torch.randn(channels, side, side, generator=generator))
        else:
            before = shape.channels(side // 2)
            self.conv0 = StyleConvolution(shape, before, side, doubling=True, generator=generator)
        self.conv1 = StyleConvolution(shape, channels, side, doubling=False, generator=generator)
        self.torgb = ToRGB(shape, side, generator=generator)
        self.register_buffer("resample_filter", smoothing_filter())

    def forward(
        self,
        x: Float[Tensor, "instance channel height width"] | None,
        picture: Float[Tensor, "instance colour height width"] | None,
        ws: Float[Tensor, "instance slot latent"],
        *,
        noise: NoiseKind,
        generator: torch.Generator | None,
    ) -> tuple[Float[Tensor, "instance out side side"], Float[Tensor, "instance colour side side"]]:
        """Feature maps and picture of twice the side, from those of the block before; of side 4 from nothing."""
        if x is None or picture is None:
            x = self.const.expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x, ws[:, -3], noise=noise, generator=generator)
            picture = doubled(picture, self.resample_filter)
        maps = self.conv1(x, ws[:, -2], noise=noise, generator=generator)
        colours = self.torgb(maps, ws[:, -1])
        return maps, colours if picture is None else picture + colours


class Synthesis(nn.Module):
    """Blocks from side 4 to the side of the picture, whose colours add up.

    Args:
        shape: Sizes of the network.
        generator: Source of the start weights.
    """

    def __init__(self, shape: StyleGAN2Shape, *, generator: torch.Generator):
        super().__init__()
        self.slots, self.sides = shape.slots, shape.sides
        for side in shape.sides:
            self.add_module(f"b{side}", SynthesisBlock(shape, side, generator=generator))

    def forward(
        self,
        ws: Float[Tensor, "instance slot latent"],
        *,
        noise: NoiseKind = NoiseKind.CONSTANT,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "instance colour height width"]:
        """Pictures, mostly in [-1, 1], not clamped.

        Args:
            ws: One w per slot.
            noise: Kind of noise.
            generator: Source of random noise; without one the global source is used.

        Raises:
            InvalidValueError: If `ws` has another number of slots.
        """
        if ws.shape[1] != self.slots:
            raise InvalidValueError(f"`ws` must have the {self.slots} slots of this network; got {ws.shape[1]}.")
        x = picture = None
        for index, side in enumerate(self.sides):
            block = cast(SynthesisBlock, self.get_submodule(f"b{side}"))
            # The last w of a block, for its colours, is the first of the next one.
            slots = ws[:, max(2 * index - 1, 0) : 2 * index + 2]
            x, picture = block(x, picture, slots, noise=noise, generator=generator)
        return cast(Tensor, picture)
