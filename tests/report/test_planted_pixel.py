"""A pixel planted in an image file comes back at its row and column: in every attribution, its arrays and figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from report.test_attribution_figures import pixels
from survlens.artifacts.attribution_files import read_attributions, write_attributions
from survlens.core.attribution import Attribution
from survlens.core.grid import TimeGrid
from survlens.core.targets import risk_at
from survlens.data.raster import FileImage
from survlens.explain.cam import GradCAM
from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.groups import GroupedContributions, region_groups
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.occlusion import Occlusion
from survlens.explain.path_rules.segments import RefinedSegments
from survlens.explain.references import References
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel
from survlens.report.figures.attribution_maps import draw_attribution_maps

HEIGHT, WIDTH = 9, 14
PLACES = [(0, 0), (0, 13), (8, 0), (8, 13), (2, 10)]
GRID = TimeGrid.equidistant(12.0, 3, "months")
TIMES = torch.tensor([2.0, 6.0, 11.0], dtype=torch.float64)
BLACK = References.all({"image": torch.zeros((1, 3, HEIGHT, WIDTH))})
LATE = risk_at(6.0)


class Glow(nn.Module):
    """The brightness of one place of a picture, which the model cannot find by itself: all weights are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.mix.weight, 1.0)
        nn.init.constant_(self.mix.bias, 0.0)

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.mix(image)).square().sum((2, 3))


@pytest.fixture(scope="module")
def model() -> SurvivalModel:
    head = LogisticHazard(1, GRID)
    nn.init.constant_(head.linear.weight, 0.4)
    nn.init.constant_(head.linear.bias, -3.0)
    return SurvivalModel({"image": Glow()}, head).eval()


@pytest.fixture(params=PLACES, ids=[f"row {row}, column {column}" for row, column in PLACES])
def planted(request, tmp_path) -> tuple[tuple[int, int], np.ndarray]:
    """A dark colour file with one bright pixel, as the readers of survlens see it."""
    shown = np.full((HEIGHT, WIDTH, 3), 2, dtype=np.uint8)
    shown[request.param] = (250, 60, 60)
    Image.fromarray(shown).save(tmp_path / "planted.png")
    return request.param, FileImage(tmp_path / "planted.png").read()


METHODS = {
    "Gradient x Input": Gradient(times_input=True),
    "Grad-CAM": GradCAM("encoders.image.mix"),
    "IntGrad": IntegratedGradients(BLACK),
    "IntGrad, segments": IntegratedGradients(BLACK, RefinedSegments(1e-2)),
    "GradSHAP": GradSHAP(BLACK),
    "Occlusion": Occlusion(BLACK, 1, 1),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_map_is_largest_where_the_pixel_is_in_the_file(name, model, planted, tmp_path):
    place, picture = planted
    found = METHODS[name](model, {"image": torch.from_numpy(picture)[None]}, TIMES)["image"]
    path = tmp_path / "maps.safetensors"
    write_attributions(path, {"image": found})
    for each in (found, read_attributions(path)["image"]):
        values = each.numpy()[0] if "channel" not in each.dims else each.numpy()[0].sum(0)
        assert values.shape == (HEIGHT, WIDTH, len(TIMES))
        for column in range(len(TIMES)):
            assert np.unravel_index(np.abs(values[..., column]).argmax(), (HEIGHT, WIDTH)) == place
        assert (values[place] < 0).all(), "brightness is risk, so it lowers survival"


def test_the_table_and_the_labelled_array_say_its_row_and_column(model, planted):
    place, picture = planted
    found = IntegratedGradients(BLACK)(model, {"image": torch.from_numpy(picture)[None]}, TIMES, LATE)["image"]
    frame = found.to_frame()
    largest = frame.loc[frame["value"].abs().idxmax()]
    assert (int(largest["height"]), int(largest["width"])) == place
    pytest.importorskip("xarray")
    array = found.to_xarray()["attribution"].sum("channel").squeeze("time")
    assert np.unravel_index(np.abs(array.isel(instance=0).to_numpy()).argmax(), (HEIGHT, WIDTH)) == place


def test_the_group_of_its_quarter_has_all_of_it(model, planted):
    place, picture = planted
    rows, columns = torch.arange(HEIGHT)[:, None] >= HEIGHT // 2, torch.arange(WIDTH)[None] >= WIDTH // 2
    quarters = 2 * rows.long() + columns.long()
    names = {0: "upper left", 1: "upper right", 2: "lower left", 3: "lower right"}
    groups = region_groups("image", quarters, names)
    found = GroupedContributions(groups, BLACK)(model, {"image": torch.from_numpy(picture)[None]}, TIMES)["groups"]
    own = int(quarters[place])
    share = found.values[0, :, -1].abs() / found.values[0, :, -1].abs().sum()
    assert list(found.coords["group"])[int(share.argmax())] == names[own]
    assert share[own] > 0.9


def spot(drawn: np.ndarray) -> tuple[float, float]:
    """Centre of what differs from the rest, in pixels of the picture."""
    unlike = np.abs(drawn - np.median(drawn, axis=(0, 1))).max(axis=2) > 30
    rows, columns = np.nonzero(unlike)
    return rows.mean() / drawn.shape[0] * HEIGHT - 0.5, columns.mean() / drawn.shape[1] * WIDTH - 0.5


def test_the_figure_shows_map_and_picture_at_one_place(model, planted):
    place, picture = planted
    found: Attribution = IntegratedGradients(BLACK)(model, {"image": torch.from_numpy(picture)[None]}, TIMES)["image"]
    panels = draw_attribution_maps(found, picture[None], times=[6.0], top_share=0.001)
    panels[0, 0].figure.set_size_inches(6, 3)
    for axes in panels[0]:  # the picture, the map over it, and the picture where the map is large
        assert spot(pixels(axes)) == pytest.approx(place, abs=0.4)
