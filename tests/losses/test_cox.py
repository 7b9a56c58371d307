"""Laws, known truths and golden values of the Cox partial likelihood."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal, localcontext

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts.strategies import Case, cases, permutations
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.row_order import by_value
from survlens.core.ties import Ties
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.cox_torch import partial_likelihood_in_torch

both_ties = pytest.mark.parametrize("ties", list(Ties))
few = settings(max_examples=25, deadline=None)


def by_definition(log_risk: list[Decimal], outcome: SurvivalOutcome, ties: Ties) -> list[Decimal]:
    """Every risk set summed anew, with 60 digits and no limit to the exponent."""
    time, event = (values.tolist() for values in outcome.numpy())
    losses = []
    for mine, (now, died) in enumerate(zip(time, event, strict=True)):
        if not died:
            losses.append(Decimal(0))
            continue
        at_risk = sum((score.exp() for score, other in zip(log_risk, time, strict=True) if other >= now), Decimal(0))
        tied = [j for j in range(len(time)) if time[j] == now and event[j]]
        tied_sum = sum((log_risk[j].exp() for j in tied), Decimal(0))
        share = [Decimal(0) if ties is Ties.BRESLOW else Decimal(rank) / len(tied) for rank in range(len(tied))]
        logs = sum(((at_risk - s * tied_sum).ln() for s in share), Decimal(0))
        losses.append(logs / len(tied) - log_risk[mine])
    return losses


def oracle(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    with localcontext() as context:
        context.prec = 60
        losses = by_definition([Decimal(score) for score in log_risk.tolist()], outcome, ties)
        return torch.tensor([float(loss) for loss in losses], dtype=torch.float64)


def oracle_gradient(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties, weight: Tensor) -> Tensor:
    """Central differences with 60 digits: 1e-20 apart, right to about 20."""
    step = Decimal("1e-20")
    with localcontext() as context:
        context.prec = 60
        weights = [Decimal(value) for value in weight.tolist()]
        scores = [Decimal(score) for score in log_risk.tolist()]

        def total(shifted: int, by: Decimal) -> Decimal:
            moved = [score + by if j == shifted else score for j, score in enumerate(scores)]
            losses = by_definition(moved, outcome, ties)
            return sum((w * loss for w, loss in zip(weights, losses, strict=True)), Decimal(0))

        slopes = [(total(j, step) - total(j, -step)) / (2 * step) for j in range(len(scores))]
        return torch.tensor([float(slope) for slope in slopes], dtype=torch.float64)


def gradient(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties, weight: Tensor | None = None) -> Tensor:
    leaf = log_risk.detach().clone().requires_grad_()
    loss = cox_partial_likelihood(leaf, outcome, ties=ties)
    loss.backward(torch.ones_like(loss) if weight is None else weight)
    assert leaf.grad is not None
    return leaf.grad


def outcome_of(time: object, event: object) -> SurvivalOutcome:
    return SurvivalOutcome.from_arrays(np.asarray(time, float), np.asarray(event, int), "days")


@both_ties
@few
@given(case=cases())
def test_loss_equals_its_definition(ties: Ties, case: Case) -> None:
    found = cox_partial_likelihood(case.log_risk, case.outcome, ties=ties)
    torch.testing.assert_close(found, oracle(case.log_risk, case.outcome, ties), rtol=1e-12, atol=1e-12)


@both_ties
@few
@given(case=cases(max_size=7), seed=st.integers(0, 999))
def test_gradient_of_any_weighting_equals_differences_of_the_definition(ties: Ties, case: Case, seed: int) -> None:
    weight = torch.randn(len(case), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = gradient(case.log_risk, case.outcome, ties, weight)
    truth = oracle_gradient(case.log_risk, case.outcome, ties, weight)
    torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-12)


@both_ties
@few
@given(case=cases(), data=st.data())
def test_permuting_rows_permutes_losses_and_gradients(ties: Ties, case: Case, data: st.DataObject) -> None:
    order = data.draw(permutations(len(case)))
    losses = cox_partial_likelihood(case.log_risk, case.outcome, ties=ties)
    permuted = cox_partial_likelihood(case.log_risk[order], case.outcome[order], ties=ties)
    torch.testing.assert_close(permuted, losses[order], rtol=1e-12, atol=1e-13)
    slopes = gradient(case.log_risk, case.outcome, ties)
    torch.testing.assert_close(
        gradient(case.log_risk[order], case.outcome[order], ties), slopes[order], rtol=1e-12, atol=1e-13
    )


@both_ties
def test_four_rows_with_ties_give_the_true_value_in_every_order(ties: Ties) -> None:
    log_risk = torch.tensor([0.7, -1.2, 0.3, 1.9], dtype=torch.float64)
    outcome = outcome_of([2, 2, 2, 5], [1, 1, 0, 1])
    truth = float(oracle(log_risk, outcome, ties).sum())
    for order in itertools.permutations(range(4)):
        rows = list(order)
        assert float(cox_partial_likelihood(log_risk[rows], outcome[rows], ties=ties).sum()) == pytest.approx(
            truth, rel=1e-13
        )


def test_four_rows_by_hand() -> None:
    # Two of four die at time 1 with risks 1 and 2, then one of the others (3 and 4, of whom 4 is censored).
    log_risk = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).log()
    outcome = outcome_of([1, 1, 2, 3], [1, 1, 1, 0])
    efron = np.log(10 * 8.5 / (1 * 2)) + np.log(7 / 3)
    breslow = np.log(10 * 10 / (1 * 2)) + np.log(7 / 3)
    assert float(cox_partial_likelihood(log_risk, outcome).sum()) == pytest.approx(efron, rel=1e-14)
    assert float(cox_partial_likelihood(log_risk, outcome, ties=Ties.BRESLOW).sum()) == pytest.approx(
        breslow, rel=1e-14
    )


@few
@given(case=cases())
def test_without_tied_events_both_rules_are_one(case: Case) -> None:
    time = case.outcome.time + 1e-3 * torch.arange(len(case))
    outcome = SurvivalOutcome(time, case.outcome.event, "days")
    efron, breslow = (cox_partial_likelihood(case.log_risk, outcome, ties=ties) for ties in Ties)
    torch.testing.assert_close(efron, breslow, rtol=1e-13, atol=1e-14)


@both_ties
@few
@given(case=cases(), shift=st.floats(-900, 900))
def test_a_constant_changes_nothing(ties: Ties, case: Case, shift: float) -> None:
    losses = cox_partial_likelihood(case.log_risk, case.outcome, ties=ties)
    torch.testing.assert_close(
        cox_partial_likelihood(case.log_risk + shift, case.outcome, ties=ties), losses, rtol=1e-9, atol=1e-11
    )
    assert float(gradient(case.log_risk, case.outcome, ties).sum()) == pytest.approx(0, abs=1e-12)


@both_ties
@few
@given(case=cases(max_size=40, scale=3.0), seed=st.integers(0, 999))
def test_compiled_pass_and_torch_agree(ties: Ties, case: Case, seed: int) -> None:
    weight = torch.randn(len(case), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    leaf = case.log_risk.clone().requires_grad_()
    loss = partial_likelihood_in_torch(leaf, case.outcome, ties)
    torch.testing.assert_close(
        cox_partial_likelihood(case.log_risk, case.outcome, ties=ties), loss.detach(), rtol=1e-11, atol=1e-12
    )
    loss.backward(weight)
    assert leaf.grad is not None
    torch.testing.assert_close(gradient(case.log_risk, case.outcome, ties, weight), leaf.grad, rtol=1e-10, atol=1e-12)


@both_ties
@pytest.mark.parametrize("distinct", [3, 50, 10**9])
def test_thousands_of_rows_agree_with_torch(ties: Ties, distinct: int) -> None:
    random = np.random.default_rng(4)
    outcome = outcome_of(random.integers(1, distinct + 1, 4000), random.random(4000) < 0.6)
    leaf = torch.from_numpy(random.normal(size=4000) * 3).requires_grad_()
    loss = partial_likelihood_in_torch(leaf, outcome, ties)
    loss.sum().backward()
    torch.testing.assert_close(
        cox_partial_likelihood(leaf.detach(), outcome, ties=ties), loss.detach(), rtol=1e-11, atol=1e-11
    )
    assert leaf.grad is not None
    torch.testing.assert_close(gradient(leaf, outcome, ties), leaf.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 100, 4096, 50_000])
@pytest.mark.parametrize("centre", [0.0, 1.0, 1.7e9])
@pytest.mark.parametrize("spread", [1e-12, 1e-3, 1e300])
def test_sorting_by_packed_numbers_is_sorting_by_time(rows: int, centre: float, spread: float) -> None:
    time = centre + spread * np.random.default_rng(rows).exponential(size=rows) + 5e-324
    time[rows // 2 :] = time[: rows - rows // 2]
    order, ordered = by_value(time)
    assert sorted(order.tolist()) == list(range(rows))
    assert np.array_equal(ordered, np.sort(time))
    assert np.array_equal(time[order], ordered)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own forward mode
@both_ties
def test_gradcheck_of_first_and_second_derivatives(ties: Ties) -> None:
    outcome = outcome_of([1, 1, 1, 2, 3, 3, 3, 4], [1, 1, 0, 0, 1, 1, 1, 0])
    log_risk = torch.linspace(-2, 2, 8, dtype=torch.float64)[[3, 1, 7, 0, 5, 2, 6, 4]].requires_grad_()

    def loss(score: Tensor) -> Tensor:
        return cox_partial_likelihood(score, outcome, ties=ties)

    assert torch.autograd.gradcheck(loss, log_risk, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, log_risk)
    backward = torch.autograd.functional.jacobian(loss, log_risk)
    torch.testing.assert_close(torch.func.grad(lambda z: loss(z).sum())(log_risk.detach()), backward.sum(0))


@both_ties
@pytest.mark.parametrize("size", [30.0, 100.0, 1000.0])
@pytest.mark.parametrize("arrangement", ["random", "well ordered", "ill ordered"])
def test_log_risks_up_to_a_thousand_in_float32_keep_loss_and_gradient(
    ties: Ties, size: float, arrangement: str
) -> None:
    time = np.array([1, 1, 2, 2, 2, 3, 4, 5, 5, 6], float)
    event = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 1])
    scores = {
        "random": np.random.default_rng(1).uniform(-size, size, 10),
        "well ordered": np.linspace(size, -size, 10),
        "ill ordered": np.linspace(-size, size, 10),
    }[arrangement]
    log_risk, outcome = torch.tensor(scores, dtype=torch.float32), outcome_of(time, event)
    losses = cox_partial_likelihood(log_risk, outcome, ties=ties)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), oracle(log_risk, outcome, ties), rtol=1e-6, atol=1e-6)
    truth = oracle_gradient(log_risk, outcome, ties, torch.ones(10))
    found = gradient(log_risk, outcome, ties)
    assert float((found - truth).norm() / truth.norm()) < 1e-6
    leaf = log_risk.clone().requires_grad_()
    partial_likelihood_in_torch(leaf, outcome, ties).sum().backward()
    assert leaf.grad is not None
    assert float((leaf.grad - truth).norm() / truth.norm()) < 1e-6


@both_ties
def test_gradient_in_float32_is_that_of_float64_at_ten_thousand_rows(ties: Ties) -> None:
    random = np.random.default_rng(7)
    outcome = outcome_of(np.ceil(random.exponential(20, 10_000)), random.random(10_000) < 0.5)
    log_risk = torch.from_numpy(random.uniform(-100, 100, 10_000)).float()
    exact = gradient(log_risk.double(), outcome, ties)
    assert float((gradient(log_risk, outcome, ties) - exact).norm() / exact.norm()) < 1e-6


@both_ties
def test_well_ordered_log_risks_of_60_cost_nothing(ties: Ties) -> None:
    outcome = outcome_of([1, 2, 3], [1, 1, 1])
    loss = cox_partial_likelihood(torch.tensor([60.0, 0.0, -60.0]), outcome, ties=ties)
    assert float(loss.abs().sum()) < 1e-20


@both_ties
@pytest.mark.parametrize("rows", [1, 2, 16])
def test_without_events_the_loss_is_zero_on_the_graph(ties: Ties, rows: int) -> None:
    log_risk = torch.linspace(-3, 3, rows).requires_grad_()
    loss = cox_partial_likelihood(log_risk, outcome_of(np.arange(1, rows + 1), np.zeros(rows)), ties=ties)
    assert loss.requires_grad
    assert torch.equal(loss.detach(), torch.zeros(rows))
    loss.sum().backward()
    assert log_risk.grad is not None
    assert torch.equal(log_risk.grad, torch.zeros(rows))


@both_ties
def test_one_row_with_an_event_is_zero_on_the_graph(ties: Ties) -> None:
    log_risk = torch.tensor([3.0], requires_grad=True)
    loss = cox_partial_likelihood(log_risk, outcome_of([4], [1]), ties=ties)
    assert loss.requires_grad
    assert float(loss.detach()) == 0.0
    assert float(gradient(log_risk, outcome_of([4], [1]), ties)) == 0.0


def test_all_tied_with_equal_risks_is_the_number_of_orders() -> None:
    # Efron's denominators are then 5, 4, .., 1 times the risk: the likelihood is 1 / 5!.
    outcome = outcome_of([2] * 5, [1] * 5)
    assert float(cox_partial_likelihood(torch.zeros(5), outcome).sum()) == pytest.approx(np.log(120), rel=1e-6)
    breslow = cox_partial_likelihood(torch.zeros(5), outcome, ties=Ties.BRESLOW)
    assert float(breslow.sum()) == pytest.approx(5 * np.log(5), rel=1e-6)
    assert float(gradient(torch.zeros(5), outcome, Ties.EFRON).abs().max()) < 1e-7


def test_a_hundred_thousand_rows_at_one_time_give_the_factorial() -> None:
    outcome = outcome_of(np.ones(100_000), np.ones(100_000))
    total = cox_partial_likelihood(torch.full((100_000,), 500.0, dtype=torch.float64), outcome).sum()
    assert float(total) == pytest.approx(float(torch.lgamma(torch.tensor(100_001.0, dtype=torch.float64))), rel=1e-12)


@both_ties
def test_every_cause_is_an_event(ties: Ties) -> None:
    log_risk = torch.tensor([0.4, -0.3, 1.0, 0.0])
    by_cause = cox_partial_likelihood(log_risk, outcome_of([1, 2, 2, 3], [2, 1, 3, 0]), ties=ties)
    assert torch.equal(by_cause, cox_partial_likelihood(log_risk, outcome_of([1, 2, 2, 3], [1, 1, 1, 0]), ties=ties))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_type_of_the_log_risks_is_kept(dtype: torch.dtype) -> None:
    log_risk = torch.tensor([0.5, -0.5, 1.0], dtype=dtype, requires_grad=True)
    loss = cox_partial_likelihood(log_risk, outcome_of([3, 1, 2], [1, 1, 0]))
    loss.sum().backward()
    assert log_risk.grad is not None
    assert (loss.dtype, log_risk.grad.dtype) == (dtype, dtype)


def test_no_rows_give_no_losses() -> None:
    assert cox_partial_likelihood(torch.zeros(0, requires_grad=True), outcome_of([], [])).shape == (0,)


def test_a_log_risk_that_is_not_a_number_is_not_hidden() -> None:
    loss = cox_partial_likelihood(torch.tensor([0.0, float("nan"), 1.0]), outcome_of([1, 2, 3], [1, 1, 1]))
    assert torch.isnan(loss[:2]).all()


@pytest.mark.parametrize("shape", [(3, 1), (2,), (4,), ()])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match="one value per instance"):
        cox_partial_likelihood(torch.zeros(shape), outcome_of([1, 2, 3], [1, 0, 1]))


@both_ties
@pytest.mark.parametrize("name", ["lung", "veteran", "gbsg"])
def test_log_likelihood_equals_that_of_r(ties: Ties, name: str, shared) -> None:
    golden = json.loads(shared("golden", f"{name}.json").read_text())
    table = pd.read_csv(shared("golden", f"{name}.csv"))
    outcome = SurvivalOutcome.from_arrays(table["time"].to_numpy(), table["event"].to_numpy(), "days")
    fit = golden[ties.value]
    scores = table[golden["covariates"]].to_numpy(float) @ np.array([fit["coef"][c] for c in golden["covariates"]])
    for scale, field in ((1.0, "loglik"), (0.5, "loglik_at_half_coef"), (0.0, "loglik_null")):
        for loss in (
            cox_partial_likelihood(torch.from_numpy(scale * scores), outcome, ties=ties),
            partial_likelihood_in_torch(torch.from_numpy(scale * scores), outcome, ties),
        ):
            assert -float(loss.sum()) == pytest.approx(fit[field], rel=1e-10)
    slopes = table[golden["covariates"]].to_numpy(float).T @ gradient(torch.from_numpy(scores), outcome, ties).numpy()
    spread = table[golden["covariates"]].to_numpy(float).std(0) * len(table)
    assert np.abs(slopes / spread).max() < 1e-6  # the score vanishes at R's maximum


@pytest.mark.gpu
@both_ties
def test_gpu_and_cpu_agree(ties: Ties) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    random = np.random.default_rng(2)
    outcome = outcome_of(random.integers(1, 40, 500), random.random(500) < 0.6)
    log_risk = torch.from_numpy(random.normal(size=500) * 4)
    leaf = log_risk.cuda().requires_grad_()
    loss = cox_partial_likelihood(leaf, outcome.to("cuda"), ties=ties)
    loss.sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(loss.detach().cpu(), cox_partial_likelihood(log_risk, outcome, ties=ties))
    torch.testing.assert_close(leaf.grad.cpu(), gradient(log_risk, outcome, ties), rtol=1e-9, atol=1e-11)
