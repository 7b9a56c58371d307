"""The likelihood of piecewise constant rates against integrals, and where it must reduce to simpler ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.strategies import UNIT, Case, cases, whole_outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.surfaces import log_softplus
from survlens.losses.piecewise import exposed_shares, piecewise_hazard_loss

GRID = TimeGrid(torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64), UNIT)


def raw_of_rate(rate: float, width: float) -> float:
    return math.log(math.expm1(rate * width))


def test_by_hand() -> None:
    raw = torch.tensor([[raw_of_rate(0.5, 1.0), raw_of_rate(0.2, 3.0)]], dtype=torch.float64).expand(4, 2)
    outcome = SurvivalOutcome.from_arrays([3.0, 1.0, 2.0, 9.0], [1, 1, 0, 1], UNIT)
    expected = [0.5 + 0.4 - math.log(0.2), 0.5 - math.log(0.5), 0.5 + 0.2, 0.5 + 0.6]
    torch.testing.assert_close(piecewise_hazard_loss(raw, outcome, GRID), torch.tensor(expected, dtype=torch.float64))


def test_delayed_entry_leaves_out_the_hazard_before_it() -> None:
    raw = torch.tensor([[raw_of_rate(0.5, 1.0), raw_of_rate(0.2, 3.0)]], dtype=torch.float64).expand(3, 2)
    outcome = SurvivalOutcome.from_arrays([3.0, 3.0, 9.0], [1, 0, 1], UNIT, entry=[0.5, 2.0, 5.0], weight=[1, 2, 3])
    expected = [0.25 + 0.4 - math.log(0.2), 2 * 0.2, 0.0]
    torch.testing.assert_close(piecewise_hazard_loss(raw, outcome, GRID), torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(case=cases(drawn=whole_outcomes()), rate=st.floats(1e-3, 5.0))
def test_equal_rates_are_the_exponential_distribution(case: Case, rate: float) -> None:
    outcome, widths = case.outcome, case.grid.edges.diff()
    last = case.grid.edges[-1]
    raw = torch.log(torch.expm1(rate * widths.clamp(max=600 / rate))).expand(len(case), -1)
    loss = piecewise_hazard_loss(raw, outcome, case.grid)
    died = (outcome.event > 0) & (outcome.time <= last)
    exposed = outcome.time.clamp(max=float(last)) - outcome.entries().clamp(max=float(last))
    expected = outcome.weights() * (rate * exposed - math.log(rate) * died.double())
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)


def test_log_softplus_is_exact_and_differentiable_at_any_size() -> None:
    raw = torch.tensor([-1000.0, -50.0, -20.5, -19.5, -1.0, 0.0, 3.0, 1000.0], dtype=torch.float64, requires_grad=True)
    value = log_softplus(raw)
    expected = [x if x < -40 else math.log(math.log1p(math.exp(x)) if x < 700 else x) for x in raw.tolist()]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-14)
    value.sum().backward()
    assert raw.grad is not None
    expected = [
        1.0 if x < -40 else 1 / (1 + math.exp(-x)) / math.exp(v)
        for x, v in zip(raw.tolist(), value.tolist(), strict=True)
    ]
    torch.testing.assert_close(raw.grad, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert torch.autograd.gradgradcheck(log_softplus, raw.detach()[1:-1].clone().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [-1000.0, 1000.0])
def test_values_far_from_0_keep_losses_and_gradients_finite(dtype: torch.dtype, size: float) -> None:
    raw = torch.full((3, 2), size, dtype=dtype, requires_grad=True)
    loss = piecewise_hazard_loss(raw, SurvivalOutcome.from_arrays([0.5, 3.0, 2.0], [1, 1, 0], UNIT), GRID)
    loss.sum().backward()
    assert raw.grad is not None
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(raw.grad).all())
    if size < 0:
        assert raw.grad.tolist() == [[-1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]


def test_exposure_adds_up_to_the_time() -> None:
    times = torch.tensor([0.25, 1.0, 2.5, 4.0, 7.0], dtype=torch.float64)
    shares = exposed_shares(times, GRID)
    assert shares.tolist() == [[0.25, 0], [1, 0], [1, 0.5], [1, 1], [1, 1]]


def test_shapes_and_units_are_checked() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0], [1], UNIT)
    with pytest.raises(InvalidValueError, match=r"`raw` must have one row per instance .* got \(1, 3\)"):
        piecewise_hazard_loss(torch.zeros(1, 3), outcome, GRID)
    with pytest.raises(InvalidValueError, match="unit of `grid`; got 'days' and 'months'"):
        piecewise_hazard_loss(torch.zeros(1, 2), SurvivalOutcome.from_arrays([1.0], [1], "days"), GRID)
