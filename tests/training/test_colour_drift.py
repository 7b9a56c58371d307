import numpy as np
import pytest
import torch

from survlens.training.colour_drift import colour_drift, lab, mean_lab
from survlens.training.picture_grid import picture_grid, save_grid


@pytest.mark.parametrize(
    ("colour", "expected"),
    [  # published values of sRGB primaries under daylight D65
        ((0, 0, 0), (0, 0, 0)),
        ((1, 1, 1), (100, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_known_colours_have_their_lab(colour, expected):
    found = lab(torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1)).flatten()
    assert found.tolist() == pytest.approx(expected, abs=0.02)


def pictures(seed: int, shift: float = 0.0, count: int = 40) -> torch.Tensor:
    draws = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(seed)) * 0.2 + 0.4
    return (draws + torch.tensor([shift, 0.0, 0.0])[:, None, None]).expand(-1, -1, 64, 64).clone()


def test_pictures_of_less_red_are_found_paler():
    same = colour_drift(mean_lab(pictures(0)), mean_lab(pictures(1)))
    pale = colour_drift(mean_lab(pictures(0, -0.2)), mean_lab(pictures(1)))
    assert same.distance < 3 * same.chance
    assert pale.redness < -10
    assert pale.distance > 5 * pale.chance
    assert pale.distance == pytest.approx(np.hypot(np.hypot(pale.lightness, pale.redness), pale.yellowness))


def test_the_distance_by_chance_is_what_equal_colours_show():
    drifts = [colour_drift(mean_lab(pictures(s)), mean_lab(pictures(s + 100))) for s in range(40)]
    observed = np.sqrt(np.mean([drift.distance**2 for drift in drifts]))
    assert observed == pytest.approx(np.mean([drift.chance for drift in drifts]), rel=0.25)


def test_grey_pictures_have_no_hue():
    grey = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mean_lab(grey)[:, 1:], torch.zeros(3, 2).double(), atol=0.02)


def test_a_grid_holds_its_pictures_in_order(tmp_path):
    shown = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    sheet = picture_grid(shown, columns=3)
    assert sheet.shape == (8, 18, 3)
    assert torch.equal(sheet[4:, 6:12], (shown[4].permute(1, 2, 0) * 255).round().to(torch.uint8))
    assert (sheet[4:, 12:] == 0).all()
    save_grid(tmp_path / "grids" / "one.png", shown)
    from PIL import Image

    with Image.open(tmp_path / "grids" / "one.png") as image:
        assert np.array_equal(np.asarray(image), picture_grid(shown).numpy())
