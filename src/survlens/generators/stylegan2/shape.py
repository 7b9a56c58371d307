"""What fixes the layers of a StyleGAN2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from survlens.core.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class StyleGAN2Shape:
    """Sizes that generator and discriminator are built from.

    A feature map of side r has C(r) = min(channel_base / r, channel_max) channels. The published networks have a
    `channel_base` of 32768 (512 and 1024 pixels, and every size of configuration "stylegan2") or 16384.

    Attributes:
        resolution: Side of a picture: a power of two from 16 to 1024.
        latent: Width of z.
        width: Width of w.
        mapping_layers: Fully connected layers from z to w, >= 1.
        channel_base: Channels times side.
        channel_max: Most channels of a feature map.
        conv_clamp: Largest absolute value after a convolution, > 0; None for no limit.
        image_channels: Channels of a picture.
        minibatch_group: Pictures whose standard deviation the discriminator sees together, >= 1.

    Raises:
        InvalidValueError: If a value is outside its range.
    """

    resolution: int
    latent: int = 512
    width: int = 512
    mapping_layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None
    image_channels: int = 3
    minibatch_group: int = 4

    def __post_init__(self) -> None:
        if self.resolution not in _RESOLUTIONS:
            raise InvalidValueError(
                f"`resolution` must be a power of two from 16 to 1024; got {self.resolution}. "
                "Resize the pictures to the next smaller one."
            )
        counts = ("latent", "width", "mapping_layers", "channel_max", "image_channels", "minibatch_group")
        for name in counts:
            if getattr(self, name) < 1:
                raise InvalidValueError(f"`{name}` must be >= 1; got {getattr(self, name)}.")
        if self.channel_base < self.resolution:
            raise InvalidValueError(
                f"`channel_base` must be >= `resolution`, {self.resolution}, so that every feature map has a channel; "
                f"got {self.channel_base}."
            )
        if self.conv_clamp is not None and not self.conv_clamp > 0:
            raise InvalidValueError(f"`conv_clamp` must be > 0 or None; got {self.conv_clamp}.")

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the feature maps, from 4 to `resolution`."""
        return tuple(2**power for power in range(2, self.resolution.bit_length()))

    @property
    def slots(self) -> int:
        """Places where the synthesis network takes a w: 2 log2(resolution) - 2."""
        return 2 * len(self.sides)

    def channels(self, side: int) -> int:
        """Channels of the feature map of that side."""
        return min(self.channel_base // side, self.channel_max)

    def to_json(self) -> dict[str, int | float | None]:
        """The sizes by name, for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, mapping: Mapping[str, int | float | None]) -> StyleGAN2Shape:
        """The shape that `to_json` wrote.

        Raises:
            InvalidValueError: If a size is missing where it has no default, unknown, or outside its range.
        """
        known = {field.name for field in fields(cls)}
        wrong = sorted(mapping.keys() - known)
        if wrong or "resolution" not in mapping:
            got = f"an unknown {', '.join(wrong)}" if wrong else "no resolution"
            raise InvalidValueError(f"`mapping` must hold the sizes of a StyleGAN2; got {got}.")
        return cls(**mapping)  # type: ignore[arg-type]


_RESOLUTIONS = tuple(2**power for power in range(4, 11))
