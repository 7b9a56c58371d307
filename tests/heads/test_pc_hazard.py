"""What only the head of piecewise constant rates does: exact rates anywhere, and truths it must find."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.strategies import UNIT
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.heads.pc_hazard import PCHazard

GRID = TimeGrid(torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64), UNIT)


def with_rates(*rates: float, grid: TimeGrid = GRID) -> PCHazard:
    head = PCHazard(1, grid).double()
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.log(torch.expm1(torch.tensor(rates, dtype=torch.float64) * grid.edges.diff())))
    return head


def test_the_rate_is_exact_at_any_time() -> None:
    times = torch.tensor([0.3, 1.0, 1.1, 4.0], dtype=torch.float64)
    prediction = with_rates(0.5, 0.2).predict(torch.zeros(1, 1).double(), times)
    torch.testing.assert_close(prediction.hazard_rate[0], torch.tensor([0.5, 0.5, 0.2, 0.2], dtype=torch.float64))
    torch.testing.assert_close(
        prediction.cumulative_hazard[0], torch.tensor([0.15, 0.5, 0.52, 1.1], dtype=torch.float64)
    )


def test_rates_too_small_for_a_difference_of_survivals_are_still_known() -> None:
    head = PCHazard(1, GRID).double()
    with torch.no_grad():
        head.linear.weight.fill_(1.0)
        head.linear.bias.zero_()
    prediction = head.predict(
        torch.tensor([[-500.0]], dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    )
    assert prediction.log_hazard_rate is not None
    torch.testing.assert_close(
        prediction.log_hazard_rate[0], torch.tensor([-500.0, -500.0 - math.log(3)], dtype=torch.float64)
    )


def test_an_untrained_head_does_not_know_the_unit_of_time() -> None:
    days = PCHazard(2, TimeGrid.equidistant(3650.0, 4, "days"))
    years = PCHazard(2, TimeGrid.equidistant(10.0, 4, "years"))
    years.load_state_dict(days.state_dict())
    embedding = torch.tensor([[0.5, -1.0]])
    torch.testing.assert_close(days.predict(embedding).survival, years.predict(embedding).survival)


def fit(head: PCHazard, embedding: torch.Tensor, outcome: SurvivalOutcome) -> None:
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = head.loss(embedding, outcome).mean()
        loss.backward()
        return loss

    optimiser.step(closure)


def test_one_interval_finds_events_per_time_at_risk() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0], [1, 0, 1, 1], UNIT, entry=[0, 1, 0, 2])
    head = PCHazard(1, TimeGrid.equidistant(4.0, 1, UNIT)).double()
    fit(head, torch.zeros(4, 1).double(), outcome)
    rate = head.predict(torch.zeros(1, 1).double()).hazard_rate
    assert float(rate.detach()[0, 0]) == pytest.approx(3 / (1 + 1 + 3 + 2), rel=1e-4)  # where the optimiser stops


def test_rates_of_two_groups_are_found_in_exponential_data() -> None:
    generator = torch.Generator().manual_seed(5)
    group = torch.arange(20_000, dtype=torch.float64)[:, None] % 2
    rate = 0.1 + 0.4 * group[:, 0]
    wait = torch.empty(20_000, dtype=torch.float64).exponential_(generator=generator) / rate
    outcome = SurvivalOutcome(wait.clamp(max=6.0), (wait < 6.0).long(), UNIT)
    head = PCHazard(1, TimeGrid(torch.tensor([0.0, 1.0, 2.5, 6.0], dtype=torch.float64), UNIT)).double()
    fit(head, group, outcome)
    times = torch.tensor([0.7, 1.9, 4.0], dtype=torch.float64)
    found = head.predict(torch.tensor([[0.0], [1.0]], dtype=torch.float64), times)
    torch.testing.assert_close(
        found.hazard_rate.detach()[0], torch.full((3,), 0.1, dtype=torch.float64), rtol=0.08, atol=0
    )
    torch.testing.assert_close(
        found.hazard_rate.detach()[1], torch.full((3,), 0.5, dtype=torch.float64), rtol=0.08, atol=0
    )


def test_a_time_past_the_last_edge_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"`times` must be a vector in \(0, 4\] months.*extrapolate"):
        with_rates(0.5, 0.2).predict(torch.zeros(1, 1).double(), torch.tensor([4.1]))
    with pytest.raises(InvalidValueError, match="in_features"):
        PCHazard(0, GRID)
