"""What a study file can say of scans."""

from __future__ import annotations

from dataclasses import dataclass

from survlens.core.errors import InvalidValueError
from survlens.data.scans import ScanSettings, ScanView
from survlens.study.rules import SettingError, at_least, check_rules, setting, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSection:
    """Section [data.scans]: how scans become what a network sees.

    Attributes:
        window: Values that become 0 and 1; left out, the 1st and 99th percentile of each scan.
        spacing: Millimetres along x, y and z that scans are resampled to; left out, each keeps its own.
        size: Voxels along each axis: three, or two for slices.
        crop: Whether to cut to the region of the mask.
        margin: Millimetres around the region that stay.
        mask_channel: Whether the mask is the last channel.
        view: Whole volumes, one slice, or three neighbouring slices as channels.
        slices: How many slices of a scan are rows.
        cache: Folder, from the data root, where prepared scans are kept; empty for nowhere.
    """

    window: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    crop: bool = False
    margin: float = setting(10.0, at_least(0))
    mask_channel: bool = False
    view: ScanView = ScanView.VOLUME
    slices: int = setting(1, at_least(1))
    cache: str = ".survlens/scans"

    def __post_init__(self) -> None:
        check_rules(self)
        if self.window is not None and len(self.window) != 2:
            raise SettingError("window", "be two numbers, [low, high]", shown(self.window))
        for key in ("window", "spacing", "size", "slices"):
            given = {key: getattr(self, key)} if key != "size" else {"size": self.size, "view": self.view}
            given = given if key != "slices" else {"slices": self.slices, "view": self.view}
            try:
                ScanSettings(**given)
            except InvalidValueError as error:
                rule, _, got = str(error).partition(" must ")[2].partition("; got ")
                raise SettingError(key, rule, got.rstrip(".")) from None

    @property
    def settings(self) -> ScanSettings:
        """The same for the data floor."""
        return ScanSettings(
            window=None if self.window is None else (self.window[0], self.window[1]),
            spacing=self.spacing,
            size=self.size,
            crop=self.crop,
            margin=self.margin,
            mask_channel=self.mask_channel,
            view=self.view,
            slices=self.slices,
        )
