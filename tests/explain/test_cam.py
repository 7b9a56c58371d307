"""Grad-CAM over time: against a slow route through the whole curve, and its places."""

import pytest
import torch
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.targets import cumulative_hazard, survival
from survlens.encoders.pooling import MeanPooling, MultipleInstance
from survlens.explain.cam import GradCAM
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.weibull import Weibull
from survlens.models.survival_model import SurvivalModel

GRID = TimeGrid.equidistant(10.0, 5, "months")
TIMES = torch.tensor([1.0, 4.0, 9.5], dtype=torch.float64)


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def wide() -> nn.Sequential:
    encoder = convolutions()
    encoder.out_features = 3  # type: ignore[assignment]
    return encoder


def model_of(encoder: nn.Module, head: type = LogisticHazard) -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = SurvivalModel({"image": encoder, "table": nn.Identity()}, head(5, GRID)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0, 0.5)
    return model


def example(rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randn((rows, 2, 8, 12), generator=generator, dtype=torch.float64),
        "table": torch.randn((rows, 2), generator=generator, dtype=torch.float64),
    }


def slow(model: SurvivalModel, inputs: dict[str, Tensor], cut: int) -> Tensor:
    """One reverse pass per time, through the whole curve."""
    encoder = model.encoders["image"]
    activation = encoder[:cut](inputs["image"]).detach().clone().requires_grad_(True)
    embedding = torch.cat([encoder[cut:](activation.clone()), inputs["table"]], dim=1)
    curves = model.head.predict(embedding, TIMES).survival
    maps = []
    for column in range(len(TIMES)):
        slope = torch.autograd.grad(curves[:, column].sum(), activation, retain_graph=True)[0]
        weights = slope.mean((2, 3), keepdim=True)
        maps.append((weights * activation.detach()).sum(1, keepdim=True))
    spread = [nn.functional.interpolate(each, size=(8, 12), mode="bilinear", align_corners=False) for each in maps]
    return torch.stack([each[:, 0] for each in spread], dim=-1)


@pytest.mark.parametrize("head", [LogisticHazard, Weibull])
@pytest.mark.parametrize(("layer", "cut"), [(None, 4), ("encoders.image.2", 3), ("encoders.image.1", 2)])
def test_equals_a_reverse_pass_per_time(head: type, layer: str | None, cut: int) -> None:
    model, inputs = model_of(convolutions(), head).eval(), example()
    found = GradCAM(layer)(model, inputs, TIMES)["image"]
    assert torch.allclose(found.values, slow(model, inputs, cut), atol=1e-12)
    assert found.dims == ("height", "width")
    positive = GradCAM(layer, positive_only=True)(model, inputs, TIMES)["image"]
    assert bool((positive.values >= 0).all())


def test_hooks_are_gone_and_the_model_is_untouched_whatever_happens() -> None:
    model, inputs = model_of(convolutions()).train(), example()
    GradCAM()(model, inputs, TIMES)
    for layer in ("encoders.image.5", "encoders.image.9", "head"):
        with pytest.raises(InvalidValueError, match="`layer` must"):
            GradCAM(layer)(model, inputs, TIMES)
    model.encoders["image"][4].forward = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        GradCAM("encoders.image.2")(model, inputs, TIMES)
    with pytest.raises(ZeroDivisionError):
        GradCAM()(model, inputs, TIMES)
    assert all(not module._forward_hooks for module in model.modules())
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("place", [(1, 13), (5, 2)])
def test_a_planted_pixel_keeps_its_place(place: tuple[int, int]) -> None:
    encoder = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = SurvivalModel({"image": encoder}, LogisticHazard(5, GRID)).double()
    nn.init.constant_(encoder[0].bias, 0)
    picture = torch.zeros(1, 1, 8, 16).double()
    picture[0, 0, place[0], place[1]] = 9.0
    found = GradCAM()(model, {"image": picture}, TIMES, cumulative_hazard)["image"].values[0, ..., -1].abs()
    shares = found / found.sum()
    for axis, where in enumerate(place):
        centre = float((shares.sum(1 - axis) * torch.arange(found.shape[axis])).sum())
        assert centre == pytest.approx(where, abs=1.6)


def test_three_dimensions_keep_their_order() -> None:
    encoder = nn.Sequential(nn.Conv3d(1, 2, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model = SurvivalModel({"image": encoder}, LogisticHazard(2, GRID)).double()
    nn.init.constant_(encoder[0].bias, 0)
    volume = torch.zeros(1, 1, 3, 4, 5).double()
    volume[0, 0, 2, 0, 4] = 1.0
    found = GradCAM("encoders.image.0")(model, {"image": volume}, TIMES)["image"]
    assert found.values[0, ..., -1].abs().argmax() == volume.argmax()
    assert found.dims == ("height", "width", "depth")


def test_every_picture_of_a_bag_has_its_map() -> None:
    model = model_of(MultipleInstance(wide(), MeanPooling())).eval()
    inputs = example(5)
    bags = {"image": inputs["image"], "image.count": torch.tensor([3, 2]), "table": inputs["table"][:2]}
    found = GradCAM()(model, bags, TIMES)["image"]
    assert found.values.shape == (5, 8, 12, 3)
    alone = GradCAM()(
        model, {"image": inputs["image"][3:], "image.count": torch.tensor([2]), "table": inputs["table"][1:2]}, TIMES
    )["image"]
    assert torch.allclose(found.values[3:], alone.values, atol=1e-12)


def test_one_time_equals_many() -> None:
    model, inputs = model_of(convolutions()), example()
    many = GradCAM()(model, inputs, TIMES, survival)["image"].values
    assert torch.allclose(GradCAM()(model, inputs, TIMES[1:2])["image"].values[..., 0], many[..., 1], atol=1e-14)
