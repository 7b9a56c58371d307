"""Grey level size zones: how large the connected zones of one level are (Thibault 2014)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from survlens.encoders.radiomics.level_size import LevelSizeSums, averaged, variance
from survlens.encoders.radiomics.region import GreyRegion


def size_zones(region: GreyRegion) -> tuple[Int64[np.ndarray, "level size"], Int64[np.ndarray, " size"]]:
    """Counts of zones by level and size, and the sizes that occur; neighbours touch at faces, edges or corners."""
    from survlens.encoders.radiomics.neighbours import zone_sizes

    zones, sizes = zone_sizes(region.levels, region.voxels, region.both_ways)
    occurring, number = np.unique(sizes, return_inverse=True)
    counts = np.bincount(zones * len(occurring) + number, minlength=len(region.grey) * len(occurring))
    return counts.reshape(len(region.grey), len(occurring)), occurring


def glszm_features(
    counts: Int64[np.ndarray, "level size"],
    sizes: Int64[np.ndarray, " size"],
    grey: Float64[np.ndarray, " level"],
) -> dict[str, float]:
    """The 16 features."""
    size = sizes.astype(np.float64)
    sums = LevelSizeSums(counts[None].astype(np.float64), grey, size)
    zones, by_level, by_size = sums.total, sums.by_level, sums.by_size
    level_uniformity, size_uniformity = (by_level**2).sum(1), (by_size**2).sum(1)
    return averaged(
        {
            "GrayLevelNonUniformity": level_uniformity * zones,
            "GrayLevelNonUniformityNormalized": level_uniformity,
            "GrayLevelVariance": variance(by_level, grey),
            "HighGrayLevelZoneEmphasis": sums.emphasis(2, 0),
            "LargeAreaEmphasis": sums.emphasis(0, 2),
            "LargeAreaHighGrayLevelEmphasis": sums.emphasis(2, 2),
            "LargeAreaLowGrayLevelEmphasis": sums.emphasis(-2, 2),
            "LowGrayLevelZoneEmphasis": sums.emphasis(-2, 0),
            "SizeZoneNonUniformity": size_uniformity * zones,
            "SizeZoneNonUniformityNormalized": size_uniformity,
            "SmallAreaEmphasis": sums.emphasis(0, -2),
            "SmallAreaHighGrayLevelEmphasis": sums.emphasis(2, -2),
            "SmallAreaLowGrayLevelEmphasis": sums.emphasis(-2, -2),
            "ZoneEntropy": sums.entropy(),
            "ZonePercentage": 1 / sums.emphasis(0, 1),  # the sizes of the zones add up to the voxels
            "ZoneVariance": variance(by_size, size),
        }
    )
