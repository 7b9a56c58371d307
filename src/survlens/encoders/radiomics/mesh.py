"""Surface area and volume of the marching-cubes mesh of a mask (Lorensen and Cline 1987), without building the mesh.

A cell joins the centres of 2 x 2 x 2 voxels; its case says which of its eight corners are inside, and the mesh cuts
each edge between inside and outside in the middle. What a cell adds to area and volume depends on its case and, for the
volume, linearly on its place, so that counting cases and summing places is enough.

The cases follow one convention, that of PyRadiomics (van Griethuysen 2017): corner 7 is outside (else inside and
outside are exchanged), and corners inside that touch only across a face are kept apart. Where a polygon is not flat its
diagonals matter; `_triangles` states them.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64

# Corners of a cell as (z, y, x); 0 to 3 go round the lower face, 4 to 7 lie above them.
CORNERS = np.array([(0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0)])
_FACES = ((0, 1, 2, 3), (4, 7, 6, 5), (0, 4, 5, 1), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 4, 0))
_EVEN_MIDDLE = frozenset((0b0101011, 0b0110110, 0b1000111))

Cut = tuple[int, int]  # an edge of the cell: its corner inside, its corner outside


def mesh_measures(mask: Bool[np.ndarray, "z y x"], spacing: Float64[np.ndarray, "3"]) -> tuple[float, float]:
    """Area and volume of the mesh round a mask, in the square and cube of the unit of `spacing`.

    The mesh is not quite closed where bodies touch across a face or edge, and then its volume depends on where places
    are counted from: give the mask cut to its box, as PyRadiomics does.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    sides = np.array(padded.shape) - 1
    cases = np.zeros(sides, np.uint8)
    for bit, (z, y, x) in enumerate(CORNERS):
        cases |= padded[z : z + sides[0], y : y + sides[1], x : x + sides[2]] << np.uint8(bit)
    cells = np.flatnonzero((cases != 0) & (cases != 255))
    found = cases.reshape(-1)[cells]
    counts = np.bincount(found, minlength=256)
    places = np.stack(
        [
            np.bincount(found, weights=place * step, minlength=256)
            for place, step in zip(np.unravel_index(cells, tuple(sides)), spacing, strict=True)
        ],
        axis=1,
    )
    areas, normals, volumes = _case_measures(tuple(map(float, spacing)))
    return float(counts @ areas), float(abs(counts @ volumes + (places * normals).sum()))


@cache
def _case_measures(spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a cell of each case adds: area, the volume's slope by the cell's place, the volume at place 0."""
    areas, normals, volumes = np.zeros(256), np.zeros((256, 3)), np.zeros(256)
    for case in range(1, 128):
        corners = np.array([[CORNERS[list(cut)].mean(0) for cut in triangle] for triangle in _triangles(case)])
        a, b, c = np.moveaxis(corners * np.array(spacing), 1, 0)
        normal = np.cross(b - a, c - a)
        areas[case] = areas[255 - case] = np.linalg.norm(normal, axis=1).sum() / 2
        normals[case], volumes[case] = normal.sum(0) / 6, (np.cross(a, b) * c).sum() / 6
        normals[255 - case], volumes[255 - case] = -normals[case], -volumes[case]
    return areas, normals, volumes


def _triangles(case: int) -> list[tuple[Cut, Cut, Cut]]:
    """Triangles of a case below 128, each by the edges it cuts.

    - Three cuts of one corner in a longer polygon (two bodies joined across a face): all diagonals leave the middle
      one.
    - Five cuts, of three corners in an L: a diagonal cuts off the corner of the L, which leaves a flat quadrangle.
    - Six cuts, of four corners in a skew chain: a triangle of every other cut, which takes the cut of that middle
      corner of the chain whose coordinates have an odd sum, in three cases the other one.
    """
    triangles = []
    for loop in _loops(case):
        uses: dict[int, list[int]] = {}
        for number, cut in enumerate(loop):
            for corner in cut:
                uses.setdefault(corner, []).append(number)
        threefold = [corner for corner, numbers in uses.items() if len(numbers) == 3]
        single = [corner for corner, numbers in uses.items() if len(numbers) == 1]
        if len(loop) > 3 and threefold:
            triangles += _fan(loop, _middle(uses[min(threefold)], len(loop)))
        elif len(loop) == 5:
            bend = next(corner for corner in single if len(_side(loop, corner, uses)) == 3)
            triangles += _fan(loop, uses[bend][0] + 1)
        elif len(loop) == 6 and single:
            inside = [corner for corner in single if case >> corner & 1]
            odd = [corner for corner in inside if CORNERS[corner].sum() % 2 == (case not in _EVEN_MIDDLE)]
            start = uses[odd[0]][0]
            ring = [loop[(start + step) % 6] for step in range(7)]
            triangles += [(ring[0], ring[2], ring[4]), *[(ring[at], ring[at + 1], ring[at + 2]) for at in (0, 2, 4)]]
        else:
            triangles += _fan(loop, 0)
    return triangles


def _loops(case: int) -> list[list[Cut]]:
    """The polygons of a case, by joining where each face is left to where that face was entered."""
    following: dict[Cut, Cut] = {}
    for face in _FACES:
        ring = [(corner, bool(case >> corner & 1)) for corner in (*face, *face)]
        for start in range(1, 5):
            if ring[start][1] and not ring[start - 1][1]:
                stop = next(at for at in range(start, 8) if not ring[at][1])
                following[ring[stop - 1][0], ring[stop][0]] = (ring[start][0], ring[start - 1][0])
    loops = []
    while following:
        loop = [next(iter(following))]
        while following[loop[-1]] != loop[0]:
            loop.append(following.pop(loop[-1]))
        following.pop(loop[-1])
        loops.append(loop)
    return loops


def _fan(loop: list[Cut], start: int) -> list[tuple[Cut, Cut, Cut]]:
    ring = [loop[(start + step) % len(loop)] for step in range(len(loop))]
    return [(ring[0], second, third) for second, third in pairwise(ring[1:])]


def _middle(numbers: list[int], length: int) -> int:
    """The one of three neighbours on a ring that has the other two beside it."""
    return next(each for each in numbers if (each - 1) % length in numbers and (each + 1) % length in numbers)


def _side(loop: list[Cut], corner: int, uses: dict[int, list[int]]) -> set[int]:
    """The corners on the same side of the polygon, inside or outside, as one of them."""
    side = loop[uses[corner][0]].index(corner)
    return {cut[side] for cut in loop}
