"""Grey level co-occurrence: which levels are neighbours (Haralick 1973)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from survlens.encoders.radiomics.region import GreyRegion


def co_occurrence(region: GreyRegion) -> Int64[np.ndarray, "direction level level"]:
    """Symmetric counts of pairs of neighbours at distance 1; directions in which there is none are left out."""
    from survlens.encoders.radiomics.neighbours import pair_counts

    counts = pair_counts(region.levels, region.voxels, region.directions, len(region.grey))
    counts = counts[counts.any(axis=(1, 2))]
    return counts + counts.transpose(0, 2, 1)


def glcm_features(
    counts: Int64[np.ndarray, "direction level level"], grey: Float64[np.ndarray, " level"]
) -> dict[str, float]:
    """The 24 features, each computed for every direction and then averaged.

    p(i, j) is the share of pairs on levels i and j, p(i) its margin with mean μ and variance σ²; sums run over the
    distributions of i + j and |i − j|. Where a region has one level, Correlation and MCC are 1 and Imc1 and Imc2 are 0,
    as in PyRadiomics. Without any pair of neighbours all are undefined (NaN).

    Args:
        counts: From `co_occurrence`.
        grey: The grey levels; the largest is the number of levels that Idmn and Idn divide by.
    """
    share = counts / counts.sum(axis=(1, 2), keepdims=True)
    margin = share.sum(2)
    mean = margin @ grey
    variance = (margin * (grey - mean[:, None]) ** 2).sum(1)
    sums, by_sum = _spread(share, grey[:, None] + grey)
    gaps, by_gap = _spread(share, np.abs(grey[:, None] - grey))
    squares = by_gap @ gaps**2
    gap_mean = by_gap @ gaps
    centred = sums - 2 * mean[:, None]
    product = ((by_sum @ sums**2) - squares) / 4  # (i + j)² − (i − j)² = 4 i j
    varies = variance > 1e-12 * np.maximum(mean**2, 1)
    entropy, margin_entropy = _entropy(share.reshape(len(share), len(grey) ** 2)), _entropy(margin)
    # The entropy of the product of the margins is twice that of a margin, under either distribution.
    known = np.maximum(2 * margin_entropy - entropy, 0.0)
    apart = gaps > 0
    top = grey.max()
    features = {
        "Autocorrelation": product,
        "ClusterProminence": (by_sum * centred**4).sum(1),
        "ClusterShade": (by_sum * centred**3).sum(1),
        "ClusterTendency": (by_sum * centred**2).sum(1),
        "Contrast": squares,
        "Correlation": np.where(varies, (product - mean**2) / np.where(varies, variance, 1), 1.0),
        "DifferenceAverage": gap_mean,
        "DifferenceEntropy": _entropy(by_gap),
        "DifferenceVariance": squares - gap_mean**2,
        "Id": by_gap @ (1 / (1 + gaps)),
        "Idm": by_gap @ (1 / (1 + gaps**2)),
        "Idmn": by_gap @ (1 / (1 + (gaps / top) ** 2)),
        "Idn": by_gap @ (1 / (1 + gaps / top)),
        "Imc1": np.where(margin_entropy > 0, -known / np.where(margin_entropy > 0, margin_entropy, 1), 0.0),
        "Imc2": np.sqrt(-np.expm1(-2 * known)),
        "InverseVariance": by_gap[:, apart] @ (1 / gaps[apart] ** 2),
        "JointAverage": mean,
        "JointEnergy": (share**2).sum((1, 2)),
        "JointEntropy": entropy,
        "MCC": _maximal_correlation(share, margin),
        "MaximumProbability": share.max((1, 2)),
        "SumAverage": by_sum @ sums,
        "SumEntropy": _entropy(by_sum),
        "SumSquares": variance,
    }
    return {name: float(value.mean()) if len(value) else float("nan") for name, value in features.items()}


def _spread(
    share: Float64[np.ndarray, "direction level level"], numbers: Float64[np.ndarray, "level level"]
) -> tuple[Float64[np.ndarray, " number"], Float64[np.ndarray, "direction number"]]:
    """Distribution, for each direction, of a whole number that belongs to each pair of levels."""
    flat = numbers.reshape(-1).astype(np.int64)
    length = int(flat.max()) + 1
    spread = [np.bincount(flat, weights=each.reshape(-1), minlength=length) for each in share]
    return np.arange(length, dtype=np.float64), np.array(spread).reshape(len(share), length)


def _entropy(share: Float64[np.ndarray, "direction part"]) -> Float64[np.ndarray, " direction"]:
    return -(share * np.log2(np.where(share > 0, share, 1.0))).sum(1)


def _maximal_correlation(
    share: Float64[np.ndarray, "direction level level"], margin: Float64[np.ndarray, "direction level"]
) -> Float64[np.ndarray, " direction"]:
    """Second singular value of p(i, j) / √(p(i) p(j)): the largest correlation of functions of both levels."""
    if share.shape[1] < 2:
        return np.ones(len(share))
    root = np.sqrt(np.where(margin > 0, margin, 1.0))
    values = np.linalg.eigvalsh(share / root[:, :, None] / root[:, None, :])
    return np.sort(np.abs(values), axis=1)[:, -2]
