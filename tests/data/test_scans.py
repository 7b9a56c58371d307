"""Scans: geometry, DICOM series and contours, against a real patient's golden values and by round trips."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import CorruptFileError, DataError, InvalidValueError
from survlens.data.contours import polygon_mask, read_structures, structure_mask
from survlens.data.dicom import dicom_files, one_series, read_volume, series_of
from survlens.data.geometry import Volume, box_of

pytest.importorskip("pydicom", reason="reading DICOM needs the extra `imaging`")


def turned(order, flips, shape=(5, 6, 7)) -> Volume:
    """A volume whose axes stand in some order and direction."""
    spacing = np.array([1.0, 2.0, 3.0])
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3)[:, order] * np.where(flips, -1, 1)) * spacing
    matrix[:3, 3] = (10, -20, 30)
    return Volume(np.random.default_rng(0).normal(size=shape), matrix)


@settings(deadline=None)
@given(
    order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3), voxel=st.tuples(*[st.integers(0, 4)] * 3)
)
def test_a_voxel_keeps_its_place_when_the_volume_is_turned(order, flips, voxel):
    volume = turned(list(order), list(flips))
    canonical = volume.canonical()
    place = volume.world(np.array([voxel], dtype=float))
    moved = np.rint(canonical.voxel(place)[0]).astype(int)
    assert canonical.values[tuple(moved)] == volume.values[voxel]
    assert (np.diag(canonical.affine)[:3] > 0).all()
    np.testing.assert_allclose(canonical.affine[:3, :3], np.diag(np.diag(canonical.affine)[:3]), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(spacing=st.tuples(*[st.floats(0.7, 3.0)] * 3), where=st.tuples(*[st.integers(8, 16)] * 3))
def test_a_bright_spot_keeps_its_place_through_resampling_and_cropping(spacing, where):
    values = np.zeros((24, 24, 24))
    near = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1) - np.array(where)
    values += np.exp(-(near**2).sum(-1) / 8)
    volume = Volume(values, np.diag([1.5, 1.0, 2.0, 1.0]))
    moved = volume.resampled(spacing).cropped((-1, -2, 0), volume.resampled(spacing).values.shape)
    weights = moved.values.ravel()
    index = np.stack(np.meshgrid(*map(np.arange, moved.values.shape), indexing="ij"), -1).reshape(-1, 3)
    middle = moved.world((index * weights[:, None]).sum(0, keepdims=True) / weights.sum())[0]
    np.testing.assert_allclose(middle, np.array(where) * (1.5, 1.0, 2.0), atol=0.06 * max(spacing))


def test_a_mask_on_another_grid_covers_the_same_place():
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[5:11, 6:14, 4:12] = 1
    volume = Volume(mask, np.diag([2.0, 2.0, 2.0, 1.0]))
    fine = Volume(np.zeros((40, 40, 40)), np.diag([1.0, 1.0, 1.0, 1.0]))
    there = volume.on_grid_of(fine)
    np.testing.assert_allclose(
        there.values.sum() * there.voxel_millilitres, mask.sum() * volume.voxel_millilitres, rtol=0.2
    )
    low, high = box_of(there.values > 0)
    assert np.abs(low - np.array([9, 11, 7])).max() <= 1
    assert np.abs(high - np.array([21, 27, 23])).max() <= 1


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.zeros((0, 2, 2))])
def test_a_volume_has_three_axes(values):
    with pytest.raises(InvalidValueError, match="three axes"):
        Volume(values, np.eye(4))


def test_an_affine_without_volume_is_refused():
    with pytest.raises(InvalidValueError, match="full rank"):
        Volume(np.zeros((2, 2, 2)), np.diag([1.0, 1.0, 0.0, 1.0]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 15)), min_size=3, max_size=8))
def test_polygons_are_filled_by_the_even_odd_rule(points):
    corners = np.array(points) + 0.0137  # no corner on a pixel centre, where either answer is right
    found = polygon_mask(corners, (12, 12))
    for row in range(12):
        for column in range(12):
            crossings = 0
            for (r0, c0), (r1, c1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
                if (r0 <= row) != (r1 <= row):
                    crossings += c0 + (row - r0) / (r1 - r0) * (c1 - c0) <= column
            assert found[row, column] == (crossings % 2 == 1)


@pytest.fixture(scope="module")
def patient(shared):
    folder, golden = shared("data", "lung1", "dicom"), shared("golden", "radiomics_LUNG1-002.json")
    return folder, json.loads(golden.read_text())


def test_a_real_scan_and_its_contours_equal_the_golden_values(patient):
    folder, golden = patient
    series = one_series(dicom_files(folder / "ct"))
    assert series.faults() == ()
    volume = read_volume(series)
    facts, expected = golden["volume"], golden["mask"]
    assert [volume.values.shape[axis] for axis in (2, 0, 1)] == facts["shape_zyx"]
    np.testing.assert_allclose(volume.spacing[[2, 0, 1]], facts["spacing_zyx_mm"], atol=1e-6)
    assert (volume.unit, volume.values.min(), volume.values.max()) == ("HU", facts["hu_min"], facts["hu_max"])
    np.testing.assert_allclose(volume.values.mean(dtype=np.float64), facts["hu_mean"], rtol=1e-12)
    means = volume.values.mean((0, 1), dtype=np.float64)
    np.testing.assert_allclose(means[:3], facts["slice_means_first_three"], rtol=1e-12)
    np.testing.assert_allclose(means[-3:], facts["slice_means_last_three"], rtol=1e-12)
    structures = read_structures(dicom_files(folder / "rtstruct")[0])
    mask = structure_mask(structures, "gtv-1", volume)
    assert int(mask.sum()) == expected["voxels"]
    centroid = [float(each.mean()) for each in np.nonzero(mask)]
    np.testing.assert_allclose([centroid[axis] for axis in (2, 0, 1)], expected["centroid_zyx_voxel"], atol=1e-9)
    np.testing.assert_allclose(volume.values[mask].mean(dtype=np.float64), expected["mean_hu_inside"], rtol=1e-9)
    with pytest.raises(DataError, match="Lung-Left"):
        structure_mask(structures, "liver", volume)


def test_faults_of_a_series_are_named_and_no_volume_is_made(patient, tmp_path):
    files = dicom_files(patient[0] / "ct")[:12]
    for path in files:
        shutil.copy(path, tmp_path / path.name)
    ordered = one_series(dicom_files(tmp_path)).slices
    ordered[5].path.unlink()
    gap = one_series(dicom_files(tmp_path))
    assert any("1 slices of 3 mm are missing" in fault for fault in gap.faults())
    with pytest.raises(DataError, match="missing"):
        read_volume(gap)
    shutil.copy(ordered[4].path, tmp_path / "again.dcm")
    assert any("at a place that another has" in fault for fault in one_series(dicom_files(tmp_path)).faults())
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(CorruptFileError, match=r"broken\.dcm"):
        series_of(dicom_files(tmp_path))
