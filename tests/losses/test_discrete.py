"""Laws and known truths of the discrete-time likelihood."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from contracts.strategies import Case, cases
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.losses.discrete import CensoredCredit, interval_targets, logistic_hazard_loss

few = settings(max_examples=25, deadline=None)
GRID = TimeGrid(torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64), "months")


def by_definition(logits: list[float], time: float, event: int, edges: list[float], credit: CensoredCredit) -> float:
    """Product of hazards and their complements, interval by interval, in plain probabilities."""
    likelihood = 1.0
    for left, right, logit in zip(edges[:-1], edges[1:], logits, strict=True):
        hazard = 1 / (1 + math.exp(-logit))
        if event and left < time <= right:
            return -math.log(likelihood * hazard)
        seen = {CensoredCredit.START: right, CensoredCredit.MIDPOINT: (left + right) / 2, CensoredCredit.END: left}[
            credit
        ]
        whole = time > right or (not event and (time > seen if credit is CensoredCredit.END else time >= seen))
        likelihood *= 1 - hazard if whole else 1.0
    return -math.log(likelihood)


@pytest.mark.parametrize("credit", list(CensoredCredit))
@few
@given(case=cases())
def test_loss_equals_its_definition(credit: CensoredCredit, case: Case) -> None:
    logits = case.log_risk[:, None] * torch.linspace(-1, 1, len(case.grid), dtype=torch.float64) - 1
    found = logistic_hazard_loss(logits, case.outcome, case.grid, credit=credit)
    edges = case.grid.edges.tolist()
    rows = zip(logits.tolist(), case.outcome.time.tolist(), case.outcome.event.tolist(), strict=True)
    truth = [by_definition(row, time, event, edges, credit) for row, time, event in rows]
    torch.testing.assert_close(found, torch.tensor(truth, dtype=torch.float64), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("time", "event", "credit", "survived", "ended"),
    [
        (2.0, 1, CensoredCredit.MIDPOINT, [1, 0, 0], [0, 1, 0]),
        (3.0, 1, CensoredCredit.MIDPOINT, [1, 0, 0], [0, 1, 0]),
        (3.1, 1, CensoredCredit.MIDPOINT, [1, 1, 0], [0, 0, 1]),
        (9.0, 1, CensoredCredit.MIDPOINT, [1, 1, 1], [0, 0, 0]),
        (1.9, 0, CensoredCredit.MIDPOINT, [1, 0, 0], [0, 0, 0]),
        (2.0, 0, CensoredCredit.MIDPOINT, [1, 1, 0], [0, 0, 0]),
        (2.9, 0, CensoredCredit.START, [1, 0, 0], [0, 0, 0]),
        (3.0, 0, CensoredCredit.START, [1, 1, 0], [0, 0, 0]),
        (1.0, 0, CensoredCredit.END, [1, 0, 0], [0, 0, 0]),
        (1.1, 0, CensoredCredit.END, [1, 1, 0], [0, 0, 0]),
        (0.2, 0, CensoredCredit.MIDPOINT, [0, 0, 0], [0, 0, 0]),
        (2.0, 3, CensoredCredit.MIDPOINT, [1, 0, 0], [0, 1, 0]),
    ],
)
def test_what_counts_as_survived(
    time: float, event: int, credit: CensoredCredit, survived: list[int], ended: list[int]
) -> None:
    outcome = SurvivalOutcome.from_arrays([time], [event], "months")
    found = [targets[0].int().tolist() for targets in interval_targets(outcome, GRID, credit)]
    assert found == [survived, ended]


def test_more_credit_never_costs_less() -> None:
    outcome = SurvivalOutcome.from_arrays([0.3, 1.7, 2.5, 6.9], [0, 0, 0, 0], "months")
    start, middle, end = (logistic_hazard_loss(torch.zeros(4, 3), outcome, GRID, credit=c) for c in CensoredCredit)
    assert bool((start <= middle).all())
    assert bool((middle <= end).all())


def test_gradient_of_huge_logits_is_finite_and_exact() -> None:
    logits = torch.tensor([[1000.0, -1000.0, 50.0]], requires_grad=True)
    loss = logistic_hazard_loss(logits, SurvivalOutcome.from_arrays([2.0], [1], "months"), GRID)
    loss.sum().backward()
    assert float(loss.detach()) == 2000.0
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, -1.0, 0.0]]


def test_the_tail_is_not_cut_off_above_20() -> None:
    loss = logistic_hazard_loss(
        torch.tensor([[-30.0, 30.0, 0.0]], dtype=torch.float64), SurvivalOutcome.from_arrays([2.0], [1], "months"), GRID
    )
    assert float(loss) == pytest.approx(2 * math.log1p(math.exp(-30)), rel=1e-12)


def test_the_best_constant_hazard_is_events_over_survivors() -> None:
    # Two of four at risk have the event in the first interval, then one of two; the other is censored at the end.
    outcome = SurvivalOutcome.from_arrays([0.5, 0.9, 2.0, 7.0], [1, 1, 1, 0], "months")
    best = torch.tensor([0.0, 0.0, -40.0], dtype=torch.float64).repeat(4, 1).requires_grad_()
    logistic_hazard_loss(best, outcome, GRID).sum().backward()
    assert best.grad is not None
    torch.testing.assert_close(best.grad.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-15, rtol=0)


def test_wrong_shapes_and_units_are_refused() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "months")
    with pytest.raises(InvalidValueError, match="2 instances and 3 intervals"):
        logistic_hazard_loss(torch.zeros(2, 4), outcome, GRID)
    with pytest.raises(InvalidValueError, match="unit"):
        logistic_hazard_loss(torch.zeros(2, 3), SurvivalOutcome(outcome.time, outcome.event, "days"), GRID)
