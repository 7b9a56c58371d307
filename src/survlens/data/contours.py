"""Structures drawn as contours (RTSTRUCT) and stored masks (DICOM-SEG) on the grid of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from survlens.core.errors import CorruptFileError, DataError, MissingDependencyError
from survlens.data.dicom import LPS_TO_RAS
from survlens.data.geometry import Volume

_OFF_PLANE = 0.35  # of the distance of slices: contours further from a slice's plane belong to no slice
_SAME = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A named structure: closed contours, each in one plane.

    Attributes:
        name: As the file has it, such as "GTV-1".
        contours: One (point, 3) array each, in millimetres, RAS+.
    """

    name: str
    contours: tuple[np.ndarray, ...]


def read_structures(path: Path) -> tuple[Structure, ...]:
    """The structures of an RTSTRUCT file.

    Raises:
        CorruptFileError: If the file is no structure set, or a contour is broken.
    """
    try:
        import pydicom
    except ImportError as err:
        raise MissingDependencyError(
            "Reading DICOM needs pydicom; it is not installed. Run: pip install survlens[imaging]"
        ) from err
    try:
        header = pydicom.dcmread(path)
        names = {int(each.ROINumber): str(each.ROIName) for each in header.get("StructureSetROISequence", [])}
        found = []
        for each in header.get("ROIContourSequence", []):
            drawn = [_points(item) for item in each.get("ContourSequence", []) if _closed(item)]
            found.append(Structure(names.get(int(each.ReferencedROINumber), ""), tuple(drawn)))
    except Exception as err:
        raise CorruptFileError(
            f"{path.name} must be a DICOM structure set; it cannot be read. Export it again."
        ) from err
    if not found:
        raise CorruptFileError(f"{path.name} must hold structures with contours; it has none. Choose another file.")
    return tuple(found)


def structure_mask(structures: Sequence[Structure], name: str, volume: Volume) -> Bool[np.ndarray, "i j k"]:
    """Voxels of `volume` whose centres lie inside a structure: even-odd, so that a contour in a contour is a hole.

    Args:
        structures: What `read_structures` found.
        name: Name of the structure, without regard to case; several of one name are united.
        volume: The scan whose third axis runs across the contours' planes.

    Raises:
        DataError: If no structure has the name, it has no contours, or they lie off the volume.
    """
    chosen = [each for each in structures if each.name.strip().lower() == name.strip().lower()]
    if not chosen:
        listed = ", ".join(sorted(each.name for each in structures))
        raise DataError(f"`name` must be one of the structures {listed}; got {name!r}.")
    height, width, depth = volume.values.shape
    mask = np.zeros((height, width, depth), dtype=bool)
    contours = 0
    for each in chosen:
        own = np.zeros_like(mask)
        for contour in each.contours:
            points = volume.voxel(contour)
            place = float(points[:, 2].mean())
            plane = int(np.rint(place))
            if np.abs(points[:, 2] - place).max() > _OFF_PLANE:
                raise DataError(f"the contours of {each.name!r} must lie in the planes of the slices; some cross them.")
            if not 0 <= plane < depth or abs(place - plane) > _OFF_PLANE:
                raise DataError(
                    f"the contours of {each.name!r} must lie on slices of the volume; one lies at slice {place:.2f} of "
                    f"{depth}. Check that structure set and scan belong together."
                )
            own[:, :, plane] ^= polygon_mask(points[:, :2], (height, width))
            contours += 1
        mask |= own
    if not contours:
        raise DataError(f"the structure {name!r} must have closed contours; it has none. Draw it, or choose another.")
    if not mask.any():
        raise DataError(f"the structure {name!r} must cover voxels of the volume; it lies off it or is too small.")
    return mask


def polygon_mask(points: np.ndarray, shape: tuple[int, int]) -> Bool[np.ndarray, "i j"]:
    """Pixels whose centres lie inside a closed polygon, by the even-odd rule.

    A row of pixels is crossed by the edges whose ends lie on both sides of it; a pixel is inside if the number of
    crossings before it is odd. An end exactly on the row counts as above, so that a corner is crossed once or twice as
    it should be.

    Args:
        points: Corners as (row, column), not rounded.
        shape: Rows and columns of the picture.
    """
    start, end = points, np.roll(points, -1, axis=0)
    mask = np.zeros(shape, dtype=bool)
    low = max(int(np.ceil(points[:, 0].min())), 0)
    high = min(int(np.floor(points[:, 0].max())), shape[0] - 1)
    columns = np.arange(shape[1])
    for row in range(low, high + 1):
        across = (start[:, 0] <= row) != (end[:, 0] <= row)
        if not across.any():
            continue
        a, b = start[across], end[across]
        crossings = np.sort(a[:, 1] + (row - a[:, 0]) / (b[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]))
        mask[row] = np.searchsorted(crossings, columns, side="right") % 2 == 1
    return mask


def read_segmentation(path: Path, label: str | None, volume: Volume) -> Bool[np.ndarray, "i j k"]:
    """A segment of a DICOM-SEG file on the grid of a scan.

    Frames are placed by their own position, since empty ones are not stored.

    Args:
        path: The file.
        label: Label of the segment, without regard to case; needed where there are several.
        volume: The scan.

    Raises:
        CorruptFileError: If the file is no segmentation.
        DataError: If no segment has the label, or the segment lies off the volume.
    """
    try:
        import highdicom
    except ImportError as err:
        raise MissingDependencyError(
            "Reading DICOM-SEG needs highdicom; it is not installed. Run: pip install survlens[imaging]"
        ) from err
    try:
        stored: Any = highdicom.seg.segread(path)
        segments = {int(each.SegmentNumber): str(each.SegmentLabel) for each in stored.SegmentSequence}
    except Exception as err:
        raise CorruptFileError(
            f"{path.name} must be a DICOM segmentation; it cannot be read. Export it again."
        ) from err
    chosen = [number for number, words in segments.items() if label is None or words.lower() == label.lower()]
    if not chosen or (label is None and len(chosen) > 1):
        raise DataError(f"`label` must be one of the segments {', '.join(segments.values())}; got {label!r}.")
    try:
        found = stored.get_volume(segment_numbers=chosen, combine_segments=True, skip_overlap_checks=True)
        values, place = np.asarray(found.array), LPS_TO_RAS @ np.asarray(found.affine)
    except Exception as err:
        raise CorruptFileError(
            f"{path.name} must hold readable frames; they cannot be decoded. Export it again."
        ) from err
    mask = Volume((values > 0).astype(np.uint8), place).on_grid_of(volume).values > 0
    if not mask.any():
        raise DataError(
            f"the segment {label or segments[chosen[0]]!r} must cover voxels of the volume; it lies off it. "
            "Check that segmentation and scan belong together."
        )
    return mask


def _closed(item: Any) -> bool:
    return str(item.get("ContourGeometricType", "")) == "CLOSED_PLANAR" and len(item.get("ContourData", [])) >= 9


def _points(item: Any) -> np.ndarray:
    points = np.array([float(value) for value in item.ContourData]).reshape(-1, 3)
    return points @ LPS_TO_RAS[:3, :3]
