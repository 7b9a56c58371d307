"""Occlusion over time: closed form, borders, places, and items of bags."""

import sys

import pytest
import torch
from torch import Tensor, nn

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.inputs import select_rows
from survlens.core.targets import restricted_mean, survival
from survlens.encoders.pooling import MeanPooling, MultipleInstance
from survlens.explain.groups import Group, column_groups
from survlens.explain.occlusion import Occlusion, Windows
from survlens.explain.references import Blurred, References
from survlens.explain.superpixels import SLIC, GridSegments, SuperpixelOcclusion
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.weibull import Weibull
from survlens.models.survival_model import SurvivalModel

GRID = TimeGrid.equidistant(10.0, 5, "months")
TIMES = torch.tensor([1.0, 4.0, 9.5], dtype=torch.float64)


class Sums(nn.Module):
    """A picture to the weighted sum of its pixels."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.out_features = 1

    def forward(self, pictures: Tensor) -> Tensor:
        return (pictures * self.weights).flatten(1).sum(1, keepdim=True)


def model_of(encoder: nn.Module, name: str, width: int = 1) -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return SurvivalModel({name: encoder}, LogisticHazard(width, GRID)).double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def curve(model: SurvivalModel, inputs: dict[str, Tensor]) -> Tensor:
    return model.predict_survival(inputs, TIMES).survival.detach()


def test_columns_of_a_table_by_a_loop() -> None:
    model = model_of(nn.Identity(), "table", 4)
    inputs, training = {"table": draw(3, 4)}, {"table": draw(20, 4, seed=1)}
    found = Occlusion(References.sample(training, 5, seed=2))(model, inputs, TIMES)["table"]
    fills = References.sample(training, 5, seed=2).inputs["table"]
    for column in range(4):
        covered = torch.zeros(3, len(TIMES), dtype=torch.float64)
        for fill in fills:
            table = inputs["table"].clone()
            table[:, column] = fill[column]
            covered += curve(model, {"table": table}) / 5
        assert torch.allclose(found.values[:, column], curve(model, inputs) - covered, atol=1e-12)
    assert torch.allclose(found.prediction, curve(model, inputs))
    assert found.dims == ("feature",)
    assert not found.additive


def test_a_linear_log_risk_has_its_closed_form() -> None:
    # A Weibull head with a linear scale: log H(t) moves by the covered column's part of the linear predictor alone.
    model = SurvivalModel({"table": nn.Identity()}, Weibull(3, GRID)).double()
    inputs = {"table": draw(4, 3)}
    mean = References.mean({"table": draw(30, 3, seed=1)})
    found = Occlusion(mean)(model, inputs, TIMES)["table"]
    own = model.predict_survival(inputs, TIMES).cumulative_hazard.detach()
    for column in range(3):
        moved = inputs["table"].clone()
        moved[:, column] = mean.inputs["table"][0, column]
        ratio = model.predict_survival({"table": moved}, TIMES[:1]).cumulative_hazard / own[:, :1]
        expected = (-own).exp() - (-own * ratio.detach()).exp()
        assert torch.allclose(found.values[:, column], expected, atol=1e-12)


@pytest.mark.parametrize("space", [(7, 11), (4, 5, 6)], ids=["2-D", "3-D"])
def test_windows_by_a_loop_over_places(space: tuple[int, ...]) -> None:
    model = model_of(Sums(draw(2, *space)), "image")
    inputs = {"image": draw(2, 2, *space, seed=4)}
    zero = References({"image": torch.zeros(1, 2, *space).double()}, "black")
    found = Occlusion(zero, window=3, stride=2)(model, inputs, TIMES)["image"]
    total, count = torch.zeros(2, *space, len(TIMES)).double(), torch.zeros(space).double()
    own = curve(model, inputs)
    starts = [sorted({*range(0, size - 3, 2), size - 3}) for size in space]
    for corner in torch.cartesian_prod(*[torch.tensor(each) for each in starts]).tolist():
        box = tuple(slice(low, low + 3) for low in corner)
        covered = inputs["image"].clone()
        covered[(slice(None), slice(None), *box)] = 0
        effect = own - curve(model, {"image": covered})
        total[(slice(None), *box)] += effect.reshape(2, *[1] * len(space), -1)
        count[box] += 1
    assert bool((count > 0).all())
    assert torch.allclose(found.values, total / count[..., None], atol=1e-12)
    assert found.dims == ("height", "width", "depth")[: len(space)]


def test_the_last_window_ends_at_the_border() -> None:
    windows = Windows((10, 7), (4, 4), (3, 3))
    assert windows.starts == ([0, 3, 6], [0, 3])
    assert Windows((10, 8), (4, 4), (4, 4)).starts == ([0, 4, 6], [0, 4])
    assert bool(windows.masks(0, torch.arange(windows.count(0))).any(0).all())


@pytest.mark.parametrize(("space", "place"), [((6, 14), (1, 12)), ((14, 6), (12, 1)), ((4, 6, 9), (3, 0, 7))])
def test_a_planted_pixel_keeps_its_place(space: tuple[int, ...], place: tuple[int, ...]) -> None:
    weights = torch.zeros(1, *space).double()
    weights[(0, *place)] = 5.0
    model = model_of(Sums(weights), "image")
    inputs = {"image": torch.ones(1, 1, *space).double()}
    zero = References({"image": torch.zeros(1, 1, *space).double()}, "black")
    single = Occlusion(zero, window=1, stride=1)(model, inputs, TIMES)["image"].values[0, ..., -1].abs()
    assert single.nonzero().tolist() == [list(place)]
    boxes = SuperpixelOcclusion(zero, GridSegments(2))(model, inputs, TIMES)["image"].values[0, ..., -1].abs()
    assert [[each // 2 for each in where] for where in boxes.nonzero().tolist()] == [
        [each // 2 for each in place]
    ] * int((boxes > 0).sum())
    assert boxes[place] > 0


def test_groups_and_a_whole_curve_target() -> None:
    model = SurvivalModel({"image": Sums(draw(1, 4, 5)), "table": nn.Identity()}, LogisticHazard(4, GRID)).double()
    inputs = {"image": draw(3, 1, 4, 5, seed=1), "table": draw(3, 3, seed=2)}
    mean = References.mean({"image": draw(8, 1, 4, 5, seed=3), "table": draw(8, 3, seed=4)})
    groups = (*column_groups("table", {"first": (0, 1), "last": (2,)}, 3), Group("image", "image"))
    found = Occlusion(mean, groups=groups)(model, inputs, TIMES, restricted_mean(9.0))
    assert found["table"].coords["group"].tolist() == ["first", "last"]
    assert found["image"].values.shape == (3, 1, 1)
    covered = dict(inputs, image=mean.inputs["image"].expand(3, -1, -1, -1))
    expected = [model.predict_survival(each).restricted_mean(9.0).detach() for each in (inputs, covered)]
    assert torch.allclose(found["image"].values[:, 0, 0], expected[0] - expected[1], atol=1e-12)


def test_each_picture_of_a_bag_is_covered_alone() -> None:
    model = model_of(MultipleInstance(Sums(draw(1, 4, 6)), MeanPooling()), "image")
    inputs = {"image": draw(5, 1, 4, 6, seed=1), "image.count": torch.tensor([2, 0, 3])}
    inputs = select_rows(inputs, torch.tensor([2, 0]))
    found = Occlusion(Blurred(1.0), window=(2, 3))(model, inputs, TIMES)["image"]
    assert found.values.shape == (5, 4, 6, len(TIMES))
    assert found.rows is not None
    assert found.rows.tolist() == [0, 0, 0, 1, 1]
    alone = Occlusion(Blurred(1.0), window=(2, 3))(model, select_rows(inputs, torch.tensor([1])), TIMES)["image"]
    assert torch.allclose(found.values[3:], alone.values, atol=1e-12)
    fill = Blurred(1.0).starts(inputs, torch.tensor([1]), torch.tensor([0]))["image"]
    covered = select_rows(inputs, torch.tensor([1]))
    box = covered["image"].clone()
    box[1, :, 3:, 5:] = fill[1, :, 3:, 5:]
    whole = Occlusion(Blurred(1.0), window=1)(model, select_rows(inputs, torch.tensor([1])), TIMES)["image"]
    expected = curve(model, covered) - curve(model, {**covered, "image": box})
    assert torch.allclose(whole.values[1, 3, 5], expected[0], atol=1e-12)


def test_an_unused_region_has_no_effect_and_one_batch_equals_many() -> None:
    weights = draw(1, 6, 6)
    weights[:, 3:] = 0
    model = model_of(Sums(weights), "image")
    inputs = {"image": draw(2, 1, 6, 6, seed=1)}
    labels = torch.arange(2).repeat_interleave(3)[:, None].expand(6, 6)
    found = SuperpixelOcclusion(Blurred(2.0), labels)(model, inputs, TIMES)["image"].values
    assert bool((found[:, 3:] == 0).all())
    assert bool((found[:, :3].abs() > 0).all())
    few = SuperpixelOcclusion(Blurred(2.0), labels, memory=1)(model, inputs, TIMES)["image"].values
    assert torch.allclose(found, few, atol=1e-14)
    per_picture = SuperpixelOcclusion(Blurred(2.0), torch.stack([labels, labels]))(model, inputs, TIMES)["image"]
    assert torch.equal(per_picture.values, found)
    one = Occlusion(Blurred(2.0), window=3)(model, inputs, TIMES[1:2])["image"].values
    many = Occlusion(Blurred(2.0), window=3)(model, inputs, TIMES)["image"].values
    assert torch.allclose(one[..., 0], many[..., 1], atol=1e-14)


def test_the_mode_of_the_model_is_restored() -> None:
    model = model_of(nn.Sequential(Sums(draw(1, 4, 4)), nn.Dropout(0.5)), "image").train()
    Occlusion(Blurred(1.0), window=2)(model, {"image": draw(1, 1, 4, 4)}, TIMES)
    assert model.training
    with pytest.raises(InvalidValueError, match="pixels are left out"):
        Occlusion(Blurred(1.0), window=2, stride=3)(model, {"image": draw(1, 1, 4, 4)}, TIMES)
    assert model.training


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InvalidValueError, match="`window` and `stride` must be >= 1"):
        Occlusion(Blurred(1.0), window=0)
    model = model_of(Sums(draw(1, 4, 4)), "image")
    inputs = {"image": draw(1, 1, 4, 4)}
    with pytest.raises(InvalidValueError, match="one size for each of the 2 axes"):
        Occlusion(Blurred(1.0), window=(2, 2, 2))(model, inputs, TIMES)
    with pytest.raises(InvalidValueError, match="must give a label to each pixel"):
        SuperpixelOcclusion(Blurred(1.0), torch.zeros(3, 3, dtype=torch.int64))(model, inputs, TIMES)
    with pytest.raises(InvalidValueError, match="`modalities` must be among"):
        Occlusion(Blurred(1.0), modalities=("table",))(model, inputs, TIMES)


def test_superpixels_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(InvalidTypeError, match="pip install scikit-image"):
        SLIC()(torch.zeros(1, 4, 4))


def test_superpixels_follow_edges() -> None:
    pytest.importorskip("skimage", reason="scikit-image is optional")
    picture = torch.zeros(3, 12, 20)
    picture[:, :, 9:] = 1
    labels = SLIC(segments=8)(picture)
    assert not set(labels[:, :9].unique().tolist()) & set(labels[:, 9:].unique().tolist())


def test_survival_is_the_default_target() -> None:
    model = model_of(nn.Identity(), "table", 2)
    explainer, inputs = Occlusion(References.all({"table": draw(3, 2)})), {"table": draw(2, 2)}
    default, stated = explainer(model, inputs, TIMES)["table"], explainer(model, inputs, TIMES, survival)["table"]
    assert torch.equal(default.values, stated.values)
    assert default.target == "survival"
