"""NRRD and MetaImage files: orientation, number types, and files that are broken, too large or lead elsewhere."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from survlens.core.errors import CorruptFileError, DataError, MissingDependencyError
from survlens.data.geometry import Volume
from survlens.data.itk_scans import is_scan_file, read_itk, read_scan_file
from survlens.data.scan_rows import folder_scans
from survlens.data.scans import ScanReference

AFFINE = np.array([[2.0, 0, 0, -40], [0, 1.5, 0, 25], [0, 0, 3, 110], [0, 0, 0, 1]])
NRRD = """NRRD0004
type: {kind}
dimension: 3
space: {space}
sizes: {sizes}
space directions: {directions}
kinds: domain domain domain
endian: little
encoding: {encoding}
space origin: ({origin})
"""


def numbers(shape=(3, 4, 5), kind=np.int16) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=kind).reshape(shape)


def nrrd(path, values, affine, *, space="right-anterior-superior", encoding="raw", more=""):
    """An NRRD file written by hand, in the space that it names."""
    directions = " ".join(f"({','.join(map(str, affine[:3, axis]))})" for axis in range(3))
    names = {"int16": "short", "uint8": "uchar", "float32": "float", "float64": "double"}
    head = NRRD.format(
        kind=names[values.dtype.name],
        space=space,
        sizes=" ".join(map(str, values.shape)),
        directions=directions,
        encoding=encoding,
        origin=",".join(map(str, affine[:3, 3])),
    )
    path.write_bytes(f"{head}{more}\n".encode() + values.tobytes(order="F"))
    return path


def mha(path, values, affine, *, data="LOCAL"):
    """A MetaImage file written by hand; it counts to the left and the back."""
    turned = np.diag([-1.0, -1, 1]) @ affine[:3]
    spacing = np.linalg.norm(turned[:, :3], axis=0)
    names = {"int16": "MET_SHORT", "uint8": "MET_UCHAR"}
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {' '.join(map(str, (turned[:, :3] / spacing).T.ravel()))}\n"
        f"Offset = {' '.join(map(str, turned[:, 3]))}\n"
        f"ElementSpacing = {' '.join(map(str, spacing))}\nDimSize = {' '.join(map(str, values.shape))}\n"
        f"ElementType = {names[values.dtype.name]}\nElementDataFile = {data}\n"
    )
    path.write_bytes(head.encode() + values.tobytes(order="F"))
    return path


@pytest.fixture
def itk():
    return pytest.importorskip("SimpleITK", reason="reading NRRD and MetaImage needs the extra `itk`")


@pytest.mark.usefixtures("itk")
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_files_in_any_direction_are_brought_to_canonical(tmp_path, axis):
    flipped, affine = np.flip(numbers(), axis), AFFINE.copy()
    affine[:3, 3] += affine[:3, axis] * (flipped.shape[axis] - 1)
    affine[:3, axis] *= -1
    left = np.diag([-1.0, -1, 1, 1]) @ affine
    for path in (
        nrrd(tmp_path / "ras.nrrd", flipped, affine),
        nrrd(tmp_path / "lps.nrrd", flipped, left, space="left-posterior-superior"),
        mha(tmp_path / "a.mha", flipped, affine),
    ):
        found = read_scan_file(path, unit="HU")
        np.testing.assert_array_equal(found.values, numbers())
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-9)
        assert (found.values.dtype, found.unit) == (np.int16, "HU")


@pytest.mark.usefixtures("itk")
def test_an_oblique_scan_keeps_its_obliqueness(tmp_path):
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = AFFINE.copy()
    affine[:3, :3] = turn @ np.diag([2.0, 1.5, 3.0])
    for path in (nrrd(tmp_path / "a.nrrd", numbers(), affine), mha(tmp_path / "a.mha", numbers(), affine)):
        np.testing.assert_allclose(read_itk(path).affine, affine, atol=1e-9)


def test_what_an_own_writer_wrote_is_read(tmp_path, itk):
    image = itk.GetImageFromArray(numbers().transpose(2, 1, 0).astype(np.float64) / 3)
    image.SetSpacing((2.0, 1.5, 3.0))
    image.SetOrigin((40.0, -25.0, 110.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    for name in ("a.nrrd", "a.mha"):
        itk.WriteImage(image, str(tmp_path / name), useCompression=True)
        found = read_itk(tmp_path / name)
        np.testing.assert_allclose(found.values, numbers() / 3, rtol=1e-6)
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-9)
        assert found.values.dtype == np.float32


@pytest.mark.usefixtures("itk")
def test_a_mask_of_labels_stands_beside_a_scan_in_a_folder(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 2, 3], labels[0, 0, 0] = 2, 1
    (tmp_path / "p2").mkdir()
    for scan, mask in (("p1.nrrd", "p1_seg.nrrd"), ("p2/scan.mha", "p2/mask.nrrd")):
        (mha if scan.endswith("mha") else nrrd)(tmp_path / scan, numbers(), AFFINE)
        nrrd(tmp_path / mask, labels, AFFINE)
    found = folder_scans(tmp_path)
    assert set(found) == {"p1", "p2"}
    for scan, mask in found.values():
        reference = ScanReference(scan, mask, "2")
        np.testing.assert_array_equal(np.argwhere(reference.region(reference.volume())), [[1, 2, 3]])


@pytest.mark.usefixtures("itk")
def test_an_audit_reads_them(tmp_path):
    from survlens.data.scan_checks import reference_findings

    nrrd(tmp_path / "a.nrrd", numbers((4, 5, 6)), AFFINE)
    nrrd(tmp_path / "flat.nrrd", numbers((4, 5, 6)) * 0, AFFINE)
    references = {row: ScanReference(tmp_path / name) for row, name in enumerate(("a.nrrd", "flat.nrrd"))}
    assert [(one.code, tuple(one.rows)) for one in reference_findings(references, "scan", None)] == [
        ("scan-blank", (3,)),
    ]


@pytest.mark.usefixtures("itk")
def test_files_that_lead_elsewhere_are_refused_before_they_are_opened(tmp_path):
    (tmp_path / "secret.raw").write_bytes(numbers().tobytes())
    cases = (
        nrrd(tmp_path / "a.nrrd", numbers(), AFFINE, more="data file: secret.raw\n"),
        nrrd(tmp_path / "b.nrrd", numbers(), AFFINE, more="datafile: secret.raw\n"),
        mha(tmp_path / "c.mha", numbers(), AFFINE, data="secret.raw"),
        mha(tmp_path / "d.mha", numbers(), AFFINE, data="LIST"),
        mha(tmp_path / "e.mha", numbers(), AFFINE, data="LOCAL\nElementDataFile = secret.raw"),
    )
    for path in cases:
        with pytest.raises(DataError, match=f"{path.name} must hold its voxels itself"):
            read_itk(path)


@pytest.mark.usefixtures("itk")
def test_broken_files_are_told_without_a_path(tmp_path):
    whole = nrrd(tmp_path / "whole.nrrd", numbers(), AFFINE).read_bytes()
    for name, content in (("cut.nrrd", whole[:-7]), ("other.nrrd", b"PNG"), ("other.mha", b""), ("text.mha", whole)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptFileError, match=f"{name} must be a whole NRRD or MetaImage") as caught:
            read_itk(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(CorruptFileError, match="none.mha"):
        read_itk(tmp_path / "none.mha")


@pytest.mark.usefixtures("itk")
def test_sizes_and_places_that_cannot_be_right_are_refused(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", numbers(), AFFINE)
    with pytest.raises(DataError, match="at most 10 voxels; its header says 60"):
        read_itk(path, most_voxels=10)
    with pytest.raises(DataError, match="at most 100 bytes"):
        read_itk(path, most_bytes=100)
    head = path.read_text(errors="ignore").replace("sizes: 3 4 5", "sizes: 60000 60000 5")
    (tmp_path / "huge.nrrd").write_text(head)
    with pytest.raises(DataError, match="at most 1,500,000,000 voxels"):
        read_itk(tmp_path / "huge.nrrd")
    (tmp_path / "no.nrrd").write_bytes(path.read_bytes().replace(b"space: right-anterior-superior\n", b""))
    with pytest.raises(DataError, match="must say how it lies in the patient"):
        read_itk(tmp_path / "no.nrrd")
    values = numbers(kind=np.float32)
    values[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="finite values"):
        read_itk(nrrd(tmp_path / "nan.nrrd", values, AFFINE))


def test_endings_say_what_is_read(tmp_path):
    assert [is_scan_file(tmp_path / name) for name in ("a.NRRD", "a.mha", "a.nii.gz", "a.mhd", "a.nhdr", "a.png")] == [
        *(True, True, True, False, False, False)
    ]
    with pytest.raises(DataError, match="must end in .nrrd or .mha"):
        read_itk(tmp_path / "a.mhd")


def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingDependencyError, match=r"pip install survlens\[itk\]"):
        read_itk(nrrd(tmp_path / "a.nrrd", numbers(), AFFINE))


def test_equal_grids_are_recognised_across_formats(tmp_path, itk):
    nibabel = pytest.importorskip("nibabel", reason="reading NIfTI needs the extra `imaging`")
    nibabel.save(nibabel.Nifti1Image(numbers(), AFFINE), tmp_path / "a.nii")
    found = read_scan_file(nrrd(tmp_path / "a.nrrd", numbers(), AFFINE))
    assert found.same_grid(read_scan_file(tmp_path / "a.nii"))
    assert isinstance(found, Volume)
