"""Volumes written as DICOM: a CT series in any orientation and slice order, structure sets and segmentations.

For simulated cohorts and for tests of readers. Everything that names a person is made up and given by the caller, and
the same arguments write the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError, MissingDependencyError
from survlens.data.dicom import LPS_TO_RAS
from survlens.data.geometry import Volume

_CT, _STRUCTURES = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.481.3"
_EXPLICIT = "1.2.840.10008.1.2.1"
_STORED = {False: (0, 65_535), True: (-32_768, 32_767)}


class Plane(Enum):
    """Which axes of the patient the rows, columns and slices of a series follow."""

    AXIAL = (1, 0, 2)
    CORONAL = (2, 0, 1)
    SAGITTAL = (2, 1, 0)


class SliceOrder(Enum):
    """How numbers are given to slices along the third axis."""

    ASCENDING = "ascending"
    REVERSED = "reversed"
    SHUFFLED = "shuffled"


@dataclass(frozen=True, slots=True)
class Rescale:
    """How values are stored: value = slope * stored + intercept.

    Attributes:
        slope: > 0.
        intercept: Added to what is stored.
        signed: Whether stored numbers have a sign.
    """

    slope: float = 1.0
    intercept: float = -1024.0
    signed: bool = False

    def stored(self, values: np.ndarray) -> np.ndarray:
        """The 16-bit numbers that are read back as `values`.

        Raises:
            InvalidValueError: If a value cannot be stored exactly.
        """
        exact = (values.astype(np.float64) - self.intercept) / self.slope
        found = np.rint(exact)
        low, high = _STORED[self.signed]
        if np.abs(found - exact).max() > 1e-6 or found.min() < low or found.max() > high:
            raise InvalidValueError(
                f"`values` must be multiples of {self.slope:g} from {self.intercept:g} that 16 bits hold; got values "
                f"from {values.min():g} to {values.max():g}. Round and clip them first."
            )
        return found.astype(np.int16 if self.signed else np.uint16)


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the files of a patient name. Made up: nothing here may belong to anybody.

    Attributes:
        name: As DICOM writes it, "Family^Given".
        number: Hospital number.
        birth: Date of birth, YYYYMMDD.
        sex: "F", "M" or "O".
        institution: Name of the hospital.
        address: Address of the hospital.
        physician: Who sent the patient.
        accession: Number of the request.
        date: Day of the scan, YYYYMMDD.
    """

    name: str
    number: str
    birth: str
    sex: str
    institution: str
    address: str
    physician: str
    accession: str
    date: str

    @property
    def identifiers(self) -> tuple[str, ...]:
        """What must not be found in anything that is derived from the files."""
        words = (self.name, *self.name.split("^"), self.number, self.birth, self.institution, self.address)
        return (*words, self.physician, self.accession, self.date)


@dataclass(frozen=True, slots=True)
class SeriesStyle:
    """How a scanner and an archive leave a series.

    Attributes:
        numbers: Order of InstanceNumber along the third axis of the volume.
        names: Order of the file names.
        rescale: How values are stored.
        manufacturer: Name in the header.
    """

    numbers: SliceOrder = SliceOrder.ASCENDING
    names: SliceOrder = SliceOrder.ASCENDING
    rescale: Rescale = Rescale()
    manufacturer: str = "Simulated"


def turned(volume: Volume, plane: Plane, flips: Sequence[bool] = (False, False, False)) -> Volume:
    """The same volume with its axes along rows, columns and slices of a plane; flipped axes run the other way.

    Args:
        volume: In any orientation.
        plane: The plane of its slices.
        flips: Whether each of the new axes runs to left, back or foot and not to right, front or head.
    """
    check_choice("plane", plane, Plane)
    ready, order = volume.canonical(), list(plane.value)
    values, matrix = ready.values.transpose(order), ready.affine.copy()
    matrix[:3, :3] = ready.affine[:3, order]
    for axis, flip in enumerate(flips):
        if flip:
            values = np.flip(values, axis)
            matrix[:3, 3] += matrix[:3, axis] * (values.shape[axis] - 1)
            matrix[:3, axis] *= -1
    return Volume(values, matrix, volume.unit)


def write_series(
    folder: Path, volume: Volume, person: Person, style: SeriesStyle | None = None, *, seed: int = 0
) -> list[Any]:
    """Writes a CT series, one file per slice along the third axis, and returns the datasets in that order.

    Args:
        folder: Where to; made where it is missing.
        volume: Axes along rows, columns and slices; at right angles. Values that `style.rescale` can store.
        person: Whom the files name.
        style: How numbers, names and values are stored.
        seed: Seed of shuffled orders and of the identifiers of study, series and slices.

    Raises:
        InvalidValueError: If a value cannot be stored exactly.
    """
    pydicom, style = _pydicom(), style or SeriesStyle()
    folder.mkdir(parents=True, exist_ok=True)
    stored = style.rescale.stored(volume.values)
    depth, place = stored.shape[2], LPS_TO_RAS @ volume.affine
    rng = np.random.default_rng([seed, 1])
    numbers, names = _numbers(style.numbers, depth, rng), _numbers(style.names, depth, rng)
    spacing, found = volume.spacing, []
    for k in range(depth):
        each = _dataset(pydicom, _CT, _uid("slice", person.number, seed, k))
        _name(each, person, style.manufacturer, seed)
        each.Modality, each.SeriesDescription, each.SeriesNumber = "CT", "Abdomen, simulated", 2
        each.SeriesInstanceUID = _uid("series", person.number, seed)
        each.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        each.KVP, each.ConvolutionKernel, each.PatientPosition = "120", "B30f", "HFS"
        each.AcquisitionNumber, each.InstanceNumber = 1, int(numbers[k]) + 1
        each.PixelSpacing = [_decimal(spacing[0]), _decimal(spacing[1])]
        each.SliceThickness = _decimal(spacing[2])
        across = [*(place[:3, 1] / spacing[1]), *(place[:3, 0] / spacing[0])]
        each.ImageOrientationPatient = [_decimal(value) for value in across]
        each.ImagePositionPatient = [_decimal(value) for value in place[:3, 3] + k * place[:3, 2]]
        each.Rows, each.Columns = stored.shape[:2]
        each.SamplesPerPixel, each.PhotometricInterpretation = 1, "MONOCHROME2"
        each.BitsAllocated, each.BitsStored, each.HighBit = 16, 16, 15
        each.PixelRepresentation = int(style.rescale.signed)
        each.RescaleSlope, each.RescaleIntercept = _decimal(style.rescale.slope), _decimal(style.rescale.intercept)
        each.RescaleType, each.BurnedInAnnotation = "HU", "NO"
        each.PixelData = np.ascontiguousarray(stored[:, :, k]).astype(f"<{stored.dtype.str[1:]}").tobytes()
        pydicom.dcmwrite(folder / f"IM{int(names[k]) + 1:04d}.dcm", each, enforce_file_format=True)
        found.append(each)
    return found


def write_structures(path: Path, slices: Sequence[Any], volume: Volume, masks: Mapping[str, np.ndarray]) -> None:
    """Writes masks as an RTSTRUCT file: the edges of their pixels as closed contours, a hole as a contour of its own.

    Args:
        path: File to write.
        slices: What `write_series` returned.
        volume: The volume it was given.
        masks: Boolean, in the axes of `volume`, by the name of the structure.
    """
    pydicom, first = _pydicom(), slices[0]
    found = _dataset(pydicom, _STRUCTURES, _uid("structures", first.SeriesInstanceUID))
    _copy_person(found, first)
    found.Modality, found.SeriesNumber, found.InstanceNumber = "RTSTRUCT", 3, 1
    found.SeriesInstanceUID = _uid("structure series", first.SeriesInstanceUID)
    found.StructureSetLabel, found.StructureSetDate, found.StructureSetTime = "simulated", first.StudyDate, "120000"
    frame = pydicom.Dataset()
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    found.ReferencedFrameOfReferenceSequence = [frame]
    found.StructureSetROISequence, found.ROIContourSequence, found.RTROIObservationsSequence = [], [], []
    for number, (name, mask) in enumerate(masks.items(), start=1):
        roi, drawn, observed = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "AUTOMATIC"
        roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [
            _contour(pydicom, volume, slices[k], k, corners) for k, corners in _outlines_of_slices(mask)
        ]
        observed.ObservationNumber = observed.ReferencedROINumber = number
        observed.RTROIInterpretedType = "GTV" if "gtv" in name.lower() else "ORGAN"
        observed.ROIInterpreter = ""
        found.StructureSetROISequence.append(roi)
        found.ROIContourSequence.append(drawn)
        found.RTROIObservationsSequence.append(observed)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, found, enforce_file_format=True)


def write_segmentation(path: Path, slices: Sequence[Any], masks: Mapping[str, np.ndarray]) -> None:
    """Writes masks as a DICOM-SEG file, one segment each; frames without a voxel are left out, as archives do.

    Args:
        path: File to write.
        slices: What `write_series` returned.
        masks: Boolean, in the axes of the volume, by the label of the segment; at least one voxel in all.

    Raises:
        MissingDependencyError: If highdicom is not installed.
    """
    try:
        import highdicom
        from pydicom.sr.codedict import codes
    except ImportError as err:
        raise MissingDependencyError(
            "Writing DICOM-SEG needs highdicom; it is not installed. Run: pip install survlens[imaging]"
        ) from err
    kinds: Any = codes.SCT
    series, number = str(slices[0].SeriesInstanceUID), "1.0"
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=place,
            segment_label=name,
            segmented_property_category=kinds.Tissue,
            segmented_property_type=kinds.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for place, name in enumerate(masks, start=1)
    ]
    frames = np.stack([np.moveaxis(mask, 2, 0) for mask in masks.values()], axis=-1).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = highdicom.seg.Segmentation(
            source_images=list(slices),
            pixel_array=frames,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=_uid("segmentation series", series),
            series_number=4,
            sop_instance_uid=_uid("segmentation", series),
            instance_number=1,
            manufacturer="Simulated",
            manufacturer_model_name="phantom",
            software_versions=number,
            device_serial_number="1",
            omit_empty_frames=True,
        )
        _steady(found, slices[0], series)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save_as(path)


def outlines(mask: Bool[np.ndarray, "i j"]) -> list[np.ndarray]:
    """Closed lines along the edges of the pixels of a mask, as (corner, 2) in row and column.

    Pixel centres lie at whole numbers, so corners lie between them. Filled by the even-odd rule the lines give the mask
    again, holes and diagonal neighbours too.
    """
    padded = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Corner (r, c) is the upper left one of pixel (r, c). Edges run with the mask on their right.
    rows, columns = np.nonzero(mask & ~padded[:-2, 1:-1])
    _add(steps, rows, columns, (0, 0), (0, 1))
    rows, columns = np.nonzero(mask & ~padded[1:-1, 2:])
    _add(steps, rows, columns, (0, 1), (1, 1))
    rows, columns = np.nonzero(mask & ~padded[2:, 1:-1])
    _add(steps, rows, columns, (1, 1), (1, 0))
    rows, columns = np.nonzero(mask & ~padded[1:-1, :-2])
    _add(steps, rows, columns, (1, 0), (0, 0))
    found = []
    while steps:
        start = next(iter(steps))
        line, here = [start], start
        while True:
            after = steps[here]
            there = after.pop()
            if not after:
                del steps[here]
            if there == start:
                break
            line.append(there)
            here = there
        corners = np.array(line)
        before, after_it = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        found.append(corners[(before != after_it).any(1)] - 0.5)
    return found


def _add(
    steps: dict[tuple[int, int], list[tuple[int, int]]],
    rows: np.ndarray,
    columns: np.ndarray,
    start: tuple[int, int],
    end: tuple[int, int],
) -> None:
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        steps.setdefault((row + start[0], column + start[1]), []).append((row + end[0], column + end[1]))


def _outlines_of_slices(mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for k in np.flatnonzero(mask.any((0, 1))).tolist():
        for corners in outlines(mask[:, :, k]):
            yield k, corners


def _contour(pydicom: Any, volume: Volume, image: Any, k: int, corners: np.ndarray) -> Any:
    places = volume.world(np.column_stack([corners, np.full(len(corners), k)])) @ LPS_TO_RAS[:3, :3]
    found, refers = pydicom.Dataset(), pydicom.Dataset()
    refers.ReferencedSOPClassUID, refers.ReferencedSOPInstanceUID = _CT, image.SOPInstanceUID
    found.ContourImageSequence, found.ContourGeometricType = [refers], "CLOSED_PLANAR"
    found.NumberOfContourPoints = len(places)
    found.ContourData = [_decimal(value) for value in places.ravel()]
    return found


def _numbers(order: SliceOrder, depth: int, rng: np.random.Generator) -> np.ndarray:
    check_choice("order", order, SliceOrder)
    if order is SliceOrder.SHUFFLED:
        return rng.permutation(depth)
    return np.arange(depth) if order is SliceOrder.ASCENDING else np.arange(depth)[::-1]


def _dataset(pydicom: Any, kind: str, instance: str) -> Any:
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = _EXPLICIT
    found.file_meta.MediaStorageSOPClassUID, found.file_meta.MediaStorageSOPInstanceUID = kind, instance
    found.SOPClassUID, found.SOPInstanceUID = kind, instance
    return found


def _name(found: Any, person: Person, manufacturer: str, seed: int) -> None:
    found.PatientName, found.PatientID = person.name, person.number
    found.PatientBirthDate, found.PatientSex = person.birth, person.sex
    found.StudyDate = found.SeriesDate = found.AcquisitionDate = found.ContentDate = person.date
    found.StudyTime = found.SeriesTime = found.AcquisitionTime = found.ContentTime = "120000"
    found.AccessionNumber, found.StudyID, found.StudyDescription = person.accession, "1", "simulated"
    found.ReferringPhysicianName, found.InstitutionName = person.physician, person.institution
    found.InstitutionAddress, found.Manufacturer = person.address, manufacturer
    found.StudyInstanceUID = _uid("study", person.number, seed)
    found.FrameOfReferenceUID = _uid("frame", person.number, seed)
    found.PositionReferenceIndicator = ""


def _copy_person(found: Any, image: Any) -> None:
    for tag in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
        "StudyID", "ReferringPhysicianName", "InstitutionName", "InstitutionAddress", "Manufacturer",
        "StudyInstanceUID", "FrameOfReferenceUID", "PositionReferenceIndicator",
    ):  # fmt: skip
        setattr(found, tag, getattr(image, tag))


def _steady(found: Any, image: Any, series: str) -> None:
    """Puts the day of the scan and an identifier of the series where highdicom put today and random ones."""
    for tag in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        if tag in found:
            setattr(found, tag, image.StudyDate)
    for tag in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if tag in found:
            setattr(found, tag, "120000")
    for each in found.get("ContributingEquipmentSequence", []):
        each.ContributionDateTime = f"{image.StudyDate}120000"
    dimensions = _uid("dimensions", series)
    for each in (*found.DimensionOrganizationSequence, *found.DimensionIndexSequence):
        each.DimensionOrganizationUID = dimensions


def _uid(*words: object) -> str:
    return str(_pydicom().uid.generate_uid(entropy_srcs=[str(each) for each in words]))


def _decimal(value: float) -> str:
    return str(_pydicom().valuerep.format_number_as_ds(float(value)))


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as err:
        raise MissingDependencyError(
            "Writing DICOM needs pydicom; it is not installed. Run: pip install survlens[imaging]"
        ) from err
    return pydicom
