"""Residual networks for images and volumes whose weights have the names of common weight files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor, cat, nn
from torch.nn.functional import relu

from survlens.core.errors import InvalidValueError


class Shortcut(Enum):
    """What a residual block adds where width or size changes.

    PROJECTION: a convolution of side 1 with batch norm (option B of the paper). PADDING: every second voxel, with zeros
    for the new channels (option A), which has no weights.
    """

    PROJECTION = "projection"
    PADDING = "padding"


@dataclass(frozen=True, slots=True)
class Plan:
    """Blocks of a residual network.

    Attributes:
        counts: Blocks in each of the four layers.
        bottleneck: Whether a block has three convolutions of sides 1, 3 and 1 instead of two of side 3.
    """

    counts: tuple[int, int, int, int]
    bottleneck: bool


PLANS = {
    10: Plan((1, 1, 1, 1), bottleneck=False),
    18: Plan((2, 2, 2, 2), bottleneck=False),
    34: Plan((3, 4, 6, 3), bottleneck=False),
    50: Plan((3, 4, 6, 3), bottleneck=True),
}
"""By depth: the weighted layers with the stem and the fully connected layer (He et al. 2016, table 1)."""

WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
"""Channels that a bottleneck block gives, per channel inside it."""


def plan_of(depth: int, depths: tuple[int, ...]) -> Plan:
    """The blocks of a network of that depth.

    Raises:
        InvalidValueError: If it is not one of `depths`.
    """
    if depth not in depths:
        raise InvalidValueError(f"`depth` must be one of {', '.join(map(str, depths))}; got {depth}.")
    return PLANS[depth]


def conv(dimensions: int, before: int, after: int, side: int, *, stride: int = 1, dilation: int = 1) -> nn.Module:
    """A convolution without bias whose padding keeps the size at stride 1."""
    kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
    padding = dilation * (side // 2)
    return kind(before, after, side, stride=stride, padding=padding, dilation=dilation, bias=False)


def norm(dimensions: int, channels: int) -> nn.Module:
    """Batch norm."""
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)


class PaddedShortcut(nn.Module):
    """Every `stride`-th voxel, with zeros as the channels that are new."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """The shortcut."""
        steps = (slice(None), slice(None), *[slice(None, None, self.stride)] * (x.ndim - 2))
        x = x[steps]
        return cat([x, x.new_zeros(x.shape[0], self.channels - x.shape[1], *x.shape[2:])], dim=1)


class TransferBlock(nn.Module):
    """relu(shortcut(x) + body(x)): batch norm after each convolution, ReLU between them (He et al. 2016).

    The stride is that of the convolution of side 3 (in a block of two: of the first), as in the weight files.
    """

    def __init__(
        self, dimensions: int, before: int, width: int, plan: Plan, *, stride: int, dilation: int, shortcut: Shortcut
    ):
        super().__init__()
        after = width * (EXPANSION if plan.bottleneck else 1)
        if plan.bottleneck:
            self.conv1 = conv(dimensions, before, width, 1)
            self.conv2 = conv(dimensions, width, width, 3, stride=stride, dilation=dilation)
            self.conv3 = conv(dimensions, width, after, 1)
        else:
            self.conv1 = conv(dimensions, before, width, 3, stride=stride, dilation=dilation)
            self.conv2 = conv(dimensions, width, width, 3, dilation=dilation)
        self.bn1, self.bn2 = norm(dimensions, width), norm(dimensions, width)
        if plan.bottleneck:
            self.bn3 = norm(dimensions, after)
        self.bottleneck = plan.bottleneck
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            projection = nn.Sequential(conv(dimensions, before, after, 1, stride=stride), norm(dimensions, after))
            self.downsample = projection if shortcut is Shortcut.PROJECTION else PaddedShortcut(after, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        beside = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        if self.bottleneck:
            x = self.bn3(self.conv3(relu(x)))
        return relu(x + beside)


class TransferTrunk(nn.Module):
    """Stem, max-pool and four layers of residual blocks; then the mean over space.

    The names of its weights are conv1, bn1, layer1 to layer4, and in a block conv1, bn1, ... and downsample.
    """

    def __init__(
        self,
        dimensions: int,
        in_channels: int,
        plan: Plan,
        *,
        shortcut: Shortcut,
        strides: tuple[int, int, int, int],
        dilations: tuple[int, int, int, int],
    ):
        super().__init__()
        self.conv1 = conv(dimensions, in_channels, WIDTHS[0], 7, stride=2)
        self.bn1 = norm(dimensions, WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if dimensions == 2 else nn.MaxPool3d(3, 2, 1)
        before, layers = WIDTHS[0], []
        for width, count, stride, dilation in zip(WIDTHS, plan.counts, strides, dilations, strict=True):
            blocks = []
            for place in range(count):
                block = TransferBlock(
                    dimensions,
                    before,
                    width,
                    plan,
                    stride=stride if place == 0 else 1,
                    dilation=dilation,
                    shortcut=shortcut,
                )
                before = width * (EXPANSION if plan.bottleneck else 1)
                blocks.append(block)
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.out_features = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """One embedding per instance."""
        x = self.maxpool(relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.flatten(2).mean(2)
