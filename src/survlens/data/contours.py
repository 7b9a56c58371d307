"""Structures drawn as contours (RTSTRUCT) and stored masks (DICOM-SEG) on the grid of a scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from survlens.core.errors import CorruptFileError, DataError, MissingDependencyError
from survlens.data.dicom import LPS_TO_RAS, MOST_VOXELS
from survlens.data.dicom_headers import pydicom_module, quiet
from survlens.data.geometry import Volume

_OFF_PLANE = 0.35  # of the distance of slices: contours further from a slice's plane belong to no slice
_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A named structure: closed contours, each in one plane.

    Attributes:
        name: As the file has it, such as "GTV-1".
        contours: One (point, 3) array each, in millimetres, RAS+.
        fault: What is wrong with a contour, in words; "" where nothing is.
    """

    name: str
    contours: tuple[np.ndarray, ...]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """What a structure set or segmentation was drawn on.

    Attributes:
        series: Identifiers of series.
        frames: Identifiers of frames of reference.
    """

    series: frozenset[str]
    frames: frozenset[str]

    @classmethod
    def of(cls, header: Any) -> References:
        """What the header of an RTSTRUCT or DICOM-SEG file refers to."""
        series = {str(each.get("SeriesInstanceUID") or "") for each in header.get("ReferencedSeriesSequence") or []}
        frames = {str(header.get("FrameOfReferenceUID") or "")}
        for frame in header.get("ReferencedFrameOfReferenceSequence") or []:
            frames.add(str(frame.get("FrameOfReferenceUID") or ""))
            for study in frame.get("RTReferencedStudySequence") or []:
                for each in study.get("RTReferencedSeriesSequence") or []:
                    series.add(str(each.get("SeriesInstanceUID") or ""))
        return cls(frozenset(series - {""}), frozenset(frames - {""}))

    def meets(self, series: str, frame: str) -> bool:
        """Whether a scan is meant: by its series where series are named, else by its frame of reference.

        Args:
            series: Identifier of the scan's series.
            frame: Identifier of its frame of reference.
        """
        return series in self.series if self.series else frame in self.frames


def read_structures(path: Path, name: str = "") -> tuple[Structure, ...]:
    """The structures of an RTSTRUCT file.

    A structure with a broken contour carries its fault and is refused once it is asked for.

    Args:
        path: The file.
        name: What messages call it; its name by default.

    Raises:
        CorruptFileError: If the file is no structure set, or has no structures.
    """
    name, pydicom = name or path.name, pydicom_module()
    try:
        with quiet():
            header = pydicom.dcmread(path)
            names = {int(each.ROINumber): str(each.ROIName) for each in header.get("StructureSetROISequence", [])}
            found = [
                _structure(names.get(int(each.ReferencedROINumber), ""), each.get("ContourSequence") or [])
                for each in header.get("ROIContourSequence", [])
            ]
    except Exception as err:
        raise CorruptFileError(
            f"{name} must be a DICOM structure set; it cannot be read ({type(err).__name__}). Export it again."
        ) from None
    if not found:
        raise CorruptFileError(f"{name} must hold structures with contours; it has none. Choose another file.")
    return tuple(found)


def _structure(name: str, items: Iterable[Any]) -> Structure:
    drawn, fault = [], ""
    for number, item in enumerate(items, 1):
        if str(item.get("ContourGeometricType", "")) not in _CLOSED:
            continue
        points = np.array([float(value) for value in np.atleast_1d(item.get("ContourData") or [])])
        if len(points) % 3:
            fault = f"contour {number} has {len(points)} numbers, which is no multiple of three"
        elif not np.isfinite(points).all():
            fault = f"contour {number} has numbers that are not finite"
        elif len(points) >= 9:
            drawn.append(points.reshape(-1, 3) @ LPS_TO_RAS[:3, :3])
    return Structure(name, tuple(drawn), fault)


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
        if each.fault:
            raise DataError(f"the contours of {each.name!r} must be closed polygons; {each.fault}. Export them again.")
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


def read_segmentation(path: Path, label: str | None, volume: Volume, name: str = "") -> Bool[np.ndarray, "i j k"]:
    """A segment of a DICOM-SEG file on the grid of a scan.

    Frames are placed by their own position, since empty ones are not stored.

    Args:
        path: The file.
        label: Label of the segment, without regard to case; needed where there are several.
        volume: The scan.
        name: What messages call the file; its name by default.

    Raises:
        CorruptFileError: If the file is no segmentation.
        DataError: If no segment has the label, the segment is empty or lies off the volume.
    """
    name = name or path.name
    stored, segments = _open_segmentation(path, name)
    chosen = [
        number for number, words in segments.items() if label is None or words.strip().lower() == label.strip().lower()
    ]
    if not chosen or (label is None and len(chosen) > 1):
        raise DataError(f"`label` must be one of the segments {', '.join(segments.values())}; got {label!r}.")
    try:
        with quiet():
            geometry = stored.get_volume_geometry()
            bearable = geometry is not None and np.prod(geometry.spatial_shape, dtype=np.float64) <= MOST_VOXELS / 8
            found = stored.get_volume(segment_numbers=chosen, combine_segments=True, skip_overlap_checks=True) if (
                bearable
            ) else None  # fmt: skip
            values, place = (None, None) if found is None else (np.asarray(found.array), np.asarray(found.affine))
    except Exception as err:
        raise CorruptFileError(
            f"{name} must hold readable frames; they cannot be decoded ({type(err).__name__}). Export it again."
        ) from None
    if values is None:
        raise DataError(f"the frames of {name} must lie on one regular grid of bearable size; they do not.")
    shown = label or segments[chosen[0]]
    if not (values > 0).any():
        raise DataError(f"the segment {shown!r} must cover voxels; it is empty. Draw it, or choose another.")
    mask = Volume((values > 0).astype(np.uint8), LPS_TO_RAS @ place).on_grid_of(volume).values > 0
    if not mask.any():
        raise DataError(
            f"the segment {shown!r} must cover voxels of the volume; it lies off it. "
            "Check that segmentation and scan belong together."
        )
    return mask


def segment_labels(path: Path, name: str = "") -> tuple[str, ...]:
    """Labels of the segments of a DICOM-SEG file.

    Args:
        path: The file.
        name: What messages call it; its name by default.

    Raises:
        CorruptFileError: If the file is no segmentation.
    """
    return tuple(_open_segmentation(path, name or path.name)[1].values())


def _open_segmentation(path: Path, name: str) -> tuple[Any, dict[int, str]]:
    try:
        import highdicom
    except ImportError as err:
        raise MissingDependencyError(
            "Reading DICOM-SEG needs highdicom; it is not installed. Run: pip install survlens[imaging]"
        ) from err
    try:
        with quiet():
            stored: Any = highdicom.seg.segread(path)
            segments = {int(each.SegmentNumber): str(each.SegmentLabel) for each in stored.SegmentSequence}
    except Exception as err:
        raise CorruptFileError(
            f"{name} must be a DICOM segmentation; it cannot be read ({type(err).__name__}). Export it again."
        ) from None
    return stored, segments
