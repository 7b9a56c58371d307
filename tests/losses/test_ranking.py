"""Laws and known truths of the ranking loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from contracts.strategies import Case, cases, whole_outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.losses.discrete import CensoredCredit
from survlens.losses.ranking import ranking_loss

few = settings(max_examples=25, deadline=None)
GRID = TimeGrid(torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64), "months")


def incidences(rows: int, causes: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn((rows, causes * len(GRID) + 1), generator=generator, dtype=torch.float64)
    return scores.softmax(1)[:, :-1].unflatten(1, (causes, len(GRID))).cumsum(2)


@pytest.mark.parametrize(
    ("later", "event", "compared"),
    [
        (0.5, 1, 0),
        (2.9, 1, 0),  # in the interval of the event, which ends at 3
        (3.0, 1, 0),
        (3.1, 1, 1),
        (9.0, 2, 1),  # of another cause, but after it
        (0.9, 2, 0),
        (1.9, 0, 0),  # seen to less than half of the interval
        (2.0, 0, 1),
        (3.5, 0, 1),
    ],
)
def test_who_is_compared_with_an_event_at_2(later: float, event: int, compared: int) -> None:
    outcome = SurvivalOutcome.from_arrays([2.0, later], [1, event], "months")
    incidence = incidences(2)
    there = incidence[:, 0, 1]
    expected = compared * 0.5 * math.exp(-float(there[0] - there[1]) / 0.1)
    assert float(ranking_loss(incidence, outcome, GRID)[0]) == pytest.approx(expected)


def test_the_credit_of_a_censored_interval_decides_about_pairs() -> None:
    outcome = SurvivalOutcome.from_arrays([2.0, 1.5, 2.5, 3.0], [1, 0, 0, 0], "months")
    same = torch.zeros(4, 1, 3, dtype=torch.float64)
    found = [float(ranking_loss(same, outcome, GRID, credit=credit)[0]) * 4 for credit in CensoredCredit]
    assert found == [1.0, 2.0, 3.0]


def test_only_those_who_had_entered_are_compared() -> None:
    outcome = SurvivalOutcome.from_arrays([2.0, 5.0, 5.0], [1, 0, 0], "months", entry=[0.0, 2.0, 1.9])
    assert float(ranking_loss(torch.zeros(3, 1, 3).double(), outcome, GRID)[0]) == pytest.approx(1 / 3)


def test_the_right_order_costs_less_than_the_wrong_one() -> None:
    outcome = SurvivalOutcome.from_arrays([0.5, 5.0], [1, 1], "months")
    right = torch.tensor([[[0.8, 0.9, 0.9]], [[0.1, 0.2, 0.8]]], dtype=torch.float64)
    assert float(ranking_loss(right, outcome, GRID).sum()) < 1e-3
    assert float(ranking_loss(right.flip(0), outcome, GRID).sum()) > 100


@few
@given(case=cases(drawn=whole_outcomes(causes=2)))
def test_permuting_instances_or_causes_permutes_the_loss(case: Case) -> None:
    outcome = replace(case.outcome, unit="months")
    incidence = incidences(len(case))
    losses = ranking_loss(incidence, outcome, GRID)
    torch.testing.assert_close(
        ranking_loss(incidence.flip(0), outcome[torch.arange(len(case)).flip(0)], GRID), losses.flip(0)
    )
    swapped = replace(outcome, event=torch.tensor([0, 2, 1])[outcome.event])
    torch.testing.assert_close(ranking_loss(incidence.flip(1), swapped, GRID), losses)


def test_without_events_inside_the_grid_the_loss_is_0_on_the_graph() -> None:
    incidence = incidences(3).requires_grad_()
    for event in ([0, 0, 0], [0, 0, 1]):
        losses = ranking_loss(incidence, SurvivalOutcome.from_arrays([1.0, 2.0, 9.0], event, "months"), GRID)
        assert losses.tolist() == [0.0, 0.0, 0.0]
        (slope,) = torch.autograd.grad(losses.sum(), incidence)
        assert float(slope.abs().max()) == 0.0


def test_gradients_match_finite_differences() -> None:
    outcome = SurvivalOutcome.from_arrays(
        [0.5, 2.0, 2.5, 4.0, 6.0], [1, 2, 0, 1, 0], "months", entry=[0.0, 0.3, 0.6, 0.0, 1.0], weight=[1, 2, 0.5, 1, 3]
    )
    assert torch.autograd.gradcheck(lambda F: ranking_loss(F, outcome, GRID), incidences(5).requires_grad_())


def test_float32_stays_finite_at_the_smallest_sigma() -> None:
    outcome = SurvivalOutcome.from_arrays([0.5, 5.0], [1, 0], "months")
    worst = torch.tensor([[[0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]]], requires_grad=True)
    losses = ranking_loss(worst, outcome, GRID, sigma=0.02)
    losses.sum().backward()
    assert bool(torch.isfinite(losses).all())
    assert worst.grad is not None
    assert bool(torch.isfinite(worst.grad).all())


def test_wrong_arguments_are_refused() -> None:
    outcome = SurvivalOutcome.from_arrays([0.5, 5.0], [1, 2], "months")
    with pytest.raises(InvalidValueError, match=r"`sigma` must be finite and >= 0.02; got 0.001"):
        ranking_loss(incidences(2), outcome, GRID, sigma=0.001)
    with pytest.raises(InvalidValueError, match="got cause 2 at position 1"):
        ranking_loss(incidences(2, causes=1), outcome, GRID)
    with pytest.raises(InvalidValueError, match="2 instances and 3 intervals"):
        ranking_loss(incidences(3), outcome, GRID)
