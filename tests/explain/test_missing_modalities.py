"""Rows that lack a modality, under every head: the rest is explained, and what is missing gets nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, example, fitted
from survlens.core.targets import restricted_mean
from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.held import held_still
from survlens.explain.jacobian import Strategy, raw_slopes
from survlens.explain.references import References
from survlens.explain.smooth import SmoothGrad
from survlens.models.fusion import GatedFusion
from survlens.models.survival_model import SurvivalModel

TIMES = torch.tensor([4.3, 12.5, 18.0], dtype=torch.float64)
ROWS = ["CoxPH network", "LogisticHazard", "MTLR", "PMF", "PCHazard", "DeepHit network", "CoxTime"]


def encoder(unit: type[nn.Module], width: int) -> nn.Module:
    made: Any = nn.Sequential(nn.Linear(width, 2), unit())
    made.out_features = 2
    return made


def subject(head: str, unit: type[nn.Module]) -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoders = {"a": encoder(unit, 3), "b": encoder(unit, 30)}
        fusion = GatedFusion(("a", "b"), (2, 2), WIDTH)
        return SurvivalModel(encoders, fitted(HEADS[head], example()), fusion=fusion).double().eval()


def rows(seed: int, present: list[bool] | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = 3 if present is None else len(present)
    found = {
        "a": torch.randn((count, 3), generator=generator, dtype=torch.float64),
        "b": torch.randn((count, 30), generator=generator, dtype=torch.float64),
    }
    return found if present is None else {**found, "b.present": torch.tensor(present)}


@pytest.mark.parametrize("unit", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("head", ROWS)
def test_rows_without_a_modality_are_explained_by_the_others(head: str, unit: type[nn.Module]) -> None:
    model, x = subject(head, unit), rows(1, [True, False])
    found = GradSHAP(References.all(rows(2)))(model, x, TIMES)
    assert float(found["b"].values[1].abs().max()) == 0
    total = sum(each.values.sum(1) for each in found.values())
    gap = found["a"].prediction - found["a"].reference_prediction - total  # type: ignore[operator]
    assert float(gap.abs().max()) < 1e-6
    alone = GradSHAP(References.all(rows(2)))(model, {name: each[1:] for name, each in x.items()}, TIMES)
    torch.testing.assert_close(alone["a"].values[0], found["a"].values[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("head", ROWS)
def test_a_modality_that_no_row_has_has_no_slopes(head: str) -> None:
    model, x = subject(head, nn.Tanh), rows(1, [False, False])
    for explainer in (Gradient(), SmoothGrad(Gradient(), {"a": torch.ones(3), "b": torch.ones(30)}, draws=2)):
        found = explainer(model, x, TIMES, restricted_mean(15.0))
        assert float(found["b"].values.abs().max()) == 0
        assert float(found["a"].values.abs().max()) > 0
    with held_still(model) as held:
        for strategy in (None, Strategy.REVERSE, Strategy.BATCHED):
            if head == "CoxTime" and strategy is not None:
                continue
            slopes = raw_slopes(held, held.ready(x), ("b",), strategy=strategy)[1]["b"]
            assert slopes.shape[0] == 2
            assert float(slopes.abs().max()) == 0
