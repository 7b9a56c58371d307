"""Outer maps against autograd through the whole curve, on every head and target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.head_rows import HEADS, WIDTH, Row, example, fitted
from survlens.core.grid import TimeGrid
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
    survival_quantile,
    time_lost_to,
)
from survlens.explain.outer.level_slopes import level_slopes
from survlens.explain.outer.outer_maps import OuterMap
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.pmf import PMF

CASE = example()
GENERAL = (survival, cumulative_hazard, density, restricted_mean(30.0), risk_at(17.3))
KNOTS_AND_BETWEEN = torch.tensor([3.0, 5.0, 5.5, 20.2, 30.0, 37.9], dtype=torch.float64)
MANY = torch.linspace(0.3, 37.9, 150, dtype=torch.float64)


def targets_of(head: Any) -> list[Target]:
    own = [incidence_of(head.n_causes), time_lost_to(1, 30.0)] if isinstance(head, DeepHit) else []
    return [*GENERAL, *own]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def through_curve(outer: OuterMap, raw: Tensor, slopes: Tensor, columns: range) -> Tensor:
    """The sum over points by one backward pass through the whole curve per column."""
    leaf = raw.clone().requires_grad_(True)
    values = outer.values(leaf.flatten(0, 1))
    sums = []
    for column in columns:
        (cotangent,) = torch.autograd.grad(values[:, column].sum(), leaf, retain_graph=True)
        sums.append(torch.einsum("gsm,gsmp->gp", cotangent, slopes))
    return torch.stack(sums, dim=2)


every_row = pytest.mark.parametrize("row", HEADS.values(), ids=HEADS.keys())


@pytest.fixture(scope="module")
def heads() -> dict[int, Any]:
    return {id(row): fitted(row, CASE).requires_grad_(False) for row in HEADS.values()}


def raw_width(head: Any) -> int:
    return head.raw(CASE.embedding[:1]).shape[1]


@every_row
@pytest.mark.parametrize("times", [KNOTS_AND_BETWEEN, MANY], ids=["few", "many"])
def test_sums_equal_autograd_through_the_curve(row: Row, times: Tensor, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    raw, slopes = numbers(2, 40, width), numbers(2, 40, width, 3, seed=1)
    for target in targets_of(head) if times is KNOTS_AND_BETWEEN else (survival, density):
        outer = OuterMap(head, target, times)
        found = outer.accumulate(raw, slopes)
        columns = range(0, found.shape[2], max(1, found.shape[2] // 5))
        expected = through_curve(outer, raw, slopes, columns)
        assert torch.allclose(found[..., list(columns)], expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))


@every_row
@pytest.mark.parametrize("points", [3, 24], ids=["few", "many"])
def test_pieces_along_their_own_direction_sum_to_the_change_of_the_target(
    row: Row, points: int, heads: dict[int, Any]
) -> None:
    head = heads[id(row)]
    start = numbers(2, points, raw_width(head))
    change = numbers(2, points, raw_width(head), seed=2) * torch.tensor([1e-9, 0.0, 0.5, 2.0] * 6)[:points, None]
    # Each target has its own outer map, which few points go through; many points and many times have their own routes.
    asked = [(target, KNOTS_AND_BETWEEN) for target in (targets_of(head) if points < 10 else [survival])]
    for target, times in [*asked, *([(survival, MANY)] if points > 10 else [])]:
        outer = OuterMap(head, target, times)
        found = outer.accumulate_pieces(start, start + change, change[..., None])[:, 0]
        ends, starts = ((start + shift).flatten(0, 1) for shift in (change, 0))
        expected = (outer.values(ends) - outer.values(starts)).unflatten(0, (2, points)).sum(1)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-11 * float(expected.abs().max()))


@every_row
def test_pieces_equal_many_nodes(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    start, end, slopes = numbers(1, 3, width), numbers(1, 3, width, seed=1), numbers(1, 3, width, 2, seed=2)
    nodes, weights = (torch.from_numpy(each)[:, None, None] for each in np.polynomial.legendre.leggauss(40))
    points = (start + (1 + nodes) / 2 * (end - start)).reshape(1, -1, width)
    weighted = (slopes * (weights / 2)[..., None]).reshape(1, -1, width, 2)
    for target in (survival, restricted_mean(30.0), targets_of(head)[-1]):
        outer = OuterMap(head, target, KNOTS_AND_BETWEEN)
        expected = outer.accumulate(points, weighted)
        assert torch.allclose(outer.accumulate_pieces(start, end, slopes), expected, rtol=1e-10, atol=1e-12)


@every_row
def test_pieces_of_no_length_are_points(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    raw, slopes = numbers(2, 30, width), numbers(2, 30, width, 2, seed=2)
    outer = OuterMap(head, survival, KNOTS_AND_BETWEEN)
    found, expected = outer.accumulate_pieces(raw, raw, slopes), outer.accumulate(raw, slopes)
    assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)


@every_row
def test_level_slopes_equal_forward_derivatives(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    raw, slopes = numbers(6, raw_width(head)), numbers(6, raw_width(head), 2, seed=1)
    generic = level_slopes.dispatch(object)
    for of_causes in (False, True) if isinstance(head, DeepHit) else (False,):
        expected = generic(head, raw, slopes, of_causes)
        assert torch.allclose(level_slopes(head, raw, slopes, of_causes), expected, rtol=1e-11, atol=1e-13)


class Unknown(torch.nn.Module):
    """The curves of another head under a name that nothing knows."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def __getattr__(self, name: str) -> Any:
        return getattr(super().__getattr__("head"), name) if name != "head" else super().__getattr__(name)


@every_row
def test_unknown_heads_take_the_general_route(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    start, end, slopes = numbers(1, 3, width), numbers(1, 3, width, seed=1), numbers(1, 3, width, 2, seed=2)
    for target in (survival, restricted_mean(30.0)):
        known, unknown = (OuterMap(each, target, KNOTS_AND_BETWEEN) for each in (head, Unknown(head)))
        assert torch.allclose(unknown.accumulate(start, slopes), known.accumulate(start, slopes), rtol=1e-10)
        pieces = [each.accumulate_pieces(start, end, slopes) for each in (unknown, known)]
        assert torch.allclose(*pieces, rtol=1e-9, atol=1e-11)


@every_row
def test_one_time_equals_many_and_groups_stand_alone(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    raw, slopes = numbers(3, 60, width), numbers(3, 60, width, 2, seed=1)
    whole = OuterMap(head, survival, MANY).accumulate(raw, slopes)
    some = OuterMap(head, survival, MANY[[17, 90]]).accumulate(raw, slopes)
    alone = OuterMap(head, survival, MANY).accumulate(raw[1:2], slopes[1:2])
    assert torch.allclose(whole[..., [17, 90]], some, rtol=1e-9, atol=1e-11)
    assert torch.allclose(whole[1:2], alone, rtol=1e-9, atol=1e-11)


@every_row
def test_little_memory_changes_nothing(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    raw, slopes = numbers(2, 5, width), numbers(2, 5, width, 2, seed=1)
    for memory in (1, 20_000):
        much, little = (OuterMap(head, survival, KNOTS_AND_BETWEEN, each) for each in (2**29, memory))
        assert torch.allclose(much.accumulate(raw, slopes), little.accumulate(raw, slopes), rtol=1e-10, atol=1e-12)
    pieces = [each.accumulate_pieces(raw, raw + 0.3, slopes) for each in (much, little)]
    assert torch.allclose(*pieces, rtol=1e-10, atol=1e-12)


@every_row
@pytest.mark.parametrize("size", [-30.0, 30.0])
def test_extreme_raw_outputs_give_finite_sums(row: Row, size: float, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    raw, slopes = size + 0.1 * numbers(2, 70, width), numbers(2, 70, width, 2, seed=1)
    for times in (KNOTS_AND_BETWEEN, MANY):
        outer = OuterMap(head, survival, times)
        found = outer.accumulate(raw, slopes)
        expected = through_curve(outer, raw, slopes, range(0, len(times), max(1, len(times) // 5)))
        assert bool(torch.isfinite(found).all())
        assert bool(torch.isfinite(outer.accumulate_pieces(raw, raw + 0.2, slopes)).all())
        assert torch.allclose(
            found[..., :: max(1, len(times) // 5)][..., : expected.shape[2]], expected, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("build", [LogisticHazard, PMF])
def test_deep_tails_keep_their_digits(build: Any) -> None:
    # With rising scores S falls below the range of floats; the cumulative hazard is known all the same.
    head = build(WIDTH, TimeGrid.equidistant(40.0, 8, "months")).double()
    raw = (numbers(1, 5, 8) + 200.0 * torch.arange(8).flip(0)).requires_grad_(True)
    outer = OuterMap(head, cumulative_hazard, head.grid.edges[1:])
    slopes = numbers(1, 5, 8, 2, seed=1)
    expected = through_curve(outer, raw.detach(), slopes, range(8))
    assert torch.allclose(outer.accumulate(raw, slopes), expected, rtol=1e-9, atol=1e-12)


def test_survival_slopes_are_minus_survival_times_hazard_slopes(heads: dict[int, Any]) -> None:
    for row in HEADS.values():
        head = heads[id(row)]
        raw = numbers(4, 1, raw_width(head))
        slopes = numbers(4, 1, raw_width(head), 2, seed=1)
        of_survival, of_hazard = (
            OuterMap(head, each, KNOTS_AND_BETWEEN).accumulate(raw, slopes) for each in (survival, cumulative_hazard)
        )
        values = OuterMap(head, survival, KNOTS_AND_BETWEEN).values(raw[:, 0])
        assert torch.allclose(of_survival, -values[:, None] * of_hazard, rtol=1e-9, atol=1e-13)


@every_row
def test_hazards_follow_autograd(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    width = raw_width(head)
    raw, slopes = numbers(2, 5, width), numbers(2, 5, width, 2, seed=1)
    times = CASE.outcome.time[CASE.outcome.event > 0].unique()[1:5]
    for target in (hazard_rate, log_hazard_rate):
        outer = OuterMap(head, target, times)
        expected = through_curve(outer, raw, slopes, range(len(times)))
        assert torch.allclose(outer.accumulate(raw, slopes), expected, rtol=1e-8, atol=1e-10)


@every_row
def test_median_survival_of_smooth_curves(row: Row, heads: dict[int, Any]) -> None:
    head = heads[id(row)]
    raw, slopes = 0.2 * numbers(3, 2, raw_width(head)), numbers(3, 2, raw_width(head), 2, seed=1)
    outer = OuterMap(head, survival_quantile(0.2), KNOTS_AND_BETWEEN)
    try:
        outer.values(raw.flatten(0, 1))
    except ValueError:
        pytest.skip("The curves of this head are steps, or stay above the level.")
    expected = through_curve(outer, raw, slopes, range(1))
    assert torch.allclose(outer.accumulate(raw, slopes), expected, rtol=1e-9)
