"""Laws of cutting the time axis."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings

from contracts.strategies import Case, cases, outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.grid import EmptyIntervalWarning, TimeGrid
from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome

few = settings(max_examples=25, deadline=None)


def test_interval_j_is_open_at_its_start_and_closed_at_its_end() -> None:
    grid = TimeGrid(torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64), "days")
    outcome = SurvivalOutcome.from_arrays([1e-9, 1.0, 1.0 + 1e-12, 3.0, 3.0 + 1e-12], [1] * 5, "days")
    assert grid.discretise(outcome).tolist() == [0, 0, 1, 1, 2]
    assert len(grid) == 2


@few
@given(case=cases())
def test_every_time_lies_in_its_interval(case: Case) -> None:
    index = case.grid.discretise(case.outcome)
    edges = torch.cat([case.grid.edges, torch.tensor([torch.inf], dtype=torch.float64)])
    assert bool(((edges[index] < case.outcome.time) & (case.outcome.time <= edges[index + 1])).all())


def test_equidistant_intervals_have_one_width() -> None:
    grid = TimeGrid.equidistant(6.0, 4, "years")
    assert (grid.edges.tolist(), grid.unit) == ([0.0, 1.5, 3.0, 4.5, 6.0], "years")


@few
@given(outcome=outcomes(min_size=2, max_size=40))
def test_quantile_grids_start_at_0_end_at_the_last_time_and_cut_at_events(outcome: SurvivalOutcome) -> None:
    assume(outcome.n_events > 0)
    grid = TimeGrid.quantile(outcome, 4)
    assert 1 <= len(grid) <= 4
    assert float(grid.edges[-1]) == float(outcome.time.max())
    assert set(grid.edges[1:-1].tolist()) <= set(outcome.time[outcome.event > 0].tolist())


def test_quantile_intervals_share_the_fall_of_the_curve() -> None:
    time = torch.arange(1, 101).double()
    outcome = SurvivalOutcome(time, torch.ones(100).long(), "days")
    grid = TimeGrid.quantile(outcome, 5)
    assert grid.edges.tolist() == [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    survival = kaplan_meier(outcome).at(grid.edges[1:].numpy())
    assert survival.tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-12)


def test_an_early_risk_set_of_one_leaves_intervals_for_those_who_enter_later() -> None:
    time = [0.5, *range(1, 101)]
    outcome = SurvivalOutcome.from_arrays(time, [1] * 101, "days", entry=[0.0] + [0.9] * 100)
    grid = TimeGrid.quantile(outcome, 5)
    assert grid.events_per_interval(outcome).tolist() == [21, 20, 20, 20, 20]


def test_a_quantile_grid_needs_events_and_intervals() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "days")
    with pytest.raises(InvalidValueError, match="at least one event"):
        TimeGrid.quantile(outcome, 3)
    with pytest.raises(InvalidValueError, match="`intervals`"):
        TimeGrid.quantile(outcome, 0)


@pytest.mark.parametrize(
    "edges", [[0.0], [1.0, 2.0], [0.0, 2.0, 2.0], [0.0, 3.0, 1.0], [0.0, float("inf")], [0.0, float("nan")]]
)
def test_edges_that_do_not_start_at_0_and_increase_are_refused(edges: list[float]) -> None:
    with pytest.raises(InvalidValueError, match="`edges` must"):
        TimeGrid(torch.tensor(edges, dtype=torch.float64), "days")


def test_edges_in_float32_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="float64"):
        TimeGrid(torch.tensor([0.0, 1.0]), "days")


def test_grids_of_no_length_or_backwards_are_refused() -> None:
    for last, intervals in ((0.0, 3), (-1.0, 3), (5.0, 0)):
        with pytest.raises(InvalidValueError, match="`edges`"):
            TimeGrid.equidistant(last, intervals, "days")


def test_empty_intervals_are_counted_and_named():
    grid = TimeGrid.equidistant(4.0, 4, "years")
    outcome = SurvivalOutcome.from_arrays([0.5, 1.5, 2.5, 9.0], [1, 0, 2, 1], "years")
    assert grid.events_per_interval(outcome).tolist() == [1, 0, 1, 0]
    with pytest.warns(EmptyIntervalWarning, match=r"2 of 4 intervals without an event, such as \(1, 2\], \(3, 4\]"):
        grid.warn_if_empty(outcome)


def test_the_last_interval_of_a_quantile_grid_holds_the_last_event():
    time = [1.0, 2, 3, 4, 5, 6, 7, 8, 30, 40]
    outcome = SurvivalOutcome.from_arrays(time, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0], "years")
    for intervals in (2, 5, 20):
        grid = TimeGrid.quantile(outcome, intervals)
        assert grid.events_per_interval(outcome).min() > 0
        assert float(grid.edges[-1]) == 40.0


def test_a_full_grid_does_not_warn():
    outcome = SurvivalOutcome.from_arrays([0.5, 1.5, 2.5], [1, 1, 1], "years")
    TimeGrid.quantile(outcome, 3).warn_if_empty(outcome)
