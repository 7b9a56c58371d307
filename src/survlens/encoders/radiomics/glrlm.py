"""Grey level run lengths: how long the level stays the same along a line (Galloway 1975)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from survlens.encoders.radiomics.level_size import LevelSizeSums, averaged, variance
from survlens.encoders.radiomics.region import GreyRegion


def run_lengths(region: GreyRegion) -> Int64[np.ndarray, "direction level size"]:
    """Counts of runs by level and length, longest last; directions without any two neighbours are left out."""
    from survlens.encoders.radiomics.neighbours import run_counts

    counts, touching = run_counts(region.levels, region.voxels, region.directions, len(region.grey), region.longest)
    counts = counts[touching]
    occurring = np.flatnonzero(counts.any(axis=(0, 1)))
    return counts[:, :, : occurring[-1] + 1 if len(occurring) else 1]


def glrlm_features(
    counts: Int64[np.ndarray, "direction level size"], grey: Float64[np.ndarray, " level"]
) -> dict[str, float]:
    """The 16 features, each computed for every direction and then averaged; NaN without any two neighbours."""
    sizes = np.arange(1, counts.shape[2] + 1, dtype=np.float64)
    sums = LevelSizeSums(counts.astype(np.float64), grey, sizes)
    runs, by_level, by_size = sums.total, sums.by_level, sums.by_size
    level_uniformity, size_uniformity = (by_level**2).sum(1), (by_size**2).sum(1)
    return averaged(
        {
            "GrayLevelNonUniformity": level_uniformity * runs,
            "GrayLevelNonUniformityNormalized": level_uniformity,
            "GrayLevelVariance": variance(by_level, grey),
            "HighGrayLevelRunEmphasis": sums.emphasis(2, 0),
            "LongRunEmphasis": sums.emphasis(0, 2),
            "LongRunHighGrayLevelEmphasis": sums.emphasis(2, 2),
            "LongRunLowGrayLevelEmphasis": sums.emphasis(-2, 2),
            "LowGrayLevelRunEmphasis": sums.emphasis(-2, 0),
            "RunEntropy": sums.entropy(),
            "RunLengthNonUniformity": size_uniformity * runs,
            "RunLengthNonUniformityNormalized": size_uniformity,
            "RunPercentage": 1 / sums.emphasis(0, 1),  # the lengths of the runs add up to the voxels
            "RunVariance": variance(by_size, sizes),
            "ShortRunEmphasis": sums.emphasis(0, -2),
            "ShortRunHighGrayLevelEmphasis": sums.emphasis(2, -2),
            "ShortRunLowGrayLevelEmphasis": sums.emphasis(-2, -2),
        }
    )
