"""Path integrals of survival quantiles: errors that are told, and parts that get shorter around kinks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.targets import survival, survival_quantile
from survlens.explain.expected import GradSHAP
from survlens.explain.path_rules.halved_lines import HalvedLines
from survlens.explain.path_rules.paths import GaussLegendre
from survlens.explain.references import References
from survlens.heads.deephit import DeepHit
from survlens.heads.mtlr import MTLR
from survlens.models.survival_model import SurvivalModel

TIMES, QUANTILE = torch.tensor([1.0], dtype=torch.float64), survival_quantile(0.2)


def model_of(build: type, middle: nn.Module) -> SurvivalModel:
    torch.manual_seed(5)
    network = nn.Sequential(nn.Linear(8, 6), middle, nn.Linear(6, 5))
    model = SurvivalModel(network, build(5, TimeGrid.equidistant(20.0, 7, "months"))).double()
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(2.0)
    return model.eval()


def rows(count: int, seed: int) -> dict[str, Tensor]:
    return {"table": torch.randn(count, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)}


def by_midpoints(model: SurvivalModel, inputs: Tensor, references: Tensor, nodes: int = 40_000) -> Tensor:
    where = ((torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes)[:, None]
    total = torch.zeros_like(inputs)
    for row, instance in enumerate(inputs):
        for reference in references:
            points = (reference + where * (instance - reference)).requires_grad_(True)
            times = model.predict_survival({"table": points}).quantile(0.2)
            (slope,) = torch.autograd.grad(times.mean(), points)
            total[row] += slope.sum(0) * (instance - reference) / len(references)
    return total


@pytest.mark.parametrize("middle", [nn.Tanh(), nn.ReLU()], ids=["smooth", "straight"])
@pytest.mark.parametrize("build", [MTLR, DeepHit])
def test_quantiles_are_integrated_across_their_kinks(build: type, middle: nn.Module) -> None:
    model, inputs, references = model_of(build, middle), rows(2, 1), rows(2, 2)
    found = GradSHAP(References.all(references))(model, inputs, TIMES, QUANTILE)["table"]
    wanted = by_midpoints(model, inputs["table"], references["table"])
    size, missed = float(wanted.abs().max()), (found.values[..., 0] - wanted).abs().amax(1)
    assert float(missed.max()) < 1e-3 * size
    assert found.quadrature_error is not None
    assert bool((missed <= found.quadrature_error[:, 0] + 1e-4 * size).all())
    assert any("kinks of its own" in note for note in found.notes)


def test_smooth_targets_go_to_the_rule_as_they_are() -> None:
    model, inputs = model_of(MTLR, nn.Tanh()), rows(2, 1)
    whole = GradSHAP(References.all(rows(2, 2)), rule=GaussLegendre(4, 4))
    alone = whole.of_targets(model, inputs, TIMES, [survival])[0]["table"]
    beside = whole.of_targets(model, inputs, TIMES, [QUANTILE, survival])
    assert torch.equal(alone.values, beside[1]["table"].values)
    assert not beside[1]["table"].notes
    gap = beside[0]["table"].completeness_gap
    assert gap is not None
    assert bool((gap.abs() <= beside[0]["table"].quadrature_error + 1e-12).all())


def test_quantiles_of_other_shares_are_not_one_attribution() -> None:
    model, inputs, method = model_of(MTLR, nn.Tanh()), rows(1, 1), GradSHAP(References.all(rows(1, 2)))
    found = [method(model, inputs, TIMES, survival_quantile(share))["table"] for share in (0.1, 0.2)]
    with pytest.raises(InvalidValueError, match="agree in `target`"):
        Attribution.concatenate(found)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="halvings"):
        HalvedLines(GaussLegendre(), halvings=-1)
