"""Laws and known truths of the discrete-time likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, localcontext
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings

from contracts.strategies import Case, cases, whole_outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.losses.discrete import (
    CensoredCredit,
    competing_pmf_loss,
    interval_targets,
    logistic_hazard_loss,
    pmf_loss,
    remaining_shares,
    sequence_scores,
)

Loss = Callable[[torch.Tensor, SurvivalOutcome, TimeGrid], torch.Tensor]
few = settings(max_examples=25, deadline=None)
every_credit = pytest.mark.parametrize("credit", list(CensoredCredit))
every_loss = pytest.mark.parametrize("loss", [logistic_hazard_loss, pmf_loss])
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


@every_credit
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


@every_loss
def test_wrong_shapes_and_units_are_refused(loss: Loss) -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "months")
    with pytest.raises(InvalidValueError, match="2 instances and 3 intervals"):
        loss(torch.zeros(2, 4), outcome, GRID)
    with pytest.raises(InvalidValueError, match="unit"):
        loss(torch.zeros(2, 3), SurvivalOutcome(outcome.time, outcome.event, "days"), GRID)


def test_a_cause_without_a_layer_is_named() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 3], "months")
    with pytest.raises(InvalidValueError, match=r"1 .. 2; got cause 3 at position 1.* n_causes=3"):
        competing_pmf_loss(torch.zeros(2, 2, 3), outcome, GRID)
    with pytest.raises(InvalidValueError, match="one layer per cause"):
        competing_pmf_loss(torch.zeros(2, 0, 3), outcome, GRID)


def masses(logits: list[float]) -> list[float]:
    """Probabilities of the intervals and of what lies after them, in plain numbers."""
    shares = [*map(math.exp, logits), 1.0]
    return [share / sum(shares) for share in shares]


@every_credit
@few
@given(case=cases(drawn=whole_outcomes()))
def test_masses_lose_by_their_definition(credit: CensoredCredit, case: Case) -> None:
    logits = case.log_risk[:, None] * torch.linspace(-1, 1, len(case.grid), dtype=torch.float64) - 1
    found = pmf_loss(logits, case.outcome, case.grid, credit=credit)
    survived, ended = interval_targets(case.outcome, case.grid, credit)
    edges, truth = case.grid.edges.tolist(), []
    for i in range(len(case)):
        entry = float(case.outcome.entries()[i])
        after = [max(0.0, right - max(left, entry)) / (right - left) for left, right in pairwise(edges)]
        left_over = [share * mass for share, mass in zip([*after, 1.0], masses(logits[i].tolist()), strict=True)]
        died = bool(ended[i].any())
        agrees = [*(ended[i] if died else ~survived[i]).tolist(), not died]
        seen = sum(mass for mass, agree in zip(left_over, agrees, strict=True) if agree)
        truth.append(-float(case.outcome.weights()[i]) * math.log(seen / sum(left_over)))
    torch.testing.assert_close(found, torch.tensor(truth, dtype=torch.float64), rtol=1e-9, atol=1e-10)


def test_masses_and_hazards_of_one_curve_lose_the_same() -> None:
    hazard = torch.tensor([[0.2, 0.5, 0.1]], dtype=torch.float64)
    alive = torch.cat([torch.ones(1, 1).double(), (1 - hazard).cumprod(1)], 1)
    mass = alive[:, :-1] * hazard
    logits = mass.log() - alive[:, -1:].log()
    outcome = SurvivalOutcome.from_arrays([0.5, 2.0, 6.0, 8.0, 1.2, 2.4, 7.0], [1, 1, 1, 1, 0, 0, 0], "months")
    first = pmf_loss(logits.expand(7, -1), outcome, GRID)
    torch.testing.assert_close(first, logistic_hazard_loss(torch.logit(hazard).expand(7, -1), outcome, GRID))


def test_one_cause_is_the_mass_loss_and_its_causes_add_up() -> None:
    outcome = SurvivalOutcome.from_arrays([0.5, 2.0, 6.0, 8.0, 1.2, 2.4], [1, 2, 1, 2, 0, 0], "months", entry=[0.1] * 6)
    logits = torch.randn((6, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = pmf_loss(logits.logsumexp(1), outcome, GRID)
    of_cause = [competing_pmf_loss(logits, replace(outcome, event=(outcome.event > 0) * k), GRID) for k in (1, 2)]
    torch.testing.assert_close((-of_cause[0]).exp()[:3] + (-of_cause[1]).exp()[:3], (-together).exp()[:3])
    torch.testing.assert_close(of_cause[0][3:], together[3:])
    single = replace(outcome, event=outcome.event.clamp(max=1))
    torch.testing.assert_close(competing_pmf_loss(logits[:, :1], single, GRID), pmf_loss(logits[:, 0], outcome, GRID))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_scores_lose_exactly_and_keep_their_gradient(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1000.0, -1000.0, 50.0]] * 3, dtype=dtype, requires_grad=True)
    loss = pmf_loss(logits, SurvivalOutcome.from_arrays([0.5, 2.0, 7.0], [1, 1, 0], "months"), GRID)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 2000.0, 1000.0]
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, 0.0]]


def test_neither_a_sure_event_nor_a_sure_survival_rounds_to_0() -> None:
    outcome = SurvivalOutcome.from_arrays([0.5, 7.0], [1, 0], "months")
    sure = pmf_loss(torch.tensor([[30.0, -30.0, -30.0], [-30.0] * 3]), outcome, GRID)
    torch.testing.assert_close(sure, torch.tensor([math.exp(-30.0), 3 * math.exp(-30.0)]))


@pytest.mark.parametrize("share", [1e-6, 0.3, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_hazard_of_a_part_of_an_interval_is_exact_at_any_size(share: float, dtype: torch.dtype) -> None:
    values = [-1000.0, -60.0, -15.001, -14.999, -1.0, 0.0, 3.0, 40.0, 1000.0]
    logits = torch.tensor([[0.0, value, 0.0] for value in values], dtype=dtype, requires_grad=True)
    n = len(values)
    outcome = SurvivalOutcome.from_arrays([3.0] * n, [1] * n, "months", entry=[3.0 - 2 * share] * n)
    loss = logistic_hazard_loss(logits, outcome, GRID)
    loss.sum().backward()
    part = float(remaining_shares(outcome, GRID)[0, 1])
    with localcontext(prec=500):
        truth = [-(1 - (1 - 1 / (1 + (-Decimal(v)).exp())) ** Decimal(part)).ln() for v in values]
    expected = torch.tensor([float(value) for value in truth], dtype=dtype)
    tight = dtype == torch.float64
    torch.testing.assert_close(loss, expected, rtol=1e-12 if tight else 3e-6, atol=0 if tight else 1e-37)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert bool((logits.grad <= 0).all())


@every_loss
def test_an_entry_at_an_edge_leaves_out_the_intervals_before_it(loss: Loss) -> None:
    logits = torch.tensor([[0.3, -0.4, 1.2]], dtype=torch.float64)
    late = SurvivalOutcome.from_arrays([5.0], [1], "months", entry=[3.0])
    early = SurvivalOutcome.from_arrays([5.0, 3.0], [1, 0], "months")
    event, alive = loss(logits.expand(2, -1), early, GRID)
    torch.testing.assert_close(loss(logits, late, GRID)[0], event - alive)


@every_loss
def test_nothing_is_lost_where_nothing_was_at_stake(loss: Loss) -> None:
    outcome = SurvivalOutcome.from_arrays([2.9, 1.9, 9.0, 8.5], [0, 0, 1, 0], "months", entry=[1.95, 1.5, 8.0, 7.0])
    logits = torch.tensor([[0.3, -0.4, 1.2]], dtype=torch.float64).repeat(4, 1).requires_grad_()
    losses = loss(logits, outcome, GRID)
    assert float(losses[0].detach()) > 0  # seen past the midpoint of an interval entered before it
    assert losses[1:].tolist() == [0.0, 0.0, 0.0]
    losses.sum().backward()
    assert logits.grad is not None
    assert float(logits.grad[1:].abs().max()) == 0.0


def test_late_entries_do_not_bias_the_hazard() -> None:
    # Half of each interval is missed on average; a hazard that counted it as survived would come out far too low.
    generator = torch.Generator().manual_seed(11)
    n, rate = 40_000, 0.25
    entry = torch.rand(n, generator=generator, dtype=torch.float64) * 6
    wait = torch.empty(n, dtype=torch.float64).exponential_(rate, generator=generator)
    keep = wait > entry
    time, event = wait.clamp(max=7.0)[keep], (wait < 7.0).long()[keep]
    outcome = SurvivalOutcome(time, event, "months", entry=entry[keep])
    score = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([score], max_iter=60, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        total = logistic_hazard_loss(score.expand(len(outcome), -1), outcome, GRID).mean()
        total.backward()
        return total

    optimiser.step(step)
    truth = -torch.expm1(-rate * GRID.edges.diff())
    torch.testing.assert_close(torch.sigmoid(score.detach()), truth, rtol=0.03, atol=0)


def test_sequence_scores_add_up_from_the_end() -> None:
    found = sequence_scores(torch.tensor([[1.0, 10.0, 100.0]]))
    assert found.tolist() == [[111.0, 110.0, 100.0]]
