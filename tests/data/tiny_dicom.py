"""Small DICOM files for tests: series of 8 x 8 x 6 voxels, structure sets and segmentations."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage, generate_uid

from survlens.data.dicom_headers import quiet

SHAPE = (8, 8, 6)
SPACING = (2.0, 1.5, 3.0)
PLACE = (-10.0, -20.0, 100.0)
BOX = ((2, 6), (3, 7), (2, 4))
"""Voxels of the structure: first and one after the last, on each axis."""

PLANTED = {
    "PatientName": "Quixote^Dulcinea", "PatientBirthDate": "19321107", "PatientAddress": "Windmill Lane 77",
    "AccessionNumber": "ACC99817263", "InstitutionName": "Toboso General Hospital", "StudyDate": "20170823",
    "StudyTime": "142733", "SeriesDate": "20170824", "ReferringPhysicianName": "Panza^Sancho",
    "StationName": "ROCINANTE7",
    "StudyDescription": "Chest of Dulcinea", "SeriesDescription": "Thorax for Dr Panza", "StudyID": "ST556677",
    "OperatorsName": "Carrasco^Sanson", "PatientComments": "lives in Toboso", "DeviceSerialNumber": "SN4455667",
    "OtherPatientNames": "Aldonza^Lorenzo", "AcquisitionDate": "20170825", "ContentDate": "20170826",
    "InstanceCreationDate": "20170827", "PatientTelephoneNumbers": "0034915550199",
}  # fmt: skip
"""Attributes that no written file may show."""


def uid(words: str) -> str:
    """The same identifier for the same words."""
    return str(generate_uid(entropy_srcs=[words]))


def write(path: Path, data: Dataset, kind: str, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Writes a data set with its file header."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = kind, data.SOPInstanceUID
    data.SOPClassUID = kind
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet():
        dcmwrite(path, data, enforce_file_format=True)
    return path


def about(patient: str, planted: bool) -> Dataset:
    """The part of a data set that says whose it is."""
    data = Dataset()
    data.PatientID, data.PatientName = patient, f"Name^{patient}"
    data.StudyInstanceUID, data.FrameOfReferenceUID = uid(f"study {patient}"), uid(f"frame {patient}")
    for keyword in (
        "PatientBirthDate",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "ReferringPhysicianName",
    ):
        setattr(data, keyword, "")
    data.PatientSex, data.Manufacturer = "O", "Maker"
    if planted:
        for keyword, value in PLANTED.items():
            setattr(data, keyword, value)
    return data


def voxels(seed: int = 0) -> np.ndarray:
    """Values of a scan in Hounsfield units."""
    return np.random.default_rng(seed).integers(-900, 900, SHAPE).astype(np.int16)


def slice_data(patient: str, number: int, *, series: str = "1", planted: bool = False, seed: int = 0) -> Dataset:
    """One slice of a scan, stored with an intercept of -1024."""
    data = about(patient, planted)
    data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", int(series), 99 - number
    data.SeriesInstanceUID, data.SOPInstanceUID = uid(f"series {patient} {series}"), uid(f"{patient} {series} {number}")
    data.ImagePositionPatient = [PLACE[0], PLACE[1], PLACE[2] + SPACING[2] * number]
    data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], list(SPACING[:2])
    data.SliceThickness, data.KVP, data.ConvolutionKernel = SPACING[2], 120, "B30f"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (voxels(seed)[:, :, number] + 1024).astype(np.uint16).tobytes()
    return data


def write_series(
    folder: Path,
    patient: str,
    *,
    series: str = "1",
    planted: bool = False,
    seed: int = 0,
    change: Callable[[Dataset, int], None] | None = None,
    name: Callable[[int], str] = "{:03d}.dcm".format,
) -> list[Path]:
    """A scan, one file per slice; `change` spoils the data set of a slice before it is written."""
    paths = []
    for number in range(SHAPE[2]):
        data = slice_data(patient, number, series=series, planted=planted, seed=seed)
        if change is not None:
            change(data, number)
        paths.append(write(folder / name(number), data, CTImageStorage))
    return paths


def square(number: float) -> list[float]:
    """A contour round the box on a slice, in millimetres, LPS."""
    (top, bottom), (left, right), _ = BOX
    y = [PLACE[1] + SPACING[0] * (at - 0.5) for at in (top, bottom)]
    x = [PLACE[0] + SPACING[1] * (at - 0.5) for at in (left, right)]
    z = PLACE[2] + SPACING[2] * number
    return [each for corner in ((0, 0), (1, 0), (1, 1), (0, 1)) for each in (x[corner[0]], y[corner[1]], z)]


def box() -> np.ndarray:
    """The mask of the box."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*each) for each in BOX)] = True
    return mask


def structure_data(patient: str, *, names: tuple[str, ...] = ("GTV-1",), planted: bool = False) -> Dataset:
    """A structure set that draws the box under every name."""
    data = about(patient, planted)
    data.Modality, data.SOPInstanceUID, data.SeriesInstanceUID = "RTSTRUCT", uid(f"rt {patient}"), uid(f"rts {patient}")
    data.StructureSetLabel = "set"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = uid(f"series {patient} 1")
    study.RTReferencedSeriesSequence = Sequence([series])
    study.ReferencedSOPInstanceUID = data.StudyInstanceUID
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = data.FrameOfReferenceUID, Sequence([study])
    data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    data.StructureSetROISequence, data.ROIContourSequence = Sequence(), Sequence()
    for number, name in enumerate(names, 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, Sequence()
        for at in range(*BOX[2]):
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
            contour.ContourData = square(at)
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    return data


def write_structures(
    path: Path, patient: str, *, names=("GTV-1",), planted=False, change: Callable[[Dataset], None] | None = None
) -> Path:
    """A structure set; `change` spoils it before it is written."""
    data = structure_data(patient, names=names, planted=planted)
    if change is not None:
        change(data)
    return write(path, data, RTStructureSetStorage)


def write_segmentation(
    path: Path, slices: list[Path], mask: np.ndarray, *, change: Callable[[Dataset], None] | None = None
) -> Path:
    """A DICOM-SEG file with the segment "GTV-1"; frames without voxels are left out."""
    import highdicom
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    sources = [dcmread(each) for each in slices]
    tumour = highdicom.seg.SegmentDescription(
        segment_number=1, segment_label="GTV-1", segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )  # fmt: skip
    made = highdicom.seg.Segmentation(
        source_images=sources, pixel_array=np.moveaxis(mask, 2, 0).astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY, segment_descriptions=[tumour],
        series_instance_uid=uid("seg series"), series_number=9, sop_instance_uid=uid("seg"), instance_number=1,
        manufacturer="Maker", manufacturer_model_name="Model", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    if change is not None:
        change(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    assert SegmentationStorage == made.SOPClassUID
    return path


def deflated_bomb(path: Path, megabytes: int) -> Path:
    """A deflated data set of a few kilobytes that is `megabytes` large once inflated."""
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    data = slice_data("bomb", 0)
    write(path, data, CTImageStorage, DeflatedExplicitVRLittleEndian)
    meta = dcmread(path, stop_before_pixels=True).file_meta
    start = 144 + int(meta.FileMetaInformationGroupLength)
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = press.compress(b"\xe0\x7f\x10\x00OW\0\0" + (megabytes << 20).to_bytes(4, "little"))
    body += b"".join(press.compress(bytes(1 << 20)) for _ in range(megabytes)) + press.flush()
    path.write_bytes(path.read_bytes()[:start] + body)
    return path
