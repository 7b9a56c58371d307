"""Networks for volumes that take weights in the layout of MedicalNet."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.encoders.transfer_blocks import Shortcut, TransferTrunk, plan_of


class TransferResNet3D(TransferTrunk):
    """A 3-D ResNet up to the mean over space; `load_weights` fills it from a file in MedicalNet's layout.

    The third and fourth layers keep the size and spread their convolutions over 2 and 4 voxels instead, so that a
    volume is made smaller by 8 along each axis. The embedding has 512 values, or 2,048 with depth 50. Weights start at
    random: none are shipped. MedicalNet's files of depth 18 and 34 were made with `Shortcut.PADDING`, those of 10
    and 50 with `Shortcut.PROJECTION`.

    Args:
        depth: 10, 18, 34 or 50.
        in_channels: Channels of the first convolution; 1 in MedicalNet's files.
        shortcut: What a block adds where the width changes.

    References:
        He et al. 2016; Chen, Ma and Zheng 2019.
    """

    dropped: ClassVar[tuple[str, ...]] = ("fc.", "conv_seg.")
    """Starts of the names in a file that belong to a classifier or a segmentation head, which this network lacks."""

    def __init__(self, depth: int = 10, in_channels: int = 1, *, shortcut: Shortcut = Shortcut.PROJECTION):
        check_choice("shortcut", shortcut, Shortcut)
        plan = plan_of(depth, (10, 18, 34, 50))
        super().__init__(3, in_channels, plan, shortcut=shortcut, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
        self.depth, self.in_channels, self.shortcut = depth, in_channels, shortcut

    def forward(self, x: Float[Tensor, "instance channel height width depth"]) -> Float[Tensor, "instance embedding"]:
        """The embedding."""
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise InvalidValueError(
                f"`x` must hold volumes of {self.in_channels} channels; got shape {tuple(x.shape)}. "
                "Its axes are instance, channel and three of space."
            )
        return super().forward(x)
