"""Volumes with their place in the patient: voxels, and the matrix from voxel to world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from survlens.core.errors import InvalidValueError

_PARALLEL = 1e-3  # cosine between axes that are taken to be at right angles


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A scan or a mask: values on a grid, and where the grid lies.

    Voxel (i, j, k) has its centre at `affine @ (i, j, k, 1)`, in millimetres, RAS+: x to the patient's right, y to the
    front, z to the head, as in NIfTI. (DICOM counts x to the left and y to the back; readers turn it.)

    Attributes:
        values: Three axes, in any orientation.
        affine: Voxel to world.
        unit: What the values mean, such as "HU"; "arbitrary" where nothing is known.

    Raises:
        InvalidValueError: If there are not three axes, or the matrix is not finite and of full rank.
    """

    values: np.ndarray
    affine: Float64[np.ndarray, "4 4"]
    unit: str = "arbitrary"

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or 0 in self.values.shape:
            raise InvalidValueError(f"`values` must have three axes, none empty; got the shape {self.values.shape}.")
        matrix = np.asarray(self.affine)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise InvalidValueError(
                f"`affine` must be a finite 4 x 4 matrix of full rank; got {matrix.tolist()}. "
                "Check the spacing and orientation of the scan."
            )

    @property
    def spacing(self) -> Float64[np.ndarray, "3"]:
        """Millimetres between neighbouring voxels along each axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_millilitres(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def orthogonal(self) -> bool:
        """Whether the axes stand at right angles."""
        axes = self.affine[:3, :3] / self.spacing
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() < _PARALLEL)

    def world(self, voxels: Float64[np.ndarray, "point 3"]) -> Float64[np.ndarray, "point 3"]:
        """Places of voxels in millimetres, RAS+."""
        return np.asarray(voxels, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def voxel(self, world: Float64[np.ndarray, "point 3"]) -> Float64[np.ndarray, "point 3"]:
        """Voxel coordinates, not rounded, of places in millimetres, RAS+."""
        return np.linalg.solve(self.affine[:3, :3], (np.asarray(world) - self.affine[:3, 3]).T).T

    def canonical(self) -> Volume:
        """The same volume with its axes in the order and direction nearest to right, front, head."""
        axes = self.affine[:3, :3] / self.spacing
        order, directions = _nearest_axes(axes)
        values = self.values.transpose(order)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.affine[:3, :3][:, order], self.affine[:3, 3]
        for axis, direction in enumerate(directions):
            if direction < 0:
                values = np.flip(values, axis)
                matrix[:3, 3] += matrix[:3, axis] * (values.shape[axis] - 1)
                matrix[:3, axis] *= -1
        return Volume(values, matrix, self.unit)

    def same_grid(self, other: Volume) -> bool:
        """Whether both have one shape and place, to a hundredth of a voxel."""
        if self.values.shape != other.values.shape:
            return False
        corners = np.array(np.meshgrid(*[(0.0, side - 1.0) for side in self.values.shape])).reshape(3, -1).T
        return bool(np.abs(self.voxel(other.world(corners)) - corners).max() < 0.01)

    def cropped(self, start: Sequence[int], stop: Sequence[int], fill: float = 0.0) -> Volume:
        """The box of voxels from `start` up to before `stop`; what lies outside the volume is filled."""
        first, after = np.asarray(start), np.asarray(stop)
        if (after <= first).any():
            raise InvalidValueError(f"`stop` must be > `start` on every axis; got {first.tolist()}, {after.tolist()}.")
        values = np.full(after - first, fill, dtype=self.values.dtype)
        low, high = np.maximum(first, 0), np.minimum(after, self.values.shape)
        if (high > low).all():
            inside = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
            values[inside] = self.values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        matrix = self.affine.copy()
        matrix[:3, 3] = self.world(first[None].astype(np.float64))[0]
        return Volume(values, matrix, self.unit)

    def resampled(
        self, spacing: Sequence[float], *, shape: Sequence[int] | None = None, order: int = 1, fill: float | None = None
    ) -> Volume:
        """The same volume on a grid of another spacing, with the same middle.

        Args:
            spacing: Millimetres along each axis, > 0.
            shape: Voxels along each axis; as many as cover the volume where None.
            order: 0: the nearest voxel, for masks. 1: linear.
            fill: Value outside the volume; the smallest value where None.

        Raises:
            InvalidValueError: If `spacing` is not > 0, or `order` is neither 0 nor 1.
        """
        from scipy.ndimage import affine_transform

        target = np.asarray(spacing, dtype=np.float64)
        if target.shape != (3,) or not (np.isfinite(target) & (target > 0)).all() or order not in (0, 1):
            raise InvalidValueError(f"`spacing` must be three lengths > 0 and `order` 0 or 1; got {spacing}, {order}.")
        sides = np.asarray(self.values.shape)
        new = np.maximum(np.rint(sides * self.spacing / target), 1).astype(int) if shape is None else np.asarray(shape)
        scale = target / self.spacing
        shift = (sides - 1) / 2 - scale * (new - 1) / 2
        outside = float(self.values.min()) if fill is None else fill
        source = self.values.astype(np.float32) if order else self.values
        values = affine_transform(
            source,
            scale,
            shift,  # pyright: ignore[reportArgumentType]
            output_shape=tuple(new.tolist()),
            order=order,
            mode="grid-constant",  # "constant" would drop what lies within half a voxel of the border
            cval=outside,
        )
        matrix = self.affine.copy()
        matrix[:3, :3] = self.affine[:3, :3] * scale
        matrix[:3, 3] = self.world(shift[None])[0]
        return Volume(values, matrix, self.unit)

    def on_grid_of(self, other: Volume, *, order: int = 0, fill: float = 0.0) -> Volume:
        """The values at the voxels of another volume, wherever both lie; by default the nearest, as for masks."""
        from scipy.ndimage import affine_transform

        between = np.linalg.inv(self.affine) @ other.affine
        values = affine_transform(
            self.values.astype(np.float32) if order else self.values,
            between[:3, :3],
            between[:3, 3],  # pyright: ignore[reportArgumentType]
            output_shape=other.values.shape,
            order=order,
            mode="grid-constant",  # "constant" would drop what lies within half a voxel of the border
            cval=fill,
        )
        return Volume(values, other.affine, self.unit)


def box_of(mask: Bool[np.ndarray, "i j k"], margin: Sequence[int] = (0, 0, 0)) -> Int64[np.ndarray, "2 3"]:
    """First voxel, and voxel after the last, of what a mask covers, with a margin in voxels.

    Raises:
        InvalidValueError: If the mask is empty.
    """
    if not mask.any():
        raise InvalidValueError("`mask` must cover at least one voxel; got an empty mask.")
    voxels = [np.flatnonzero(mask.any(axis=tuple(each for each in range(3) if each != axis))) for axis in range(3)]
    low = np.array([each[0] for each in voxels]) - np.asarray(margin)
    return np.stack([low, np.array([each[-1] + 1 for each in voxels]) + np.asarray(margin)])


def _nearest_axes(axes: np.ndarray) -> tuple[list[int], list[int]]:
    """Which column of direction cosines lies nearest to x, y and z, and whether along or against it."""
    from scipy.optimize import linear_sum_assignment

    world, column = linear_sum_assignment(-np.abs(axes))
    order = [int(column[np.flatnonzero(world == axis)[0]]) for axis in range(3)]
    return order, [1 if axes[axis, order[axis]] >= 0 else -1 for axis in range(3)]
