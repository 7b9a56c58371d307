"""Networks on the image that a study file can name, and the files that their weights come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.encoders.cnn import CNN
from survlens.encoders.cnn_survival import CNNSurvivalEncoder, left_of
from survlens.encoders.mlp import MLP
from survlens.encoders.residual import ResidualCNN
from survlens.encoders.transfer_2d import TransferResNet2D, TransferVGG16
from survlens.encoders.transfer_3d import TransferResNet3D
from survlens.encoders.transfer_blocks import Shortcut
from survlens.encoders.transfer_weights import load_weights
from survlens.study.network_settings import EncoderKind

Shape = tuple[int, ...]
_DEPTHS: Mapping[EncoderKind, int] = {
    EncoderKind.RESNET_10: 10,
    EncoderKind.RESNET_18: 18,
    EncoderKind.RESNET_34: 34,
    EncoderKind.RESNET_50: 50,
}
_COLOURS = 3
_SMALLEST_VGG = 32
_PAPER_POOLS, _SMALL_POOLS = (2, 3, 3), (2, 2, 2)


def image_encoder(kind: EncoderKind, widths: tuple[int, ...], dropout: float, shape: Shape) -> Any:
    """The network on images of a shape, with weights at random.

    Args:
        kind: Which network.
        widths: Channels of each stage, or units of each layer, where the network has no widths of its own.
        dropout: Share of units dropped while training, where the network drops any.
        shape: Channels and sides of the images: height and width, or x, y and z of volumes.

    Raises:
        InvalidValueError: If the network cannot take images of that shape.
    """
    if kind in _DEPTHS:
        return _resnet(_DEPTHS[kind], shape)
    encoders: Mapping[EncoderKind, Callable[[], nn.Module]] = {
        EncoderKind.MLP: lambda: MLP(math.prod(shape), widths, dropout=dropout),
        EncoderKind.CNN: lambda: CNN(shape[0], widths, dimensions=len(shape) - 1, dropout=dropout),
        EncoderKind.RESIDUAL: lambda: ResidualCNN(
            shape[0], widths, dimensions=len(shape) - 1, image_size=shape[1:], dropout=dropout
        ),
        EncoderKind.VGG_16: lambda: _vgg(shape),
        EncoderKind.CNN_SURVIVAL: lambda: _cnn_survival(shape, dropout),
    }
    return encoders[kind]()


def with_weights(encoder: nn.Module, weights: str | None, root: Path | None) -> Any:
    """The encoder with the weights of a file, where one is named.

    Args:
        encoder: The network, filled in place.
        weights: The file, from `root`; None for none.
        root: Data root.

    Raises:
        CorruptFileError: If the file does not hold the weights of this network.
        InvalidValueError: If the data root is not known.
    """
    if weights is None:
        return encoder
    if root is None:
        raise InvalidValueError("`weights` must lie in a data root; got settings that know none. Read the study file.")
    load_weights(encoder, root / weights)
    return encoder


def _resnet(depth: int, shape: Shape) -> nn.Module:
    """In torchvision's layout for pictures, in MedicalNet's for volumes."""
    if len(shape) == 3:
        return TransferResNet2D(depth, _seen_by_pictures(shape))
    padded = depth in (18, 34)
    return TransferResNet3D(depth, shape[0], shortcut=Shortcut.PADDING if padded else Shortcut.PROJECTION)


def _vgg(shape: Shape) -> nn.Module:
    _check_pictures("vgg16", shape)
    if min(shape[1:]) < _SMALLEST_VGG:
        raise InvalidValueError(
            f'`encoder` must not be "vgg16" for sides below {_SMALLEST_VGG}; got {shape[1:]}. Enlarge the images.'
        )
    return TransferVGG16(_seen_by_pictures(shape))


def _cnn_survival(shape: Shape, dropout: float) -> nn.Module:
    """The network of the paper where images are large enough for it, else with padding and smaller pools."""
    _check_pictures("cnn_survival", shape)
    whole = min(left_of(side, _PAPER_POOLS, padded=False) for side in shape[1:]) >= 1
    pools = _PAPER_POOLS if whole else _SMALL_POOLS
    return CNNSurvivalEncoder(shape[0], shape[1:], pools=pools, dropout=dropout, padded=not whole)


def _check_pictures(name: str, shape: Shape) -> None:
    if len(shape) != 3:
        raise InvalidValueError(
            f'`encoder` must not be "{name}" for volumes, which it does not take. '
            'Set view = "slice" in [data.scans], or take "resnet10".'
        )


def _seen_by_pictures(shape: Shape) -> int:
    """Channels of the first convolution: grey images are shown to a network for colours."""
    return _COLOURS if shape[0] == 1 else shape[0]
