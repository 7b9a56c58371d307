"""Size and form of a region, whatever its values: 14 features in space, 9 in a plane (van Griethuysen 2017)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from survlens.encoders.radiomics.mesh import mesh_measures


def shape_features(mask: Bool[np.ndarray, "z y x"], spacing: Float64[np.ndarray, "3"]) -> dict[str, float]:
    """Shape in space.

    With A and V area and volume of the mesh, Sphericity is (36 π V²)^⅓ / A, 1 for a ball. Axis lengths are 4 √λ for the
    eigenvalues λ of the covariance of the voxels' places; Elongation √(λ_minor / λ_major), Flatness
    √(λ_least / λ_major), both undefined (NaN) for a single voxel. Diameters are between vertices of the mesh, in planes
    of constant z (Slice), y (Column) and x (Row), or any.

    Args:
        mask: The region, not empty, cut to its box.
        spacing: Millimetres along z, y, x.
    """
    area, volume = mesh_measures(mask, spacing)
    lengths = _axis_lengths(mask, spacing)
    corners = mesh_vertices(mask)
    planes = [_widest_in_planes(corners, axis, spacing) for axis in range(3)]
    return {
        "Elongation": _ratio(lengths[1], lengths[0]),
        "Flatness": _ratio(lengths[2], lengths[0]),
        "LeastAxisLength": lengths[2],
        "MajorAxisLength": lengths[0],
        "Maximum2DDiameterColumn": planes[1],
        "Maximum2DDiameterRow": planes[2],
        "Maximum2DDiameterSlice": planes[0],
        "Maximum3DDiameter": _widest(_row_ends(corners, (0, 1, 2)) * (spacing / 2)),
        "MeshVolume": volume,
        "MinorAxisLength": lengths[1],
        "Sphericity": float(np.cbrt(36 * np.pi * volume**2)) / area,
        "SurfaceArea": area,
        "SurfaceVolumeRatio": area / volume,
        "VoxelVolume": float(mask.sum() * spacing.prod()),
    }


def shape_2d_features(mask: Bool[np.ndarray, "y x"], spacing: Float64[np.ndarray, "2"]) -> dict[str, float]:
    """Shape in a plane.

    The outline joins the middles between a pixel inside and one outside; with P its length and A the area within,
    Sphericity is 2 √(π A) / P, 1 for a disc. Pixels that touch at a corner only are joined there.

    Args:
        mask: The region, not empty.
        spacing: Millimetres along y and x.
    """
    perimeter, surface = _outline(mask, spacing)
    lengths = _axis_lengths(mask, spacing)
    return {
        "Elongation": _ratio(lengths[1], lengths[0]),
        "MajorAxisLength": lengths[0],
        "MaximumDiameter": _widest(mesh_vertices(mask) * (spacing / 2)),
        "MeshSurface": surface,
        "MinorAxisLength": lengths[1],
        "Perimeter": perimeter,
        "PerimeterSurfaceRatio": perimeter / surface,
        "PixelSurface": float(mask.sum() * spacing.prod()),
        "Sphericity": float(2 * np.sqrt(np.pi * surface)) / perimeter,
    }


def mesh_vertices(mask: np.ndarray) -> np.ndarray:
    """Middles between neighbours inside and outside, in half voxels from the middle of the first voxel."""
    padded = np.pad(mask, 1)
    vertices = []
    for axis in range(mask.ndim):
        places = np.argwhere(np.diff(padded.view(np.int8), axis=axis)) * 2 - 2
        places[:, axis] += 1
        vertices.append(places)
    return np.concatenate(vertices)


def _axis_lengths(mask: np.ndarray, spacing: np.ndarray) -> list[float]:
    """4 √λ of the covariance of the places, longest first."""
    places = np.argwhere(mask) * spacing
    centred = places - places.mean(0)
    values = np.linalg.eigvalsh(centred.T @ centred / len(places))[::-1]
    largest = max(float(values[0]), 0.0)
    return [4 * float(np.sqrt(value)) if value > 1e-12 * largest else 0.0 for value in values]


def _ratio(short: float, long: float) -> float:
    return short / long if long > 0 else float("nan")


def _widest_in_planes(vertices: np.ndarray, axis: int, spacing: np.ndarray) -> float:
    """Largest distance of two vertices that agree on an axis; planes with a wide box come first."""
    from scipy.spatial.distance import pdist

    rows, columns = (each for each in range(3) if each != axis)
    ends = _row_ends(vertices, (axis, rows, columns))
    starts = np.flatnonzero(np.diff(ends[:, axis], prepend=ends[0, axis] - 1))
    scaled = ends[:, [rows, columns]] * (spacing[[rows, columns]] / 2)
    sides = np.maximum.reduceat(scaled, starts) - np.minimum.reduceat(scaled, starts)
    diagonals = np.hypot(*sides.T)
    planes = np.split(scaled, starts[1:])
    widest = 0.0
    for number in np.argsort(-diagonals):
        if diagonals[number] <= widest:
            break
        widest = max(widest, float(pdist(planes[number]).max()))
    return widest


def _row_ends(vertices: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """First and last vertex of each row along the last of the axes, sorted; a longest line ends at two of them."""
    key = np.zeros(len(vertices), np.int64)
    for axis in axes:
        low = vertices[:, axis].min()
        key = key * (vertices[:, axis].max() - low + 1) + vertices[:, axis] - low
    span = np.ptp(vertices[:, axes[-1]]) + 1
    order = np.argsort(key)
    row = key[order] // span
    first = np.diff(row, prepend=-1) != 0
    return vertices[order[first | np.roll(first, -1)]]


def _widest(points: np.ndarray) -> float:
    """Largest distance of two points, by the corners of their convex hull."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    return float(pdist(points[ConvexHull(points).vertices]).max())


def _outline(mask: Bool[np.ndarray, "y x"], spacing: Float64[np.ndarray, "2"]) -> tuple[float, float]:
    """Length of the outline and the area within, by the 16 cases of 2 x 2 pixels."""
    padded = np.pad(mask, 1).view(np.uint8)
    corners = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, :-1] << 2 | padded[1:, 1:] << 3
    counts = np.bincount(corners.reshape(-1), minlength=16)
    inside = np.array([bin(case).count("1") for case in range(16)])
    diagonal = np.isin(np.arange(16), (0b0110, 0b1001))
    along_y, along_x = np.isin(np.arange(16), (0b0101, 0b1010)), np.isin(np.arange(16), (0b0011, 0b1100))
    slant = float(np.hypot(*spacing)) / 2
    lengths = np.where(inside % 2 == 1, slant, 0) + along_y * spacing[0] + along_x * spacing[1] + diagonal * 2 * slant
    shares = np.array([0, 1 / 8, 1 / 2, 7 / 8, 1])[inside] + diagonal * 0.25
    return float(counts @ lengths), float(counts @ shares * spacing.prod())
