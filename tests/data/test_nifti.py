"""NIfTI files: orientation, handedness, number types, and files that are broken or mean harm."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import CorruptFileError, DataError, InvalidTypeError, InvalidValueError
from survlens.data.geometry import Volume
from survlens.data.nifti import label_mask, read_nifti, write_nifti

nibabel = pytest.importorskip("nibabel", reason="reading NIfTI needs the extra `imaging`")

AFFINE = np.array([[2.0, 0, 0, -40], [0, 1.5, 0, 25], [0, 0, 3, 110], [0, 0, 0, 1]])


def numbers(shape=(3, 4, 5), kind=np.int16) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=kind).reshape(shape)


def saved(path, values=None, affine=AFFINE, *, large=False, change=None, slope=None):
    """A file written by nibabel, its header changed where asked for."""
    values = numbers() if values is None else values
    image = (nibabel.Nifti2Image if large else nibabel.Nifti1Image)(values, affine)
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(*slope)
    if change is not None:
        change(image.header)
    nibabel.save(image, str(path))
    return path


def patched(path, offset, content, to=None):
    """A copy of a plain file with other bytes at a place of its header."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    (to or path).write_bytes(bytes(raw))
    return to or path


def test_every_orientation_and_handedness_is_brought_to_canonical(tmp_path):
    volume = Volume(numbers(), AFFINE)
    left_handed = 0
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        values, affine = volume.values.transpose(order), AFFINE[:, [*order, 3]].copy()
        for axis in np.flatnonzero(flips):
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
        left_handed += np.linalg.det(affine[:3, :3]) < 0
        found = read_nifti(saved(tmp_path / "a.nii", np.ascontiguousarray(values), affine))
        np.testing.assert_array_equal(found.values, volume.values)
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
    assert left_handed == 24


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint16, np.float32, np.float64])
def test_both_formats_and_all_number_types_are_read_as_nibabel_reads_them(tmp_path, large, name, kind):
    found = read_nifti(saved(tmp_path / name, numbers(kind=kind), large=large))
    expected = nibabel.as_closest_canonical(nibabel.load(tmp_path / name))
    np.testing.assert_array_equal(found.values, np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine)
    assert found.values.dtype == (np.float32 if kind == np.float64 else kind)


def test_files_of_the_other_order_of_bytes_are_read(tmp_path):
    image = nibabel.Nifti1Image(numbers().astype(">i2"), AFFINE, header=nibabel.Nifti1Header(endianness=">"))
    nibabel.save(image, str(tmp_path / "a.nii"))
    found = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(found.values, numbers())
    assert found.values.dtype.isnative


def test_values_are_rescaled_and_units_of_length_turned(tmp_path):
    path = saved(tmp_path / "a.nii", slope=(2.0, -1024.0))
    stored = np.asarray(nibabel.load(path).dataobj)
    np.testing.assert_allclose(read_nifti(path).values, stored)
    assert read_nifti(path).values.dtype == np.float32
    micro = saved(tmp_path / "b.nii", change=lambda header: header.set_xyzt_units("micron"))
    np.testing.assert_allclose(read_nifti(micro).spacing, np.array([2.0, 1.5, 3.0]) / 1000, rtol=1e-6)
    assert read_nifti(path, unit="HU").unit == "HU"


def test_the_place_comes_from_the_qform_where_there_is_no_sform(tmp_path):
    turn = np.deg2rad(20)
    affine = AFFINE.copy()
    affine[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ AFFINE[:2, :2]
    affine[:3, 2] *= -1  # left-handed, which the qform says with qfac

    def no_sform(header):
        header.set_qform(affine, code=1)
        header.set_sform(None, code=0)

    found = read_nifti(saved(tmp_path / "a.nii", affine=affine, change=no_sform))
    place = affine @ [1, 2, 0, 1]
    voxel = np.rint(found.voxel(place[None, :3])[0]).astype(int)
    assert found.values[tuple(voxel)] == numbers()[1, 2, 0]
    np.testing.assert_allclose(found.world(voxel[None].astype(float))[0], place[:3], atol=1e-4)


def test_a_trailing_axis_of_one_is_no_fourth_axis(tmp_path):
    assert read_nifti(saved(tmp_path / "a.nii", numbers((3, 4, 5, 1)))).values.shape == (3, 4, 5)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    kind=st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.bool_]),
    flips=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    gz=st.booleans(),
)
def test_what_is_written_comes_back(tmp_path_factory, shape, kind, flips, gz):
    path = tmp_path_factory.mktemp("round") / f"a.nii{'.gz' if gz else ''}"
    volume = Volume(numbers(shape).astype(kind), AFFINE @ np.diag([*flips, 1.0]))
    found, expected = read_nifti(write_nifti(volume, path)), volume.canonical()
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    first = path.read_bytes()
    assert write_nifti(volume, path).read_bytes() == first


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InvalidValueError, match=r"\.nii or \.nii\.gz"):
        write_nifti(Volume(numbers(), AFFINE), tmp_path / "a.mha")
    with pytest.raises(InvalidValueError, match="32 bits"):
        write_nifti(Volume(numbers(kind=np.int64) << 40, AFFINE), tmp_path / "a.nii")
    with pytest.raises(InvalidTypeError, match="real numbers"):
        write_nifti(Volume(numbers().astype(np.complex64), AFFINE), tmp_path / "a.nii")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 1, 100, 347, 400, 450])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_that_is_cut_short_is_refused(tmp_path, keep, name):
    whole = saved(tmp_path / name, np.random.default_rng(0).normal(size=(6, 6, 6)))
    whole.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match=r"a\.nii.* must be a whole NIfTI file"):
        read_nifti(whole)


def test_a_compressed_file_that_is_damaged_is_refused(tmp_path):
    path = saved(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(6, 6, 6)))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(CorruptFileError, match="damaged or cut short|must be a whole"):
        read_nifti(path)
    path.write_bytes(b"\x1f\x8b" + b"not gzip at all")
    with pytest.raises(CorruptFileError, match="damaged"):
        read_nifti(path)


def test_other_files_are_refused_by_name(tmp_path):
    for name, content in (("a.nii", b"GIF89a" * 100), ("b.nii.gz", gzip.compress(b"x" * 1000))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptFileError, match="other content"):
            read_nifti(tmp_path / name)
    with pytest.raises(CorruptFileError, match="must be a whole"):
        read_nifti(tmp_path / "none.nii")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(CorruptFileError, match="must be a whole"):
        read_nifti(tmp_path / "folder.nii")
    with pytest.raises(DataError, match="must end in"):
        read_nifti(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 4, 5, 2), "3 x 4 x 5 x 2"), ((3, 4), "got 3 x 4"), ((3, 4, 1, 1, 6), "3 x 4 x 1 x 1 x 6")],
)
def test_more_or_less_than_one_volume_is_refused(tmp_path, shape, message):
    with pytest.raises(DataError, match=message):
        read_nifti(saved(tmp_path / "a.nii", numbers(shape)))


def test_a_bomb_is_refused_before_its_memory_is_taken(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    header = bytearray(saved(tmp_path / "a.nii", numbers((1, 1, 1), np.uint8)).read_bytes())
    header[40:48] = struct.pack("<4h", 3, 32_000, 32_000, 32_000)
    path.write_bytes(gzip.compress(bytes(header) + bytes(1 << 24)))
    tracemalloc.start()
    with pytest.raises(DataError, match="its header says 32,768,000,000,000"):
        read_nifti(path)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    # Within the cap, but the file ends: memory follows what is there.
    header[40:48] = struct.pack("<4h", 3, 1000, 1000, 1000)
    path.write_bytes(gzip.compress(bytes(header) + bytes(1 << 20)))
    tracemalloc.start()
    with pytest.raises(CorruptFileError, match="of 1,000,000,000 bytes"):
        read_nifti(path)
    assert tracemalloc.get_traced_memory()[1] < 5e7
    tracemalloc.stop()
    with pytest.raises(DataError, match="at most 10 voxels"):
        read_nifti(saved(tmp_path / "b.nii"), most_voxels=10)


def test_a_volume_whose_numbers_take_too_many_bytes_is_refused(tmp_path):
    for kind, slope, bytes_of_one in ((np.int16, None, 2), (np.float64, None, 8), (np.uint8, (2.0, 1.0), 4)):
        path = saved(tmp_path / "a.nii", numbers(kind=kind), slope=slope)
        assert read_nifti(path, most_bytes=60 * bytes_of_one).values.size == 60
        with pytest.raises(
            DataError, match=f"at most {60 * bytes_of_one - 1} bytes; its header says {60 * bytes_of_one}"
        ):
            read_nifti(path, most_bytes=60 * bytes_of_one - 1)
    header = bytearray(saved(tmp_path / "b.nii", numbers(kind=np.float64)).read_bytes()[:352])
    header[40:48] = struct.pack("<4h", 3, 1100, 1100, 1100)
    (tmp_path / "b.nii").write_bytes(bytes(header))
    with pytest.raises(DataError, match="at most 4,294,967,296 bytes; its header says 10,648,000,000"):
        read_nifti(tmp_path / "b.nii")


def test_a_small_header_over_a_large_rest_reads_only_what_it_says(tmp_path):
    path = tmp_path / "long.nii.gz"
    raw = saved(tmp_path / "a.nii").read_bytes()
    path.write_bytes(gzip.compress(raw + bytes(1 << 26)))
    tracemalloc.start()
    np.testing.assert_array_equal(read_nifti(path).values, numbers())
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_a_matrix_that_places_nothing_is_refused(tmp_path, wrong):
    path = saved(tmp_path / "a.nii")
    patched(path, 280, struct.pack("<4f", *[wrong] * 4))
    with pytest.raises(DataError, match="finite voxel to world matrix|voxels of some volume"):
        read_nifti(path)


def test_a_file_without_orientation_is_refused(tmp_path):
    with pytest.raises(DataError, match="left and right cannot be told apart"):
        read_nifti(saved(tmp_path / "a.nii", affine=None))


def test_a_qform_that_is_no_rotation_is_refused(tmp_path):
    path = saved(tmp_path / "a.nii", change=lambda header: (header.set_qform(AFFINE, 1), header.set_sform(None, 0)))
    patched(path, 256, struct.pack("<3f", 3.0, 3.0, 3.0))
    with pytest.raises(CorruptFileError, match="no rotation"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (108, struct.pack("<f", np.nan)),
        (108, struct.pack("<f", 1e30)),
        (108, struct.pack("<f", 10.0)),
        (40, struct.pack("<h", 9)),
        (42, struct.pack("<h", -5)),
        (70, struct.pack("<h", 999)),
    ],
)
def test_headers_of_nonsense_are_refused(tmp_path, offset, content):
    with pytest.raises(CorruptFileError, match="must be a whole NIfTI file"):
        read_nifti(patched(saved(tmp_path / "a.nii"), offset, content))


def test_colours_and_complex_numbers_are_refused(tmp_path):
    colour = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for values in (colour, numbers().astype(np.complex64)):
        with pytest.raises(DataError, match="real numbers"):
            read_nifti(saved(tmp_path / "a.nii", values))


def test_values_that_are_not_finite_are_counted_and_refused(tmp_path):
    values = numbers(kind=np.float32)
    values[0, 0, :2] = np.nan, np.inf
    with pytest.raises(DataError, match="2 voxels are not"):
        read_nifti(saved(tmp_path / "a.nii", values))


def test_labels_are_united_or_all_taken():
    volume = Volume(np.array([[[0, 1, 2, 5]]], np.uint8), np.eye(4))
    assert label_mask(volume)[0, 0].tolist() == [False, True, True, True]
    assert label_mask(volume, (1, 5))[0, 0].tolist() == [False, True, False, True]
    with pytest.raises(DataError, match="one of the labels 3, 4; it holds 0, 1, 2, 5"):
        label_mask(volume, (3, 4))
    with pytest.raises(DataError, match="whole numbers"):
        label_mask(Volume(np.full((1, 1, 2), 0.4), np.eye(4)))
    whole = Volume(np.array([[[0.0, 2.0]]]), np.eye(4))
    assert label_mask(whole, (2,))[0, 0].tolist() == [False, True]
