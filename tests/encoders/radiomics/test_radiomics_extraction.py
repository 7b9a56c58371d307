"""Extraction: what features do not depend on, regions too small for some of them, and tables of many cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.data.geometry import Volume
from survlens.encoders.radiomics import (
    Exponential,
    FeatureClass,
    Gradient,
    LaplacianOfGaussian,
    Logarithm,
    Original,
    RadiomicsSettings,
    Square,
    SquareRoot,
    Wavelet,
    radiomics_features,
    radiomics_table,
)

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
TEXTURES = frozenset(FeatureClass) - {FeatureClass.SHAPE}
EVERY = (
    Original(),
    Wavelet(),
    LaplacianOfGaussian((1.0, 2.0, 3.0, 4.0, 5.0)),
    Square(),
    SquareRoot(),
    Logarithm(),
    Exponential(),
    Gradient(),
)


def case(seed=0, shape=(12, 11, 10)):
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=shape) * 60)
    mask = np.zeros(shape, bool)
    mask[3:9, 2:9, 3:8] = rng.random((6, 7, 5)) < 0.8
    return Volume(values, AFFINE), mask


def same(found, expected, names=None):
    assert set(found) == set(expected)
    for name in names or expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name


def test_the_names_are_those_of_pyradiomics():
    volume, mask = case()
    found = radiomics_features(volume, mask, RadiomicsSettings(filters=EVERY))
    assert len(found) == 19 * 93 + 14 == 1781
    assert {"original_shape_Sphericity", "wavelet-HLH_glcm_Idmn", "log-sigma-1-0-mm-3D_glszm_ZoneEntropy"} <= set(found)
    assert all(np.isfinite(value) for value in found.values())
    shape_only = radiomics_features(volume, mask, RadiomicsSettings(classes=frozenset([FeatureClass.SHAPE])))
    assert len(shape_only) == 14


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_features_do_not_depend_on_how_the_volume_is_stored(order, flips):
    volume, mask = case()
    matrix = AFFINE.copy()
    values, labels = volume.values, mask
    for axis, flip in enumerate(flips):
        if flip:
            values, labels = np.flip(values, axis), np.flip(labels, axis)
            matrix[:3, 3] += matrix[:3, axis] * (values.shape[axis] - 1)
            matrix[:3, axis] *= -1
    matrix[:3, :3] = matrix[:3, :3][:, list(order)]
    stored = Volume(values.transpose(order), matrix)
    same(radiomics_features(stored, labels.transpose(order)), radiomics_features(volume, mask))


def test_features_do_not_depend_on_where_the_region_lies():
    volume, mask = case()
    moved = Volume(np.roll(volume.values, (2, 1, -2), (0, 1, 2)), AFFINE)
    found = radiomics_features(moved, np.roll(mask, (2, 1, -2), (0, 1, 2)))
    same(found, radiomics_features(volume, mask))


def test_features_do_not_depend_on_what_is_outside():
    volume, mask = case()
    other = Volume(np.where(mask, volume.values, 12345), AFFINE)
    same(radiomics_features(other, mask), radiomics_features(volume, mask))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirror_images_have_the_same_textures(axis):
    volume, mask = case()
    mirrored = Volume(np.flip(volume.values, axis).copy(), AFFINE)
    chosen = RadiomicsSettings(classes=TEXTURES)
    same(radiomics_features(mirrored, np.flip(mask, axis).copy(), chosen), radiomics_features(volume, mask, chosen))


@pytest.mark.parametrize("shift", [25.0, -250.0])
def test_a_shift_by_whole_bins_leaves_textures_alone(shift):
    volume, mask = case()
    shifted = Volume(volume.values + shift, AFFINE)
    chosen = RadiomicsSettings(classes=TEXTURES - {FeatureClass.FIRST_ORDER})
    same(radiomics_features(shifted, mask, chosen), radiomics_features(volume, mask, chosen))


def test_a_number_of_bins_does_not_see_shift_and_scale():
    volume, mask = case()
    other = Volume(volume.values * 4 + 64, AFFINE)
    chosen = RadiomicsSettings(bin_count=16, classes=TEXTURES - {FeatureClass.FIRST_ORDER})
    same(radiomics_features(other, mask, chosen), radiomics_features(volume, mask, chosen))


def test_normalising_undoes_shift_and_scale():
    volume, mask = case()
    other = Volume(volume.values * 4 + 64, AFFINE)
    chosen = RadiomicsSettings(bin_width=10.0, normalise_scale=100.0)
    found, expected = radiomics_features(other, mask, chosen), radiomics_features(volume, mask, chosen)
    assert found["original_firstorder_Mean"] == pytest.approx(expected["original_firstorder_Mean"])
    assert found["original_firstorder_Variance"] == pytest.approx(expected["original_firstorder_Variance"])


def test_in_the_plane_one_slice_has_the_textures_of_space():
    volume, mask = case()
    one, region = Volume(volume.values[:, :, 4:5], AFFINE), mask[:, :, 4:5]
    flat = radiomics_features(one, region, RadiomicsSettings(force_2d=True))
    deep = radiomics_features(one, region)
    assert len(flat) == 102
    same(
        {name: value for name, value in flat.items() if "_shape" not in name},
        {name: value for name, value in deep.items() if "_shape" not in name},
    )


def test_in_the_plane_the_order_of_slices_does_not_matter():
    volume, mask = case()
    order = [3, 5, 4, 7, 6]
    shuffled = Volume(volume.values[:, :, order], AFFINE), mask[:, :, order]
    plain = Volume(volume.values[:, :, sorted(order)], AFFINE), mask[:, :, sorted(order)]
    chosen = RadiomicsSettings(force_2d=True, classes=TEXTURES)
    same(radiomics_features(*shuffled, chosen), radiomics_features(*plain, chosen))


def test_a_wide_margin_is_the_whole_image():
    volume, mask = case()
    chosen = {"filters": (Gradient(), Square()), "classes": TEXTURES}
    whole = radiomics_features(volume, mask, RadiomicsSettings(**chosen))
    same(radiomics_features(volume, mask, RadiomicsSettings(**chosen, margin=30)), whole)
    near = radiomics_features(volume, mask, RadiomicsSettings(filters=(Gradient(),), classes=TEXTURES, margin=1))
    same(near, {name: value for name, value in whole.items() if name.startswith("gradient")})


def test_resampling_to_the_spacing_there_is_changes_nothing():
    volume, mask = case()
    same(radiomics_features(volume, mask, RadiomicsSettings(spacing=(1.0, 1.5, 2.0))), radiomics_features(volume, mask))


def test_resampling_keeps_the_volume_of_a_region():
    volume, mask = case(shape=(24, 22, 20))
    mask[:] = False
    mask[4:20, 4:18, 4:16] = True
    found = radiomics_features(volume, mask, RadiomicsSettings(spacing=(2.0, 2.0, 2.0)))
    assert found["original_shape_VoxelVolume"] == pytest.approx(mask.sum() * 3.0, rel=0.1)


def test_a_constant_region_has_the_agreed_values():
    mask = np.zeros((6, 6, 6), bool)
    mask[1:5, 1:5, 1:5] = True
    found = radiomics_features(Volume(np.full((6, 6, 6), 40.0), np.eye(4)), mask)
    expected = {
        "firstorder_Entropy": 0,
        "firstorder_Skewness": 0,
        "firstorder_Kurtosis": 0,
        "firstorder_Uniformity": 1,
        "glcm_Correlation": 1,
        "glcm_MCC": 1,
        "glcm_Imc1": 0,
        "glcm_Imc2": 0,
        "glcm_JointEntropy": 0,
        "glszm_LargeAreaEmphasis": 64**2,
        "ngtdm_Coarseness": 1e6,
        "ngtdm_Contrast": 0,
        "ngtdm_Busyness": 0,
        "ngtdm_Strength": 0,
        "ngtdm_Complexity": 0,
    }
    for name, value in expected.items():
        assert found[f"original_{name}"] == pytest.approx(value, abs=1e-12), name


def single():
    volume, mask = case()
    one = np.zeros_like(mask)
    one[4, 4, 4] = True
    return volume, one


def test_a_single_voxel_names_what_is_undefined():
    with pytest.raises(InvalidValueError, match="shape_Elongation.*undefined"):
        radiomics_features(*single())
    defined = frozenset([FeatureClass.FIRST_ORDER, FeatureClass.GLSZM, FeatureClass.GLDM])
    found = radiomics_features(*single(), RadiomicsSettings(classes=defined))
    assert found["original_glszm_ZonePercentage"] == 1


def test_two_voxels_in_a_row_have_every_feature():
    volume, mask = single()
    mask[4, 4, 5] = True
    found = radiomics_features(volume, mask)
    assert len(found) == 107
    assert found["original_shape_Elongation"] == found["original_shape_Flatness"] == 0


def test_voxels_that_do_not_touch_name_what_is_undefined():
    volume, mask = single()
    mask[4, 4, 8] = True
    with pytest.raises(InvalidValueError, match="original_glcm_Autocorrelation"):
        radiomics_features(volume, mask)


def test_what_cannot_be_used_is_refused():
    volume, mask = case()
    with pytest.raises(InvalidValueError, match="empty mask"):
        radiomics_features(volume, np.zeros_like(mask))
    with pytest.raises(InvalidTypeError, match="truth values"):
        radiomics_features(volume, mask.astype(int))
    with pytest.raises(InvalidValueError, match="shape"):
        radiomics_features(volume, mask[1:])
    with pytest.raises(InvalidValueError, match="0 and 1"):
        radiomics_features(volume, Volume(mask * 2, AFFINE))
    with pytest.raises(InvalidValueError, match="on_grid_of"):
        radiomics_features(volume, Volume(mask, np.eye(4)))
    with pytest.raises(InvalidValueError, match="finite"):
        radiomics_features(Volume(np.full(mask.shape, np.nan), AFFINE), mask)
    many = Volume(np.arange(20.0**3).reshape(20, 20, 20), AFFINE)
    with pytest.raises(InvalidValueError, match="grey levels"):
        radiomics_features(many, np.ones(many.values.shape, bool), RadiomicsSettings(bin_width=1.0))
    same(radiomics_features(volume, Volume(mask.astype(np.uint8), AFFINE)), radiomics_features(volume, mask))


def test_a_table_keeps_going_and_says_what_was_wrong():
    volume, mask = case()
    seen = []
    table = radiomics_table(
        [("a", volume, mask), ("b", volume, np.zeros_like(mask)), ("c", *single())], on_case=seen.append
    )
    assert seen == ["a", "b", "c"]
    assert list(table.features.index) == ["a", "c"]
    assert "empty mask" in table.faults["b"]
    assert set(table.undefined) == {"c"}
    assert set(table.features.columns[table.features.loc["c"].isna()]) == set(table.undefined["c"])
    same(dict(table.features.loc["a"]), radiomics_features(volume, mask))
    with pytest.raises(InvalidValueError, match="'a' twice"):
        radiomics_table([("a", volume, mask), ("a", volume, mask)])
