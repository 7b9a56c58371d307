"""Networks from the tensors of a checkpoint, strictly: every tensor has its place, and no place is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from survlens.artifacts.stylegan2_checkpoint import StyleGAN2Weights
from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.shape import StyleGAN2Shape

Network = TypeVar("Network", bound=nn.Module)


def generator_from(weights: StyleGAN2Weights, *, average: bool = True) -> Generator:
    """The generator of a checkpoint, in evaluation mode.

    Args:
        weights: Tensors and sizes.
        average: Whether its moving average is taken, which draws the better pictures; else the one trained last.

    Raises:
        InvalidValueError: If the checkpoint lacks it, or a size is outside its range.
        CorruptFileError: If a tensor is missing, left over or of another shape.
    """
    tensors = weights.generator_ema if average else weights.generator
    return _filled(Generator(StyleGAN2Shape.from_json(weights.settings), seed=0), tensors)


def discriminator_from(weights: StyleGAN2Weights) -> Discriminator:
    """The discriminator of a checkpoint, in evaluation mode.

    Raises:
        InvalidValueError: If the checkpoint lacks it, or a size is outside its range.
        CorruptFileError: If a tensor is missing, left over or of another shape.
    """
    return _filled(Discriminator(StyleGAN2Shape.from_json(weights.settings), seed=0), weights.discriminator)


def weights_from(
    average: Generator, *, generator: Generator | None = None, discriminator: Discriminator | None = None
) -> StyleGAN2Weights:
    """The tensors and sizes of networks, to be saved.

    Args:
        average: Moving average of the generator, or the only one there is.
        generator: Generator as it was trained last, where it is kept.
        discriminator: Discriminator, where it is kept.
    """
    return StyleGAN2Weights(
        {} if generator is None else generator.state_dict(),
        {} if discriminator is None else discriminator.state_dict(),
        average.state_dict(),
        average.shape.to_json(),
    )


def _filled(network: Network, tensors: Mapping[str, Tensor]) -> Network:
    kind = type(network).__name__.lower()
    if not tensors:
        raise InvalidValueError(f"`weights` must hold a {kind}; got a checkpoint without one. Use a full checkpoint.")
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise CorruptFileError(
            f"`weights` must hold every tensor of a StyleGAN2 {kind} and no other; "
            f"got {error!s:.400}. Use a checkpoint of the published layout."
        ) from error
    return network.eval()
