"""The partial likelihood of log-risks that change with time: loops, reductions, sampling, blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts.strategies import UNIT, Case, cases, outcomes, whole_outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import log_breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.losses import event_risk_sets
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.cox_time import cox_time_loss, log_baseline_jumps, sampled_cox_time_loss

both_ties = pytest.mark.parametrize("ties", list(Ties))
some = settings(max_examples=40, deadline=None)


def changing(times: Tensor, rows: Tensor) -> Tensor:
    return rows[..., 0] + torch.sin(times) * rows[..., 1]


def fixed(times: Tensor, rows: Tensor) -> Tensor:
    return rows[..., 0] + 0 * times


def loop(rows: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    """The formula, instance by instance."""
    losses = torch.zeros(len(outcome), dtype=torch.float64)
    entry, weight, stratum = outcome.entries(), outcome.weights(), outcome.strata()
    for i in (outcome.event > 0).nonzero()[:, 0].tolist():
        now = outcome.time[i]
        share = weight * changing(now, rows).exp()
        at_risk = (entry < now) & (outcome.time >= now) & (stratum == stratum[i])
        tied = at_risk & (outcome.event > 0) & (outcome.time == now)
        d = int(tied.sum()) if ties is Ties.EFRON else 1
        logs = [(share[at_risk].sum() - k / d * share[tied].sum()).log() for k in range(d)]
        losses[i] = weight[i] * (sum(logs) / d - changing(now, rows)[i])
    return losses


@both_ties
@some
@given(case=cases(width=2, scale=1.0, drawn=outcomes(max_size=20) | whole_outcomes(max_size=20)))
def test_the_loss_is_its_formula_in_a_loop(case: Case, ties: Ties) -> None:
    found = cox_time_loss(changing, case.embedding, case.outcome, ties=ties)
    torch.testing.assert_close(found, loop(case.embedding, case.outcome, ties), rtol=1e-9, atol=1e-9)


@both_ties
@some
@given(case=cases(width=2, drawn=outcomes(max_size=20) | whole_outcomes(max_size=20)))
def test_compiled_and_plain_passes_agree_in_value_and_gradient(case: Case, ties: Ties) -> None:
    efron = ties is Ties.EFRON
    if case.outcome.n_events == 0:
        return
    sets = event_risk_sets.EventRiskSets.of(case.outcome)
    value = torch.sin(torch.arange(len(sets.times) * len(case)).double()).reshape(len(sets.times), -1) * 3
    value.requires_grad_()
    cotangent = torch.linspace(0.5, 2, len(sets.events), dtype=torch.float64)
    pair = [part(value, efron) for part in (sets.terms, sets.terms_in_torch)]
    torch.testing.assert_close(*pair, rtol=1e-10, atol=1e-10)
    slopes = [torch.autograd.grad(terms, value, cotangent)[0] for terms in pair]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)


@both_ties
@some
@given(case=cases(width=1, drawn=outcomes(max_size=20) | whole_outcomes(max_size=20)))
def test_a_log_risk_that_does_not_change_gives_coxs_partial_likelihood(case: Case, ties: Ties) -> None:
    expected = cox_partial_likelihood(case.embedding[:, 0], case.outcome, ties=ties)
    found = cox_time_loss(fixed, case.embedding, case.outcome, ties=ties)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@both_ties
@some
@given(case=cases(width=1, drawn=outcomes(max_size=20)))
def test_a_log_risk_that_does_not_change_gives_breslows_baseline(case: Case, ties: Ties) -> None:
    curve = log_breslow_baseline(case.embedding[:, 0], case.outcome, ties=ties)
    times, jumps = log_baseline_jumps(fixed, case.embedding, case.outcome, ties=ties)
    assert times.tolist() == curve.times.tolist()
    torch.testing.assert_close(jumps.logcumsumexp(0), torch.from_numpy(curve.values), rtol=1e-9, atol=1e-9)


def test_entries_and_weights_count_in_the_baseline() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 1, 0], UNIT, entry=[0, 1.5, 0.5], weight=[1, 2, 3])
    times, jumps = log_baseline_jumps(fixed, torch.zeros(3, 1).double(), outcome)
    assert times.tolist() == [1.0, 2.0]
    torch.testing.assert_close(jumps.exp(), torch.tensor([1 / 4, 2 / 5], dtype=torch.float64))


@pytest.mark.parametrize("whole", [False, True], ids=["plain", "truncated, weighted, stratified"])
def test_many_pairs_in_blocks_give_the_same_loss_and_gradient(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    time = torch.randint(1, 30, (200,), generator=generator).double()
    outcome = SurvivalOutcome(time, torch.randint(0, 2, (200,), generator=generator), UNIT)
    if whole:
        stratum = torch.randint(0, 3, (200,), generator=generator)
        outcome = replace(outcome, entry=time * 0.3, weight=1 + time % 3, stratum=stratum)
    rows = torch.randn((200, 2), generator=generator, dtype=torch.float64, requires_grad=True)
    blocks = list(event_risk_sets.EventRiskSets.of(outcome).blocks())
    assert len(blocks) == 1
    once = cox_time_loss(changing, rows, outcome)
    (slope,) = torch.autograd.grad(once.sum(), rows)
    monkeypatch.setattr(event_risk_sets, "PAIRS_AT_ONCE", 700)
    monkeypatch.setattr(event_risk_sets, "PAIRS_KEPT", 1000)
    again = cox_time_loss(changing, rows, outcome)
    (slope_again,) = torch.autograd.grad(again.sum(), rows)
    torch.testing.assert_close(again, once)
    torch.testing.assert_close(slope_again, slope)
    torch.testing.assert_close(
        log_baseline_jumps(changing, rows, outcome)[1].detach().isfinite().all(), torch.tensor(True)
    )


def test_second_derivatives_match_finite_differences() -> None:
    outcome = SurvivalOutcome.from_arrays([2.0, 2.0, 3.0, 5.0], [1, 1, 0, 1], UNIT)
    rows = torch.tensor([[0.3, 1.0], [-1.0, 0.5], [0.2, 0.1], [1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda z: cox_time_loss(changing, z, outcome), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_risks_of_1000_keep_losses_and_gradients_finite(dtype: torch.dtype) -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 2.0, 4.0], [1, 1, 1, 1], UNIT)
    rows = torch.tensor([[1000.0, 0], [-1000, 1], [1000, 2], [-1000, 3]], dtype=dtype, requires_grad=True)
    loss = cox_time_loss(changing, rows, outcome)
    loss.sum().backward()
    assert rows.grad is not None
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(rows.grad).all())


def test_two_at_risk_and_one_control_are_the_whole_risk_set_or_nothing() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], UNIT)
    rows = torch.tensor([[0.3, 1.0], [-1.0, 0.5]], dtype=torch.float64)
    whole = cox_time_loss(changing, rows, outcome)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = torch.stack([sampled_cox_time_loss(changing, rows, outcome, controls=1) for _ in range(50)])
    is_whole = torch.isclose(draws[:, 0], whole[0])
    assert bool((is_whole | (draws[:, 0] == 0)).all())
    assert 10 < int(is_whole.sum()) < 40
    assert bool((draws[:, 1] == 0).all())


@some
@given(case=cases(width=2, min_size=2, drawn=whole_outcomes(min_size=2, max_size=15)), seed=st.integers(0, 9))
def test_controls_come_from_the_risk_set(case: Case, seed: int) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    outcome = replace(case.outcome, weight=None)

    def recording(times: Tensor, rows: Tensor) -> Tensor:
        seen.append((times, rows))
        return changing(times, rows)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        loss = sampled_cox_time_loss(recording, case.embedding, outcome, controls=3)
    if outcome.n_events == 0:
        assert loss.tolist() == [0.0] * len(case)
        return
    (times, rows) = seen[0]
    number = {tuple(row.tolist()): i for i, row in enumerate(case.embedding)}
    entry, stratum = outcome.entries(), outcome.strata()
    for now, drawn in zip(times[:, 0].tolist(), rows, strict=True):
        case_number, *controls = (number[tuple(row.tolist())] for row in drawn)
        assert float(outcome.time[case_number]) == now
        assert all(outcome.time[k] >= now and stratum[k] == stratum[case_number] for k in controls)
        kept = [k for k in controls if k != case_number and entry[k] < now]
        own = changing(torch.tensor(now, dtype=torch.float64), case.embedding)
        expected = torch.logsumexp(own[[case_number, *kept]], 0) - own[case_number]
        assert any(torch.isclose(loss[i], expected) for i in range(len(case)) if float(outcome.time[i]) == now)


def test_a_control_stands_for_its_weight() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], UNIT, weight=[2, 3])
    rows = torch.zeros(2, 2).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = [float(sampled_cox_time_loss(changing, rows, outcome, controls=1)[0]) for _ in range(20)]
    log = torch.tensor([2.0, 5.0], dtype=torch.float64).log() * 2
    assert {round(draw, 9) for draw in draws} == {round(float(value), 9) for value in log}


def test_arguments_are_checked() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], UNIT)
    with pytest.raises(InvalidValueError, match="got 3 rows for 2 outcomes"):
        cox_time_loss(changing, torch.zeros(3, 2), outcome)
    with pytest.raises(InvalidValueError, match="`controls` must be >= 1; got 0"):
        sampled_cox_time_loss(changing, torch.zeros(2, 2), outcome, controls=0)
