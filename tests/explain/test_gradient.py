"""Gradients over time against autograd and central differences, and the laws that they obey."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, Row, example, fitted, rows_where
from survlens.core.targets import (
    Target,
    cumulative_hazard,
    density,
    incidence_of,
    restricted_mean,
    risk_at,
    survival,
)
from survlens.encoders.pooling import MeanPooling, MultipleInstance
from survlens.explain.gradient import Gradient
from survlens.explain.held import RawCurves
from survlens.heads.deephit import DeepHit
from survlens.models.fusion import Concatenation
from survlens.models.survival_model import SurvivalModel

CASE = example()
TIMES = torch.tensor([3.0, 5.0, 5.5, 20.2, 30.0, 37.9], dtype=torch.float64)
FEATURES = 4

every_row = pytest.mark.parametrize("row", HEADS.values(), ids=HEADS.keys())


def model_of(row: Row) -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        encoder = nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, WIDTH)).double()
    return SurvivalModel({"table": encoder}, fitted(row, CASE)).eval()


def table(rows: int = 4) -> Tensor:
    return torch.randn((rows, FEATURES), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def target_values(model: SurvivalModel, inputs: dict[str, Tensor], target: Target, times: Tensor = TIMES) -> Tensor:
    return target(RawCurves(model.head, model.head.raw(model.embed(inputs)).double()), times)  # type: ignore[operator]


def gradient(model: SurvivalModel, x: Tensor, target: Target, times: Tensor = TIMES, **settings: Any) -> Tensor:
    return Gradient(**settings)(model, {"table": x}, times, target)["table"].values


@every_row
def test_equals_autograd_and_central_differences(row: Row) -> None:
    model, x, step = model_of(row), table(), 1e-5
    targets = [survival, cumulative_hazard, density, restricted_mean(30.0), risk_at(17.3)]
    targets += [incidence_of(1)] if isinstance(model.head, DeepHit) else []
    for target in targets:
        found = gradient(model, x, target)
        leaf = x.clone().requires_grad_(True)
        values = target_values(model, {"table": leaf}, target)
        columns = range(values.shape[1])
        exact = [torch.autograd.grad(values[:, each].sum(), leaf, retain_graph=True)[0] for each in columns]
        assert torch.allclose(found, torch.stack(exact, dim=2), rtol=1e-9, atol=1e-12)
        for feature in range(FEATURES):
            shift = torch.zeros(FEATURES, dtype=torch.float64)
            shift[feature] = step
            up, down = (target_values(model, {"table": x + sign * shift}, target) for sign in (1, -1))
            assert torch.allclose(found[:, feature], (up - down).detach() / (2 * step), rtol=1e-6, atol=1e-6)


@every_row
def test_one_time_equals_many_and_a_batch_its_members(row: Row) -> None:
    model, x = model_of(row), table()
    whole = gradient(model, x, survival)
    assert torch.allclose(gradient(model, x, survival, TIMES[3:4]), whole[..., 3:4], rtol=1e-9, atol=1e-13)
    assert torch.allclose(gradient(model, x[2:3], survival), whole[2:3], rtol=1e-9, atol=1e-13)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(gradient(model, x[order], survival), whole[order], rtol=1e-9, atol=1e-13)
    assert torch.allclose(gradient(model, x, survival, memory=1), whole, rtol=1e-9, atol=1e-13)


@rows_where(lambda row: not row.formula)  # whose restricted mean is that of the curve through its knots
def test_gradients_of_the_restricted_mean_are_integrals_of_those_of_survival(row: Row) -> None:
    model, x = model_of(row), table(2)
    nodes = torch.linspace(0, 30, 12_001, dtype=torch.float64)
    middles = (nodes[1:] + nodes[:-1]) / 2
    area = gradient(model, x, survival, middles).sum(2) * (30 / 12_000)
    assert torch.allclose(gradient(model, x, restricted_mean(30.0))[..., 0], area, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["CoxPH", "CoxPH network"])
def test_ratios_of_features_do_not_change_in_time_under_proportional_hazards(name: str) -> None:
    found = gradient(model_of(HEADS[name]), table(), survival, TIMES[1:])  # after the first event
    ratios = found / found[:, :1]
    assert torch.allclose(ratios, ratios[..., -1:].expand_as(ratios), rtol=1e-9)


@pytest.mark.parametrize("name", ["DeepHit likelihood", "DeepHit network"])
def test_causes_sum_to_minus_survival(name: str) -> None:
    model, x = model_of(HEADS[name]), table()
    by_cause = sum(gradient(model, x, incidence_of(cause)) for cause in (1, 2))
    assert torch.allclose(by_cause, -gradient(model, x, survival), rtol=1e-9, atol=1e-12)


def test_float32_follows_float64() -> None:
    model, x = model_of(HEADS["LogisticHazard"]), table()
    double = gradient(model, x, survival)
    single = gradient(model.float(), x.float(), survival)
    assert single.dtype == torch.float64
    assert torch.allclose(single, double, rtol=1e-4, atol=1e-4 * float(double.abs().max()))


def test_times_input_multiplies() -> None:
    model, x = model_of(HEADS["CoxPH"]), table()
    assert torch.equal(gradient(model, x, survival, times_input=True), gradient(model, x, survival) * x[..., None])


def bags() -> tuple[SurvivalModel, dict[str, Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        picture = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Tanh())
        picture.out_features = 2
        image = MultipleInstance(picture, MeanPooling())
        encoders = {"image": image, "table": nn.Linear(FEATURES, 1)}
    fusion = Concatenation(("image", "table"), (2, 1))
    model = SurvivalModel(encoders, fitted(HEADS["CoxPH network"], CASE), fusion=fusion).double().eval()
    images = torch.randn((5, 1, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    present = torch.tensor([True, False, True])
    return model, {
        "image": images,
        "image.count": torch.tensor([2, 0, 3]),
        "table": table(3),
        "table.present": present,
    }


def test_items_and_missing_modalities() -> None:
    model, inputs = bags()
    inputs["table.present"] = torch.tensor([True, True, False])
    found = Gradient()(model, inputs, TIMES)
    assert found["image"].values.shape == (5, 1, 2, 2, len(TIMES))
    assert found["image"].rows is not None
    assert found["image"].rows.tolist() == [0, 0, 2, 2, 2]
    assert float(found["table"].values[2].abs().max()) == 0
    leaf = inputs["image"].clone().requires_grad_(True)
    values = target_values(model, {**inputs, "image": leaf}, survival)
    (expected,) = torch.autograd.grad(values[:, 3].sum(), leaf)
    assert torch.allclose(found["image"].values[..., 3], expected, rtol=1e-9, atol=1e-14)
    again = Gradient(memory=1)(model, inputs, TIMES)
    assert torch.allclose(again["image"].values, found["image"].values, rtol=1e-9, atol=1e-14)


def test_no_rows_give_no_rows() -> None:
    found = Gradient()(model_of(HEADS["LogisticHazard"]), {"table": table(0)}, TIMES)["table"]
    assert found.values.shape == (0, FEATURES, len(TIMES))
