"""What is extracted, and from what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.encoders.radiomics.filters import Filter, Original


class FeatureClass(Enum):
    """Families of features; the value is how PyRadiomics writes them in names."""

    SHAPE = "shape"
    FIRST_ORDER = "firstorder"
    GLCM = "glcm"
    GLRLM = "glrlm"
    GLSZM = "glszm"
    GLDM = "gldm"
    NGTDM = "ngtdm"


@dataclass(frozen=True, slots=True)
class RadiomicsSettings:
    """Settings of `radiomics_features`; the defaults are those of PyRadiomics.

    Attributes:
        bin_width: Width of a grey level in the unit of the image, > 0. Levels begin at multiples of it.
        bin_count: This many equal bins from the smallest to the largest value of the region instead, >= 1.
        force_2d: Textures look at neighbours within a slice only; a region of one slice has 2-D shape features.
        filters: Images that features are taken from.
        spacing: Millimetres along the three axes of the canonical grid (left-right, back-front, feet-head) to which
            image (linearly) and mask (nearest) are resampled first; None: as they are.
        normalise_scale: Where given, the whole image is centred and divided by its standard deviation, then multiplied
            by this number, before anything else.
        margin: Voxels kept round the region before filtering; None: the whole image. With it filters are faster and see
            less: square, logarithm and their like scale by the largest value they see.
        classes: Families of features.

    Raises:
        InvalidValueError: If a number is out of its range, or `filters` or `classes` is empty.
        InvalidTypeError: If `filters` holds something that is no filter.
    """

    bin_width: float = 25.0
    bin_count: int | None = None
    force_2d: bool = False
    filters: tuple[Filter, ...] = (Original(),)
    spacing: tuple[float, float, float] | None = None
    normalise_scale: float | None = None
    margin: int | None = None
    classes: frozenset[FeatureClass] = frozenset(FeatureClass)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.bin_width) and self.bin_width > 0):
            raise InvalidValueError(f"`bin_width` must be > 0; got {self.bin_width}. 25 is usual for Hounsfield units.")
        if self.bin_count is not None and self.bin_count < 1:
            raise InvalidValueError(f"`bin_count` must be >= 1 or None; got {self.bin_count}. 32 is usual.")
        if self.spacing is not None and not all(np.isfinite(side) and side > 0 for side in self.spacing):
            raise InvalidValueError(
                f"`spacing` must be three lengths > 0 or None; got {self.spacing}. Give millimetres."
            )
        if self.normalise_scale is not None and not (np.isfinite(self.normalise_scale) and self.normalise_scale > 0):
            raise InvalidValueError(f"`normalise_scale` must be > 0 or None; got {self.normalise_scale}. Try 100.")
        if self.margin is not None and self.margin < 0:
            raise InvalidValueError(f"`margin` must be >= 0 or None; got {self.margin}. 10 suits most filters.")
        if not self.filters or not self.classes:
            raise InvalidValueError(
                f"`filters` and `classes` must not be empty; got {len(self.filters)} and {len(self.classes)}. "
                "Leave them out for the original image and all classes."
            )
        wrong = [each for each in self.filters if not isinstance(each, Filter)]
        if wrong:
            raise InvalidTypeError(f"`filters` must hold filters; got {wrong[0]!r}. Give Original(), Wavelet(), ...")
