"""Every rule gives the integral along the line, and says how far off it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contracts.head_rows import HEADS, example, fitted
from explain.kinked_networks import FEATURES, KINKS, model, network, table
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import count_key, present_key, select_rows
from survlens.core.protocols import Inputs
from survlens.core.targets import (
    Target,
    cumulative_hazard,
    density,
    hazard_rate,
    incidence_of,
    log_hazard_rate,
    restricted_mean,
    risk_at,
    survival,
)
from survlens.encoders.pooling import AttentionPooling, MultipleInstance
from survlens.explain.held import HeldModel, held_still
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.chosen_rule import ChosenRule
from survlens.explain.path_rules.curved_pieces import CurvedPieces
from survlens.explain.path_rules.exact_pieces import ExactPieces
from survlens.explain.path_rules.knot_pieces import KnotPieces
from survlens.explain.path_rules.path_integral import PathIntegral, PathRule
from survlens.explain.path_rules.paths import GaussLegendre, weighted_nodes
from survlens.explain.path_rules.segments import RefinedSegments
from survlens.heads.cox_time import CoxTime
from survlens.heads.pair_network import PairNetwork
from survlens.models.fusion import GatedFusion
from survlens.models.survival_model import SurvivalModel

TIMES = torch.tensor([4.3, 7.7, 12.5, 18.0, 33.4], dtype=torch.float64)
with torch.random.fork_rng():
    torch.manual_seed(4)
    SMOOTH = nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def integral(
    survival_model: nn.Module,
    rule: PathRule,
    start: Inputs,
    end: Inputs,
    targets: Sequence[Target] = (survival,),
    modalities: Sequence[str] = ("table",),
) -> list[PathIntegral]:
    with held_still(survival_model) as held:
        outers = [OuterMap(held.head, target, TIMES) for target in targets]
        return rule.integrate(held, outers, held.ready(start), held.ready(end), modalities)


def missed(held: HeldModel, found: PathIntegral, start: Inputs, end: Inputs, target: Target = survival) -> Tensor:
    """What the contributions miss of the difference of the target between the ends."""
    outer = OuterMap(held.head, target, TIMES)
    rise = outer.values(held.raw(end)) - outer.values(held.raw(start))
    return rise - sum(each.flatten(1, -2).sum(1) for each in found.values.values())


def brute_force(survival_model: nn.Module, start: Inputs, end: Inputs, points: int = 16_000) -> Tensor:
    """The midpoint rule on the network itself."""
    where = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    with held_still(survival_model) as held:
        outer = OuterMap(held.head, survival, TIMES)
        weights = torch.full((points,), 1 / points, dtype=torch.float64)
        return weighted_nodes(held, [outer], start, end, ["table"], where, weights)[0].values["table"]


@pytest.mark.parametrize("head", HEADS)
def test_pieces_are_complete_to_rounding_for_every_head(head: str) -> None:
    row: Any = fitted(HEADS[head], example())
    if getattr(row, "network", None) is not None:
        row.network[1] = nn.LeakyReLU(0.1)
    subject = SurvivalModel(network(["ReLU", "absolute"], 4), row).eval()
    start, end = table(3, 1), table(3, 2)
    with held_still(subject) as held:
        (found,) = integral(subject, ExactPieces(), start, end)
        assert float(missed(held, found, start, end).abs().max()) < 1e-12
        expected = KnotPieces if isinstance(row, CoxTime) else ExactPieces
        assert isinstance(ChosenRule().of(held, end)[0], expected)
    assert float(found.error.max()) < 1e-12


def test_pieces_are_the_brute_force_midpoint_within_its_error() -> None:
    subject = model(network(["ReLU", "ReLU"], 8))
    start, end = table(2, 3), table(2, 4)
    (found,) = integral(subject, ExactPieces(), start, end)
    fine, coarse = (brute_force(subject, start, end, points) for points in (16_000, 4_000))
    error = (fine - found.values["table"]).abs().max()
    assert float(error) < 3 * float((fine - coarse).abs().max())
    assert float(error / fine.abs().max()) < 1e-3


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    # torch's Hardsigmoid has slopes of single precision: they do not add up to its values
    kinks=st.lists(st.sampled_from(sorted(KINKS.keys() - {"Hardsigmoid"})), min_size=1, max_size=3),
    seed=st.integers(0, 10_000),
    skip=st.booleans(),
    head=st.sampled_from(["CoxPH", "LogisticHazard", "DeepHit"]),
)
def test_pieces_of_any_kinks_agree_with_many_cells(kinks: list[str], seed: int, skip: bool, head: str) -> None:
    subject = model(network(kinks, seed, skip=skip), head)
    start, end = table(2, seed), table(2, seed + 1)
    with held_still(subject) as held:
        (found,) = integral(subject, ExactPieces(), start, end)
        assert float(missed(held, found, start, end).abs().max()) < 1e-11
        expected = of_many_cells(held, start, end)
    size = float(expected.abs().max())
    torch.testing.assert_close(found.values["table"], expected, rtol=0, atol=3e-3 * size)


def of_many_cells(held: HeldModel, start: Inputs, end: Inputs, cells: int = 500) -> Tensor:
    """A slow second route: the midpoint rule on many cells, with no knowledge of where the kinks are."""
    where = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    outer, weights = OuterMap(held.head, survival, TIMES), torch.full((cells,), 1 / cells, dtype=torch.float64)
    return weighted_nodes(held, [outer], start, end, ["table"], where, weights)[0].values["table"]


def test_pieces_along_a_line_of_length_zero_contribute_nothing() -> None:
    subject, end = model(network(["ReLU"], 1)), table(2, 1)
    (found,) = integral(subject, ExactPieces(), end, end)
    assert float(found.values["table"].abs().max()) == 0


def test_a_feature_without_weights_contributes_nothing() -> None:
    encoder = network(["ReLU", "maximum"], 1)
    with torch.no_grad():
        encoder[0].weight[:, 2] = 0  # type: ignore[index,operator]
    (found,) = integral(model(encoder), ExactPieces(), table(2, 1), table(2, 2))
    assert float(found.values["table"][:, 2].abs().max()) == 0
    assert float(found.values["table"].abs().max()) > 0


def test_pieces_in_float32_agree_with_float64() -> None:
    subject, start, end = model(network(["ReLU", "ReLU"], 6)), table(8, 1), table(8, 2)
    (double,) = integral(subject, ExactPieces(), start, end)
    (single,) = integral(subject.float(), ExactPieces(), start, end)
    difference = single.values["table"] - double.values["table"]
    assert single.values["table"].dtype == torch.float64
    assert float(difference.norm() / double.values["table"].norm()) < 1e-4


@pytest.mark.parametrize("rule", [ExactPieces(), GaussLegendre(4, 8), CurvedPieces(), RefinedSegments(budget=12)])
def test_a_batch_is_its_members_and_several_targets_are_each_of_them(rule: PathRule) -> None:
    subject = model(network(["ReLU", "LeakyReLU"], 6), "DeepHit network")
    subject.head.network[1] = nn.ReLU()
    start, end = table(3, 1), table(3, 2)
    targets = [survival, cumulative_hazard, incidence_of(1), restricted_mean(20.0)]
    together = integral(subject, rule, start, end, targets)
    for number, target in enumerate(targets):
        (alone,) = integral(subject, rule, start, end, [target])
        torch.testing.assert_close(alone.values["table"], together[number].values["table"], rtol=0, atol=1e-5)
    one = torch.tensor([1])
    (member,) = integral(subject, rule, select_rows(start, one), select_rows(end, one))
    torch.testing.assert_close(member.values["table"][0], together[0].values["table"][1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", [ExactPieces(), GaussLegendre(4, 8), CurvedPieces()])
def test_little_memory_changes_nothing(rule: Any) -> None:
    subject = model(network(["ReLU", "LeakyReLU"], 6))
    (whole,) = integral(subject, rule, table(6, 1), table(6, 2))
    (part,) = integral(subject, replace(rule, memory=1), table(6, 1), table(6, 2))
    torch.testing.assert_close(part.values["table"], whole.values["table"], rtol=0, atol=1e-13)
    torch.testing.assert_close(part.error, whole.error, rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_sixteen_nodes_are_enough_for_a_smooth_network_and_the_error_is_told(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Linear(FEATURES, 8), nn.SiLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    subject, start, end = model(encoder), table(6, seed), table(6, seed + 9)
    (truth,) = integral(subject, GaussLegendre(200, 200), start, end)
    for most in (4, 8, 16):
        (found,) = integral(subject, GaussLegendre(2, most, tolerance=1e-15), start, end)
        true = (found.values["table"] - truth.values["table"]).abs().amax(1)
        assert bool((true <= 3 * found.error + 1e-14).all()), (most, float((true / found.error).max()))
    assert float(true.max() / truth.values["table"].abs().max()) < 1e-6


def test_nodes_are_doubled_until_the_tolerance_is_met() -> None:
    subject, start, end = model(SMOOTH), table(6, 1), table(6, 2)
    (truth,) = integral(subject, GaussLegendre(200, 200), start, end)
    for tolerance in (1e-2, 1e-5, 1e-9):
        (found,) = integral(subject, GaussLegendre(2, 128, tolerance=tolerance), start, end)
        size = truth.values["table"].abs().amax((1, 2))
        true = (found.values["table"] - truth.values["table"]).abs().amax((1, 2))
        assert bool((true <= tolerance * size).all())
        assert bool((found.error.amax(1) <= 1.01 * tolerance * size).all())


def test_smooth_parts_between_kinks_are_integrated_each() -> None:
    encoder = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    subject, start, end = model(encoder), table(4, 5), table(4, 6)
    with held_still(subject) as held:
        (found,) = integral(subject, ChosenRule(), start, end)
        assert isinstance(ChosenRule().of(held, end)[0], CurvedPieces)
        assert isinstance(ChosenRule(tolerance=9e-3).of(held, end)[0], CurvedPieces)
        assert ChosenRule(tolerance=1e-2).of(held, end)[0] == RefinedSegments(1e-2)  # what is loose needs no kinks
        assert float(missed(held, found, start, end).abs().max()) < 1e-9
    fine, coarse = (brute_force(subject, start, end, points) for points in (16_000, 4_000))
    error = (fine - found.values["table"]).abs().max()
    assert float(error) < 3 * float((fine - coarse).abs().max())


def test_the_rule_follows_from_the_network_and_what_is_unknown_is_noted() -> None:
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(FEATURES, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sinc(self.layer(x))

    ends = table(2, 1)
    for encoder, expected in (
        (network(["ReLU"], 0), ExactPieces),
        (SMOOTH, GaussLegendre),
        (Unknown(), RefinedSegments),
    ):
        with held_still(model(encoder)) as held:
            assert isinstance(ChosenRule().of(held, held.ready(ends))[0], expected)
    (found,) = integral(model(Unknown()), ChosenRule(), table(2, 0), ends)
    assert any("sinc" in note for note in found.notes)
    with pytest.raises(InvalidValueError, match="must be piecewise linear"):
        integral(model(SMOOTH), ExactPieces(), table(2, 0), ends)


def test_rows_that_lack_modalities_are_looked_at_apart() -> None:
    encoders = {"a": nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "b": nn.Sequential(nn.Linear(2, 3), nn.Tanh())}
    encoders["a"].out_features = encoders["b"].out_features = 3  # type: ignore[assignment]
    subject = SurvivalModel(
        encoders, fitted(HEADS["CoxPH"], example()), fusion=GatedFusion(("a", "b"), (3, 3), 3)
    ).double()
    generator = torch.Generator().manual_seed(1)
    start, end = (
        {name: torch.randn((4, 2), generator=generator).double() for name in "ab"}
        | {present_key("a"): torch.tensor([True, False, True, True])}
        | {present_key("b"): torch.tensor([True, True, False, True])}
        for _ in range(2)
    )
    (found,) = integral(subject, ChosenRule(), start, end, modalities=("a", "b"))
    assert float(found.values["a"][1].abs().max()) == 0
    assert float(found.values["b"][2].abs().max()) == 0
    with held_still(subject) as held:
        assert float(missed(held, found, start, end).abs().max()) < 1e-8


@pytest.mark.parametrize("rule", [GaussLegendre(8, 64), ChosenRule(tolerance=1e-4)])
def test_items_of_a_row_share_its_line(rule: PathRule) -> None:
    class Tile(nn.Module):
        out_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1)).tanh()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = MultipleInstance(Tile(), AttentionPooling(3))
    subject = SurvivalModel({"image": encoder}, fitted(HEADS["CoxPH"], example())).double()
    generator = torch.Generator().manual_seed(1)
    counts = {count_key("image"): torch.tensor([2, 1, 3])}
    start, end = ({"image": torch.rand((6, 1, 2, 2), generator=generator).double()} | counts for _ in range(2))
    (found,) = integral(subject, rule, start, end, modalities=("image",))
    assert found.values["image"].shape == (6, 1, 2, 2, 5)
    row = torch.tensor([0, 0, 1, 2, 2, 2])
    with held_still(subject) as held:
        outer = OuterMap(held.head, survival, TIMES)
        rise = outer.values(held.raw(end)) - outer.values(held.raw(start))
    total = torch.zeros(3, 5, dtype=torch.float64).index_add(0, row, found.values["image"].sum((1, 2, 3)))
    torch.testing.assert_close(total, rise.detach(), rtol=0, atol=1e-5)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (lambda: GaussLegendre(8, 4), lambda: GaussLegendre(tolerance=0), lambda: CurvedPieces(nodes=0)):
        with pytest.raises(InvalidValueError, match="must"):
            wrong()


COX_TIME_TARGETS = [
    survival,
    cumulative_hazard,
    density,
    hazard_rate,
    log_hazard_rate,
    restricted_mean(20.0),
    risk_at(9.0),
]


@pytest.mark.parametrize("head", ["CoxTime", "CoxTime Breslow"])
@pytest.mark.parametrize("encoder", [nn.Identity(), network(["ReLU", "max pool"], 3)], ids=["none", "with kinks"])
def test_pieces_of_every_knot_are_the_pieces_of_all_knots_together(head: str, encoder: nn.Module) -> None:
    subject = of_pairs(head, encoder)
    start, end = table(3, 1), table(3, 2)
    exact = integral(subject, ExactPieces(), start, end, COX_TIME_TARGETS)
    for cells, near in ((None, 1e-10), (128, 2e-6)):
        found = integral(subject, KnotPieces(cells=cells, tolerance=1.0), start, end, COX_TIME_TARGETS)
        for fast, slow in zip(found, exact, strict=True):
            size = float(slow.values["table"].abs().max())
            torch.testing.assert_close(fast.values["table"], slow.values["table"], rtol=0, atol=near * size)
            true = (fast.values["table"] - slow.values["table"]).abs().amax((0, 1, 2))
            assert float(true) <= 5 * float(fast.error.max()) + 1e-12 * size


def test_lines_of_knots_are_refined_to_the_tolerance() -> None:
    subject, start, end = of_pairs("CoxTime", network(["ReLU"], 3)), table(3, 1), table(3, 2)
    (exact,) = integral(subject, ExactPieces(), start, end)
    for tolerance in (1e-3, 1e-5, 1e-9):
        (found,) = integral(subject, KnotPieces(cells=1, tolerance=tolerance), start, end)
        size = exact.values["table"].abs().amax((1, 2))
        true = (found.values["table"] - exact.values["table"]).abs().amax((1, 2))
        assert bool((true <= 5 * tolerance * size).all())


def of_pairs(head: str, encoder: nn.Module) -> SurvivalModel:
    """CoxTime on the table itself, or on an embedding of as many columns."""
    built: Any = fitted(HEADS[head], example())
    if isinstance(encoder, nn.Identity):
        built.in_features = FEATURES
        with torch.random.fork_rng():
            torch.manual_seed(4)
            built.pair_network = PairNetwork(FEATURES, built.hidden).double()
    return SurvivalModel(encoder, built).eval()
