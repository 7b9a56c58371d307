"""Slopes by way of the first linear layer are the slopes by the inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from survlens.core.grid import TimeGrid
from survlens.explain.expected import GradSHAP
from survlens.explain.held import held_still
from survlens.explain.jacobian import raw_slopes
from survlens.explain.path_rules.first_layer import first_layers
from survlens.explain.path_rules.paths import GaussLegendre, every_other
from survlens.explain.references import References
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel

WIDE = 30
GRID = TimeGrid.equidistant(20.0, 5, "months")


class Twice(nn.Module):
    """Reads its input a second time, past the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDE, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x))) + x[:, :8]


class Shared(nn.Module):
    """Calls its first layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDE, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) * self.first(x)


class Masked(nn.Linear):
    """Multiplies by something else than its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * (torch.arange(self.in_features) % 2), self.bias)


class InParts(nn.Module):
    """Calls its first layer for a few rows at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain(8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.inner(part) for part in x.split(16)])


class Recomputed(nn.Module):
    """Computes its layers again on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain(8)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)  # type: ignore[return-value]


class NowAndThen(nn.Module):
    """Calls its first layer once more for some rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDE, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        hidden = hidden + 0.3 * self.first(2 * x) if bool((x[:, 0] > 1).any()) else hidden
        return self.second(hidden)


def model(encoder: nn.Module, width: int = 4) -> SurvivalModel:
    return SurvivalModel(encoder, LogisticHazard(width, GRID)).double().eval()


def inputs(rows: int, seed: int) -> dict[str, Tensor]:
    return {"table": torch.randn((rows, WIDE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)}


def plain(outputs: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDE, 4), nn.Tanh(), nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, outputs))


def masked() -> nn.Module:
    return nn.Sequential(Masked(WIDE, 4), nn.Tanh(), nn.Linear(4, 8))


def test_the_layer_of_a_wide_table_is_found_and_gives_its_slopes() -> None:
    subject, x = model(plain(), 6), inputs(5, 1)
    with held_still(subject) as held:
        layers = first_layers(held, x, ["table"])
        assert set(layers.of) == {"table"}
        _, raw, inner = layers.slopes(held, x, ["table"])
        assert inner["table"].shape == (5, 5, 4)
        expected_raw, expected = raw_slopes(held, x, ["table"])
        across = torch.ones((5, WIDE, 1), dtype=torch.float64)
        found = layers.of_inputs("table", inner["table"].transpose(1, 2), across).transpose(1, 2)
    torch.testing.assert_close(raw, expected_raw, rtol=0, atol=1e-14)
    torch.testing.assert_close(found, expected["table"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("encoder", [Twice, Shared, masked, lambda: nn.Linear(WIDE, WIDE)])
def test_no_layer_is_taken_where_the_table_enters_in_another_way(encoder: Callable[[], nn.Module]) -> None:
    made = encoder()
    subject = model(made, WIDE if isinstance(made, nn.Linear) else 8)
    with held_still(subject) as held:
        assert not first_layers(held, inputs(3, 1), ["table"]).of


@pytest.mark.parametrize("encoder", [Twice, Shared, masked, InParts, Recomputed, plain])
def test_contributions_are_those_of_autograd_on_the_whole_curve(encoder: Callable[[], nn.Module]) -> None:
    torch.manual_seed(5)
    subject = model(encoder(), 6 if encoder is plain else 8)
    x, start = inputs(6, 1), inputs(4, 2)
    x["table"][0, 0], start["table"][:, 0] = 3.0, -3.0
    times = torch.tensor([3.0, 11.0, 18.5], dtype=torch.float64)
    places, weights = np.polynomial.legendre.leggauss(9)
    expected = torch.zeros(6, WIDE, 3, dtype=torch.float64)
    for reference in start["table"]:
        for place, weight in zip((1 + places) / 2, weights / 2, strict=True):
            at = (reference + place * (x["table"] - reference)).requires_grad_(True)
            curves = subject.predict_survival({"table": at}, times).survival
            for column in range(3):
                (slope,) = torch.autograd.grad(curves[:, column].sum(), at, retain_graph=True)
                expected[..., column] += weight / 4 * slope * (x["table"] - reference)
    found = GradSHAP(References.all(start), GaussLegendre(9, 9))(subject, x, times)["table"]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-13)


def test_rows_for_which_the_layer_is_called_otherwise_are_taken_without_it() -> None:
    subject, x = model(NowAndThen(), 8), inputs(4, 3)
    x["table"][:, 0] = 0.0
    with held_still(subject) as held:
        layers = first_layers(held, x, ["table"])
        assert set(layers.of) == {"table"}
        x["table"][2, 0] = 2.0
        used, raw, slopes = layers.slopes(held, x, ["table"])
        assert not used.of
        expected_raw, expected = raw_slopes(held, x, ["table"])
    assert torch.equal(raw, expected_raw)
    assert torch.equal(slopes["table"], expected["table"])


def test_contributions_are_those_of_a_network_whose_layer_is_not_seen() -> None:
    class Hidden(nn.Module):
        """The same network, without a layer that a trial could find."""

        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x + 0.0)

    torch.manual_seed(3)
    seen = model(plain(), 6)
    unseen = SurvivalModel(Hidden(seen.encoders["table"]), seen.head).eval()
    x, references = inputs(4, 1), References.all(inputs(3, 2))
    times = torch.linspace(1, 19, 12, dtype=torch.float64)
    explainer = GradSHAP(references, GaussLegendre(7, 7))
    left, right = (explainer(each, x, times)["table"] for each in (seen, unseen))
    with held_still(unseen) as held:
        assert not first_layers(held, x, ["table"]).of
    torch.testing.assert_close(left.values, right.values, rtol=0, atol=1e-14)
    torch.testing.assert_close(left.quadrature_error, right.quadrature_error, rtol=1e-6, atol=1e-14)
    hooks = [each for module in seen.modules() for each in module._forward_hooks.values()]
    assert hooks == []


@pytest.mark.parametrize("nodes", [2, 3, 7, 16, 25, 50])
def test_every_other_node_integrates_polynomials_as_high_as_it_has_nodes(nodes: int) -> None:
    places = (1 + np.polynomial.legendre.leggauss(nodes)[0]) / 2
    weights = every_other(nodes).numpy()
    kept = (nodes + 1) // 2
    assert np.count_nonzero(weights) == kept
    assert (weights[1::2] == 0).all()
    assert (weights[::2] > 0).all()
    for power in range(kept):
        assert weights @ places**power == pytest.approx(1 / (power + 1), rel=1e-10)


def test_a_fixed_rule_knows_its_error_from_every_other_node() -> None:
    subject, x, start = model(plain(), 6), inputs(3, 4), References.all(inputs(1, 5))
    times = torch.linspace(1, 19, 6, dtype=torch.float64)
    truth = GradSHAP(start, GaussLegendre(100, 100))(subject, x, times)["table"].values
    for nodes in (1, 2, 3, 6):
        found = GradSHAP(start, GaussLegendre(nodes, nodes))(subject, x, times)["table"]
        error = (found.values - truth).abs().amax(1)
        assert found.quadrature_error is not None
        assert bool((error <= found.quadrature_error + 1e-14).all())
        if nodes == 1:
            torch.testing.assert_close(found.quadrature_error, found.values.abs().amax(1))
