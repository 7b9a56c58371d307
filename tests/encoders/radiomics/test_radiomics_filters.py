"""Filters: closed forms, second routes and what each must obey."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from survlens.core.errors import InvalidTypeError, InvalidValueError
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
)
from survlens.encoders.radiomics.filters import COIFLET

SPACING = (3.0, 1.0, 2.0)


def image(shape=(6, 8, 10), seed=0):
    return np.random.default_rng(seed).normal(size=shape) * 100


def only(filter_, values, *, in_plane=False):
    ((_, found),) = filter_.images(values, SPACING, in_plane=in_plane)
    return found


def test_pointwise_filters_keep_the_range_they_promise():
    values = image()
    top = np.abs(values).max()
    at = np.unravel_index(np.abs(values).argmax(), values.shape)
    np.testing.assert_allclose(only(Square(), values), values**2 / top)
    assert only(Square(), values).max() == pytest.approx(top)
    np.testing.assert_allclose(only(SquareRoot(), values) ** 2, np.abs(values) * top)
    for filter_ in (SquareRoot(), Logarithm()):
        found = only(filter_, values)
        assert found[at] == pytest.approx(values[at])
        assert (np.sign(found) == np.sign(values)).all()
        assert (np.diff(found.ravel()[values.ravel().argsort()]) >= 0).all()
    found = only(Exponential(), values)
    assert found.max() == pytest.approx(top ** (values.max() / top))
    assert (found > 0).all()
    assert only(Original(), values) is values


@pytest.mark.parametrize("filter_", [Square(), SquareRoot(), Logarithm(), Exponential()])
def test_an_image_of_zeros_has_no_scale(filter_):
    with pytest.raises(InvalidValueError, match="zero everywhere"):
        list(filter_.images(np.zeros((2, 2, 2)), SPACING, in_plane=False))


def test_the_gradient_of_a_ramp_is_its_slope_per_millimetre():
    z, y, x = np.meshgrid(*[np.arange(6) * side for side in SPACING], indexing="ij")
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(only(Gradient(), 3 * z - 4 * y + 12 * x)[inner], 13)
    np.testing.assert_allclose(only(Gradient(), 3 * z - 4 * y + 3 * x, in_plane=True)[inner], 5)
    # At the border the image goes on unchanged: half the slope.
    assert only(Gradient(), 2.0 * y)[2, 0, 2] == pytest.approx(1)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0])
def test_the_laplacian_of_a_parabola_is_exact(sigma):
    axes = np.meshgrid(*[(np.arange(41) - 20) * side for side in SPACING], indexing="ij")
    found = only(LaplacianOfGaussian((sigma,)), 2 * axes[0] ** 2 + axes[1] ** 2 - axes[2] ** 2 + 7 * axes[0] - 3)
    reached = 6 * sigma / min(SPACING) > 20  # the border, where the parabola ends
    assert found[20, 20, 20] == pytest.approx(sigma**2 * (4 + 2 - 2), rel=1e-3 if reached else 1e-6)
    flat = only(LaplacianOfGaussian((sigma,)), np.full((5, 6, 7), 40.0))
    np.testing.assert_allclose(flat, 0, atol=1e-9)


def test_the_laplacian_of_a_wide_gaussian_equals_the_formula():
    axes = np.meshgrid(*[(np.arange(61) - 30) * 1.0] * 3, indexing="ij")
    squared = sum(axis**2 for axis in axes)
    width, sigma = 4.0, 3.0
    ((name, found),) = LaplacianOfGaussian((sigma,)).images(
        np.exp(-squared / (2 * width**2)), (1.0, 1.0, 1.0), in_plane=False
    )
    total = width**2 + sigma**2
    smooth = (width**2 / total) ** 1.5 * np.exp(-squared / (2 * total))
    expected = sigma**2 * smooth * (squared / total**2 - 3 / total)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    assert name == "log-sigma-3-0-mm-3D"


def test_filters_in_the_plane_do_not_mix_slices():
    values = image()
    other = values.copy()
    other[3] += 50 * image((1, 8, 10), 1)[0]
    for filter_ in (Gradient(), LaplacianOfGaussian((1.5,)), Wavelet()):
        first = dict(filter_.images(values, SPACING, in_plane=True))
        second = dict(filter_.images(other, SPACING, in_plane=True))
        for name, found in first.items():
            np.testing.assert_allclose(np.delete(found, 3, 0), np.delete(second[name], 3, 0), err_msg=name)
    assert list(dict(Wavelet().images(values, SPACING, in_plane=True))) == [
        f"wavelet-{b}" for b in ("HH", "HL", "LH", "LL")
    ]


def test_the_coiflet_is_orthonormal_and_has_two_vanishing_moments():
    assert COIFLET.sum() == pytest.approx(np.sqrt(2))
    assert (COIFLET**2).sum() == pytest.approx(1)
    assert COIFLET[2:] @ COIFLET[:-2] == pytest.approx(0)
    assert COIFLET[4:] @ COIFLET[:-4] == pytest.approx(0)
    high = COIFLET[::-1] * np.array([-1, 1] * 3)
    assert high.sum() == pytest.approx(0)
    assert high @ np.arange(6) == pytest.approx(0)


def test_wavelet_bands_keep_the_energy():
    """Without decimation, one step along three axes doubles the energy three times."""
    values = image()
    bands = dict(Wavelet().images(values, SPACING, in_plane=False))
    assert set(bands) == {f"wavelet-{a}{b}{c}" for a in "LH" for b in "LH" for c in "LH"}
    assert sum((band**2).sum() for band in bands.values()) == pytest.approx(8 * (values**2).sum())


def test_letters_of_wavelets_go_along_x_then_y_then_z():
    x = np.broadcast_to((-1.0) ** np.arange(10), (6, 8, 10))
    z = np.broadcast_to(((-1.0) ** np.arange(6))[:, None, None], (6, 8, 10))
    for values, name in ((x, "wavelet-HLL"), (z, "wavelet-LLH")):
        bands = dict(Wavelet().images(values, SPACING, in_plane=False))
        assert max(bands, key=lambda each: (bands[each] ** 2).sum()) == name


def test_a_wavelet_step_equals_the_sum_over_the_kernel_also_on_odd_sides():
    values = np.zeros((1, 1, 7))
    values[0, 0] = image((7, 1, 1)).ravel()
    line = np.append(values[0, 0], values[0, 0, 0])
    low = [sum(COIFLET[k] * line[(n + 3 - k) % 8] for k in range(6)) for n in range(7)]
    bands = dict(Wavelet().images(np.repeat(np.repeat(values, 2, 0), 2, 1), SPACING, in_plane=False))
    # A constant passes the low pass of the two other axes with the factor √2 each.
    np.testing.assert_allclose(bands["wavelet-LLL"][0, 0], 2 * np.array(low))
    np.testing.assert_allclose(bands["wavelet-LHL"], 0, atol=1e-9)


@given(bad=st.sampled_from([(), (0.0,), (-1.0,), (float("nan"),)]))
def test_sigmas_must_be_lengths(bad):
    with pytest.raises(InvalidValueError, match="`sigmas`"):
        LaplacianOfGaussian(bad)


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"bin_width": 0.0}, "bin_width"),
        ({"bin_count": 0}, "bin_count"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"normalise_scale": 0.0}, "normalise_scale"),
        ({"margin": -1}, "margin"),
        ({"filters": ()}, "filters"),
        ({"classes": frozenset()}, "classes"),
    ],
)
def test_settings_out_of_range_are_refused(setting, word):
    with pytest.raises(InvalidValueError, match=word):
        RadiomicsSettings(**setting)


def test_a_filter_must_be_one():
    with pytest.raises(InvalidTypeError, match="filters"):
        RadiomicsSettings(filters=("wavelet",))
    assert len(FeatureClass) == 7
