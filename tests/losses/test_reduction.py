"""From one loss per instance to one number."""

from __future__ import annotations

import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Reduction
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.reduction import reduce

OUTCOME = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0], [1, 0, 2, 0], "days")


def test_the_sum_is_divided_by_events_or_by_instances() -> None:
    loss = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert float(reduce(loss, OUTCOME, Reduction.PER_EVENT)) == 6.0
    assert float(reduce(loss, OUTCOME, Reduction.PER_INSTANCE)) == 3.0


def test_without_events_a_partial_likelihood_is_zero_on_the_graph() -> None:
    log_risk = torch.tensor([0.3, -2.0], requires_grad=True)
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "days")
    total = reduce(cox_partial_likelihood(log_risk, outcome), outcome, Reduction.PER_EVENT)
    total.backward()
    assert float(total.detach()) == 0.0
    assert log_risk.grad is not None
    assert log_risk.grad.tolist() == [0.0, 0.0]


def test_censored_rows_leave_a_loss_per_event_unscaled() -> None:
    # Rows censored before the first event are in no risk set; the loss per event must not see them.
    log_risk = torch.tensor([0.5, -1.0, 0.2, 7.0, -7.0])
    outcome = SurvivalOutcome.from_arrays([2.0, 3.0, 4.0, 1.0, 1.0], [1, 1, 0, 0, 0], "days")
    whole = reduce(cox_partial_likelihood(log_risk, outcome), outcome, Reduction.PER_EVENT)
    part = reduce(cox_partial_likelihood(log_risk[:3], outcome[:3]), outcome[:3], Reduction.PER_EVENT)
    torch.testing.assert_close(whole, part)


def test_a_loss_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="one value per instance"):
        reduce(torch.zeros(3), OUTCOME, Reduction.PER_EVENT)
