"""Features of the values alone, 18 of them, by the definitions of PyRadiomics (van Griethuysen 2017)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64


def first_order_features(
    values: Float64[np.ndarray, " voxel"], level_counts: Int64[np.ndarray, " level"], voxel_volume: float
) -> dict[str, float]:
    """First-order features of a region.

    With values x_1 .. x_N: Energy Σx², Variance m₂ = Σ(x − x̄)²/N, Skewness m₃/m₂^1.5 and Kurtosis m₄/m₂² (3 for a
    normal distribution; both 0 where m₂ = 0), RobustMeanAbsoluteDeviation over the values from the 10th to the 90th
    percentile. With p_i the share of voxels on grey level i: Entropy −Σ p log₂ p, Uniformity Σ p².

    Args:
        values: Of the voxels of the region, at least one.
        level_counts: Voxels on each grey level.
        voxel_volume: Volume of a voxel, by which TotalEnergy multiplies Energy.
    """
    mean = values.mean()
    centred = values - mean
    squares = centred * centred
    variance = squares.mean()
    low, quarter, median, three_quarters, high = np.percentile(values, (10, 25, 50, 75, 90))
    robust = values[(values >= low) & (values <= high)]
    share = level_counts / level_counts.sum()
    energy = np.dot(values, values)
    varies = values.max() > values.min()
    features = {
        "10Percentile": low,
        "90Percentile": high,
        "Energy": energy,
        "Entropy": -np.dot(share, np.log2(share)),
        "InterquartileRange": three_quarters - quarter,
        "Kurtosis": np.dot(squares, squares) / (len(values) * variance**2) if varies else 0.0,
        "Maximum": values.max(),
        "Mean": mean,
        "MeanAbsoluteDeviation": np.abs(centred).mean(),
        "Median": median,
        "Minimum": values.min(),
        "Range": np.ptp(values),
        "RobustMeanAbsoluteDeviation": np.abs(robust - robust.mean()).mean() if len(robust) else 0.0,
        "RootMeanSquared": np.sqrt(energy / len(values)),
        "Skewness": np.dot(squares, centred) / (len(values) * variance**1.5) if varies else 0.0,
        "TotalEnergy": energy * voxel_volume,
        "Uniformity": np.dot(share, share),
        "Variance": variance,
    }
    return {name: float(value) for name, value in features.items()}
