"""What only the Weibull head does: a formula for every time, and the truth of data that are Weibull."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from contracts.strategies import UNIT
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.weibull import Weibull

GRID = TimeGrid.equidistant(8.0, 4, UNIT)


def with_parameters(log_scale: float, shape: float) -> Weibull:
    head = Weibull(1, GRID).double()
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.fill_(log_scale - math.log(4.0))
        head.raw_shape.fill_(math.log(math.expm1(shape)) - math.log(math.expm1(1.0)))
    return head


def test_training_starts_at_the_exponential_distribution_with_half_the_last_edge_as_scale() -> None:
    head = Weibull(3, GRID).double()
    log_scale, log_shape = head.log_parameters(torch.zeros(2, 3).double())
    torch.testing.assert_close(log_shape, torch.zeros(2).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(log_scale - head.linear.bias, torch.full((2,), math.log(4.0), dtype=torch.float64))


def test_times_are_answered_from_the_formula_also_past_the_last_edge() -> None:
    head = with_parameters(math.log(3.0), 2.5)
    times = torch.tensor([1e-6, 0.7, 8.0, 100.0], dtype=torch.float64)
    prediction = head.predict(torch.zeros(1, 1).double(), times)
    torch.testing.assert_close(prediction.cumulative_hazard[0], (times / 3) ** 2.5, rtol=1e-12, atol=0)
    torch.testing.assert_close(prediction.hazard_rate[0], 2.5 * (times / 3) ** 2.5 / times, rtol=1e-12, atol=0)


def test_shape_1_is_a_rate_that_is_constant() -> None:
    weibull, constant = with_parameters(math.log(3.0), 1.0), PCHazard(1, TimeGrid.equidistant(8.0, 1, UNIT)).double()
    with torch.no_grad():
        constant.linear.weight.zero_()
        constant.linear.bias.fill_(math.log(math.expm1(8.0 / 3)))
    outcome = SurvivalOutcome.from_arrays([1.0, 3.0, 8.0], [1, 0, 1], UNIT, entry=[0, 2, 1], weight=[1, 2, 3])
    embedding, times = torch.zeros(3, 1).double(), torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(weibull.loss(embedding, outcome), constant.loss(embedding, outcome))
    first, second = weibull.predict(embedding, times), constant.predict(embedding, times)
    torch.testing.assert_close(first.log_survival, second.log_survival)
    torch.testing.assert_close(first.hazard_rate, second.hazard_rate)


def test_the_shape_of_each_instance_may_differ() -> None:
    head = Weibull(2, GRID, shape_depends=True).double()
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(2))
        head.linear.bias.zero_()
    prediction = head.predict(
        torch.tensor([[0.0, -1.0], [0.0, 2.0]], dtype=torch.float64), torch.tensor([1.0, 4.0, 8.0], dtype=torch.float64)
    )
    early, late = prediction.cumulative_hazard[:, 0], prediction.cumulative_hazard[:, 2]
    assert bool(early[0] > early[1])
    assert bool(late[0] < late[1])  # the hazards cross
    assert not hasattr(head, "raw_shape")


def test_the_unit_and_the_columns_of_the_network_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="unit of `grid`; got 'days' and 'months'"):
        Weibull(1, GRID).loss(torch.zeros(1, 1), SurvivalOutcome.from_arrays([1.0], [1], "days"))
    with pytest.raises(InvalidValueError, match=r"\(instances, 2\)"):
        Weibull(1, GRID, network=torch.nn.Linear(1, 1), shape_depends=True).predict(torch.zeros(1, 1))


def simulation(path: Path) -> tuple[torch.Tensor, SurvivalOutcome]:
    frame = pd.read_csv(path)
    columns = torch.from_numpy(frame[["x1", "x2", "x3"]].to_numpy(np.float64))
    return columns, SurvivalOutcome.from_arrays(frame["time"].to_numpy(), frame["status"].to_numpy(int), "years")


def test_data_that_are_weibull_give_their_coefficients_back(shared: Callable[..., Path]) -> None:
    """The hazard 0.25 t^1.5 exp(1.7 x1 - 2.4 x2) has the shape 2.5 and log scale -(log 0.1 + 1.7 x1 - 2.4 x2) / 2.5."""
    folder = shared("data", "simulations")
    embedding, outcome = simulation(folder / "time_independent_train.csv")
    unseen, _ = simulation(folder / "time_independent_test.csv")
    head = Weibull(3, TimeGrid.equidistant(7.0, 70, "years")).double()
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = head.loss(embedding, outcome).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    scale, shape = (parameter.detach() for parameter in head.log_parameters(torch.zeros(1, 3).double()))
    assert float(shape.exp()) == pytest.approx(2.5, rel=0.03)
    assert float(scale) == pytest.approx(-math.log(0.1) / 2.5, abs=0.03)
    slopes = -2.5 * head.linear.weight.detach()[0]
    torch.testing.assert_close(slopes, torch.tensor([1.7, -2.4, 0.0], dtype=torch.float64), rtol=0.03, atol=0.06)
    times = torch.linspace(0.1, 7.0, 70, dtype=torch.float64)
    truth = torch.exp(-0.1 * times**2.5 * torch.exp(1.7 * unseen[:, :1] - 2.4 * unseen[:, 1:2]))
    found = head.predict(unseen, times).survival.detach()
    assert float((found - truth).abs().mean()) < 0.01
