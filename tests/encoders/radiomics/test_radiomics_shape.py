"""Shape features: closed forms, all pairs of vertices, and what a mesh must obey."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from survlens.encoders.radiomics.mesh import CORNERS, _triangles, mesh_measures
from survlens.encoders.radiomics.shape import mesh_vertices, shape_2d_features, shape_features

ONE = np.ones(3)
drawn = settings(max_examples=40, deadline=None)


def masks(*sides):
    size = int(np.prod(sides))
    return st.lists(st.booleans(), min_size=size, max_size=size).map(lambda cells: np.array(cells).reshape(sides))


def ball(radius, spacing):
    reach = [int(np.ceil(radius / side)) + 1 for side in spacing]
    axes = np.meshgrid(*[np.arange(-n, n + 1) * side for n, side in zip(reach, spacing, strict=True)], indexing="ij")
    return sum(axis**2 for axis in axes) <= radius**2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_a_ball_is_round_and_has_its_volume(spacing):
    radius = 20.0
    found = shape_features(ball(radius, spacing), np.array(spacing))
    assert found["MeshVolume"] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)
    assert found["VoxelVolume"] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)
    # A mesh of voxel corners is about 9 % too large, however fine, so that a ball does not reach 1.
    assert 0.88 < found["Sphericity"] < 0.98
    assert found["Maximum3DDiameter"] == pytest.approx(2 * radius, rel=0.06)
    assert found["Elongation"] == pytest.approx(1, abs=0.01)
    assert found["Flatness"] == pytest.approx(1, abs=0.01)
    # A ball's variance along an axis is r² / 5.
    assert found["MajorAxisLength"] == pytest.approx(4 * radius / np.sqrt(5), rel=0.01)


def test_one_voxel_is_an_octahedron():
    area, volume = mesh_measures(np.ones((1, 1, 1), bool), ONE)
    assert volume == pytest.approx(1 / 6)
    assert area == pytest.approx(np.sqrt(3))


@pytest.mark.parametrize("sides", [(4, 5, 6), (3, 3, 9)])
def test_a_box_loses_its_edges(sides):
    """Edges are cut by planes through the middles: 1/8 for each voxel of an edge, 5/6 of three quarters at corners."""
    a, b, c = sides
    _, volume = mesh_measures(np.ones(sides, bool), ONE)
    edges = 4 * ((a - 1) + (b - 1) + (c - 1))
    # Cells: whole inside, half at faces, 1/8 at edges, 1/48 at corners.
    whole = (a - 1) * (b - 1) * (c - 1)
    faces = 2 * ((a - 1) * (b - 1) + (b - 1) * (c - 1) + (a - 1) * (c - 1))
    assert volume == pytest.approx(whole + faces / 2 + edges / 8 + 8 / 48)


@pytest.mark.parametrize("case", range(1, 128))
def test_a_case_cuts_each_mixed_edge_and_nothing_else(case):
    """Each mixed edge is a vertex; the border of the triangles lies on the faces of the cell, every segment once."""
    inside = {corner for corner in range(8) if case >> corner & 1}
    edges = {
        (a if a in inside else b, b if a in inside else a)
        for a, b in combinations(range(8), 2)
        if np.abs(CORNERS[a] - CORNERS[b]).sum() == 1 and (a in inside) != (b in inside)
    }
    triangles = _triangles(case)
    assert {cut for triangle in triangles for cut in triangle} == edges
    sides = [(t[k], t[(k + 1) % 3]) for t in triangles for k in range(3)]
    border = [side for side in sides if side[::-1] not in sides]
    assert len(set(sides)) == len(sides)
    assert sorted(a for a, _ in border) == sorted(edges) == sorted(b for _, b in border)
    for first, second in border:
        places = CORNERS[[*first, *second]]
        assert any(len(set(places[:, axis])) == 1 for axis in range(3))


@drawn
@given(mask=masks(4, 4, 4))
def test_a_mesh_keeps_its_measures_when_the_axes_scale_together(mask):
    assume(mask.any())
    area, volume = mesh_measures(mask, ONE)
    large = mesh_measures(mask, 3 * ONE)
    assert large == pytest.approx((9 * area, 27 * volume))
    assert mesh_measures(np.pad(mask, 2), ONE)[0] == pytest.approx(area)


@settings(max_examples=20, deadline=None)
@given(mask=masks(3, 4, 5), spacing=st.tuples(*[st.floats(0.5, 3)] * 3))
def test_diameters_equal_those_of_all_pairs(mask, spacing):
    assume(mask.any())
    steps = np.array(spacing)
    found = shape_features(mask, steps)
    vertices = mesh_vertices(mask)
    gaps = (vertices[:, None] - vertices) * steps / 2
    lengths = np.sqrt((gaps**2).sum(-1))
    assert found["Maximum3DDiameter"] == pytest.approx(lengths.max())
    for axis, name in enumerate(("Slice", "Column", "Row")):
        same = vertices[:, None, axis] == vertices[None, :, axis]
        assert found[f"Maximum2DDiameter{name}"] == pytest.approx(lengths[same].max())


def test_a_rectangle_in_the_plane():
    found = shape_2d_features(np.ones((4, 6), bool), np.array([1.0, 2.0]))
    assert found["PixelSurface"] == 48
    # Each corner loses 1/8 of a pixel beside the outline through the middles of the border pixels' outer sides.
    assert found["MeshSurface"] == pytest.approx(48 - 4 * 2 / 8)
    assert found["Perimeter"] == pytest.approx(2 * (3 * 1 + 5 * 2) + 4 * np.hypot(1, 2) / 2)
    assert found["MaximumDiameter"] == pytest.approx(np.hypot(3, 12))
    assert found["MajorAxisLength"] == pytest.approx(4 * 2 * np.sqrt(35 / 12))
    assert found["Elongation"] == pytest.approx(np.sqrt(15 / 12) / (2 * np.sqrt(35 / 12)))


def test_a_disc_is_rounder_than_a_square():
    yy, xx = np.mgrid[-30:31, -30:31]
    disc = shape_2d_features(yy**2 + xx**2 <= 900, np.ones(2))
    square = shape_2d_features(np.ones((50, 50), bool), np.ones(2))
    assert disc["Sphericity"] > 0.93 > square["Sphericity"]
    assert disc["MeshSurface"] == pytest.approx(np.pi * 900, rel=0.01)
    assert disc["Elongation"] == pytest.approx(1)


@drawn
@given(mask=masks(4, 5))
def test_an_outline_has_the_area_of_its_segments(mask):
    """Second route: line segments of each 2 x 2 cell, and the area by the shoelace formula."""
    assume(mask.any())
    padded = np.pad(mask, 1)
    length = area = 0.0
    for y, x in np.ndindex(padded.shape[0] - 1, padded.shape[1] - 1):
        corners = [(0, 0), (0, 1), (1, 1), (1, 0)]
        marks = [bool(padded[y + a, x + b]) for a, b in corners]
        middles = [np.add(corners[k], corners[(k + 1) % 4]) / 2 + (y, x) for k in range(4)]
        enters = [k for k in range(4) if not marks[k] and marks[(k + 1) % 4]]
        for enter in enters:
            # Joined across a corner: what is left is left where the next unmarked corner ends.
            leave = (
                (enter - 1) % 4
                if len(enters) == 2
                else next(k % 4 for k in range(enter + 1, enter + 4) if marks[k % 4] and not marks[(k + 1) % 4])
            )
            a, b = middles[enter], middles[leave]
            length += np.hypot(*(b - a))
            area += (a[0] * b[1] - a[1] * b[0]) / 2
    found = shape_2d_features(mask, np.ones(2)) if mask.sum() > 1 else None
    if found is not None:
        assert found["Perimeter"] == pytest.approx(length)
        assert found["MeshSurface"] == pytest.approx(abs(area))
