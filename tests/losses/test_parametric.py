"""The Weibull likelihood against scipy, and at the ends of the floats."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.strategies import UNIT, outcomes, whole_outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.losses.parametric import cumulative_hazard_from_log, weibull_loss


@settings(max_examples=50, deadline=None)
@given(outcome=whole_outcomes(), log_scale=st.floats(-1, 4), log_shape=st.floats(-1.5, 1.2))
def test_the_loss_is_scipys_density_and_survival(outcome: SurvivalOutcome, log_scale: float, log_shape: float) -> None:
    n = len(outcome)
    known = scipy.stats.weibull_min(math.exp(log_shape), scale=math.exp(log_scale))
    loss = weibull_loss(
        torch.full((n,), log_scale, dtype=torch.float64), torch.full((n,), log_shape, dtype=torch.float64), outcome
    )
    time, entry = outcome.time.numpy(), outcome.entries().numpy()
    terms = [known.logpdf(t) if e else known.logsf(t) for t, e in zip(time, outcome.event.tolist(), strict=True)]
    expected = outcome.weights() * (torch.from_numpy(known.logsf(entry)) - torch.tensor(terms, dtype=torch.float64))
    torch.testing.assert_close(loss, expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(outcome=outcomes(), log_rate=st.floats(-5, 1))
def test_shape_1_is_the_exponential_distribution(outcome: SurvivalOutcome, log_rate: float) -> None:
    n = len(outcome)
    loss = weibull_loss(torch.full((n,), -log_rate, dtype=torch.float64), torch.zeros(n).double(), outcome)
    expected = math.exp(log_rate) * outcome.time - log_rate * (outcome.event > 0).double()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)


def test_a_moment_after_a_late_entry_keeps_its_digits() -> None:
    outcome = SurvivalOutcome.from_arrays([1e6 + 1e-3], [0], UNIT, entry=[1e6])
    loss = weibull_loss(torch.zeros(1).double(), torch.full((1,), math.log(2), dtype=torch.float64), outcome)
    step = float(outcome.time[0]) - 1e6
    assert float(loss[0]) == pytest.approx(step * (2e6 + step), rel=1e-6)


@pytest.mark.parametrize("log_scale", [-900.0, 900.0])
@pytest.mark.parametrize("log_shape", [-1000.0, 0.0, 6.0])
def test_scales_and_shapes_of_any_size_keep_losses_and_gradients_finite(log_scale: float, log_shape: float) -> None:
    outcome = SurvivalOutcome.from_arrays([2.0, 3.0, 4.0, 5.0], [1, 0, 1, 0], UNIT, entry=[0, 0, 1, 3])
    scale = torch.full((4,), log_scale, requires_grad=True)
    shape = torch.full((4,), log_shape, requires_grad=True)
    loss = weibull_loss(scale, shape, outcome)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert bool(torch.isfinite(loss).all())
    assert scale.grad is not None
    assert shape.grad is not None
    assert bool(torch.isfinite(scale.grad).all())
    assert bool(torch.isfinite(shape.grad).all())
    if log_scale < 0 and log_shape == 0.0:
        assert bool((scale.grad < 0).all())  # towards a longer scale


def test_the_tangent_joins_the_exponential_smoothly() -> None:
    x = torch.tensor([-math.inf, -800.0, 0.0, 29.999, 30.0, 31.0, 1000.0], dtype=torch.float64, requires_grad=True)
    value = cumulative_hazard_from_log(x)
    top = math.exp(30)
    expected = [0.0, 0.0, 1.0, math.exp(29.999), top, 2 * top, 971 * top]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(
        slope[[2, 3, 5, 6]], torch.tensor([1.0, math.exp(29.999), top, top], dtype=torch.float64)
    )
    assert slope[:2].tolist() == [0.0, 0.0]


def test_one_value_per_instance_is_asked_for() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], UNIT)
    with pytest.raises(InvalidValueError, match="`log_shape` must have one value per instance"):
        weibull_loss(torch.zeros(2), torch.zeros(1), outcome)
