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
    counts = np.zeros((len(offsets), n + 1, n + 1), np.int64)
    for voxel in voxels:
        own = levels[voxel]
        for direction in range(np.uint64(len(offsets))):
            counts[direction, own, levels[voxel + offsets[direction]]] += 1
    return counts[:, 1:, 1:]


@_compiled
def run_counts(
    levels: np.ndarray, voxels: np.ndarray, offsets: np.ndarray, n: int, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """How many unbroken runs of each level have each length along each direction, and where any two voxels touch."""
    counts = np.zeros((len(offsets), n + 1, longest + 1), np.int64)
    touching = np.zeros(len(offsets), np.bool_)
    lengths = np.zeros(len(levels), np.uint16)  # of the run up to and with a voxel
    for direction in range(np.uint64(len(offsets))):
        offset, any_before = offsets[direction], np.uint16(0)
        for voxel in voxels:
            own, before = levels[voxel], levels[voxel - offset]
            length = np.uint16(1) + (lengths[voxel - offset] if before == own else np.uint16(0))
            lengths[voxel] = length
            any_before |= before
            counts[direction, own, length] += levels[voxel + offset] != own
        touching[direction] = any_before != 0
    return counts[:, 1:, 1:], touching


@_compiled
def zone_sizes(levels: np.ndarray, voxels: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level and size of each connected zone of one level; `offsets` go both ways."""
    waiting = levels.copy()
    stack = np.empty(len(voxels), np.uint64)
    zones, sizes, found = np.empty(len(voxels), np.int64), np.empty(len(voxels), np.int64), 0
    one = np.uint64(1)
    for voxel in voxels:
        own = waiting[voxel]
        if not own:
            continue
        waiting[voxel] = 0
        stack[0], depth, size = voxel, one, 0
        while depth:
            depth -= one
            place = stack[depth]
            size += 1
            for offset in offsets:
                if waiting[place + offset] == own:
                    waiting[place + offset] = 0
                    stack[depth] = place + offset
                    depth += one
        zones[found], sizes[found] = np.int64(own) - 1, size
        found += 1
    return zones[:found], sizes[:found]


@_compiled
def neighbourhoods(
    levels: np.ndarray, voxels: np.ndarray, offsets: np.ndarray, grey: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal neighbours and distances to the mean of the neighbours.

    Counts of each level by its number of equal neighbours; of each level, voxels that have any neighbour; and the sum
    of their distances to the mean of their neighbours.
    """
    n = len(grey)
    equal_counts = np.zeros((n + 1, len(offsets) + 1), np.int64)
    touching, distance = np.zeros(n + 1, np.int64), np.zeros(n + 1)
    value = np.zeros(n + 1)
    value[1:] = grey
    for voxel in voxels:
        own = levels[voxel]
        equal, around, total = np.uint64(0), np.uint64(0), 0.0
        for offset in offsets:
            other = levels[voxel + offset]
            around += np.uint64(other != 0)
            equal += np.uint64(other == own)
            total += value[other]
        equal_counts[own, equal] += 1
        if around:
            touching[own] += 1
            distance[own] += abs(value[own] - total / around)
    return equal_counts[1:], touching[1:], distance[1:]
