"""Laws of weights, entries and strata over every head of the table in head_rows.py."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.head_rows import (
    GRID,
    WIDTH,
    Row,
    alone,
    built,
    cause_terms,
    every_head,
    example,
    interval_terms,
    rows_where,
    with_extras,
)
from contracts.strategies import UNIT, Case, cases, whole_outcomes
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.losses.reduction import reduce

few = settings(max_examples=20, deadline=None)
every_head_alone = rows_where(alone)
every_head_of_masses = rows_where(lambda row: alone(row) and row.terms in (interval_terms, cause_terms))
every_head_that_counts_repeats = rows_where(lambda row: getattr(built(row), "ties", None) is not Ties.EFRON)


@every_head_alone
@few
@given(case=cases(width=WIDTH, drawn=whole_outcomes()))
def test_a_weight_multiplies_the_loss(row: Row, case: Case) -> None:
    head = built(row, case.grid)
    once = head.loss(case.embedding, replace(case.outcome, weight=None))
    torch.testing.assert_close(head.loss(case.embedding, case.outcome), once * case.outcome.weights())


@every_head_that_counts_repeats
def test_whole_weights_are_repeated_rows(row: Row) -> None:
    case = example()
    outcome = with_extras(case.outcome)
    head, counts = built(row), outcome.weights().long()
    copies = torch.arange(len(case)).repeat_interleave(counts)
    repeated = replace(outcome, weight=None)[copies]
    weighted, single = head.loss(case.embedding, outcome), head.loss(case.embedding[copies], repeated)
    torch.testing.assert_close(torch.zeros_like(weighted).index_add(0, copies, single), weighted)
    torch.testing.assert_close(
        reduce(weighted, outcome, head.reduction), reduce(single, repeated, head.reduction), rtol=1e-12, atol=1e-14
    )


@every_head
def test_extras_that_say_nothing_change_nothing(row: Row) -> None:
    case = example()
    head, n = built(row), len(case)
    ones, zeros = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    said = replace(case.outcome, entry=zeros, weight=ones, stratum=torch.full((n,), 3))
    torch.testing.assert_close(head.loss(case.embedding, said), head.loss(case.embedding, case.outcome))


@every_head_alone
def test_delayed_entry_divides_the_likelihood_by_the_predicted_survival_at_entry(row: Row) -> None:
    case = example()
    head = built(row)
    late = case.outcome.time > 11
    entry = torch.where(late, case.outcome.time / 2, torch.full_like(case.outcome.time, 0.001))
    assert bool((entry < GRID.edges[GRID.discretise(case.outcome)]).any())
    before = entry <= GRID.edges[GRID.discretise(case.outcome)]
    entered = replace(case.outcome, entry=entry)
    gained = head.loss(case.embedding, case.outcome) - head.loss(case.embedding, entered)
    log_survival = torch.stack(
        [-head.predict(case.embedding[i : i + 1], t[None]).log_survival[0, 0] for i, t in enumerate(entry)]
    )
    torch.testing.assert_close(gained[before], log_survival[before])


@every_head_of_masses
@few
@given(case=cases(width=WIDTH, max_size=1), share=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.77, 0.999]))
def test_what_can_follow_an_entry_has_probability_1(row: Row, case: Case, share: float) -> None:
    head, edges = built(row, case.grid), case.grid.edges
    entry, last = share * float(edges[-1]), float(edges[-1])
    ends = edges[edges > entry].tolist()
    causes = range(1, getattr(head, "n_causes", 1) + 1)
    time, event = [*(t for t in ends for _ in causes), last + 1], [*(k for _ in ends for k in causes), 0]
    outcome = SurvivalOutcome.from_arrays(time, event, UNIT, entry=[entry] * len(time))
    losses = head.loss(case.embedding.expand(len(time), -1), outcome)
    assert bool((losses >= 0).all())
    torch.testing.assert_close((-losses).exp().sum(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-12)


@every_head
@few
@given(case=cases(width=WIDTH, drawn=whole_outcomes()))
def test_truncated_and_weighted_batches_train(row: Row, case: Case) -> None:
    head = built(row, case.grid).float()
    embedding = case.embedding.float().requires_grad_()
    losses = head.loss(embedding, case.outcome)
    losses.sum().backward()
    assert embedding.grad is not None
    assert bool(torch.isfinite(losses).all())
    assert bool(torch.isfinite(embedding.grad).all())
