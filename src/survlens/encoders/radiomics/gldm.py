"""Grey level dependence: how many neighbours share a voxel's level (Sun and Wee 1983)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from survlens.encoders.radiomics.level_size import LevelSizeSums, averaged, variance


def gldm_features(counts: Int64[np.ndarray, "level equal"], grey: Float64[np.ndarray, " level"]) -> dict[str, float]:
    """The 14 features.

    Args:
        counts: Voxels of each level by how many of their neighbours have the same level, from none; a voxel depends on
            itself too, so that the first column is dependence 1.
        grey: The grey levels.
    """
    sizes = np.arange(1, counts.shape[1] + 1, dtype=np.float64)
    sums = LevelSizeSums(counts[None].astype(np.float64), grey, sizes)
    by_level, by_size = sums.by_level, sums.by_size
    size_uniformity = (by_size**2).sum(1)
    return averaged(
        {
            "DependenceEntropy": sums.entropy(),
            "DependenceNonUniformity": size_uniformity * sums.total,
            "DependenceNonUniformityNormalized": size_uniformity,
            "DependenceVariance": variance(by_size, sizes),
            "GrayLevelNonUniformity": (by_level**2).sum(1) * sums.total,
            "GrayLevelVariance": variance(by_level, grey),
            "HighGrayLevelEmphasis": sums.emphasis(2, 0),
            "LargeDependenceEmphasis": sums.emphasis(0, 2),
            "LargeDependenceHighGrayLevelEmphasis": sums.emphasis(2, 2),
            "LargeDependenceLowGrayLevelEmphasis": sums.emphasis(-2, 2),
            "LowGrayLevelEmphasis": sums.emphasis(-2, 0),
            "SmallDependenceEmphasis": sums.emphasis(0, -2),
            "SmallDependenceHighGrayLevelEmphasis": sums.emphasis(2, -2),
            "SmallDependenceLowGrayLevelEmphasis": sums.emphasis(-2, -2),
        }
    )
