"""Neighbouring grey tone difference: how far a voxel is from the mean of its neighbours (Amadasun and King 1989)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

_COARSEST = 1e6


def ngtdm_features(
    counts: Int64[np.ndarray, " level"],
    distance: Float64[np.ndarray, " level"],
    grey: Float64[np.ndarray, " level"],
) -> dict[str, float]:
    """The 5 features.

    With p_i the share of level i among voxels that have a neighbour, and s_i the summed distance of its voxels to the
    mean of their neighbours. Where a region has one level, or no distance at all, Coarseness is 10⁶ and the others are
    0, as in PyRadiomics. Without any two neighbours all are undefined (NaN).

    Args:
        counts: Voxels of each level that have a neighbour.
        distance: s_i.
        grey: The grey levels.
    """
    found = counts > 0
    voxels, total = counts.sum(), distance.sum()
    if not voxels:
        return dict.fromkeys(("Busyness", "Coarseness", "Complexity", "Contrast", "Strength"), float("nan"))
    share, level, apart = counts[found] / voxels, grey[found], distance[found]
    weighted = float(share @ apart)
    n = len(level)
    gap = np.abs(level[:, None] - level)
    both = share[:, None] + share
    imbalance = float(np.abs((level * share)[:, None] - level * share).sum())
    mixed = (share * apart)[:, None] + share * apart
    spread = float(share @ gap**2 @ share) / (n * (n - 1)) if n > 1 else 0.0
    return {
        "Busyness": weighted / imbalance if imbalance > 0 else 0.0,
        "Coarseness": 1 / weighted if weighted > 0 else _COARSEST,
        "Complexity": float((gap * mixed / both).sum() / voxels),
        "Contrast": spread * float(total) / float(voxels),
        "Strength": float((both * gap**2).sum() / total) if total > 0 else 0.0,
    }
