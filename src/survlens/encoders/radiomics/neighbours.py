"""Compiled counting over the voxels of a region: pairs, runs, zones and neighbourhoods.

Importing this module imports numba (0.5 s), so it is done on first use.

Notation: `levels` is a grid with a border of zeros, laid flat; 0 is outside the region, else 1 + the number of the grey
level. `voxels` are the places of the region in it, rising, and `offsets` the steps to neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep the compiled code: a read-only installation without a home
        return numba.njit(nogil=True)(function)


@_compiled
def pair_counts(levels: np.ndarray, voxels: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """How often level a is followed by level b along each direction."""
    counts = np.zeros((len(offsets), n, n), np.int64)
    for voxel in voxels:
        own = levels[voxel]
        for direction in range(len(offsets)):
            other = levels[voxel + offsets[direction]]
            if other:
                counts[direction, own - 1, other - 1] += 1
    return counts


@_compiled
def run_counts(
    levels: np.ndarray, voxels: np.ndarray, offsets: np.ndarray, n: int, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """How many unbroken runs of each level have each length along each direction, and where any two voxels touch."""
    counts = np.zeros((len(offsets), n, longest), np.int64)
    touching = np.zeros(len(offsets), np.bool_)
    for voxel in voxels:
        own = levels[voxel]
        for direction in range(len(offsets)):
            offset = offsets[direction]
            if levels[voxel - offset] != own:
                place, length = voxel + offset, 1
                while levels[place] == own:
                    place += offset
                    length += 1
                counts[direction, own - 1, length - 1] += 1
                if length > 1 or levels[place]:
                    touching[direction] = True
    return counts, touching


@_compiled
def zone_sizes(levels: np.ndarray, voxels: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level and size of each connected zone of one level; `offsets` go both ways."""
    waiting = levels.copy()
    stack = np.empty(len(voxels), np.int64)
    zones, sizes, found = np.empty(len(voxels), np.int64), np.empty(len(voxels), np.int64), 0
    for voxel in voxels:
        own = waiting[voxel]
        if not own:
            continue
        waiting[voxel] = 0
        stack[0], depth, size = voxel, 1, 0
        while depth:
            depth -= 1
            place = stack[depth]
            size += 1
            for offset in offsets:
                if waiting[place + offset] == own:
                    waiting[place + offset] = 0
                    stack[depth] = place + offset
                    depth += 1
        zones[found], sizes[found] = own - 1, size
        found += 1
    return zones[:found], sizes[:found]


@_compiled
def neighbourhoods(
    levels: np.ndarray, voxels: np.ndarray, offsets: np.ndarray, grey: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of each level by its number of equal neighbours; of each level, voxels with any neighbour, and their sum
    of distances to the mean of the neighbours."""
    n = len(grey)
    equal_counts = np.zeros((n, len(offsets) + 1), np.int64)
    touching, distance = np.zeros(n, np.int64), np.zeros(n)
    for voxel in voxels:
        own = levels[voxel]
        equal, around, total = 0, 0, 0.0
        for offset in offsets:
            other = levels[voxel + offset]
            if other:
                around += 1
                total += grey[other - 1]
                if other == own:
                    equal += 1
        equal_counts[own - 1, equal] += 1
        if around:
            touching[own - 1] += 1
            distance[own - 1] += abs(grey[own - 1] - total / around)
    return equal_counts, touching, distance
