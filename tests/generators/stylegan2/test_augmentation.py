import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2 import augmentation_colour as colour
from survlens.generators.stylegan2 import augmentation_geometry as geometry
from survlens.generators.stylegan2.augmentation import Augmentation
from survlens.generators.stylegan2.augmentation_corruption import USUAL_POWER, balanced_gains, cut_out, refilter
from survlens.generators.stylegan2.augmentation_geometry import Placement
from survlens.generators.stylegan2.wavelets import (
    SYMLET_2,
    SYMLET_6,
    centre,
    doubling_matrix,
    halving_matrix,
    octave_bands,
)

NAMES = [field.name for field in fields(Augmentation)]
EVERYTHING = Augmentation(**dict.fromkeys(NAMES, 1.0))


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 4, size: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=source(9)) * 2 - 1


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def only(name: str) -> Augmentation:
    return replace(Augmentation.none(), **{name: 1.0})


@pytest.mark.parametrize(("taps", "vanishing"), [(SYMLET_6, 6), (SYMLET_2, 2)])
def test_filters_are_orthogonal_and_keep_polynomials(taps, vanishing):
    h = np.array(taps)
    for shift in range(1, len(h) // 2):
        assert abs(h[2 * shift :] @ h[: -2 * shift]) < 1e-11
    assert h @ h == pytest.approx(1, abs=1e-11)
    assert h.sum() == pytest.approx(math.sqrt(2), abs=1e-11)
    places = np.arange(len(h)) - (len(h) - 1) / 2
    for degree in range(vanishing):  # the high pass (-1)^k h_k sees no polynomial of a lower degree
        moment = ((-1.0) ** np.arange(len(h)) * h) @ places**degree
        assert abs(moment) < 1e-8


@pytest.mark.parametrize("size", [16, 17])
def test_doubling_then_halving_changes_nothing(size):
    period = 4 * (size - 1)
    rows = torch.arange(2 * size + len(SYMLET_6) - 2) % period
    assert torch.allclose(halving_matrix(size) @ doubling_matrix(size)[rows], torch.eye(size).double(), atol=1e-11)
    assert torch.equal(doubling_matrix(size)[0], doubling_matrix(size)[period])


def test_doubling_keeps_a_straight_line_in_place():
    size = 40
    fine = doubling_matrix(size) @ torch.arange(size).double()
    places = 2 * torch.arange(10, 30) + 5
    assert torch.allclose(fine[places], (places.double() - centre()) / 2, atol=1e-9)


def test_the_four_bands_add_up_and_follow_each_other():
    bands = octave_bands()
    assert torch.allclose(bands.sum(0), torch.eye(43).double()[21], atol=1e-12)
    assert torch.allclose(bands, bands.flip(1), atol=1e-12)
    response = torch.fft.rfft(bands, 1024).abs()
    strongest = response.argmax(1).double() * math.pi / 512
    low, high = vector(0, 0.125, 0.25, 0.5) * math.pi, vector(0.125, 0.25, 0.5, 1) * math.pi
    assert ((strongest >= low - 1e-9) & (strongest <= high + 1e-9)).all()


def test_no_probability_changes_no_bit():
    pictures = noise()
    assert EVERYTHING(pictures, 0.0, source()) is pictures
    assert torch.equal(Augmentation.none()(pictures, 1.0, source()), pictures)


@pytest.mark.parametrize("name", NAMES)
def test_every_change_changes_and_repeats_by_its_seed(name):
    pictures = noise(12)
    first, second = (only(name)(pictures, 1.0, source(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, pictures)
    assert not torch.equal(first, only(name)(pictures, 1.0, source(4)))
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_share_of_changed_pictures_is_p(name):
    # Of flips one half is none; of quarter turns a quarter; of pixel shifts of up to 2 those of (0, 0).
    none = {"flip": 0.5, "luma_flip": 0.5, "quarter_turn": 0.25, "pixel_shift": 0.25**2}.get(name, 0.0)
    p, count = 0.3, 2000
    pictures = noise(1).expand(count, -1, -1, -1)
    changed = (only(name)(pictures, p, source(5)) != pictures).flatten(1).any(1).double().mean()
    expected = p * (1 - none) if name != "band" else 1 - (1 - p) ** 4
    assert float(changed) == pytest.approx(expected, abs=4 * math.sqrt(expected / count))


def test_what_changes_at_one_p_changes_at_every_larger_one():
    pictures = noise(64)
    low, high = ((EVERYTHING(pictures, p, source(1)) != pictures).flatten(1).any(1) for p in (0.05, 0.2))
    assert low.any()
    assert (high | ~low).all()
    assert high.sum() > low.sum()


def test_moves_by_whole_pixels_are_exact():
    pictures, turn = noise(1, 8), geometry.quarter_turns(vector(1))
    cases = [
        (geometry.scaling(vector(-1), vector(1)), pictures.flip(3)),
        (geometry.scaling(vector(1), vector(-1)), pictures.flip(2)),
        (turn, pictures.rot90(-1, (2, 3))),
        (geometry.quarter_turns(vector(2)), pictures.rot90(2, (2, 3))),
        (geometry.quarter_turns(vector(3)), pictures.rot90(1, (2, 3))),
        (geometry.shift(vector(2), vector(-1)), shifted(pictures, 2, -1)),
        # a flip first, then a turn: the factors of later changes stand to the right
        (geometry.scaling(vector(-1), vector(1)) @ turn, pictures.flip(3).rot90(-1, (2, 3))),
        (turn @ geometry.shift(vector(1), vector(2)), shifted(pictures.rot90(-1, (2, 3)), 1, 2)),
    ]  # fmt: skip
    for matrix, expected in cases:
        assert torch.equal(geometry.place(pictures, Placement(matrix, torch.tensor([True]))), expected)
        # Through the doubled picture the same but for the highest frequencies: the filter is not quite symmetric.
        warped = geometry.place(pictures, Placement(matrix, torch.tensor([False])))
        assert (warped - expected).square().mean() < 0.25 * expected.square().mean()


def shifted(pictures: torch.Tensor, right: int, down: int) -> torch.Tensor:
    size = pictures.shape[-1]
    result = torch.empty_like(pictures)
    for row in range(size):
        for column in range(size):
            y, x = abs(row - down), abs(column - right)  # mirrored at the first pixel
            y, x = min(y, 2 * (size - 1) - y), min(x, 2 * (size - 1) - x)  # and at the last
            result[:, :, row, column] = pictures[:, :, y, x]
    return result


@pytest.mark.parametrize(
    "matrix",
    [
        geometry.rotation(vector(0.4)),
        geometry.rotation(vector(math.pi / 2)),
        geometry.scaling(vector(1.3), vector(1.3)),
        geometry.scaling(vector(1.2), vector(1 / 1.2)) @ geometry.rotation(vector(-0.7)),
        geometry.shift(vector(1.37), vector(-2.81)),
        geometry.scaling(vector(0.8), vector(0.8))
        @ geometry.rotation(vector(2))
        @ geometry.shift(vector(3), vector(1)),
    ],
)  # fmt: skip
def test_a_smooth_picture_is_warped_as_its_formula(matrix):
    size, wide = 32, 5.0
    axis = torch.arange(size).double() - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def blob(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((x - 2.5) ** 2 + (y + 1.5) ** 2 / 2) / (2 * wide))

    warped = geometry.place(blob(x, y)[None, None].float(), Placement(matrix, torch.tensor([False])))
    m, middle = matrix[0], (size - 1) / 2

    def mirrored(place: torch.Tensor) -> torch.Tensor:
        folded = (place + middle).remainder(4 * middle)
        return torch.minimum(folded, 4 * middle - folded) - middle

    places = (m[axis, 0] * x + m[axis, 1] * y + m[axis, 2] for axis in range(2))
    expected = blob(*map(mirrored, places))
    assert (warped[0, 0] - expected).abs().max() < 0.02


def test_a_far_shift_goes_on_as_a_mirror_image():
    pictures = noise(1, 16)
    far = Placement(geometry.shift(vector(60), vector(-90)), torch.tensor([True]))  # two periods of 30, and three
    assert torch.equal(geometry.place(pictures, far), pictures)
    warped = geometry.place(pictures, replace(far, on_pixels=torch.tensor([False])))
    assert torch.allclose(warped, pictures, atol=1e-4)


def test_directions_of_the_changes():
    dot = torch.zeros(1, 1, 9, 9)
    dot[0, 0, 4, 6] = 1.0  # two pixels right of the centre
    turned = geometry.place(dot, Placement(geometry.rotation(vector(math.pi / 2)), torch.tensor([False])))
    assert np.unravel_index(int(turned.argmax()), (9, 9)) == (6, 4)  # clockwise: below the centre
    wider = geometry.place(dot, Placement(geometry.scaling(vector(2), vector(1)), torch.tensor([False])))
    assert np.unravel_index(int(wider.argmax()), (9, 9)) == (4, 8)


def test_reading_places_can_be_differentiated_twice():
    pictures = torch.rand(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(1, 3, 3, 2, dtype=torch.float64) * 1.8 - 0.9
    assert torch.autograd.gradcheck(lambda x: geometry.sample(x, grid), pictures)
    assert torch.autograd.gradgradcheck(lambda x: geometry.sample(x, grid).square(), pictures)


def test_the_gradient_is_the_adjoint_and_the_second_derivative_exists():
    x, y = noise(6), noise(6).flip(0)
    augmentation, seed = replace(EVERYTHING, brightness=0.0, noise=0.0), 11  # what is left is linear
    x.requires_grad_()
    changed = augmentation(x, 0.5, source(seed))
    (back,) = torch.autograd.grad((changed * y).sum(), x)
    assert torch.allclose((changed * y).sum(), (x * back).sum(), rtol=1e-4)
    weight = torch.tensor(1.3, requires_grad=True)
    scores = (augmentation(x, 0.5, source(seed)) * weight).square().sum()
    (gradient,) = torch.autograd.grad(scores, x, create_graph=True)
    gradient.square().sum().backward()  # ~ weight^4
    expected = 4 * gradient.square().sum() / weight
    assert torch.allclose(weight.grad, expected, rtol=1e-4)


@pytest.mark.parametrize("angle", [0.3, -1.2, 2 * math.pi / 3])
def test_colour_matrices_keep_the_laws_of_their_groups(angle):
    grey, red = vector(0.3, 0.3, 0.3, 1), vector(1, 0, 0, 1)
    turn, flip = colour.hue(vector(angle))[0], colour.luma_flip(vector(1.0))[0]
    assert torch.allclose(turn @ grey, grey)
    assert torch.allclose(turn @ colour.hue(vector(-angle))[0], torch.eye(4).double(), atol=1e-12)
    assert torch.allclose(turn @ turn, colour.hue(vector(2 * angle))[0])
    assert torch.linalg.det(turn) == pytest.approx(1)
    assert torch.allclose(flip @ flip, torch.eye(4).double(), atol=1e-12)
    assert torch.allclose((flip @ grey)[:3], -grey[:3])
    assert torch.allclose((flip @ red)[:3] - (flip @ red)[:3].mean(), red[:3] - red[:3].mean())
    pale = colour.saturation(vector(0.5))[0] @ red
    assert pale[:3].mean() == pytest.approx(1 / 3)
    assert torch.allclose(pale[:3] - 1 / 3, 0.5 * (red[:3] - 1 / 3))
    assert torch.allclose(colour.saturation(vector(0.0))[0] @ red, vector(1 / 3, 1 / 3, 1 / 3, 1))
    assert torch.allclose(colour.brightness(vector(0.2))[0] @ grey, vector(0.5, 0.5, 0.5, 1))
    assert torch.allclose(colour.contrast(vector(2.0))[0] @ grey, vector(0.6, 0.6, 0.6, 1))


def test_a_third_of_a_turn_of_hue_exchanges_the_channels():
    pictures = noise(1)
    turned = colour.recolour(pictures, colour.hue(vector(2 * math.pi / 3)))
    assert torch.allclose(turned, pictures[:, [2, 0, 1]], atol=1e-6)


def test_colours_of_a_batch_are_those_of_each_pixel():
    pictures, matrix = noise(3, 4), colour.hue(vector(0.1, 0.2, 0.3)) @ colour.brightness(vector(0.1, 0.0, -0.2))
    changed = colour.recolour(pictures, matrix)
    for instance in range(3):
        pixel = torch.cat([pictures[instance, :, 1, 2].double(), vector(1)])
        assert torch.allclose(changed[instance, :, 1, 2].double(), (matrix[instance] @ pixel)[:3], atol=1e-6)


def test_a_grey_picture_changes_as_the_mean_of_its_three_equal_channels():
    grey = noise(5, channels=1)
    matrix = colour.contrast(vector(1.5, 1, 1, 0.7, 2)) @ colour.luma_flip(vector(0, 1, 0, 1, 0))
    three = colour.recolour(grey.expand(-1, 3, -1, -1), matrix).mean(1, keepdim=True)
    assert torch.allclose(colour.recolour(grey, matrix), three, atol=1e-6)


def test_portraits_keep_their_hue_more_often_than_published():
    pictures = noise(1).expand(600, -1, -1, -1)
    shares = []
    for usual in (Augmentation(), Augmentation.published()):
        changed = replace(Augmentation.none(), hue=usual.hue)(pictures, 0.5, source(2)) != pictures
        shares.append(float(changed.flatten(1).any(1).double().mean()))
    assert shares[0] < 0.1 < 0.4 < shares[1]


def test_gains_of_bands_keep_the_usual_power():
    factors = torch.exp(torch.randn(50, 4, generator=source(), dtype=torch.float64))
    gains = balanced_gains(factors)
    one = torch.ones(1, 4, dtype=torch.float64)
    assert torch.equal(balanced_gains(one), one)
    single = balanced_gains(vector(1, 1, 3, 1)[None])
    assert single.square() @ vector(*USUAL_POWER) == pytest.approx(1)
    assert single[0, 2] / single[0, 0] == pytest.approx(3)
    ratio = (gains / gains[:, :1]) / (factors / factors[:, :1])
    assert torch.allclose(ratio, torch.ones_like(ratio))


def test_a_filter_multiplies_waves_by_the_gain_of_their_band():
    size = 64
    gains = vector(0.5, 1, 1, 2)[None]
    flat = torch.full((1, 1, size, size), 0.4)
    assert torch.allclose(refilter(flat, gains), flat * 0.25, atol=1e-6)  # once along each axis
    fastest = (-1.0) ** torch.arange(size).float().expand(1, 1, size, size)
    assert torch.allclose(refilter(fastest, gains)[..., 22:-22], fastest[..., 22:-22] * 2 * 0.5, atol=1e-5)


def test_a_hole_lies_where_it_is_said():
    pictures = noise(2, 16) + 3
    cut = cut_out(pictures, torch.tensor([[0.5, 0.25], [0.5, 0.5]], dtype=torch.float64), vector(0.5, 0))
    assert (cut[0, :, :8, 4:12] == 0).all()
    assert int((cut[0] == 0).sum()) == 3 * 8 * 8
    assert torch.equal(cut[1], pictures[1])


def test_what_is_no_probability_or_no_picture_is_refused():
    with pytest.raises(InvalidValueError, match="`hue` must lie in"):
        Augmentation(hue=1.5)
    with pytest.raises(InvalidValueError, match="`p` must lie in"):
        Augmentation()(noise(), 1.2, source())
    with pytest.raises(InvalidValueError, match="must be square"):
        Augmentation()(noise()[..., :8], 0.5, source())
