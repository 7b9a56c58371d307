"""A region of an image in grey levels, ready for counting."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from survlens.core.errors import InvalidValueError

MOST_LEVELS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class GreyRegion:
    """Voxels of a region with their grey levels.

    Attributes:
        grey: Levels that occur, rising; 1 is the lowest.
        voxel_counts: Voxels of each.
        levels: Grid with a border, laid flat: 0 outside, else 1 + the place in `grey`.
        voxels: Places of the region in `levels`.
        directions: Steps in `levels` to one of each two opposite neighbours. Places and steps are unsigned, for which
            compiled code need not ask whether an index counts from the end; a step back is the step's complement.
        longest: Longest side of the region in voxels.
    """

    grey: Float64[np.ndarray, " level"]
    voxel_counts: Int64[np.ndarray, " level"]
    levels: np.ndarray
    voxels: UInt64[np.ndarray, " voxel"]
    directions: UInt64[np.ndarray, " direction"]
    longest: int

    @property
    def both_ways(self) -> UInt64[np.ndarray, " neighbour"]:
        """Steps to all neighbours."""
        return np.concatenate([self.directions, -self.directions])


def grey_region(mask: Bool[np.ndarray, "z y x"], levels: Int64[np.ndarray, " voxel"], *, in_plane: bool) -> GreyRegion:
    """The region of a mask that is cut to its box, with the levels of its voxels in the order of the array.

    Raises:
        InvalidValueError: If there are more than 2,000 different levels.
    """
    grey, numbers, counts = _ranked(levels)
    if len(grey) > MOST_LEVELS:
        raise InvalidValueError(
            f"`bin_width` must leave at most {MOST_LEVELS:,} grey levels; got {len(grey):,}. "
            "Widen the bins, or give `bin_count`."
        )
    sides = np.array(mask.shape) + 2
    grid = np.zeros(sides, np.uint16)
    grid[1:-1, 1:-1, 1:-1][mask] = numbers + 1
    steps = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0) and not (in_plane and step[0])]
    strides = np.array([sides[1] * sides[2], sides[2], 1])
    flat = grid.reshape(-1)
    voxels, directions = np.flatnonzero(flat).astype(np.uint64), (np.array(steps) @ strides).astype(np.uint64)
    return GreyRegion(grey.astype(np.float64), counts, flat, voxels, directions, max(mask.shape))


def bin_levels(
    values: Float64[np.ndarray, " voxel"], *, bin_width: float, bin_count: int | None
) -> Int64[np.ndarray, " voxel"]:
    """Grey levels from 1: of equal width, beginning at multiples of the width, or a given number of them.

    With a width w the level is ⌊x / w⌋ − ⌊min / w⌋ + 1; with a count b it is ⌊b (x − min) / (max − min)⌋ + 1, and b at
    the maximum.
    """
    low = values.min()
    if bin_count is None:
        return (np.floor(values / bin_width) - np.floor(low / bin_width)).astype(np.int64) + 1
    span = values.max() - low
    if span == 0:
        return np.ones(len(values), np.int64)
    return np.minimum((values - low) * (bin_count / span), bin_count - 1).astype(np.int64) + 1


def _ranked(levels: Int64[np.ndarray, " voxel"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels that occur, the rank of each voxel's level among them, and how many voxels have it."""
    if levels.max() > 16 * len(levels) + 100_000:
        return np.unique(levels, return_inverse=True, return_counts=True)
    counts = np.bincount(levels)
    grey = np.flatnonzero(counts)
    ranks = np.zeros(len(counts), np.int64)
    ranks[grey] = np.arange(len(grey))
    return grey, ranks[levels], counts[grey]
