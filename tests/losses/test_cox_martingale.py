"""Laws of the Cox likelihood with a known cumulative hazard."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import StepCurve, log_breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.cox_martingale import cox_martingale_loss


@st.composite
def cohorts(draw):
    """Tied times, weights and entries where drawn, and log-risks."""
    count = draw(st.integers(1, 14))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    time = generator.integers(2, 9, count).astype(float)
    event = generator.integers(0, 2, count)
    entry = time - generator.integers(1, 3, count) if draw(st.booleans()) else None
    entry = None if entry is None else np.maximum(entry, 0.0)
    weight = generator.integers(1, 4, count).astype(float) if draw(st.booleans()) else None
    outcome = SurvivalOutcome.from_arrays(time, event, "months", entry=entry, weight=weight)
    return outcome, torch.from_numpy(generator.normal(0, 1.5, count))


@settings(max_examples=60, deadline=None)
@given(cohort=cohorts())
def test_gradient_with_a_fresh_hazard_is_that_of_the_partial_likelihood(cohort):
    outcome, log_risk = cohort
    hazard = log_breslow_baseline(log_risk, outcome, ties=Ties.BRESLOW)
    ours, theirs = log_risk.clone().requires_grad_(), log_risk.clone().requires_grad_()
    cox_martingale_loss(ours, outcome, hazard).sum().backward()
    cox_partial_likelihood(theirs, outcome, ties=Ties.BRESLOW).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(cohort=cohorts(), shift=st.floats(-30, 30))
def test_a_constant_in_the_log_risks_and_out_of_the_hazard_changes_no_gradient(cohort, shift):
    outcome, log_risk = cohort
    gradients = []
    for moved in (log_risk, log_risk + shift):
        hazard = log_breslow_baseline(moved, outcome, ties=Ties.BRESLOW)
        moved = moved.clone().requires_grad_()
        cox_martingale_loss(moved, outcome, hazard).sum().backward()
        gradients.append(moved.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-8)


def _curve(times, values):
    with np.errstate(divide="ignore"):
        return StepCurve(np.array(times), np.log(np.array(values)), -np.inf, "months")


def test_value_is_expected_less_observed_times_log_risk():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 5.0], [1, 0, 1], "months", weight=[1.0, 3.0, 2.0])
    loss = cox_martingale_loss(torch.tensor([0.2, -0.3, 0.5]).double(), outcome, _curve([2.0, 4.0], [0.1, 0.4]))
    expected = [0.0 - 0.2, 3 * 0.1 * np.exp(-0.3), 2 * (0.4 * np.exp(0.5) - 0.5)]
    torch.testing.assert_close(loss, torch.tensor(expected).double())


def test_what_came_before_the_entry_does_not_count():
    outcome = SurvivalOutcome.from_arrays([5.0, 5.0, 3.0], [0, 0, 0], "months", entry=[3.0, 1.0, 2.5])
    loss = cox_martingale_loss(torch.zeros(3).double(), outcome, _curve([2.0, 4.0], [0.1, 0.4]))
    torch.testing.assert_close(loss, torch.tensor([0.3, 0.4, 0.0]).double())


def test_beyond_the_cap_the_loss_is_the_tangent():
    outcome = SurvivalOutcome.from_arrays([3.0, 3.0], [0, 1], "months")
    log_risk = torch.tensor([50.0, 1000.0], requires_grad=True)
    loss = cox_martingale_loss(log_risk, outcome, _curve([1.0], [1.0]), most=100.0)
    loss.sum().backward()
    cap = np.log(100.0)
    torch.testing.assert_close(
        loss.detach(), torch.tensor([100 * (1 + 50 - cap), 100 * (1 + 1000 - cap) - 1000]).float()
    )
    torch.testing.assert_close(log_risk.grad, torch.tensor([100.0, 99.0]))


def test_one_instance_without_an_event_still_has_a_gradient():
    log_risk = torch.tensor([0.5], requires_grad=True)
    outcome = SurvivalOutcome.from_arrays([3.0], [0], "months")
    cox_martingale_loss(log_risk, outcome, _curve([1.0], [0.2])).sum().backward()
    assert float(log_risk.grad[0]) == pytest.approx(0.2 * np.exp(0.5))


def test_before_any_event_there_is_no_gradient():
    log_risk = torch.tensor([0.5], requires_grad=True)
    outcome = SurvivalOutcome.from_arrays([3.0], [0], "months")
    cox_martingale_loss(log_risk, outcome, _curve([4.0], [0.2])).sum().backward()
    assert float(log_risk.grad[0]) == 0.0


def test_wrong_arguments_are_refused():
    outcome = SurvivalOutcome.from_arrays([3.0, 2.0], [0, 1], "months", stratum=[0, 1])
    with pytest.raises(InvalidValueError, match="one stratum"):
        cox_martingale_loss(torch.zeros(2), outcome, _curve([1.0], [0.2]))
    with pytest.raises(InvalidValueError, match="one value per instance"):
        cox_martingale_loss(torch.zeros(2, 1), outcome, _curve([1.0], [0.2]))
    with pytest.raises(InvalidValueError, match="`most`"):
        cox_martingale_loss(torch.zeros(2), outcome, _curve([1.0], [0.2]), most=0.0)
