"""Sums over a table of grey level by size, which runs, zones and dependences share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True, slots=True, eq=False)
class LevelSizeSums:
    """Sums over counts n(i, j) of things (runs, zones, voxels) of level i and size j, one for each table of a stack.

    Attributes:
        counts: Of each level and size; a table for each direction, or one.
        grey: Levels i >= 1.
        size: Sizes j >= 1.
    """

    counts: Float64[np.ndarray, "direction level size"]
    grey: Float64[np.ndarray, " level"]
    size: Float64[np.ndarray, " size"]

    @property
    def total(self) -> Float64[np.ndarray, " direction"]:
        """How many things there are."""
        return self.counts.sum((1, 2))

    @property
    def by_level(self) -> Float64[np.ndarray, "direction level"]:
        """Shares of the levels."""
        return self.counts.sum(2) / self.total[:, None]

    @property
    def by_size(self) -> Float64[np.ndarray, "direction size"]:
        """Shares of the sizes."""
        return self.counts.sum(1) / self.total[:, None]

    def emphasis(self, grey_power: int, size_power: int) -> Float64[np.ndarray, " direction"]:
        """Mean of i^a j^b."""
        by_size = self.size**size_power
        return (self.counts @ by_size) @ self.grey**grey_power / self.total

    def entropy(self) -> Float64[np.ndarray, " direction"]:
        """−Σ p log₂ p over levels and sizes."""
        share = self.counts / self.total[:, None, None]
        return -(share * np.log2(np.where(share > 0, share, 1.0))).sum((1, 2))


def variance(share: Float64[np.ndarray, "direction part"], of: Float64[np.ndarray, " part"]) -> np.ndarray:
    """Variance of a number under each distribution."""
    mean = share @ of
    return (share * (of - mean[:, None]) ** 2).sum(1)


def averaged(features: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over the directions; NaN where there is none."""
    return {name: float(value.mean()) if len(value) else float("nan") for name, value in features.items()}
