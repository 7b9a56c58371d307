"""DICOM series as volumes: sorted by place, rescaled slice by slice, with the faults of real exports found and named.

Nothing that identifies a person is kept: of a header only what a volume needs is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from survlens.core.errors import CorruptFileError, DataError, MissingDependencyError
from survlens.data.geometry import Volume

MOST_VOXELS = 1_500_000_000
"""A series of more voxels is refused before anything is decoded."""
_UNEVEN = 0.01  # share by which the distance of slices may differ
_TILT = 1e-3  # shear, as a share of the distance of slices
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TAGS = (
    "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "Rows", "Columns", "RescaleSlope", "RescaleIntercept", "PhotometricInterpretation",
    "GantryDetectorTilt", "BurnedInAnnotation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slice:
    """What is kept of a file's header.

    Attributes:
        path: Where the file is.
        series: Identifier of the series; used for grouping only.
        instance: Identifier of the image; contours refer to it.
        modality: "CT", "MR" ...
        position: Place of the first pixel's centre, DICOM coordinates (LPS).
        rows: Direction in which the row index rises.
        columns: Direction in which the column index rises.
        spacing: Millimetres between rows and between columns.
        shape: Rows and columns.
        tilt: Tilt of the gantry in degrees, as the header has it.
        burned_in: Whether the header says that text is burned into the picture.
    """

    path: Path
    series: str
    instance: str
    modality: str
    position: tuple[float, ...]
    rows: tuple[float, ...]
    columns: tuple[float, ...]
    spacing: tuple[float, ...]
    shape: tuple[int, int]
    tilt: float
    burned_in: bool

    @property
    def normal(self) -> np.ndarray:
        """Direction of the slices: along a row times down a column."""
        return np.cross(self.columns, self.rows)


@dataclass(frozen=True, slots=True)
class Series:
    """Slices of one series, orientation and size, in the order of their place along the normal."""

    slices: tuple[Slice, ...]

    @property
    def modality(self) -> str:
        """What took the pictures."""
        return self.slices[0].modality

    @property
    def places(self) -> np.ndarray:
        """Place of each slice along the normal, in millimetres."""
        return np.array([np.dot(each.position, self.slices[0].normal) for each in self.slices])

    @property
    def affine(self) -> np.ndarray:
        """Voxel (row, column, slice) to world, RAS+.

        Raises:
            DataError: If there is one slice only.
        """
        first, last = self.slices[0], self.slices[-1]
        if len(self.slices) < 2:
            raise DataError(f"{first.path.name} must have neighbours to be a volume; got a series of one slice.")
        matrix = np.eye(4)
        matrix[:3, 0] = np.array(first.rows) * first.spacing[0]
        matrix[:3, 1] = np.array(first.columns) * first.spacing[1]
        matrix[:3, 2] = (np.array(last.position) - np.array(first.position)) / (len(self.slices) - 1)
        matrix[:3, 3] = first.position
        return LPS_TO_RAS @ matrix

    def faults(self) -> tuple[str, ...]:
        """What is wrong with the series as a volume, in words; empty where nothing is."""
        found, first = [], self.slices[0]
        gaps = np.diff(self.places)
        if len(gaps) and (gaps < 1e-3).any():
            found.append(f"{int((gaps < 1e-3).sum())} slices stand at a place that another has")
        gaps = gaps[gaps >= 1e-3]
        usual = float(np.median(gaps)) if len(gaps) else 0.0
        if len(gaps) and np.abs(gaps - usual).max() > _UNEVEN * usual:
            missing = int(np.maximum(np.rint(gaps / usual) - 1, 0).sum())
            found.append(
                f"{missing} slices of {usual:g} mm are missing" if missing else
                f"slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart"
            )  # fmt: skip
        away = np.array([each.position for each in self.slices]) - np.array(first.position)
        sideways = away - np.outer(away @ first.normal, first.normal)
        reach = max(float(np.ptp(self.places)), 1e-9)
        if abs(first.tilt) > 0.1 or np.linalg.norm(sideways, axis=1).max() > max(_TILT * reach, 0.01):
            found.append(f"the gantry is tilted (header: {first.tilt:g} degrees)")
        return tuple(found)


def read_header(path: Path) -> Slice | None:
    """The header of one file; None for a DICOM file that is no slice of a volume (a structure set, a report).

    Raises:
        CorruptFileError: If the file is no DICOM file, or lacks what places a slice.
    """
    pydicom = _pydicom()
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        if not header.get("Rows") or "ImagePositionPatient" not in header:
            if str(header.get("Modality", "")) in {"CT", "MR", "PT"}:
                raise CorruptFileError(
                    f"{path.name} must say where its slice lies (ImagePositionPatient); it does not."
                )
            return None
        orientation = [float(value) for value in header.ImageOrientationPatient]
        if len(orientation) != 6 or len(header.ImagePositionPatient) != 3 or len(header.PixelSpacing) != 2:
            raise CorruptFileError(f"{path.name} must have a place, an orientation and a spacing; they are incomplete.")
        return Slice(
            path=path,
            series=str(header.get("SeriesInstanceUID", "")),
            instance=str(header.get("SOPInstanceUID", "")),
            modality=str(header.get("Modality", "")),
            position=tuple(float(value) for value in header.ImagePositionPatient),
            columns=tuple(orientation[:3]),
            rows=tuple(orientation[3:]),
            spacing=tuple(float(value) for value in header.PixelSpacing),
            shape=(int(header.Rows), int(header.Columns)),
            tilt=float(header.get("GantryDetectorTilt") or 0.0),
            burned_in=str(header.get("BurnedInAnnotation", "")).upper() == "YES",
        )
    except CorruptFileError:
        raise
    except Exception as err:
        raise CorruptFileError(f"{path.name} must be a DICOM file; it cannot be read. Export it again.") from err


def series_of(paths: Iterable[Path]) -> tuple[Series, ...]:
    """The series among files: grouped by identifier, orientation, spacing and size; the longest first.

    Raises:
        CorruptFileError: If a file cannot be read.
    """
    groups: dict[tuple, list[Slice]] = {}
    for path in sorted(paths):
        header = read_header(path)
        if header is None:
            continue
        place = tuple(np.round(header.rows + header.columns, 4).tolist()) + tuple(np.round(header.spacing, 4).tolist())
        groups.setdefault((header.series, place, header.shape), []).append(header)
    found = []
    for members in groups.values():
        normal = members[0].normal
        found.append(Series(tuple(sorted(members, key=lambda each: float(np.dot(each.position, normal))))))
    return tuple(sorted(found, key=lambda each: -len(each.slices)))


def one_series(paths: Iterable[Path], series: str | None = None) -> Series:
    """The series of `paths`, which must be one unless it is named.

    Args:
        paths: Files of a folder.
        series: Identifier of the series to take, or the modality where it is the only one of it.

    Raises:
        DataError: If there is none, or several to choose from.
    """
    found = series_of(paths)
    if series is not None:
        found = tuple(each for each in found if series in (each.slices[0].series, each.modality))
    if len(found) == 1:
        return found[0]
    counts = Counter(f"{each.modality} of {len(each.slices)} slices" for each in found)
    listed = ", ".join(f"{count} x {words}" if count > 1 else words for words, count in counts.items())
    raise DataError(
        f"`series` must name one series; the folder has {listed or 'none'}. "
        + ("Name its identifier or modality." if found else "Point to the folder with the slices.")
    )


def read_volume(series: Series) -> Volume:
    """The voxels of a series in the order of their place, each slice by its own rescale slope and intercept.

    CT is in Hounsfield units; where a file has no rescaling, as MR, values are as stored and the unit is "arbitrary".
    MONOCHROME1, where white is low, is turned round after the rescaling.

    Raises:
        DataError: If the series has faults (slices missing, doubled or tilted).
        CorruptFileError: If the pixels of a file cannot be read.
    """
    faults = series.faults()
    if faults:
        raise DataError(f"the {series.modality} series must be a regular volume; {'; '.join(faults)}.")
    shape = (*series.slices[0].shape, len(series.slices))
    if int(np.prod(shape, dtype=np.int64)) > MOST_VOXELS:
        raise DataError(f"a volume must have at most {MOST_VOXELS:,} voxels; got {shape}. Crop or resample it first.")
    affine = series.affine
    values, rescaled = np.empty(shape, np.float32), False
    for place, each in enumerate(series.slices):
        values[:, :, place], known = _pixels(each)
        rescaled = rescaled or known
    unit = "HU" if rescaled and series.modality == "CT" else "arbitrary"
    return Volume(values, affine, unit)


def _pixels(each: Slice) -> tuple[np.ndarray, bool]:
    pydicom = _pydicom()
    try:
        whole = pydicom.dcmread(each.path)
        stored = whole.pixel_array
        slope, intercept = whole.get("RescaleSlope"), whole.get("RescaleIntercept")
        inverted = str(whole.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    except Exception as err:
        raise CorruptFileError(
            f"{each.path.name} must hold readable pixels; they cannot be decoded. Export it again, uncompressed."
        ) from err
    if stored.shape != each.shape:
        raise CorruptFileError(f"{each.path.name} must hold one grey slice of {each.shape}; got {stored.shape}.")
    values = stored.astype(np.float64)
    known = slope is not None and intercept is not None
    if slope is not None and intercept is not None:
        values = values * float(slope) + float(intercept)
    if inverted:
        values = values.max() + values.min() - values
    return values.astype(np.float32), known


def dicom_files(folder: Path) -> Sequence[Path]:
    """Files of a folder and its subfolders that may be DICOM files, by their preamble or name."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _may_be_dicom(path)]


def _may_be_dicom(path: Path) -> bool:
    if path.suffix.lower() in {".dcm", ".ima"}:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as err:
        raise MissingDependencyError(
            "Reading DICOM needs pydicom; it is not installed. Run: pip install survlens[imaging]"
        ) from err
    return pydicom
