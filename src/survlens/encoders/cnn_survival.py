"""The network of CNN-Survival: six convolutions on a slice of a tumour."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError

PAPER_SIZE = (140, 140)
"""Sides of the slices in the paper."""


class CNNSurvivalEncoder(nn.Module):
    """Three stages of two convolutions and a max-pool, then one dense layer: the network before the interval outputs.

    A stage is [convolution 3 x 3, ReLU, batch norm] twice, a max-pool and dropout. With the defaults 140 x 140 becomes
    5 x 5 x 32 = 800 values and, by a dense layer and ReLU, 32 features. With a `LogisticHazard` of 19 intervals on top
    it has 73,203 weights, and 384 moving statistics beside them. The features are `forward`; the interval outputs,
    which the paper probably calls its 19 features, are `head.raw(features)`.

    Convolutions are not padded, so sides must be at least 54 with the default pools. Smaller slices need
    `padded=True`, which keeps the size in convolutions; a side must then be at least the product of the pools.

    Args:
        in_channels: Channels of a slice.
        image_size: Sides of a slice.
        channels: Width of the convolutions.
        features: Width of the embedding.
        pools: Side of the max-pool of each stage; rows and columns that do not fill one are dropped.
        dropout: Share dropped after each max-pool in training.
        padded: Whether convolutions keep the size.

    Raises:
        InvalidValueError: If a slice of this size has nothing left after the last pool, or a setting is out of range.

    References:
        Zhang et al. 2020.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: Sequence[int] = PAPER_SIZE,
        *,
        channels: int = 32,
        features: int = 32,
        pools: Sequence[int] = (2, 3, 3),
        dropout: float = 0.5,
        padded: bool = False,
    ):
        super().__init__()
        self.in_channels, self.image_size, self.channels = in_channels, tuple(image_size), channels
        self.features, self.pools, self.dropout, self.padded = features, tuple(pools), dropout, padded
        if min(in_channels, channels, features, *self.pools) < 1 or not 0 <= dropout < 1:
            raise InvalidValueError(
                "`in_channels`, `channels`, `features` and `pools` must be >= 1 and `dropout` in [0, 1); got "
                f"{in_channels}, {channels}, {features}, {self.pools} and {dropout}."
            )
        sides = [left_of(side, self.pools, padded=padded) for side in self.image_size]
        if len(sides) != 2 or min(sides) < 1:
            raise InvalidValueError(
                f"`image_size` must be two sides of which pools {self.pools} leave something; got {self.image_size}. "
                "Take larger slices, smaller `pools`, or padded=True."
            )
        layers: list[nn.Module] = []
        for pool in self.pools:
            for _ in range(2):
                layers += [nn.Conv2d(in_channels, channels, 3, padding=int(padded)), nn.ReLU()]
                layers += [nn.BatchNorm2d(channels)]
                in_channels = channels
            layers += [nn.MaxPool2d(pool), nn.Dropout(dropout)]
        self.stages = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(channels * math.prod(sides), features), nn.ReLU())
        self.out_features = features

    def forward(self, x: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance embedding"]:
        """The features before the interval outputs."""
        if x.shape[1:] != (self.in_channels, *self.image_size):
            raise InvalidValueError(
                f"`x` must hold slices of shape {(self.in_channels, *self.image_size)}; got {tuple(x.shape[1:])}. "
                "Crop or resample them, or build the encoder for that size."
            )
        return self.dense(self.stages(x))


def left_of(side: int, pools: Sequence[int], *, padded: bool) -> int:
    """What two convolutions and a max-pool per stage leave of a side; 0 or less where they do not fit.

    Args:
        side: Voxels before the first convolution.
        pools: Side of the max-pool of each stage.
        padded: Whether convolutions keep the size.
    """
    for pool in pools:
        side = (side - (0 if padded else 4)) // pool
    return side
