"""Laws and known truths of the Cox partial likelihood with delayed entry, strata and weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts.strategies import Case, cases, permutations, whole_outcomes
from survlens.core.outcome import SurvivalOutcome
from survlens.core.row_order import by_stratum, by_stratum_and_time
from survlens.core.ties import Ties
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.cox_intervals import by_level, sums_at_ranks, sums_at_rows
from survlens.losses.cox_torch import partial_likelihood_in_torch

both_ties = pytest.mark.parametrize("ties", list(Ties))
both_routes = pytest.mark.parametrize("route", ["compiled", "torch"])
few = settings(max_examples=25, deadline=None)


def loss_by(route: str, log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    if route == "torch":
        return partial_likelihood_in_torch(log_risk, outcome, ties)
    return cox_partial_likelihood(log_risk, outcome, ties=ties)


def gradient_by(route: str, log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties, cotangent: Tensor) -> Tensor:
    leaf = log_risk.detach().clone().requires_grad_()
    loss_by(route, leaf, outcome, ties).backward(cotangent.to(leaf.dtype))
    assert leaf.grad is not None
    return leaf.grad


def oracle(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    """Every risk set summed anew, relative to its largest log-risk; differentiable."""
    time, entry, weight, stratum = outcome.time, outcome.entries(), outcome.weights(), outcome.strata()
    losses = []
    for i in range(len(outcome)):
        if not outcome.event[i]:
            losses.append(log_risk[i] * 0)
            continue
        at_risk = (stratum == stratum[i]) & (entry < time[i]) & (time >= time[i])
        tied = at_risk & (time == time[i]) & (outcome.event > 0)
        top = log_risk[at_risk].max().detach()
        d = int(tied.sum())
        share = weight * torch.where(at_risk, log_risk - top, torch.full_like(log_risk, -torch.inf)).exp()
        others, same = share[at_risk & ~tied].sum(), share[tied].sum()
        parts = [1.0 if ties is Ties.BRESLOW else 1 - rank / d for rank in range(d)]
        logs = torch.stack([torch.log(others + part * same) for part in parts]).mean() + top
        losses.append(weight[i] * (logs - log_risk[i]))
    return torch.stack(losses)


def whole_cases(max_size: int = 12, scale: float = 2.0) -> st.SearchStrategy[Case]:
    return cases(max_size=max_size, scale=scale, drawn=whole_outcomes(max_size=max_size))


def cotangent_of(case: Case, seed: int) -> Tensor:
    return torch.randn(len(case), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(rows: int, seed: int = 0, *, strata: int = 1, times: int | None = None) -> SurvivalOutcome:
    """Delayed entry for two thirds, weights, strata; whole-numbered times where `times` says how many."""
    random = np.random.default_rng(seed)
    time = random.exponential(size=rows) + 1e-3 if times is None else random.integers(1, times + 1, rows).astype(float)
    entry = time * random.random(rows) * (random.random(rows) < 2 / 3)
    if times is not None:
        entry = np.floor(entry)
    return SurvivalOutcome.from_arrays(
        time,
        random.random(rows) < 0.6,
        "days",
        entry=entry,
        weight=random.choice([0.5, 1.0, 2.5], rows),
        stratum=random.integers(0, strata, rows) * 7,
    )


@both_ties
@both_routes
@few
@given(case=whole_cases(), seed=st.integers(0, 999))
def test_loss_and_gradient_equal_the_definition(route: str, ties: Ties, case: Case, seed: int) -> None:
    leaf = case.log_risk.clone().requires_grad_()
    truth = oracle(leaf, case.outcome, ties)
    torch.testing.assert_close(
        loss_by(route, case.log_risk, case.outcome, ties), truth.detach(), rtol=1e-11, atol=1e-12
    )
    cotangent = cotangent_of(case, seed)
    truth.backward(cotangent)
    found = gradient_by(route, case.log_risk, case.outcome, ties, cotangent)
    torch.testing.assert_close(found, leaf.grad, rtol=1e-10, atol=1e-11)


@both_ties
@pytest.mark.parametrize(("strata", "times"), [(1, None), (1, 40), (30, None), (400, 5)])
def test_thousands_of_rows_agree_with_torch(ties: Ties, strata: int, times: int | None) -> None:
    outcome = sample(5000, 3, strata=strata, times=times)
    log_risk = torch.from_numpy(np.random.default_rng(1).normal(size=5000) * 3)
    for part in (outcome, replace(outcome, entry=None), replace(outcome, stratum=None), replace(outcome, weight=None)):
        found, slow = (loss_by(route, log_risk, part, ties) for route in ("compiled", "torch"))
        torch.testing.assert_close(found, slow, rtol=1e-10, atol=1e-10)
        ones = torch.ones(5000)
        found, slow = (gradient_by(route, log_risk, part, ties, ones) for route in ("compiled", "torch"))
        torch.testing.assert_close(found, slow, rtol=1e-8, atol=1e-9)


@both_routes
@few
@given(case=whole_cases(), counts=st.lists(st.integers(1, 4), min_size=12, max_size=12))
def test_whole_weights_under_breslow_are_repeated_rows(route: str, case: Case, counts: list[int]) -> None:
    count = torch.tensor(counts[: len(case)])
    outcome = replace(case.outcome, weight=count.double())
    rows = torch.arange(len(case)).repeat_interleave(count)
    repeated = loss_by(route, case.log_risk[rows], replace(case.outcome, weight=None)[rows], Ties.BRESLOW)
    expected = torch.zeros_like(case.log_risk).index_add(0, rows, repeated)
    found = loss_by(route, case.log_risk, outcome, Ties.BRESLOW)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@both_ties
@few
@given(case=whole_cases())
def test_entering_at_the_origin_is_no_delay(ties: Ties, case: Case) -> None:
    without = replace(case.outcome, entry=None)
    for zero in (0.0, -0.0):
        outcome = replace(without, entry=torch.full_like(without.time, zero))
        torch.testing.assert_close(
            cox_partial_likelihood(case.log_risk, outcome, ties=ties),
            cox_partial_likelihood(case.log_risk, without, ties=ties),
            rtol=1e-12,
            atol=1e-12,
        )


@both_ties
@both_routes
@few
@given(case=whole_cases())
def test_strata_add_up_as_separate_fits(route: str, ties: Ties, case: Case) -> None:
    stratum = case.outcome.strata()
    for outcome in (case.outcome, replace(case.outcome, entry=None)):
        found = loss_by(route, case.log_risk, outcome, ties)
        for number in stratum.unique().tolist():
            rows = stratum == number
            apart = loss_by(route, case.log_risk[rows], replace(outcome, stratum=None)[rows], ties)
            torch.testing.assert_close(found[rows], apart, rtol=1e-11, atol=1e-12)


@both_ties
@both_routes
@few
@given(case=whole_cases(), data=st.data())
def test_permuting_rows_permutes_losses_and_gradients(route: str, ties: Ties, case: Case, data: st.DataObject) -> None:
    order = data.draw(permutations(len(case)))
    ones = torch.ones(len(case))
    torch.testing.assert_close(
        loss_by(route, case.log_risk[order], case.outcome[order], ties),
        loss_by(route, case.log_risk, case.outcome, ties)[order],
        rtol=1e-11,
        atol=1e-12,
    )
    torch.testing.assert_close(
        gradient_by(route, case.log_risk[order], case.outcome[order], ties, ones),
        gradient_by(route, case.log_risk, case.outcome, ties, ones)[order],
        rtol=1e-10,
        atol=1e-11,
    )


@both_ties
@both_routes
@few
@given(case=whole_cases(), shift=st.floats(-900, 900))
def test_a_constant_and_a_factor_of_all_weights_change_no_gradient(
    route: str, ties: Ties, case: Case, shift: float
) -> None:
    ones = torch.ones(len(case))
    found = gradient_by(route, case.log_risk, case.outcome, ties, ones)
    assert float(found.sum()) == pytest.approx(0, abs=1e-10)
    shifted = gradient_by(route, case.log_risk + shift, case.outcome, ties, ones)
    torch.testing.assert_close(shifted, found, rtol=1e-8, atol=1e-9)
    heavier = replace(case.outcome, weight=case.outcome.weights() * 8)
    torch.testing.assert_close(gradient_by(route, case.log_risk, heavier, ties, ones), 8 * found, rtol=1e-9, atol=1e-10)


@both_ties
@both_routes
@pytest.mark.parametrize("size", [30.0, 1000.0])
@few
@given(case=whole_cases())
def test_log_risks_up_to_a_thousand_in_float32_keep_loss_and_gradient(
    route: str, size: float, ties: Ties, case: Case
) -> None:
    log_risk = (case.log_risk * size / 2).float().clamp(-size, size)
    leaf = log_risk.double().requires_grad_()
    truth = oracle(leaf, case.outcome, ties)
    truth.sum().backward()
    found = loss_by(route, log_risk, case.outcome, ties)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), truth.detach(), rtol=1e-6, atol=1e-6)
    slope = gradient_by(route, log_risk, case.outcome, ties, torch.ones(len(case)))
    torch.testing.assert_close(slope.double(), leaf.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own forward mode
@both_ties
@pytest.mark.parametrize("late", [True, False], ids=["delayed entry", "strata and weights"])
def test_gradcheck_of_first_and_second_derivatives(ties: Ties, late: bool) -> None:
    outcome = SurvivalOutcome.from_arrays(
        [1, 1, 1, 2, 3, 3, 3, 4, 4, 4],
        [1, 1, 0, 0, 1, 1, 1, 0, 1, 1],
        "days",
        entry=[0, 0, 0.5, 1, 1, 2, 0, 3, 3, 0] if late else None,
        weight=[1, 2, 0.5, 1, 1, 3, 1, 1, 0.25, 1],
        stratum=[0, 0, 0, 0, 5, 5, 0, 5, 5, 5],
    )
    start = torch.linspace(-2, 2, 10, dtype=torch.float64)[[3, 1, 7, 0, 5, 9, 2, 6, 4, 8]]
    log_risk = start.clone().requires_grad_()

    def loss(score: Tensor) -> Tensor:
        return cox_partial_likelihood(score, outcome, ties=ties)

    assert torch.autograd.gradcheck(loss, log_risk, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, log_risk)
    backward = torch.autograd.functional.jacobian(loss, log_risk)
    torch.testing.assert_close(torch.func.grad(lambda z: loss(z).sum())(start), backward.sum(0))
    torch.testing.assert_close(torch.func.jacfwd(loss)(start), backward)
    batch = torch.stack([start, start.flip(0), 0 * start])
    torch.testing.assert_close(torch.func.vmap(loss)(batch), torch.stack([loss(row) for row in batch]))
    slopes = torch.func.vmap(torch.func.grad(lambda z: loss(z).sum()))(batch)
    torch.testing.assert_close(slopes[0], backward.sum(0))


@both_ties
@both_routes
@pytest.mark.parametrize("rows", [1, 2, 16])
def test_without_events_the_loss_is_zero_on_the_graph(route: str, ties: Ties, rows: int) -> None:
    whole = replace(sample(rows, 5), event=torch.zeros(rows, dtype=torch.int64))
    log_risk = torch.linspace(-3, 3, rows).requires_grad_()
    for outcome in (whole, replace(whole, entry=None), replace(whole, entry=None, stratum=None)):
        log_risk.grad = None
        loss = loss_by(route, log_risk, outcome, ties)
        assert loss.requires_grad
        assert torch.equal(loss.detach(), torch.zeros(rows))
        loss.sum().backward()
        assert log_risk.grad is not None
        assert torch.equal(log_risk.grad, torch.zeros(rows))


@both_ties
@both_routes
def test_an_event_with_nobody_else_at_risk_costs_nothing(route: str, ties: Ties) -> None:
    # Each leaves before the next one enters, and one enters exactly when another dies: it is not at risk there.
    outcome = SurvivalOutcome.from_arrays([1, 2, 4, 5], [1, 1, 1, 0], "days", entry=[0, 1, 2, 4])
    log_risk = torch.tensor([700.0, -700.0, 3.0, 0.0], dtype=torch.float64)
    assert torch.equal(loss_by(route, log_risk, outcome, ties), torch.zeros(4).double())
    assert torch.equal(gradient_by(route, log_risk, outcome, ties, torch.ones(4)), torch.zeros(4).double())


def test_who_enters_at_an_event_time_is_not_at_risk_there_and_who_leaves_is() -> None:
    log_risk = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64).log()
    outcome = SurvivalOutcome.from_arrays([3, 3, 5, 6], [1, 0, 0, 0], "days", entry=[0, 2.5, 3, 2.9])
    assert float(cox_partial_likelihood(log_risk, outcome)[0]) == pytest.approx(np.log(1 + 2 + 8), rel=1e-14)


@both_routes
def test_all_tied_with_equal_risks_is_the_number_of_orders(route: str) -> None:
    outcome = SurvivalOutcome.from_arrays([2.0] * 5, [1] * 5, "days", entry=[0, 1, 1.5, 0, 0])
    equal = torch.zeros(5, dtype=torch.float64)
    assert float(loss_by(route, equal, outcome, Ties.EFRON).sum()) == pytest.approx(np.log(120), rel=1e-12)
    assert float(loss_by(route, equal, outcome, Ties.BRESLOW).sum()) == pytest.approx(5 * np.log(5), rel=1e-12)


def test_entered_long_after_others_left_keeps_its_digits() -> None:
    # A row with log-risk 700 leaves before the others enter: a difference of running sums would lose them.
    outcome = SurvivalOutcome.from_arrays([1, 3, 4], [1, 1, 0], "days", entry=[0, 2, 2])
    log_risk = torch.tensor([700.0, 0.0, 0.0], dtype=torch.float64)
    assert cox_partial_likelihood(log_risk, outcome).tolist() == [0, pytest.approx(np.log(2), rel=1e-15), 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_type_of_the_log_risks_is_kept(dtype: torch.dtype) -> None:
    whole = sample(6, 1, strata=2)
    for outcome in (whole, replace(whole, weight=None), replace(whole, entry=None)):
        log_risk = torch.linspace(-1, 1, 6).to(dtype).requires_grad_()
        loss = cox_partial_likelihood(log_risk, outcome)
        loss.sum().backward()
        assert log_risk.grad is not None
        assert (loss.dtype, log_risk.grad.dtype) == (dtype, dtype)


@both_routes
def test_a_log_risk_that_is_not_a_number_is_not_hidden(route: str) -> None:
    outcome = SurvivalOutcome.from_arrays([1, 2, 3], [1, 1, 1], "days", entry=[0, 0.5, 0.5])
    loss = loss_by(route, torch.tensor([0.0, float("nan"), 1.0]), outcome, Ties.EFRON)
    assert torch.isnan(loss[:2]).all()


@pytest.mark.parametrize("ranks", [1, 2, 7, 8, 100])
def test_sums_over_ranges_and_their_transpose_equal_a_table_of_who_covers_what(ranks: int) -> None:
    random = np.random.default_rng(ranks)
    first, last = random.integers(0, ranks, 60), random.integers(-1, ranks, 60)
    share, value = random.random(60), random.random(ranks)
    covers = (first[:, None] <= np.arange(ranks)) & (np.arange(ranks) <= last[:, None])
    levels = by_level(first, last)
    np.testing.assert_allclose(sums_at_ranks(*levels, first, last, share, ranks), share @ covers, rtol=1e-13)
    np.testing.assert_allclose(sums_at_rows(*levels, first, last, value), covers @ value, rtol=1e-13)


@pytest.mark.parametrize("rows", [1, 100, 5000])
@pytest.mark.parametrize("highest", [1, 50, 2**62])
def test_rows_are_sorted_by_stratum_and_then_by_time(rows: int, highest: int) -> None:
    random = np.random.default_rng(rows)
    stratum = random.integers(0, highest, rows)
    outcome = SurvivalOutcome.from_arrays(random.exponential(size=rows) + 0.1, np.ones(rows, int), "d", stratum=stratum)
    order, time, bounds = by_stratum_and_time(outcome)
    assert np.array_equal(outcome.time.numpy()[order], time)
    assert np.array_equal(order, np.lexsort((outcome.time.numpy(), stratum)))
    assert np.array_equal(stratum[order][bounds[:-1]], np.unique(stratum))
    assert bounds[-1] == rows
    assert np.array_equal(by_stratum(stratum)[0], np.argsort(stratum, kind="stable"))


@pytest.mark.gpu
@both_ties
def test_gpu_and_cpu_agree(ties: Ties) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    outcome = sample(500, 2, strata=3, times=40)
    log_risk = torch.from_numpy(np.random.default_rng(2).normal(size=500) * 4)
    leaf = log_risk.cuda().requires_grad_()
    loss = cox_partial_likelihood(leaf, outcome.to("cuda"), ties=ties)
    loss.sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(loss.detach().cpu(), cox_partial_likelihood(log_risk, outcome, ties=ties))
    slope = gradient_by("compiled", log_risk, outcome, ties, torch.ones(500))
    torch.testing.assert_close(leaf.grad.cpu(), slope, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("parts", "coefficients", "log_likelihood"),
    [
        (("entry",), (0.25992326, 0.15865274), -70.52090762697),
        (("weight",), (0.1352651, 0.18062022), -155.53345605952),
        (("stratum",), (0.01253233, -0.08390531), -45.058056768),
        (("entry", "weight", "stratum"), (0.00637772, -0.07739954), -106.45748360869697),
    ],
)
def test_log_likelihood_equals_that_of_lifelines(
    parts: tuple[str, ...], coefficients: tuple[float, float], log_likelihood: float
) -> None:
    # CoxPHFitter of lifelines 0.30.3 (Efron), fitted to these rows: its coefficients and its log-likelihood there.
    k = np.arange(40)
    time = 1.0 + (k * 7) % 13
    columns = {
        "entry": np.where(k % 4 == 0, np.floor(time * ((k * 5) % 9) / 9), 0.0),
        "weight": 1.0 + (k * 3) % 4 * 0.5,
        "stratum": k % 3,
    }
    outcome = SurvivalOutcome.from_arrays(time, (k % 3 != 0).astype(int), "days", **{p: columns[p] for p in parts})
    table = torch.from_numpy(np.stack([np.sin(k * 1.7), np.cos(k * 0.9)], 1))
    log_risk = table @ torch.tensor(coefficients, dtype=torch.float64)
    for route in ("compiled", "torch"):
        assert -float(loss_by(route, log_risk, outcome, Ties.EFRON).sum()) == pytest.approx(log_likelihood, rel=1e-12)
        slope = table.T @ gradient_by(route, log_risk, outcome, Ties.EFRON, torch.ones(40))
        assert float(slope.abs().max()) < 1e-5  # the score vanishes at the maximum
