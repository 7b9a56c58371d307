"""Contributions at many times follow from those at a few, to rounding, or all are taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, example, fitted
from survlens.core.targets import Scope, Target, cumulative_hazard, restricted_mean, survival
from survlens.explain.expected import GradSHAP
from survlens.explain.outer.few_columns import few_columns
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.paths import GaussLegendre
from survlens.explain.references import References
from survlens.models.survival_model import SurvivalModel

MANY = torch.linspace(0.3, 37.9, 600, dtype=torch.float64)
SOME = torch.arange(20, 600, 97)
heads = pytest.mark.parametrize(
    "name", ["CoxPH network", "LogisticHazard network", "PMF", "Weibull network", "CoxTime"]
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@heads
@pytest.mark.parametrize("target", [survival, cumulative_hazard], ids=["survival", "cumulative hazard"])
def test_the_others_are_sums_of_a_few(name: str, target: Target) -> None:
    head = fitted(HEADS[name], example()).requires_grad_(False)
    width = head.raw(numbers(1, WIDTH)).shape[1]
    outer = OuterMap(head, target, MANY)
    few = few_columns(outer, 0.5 * numbers(140, width), rounding=1e-9, products=True)
    assert few is not None
    assert 2 * len(few.taken) < len(MANY)
    raw, slopes = 0.5 * numbers(40, 3, width, seed=1), numbers(40, 3, width, 2, seed=2)
    found, expected = few.outer.accumulate(raw, slopes), outer.accumulate(raw, slopes)
    assert few.holds(found)
    assert torch.allclose(few.of_all(found), expected, rtol=0, atol=1e-7 * float(expected.abs().max()))
    spread = expected.var(0)
    assert torch.allclose(few.squares_of_all(found.var(0)), spread, rtol=0, atol=1e-2 * float(spread.max()))


def test_times_that_are_checked_show_raw_outputs_of_another_kind() -> None:
    head = fitted(HEADS["CoxPH network"], example()).requires_grad_(False)
    few = few_columns(OuterMap(head, survival, MANY), 0.01 * numbers(80, 1), rounding=0, products=False)
    assert few is not None
    assert not few.holds(few.outer.accumulate(5 + numbers(1, 3, 1), numbers(1, 3, 1, 2)))


def test_few_times_and_whole_curves_are_taken_as_they_are() -> None:
    head = fitted(HEADS["CoxPH network"], example()).requires_grad_(False)
    for outer in (OuterMap(head, survival, MANY[:5]), OuterMap(head, restricted_mean(30.0), MANY)):
        assert few_columns(outer, numbers(40, 1), rounding=0, products=False) is None
    assert restricted_mean(30.0).scope is Scope.WHOLE


@heads
def test_contributions_at_many_times_are_those_at_some(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, WIDTH)).double()
    model = SurvivalModel(encoder, fitted(HEADS[name], example()))
    explainer = GradSHAP(References({"table": numbers(6, 4, seed=5)}, "six rows", drawn=True), GaussLegendre(8, 8))
    many = explainer(model, {"table": numbers(3, 4)}, MANY)["table"]
    some = explainer(model, {"table": numbers(3, 4)}, MANY[SOME])["table"]
    assert torch.allclose(many.values[..., SOME], some.values, rtol=0, atol=1e-9 * float(some.values.abs().max()))
    for found, expected in (
        (many.reference_prediction, some.reference_prediction),
        (many.prediction, some.prediction),
        (many.completeness_gap, some.completeness_gap),
    ):
        assert found is not None
        assert expected is not None
        assert torch.allclose(found[:, SOME], expected, rtol=0, atol=1e-9)
    assert many.sampling_error is not None
    assert some.sampling_error is not None
    error = (many.sampling_error[..., SOME] - some.sampling_error).abs().max()
    assert float(error) <= 0.02 * float(some.sampling_error.max())
