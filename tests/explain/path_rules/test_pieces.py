"""Kinds of networks are told apart, and every kink on a line is found where a dense scan finds it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contracts.head_rows import HEADS, example, fitted
from explain.kinked_networks import FEATURES, KINKS, Skip, model, network, scanned, table
from survlens.core.errors import FitError
from survlens.core.inputs import count_key
from survlens.encoders.pooling import MeanPooling, MultipleInstance
from survlens.explain.held import held_still
from survlens.explain.path_rules.network_kind import NetworkKind, Smoothness, kink_values_at, network_kind
from survlens.explain.path_rules.pieces import Breaks, breaks_of
from survlens.models.survival_model import SurvivalModel


def kind_of(encoder: nn.Module, head: str = "CoxPH", inputs: dict[str, Tensor] | None = None) -> NetworkKind:
    with held_still(model(encoder, head)) as held:
        return network_kind(held, held.ready(inputs or table(3, 0)))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, *cotangents: Tensor) -> Tensor:
        return 2 * cotangents[0]


class Calls(nn.Module):
    """A layer that calls a function."""

    def __init__(self, function: object):
        super().__init__()
        self.function, self.layer = function, nn.Linear(FEATURES, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))  # type: ignore[operator]


@pytest.mark.parametrize("name", KINKS)
def test_networks_of_kinks_are_piecewise_linear(name: str) -> None:
    kind = kind_of(network([name, name], 0))
    assert kind.smoothness is Smoothness.PIECEWISE_LINEAR
    assert kind.countable
    assert kind.unknown == ()
    assert kind.calls == (4 if name == "maximum" else 2)


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.LayerNorm(3), nn.Softmax(1)])
def test_smooth_networks_are_smooth(layer: nn.Module) -> None:
    encoder = nn.Sequential(nn.Linear(FEATURES, 3), layer, nn.Linear(3, 3))
    assert kind_of(encoder).smoothness is Smoothness.SMOOTH
    assert kind_of(nn.Sequential(nn.Linear(FEATURES, 3), nn.ReLU(), layer)).smoothness is Smoothness.MIXED


def test_a_network_without_kinks_is_one_piece() -> None:
    kind = kind_of(nn.Linear(FEATURES, 3))
    assert (kind.smoothness, kind.units) == (Smoothness.PIECEWISE_LINEAR, 0)


def test_products_and_quotients_of_what_depends_on_the_input_are_curved() -> None:
    assert kind_of(Calls(lambda x: x * x)).smoothness is Smoothness.SMOOTH
    assert kind_of(Calls(lambda x: 1 / (3 + x))).smoothness is Smoothness.SMOOTH
    assert kind_of(Calls(lambda x: 2 * x / 3)).smoothness is Smoothness.PIECEWISE_LINEAR


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Doubled.apply, "Doubled"),
        (lambda x: x * (x > 0), "gt"),
        (lambda x: x + x.detach(), "detach"),
        (torch.sinc, "sinc"),
    ],
)
def test_unknown_functions_are_named(function: object, name: str) -> None:
    kind = kind_of(Calls(function))
    assert kind.smoothness is Smoothness.UNKNOWN
    assert name in kind.unknown
    assert name in kind.note


def test_kinks_over_several_rows_are_not_countable() -> None:
    kind = kind_of(Calls(lambda x: x - x.amax(0)))
    assert (kind.smoothness, kind.countable) == (Smoothness.MIXED, False)


def test_the_network_of_pairs_is_followed_at_every_knot() -> None:
    kind = kind_of(nn.Linear(FEATURES, 3), "CoxTime Breslow")
    knots = len(fitted(HEADS["CoxTime"], example()).baseline.times)
    assert (kind.smoothness, kind.units) == (Smoothness.PIECEWISE_LINEAR, (4 + 3) * knots)


def test_pieces_of_several_items_are_not_counted() -> None:
    class Flat(nn.Module):
        out_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1)).relu()

    bags = SurvivalModel({"image": MultipleInstance(Flat(), MeanPooling())}, fitted(HEADS["CoxPH"], example()))
    inputs = {"image": torch.rand(5, 1, 2, 2), count_key("image"): torch.tensor([2, 3])}
    with held_still(bags.double()) as held:
        assert network_kind(held, held.ready(inputs)).countable is False


def test_a_network_that_takes_another_way_is_refused() -> None:
    with held_still(model(network(["ReLU"], 0))) as held, pytest.raises(FitError, match="fewer than 2 kink functions"):
        kink_values_at(held, held.ready(table(2, 0)), 1)


def test_coinciding_breaks_are_one() -> None:
    breaks = Breaks(torch.tensor([0, 0, 1, 1]), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64))
    more = breaks.with_more(
        torch.tensor([1, 0, 0, 1, 1]), torch.tensor([0.5, 0.3, 0.3, 1 - 1e-16, 1e-16], dtype=torch.float64)
    )
    assert more.path.tolist() == [0, 0, 0, 1, 1, 1]
    assert more.where.tolist() == [0.0, 0.3, 1.0, 0.0, 0.5, 1.0]
    assert more.pairs.tolist() == [0, 1, 3, 4]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kinks=st.lists(st.sampled_from(sorted(KINKS)), min_size=1, max_size=3),
    seed=st.integers(0, 10_000),
    skip=st.booleans(),
)
def test_breaks_are_those_of_a_dense_scan(kinks: list[str], seed: int, skip: bool) -> None:
    encoder = network(kinks, seed, skip=skip)
    start, end = table(2, seed), table(2, seed + 1)
    with held_still(model(encoder)) as held:
        kind = network_kind(held, end)
        breaks = breaks_of(held, start, end, kind.calls)
        for row in range(2):
            inner = breaks.where[breaks.path == row][1:-1]
            seen = scanned(encoder, start["table"][row], end["table"][row])
            # every bend of the scan is at a break, and between breaks the output is straight
            assert not len(seen) or float((seen[:, None] - inner).abs().amin(1).max()) <= 1.1e-4
            edges = torch.cat([torch.zeros(1), inner, torch.ones(1)])[:, None]
            thirds = [edges[:-1] + share * edges.diff(dim=0) for share in (0.25, 0.5, 0.75)]
            low, middle, high = (
                encoder(start["table"][row] + where * (end["table"][row] - start["table"][row])) for where in thirds
            )
            torch.testing.assert_close(middle, (low + high) / 2, rtol=0, atol=1e-12)


def test_two_modalities_and_a_skip_are_followed_together() -> None:
    encoders = {"a": network(["ReLU", "absolute"], 3), "b": Skip(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))}
    head = fitted(HEADS["CoxPH network"], example())
    head.in_features, head.network[0] = 6, nn.Linear(6, 4)
    head.network[1] = nn.ReLU()
    joint = SurvivalModel(encoders, head).double()
    generator = torch.Generator().manual_seed(0)
    starts, ends = (
        {
            "a": torch.randn((4, FEATURES), generator=generator).double(),
            "b": torch.randn((4, 3), generator=generator).double(),
        }
        for _ in range(2)
    )
    with held_still(joint) as held:
        kind = network_kind(held, ends)
        assert (kind.smoothness, kind.calls) == (Smoothness.PIECEWISE_LINEAR, 4)
        breaks = breaks_of(held, starts, ends, kind.calls)
        middle = (breaks.where[breaks.pairs] + breaks.where[breaks.pairs + 1]) / 2
        path = breaks.path[breaks.pairs]

        def at(where: Tensor) -> Tensor:
            moved = {name: torch.lerp(starts[name][path], ends[name][path], where[:, None]) for name in starts}
            return held.raw(moved)

        outer = (at(breaks.where[breaks.pairs]) + at(breaks.where[breaks.pairs + 1])) / 2
        torch.testing.assert_close(at(middle), outer, rtol=0, atol=1e-12)


def test_kinks_of_a_curved_network_are_found() -> None:
    encoder = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    start, end = table(3, 7), table(3, 8)
    with held_still(model(encoder)) as held:
        breaks, found = breaks_of(held, start, end, 1, cells=8, curved=True), 0
        for row in range(3):
            inner = breaks.where[breaks.path == row]
            points = start["table"][row] + inner[:, None] * (end["table"][row] - start["table"][row])
            level = encoder[:3](points).abs().amin(1)
            kinks = (inner * 8 % 1).abs() > 1e-9
            assert bool((level[kinks] < 1e-13).all())
            found += int(kinks.sum())
            dense = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:, None]
            signs = encoder[:3](start["table"][row] + dense * (end["table"][row] - start["table"][row])) > 0
            assert int(kinks.sum()) == int((signs[1:] != signs[:-1]).sum())
        assert found >= 3
