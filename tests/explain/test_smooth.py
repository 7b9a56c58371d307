"""Explanations averaged over noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, example, fitted
from survlens.core.errors import InvalidValueError
from survlens.explain.gradient import Gradient
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.references import References
from survlens.explain.smooth import SmoothGrad, feature_deviations, feature_ranges
from survlens.models.survival_model import SurvivalModel

TIMES = torch.tensor([5.0, 20.0], dtype=torch.float64)
TABLE = torch.randn((20, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SPREAD = feature_ranges({"table": TABLE})


def model() -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, WIDTH)).double()
    return SurvivalModel(encoder, fitted(HEADS["CoxPH"], example()))


def smoothed(rows: Tensor, share: float, draws: int = 8, seed: int = 0) -> Tensor:
    return SmoothGrad(Gradient(), SPREAD, share, draws, seed)(model(), {"table": rows}, TIMES)["table"].values


def test_goes_to_the_gradient_as_the_noise_goes_to_0() -> None:
    exact = Gradient()(model(), {"table": TABLE[:4]}, TIMES)["table"].values
    errors = [float((smoothed(TABLE[:4], share) - exact).abs().max()) for share in (0.0, 1e-6, 1e-3)]
    assert errors[0] == 0
    assert errors[1] < 1e-5 < errors[2]


def test_equals_the_mean_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    draws = []
    for _ in range(5):
        noise = 0.2 * SPREAD["table"] * torch.randn(3, generator=generator, dtype=torch.float64)
        draws.append(Gradient()(model(), {"table": TABLE[:4] + noise}, TIMES)["table"].values)
    found = SmoothGrad(Gradient(), SPREAD, 0.2, 5, 3)(model(), {"table": TABLE[:4]}, TIMES)["table"]
    stacked = torch.stack(draws)
    assert torch.allclose(found.values, stacked.mean(0), rtol=1e-10)
    assert found.sampling_error is not None
    assert torch.allclose(found.sampling_error, stacked.std(0) / 5**0.5, rtol=1e-8)
    assert not found.additive


def test_rows_and_seeds() -> None:
    whole = smoothed(TABLE[:4], 0.1)
    assert torch.allclose(smoothed(TABLE[2:3], 0.1), whole[2:3], rtol=1e-12)
    assert torch.equal(smoothed(TABLE[:4], 0.1), whole)
    assert not torch.equal(smoothed(TABLE[:4], 0.1, seed=1), whole)


def test_wraps_integrated_gradients() -> None:
    reference = References({"table": TABLE[5:6]}, "a row")
    plain = IntegratedGradients(reference)
    found = SmoothGrad(plain, SPREAD, 1e-7, 2)(model(), {"table": TABLE[:2]}, TIMES)["table"]
    expected = plain(model(), {"table": TABLE[:2]}, TIMES)["table"]
    assert torch.allclose(found.values, expected.values, atol=1e-6)
    assert "SmoothGrad" in found.method
    assert expected.method in found.method


def test_spread_by_feature_of_a_table_and_over_all_of_an_image() -> None:
    inputs = {
        "table": TABLE,
        "image": torch.arange(8.0).reshape(2, 1, 2, 2),
        "image.present": torch.tensor([True, False]),
    }
    inputs["table"] = TABLE[:2]
    assert torch.equal(feature_ranges(inputs)["table"], (TABLE[0] - TABLE[1]).abs())
    assert float(feature_ranges(inputs)["image"]) == 3
    assert torch.allclose(feature_deviations({"table": TABLE})["table"], TABLE.std(0, correction=0))


@pytest.mark.parametrize("settings", [{"share": -0.1}, {"draws": 1}, {"spread": {}}])
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(settings))):
        SmoothGrad(**{"explainer": Gradient(), "spread": SPREAD, **settings})


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="spread"):
        SmoothGrad(Gradient(), {"image": torch.ones(())})(model(), {"table": TABLE}, TIMES)
