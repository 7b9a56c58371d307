"""Second-order interactions: against full Hessians through the whole curve, and against closed forms."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, built
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.targets import Target, cumulative_hazard, log_hazard_rate, restricted_mean, survival
from survlens.explain.held import RawCurves
from survlens.explain.interactions import Curvature, IntegratedHessians, log_rule
from survlens.explain.references import References
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.weibull import Weibull
from survlens.models.survival_model import SurvivalModel

GRID = TimeGrid.equidistant(10.0, 5, "months")
TIMES = torch.tensor([1.0, 4.0, 9.5], dtype=torch.float64)


def smooth_model(head: nn.Module, features: int = 3) -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        encoder = nn.Sequential(nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, WIDTH))
        return SurvivalModel({"table": encoder}, head).double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_reference(features: int = 3, seed: int = 9) -> References:
    return References({"table": draw(1, features, seed=seed)}, "one row")


def value(model: SurvivalModel, target: Target, row: Tensor) -> Tensor:
    return target(RawCurves(model.head, model.head.raw(model.embed({"table": row[None]}))), TIMES)[0]


def slow(model: SurvivalModel, target: Target, own: Tensor, reference: Tensor, nodes: int = 24) -> Tensor:
    """The definition: a double integral over two uniform positions, with autograd's Hessian of the target itself."""
    places, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(nodes))
    places, weights, d = (places + 1) / 2, weights / 2, own - reference
    columns = len(value(model, target, own))
    total = torch.zeros((len(own), len(own), columns), dtype=torch.float64)
    for a, wa in zip(places, weights, strict=True):
        for b, wb in zip(places, weights, strict=True):
            point = reference + a * b * d
            for column in range(columns):

                def of(x: Tensor, column: int = column) -> Tensor:
                    return value(model, target, x)[column]

                bend = torch.autograd.functional.hessian(of, point)
                slope = torch.autograd.functional.jacobian(of, point)
                total[..., column] += wa * wb * (a * b * torch.outer(d, d) * bend + torch.diag(d * slope))
    return total


def test_the_rule_for_the_logarithmic_weight_is_exact_for_polynomials() -> None:
    for count in (4, 9, 20):
        nodes, weights = log_rule(count)
        for power in range(2 * count):
            assert float((weights * nodes**power).sum()) == pytest.approx(1 / (power + 1) ** 2, rel=1e-9)


@pytest.mark.parametrize("target", [survival, log_hazard_rate, restricted_mean(8.0)], ids=lambda each: each.name)
@pytest.mark.parametrize("kind", [LogisticHazard, Weibull])
def test_equals_the_definition_through_the_whole_curve(kind: type, target: Target) -> None:
    model = smooth_model(kind(WIDTH, GRID)).eval()
    own, reference = draw(1, 3, seed=1), one_reference()
    found = IntegratedHessians(reference)(model, {"table": own}, TIMES, target)["table"]
    expected = slow(model, target, own[0], reference.inputs["table"][0], nodes=6)
    assert torch.allclose(found.values[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["LogisticHazard", "DeepHit likelihood", "PCHazard", "Weibull", "MTLR"])
def test_symmetric_and_complete(name: str) -> None:
    model = smooth_model(built(HEADS[name])).eval()
    inputs, references = {"table": draw(2, 3)}, References({"table": draw(2, 3, seed=5)}, "two rows")
    found = IntegratedHessians(references)(model, inputs, TIMES)["table"]
    assert found.dims == ("feature", "other")
    assert torch.allclose(found.values, found.values.transpose(1, 2), atol=1e-12)
    assert found.completeness_gap is not None
    assert float(found.completeness_gap.abs().max()) < 1e-6
    assert found.quadrature_error is not None
    assert torch.allclose(found.total, found.prediction - found.reference_prediction, atol=1e-6)


def test_a_batch_equals_its_members_and_memory_changes_nothing() -> None:
    model = smooth_model(Weibull(WIDTH, GRID)).eval()
    inputs, references = {"table": draw(3, 3)}, References({"table": draw(2, 3, seed=5)}, "two rows")
    found = IntegratedHessians(references)(model, inputs, TIMES)["table"]
    members = [IntegratedHessians(references)(model, {"table": row[None]}, TIMES)["table"] for row in inputs["table"]]
    assert torch.allclose(torch.cat([each.values for each in members]), found.values, atol=1e-12)
    small = IntegratedHessians(references, memory=1)(model, inputs, TIMES)["table"]
    assert torch.allclose(small.values, found.values, atol=1e-12)


class Product(nn.Module):
    """x1, x2, x3 to b1 x1 + b2 x2 + b12 x1 x2."""

    def __init__(self, *weights: float):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, table: Tensor) -> Tensor:
        b1, b2, b12 = self.weights
        return (b1 * table[:, 0] + b2 * table[:, 1] + b12 * table[:, 0] * table[:, 1])[:, None]


def log_risk_model(*weights: float) -> tuple[SurvivalModel, float]:
    """A model whose cumulative hazard is H0(t) exp(f), and the slope by which its head scales the log-risk."""
    model = SurvivalModel({"table": Product(*weights)}, Weibull(1, GRID)).double().eval()
    at = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None] / (weights[0] or 1)
    rows = torch.cat([at, torch.zeros(2, 2, dtype=torch.float64)], dim=1)
    hazard = model.predict_survival({"table": rows}, TIMES).cumulative_hazard.detach().log()
    return model, float((hazard[1] - hazard[0])[0])


def test_a_bilinear_log_risk_has_its_closed_form() -> None:
    # f = b1 x1 + b2 x2 + b12 x1 x2 from 0: the interaction b12 x1 x2 is shared with the diagonal as 1/4 : 1/4.
    model, scale = log_risk_model(0.3, -0.7, 0.9)
    zero = References({"table": torch.zeros(1, 3, dtype=torch.float64)}, "zero")
    inputs = {"table": draw(3, 3)}
    x1, x2 = inputs["table"][:, 0], inputs["table"][:, 1]
    found = IntegratedHessians(zero)(model, inputs, TIMES, log_hazard_rate)["table"].values[..., 0]
    shared = 0.9 * scale * x1 * x2
    assert torch.allclose(found[:, 0, 1], shared / 4, atol=1e-9)
    assert torch.allclose(found[:, 0, 0], 0.3 * scale * x1 + shared / 4, atol=1e-9)
    assert torch.allclose(found[:, 1, 1], -0.7 * scale * x2 + shared / 4, atol=1e-9)
    assert bool((found[:, 2] == 0).all())


def test_a_linear_log_risk_still_interacts_in_survival() -> None:
    # Gamma_ij = b_i d_i b_j d_j times the integral of -s log(s) S'' along the line; S'' = S (H^2 - H).
    model, scale = log_risk_model(0.8, -0.5, 0.0)
    zero = References({"table": torch.zeros(1, 3, dtype=torch.float64)}, "zero")
    inputs = {"table": draw(2, 3)}
    own = scale * torch.stack([0.8 * inputs["table"][:, 0], -0.5 * inputs["table"][:, 1]], dim=1)
    base = model.predict_survival({"table": torch.zeros(1, 3, dtype=torch.float64)}, TIMES).cumulative_hazard.detach()
    s = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    found = IntegratedHessians(zero, nodes=24)(model, inputs, TIMES)["table"]
    for row in range(2):
        hazard = base * (s * own[row].sum()).exp()[:, None]
        bend = (-hazard).exp() * (hazard**2 - hazard)
        expected = own[row, 0] * own[row, 1] * ((-s * s.log())[:, None] * bend).mean(0)
        assert torch.allclose(found.values[row, 0, 1], expected, atol=1e-8)
    without = IntegratedHessians(zero, curvature=Curvature.NETWORK)(model, inputs, TIMES)["table"]
    assert float(without.values[:, 0, 1].abs().max()) < 1e-12
    assert float(found.values[:, 0, 1].abs().min()) > 1e-6


def test_kinks_are_said_and_can_be_smoothed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        encoder = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, WIDTH))
        model = SurvivalModel({"table": encoder}, LogisticHazard(WIDTH, GRID)).double().eval()
    inputs = {"table": 3 * draw(2, 3, seed=3)}
    sharp = IntegratedHessians(one_reference())(model, inputs, TIMES)["table"]
    assert "kinks" in " ".join(sharp.notes)
    soft = IntegratedHessians(one_reference(), softplus_beta=3.0, nodes=32)(model, inputs, TIMES)["table"]
    assert "softplus" in " ".join(soft.notes)
    assert sharp.completeness_gap is not None
    assert soft.completeness_gap is not None
    assert float(soft.completeness_gap.abs().max()) < 1e-4 < float(sharp.completeness_gap.abs().max())
    again = IntegratedHessians(one_reference())(model, inputs, TIMES)["table"]
    assert torch.equal(again.values, sharp.values)


def test_only_tables_interact() -> None:
    model = SurvivalModel(
        {"image": nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "table": nn.Identity()}, LogisticHazard(3, GRID)
    ).double()
    inputs = {"image": draw(2, 1, 2, 2), "table": draw(2, 1)}
    with pytest.raises(InvalidValueError, match="`modality` must name a table"):
        IntegratedHessians(References.all(inputs), modality="image")(model, inputs, TIMES)
    with pytest.raises(InvalidValueError, match="`nodes` must be >= 4"):
        IntegratedHessians(References.all(inputs), nodes=2)
    found = IntegratedHessians(References.all(inputs))(model, inputs, TIMES, cumulative_hazard)["table"]
    assert "Only table moves" in " ".join(found.notes)
