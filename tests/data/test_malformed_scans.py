"""Scans that are broken in some way: each gives a clear error, nothing hangs or takes much memory, the others go on."""

import gzip
import re
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="reading DICOM needs the extra `imaging`")
pytest.importorskip("highdicom", reason="reading DICOM-SEG needs the extra `imaging`")

import nibabel
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    JPEG2000Lossless,
    JPEGLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from data import tiny_dicom as tiny
from survlens.core.errors import CorruptFileError, DataError
from survlens.data.dicom_headers import quiet
from survlens.data.geometry import Volume
from survlens.data.nifti import read_nifti, write_nifti
from survlens.study.import_scans import ImportSettings, import_dicom

SPOILT, FINE = "spoilt", "fine"


@dataclass(frozen=True)
class Damage:
    """How the files of the patient "spoilt" are made, and what has to be said."""

    make: Callable[[Path], object]
    code: str
    words: str
    scan: bool = False
    mask: bool = False
    settings: ImportSettings = ImportSettings(structures=("GTV-1",))


def scan(change: Callable[[Dataset, int], None]) -> Callable[[Path], object]:
    """A series whose data sets are changed, with a sound structure set."""

    def make(folder: Path) -> None:
        tiny.write_series(folder / "ct", SPOILT, change=change)
        tiny.write_structures(folder / "rt.dcm", SPOILT)

    return make


def third(**values) -> Callable[[Path], object]:
    """A series whose third slice has other values; None removes the attribute."""

    def change(data: Dataset, number: int) -> None:
        if number == 2:
            for keyword, value in values.items():
                if value is None:
                    delattr(data, keyword)
                else:
                    setattr(data, keyword, value)

    return scan(change)


def every(**values) -> Callable[[Path], object]:
    """A series all of whose slices have other values."""

    def change(data: Dataset, number: int) -> None:
        set_all(data, **values)

    return scan(change)


def raw(edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A series the bytes of whose third file are edited."""

    def make(folder: Path) -> None:
        paths = tiny.write_series(folder / "ct", SPOILT)
        tiny.write_structures(folder / "rt.dcm", SPOILT)
        paths[2].write_bytes(edit(paths[2].read_bytes()))

    return make


def beside(name: str, content: bytes) -> Callable[[Path], object]:
    """A sound series with another file beside it."""

    def make(folder: Path) -> None:
        tiny.write_series(folder / "ct", SPOILT)
        tiny.write_structures(folder / "rt.dcm", SPOILT)
        (folder / "ct" / name).write_bytes(content)

    return make


def drawn(change: Callable[[Dataset], None]) -> Callable[[Path], object]:
    """A sound series with a changed structure set."""

    def make(folder: Path) -> None:
        tiny.write_series(folder / "ct", SPOILT)
        tiny.write_structures(folder / "rt.dcm", SPOILT, change=change)

    return make


def contours(change: Callable[[Dataset], None]) -> Callable[[Path], object]:
    """A structure set whose contours are changed one by one."""

    def all_of(data: Dataset) -> None:
        for each in data.ROIContourSequence[0].ContourSequence:
            change(each)

    return drawn(all_of)


def stored(mask: Callable[[], np.ndarray] = tiny.box, change=None) -> Callable[[Path], object]:
    """A sound series with a segmentation."""

    def make(folder: Path) -> None:
        paths = tiny.write_series(folder / "ct", SPOILT)
        tiny.write_segmentation(folder / "seg.dcm", paths, mask(), change=change)

    return make


def compressed(syntax: str, content: bytes) -> Callable[[Path], object]:
    """A series whose third slice is compressed."""
    from pydicom.encaps import encapsulate

    def make(folder: Path) -> None:
        tiny.write_series(folder / "ct", SPOILT)
        data = tiny.slice_data(SPOILT, 2)
        data.PixelData = encapsulate([content])
        data["PixelData"].VR = "OB"
        tiny.write(folder / "ct" / "002.dcm", data, CTImageStorage, syntax)

    return make


def moved(data: Dataset, number: int) -> None:
    if number == 2:
        data.ImagePositionPatient = [tiny.PLACE[0], tiny.PLACE[1], tiny.PLACE[2] + tiny.SPACING[2] * 1]


def tilted(data: Dataset, number: int) -> None:
    data.ImagePositionPatient = [tiny.PLACE[0], tiny.PLACE[1] + 0.4 * number, tiny.PLACE[2] + 3 * number]


def enhanced(folder: Path) -> None:
    data = tiny.slice_data(SPOILT, 0)
    data.NumberOfFrames, data.PixelData = 6, data.PixelData * 6
    tiny.write(folder / "ct.dcm", data, "1.2.840.10008.5.1.4.1.1.2.1")


def without_slice(folder: Path) -> None:
    tiny.write_series(folder / "ct", SPOILT)[3].unlink()
    tiny.write_structures(folder / "rt.dcm", SPOILT)


def floating(data: Dataset, number: int) -> None:
    data.FloatPixelData = np.full(64, 0.5 + number, np.float32).tobytes()
    data.BitsAllocated = 32
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(data, keyword)


def two_series(folder: Path) -> None:
    tiny.write_series(folder / "a", SPOILT)
    tiny.write_series(folder / "b", SPOILT, series="2")


def captured(folder: Path) -> None:
    tiny.write_series(folder / "ct", SPOILT)
    tiny.write_structures(folder / "rt.dcm", SPOILT)
    data = tiny.slice_data(SPOILT, 0, series="7")
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelData = 7, bytes(192)
    del data.ImagePositionPatient
    tiny.write(folder / "ct" / "screen.dcm", data, SecondaryCaptureImageStorage)


def private(folder: Path) -> None:
    tiny.write_series(folder / "ct", SPOILT)
    tiny.write_structures(folder / "rt.dcm", SPOILT)
    data = Dataset()
    data.SOPInstanceUID = tiny.uid("private")
    block = data.private_block(0x0011, "Someone", create=True)
    block.add_new(1, "LO", "secret")
    path = tiny.write(folder / "other" / "private.dcm", data, CTImageStorage)
    content = path.read_bytes()
    at = content.index(b"\x08\x00\x16\x00UI")  # the class of the object, which only the data set repeats
    length = struct.unpack("<H", content[at + 6 : at + 8])[0]
    path.write_bytes(content[:at] + content[at + 8 + length :])


def bomb(folder: Path) -> None:
    tiny.write_series(folder / "ct", SPOILT)
    tiny.deflated_bomb(folder / "ct" / "zz.dcm", 64)


def pet(data: Dataset, number: int) -> None:
    data.Modality, data.Units = "PT", "BQML"


def two_sets(folder: Path) -> None:
    tiny.write_series(folder / "ct", SPOILT)
    for name in ("a", "b"):
        tiny.write_structures(folder / f"{name}.dcm", SPOILT)


def set_all(data: Dataset, **values) -> None:
    with quiet():  # pydicom warns of what no standard allows
        for keyword, value in values.items():
            setattr(data, keyword, value)


def other_frame(data: Dataset) -> None:
    data.FrameOfReferenceUID = tiny.uid("elsewhere")
    del data.ReferencedSeriesSequence


def shifted(distance: float, axis: int) -> Callable[[Dataset], None]:
    """Moves the points of a contour along an axis."""

    def change(contour: Dataset) -> None:
        contour.ContourData = [v + distance * (i % 3 == axis) for i, v in enumerate(contour.ContourData)]

    return change


def slanted(contour: Dataset) -> None:
    contour.ContourData = [v + i * (i % 3 == 2) for i, v in enumerate(contour.ContourData)]


def elsewhere(data: Dataset) -> None:
    data.FrameOfReferenceUID = tiny.uid("elsewhere")
    del data.ReferencedFrameOfReferenceSequence


def empty_frames(data: Dataset) -> None:
    data.PixelData = bytes(len(data.PixelData))


def far_frame(data: Dataset) -> None:
    position = data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    position.ImagePositionPatient = [tiny.PLACE[0], tiny.PLACE[1], 9e7]


BAD_JPEG = b"\xff\xd8\xff\xe0" + bytes(64) + b"\xff\xd9"
IMPLICIT_VR = re.compile(rb"(\x28\x00\x30\x00)DS")
WHOLE = {"scan": True, "mask": True}
UNMASKED = {"scan": True}

DAMAGES = {
    "a zero-byte file": Damage(beside("zero.dcm", b""), "scan-incomplete", "1 files beside them"),
    "a text named .dcm": Damage(beside("notes.dcm", b"dear colleague " * 30), "file-unreadable", "preamble"),
    "a text of another name": Damage(beside("notes.txt", b"dear colleague"), "", "", **WHOLE),
    "no preamble": Damage(raw(lambda data: data[132:]), "file-unreadable", "002.dcm must begin with the preamble"),
    "cut in the header": Damage(raw(lambda data: data[:500]), "file-unreadable", "ct/002.dcm"),
    "cut in the pixels": Damage(raw(lambda data: data[:-50]), "scan-unreadable", "002.dcm must hold readable pixels"),
    "no pixels": Damage(third(PixelData=None), "scan-unreadable", "ct/002.dcm must hold readable pixels"),
    "a bad value representation": Damage(
        raw(lambda data: IMPLICIT_VR.sub(rb"\1?!", data)), "file-unreadable", "p2/ct/002.dcm must hold numbers"
    ),
    "bytes of noise in the header": Damage(
        raw(lambda data: data[:400] + bytes(np.random.default_rng(0).integers(0, 256, 200, np.uint8)) + data[600:]),
        "slices-missing", "1 slices of 3 mm are missing",
    ),
    "no transfer syntax": Damage(
        raw(lambda data: data.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x12\x00UI", 1)), "file-unreadable",
        "TransferSyntaxUID",
    ),
    "an unknown transfer syntax": Damage(
        raw(lambda data: data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")), "scan-unreadable",
        "ct/002.dcm",
    ),
    "a codec for films": Damage(compressed(MPEG2MPML, b"\0\0\1\xb3" * 20), "scan-unreadable", "ct/002.dcm"),
    "JPEG data that are noise": Damage(compressed(JPEGLossless, BAD_JPEG), "scan-unreadable", "Export it again, uncom"),
    "JPEG 2000 data that are noise": Damage(compressed(JPEG2000Lossless, bytes(80)), "scan-unreadable", "ct/002.dcm"),
    "run lengths that are noise": Damage(compressed(RLELossless, b"\1" * 80), "scan-unreadable", "ct/002.dcm"),
    "absurd rows": Damage(third(Rows=65535, Columns=65535), "file-unreadable", "65,535 x 65,535"),
    "rows that the pixels do not fill": Damage(every(Rows=1200, Columns=1200), "scan-unreadable", "ct/000.dcm"),
    "more rows than a scan has": Damage(every(Rows=8000, Columns=8000), "size-absurd", "4 to 4096 voxels"),
    "no rows": Damage(third(Rows=0), "file-unreadable", "1 to 8,192 rows and columns; got 0 x 8"),
    "no position": Damage(third(ImagePositionPatient=None), "file-unreadable", "ImagePositionPatient, 3 numbers"),
    "no orientation": Damage(third(ImageOrientationPatient=None), "file-unreadable", "ImageOrientationPatient, 6"),
    "no pixel spacing": Damage(third(PixelSpacing=None), "file-unreadable", "PixelSpacing, 2 numbers"),
    "a spacing that is no number": Damage(every(PixelSpacing=["nan", "nan"]), "file-unreadable", "spacing of"),
    "a negative spacing": Damage(third(PixelSpacing=[-1, 1]), "file-unreadable", "must be > 0; got -1 x 1 mm"),
    "a spacing of zero": Damage(third(PixelSpacing=[0, 0]), "file-unreadable", "must be > 0; got 0 x 0 mm"),
    "an absurd spacing": Damage(every(PixelSpacing=[500, 500]), "spacing-absurd", "0.02 to 50.0 mm; got 500 x 500 x 3"),
    "a position at the end of the world": Damage(
        third(ImagePositionPatient=[0, 0, 1e9]), "file-unreadable", "within 100000 mm"
    ),
    "skew axes": Damage(every(ImageOrientationPatient=[1, 0, 0, 0.5, 0.866, 0]), "file-unreadable", "right angles"),
    "axes of no length": Damage(every(ImageOrientationPatient=[0] * 6), "file-unreadable", "right angles"),
    "two slices at one place": Damage(scan(moved), "slices-duplicate", "Remove the copies"),
    "a missing slice": Damage(without_slice, "slices-missing", "1 slices of 3 mm are missing"),
    "a missing slice that is interpolated": Damage(
        without_slice, "slices-missing", "they are interpolated", **WHOLE,
        settings=ImportSettings(structures=("GTV-1",), fill_missing=True),
    ),
    "a tilted gantry": Damage(scan(tilted), "gantry-tilt", "corrected for the tilt"),
    "a tilt in the header": Damage(every(GantryDetectorTilt=12.5), "gantry-tilt", "header: 12.5 degrees"),
    "a slice of another size": Damage(
        third(Rows=4, PixelData=bytes(64)), "series-mixed", "several sizes"
    ),
    "two series": Damage(two_series, "series-several", "number 1: CT, 6 slices of 8 x 8"),
    "two slices only": Damage(
        lambda folder: [each.unlink() for each in tiny.write_series(folder, SPOILT)[2:]], "size-absurd", "4 to 4096"
    ),
    "one slice only": Damage(
        lambda folder: [each.unlink() for each in tiny.write_series(folder, SPOILT)[1:]], "series-none", "two slices"
    ),
    "12 bits allocated": Damage(third(BitsAllocated=12), "file-unreadable", "8, 16, 32 or 64 bits; got 12"),
    "pixels of floating point": Damage(scan(floating), "", "", **WHOLE),
    "many frames in one file": Damage(enhanced, "file-unreadable", "one slice; got 6 frames"),
    "white is low": Damage(every(PhotometricInterpretation="MONOCHROME1"), "inverted", "turned round", **WHOLE),
    "white is low in one slice": Damage(third(PhotometricInterpretation="MONOCHROME1"), "units-mixed", "one kind"),
    "a rescale slope of zero": Damage(third(RescaleSlope=0), "file-unreadable", "rescale slope of"),
    "a huge rescale intercept": Damage(every(RescaleIntercept=1e12), "file-unreadable", "rescale intercept of"),
    "an intercept that differs": Damage(third(RescaleIntercept=0), "intercepts-differ", "-1024, 0", **WHOLE),
    "a slice without rescaling": Damage(
        third(RescaleSlope=None, RescaleIntercept=None), "units-mixed", "some slices are rescaled"
    ),
    "PET without a dose": Damage(scan(pet), "scan-unreadable", "lacks PatientWeight, RadionuclideTotalDose"),
    "a colour picture of a screen": Damage(captured, "files-of-no-use", "1 CT", **WHOLE),
    "private attributes only": Damage(private, "file-unreadable", "must say what it holds", **WHOLE),
    "a deflated bomb": Damage(bomb, "file-unreadable", "must not be deflated"),
    "text burned in": Damage(every(BurnedInAnnotation="YES"), "burned-in", "Look at the scan", **WHOLE),
    "a blank scan": Damage(every(PixelData=bytes(128)), "scan-unreadable", "one value everywhere"),
    "a structure set without structures": Damage(
        drawn(lambda data: data.ROIContourSequence.clear()), "mask-unreadable", "rt.dcm must hold struct", **UNMASKED
    ),
    "a structure without contours": Damage(
        drawn(lambda data: data.ROIContourSequence[0].ContourSequence.clear()), "mask-unusable",
        "must have closed contours; it has none", **UNMASKED,
    ),
    "contours off the volume": Damage(
        contours(lambda each: set_all(each, ContourData=[v + 500 for v in each.ContourData])), "mask-unusable",
        "belong together", **UNMASKED,
    ),
    "contours beside the volume": Damage(
        contours(shifted(500, 0)), "mask-unusable", "must cover voxels of the volume", **UNMASKED,
    ),
    "contours cut off by the edge": Damage(
        contours(shifted(5, 0)), "mask-cut-off", "beside the volume", **WHOLE,
    ),
    "contours between slices": Damage(
        contours(shifted(1.5, 2)), "mask-unusable", "must lie on slices", **UNMASKED,
    ),
    "contours across slices": Damage(
        contours(slanted), "mask-unusable", "planes of the slices; some cross them", **UNMASKED,
    ),
    "open contours": Damage(
        contours(lambda each: set_all(each, ContourGeometricType="OPEN_PLANAR")), "mask-unusable", "closed contours",
        **UNMASKED,
    ),
    "contours of ten numbers": Damage(
        contours(lambda each: set_all(each, ContourData=list(each.ContourData)[:10])), "mask-unusable",
        "contour 2 has 10 numbers", **UNMASKED,
    ),
    "a contour that is not finite": Damage(
        contours(lambda each: set_all(each, ContourData=["nan", *list(each.ContourData)[1:]])), "mask-unusable",
        "not finite", **UNMASKED,
    ),
    "a structure set of another scan": Damage(
        drawn(elsewhere), "mask-of-other-scan", "belong to another scan", **UNMASKED,
    ),
    "a structure of another name": Damage(
        drawn(lambda data: set_all(data.StructureSetROISequence[0], ROIName="Heart")), "mask-unusable",
        "The scan has Heart", **UNMASKED,
    ),
    "two structure sets": Damage(two_sets, "mask-unusable", "hold the structure GTV-1; got 2", **UNMASKED),
    "a segmentation with frames left out": Damage(stored(), "", "", **WHOLE),
    "a segmentation of one frame": Damage(
        stored(lambda: tiny.box() & (np.arange(6) == 2)), "", "", **WHOLE
    ),
    "an empty segmentation": Damage(stored(change=empty_frames), "mask-unusable", "it is empty", **UNMASKED),
    "a segmentation of another frame": Damage(
        stored(change=other_frame), "mask-of-other-scan", "belong to another scan", **UNMASKED
    ),
    "a segmentation that is cut": Damage(
        stored(change=lambda data: set_all(data, PixelData=data.PixelData[:2])), "mask-unusable", "seg.dcm", **UNMASKED
    ),
    "a segmentation with a far frame": Damage(stored(change=far_frame), "mask-unusable", "seg.dcm", **UNMASKED),
    "a segmentation without segments": Damage(
        stored(change=lambda data: set_all(data, SegmentSequence=Sequence())), "mask-unu", "", **UNMASKED
    ),
}  # fmt: skip


def test_there_are_at_least_forty_damages():
    assert len(DAMAGES) >= 40


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_scan_is_named_and_the_others_are_imported(what, tmp_path, capfd):
    damage = DAMAGES[what]
    tiny.write_series(tmp_path / "in" / "p1", FINE, seed=1)
    tiny.write_structures(tmp_path / "in" / "p1" / "rt.dcm", FINE)
    damage.make(tmp_path / "in" / "p2")
    start = time.monotonic()
    done = import_dicom(tmp_path / "in", tmp_path / "out", damage.settings)
    assert time.monotonic() - start < 10
    found = [each for each in done.report.findings if each.code.startswith(damage.code or "-")]
    assert any(damage.words in each.message for each in found) or not damage.code, done.report.rows()
    every = " ".join(each.message for each in done.report.findings)
    assert "Traceback" not in every
    assert "pydicom" not in every
    said = capfd.readouterr()
    assert said.out == ""
    assert not [line for line in said.err.splitlines() if "JPEG" not in line], "libjpeg speaks for itself"
    assert len(done.rows) == 1 + damage.scan, done.report.rows()
    assert sum(bool(row["mask"]) for row in done.rows) == 1 + damage.mask, done.report.rows()
    sound = next(row for row in done.rows if row["mask_voxels"] == tiny.box().sum())
    back = read_nifti(tmp_path / "out" / sound["mask"])
    assert back.values.sum() == tiny.box().sum()


def nifti(folder: Path, **header) -> Path:
    """A small NIfTI file whose header is changed."""
    path = folder / "scan.nii"
    write_nifti(Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 2.0, 3.0, 1.0])), path)
    content = bytearray(path.read_bytes())
    for at, form, value in header.values():
        struct.pack_into(form, content, at, *np.atleast_1d(value))
    path.write_bytes(content)
    return path


def squeezed(folder: Path, keep: Callable[[bytes], bytes]) -> Path:
    path = folder / "scan.nii.gz"
    path.write_bytes(keep(gzip.compress(nifti(folder).read_bytes())))
    return path


def nifti_bomb(folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    head = nifti(folder, dim=(40, "<8h", [3, 3000, 3000, 3000, 1, 1, 1, 1])).read_bytes()[:352]
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(64):
            file.write(bytes(1 << 20))
    return path


def rewritten(folder: Path, content: bytes, name: str = "scan.nii") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def complex_values(folder: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.complex64), np.eye(4)), folder / "scan.nii")
    return folder / "scan.nii"


SROWS = 280
NIFTIS = {
    "a bad magic": lambda folder: nifti(folder, magic=(344, "<4s", [b"nope"])),
    "an empty file": lambda folder: rewritten(folder, b""),
    "a text": lambda folder: rewritten(folder, b"dear colleague " * 50),
    "a text that is called gz": lambda folder: rewritten(folder, b"dear colleague " * 50, "scan.nii.gz"),
    "a header cut short": lambda folder: rewritten(folder, nifti(folder).read_bytes()[:200]),
    "voxels cut short": lambda folder: rewritten(folder, nifti(folder).read_bytes()[:-7]),
    "a gz cut short": lambda folder: squeezed(folder, lambda data: data[:-30]),
    "a gz with a wrong sum": lambda folder: squeezed(folder, lambda data: data[:-8] + bytes(8)),
    "a gz of noise": lambda folder: squeezed(folder, lambda data: data[:12] + bytes(60)),
    "a gz bomb": nifti_bomb,
    "an affine that is no number": lambda folder: nifti(folder, rows=(SROWS, "<12f", [np.nan] * 12)),
    "an affine of zeros": lambda folder: nifti(folder, rows=(SROWS, "<12f", [0.0] * 12)),
    "no affine": lambda folder: nifti(folder, codes=(252, "<2h", [0, 0])),
    "five axes": lambda folder: nifti(folder, dim=(40, "<8h", [5, 3, 4, 1, 1, 5, 1, 1])),
    "two axes": lambda folder: nifti(folder, dim=(40, "<8h", [2, 12, 5, 1, 1, 1, 1, 1])),
    "negative sides": lambda folder: nifti(folder, dim=(40, "<8h", [3, -3, 4, 5, 1, 1, 1, 1])),
    "no axes": lambda folder: nifti(folder, dim=(40, "<8h", [0] * 8)),
    "sides beyond the file": lambda folder: nifti(folder, dim=(40, "<8h", [3, 300, 400, 500, 1, 1, 1, 1])),
    "a type that nobody knows": lambda folder: nifti(folder, kind=(70, "<h", 4711)),
    "complex values": complex_values,
    "a start past the end": lambda folder: nifti(folder, offset=(108, "<f", 1e6)),
    "a start before the header": lambda folder: nifti(folder, offset=(108, "<f", -5.0)),
    "a start that is no number": lambda folder: nifti(folder, offset=(108, "<f", np.nan)),
    "a slope without bounds": lambda folder: nifti(folder, slope=(112, "<f", 3e38), more=(116, "<f", 3e38)),
}


@pytest.mark.parametrize("what", NIFTIS)
def test_a_damaged_nifti_file_is_refused_by_name(what, tmp_path):
    path = NIFTIS[what](tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises((DataError, CorruptFileError), match=r"scan\.nii"):
            read_nifti(path)
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "what",
    [
        "absurd rows", "rows that the pixels do not fill", "a deflated bomb", "run lengths that are noise",
        "a position at the end of the world", "a segmentation with a far frame",
    ],
)  # fmt: skip
def test_damage_takes_little_memory(what, tmp_path):
    DAMAGES[what].make(tmp_path / "in")
    tracemalloc.start()
    try:
        import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings(structures=("GTV-1",)))
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()
