"""From a volume and a mask to named features, and from many to a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64

from survlens.core.errors import InvalidTypeError, InvalidValueError, SurvlensError
from survlens.data.geometry import Volume, box_of
from survlens.encoders.radiomics.filters import Original
from survlens.encoders.radiomics.first_order import first_order_features
from survlens.encoders.radiomics.glcm import co_occurrence, glcm_features
from survlens.encoders.radiomics.gldm import gldm_features
from survlens.encoders.radiomics.glrlm import glrlm_features, run_lengths
from survlens.encoders.radiomics.glszm import glszm_features, size_zones
from survlens.encoders.radiomics.ngtdm import ngtdm_features
from survlens.encoders.radiomics.region import GreyRegion, bin_levels, grey_region
from survlens.encoders.radiomics.settings import FeatureClass, RadiomicsSettings
from survlens.encoders.radiomics.shape import shape_2d_features, shape_features

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 6  # undefined features that an error lists


@dataclass(frozen=True, slots=True, eq=False)
class RadiomicsTable:
    """Features of many cases.

    Attributes:
        features: A row for each case in the order given, a column for each feature; missing where undefined.
        undefined: Of cases that have some, the features that have no value, such as a texture of a single voxel.
        faults: Of cases without a row, what is wrong with them.
    """

    features: pd.DataFrame
    undefined: Mapping[str, tuple[str, ...]]
    faults: Mapping[str, str]


def radiomics_features(
    volume: Volume, mask: Volume | Bool[np.ndarray, "i j k"], settings: RadiomicsSettings | None = None
) -> dict[str, float]:
    """Features of a region of a scan, named as PyRadiomics names them, such as "original_firstorder_Energy".

    The volume is brought to the nearest axial orientation first, so that the features do not depend on how it is
    stored. Shape features are of the mask alone and stand once, under "original".

    Args:
        volume: Finite values.
        mask: True in the region; as a volume it may hold 0 and 1, on the same grid.
        settings: What to extract; the defaults of PyRadiomics where None.

    Returns:
        Finite numbers by name.

    Raises:
        InvalidValueError: If the mask is empty, holds other labels than 0 and 1 or lies on another grid; if values are
            not finite; or if features are undefined, as textures of a region without any two neighbouring voxels.
        InvalidTypeError: If the mask is no array of truth values.

    References:
        van Griethuysen 2017, Zwanenburg 2020.
    """
    features = _features(volume, mask, settings or RadiomicsSettings())
    missing = _undefined(features)
    if missing:
        shown = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
        raise InvalidValueError(
            f"`mask` must cover voxels enough for every feature; got a region in which {shown} are undefined. "
            "Leave the region out, or leave the classes of these features out of the settings."
        )
    return features


def radiomics_table(
    cases: Iterable[tuple[str, Volume, Volume | Bool[np.ndarray, "i j k"]]],
    settings: RadiomicsSettings | None = None,
    *,
    on_case: Callable[[str], None] | None = None,
) -> RadiomicsTable:
    """Features of many regions; a case that cannot be used does not stop the others.

    Args:
        cases: Identifier, volume and mask of each; taken one at a time, so that a generator keeps memory small.
        settings: As for `radiomics_features`.
        on_case: Called with the identifier after each case.

    Raises:
        InvalidValueError: If an identifier comes twice.
    """
    import pandas as pd

    rows: dict[str, dict[str, float]] = {}
    faults: dict[str, str] = {}
    for case, volume, mask in cases:
        if case in rows or case in faults:
            raise InvalidValueError(f"`cases` must have each identifier once; got {case!r} twice. Name the regions.")
        try:
            rows[case] = _features(volume, mask, settings or RadiomicsSettings())
        except SurvlensError as err:
            faults[case] = str(err)
        if on_case is not None:
            on_case(case)
    undefined = {case: missing for case, row in rows.items() if (missing := _undefined(row))}
    return RadiomicsTable(pd.DataFrame.from_dict(rows, orient="index"), undefined, faults)


def _undefined(features: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(name for name, value in features.items() if not np.isfinite(value))


def _features(
    volume: Volume, mask: Volume | Bool[np.ndarray, "i j k"], settings: RadiomicsSettings
) -> dict[str, float]:
    image, region, spacing = _prepared(volume, mask, settings)
    box = tuple(slice(low, high) for low, high in box_of(region).T)
    inside = region[box]
    flat = settings.force_2d and inside.shape[0] == 1
    features: dict[str, float] = {}
    if FeatureClass.SHAPE in settings.classes:
        features |= _named("original_shape2D", shape_2d_features(inside[0], spacing[1:])) if flat else {}
        features |= _named("original_shape", shape_features(inside, spacing)) if not flat else {}
    if settings.classes == {FeatureClass.SHAPE}:
        return features
    for each in settings.filters:
        for name, filtered in each.images(image, spacing.tolist(), in_plane=settings.force_2d):
            values = filtered[box][inside].astype(np.float64)
            features |= _of_values(values, inside, float(spacing.prod()), settings, name)
    return features


def _prepared(
    volume: Volume, mask: Volume | Bool[np.ndarray, "i j k"], settings: RadiomicsSettings
) -> tuple[np.ndarray, np.ndarray, Float64[np.ndarray, "3"]]:
    """Image, region and spacing with the axes (z, y, x), feet to head, front to back, right to left."""
    labels = _checked(volume, mask)
    if settings.normalise_scale is not None:
        values = volume.values.astype(np.float64)
        spread = float(values.std())
        if spread == 0:
            raise InvalidValueError("`volume` must vary to be normalised; got one value. Leave normalise_scale out.")
        volume = Volume((values - values.mean()) * (settings.normalise_scale / spread), volume.affine, "arbitrary")
    volume, labels = volume.canonical(), labels.canonical()
    if settings.spacing is not None:
        volume = volume.resampled(settings.spacing)
        labels = labels.resampled(settings.spacing, shape=volume.values.shape, order=0, fill=0)
    image, region = (np.flip(each.values.transpose(2, 1, 0), (1, 2)) for each in (volume, labels))
    region = region.astype(bool)
    if not region.any():
        raise InvalidValueError("`mask` must cover at least one voxel; resampling left none. Take a finer spacing.")
    untouched = all(isinstance(each, Original) for each in settings.filters)
    margin = 0 if untouched else settings.margin
    if margin is not None:
        low, high = box_of(region, (0 if settings.force_2d else margin, margin, margin))
        kept = tuple(slice(max(start, 0), stop) for start, stop in zip(low, high, strict=True))
        image, region = image[kept], region[kept]
    return np.ascontiguousarray(image, dtype=np.float64), np.ascontiguousarray(region), volume.spacing[::-1].copy()


def _checked(volume: Volume, mask: Volume | Bool[np.ndarray, "i j k"]) -> Volume:
    """The mask as a volume of truth values, in which there is something."""
    if isinstance(mask, Volume):
        if not volume.same_grid(mask):
            raise InvalidValueError(
                f"`mask` must lie on the grid of `volume`; got the shapes {mask.values.shape} and "
                f"{volume.values.shape}, or other places. Take mask.on_grid_of(volume)."
            )
        labels = np.unique(mask.values)
        if not np.isin(labels, (0, 1)).all():
            raise InvalidValueError(f"`mask` must hold 0 and 1; got {labels[:8].tolist()}. Give values == label.")
        mask = mask.values.astype(bool)
    if mask.dtype != np.bool_:
        raise InvalidTypeError(f"`mask` must hold truth values; got {mask.dtype}. Give mask == label.")
    if mask.shape != volume.values.shape:
        raise InvalidValueError(
            f"`mask` must have the shape of `volume`; got {mask.shape} and {volume.values.shape}. Check the grid."
        )
    if not mask.any():
        raise InvalidValueError("`mask` must cover at least one voxel; got an empty mask. Leave the case out.")
    if not np.isfinite(volume.values).all():
        raise InvalidValueError("`volume` must hold finite values; got NaN or infinity. Repair or crop the scan.")
    return Volume(mask, volume.affine)


def _of_values(
    values: Float64[np.ndarray, " voxel"],
    inside: Bool[np.ndarray, "z y x"],
    voxel_volume: float,
    settings: RadiomicsSettings,
    name: str,
) -> dict[str, float]:
    """First-order and texture features of one image."""
    levels = bin_levels(values, bin_width=settings.bin_width, bin_count=settings.bin_count)
    region = grey_region(inside, levels, in_plane=settings.force_2d)
    features: dict[str, float] = {}
    if FeatureClass.FIRST_ORDER in settings.classes:
        features |= _named(f"{name}_firstorder", first_order_features(values, region.voxel_counts, voxel_volume))
    return features | _textures(region, settings.classes, name)


def _textures(region: GreyRegion, classes: frozenset[FeatureClass], name: str) -> dict[str, float]:
    features: dict[str, float] = {}
    if FeatureClass.GLCM in classes:
        features |= _named(f"{name}_glcm", glcm_features(co_occurrence(region), region.grey))
    if FeatureClass.GLRLM in classes:
        features |= _named(f"{name}_glrlm", glrlm_features(run_lengths(region), region.grey))
    if FeatureClass.GLSZM in classes:
        features |= _named(f"{name}_glszm", glszm_features(*size_zones(region), region.grey))
    if classes & {FeatureClass.GLDM, FeatureClass.NGTDM}:
        from survlens.encoders.radiomics.neighbours import neighbourhoods

        dependence, touching, distance = neighbourhoods(region.levels, region.voxels, region.both_ways, region.grey)
        if FeatureClass.GLDM in classes:
            features |= _named(f"{name}_gldm", gldm_features(dependence, region.grey))
        if FeatureClass.NGTDM in classes:
            features |= _named(f"{name}_ngtdm", ngtdm_features(touching, distance, region.grey))
    return features


def _named(prefix: str, features: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in features.items()}
