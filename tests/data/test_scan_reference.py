"""Scans as arrays: orientation, resampling, cropping, slices and masks, against what was planted."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import nn

from survlens.core.errors import CorruptFileError, DataError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.targets import cumulative_hazard
from survlens.data import scans
from survlens.data.dicom import dicom_files
from survlens.data.geometry import Volume
from survlens.data.nifti import read_nifti, write_nifti
from survlens.data.scans import ScanReference, ScanSettings, ScanView, prepared
from survlens.explain.gradient import Gradient
from survlens.heads.pc_hazard import PCHazard
from survlens.models.survival_model import SurvivalModel

nibabel = pytest.importorskip("nibabel", reason="reading NIfTI needs the extra `imaging`")

SPACING = np.array([2.0, 1.5, 3.0])
SHAPE, BRIGHT = (5, 6, 7), (1, 4, 2)
TURNS = list(product(permutations(range(3)), product((False, True), repeat=3)))
WINDOW = (0.0, 100.0)


class LooksAtBright(nn.Module):
    """Sees the voxels above one half, and no others."""

    def __init__(self):
        super().__init__()
        self.out_features = 1

    def forward(self, x):
        return (x * (x > 0.5)).flatten(1).sum(1, keepdim=True)


def scene(shape=SHAPE, bright=(BRIGHT,), value=100.0) -> Volume:
    """A dark canonical volume, with bright voxels, off the origin."""
    values = np.zeros(shape, np.float32)
    for each in bright:
        values[each] = value
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-40, 25, 110)
    return Volume(values, affine)


def turned(volume: Volume, order, flips) -> Volume:
    """The same volume stored with its axes in another order and direction."""
    values, affine = volume.values.transpose(order), volume.affine[:, [*order, 3]].copy()
    for axis, flipped in enumerate(flips):
        if flipped:
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(values), affine)


def model_of_bright() -> SurvivalModel:
    head = PCHazard(1, TimeGrid(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), "months"))
    with torch.no_grad():
        for weight in head.parameters():
            weight.fill_(0.7)
    return SurvivalModel({"image": LooksAtBright()}, head)


def stored(folder, volume, name="scan.nii.gz"):
    return write_nifti(volume, folder / name)


@pytest.mark.parametrize(
    "settings",
    [
        ScanSettings(window=WINDOW),
        ScanSettings(window=WINDOW, spacing=(2.0, 1.5, 3.0), size=(9, 8, 11)),
        ScanSettings(window=WINDOW, crop=True, margin=3.0, mask_channel=True, spacing=(2.0, 1.5, 3.0), size=(6, 6, 6)),
    ],
    ids=["as stored", "filled up", "cropped"],
)
def test_an_attribution_comes_back_where_its_voxel_lies_for_every_orientation_of_the_file(tmp_path, settings):
    truth = scene()
    place = truth.world(np.array([BRIGHT], dtype=float))[0]
    mask = Volume((truth.values > 0).astype(np.uint8), truth.affine)
    found_scans = []
    for number, (order, flips) in enumerate(TURNS):
        scan = stored(tmp_path, turned(truth, order, flips), f"{number}.nii")
        # The mask is stored in an orientation of its own.
        region = stored(tmp_path, turned(mask, *TURNS[-1 - number]), f"{number}_mask.nii")
        found_scans.append(prepared(ScanReference(scan, region), settings))
    inputs = {"image": torch.from_numpy(np.stack([each.values for each in found_scans]))}
    found = Gradient()(model_of_bright(), inputs, torch.tensor([1.0, 1.5]), cumulative_hazard)["image"]
    assert found.dims == ("channel", "height", "width", "depth")
    found = replace(found, affine=np.stack([each.affine for each in found_scans]))
    for row in range(len(found_scans)):
        # Read again by the bare header, without bringing anything into order.
        image = nibabel.load(found.to_nifti(tmp_path / "map.nii", instance=row, time=1.5, channel=0))
        values = np.asarray(image.dataobj)
        at = np.argwhere(np.abs(values) > 1e-6)
        assert len(at) == 1
        np.testing.assert_allclose((image.affine @ [*at[0], 1])[:3], place, atol=1e-4)


def test_slices_of_every_orientation_keep_the_place_of_a_voxel(tmp_path):
    truth = scene()
    place = truth.world(np.array([BRIGHT], dtype=float))[0]
    mask = Volume((truth.values > 0).astype(np.uint8), truth.affine)
    for view in (ScanView.SLICE, ScanView.THREE_SLICES):
        settings = ScanSettings(window=WINDOW, view=view, crop=True, margin=2.0, mask_channel=True)
        for order, flips in TURNS[::5]:
            scan, region = turned(truth, order, flips), turned(mask, order, flips)
            paths = stored(tmp_path, scan), stored(tmp_path, region, "mask.nii.gz")
            found = prepared(ScanReference(*paths), settings)
            assert found.values.shape == (4 if view is ScanView.THREE_SLICES else 2, 3, 5)
            seen = found.values[1 if view is ScanView.THREE_SLICES else 0]
            np.testing.assert_array_equal(seen, found.values[-1])
            at = np.argwhere(seen > 0.5)
            assert len(at) == 1
            np.testing.assert_allclose((found.affine @ [*at[0], 0, 1])[:3], place, atol=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 3.0, 6.0), (1.3, 2.9, 2.0)])
def test_the_middle_of_a_blob_stays_in_place_through_resampling(tmp_path, spacing):
    shape, middle = (24, 26, 22), np.array([10, 13, 9])
    near = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - middle
    blob = Volume((100 * np.exp(-(near**2).sum(-1) / 12)).astype(np.float32), scene().affine)
    region = Volume((blob.values > 40).astype(np.uint8), blob.affine)
    paths = stored(tmp_path, turned(blob, (2, 0, 1), (True, False, True))), stored(tmp_path, region, "mask.nii")
    settings = ScanSettings(window=WINDOW, spacing=spacing, crop=True, margin=8.0, mask_channel=True)
    found = prepared(ScanReference(*paths), settings)
    index = np.stack(np.meshgrid(*map(np.arange, found.values.shape[1:]), indexing="ij"), -1).reshape(-1, 3)
    for channel in found.values:
        weights = channel.reshape(-1, 1).astype(np.float64)
        centre = (index * weights).sum(0) / weights.sum()
        np.testing.assert_allclose(
            (found.affine @ [*centre, 1])[:3], blob.world(middle[None].astype(float))[0], atol=0.15 * max(spacing)
        )
    volume = found.values[1].sum() * np.prod(spacing)
    np.testing.assert_allclose(volume, region.values.sum() * np.prod(SPACING), rtol=0.15)


def test_a_stretched_box_has_the_size_asked_for_and_reaches_its_corners(tmp_path):
    truth = scene()
    values = np.linspace(0, 100, truth.values.size, dtype=np.float32).reshape(SHAPE)
    path = stored(tmp_path, Volume(values, truth.affine))
    found = prepared(ScanReference(path), ScanSettings(window=WINDOW, size=(10, 12, 14)))
    assert found.values.shape == (1, 10, 12, 14)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, :3], axis=0), SPACING / 2)
    # The outer faces of both boxes lie in one place, and no rim is darker than the edge of the scan.
    np.testing.assert_allclose(
        (found.affine @ [-0.5, -0.5, -0.5, 1])[:3], truth.world(np.full((1, 3), -0.5))[0], atol=1e-9
    )
    np.testing.assert_allclose(found.values[0, -1, -1, -1], 1.0, atol=1e-6)


def test_what_lies_between_the_points_of_a_coarser_grid_is_not_lost(tmp_path):
    values = np.zeros((32, 32, 32), np.float32)
    values[::2, ::2, ::2] = 80
    volume = Volume(values, np.eye(4))
    mask = Volume(np.zeros((32, 32, 32), np.uint8), np.eye(4))
    mask.values[9, 9, 9] = 1
    paths = stored(tmp_path, volume), stored(tmp_path, mask, "mask.nii")
    settings = ScanSettings(window=WINDOW, spacing=(4.0, 4.0, 4.0), mask_channel=True)
    found = prepared(ScanReference(*paths), settings).values
    assert found.shape == (2, 8, 8, 8)
    np.testing.assert_allclose(found[0, 1:-1, 1:-1, 1:-1], 0.1, atol=0.02)
    assert found[1].sum() >= 1
    assert found[1, 2, 2, 2] == 1


def test_windows_become_zero_to_one_and_unknown_values_their_own(tmp_path):
    values = np.linspace(-1000, 1000, 8 * 8 * 8, dtype=np.float32).reshape(8, 8, 8)
    reference = ScanReference(stored(tmp_path, Volume(values, np.eye(4))))
    fixed = prepared(reference, ScanSettings(window=(-100.0, 100.0))).values[0]
    np.testing.assert_allclose(fixed, np.clip((values + 100) / 200, 0, 1), atol=1e-6)
    own = prepared(reference, ScanSettings()).values[0]
    low, high = np.percentile(values, (1, 99))
    np.testing.assert_allclose(own, np.clip((values - low) / (high - low), 0, 1), atol=1e-6)
    blank = ScanReference(stored(tmp_path, Volume(np.zeros((4, 4, 4)), np.eye(4)), "blank.nii"))
    with pytest.raises(DataError, match="must show something"):
        prepared(blank, ScanSettings())


def test_slices_come_by_falling_area(tmp_path):
    values = np.arange(6, dtype=np.float32)[None, None] * np.ones((8, 8, 1), np.float32)
    mask = np.zeros((8, 8, 6), np.uint8)
    mask[:2, :2, 1], mask[:6, :6, 2], mask[:4, :4, 4] = 1, 1, 1
    paths = stored(tmp_path, Volume(values, np.eye(4))), stored(tmp_path, Volume(mask, np.eye(4)), "mask.nii")
    reference, settings = ScanReference(*paths), ScanSettings(window=(0.0, 10.0), view=ScanView.SLICE)
    for rank, z in enumerate((2, 4, 1)):
        found = prepared(reference, settings, rank=rank)
        np.testing.assert_allclose(found.values, z / 10)
        assert found.affine[2, 3] == z
        assert found.covered == 3
    with pytest.raises(InvalidValueError, match="below 3"):
        prepared(reference, settings, rank=3)
    three = prepared(reference, ScanSettings(window=(0.0, 10.0), view=ScanView.THREE_SLICES), rank=1)
    np.testing.assert_allclose(three.values[:, 0, 0], [0.3, 0.4, 0.5])


def test_structures_are_labels_of_a_nifti_mask_alone_or_together(tmp_path):
    labels = np.zeros((4, 4, 4), np.int16)
    labels[0], labels[1], labels[2] = 1, 2, 7
    scan, mask = stored(tmp_path, scene((4, 4, 4), ())), stored(tmp_path, Volume(labels, scene().affine), "mask.nii.gz")
    volume = read_nifti(scan)
    for structure, rows in ((None, (0, 1, 2)), ("2", (1,)), ("1, 7", (0, 2)), ("1;2", (0, 1)), ("2.0", (1,))):
        region = ScanReference(scan, mask, structure).region(volume)
        assert tuple(np.flatnonzero(region.all((1, 2)))) == rows
        assert region.sum() == 16 * len(rows)
    with pytest.raises(DataError, match="one of the labels 5; it holds 0, 1, 2, 7"):
        ScanReference(scan, mask, "5").region(volume)
    with pytest.raises(DataError, match="labels of a NIfTI mask"):
        ScanReference(scan, mask, "liver").region(volume)
    off = Volume(labels, scene().affine + np.array([[0, 0, 0, 500.0], [0] * 4, [0] * 4, [0] * 4]))
    with pytest.raises(DataError, match="covers none"):
        ScanReference(scan, stored(tmp_path, off, "off.nii"), None, "scan 3").region(volume)


def test_a_mask_that_is_needed_and_missing_or_unreadable_is_refused(tmp_path):
    scan = stored(tmp_path, scene())
    with pytest.raises(DataError, match="must have a mask"):
        prepared(ScanReference(scan), ScanSettings(crop=True))
    (tmp_path / "mask.dcm").write_bytes(b"no dicom")
    with pytest.raises(CorruptFileError, match=r"mask\.dcm"):
        prepared(ScanReference(scan, tmp_path / "mask.dcm"), ScanSettings(crop=True))
    # A mask that no setting looks at is not read.
    prepared(ScanReference(scan, tmp_path / "mask.dcm"), ScanSettings(window=WINDOW))


def test_the_identity_follows_the_content_and_not_the_name(tmp_path):
    first, second = stored(tmp_path, scene()), stored(tmp_path, scene(), "other.nii.gz")
    assert ScanReference(first, name="a").identity == ScanReference(second, name="b").identity
    assert ScanReference(first).identity != ScanReference(first, second).identity
    assert ScanReference(first, second, "1").identity != ScanReference(first, second, "2").identity
    before = ScanReference(first).identity
    stored(tmp_path, scene(value=99.0))
    assert ScanReference(first).identity != before
    with pytest.raises(CorruptFileError, match="must be readable"):
        _ = ScanReference(tmp_path / "none.nii").identity


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": (1.0, 1.0)}, "`window`"),
        ({"spacing": (1.0, 0.0, 1.0)}, "`spacing`"),
        ({"size": (4, 4)}, "3 numbers"),
        ({"size": (4, 4, 4), "view": ScanView.SLICE}, "2 numbers"),
        ({"margin": -1.0}, "`margin`"),
        ({"slices": 2}, "`slices`"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(InvalidValueError, match=message):
        ScanSettings(**given)


@pytest.fixture(scope="module")
def patient(shared):
    """A real patient, its structure set beside its slices in one folder as exports have it, and what is known of it."""
    folder, golden = shared("data", "lung1", "dicom"), shared("golden", "radiomics_LUNG1-002.json")
    (structures,) = dicom_files(folder / "rtstruct")
    return folder, structures, json.loads(golden.read_text())["mask"]


@pytest.mark.slow
def test_a_dicom_series_with_contours_is_prepared_in_its_place(patient, monkeypatch):
    folder, structures, golden = patient
    reference = ScanReference(folder / "ct", structures, "gtv-1")
    stored = reference.volume()
    monkeypatch.setattr(scans, "read_volume", lambda series: stored)  # decoded once
    assert int(reference.region(stored).sum()) == golden["voxels"]
    rows_columns_slices = np.array(golden["centroid_zyx_voxel"])[[1, 2, 0]]
    middle = stored.world(rows_columns_slices[None])[0]
    settings = ScanSettings(
        window=(-1000.0, 400.0), spacing=(4.0, 4.0, 4.0), size=(32, 32, 32), crop=True, mask_channel=True
    )
    found = prepared(reference, settings)
    assert found.values.shape == (2, 32, 32, 32)
    assert (np.diag(found.affine)[:3] > 0).all()
    centre = np.array([each.mean() for each in np.nonzero(found.values[1])])
    np.testing.assert_allclose((found.affine @ [*centre, 1])[:3], middle, atol=1.0)
    np.testing.assert_allclose(found.values[1].sum() * 0.064, golden["volume_ml"], rtol=0.02)
    # The largest slice of the region, as it is stored.
    one = prepared(reference, ScanSettings(window=(-1000.0, 400.0), view=ScanView.SLICE, mask_channel=True))
    assert one.values[1].sum() == golden["largest_slice_pixels"]
    assert one.covered == golden["slices"]
    with pytest.raises(DataError, match="must name one of"):
        ScanReference(folder / "ct", structures).region(stored)
    with pytest.raises(DataError, match="Lung-Left"):
        ScanReference(folder / "ct", structures, "liver").region(stored)
