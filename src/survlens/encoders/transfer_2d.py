"""Networks for pictures that take weights in the layout of torchvision."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.encoders.transfer_blocks import Shortcut, TransferTrunk, plan_of

_VGG16: tuple[tuple[int, ...], ...] = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class TransferResNet2D(TransferTrunk):
    """ResNet-18, 34 or 50 up to the mean over space; `load_weights` fills it from a file in torchvision's layout.

    The embedding has 512 values, or 2,048 with depth 50. Weights start at random: none are shipped. A picture of one
    channel is shown to all channels of the network.

    Args:
        depth: 18, 34 or 50.
        in_channels: Channels of the first convolution; 3 in torchvision's files.

    References:
        He et al. 2016.
    """

    dropped: ClassVar[tuple[str, ...]] = ("fc.",)
    """Starts of the names in a file that belong to the fully connected layer, which this network does not have."""

    def __init__(self, depth: int = 18, in_channels: int = 3):
        plan = plan_of(depth, (18, 34, 50))
        super().__init__(
            2, in_channels, plan, shortcut=Shortcut.PROJECTION, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)
        )
        self.depth, self.in_channels = depth, in_channels

    def forward(self, x: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance embedding"]:
        """The embedding."""
        return super().forward(shown_to(x, self.in_channels))


class TransferVGG16(nn.Module):
    """The thirteen convolutions of VGG-16 and the mean over space; `load_weights` takes torchvision's layout.

    The embedding has 512 values. The three fully connected layers, nine tenths of the weights, are not part of it.

    Args:
        in_channels: Channels of the first convolution; 3 in torchvision's files.

    References:
        Simonyan and Zisserman 2015.
    """

    dropped: ClassVar[tuple[str, ...]] = ("classifier.",)
    """Starts of the names in a file that belong to the fully connected layers."""

    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        before = in_channels
        for stage in _VGG16:
            for width in stage:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.out_features = before
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance embedding"]:
        """The embedding.

        Raises:
            InvalidValueError: If a side of the pictures is below 32.
        """
        if min(x.shape[2:]) < 32:
            raise InvalidValueError(
                f"`x` must have sides of at least 32; got {tuple(x.shape[2:])}. Enlarge the pictures."
            )
        return self.features(shown_to(x, self.in_channels)).mean((2, 3))


def shown_to(x: Tensor, channels: int) -> Tensor:
    """`x`, its only channel repeated where there is one and the network has several."""
    if x.shape[1] == 1 and channels > 1:
        return x.expand(-1, channels, *x.shape[2:])
    if x.shape[1] != channels:
        raise InvalidValueError(f"`x` must have {channels} channels, or one; got {x.shape[1]}.")
    return x
