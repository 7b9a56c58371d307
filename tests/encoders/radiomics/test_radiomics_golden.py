"""Features of a real tumour against PyRadiomics 3.0.1, each of the 209, and from the DICOM files themselves."""

import json

import numpy as np
import pytest

from survlens.data.geometry import Volume
from survlens.encoders.radiomics import RadiomicsSettings, radiomics_features

SHAPE = """Elongation Flatness LeastAxisLength MajorAxisLength Maximum2DDiameterColumn Maximum2DDiameterRow
Maximum2DDiameterSlice Maximum3DDiameter MeshVolume MinorAxisLength Sphericity SurfaceArea SurfaceVolumeRatio
VoxelVolume"""
SHAPE_2D = """Elongation MajorAxisLength MaximumDiameter MeshSurface MinorAxisLength Perimeter PerimeterSurfaceRatio
PixelSurface Sphericity"""
FIRST_ORDER = """10Percentile 90Percentile Energy Entropy InterquartileRange Kurtosis Maximum MeanAbsoluteDeviation Mean
Median Minimum Range RobustMeanAbsoluteDeviation RootMeanSquared Skewness TotalEnergy Uniformity Variance"""
GLCM = """Autocorrelation ClusterProminence ClusterShade ClusterTendency Contrast Correlation DifferenceAverage
DifferenceEntropy DifferenceVariance Id Idm Idmn Idn Imc1 Imc2 InverseVariance JointAverage JointEnergy JointEntropy MCC
MaximumProbability SumAverage SumEntropy SumSquares"""
GLRLM = """GrayLevelNonUniformity GrayLevelNonUniformityNormalized GrayLevelVariance HighGrayLevelRunEmphasis
LongRunEmphasis LongRunHighGrayLevelEmphasis LongRunLowGrayLevelEmphasis LowGrayLevelRunEmphasis RunEntropy
RunLengthNonUniformity RunLengthNonUniformityNormalized RunPercentage RunVariance ShortRunEmphasis
ShortRunHighGrayLevelEmphasis ShortRunLowGrayLevelEmphasis"""
GLSZM = """GrayLevelNonUniformity GrayLevelNonUniformityNormalized GrayLevelVariance HighGrayLevelZoneEmphasis
LargeAreaEmphasis LargeAreaHighGrayLevelEmphasis LargeAreaLowGrayLevelEmphasis LowGrayLevelZoneEmphasis
SizeZoneNonUniformity SizeZoneNonUniformityNormalized SmallAreaEmphasis SmallAreaHighGrayLevelEmphasis
SmallAreaLowGrayLevelEmphasis ZoneEntropy ZonePercentage ZoneVariance"""
GLDM = """DependenceEntropy DependenceNonUniformity DependenceNonUniformityNormalized DependenceVariance
GrayLevelNonUniformity GrayLevelVariance HighGrayLevelEmphasis LargeDependenceEmphasis
LargeDependenceHighGrayLevelEmphasis LargeDependenceLowGrayLevelEmphasis LowGrayLevelEmphasis SmallDependenceEmphasis
SmallDependenceHighGrayLevelEmphasis SmallDependenceLowGrayLevelEmphasis"""
NGTDM = "Busyness Coarseness Complexity Contrast Strength"


def named(**classes):
    return [f"{name}_{feature}" for name, features in classes.items() for feature in features.split()]


IN_BOTH = {"firstorder": FIRST_ORDER, "glcm": GLCM, "glrlm": GLRLM, "glszm": GLSZM, "gldm": GLDM, "ngtdm": NGTDM}
IN_SPACE = named(shape=SHAPE, **IN_BOTH)
IN_PLANE = named(shape2D=SHAPE_2D, **IN_BOTH)


@pytest.fixture(scope="module")
def patient(shared):
    """Golden values, and image and mask of the crop they were taken from, as DICOM has them: left, back, head."""
    golden = json.loads(shared("golden", "radiomics_LUNG1-002.json").read_text())
    with np.load(shared("golden", "radiomics_LUNG1-002.npz")) as arrays:
        matrix = np.diag([*(arrays["spacing_zyx_mm"][::-1] * (-1, -1, 1)), 1.0])
        volume = Volume(arrays["volume"].transpose(2, 1, 0), matrix, "HU")
        mask = arrays["mask"].transpose(2, 1, 0) > 0
    return golden, volume, mask


@pytest.fixture(scope="module")
def in_space(patient):
    golden, volume, mask = patient
    return radiomics_features(volume, mask), golden["volume_3d"]["features"]


@pytest.fixture(scope="module")
def in_plane(patient):
    golden, volume, mask = patient
    slice_ = golden["largest_slice_2d"]["index_in_full_volume"] - golden["crop_zyx"]["lo"][0]
    one = Volume(volume.values[:, :, slice_ : slice_ + 1], volume.affine)
    features = radiomics_features(one, mask[:, :, slice_ : slice_ + 1], RadiomicsSettings(force_2d=True))
    return features, golden["largest_slice_2d"]["features"]


@pytest.mark.parametrize("name", IN_SPACE)
def test_a_feature_in_space_equals_pyradiomics(in_space, name):
    found, golden = in_space
    assert found[f"original_{name}"] == pytest.approx(golden[name], rel=1e-8)


@pytest.mark.parametrize("name", IN_PLANE)
def test_a_feature_in_the_plane_equals_pyradiomics(in_plane, name):
    found, golden = in_plane
    assert found[f"original_{name}"] == pytest.approx(golden[name], rel=1e-8)


def test_every_golden_feature_has_its_test(in_space, in_plane):
    for (found, golden), names in ((in_space, IN_SPACE), (in_plane, IN_PLANE)):
        assert set(golden) == set(names)
        assert set(found) == {f"original_{name}" for name in names}
    assert len(IN_SPACE) + len(IN_PLANE) == 107 + 102


@pytest.mark.slow
def test_features_from_the_dicom_files_are_the_same(shared, in_space):
    pytest.importorskip("pydicom", reason="reading DICOM needs the extra `imaging`")
    from survlens.data.contours import read_structures, structure_mask
    from survlens.data.dicom import dicom_files, one_series, read_volume

    folder = shared("data", "lung1", "dicom")
    volume = read_volume(one_series(dicom_files(folder / "ct")))
    structures = read_structures(next((folder / "rtstruct").iterdir()))
    mask = structure_mask(structures, "GTV-1", volume)
    found = radiomics_features(volume, mask)
    for name, value in in_space[1].items():
        assert found[f"original_{name}"] == pytest.approx(value, rel=1e-4), name
