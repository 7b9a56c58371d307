"""Sizes of a StyleGAN2, from the settings in a checkpoint and from its tensors, which must agree."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from survlens.core.errors import CorruptFileError, InvalidValueError

Sizes = dict[str, int | float | None]


def sizes_of_tensors(generator: Mapping[str, Tensor]) -> Sizes:
    """Every size that the shapes of a generator's tensors fix.

    Raises:
        InvalidValueError: If it is a conditional network.
        CorruptFileError: If the tensors are not those of a StyleGAN2 generator, or its channels follow no rule.
    """
    if any(name.startswith("mapping.embed.") for name in generator):
        raise conditional()
    sides = sorted(
        int(name.split(".")[1][1:])
        for name in generator
        if name.startswith("synthesis.b") and name.endswith("rgb.bias")
    )
    layers = sum(name.startswith("mapping.fc") and name.endswith(".bias") for name in generator)
    if len(sides) < 3 or sides != [2**power for power in range(2, 2 + len(sides))] or not layers:
        raise CorruptFileError(
            f"the checkpoint must hold a StyleGAN2 generator with skip connections to the picture; "
            f"got blocks of side {sides} and {layers} mapping layers. Convert a StyleGAN2 checkpoint."
        )
    channels = {side: _size(generator, f"synthesis.b{side}.conv1.bias", 0) for side in sides}
    base, most = channels[sides[-1]] * sides[-1], channels[4]
    return {
        "resolution": sides[-1],
        "latent": _size(generator, "mapping.fc0.weight", 1),
        "width": _size(generator, "mapping.w_avg", 0),
        "mapping_layers": layers,
        **_channel_rule(channels, base, most),
        "image_channels": _size(generator, "synthesis.b4.torgb.bias", 0),
    }


def _channel_rule(channels: Mapping[int, int], base: int, most: int) -> dict[str, int]:
    if any(min(base // side, most) != count for side, count in channels.items()):
        raise CorruptFileError(
            f"the checkpoint must have min(base / side, most) channels per side; got {dict(channels)}. "
            "Its generator has another layout, which cannot be used."
        )
    return {"channel_base": base, "channel_max": most}


def _size(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    if name not in tensors or tensors[name].ndim <= axis:
        raise CorruptFileError(
            f"the checkpoint must hold the tensors of a StyleGAN2 generator; got no {name}. "
            "Convert a StyleGAN2 checkpoint."
        )
    return int(tensors[name].shape[axis])


def agreed(tensors: Sizes, stated: Mapping[str, object]) -> Sizes:
    """The sizes of the tensors and those that only settings state, after both have been held against each other.

    `channel_base` and `channel_max` may be stated larger than the tensors show (a cap that no side reaches): there the
    channels of every side are compared, and the stated values are kept.

    Raises:
        CorruptFileError: If a setting and the tensors differ, or a setting is no number.
    """
    free = {"channel_base", "channel_max"}
    merged: Sizes = dict(tensors)
    for name, value in stated.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise _differ(name, value, "numbers")
        if name in tensors and name not in free and tensors[name] != value:
            raise _differ(name, value, tensors[name])
        merged[name] = value
    for power in range(2, int(tensors["resolution"] or 4).bit_length()):
        shown, said = _channels(tensors, 2**power), _channels(merged, 2**power)
        if shown != said:
            raise _differ(f"the channels of side {2**power}", said, shown)
    return merged


def _channels(sizes: Sizes, side: int) -> int:
    return min(int(sizes["channel_base"] or 0) // side, int(sizes["channel_max"] or 0))


def resampling_filter() -> Tensor:
    """The filter (1, 3, 3, 1) in both directions, of sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def check_filters(tensors: Mapping[str, Tensor]) -> None:
    """Raises if a network resamples with another filter than StyleGAN2's.

    Raises:
        CorruptFileError: Naming the filter.
    """
    expected = resampling_filter()
    for name, value in tensors.items():
        if name.endswith("resample_filter") and (
            value.shape != expected.shape or not torch.allclose(value.float(), expected, atol=1e-6)
        ):
            raise CorruptFileError(
                f"`{name}` must be the filter (1, 3, 3, 1) in both directions; got another one of shape "
                f"{tuple(value.shape)}. A network that resamples otherwise cannot be used."
            )


def conditional() -> InvalidValueError:
    """The error for networks that draw pictures of a class."""
    return InvalidValueError(
        "the checkpoint must hold networks without classes; got a conditional generator or discriminator. "
        "Use a network that was trained without labels."
    )


def _differ(name: str, stated: object, found: object) -> CorruptFileError:
    return CorruptFileError(
        f"settings and tensors of a checkpoint must agree; got {stated} stated for {name}, and {found} in the tensors. "
        "Get the file from its author again."
    )
