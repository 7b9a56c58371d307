"""Volumes written as DICOM, RTSTRUCT, DICOM-SEG and NIfTI and read back: same values, same masks, same places."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from survlens.core.attribution import Attribution
from survlens.core.errors import DataError, InvalidValueError
from survlens.data.contours import polygon_mask, read_segmentation, read_structures, structure_mask
from survlens.data.dicom import dicom_files, one_series, read_volume
from survlens.data.geometry import Volume
from survlens.data.nifti import read_nifti, write_nifti
from survlens.data.scans import ScanReference, ScanSettings, prepared
from survlens.data.simulate.dicom_files import (
    Person,
    Plane,
    Rescale,
    SeriesStyle,
    SliceOrder,
    outlines,
    turned,
    write_segmentation,
    write_series,
    write_structures,
)
from survlens.data.simulate.phantom import Organ, drawn_phantoms
from survlens.data.simulate.phantom_files import phantom_labels, phantom_volume, write_phantom_dicom

for needed in ("pydicom", "highdicom", "nibabel"):
    pytest.importorskip(needed, reason="reading scans needs the extra `imaging`")

NOBODY = Person("Nobody^Ever", "N1", "19500101", "O", "No Hospital", "No Street", "Doctor^No", "A1", "20100203")
SHAPE = (9, 10, 8)
MASKS = ("Organ", "Spot", "Rim")


def planted(seed: int = 0) -> tuple[Volume, dict[str, np.ndarray]]:
    """A volume of unequal spacing off the middle of the world, and masks with a hole, touching corners and a border."""
    rng = np.random.default_rng(seed)
    matrix = np.diag([1.7, 2.3, 3.1, 1.0])
    matrix[:3, 3] = (-31.5, 12.25, 204.7)
    values = rng.integers(-1024, 3072, SHAPE).astype(np.int16)
    organ, spot, rim = (np.zeros(SHAPE, bool) for _ in range(3))
    organ[2:8, 2:9, 1:6] = True
    organ[4:6, 4:7, 2:5] = False  # a hole in every plane
    organ[0, 0, 3] = organ[1, 1, 3] = True  # touch at a corner only
    spot[3, 7, 2] = True
    spot[8, 1, 6] = True  # slices between them are empty
    rim[0], rim[:, :, -1] = True, True  # reaches the border of the volume
    return Volume(values, matrix, "HU"), dict(zip(MASKS, (organ, spot, rim), strict=True))


def written(folder: Path, volume: Volume, masks: dict[str, np.ndarray], plane, flips, style=None) -> Volume:
    """The volume read back from files; masks lie beside it."""
    there = turned(volume, plane, flips)
    slices = write_series(folder / "ct", there, NOBODY, style)
    own = {name: turned(Volume(mask, volume.affine), plane, flips).values for name, mask in masks.items()}
    write_structures(folder / "rs.dcm", slices, there, own)
    write_segmentation(folder / "seg.dcm", slices, own)
    return read_volume(one_series(dicom_files(folder / "ct")))


def canonical(mask: np.ndarray, on: Volume) -> np.ndarray:
    return Volume(mask.astype(np.uint8), on.affine).canonical().values > 0


@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("plane", list(Plane))
def test_values_places_and_masks_return_exactly_in_every_orientation(plane, flips, tmp_path):
    volume, masks = planted()
    style = SeriesStyle(SliceOrder.SHUFFLED, SliceOrder.REVERSED)
    back = written(tmp_path, volume, masks, plane, flips, style)
    assert back.unit == "HU"
    upright = back.canonical()
    assert np.array_equal(upright.values, volume.values)
    np.testing.assert_allclose(upright.affine, volume.affine, atol=1e-9)
    structures = read_structures(tmp_path / "rs.dcm")
    for name, mask in masks.items():
        assert np.array_equal(canonical(structure_mask(structures, name.upper(), back), back), mask), name
        assert np.array_equal(canonical(read_segmentation(tmp_path / "seg.dcm", name, back), back), mask), name


@pytest.mark.parametrize("names", list(SliceOrder))
@pytest.mark.parametrize("numbers", list(SliceOrder))
def test_neither_file_names_nor_instance_numbers_decide_about_the_order(numbers, names, tmp_path):
    import pydicom

    volume, masks = planted()
    back = written(tmp_path, volume, masks, Plane.AXIAL, (True, True, False), SeriesStyle(numbers, names))
    assert np.array_equal(back.canonical().values, volume.values)
    headers = [pydicom.dcmread(path) for path in dicom_files(tmp_path / "ct")]  # in the order of their names
    places = [float(each.ImagePositionPatient[2]) for each in headers]
    assert (places == sorted(places)) == (names is SliceOrder.ASCENDING)
    by_number = [float(each.ImagePositionPatient[2]) for each in sorted(headers, key=lambda each: each.InstanceNumber)]
    assert (by_number == sorted(by_number)) == (numbers is SliceOrder.ASCENDING)
    mask = structure_mask(read_structures(tmp_path / "rs.dcm"), "spot", back)
    assert np.array_equal(canonical(mask, back), masks["Spot"])


@pytest.mark.parametrize(
    "rescale", [Rescale(), Rescale(1.0, 0.0, signed=True), Rescale(0.5, -1024.0), Rescale(0.25, -2000.0)], ids=str
)
def test_hounsfield_units_return_exactly_whatever_slope_and_intercept(rescale, tmp_path):
    volume, masks = planted()
    back = written(tmp_path, volume, masks, Plane.AXIAL, (False,) * 3, SeriesStyle(rescale=rescale))
    assert np.array_equal(back.canonical().values, volume.values)


def test_values_that_cannot_be_stored_are_refused(tmp_path):
    volume, _ = planted()
    with pytest.raises(InvalidValueError, match="16 bits"):
        write_series(tmp_path, Volume(volume.values + 0.5, volume.affine), NOBODY)
    with pytest.raises(InvalidValueError, match="16 bits"):
        write_series(tmp_path, Volume(volume.values - 2000.0, volume.affine), NOBODY)


def test_an_oblique_series_returns_with_its_place_and_masks(tmp_path):
    volume, masks = planted()
    a, b = 0.3, -0.2
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = about_x @ about_z @ np.diag([1.7, 2.3, 3.1]), (5, -40, 300)
    oblique = Volume(volume.values, matrix, "HU")
    back = written(tmp_path, oblique, masks, Plane.SAGITTAL, (False, True, True))
    upright = back.canonical()
    assert np.array_equal(upright.values, volume.values)
    np.testing.assert_allclose(upright.affine, matrix, atol=1e-9)
    structures = read_structures(tmp_path / "rs.dcm")
    for name, mask in masks.items():
        assert np.array_equal(canonical(structure_mask(structures, name, back), back), mask)
        assert np.array_equal(canonical(read_segmentation(tmp_path / "seg.dcm", name, back), back), mask)


def test_empty_frames_of_a_segmentation_are_not_stored_and_still_read_in_their_place(tmp_path):
    import pydicom

    volume, masks = planted()
    back = written(tmp_path, volume, {"Spot": masks["Spot"]}, Plane.AXIAL, (False, True, True))
    assert int(pydicom.dcmread(tmp_path / "seg.dcm").NumberOfFrames) == 2
    assert np.array_equal(canonical(read_segmentation(tmp_path / "seg.dcm", None, back), back), masks["Spot"])


def test_masks_of_another_patient_are_refused(tmp_path):
    volume, masks = planted()
    written(tmp_path, volume, masks, Plane.AXIAL, (False,) * 3)
    matrix = volume.affine.copy()
    matrix[:3, 3] += 500
    elsewhere = turned(Volume(volume.values, matrix), Plane.AXIAL)
    with pytest.raises(DataError, match="belong together"):
        structure_mask(read_structures(tmp_path / "rs.dcm"), "organ", elsewhere)
    with pytest.raises(DataError, match="belong together"):
        read_segmentation(tmp_path / "seg.dcm", "organ", elsewhere)


def test_outlines_along_pixel_edges_fill_to_the_same_mask():
    rng = random.Random(3)
    for _ in range(60):
        share = rng.random()
        mask = np.array([[rng.random() < share for _ in range(9)] for _ in range(7)])
        filled = np.zeros_like(mask)
        for corners in outlines(mask):
            filled ^= polygon_mask(corners, mask.shape)
        assert np.array_equal(filled, mask)


def test_the_length_of_outlines_is_the_number_of_pixel_edges():
    mask = np.zeros((6, 7), bool)
    mask[1:5, 1:6] = True
    mask[2:4, 2:4] = False
    lines = outlines(mask)
    assert len(lines) == 2
    lengths = [np.abs(corners - np.roll(corners, 1, axis=0)).sum() for corners in lines]
    assert sorted(lengths) == [8, 18]
    assert all(len(corners) == 4 for corners in lines)


@pytest.mark.parametrize("seed", range(3))
def test_phantoms_return_from_what_a_hospital_would_give(seed, tmp_path):
    for number, phantom in enumerate(drawn_phantoms(3, size=16, seed=seed)):
        name = f"P{number}"
        scan, mask, _ = write_phantom_dicom(tmp_path, name, phantom, seed=10 * seed + number)
        files = {"SEG": tmp_path / mask, "RTSTRUCT": tmp_path / "dicom" / name / "structures.dcm"}
        for path in files.values():
            reference = ScanReference(tmp_path / scan, path, "liver")
            volume = reference.volume()
            assert np.array_equal(volume.canonical().values, phantom_volume(phantom).values)
            np.testing.assert_allclose(volume.canonical().affine, phantom.affine, atol=1e-9)
            assert np.array_equal(
                canonical(reference.region(volume), volume), phantom_labels(phantom).values >= Organ.LIVER.value
            )
            inside = phantom_labels(phantom).values == Organ.TUMOUR.value
            if inside.any():
                region = ScanReference(tmp_path / scan, path, "tumour").region(volume)
                assert np.array_equal(canonical(region, volume), inside)


@pytest.mark.parametrize("plane", list(Plane))
def test_a_planted_voxel_keeps_its_place_from_dicom_through_resampling_to_nifti(plane, tmp_path):
    nibabel: Any = pytest.importorskip("nibabel")

    values = np.full((20, 22, 18), -1000, dtype=np.int16)
    matrix = np.diag([2.0, 1.5, 3.0, 1.0])
    matrix[:3, 3] = (-40, 15, 120)
    at = np.array([12, 6, 10])
    values[tuple(at)] = 2000
    place = matrix[:3, :3] @ at + matrix[:3, 3]
    write_series(tmp_path / "ct", turned(Volume(values, matrix), plane, (True, False, True)), NOBODY)
    back = read_volume(one_series(dicom_files(tmp_path / "ct")))
    for volume in (back, back.canonical(), back.resampled((1.0, 1.0, 1.0)), back.canonical().resampled((3, 2.5, 2))):
        loaded = nibabel.load(write_nifti(volume, tmp_path / "scan.nii.gz"))
        found = np.asarray(loaded.dataobj).astype(float) + 1000
        index = np.argwhere(found > 0)
        weights = found[tuple(index.T)]
        middle = nibabel.affines.apply_affine(loaded.affine, (index * weights[:, None]).sum(0) / weights.sum())
        np.testing.assert_allclose(middle, place, atol=0.5 * volume.spacing.max())
        again = read_nifti(tmp_path / "scan.nii.gz")
        brightest = np.array(np.unravel_index(np.argmax(again.values), again.values.shape), dtype=float)
        assert np.abs(again.world(brightest[None])[0] - place).max() <= 0.51 * again.spacing.max()
    same = nibabel.load(write_nifti(back, tmp_path / "scan.nii.gz"))
    voxel = np.linalg.solve(same.affine, [*place, 1.0])[:3]
    np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-3)
    assert np.asarray(same.dataobj)[tuple(np.rint(voxel).astype(int))] == 2000


def test_a_mask_reaching_the_border_survives_a_grid_that_differs_by_rounding_errors():
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[0], mask[:, -1], mask[:, :, -1] = 1, 1, 1
    matrix = np.diag([0.7, 1.3, 2.9, 1.0])
    matrix[:3, 3] = (101.1, -77.7, 33.3)
    for shift in (1e-9, -1e-9):
        moved = matrix.copy()
        moved[:3, 3] += shift
        assert np.array_equal(Volume(mask, matrix).on_grid_of(Volume(mask, moved)).values, mask)


@pytest.mark.parametrize("settings", [
    ScanSettings(window=(-1000, 2000)), ScanSettings(window=(-1000, 2000), spacing=(2.0, 2.0, 2.0)),
    ScanSettings(window=(-1000, 2000), spacing=(2.5, 1.5, 2.0), size=(14, 12, 16)),
    ScanSettings(window=(-1000, 2000), size=(16, 16, 16)),
], ids=["own", "resampled", "framed", "stretched"])  # fmt: skip
def test_an_attribution_of_a_planted_voxel_is_exported_to_its_place(settings, tmp_path):
    nibabel: Any = pytest.importorskip("nibabel")

    values = np.full((18, 20, 16), -1000, dtype=np.int16)
    matrix = np.diag([2.0, 1.5, 3.0, 1.0])
    matrix[:3, 3] = (-15, -18, 90)
    at = np.array([10, 8, 9])
    values[tuple(at)] = 2000
    write_series(tmp_path / "ct", turned(Volume(values, matrix), Plane.CORONAL, (True, False, False)), NOBODY)
    scan = prepared(ScanReference(tmp_path / "ct"), settings)
    voxels = torch.from_numpy(scan.values[None]).double().requires_grad_()
    (gradient,) = torch.autograd.grad((voxels**2).sum(), voxels)
    attribution = Attribution(
        values=gradient[..., None],
        times=torch.tensor([12.0]),
        unit="months",
        target="survival",
        method="Gradient",
        dims=("channel", "height", "width", "depth"),
        affine=scan.affine,
    )
    loaded = nibabel.load(attribution.to_nifti(tmp_path / "map.nii.gz"))
    found = np.asarray(loaded.dataobj)
    brightest = nibabel.affines.apply_affine(loaded.affine, np.unravel_index(np.argmax(found), found.shape))
    reach = 0.51 * np.linalg.norm(np.asarray(scan.affine)[:3, :3], axis=0)
    assert (np.abs(brightest - (matrix[:3, :3] @ at + matrix[:3, 3])) <= reach).all()
