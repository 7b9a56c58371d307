"""Headers of DICOM files: what a slice of a volume needs, checked before any pixel is touched.

Nothing that identifies a person is kept.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from survlens.core.errors import CorruptFileError, MissingDependencyError
from survlens.data.privacy import IDENTIFYING

MOST_SIDE = 8192
"""A slice of more rows or columns is refused."""
_SKEW = 1e-2  # by which rows and columns may differ from unit vectors at right angles
_FARTHEST = 1e5  # millimetres
_LARGEST_RESCALE = 1e6
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber",
    "Modality", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "RescaleSlope", "RescaleIntercept",
    "PhotometricInterpretation", "GantryDetectorTilt", "BurnedInAnnotation", "KVP", "ConvolutionKernel", "Manufacturer",
    "ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", *IDENTIFYING,
)  # fmt: skip
_VOLUMES = {"CT", "MR", "PT"}
_NO_SLICES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "RTRECORD", "SR", "PR", "KO", "REG", "DOC"}
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7."  # pictures of a screen
_DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True, slots=True, kw_only=True)
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
        name: What messages call the file.
        frame: Identifier of the frame of reference, which structures share with their scan.
        number: Number of the series, or None.
        description: What the series is called; used for choosing only.
        slope: Of the rescaling, or None.
        intercept: Of the rescaling, or None.
        inverted: Whether low values are white (MONOCHROME1).
        thickness: Of the slice in millimetres, or None.
        kernel: Of the reconstruction.
        manufacturer: Of the scanner.
        kvp: Peak kilovoltage, or None.
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
    tilt: float = 0.0
    burned_in: bool = False
    name: str = ""
    frame: str = ""
    number: int | None = None
    description: str = ""
    slope: float | None = None
    intercept: float | None = None
    inverted: bool = False
    thickness: float | None = None
    kernel: str = ""
    manufacturer: str = ""
    kvp: float | None = None

    @property
    def normal(self) -> np.ndarray:
        """Direction of the slices: along a row times down a column."""
        return np.cross(self.columns, self.rows)

    @property
    def rescaled(self) -> bool:
        """Whether the header says what stored values mean."""
        return self.slope is not None and self.intercept is not None


def open_header(path: Path, name: str = "") -> Any:
    """The header of a file as far as it is used, without pixels; what identifies is in it, and is for grouping only.

    Args:
        path: The file.
        name: What messages call it; its name by default.

    Raises:
        CorruptFileError: If the file is no DICOM file.
        MissingDependencyError: Without the extra `[imaging]`.
    """
    pydicom, name = pydicom_module(), name or path.name
    with path.open("rb") as file:
        start = file.read(132)
    if not start:
        raise CorruptFileError(f"{name} must be a DICOM file; got an empty file. Copy or export it again.")
    if start[128:132] != b"DICM":
        raise CorruptFileError(
            f"{name} must begin with the preamble of a DICOM file; it does not. Export it again, or remove it."
        )
    try:
        with quiet():
            syntax = str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") or "")
            if syntax == _DEFLATED:  # pydicom inflates in one piece, so that a small file could take all memory
                raise CorruptFileError(f"{name} must not be deflated; it is. Export it in another transfer syntax.")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            for keyword in _TAGS:  # values are converted when they are asked for: here, where a fault has a name
                header.get(keyword)
    except CorruptFileError:
        raise
    except Exception as err:
        raise CorruptFileError(
            f"{name} must be a DICOM file; its header cannot be read ({type(err).__name__}). Export it again."
        ) from None
    if not syntax:
        raise CorruptFileError(f"{name} must say how it is encoded (TransferSyntaxUID); it does not. Export it again.")
    if not (header.get("SOPClassUID") or header.get("Modality")):
        raise CorruptFileError(f"{name} must say what it holds (SOPClassUID); it does not. Leave it out.")
    return header


def read_header(path: Path, name: str = "") -> Slice | None:
    """The header of one file; None for a DICOM file that is no slice of a volume (a structure set, a report).

    Args:
        path: The file.
        name: What messages call it; its name by default.

    Raises:
        CorruptFileError: If the file is no DICOM file, or lacks what places a slice.
    """
    return slice_of(open_header(path, name), path, name)


def slice_of(header: Any, path: Path, name: str = "") -> Slice | None:
    """What is kept of a header; None where it is of no slice of a volume.

    Args:
        header: What `open_header` gave.
        path: The file.
        name: What messages call it; its name by default.

    Raises:
        CorruptFileError: If the header lacks what places a slice, or says what cannot be.
    """
    name = name or path.name
    try:
        modality = str(header.get("Modality") or "")
        if modality in _NO_SLICES:
            return None
        if modality not in _VOLUMES and not (header.get("Rows") and "ImagePositionPatient" in header):
            return None
        if f"{header.get('SOPClassUID') or ''}.".startswith(_CAPTURE) and (
            "ImagePositionPatient" not in header or int(header.get("SamplesPerPixel") or 1) != 1
        ):
            return None
        frames = int(header.get("NumberOfFrames") or 1)
        if frames > 1:
            raise CorruptFileError(
                f"{name} must hold one slice; got {frames} frames. Convert it to one file per slice, or to NIfTI."
            )
        found = _slice(header, path, name, modality)
    except CorruptFileError:
        raise
    except Exception as err:
        raise CorruptFileError(
            f"{name} must hold numbers where a slice needs them; it does not ({type(err).__name__}). Export it again."
        ) from None
    _check_place(found)
    _check_values(found)
    return found


def _slice(header: Any, path: Path, name: str, modality: str) -> Slice:
    def numbers(keyword: str, count: int) -> tuple[float, ...]:
        value = header.get(keyword)
        values = () if value is None else tuple(float(each) for each in np.atleast_1d(value))
        if len(values) != count:
            raise CorruptFileError(
                f"{name} must say where its slice lies ({keyword}, {count} numbers); got {len(values)}. Export it "
                "again with this attribute."
            )
        return values

    def number(keyword: str) -> float | None:
        value = header.get(keyword)
        return None if value in (None, "") else float(value)

    shape = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    if not (0 < shape[0] <= MOST_SIDE and 0 < shape[1] <= MOST_SIDE):
        raise CorruptFileError(
            f"{name} must have 1 to {MOST_SIDE:,} rows and columns; got {shape[0]:,} x {shape[1]:,}. Export it again."
        )
    samples, bits = int(header.get("SamplesPerPixel") or 1), int(header.get("BitsAllocated") or 16)
    if samples != 1:
        raise CorruptFileError(f"{name} must hold grey values; got {samples} colours. Leave it out: it is no scan.")
    if bits not in (8, 16, 32, 64):
        raise CorruptFileError(
            f"{name} must hold pixels of 8, 16, 32 or 64 bits; got {bits} (BitsAllocated). Export it again."
        )
    orientation = numbers("ImageOrientationPatient", 6)
    kernel = header.get("ConvolutionKernel")
    series_number = header.get("SeriesNumber")
    return Slice(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        instance=str(header.get("SOPInstanceUID", "")),
        modality=modality,
        position=numbers("ImagePositionPatient", 3),
        columns=orientation[:3],
        rows=orientation[3:],
        spacing=numbers("PixelSpacing", 2),
        shape=shape,
        tilt=number("GantryDetectorTilt") or 0.0,
        burned_in=str(header.get("BurnedInAnnotation", "")).upper() == "YES",
        name=name,
        frame=str(header.get("FrameOfReferenceUID", "")),
        number=None if series_number in (None, "") else int(series_number),
        description=str(header.get("SeriesDescription") or ""),
        slope=number("RescaleSlope"),
        intercept=number("RescaleIntercept"),
        inverted=str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1",
        thickness=number("SliceThickness"),
        kernel=" ".join(str(each) for each in np.atleast_1d(kernel)) if kernel else "",
        manufacturer=str(header.get("Manufacturer") or ""),
        kvp=number("KVP"),
    )


def _check_place(each: Slice) -> None:
    if not np.isfinite(each.position).all() or np.abs(each.position).max() > _FARTHEST:
        raise CorruptFileError(f"the position of {each.name} must be finite and within {_FARTHEST:g} mm; it is not.")
    if not np.isfinite(each.spacing).all() or min(each.spacing) <= 0:
        shown = " x ".join(f"{value:g}" for value in each.spacing)
        raise CorruptFileError(f"the pixel spacing of {each.name} must be > 0; got {shown} mm. Export it again.")
    axes = np.array([each.rows, each.columns])
    if not np.isfinite(axes).all() or np.abs(axes @ axes.T - np.eye(2)).max() > _SKEW:
        raise CorruptFileError(
            f"rows and columns of {each.name} must stand at right angles (ImageOrientationPatient, two unit vectors); "
            "they do not. Export it again."
        )


def _check_values(each: Slice) -> None:
    slope, intercept = (1.0 if each.slope is None else each.slope), (each.intercept or 0.0)
    if not np.isfinite(slope) or slope == 0:
        raise CorruptFileError(f"the rescale slope of {each.name} must be a number other than 0; got {slope:g}.")
    if not abs(intercept) <= _LARGEST_RESCALE:
        raise CorruptFileError(
            f"the rescale intercept of {each.name} must be at most {_LARGEST_RESCALE:,.0f}; got {intercept:g}. "
            "Export it again."
        )


_QUIET = threading.Lock()
_STATE: dict[str, Any] = {"depth": 0}


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what pydicom and highdicom warn of and log: their words quote the values of headers.

    Threads may enter it at one time; the first one in changes the filters and the last one out restores them.
    """
    loggers = [logging.getLogger(each) for each in ("pydicom", "highdicom")]
    with _QUIET:
        if _STATE["depth"] == 0:
            _STATE["warnings"], _STATE["disabled"] = warnings.catch_warnings(), [each.disabled for each in loggers]
            _STATE["warnings"].__enter__()
            warnings.simplefilter("ignore")
            for each in loggers:
                each.disabled = True
        _STATE["depth"] += 1
    try:
        yield
    finally:
        with _QUIET:
            _STATE["depth"] -= 1
            if _STATE["depth"] == 0:
                _STATE["warnings"].__exit__(None, None, None)
                for each, disabled in zip(loggers, _STATE["disabled"], strict=True):
                    each.disabled = disabled


def pydicom_module() -> Any:
    """The library pydicom.

    Raises:
        MissingDependencyError: Where it is not installed.
    """
    try:
        import pydicom
    except ImportError as err:
        raise MissingDependencyError(
            "Reading DICOM needs pydicom; it is not installed. Run: pip install survlens[imaging]"
        ) from err
    return pydicom
