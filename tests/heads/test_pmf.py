"""What only the head of probability masses does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation
from survlens.heads.pmf import PMF

GRID = TimeGrid(torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64), "months")


def with_bias(*bias: float, grid: TimeGrid = GRID) -> PMF:
    head = PMF(1, grid).double()
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor(bias))
    return head


def test_masses_are_the_softmax_with_a_tail() -> None:
    bias = torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)
    prediction = with_bias(*bias.tolist()).predict(torch.zeros(1, 1).double())
    shares = torch.cat([bias.exp(), torch.ones(1).double()])
    torch.testing.assert_close(prediction.pmf[0], (shares / shares.sum())[:3], rtol=1e-6, atol=0)
    torch.testing.assert_close(prediction.survival[0, -1], shares[3] / shares.sum(), rtol=1e-6, atol=0)
    assert prediction.times.tolist() == [1.0, 3.0, 7.0]


def test_between_edges_the_density_is_constant() -> None:
    prediction = with_bias(-1.0, 0.5, 0.0).predict(torch.zeros(1, 1).double())
    assert prediction.interpolation is Interpolation.LINEAR
    there = prediction.at([1.2, 2.0, 2.9])
    density = there.hazard_rate * there.survival
    torch.testing.assert_close(density, prediction.pmf[:, 1:2].expand(1, 3) / 2)


def test_risk_is_minus_the_restricted_mean() -> None:
    embedding = torch.zeros(1, 1).double()
    head = with_bias(-1.0, 0.5, 0.0)
    torch.testing.assert_close(head.risk(embedding), -head.predict(embedding).restricted_mean(7.0))
    assert with_bias(-900.0, -900.0, -900.0).risk(embedding).tolist() == [-7.0]
    assert with_bias(900.0, -900.0, -900.0).risk(embedding).tolist() == [-0.5]


def test_curves_keep_both_of_their_ends_in_logarithms() -> None:
    sure = with_bias(1e3, -1e3, 900.0).float().predict(torch.zeros(1, 1))
    assert sure.log_survival.tolist() == [[-100.0, -100.0, -1000.0]]
    safe = with_bias(-80.0, -80.0, -80.0).predict(torch.zeros(1, 1).double())
    torch.testing.assert_close(safe.log_survival, -torch.tensor([[1.0, 2.0, 3.0]]).double() * np.exp(-80.0))


def test_fitted_without_covariates_it_is_kaplan_meier_at_the_edges() -> None:
    generator = np.random.default_rng(5)
    time = generator.integers(1, 7, 200).astype(float)
    event = generator.integers(0, 2, 200)
    time[event == 0] += 0.3  # early in the next interval, which then does not count as survived
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    grid = TimeGrid(torch.arange(0.0, 9.0, dtype=torch.float64), "months")
    head = with_bias(*[0.0] * 8, grid=grid)
    optimiser = torch.optim.LBFGS([head.linear.bias], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        total = head.loss(torch.zeros(200, 1).double(), outcome).mean()
        total.backward()
        return total

    optimiser.step(step)
    found = head.predict(torch.zeros(1, 1).double()).survival[0, :6].detach()
    expected = torch.from_numpy(kaplan_meier(outcome).at(np.arange(1.0, 7.0)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"`network` must map .* \(instances, 3\); got \(4, 4\)"):
        PMF(2, GRID, network=nn.Linear(2, 4)).predict(torch.zeros(4, 2))
    with pytest.raises(InvalidValueError, match="`in_features` must be >= 1; got 0"):
        PMF(0, GRID)
    with pytest.raises(InvalidValueError, match="unit"):
        PMF(1, GRID).loss(torch.zeros(1, 1), SurvivalOutcome.from_arrays([1.0], [1], "days"))


def test_settings_show_when_printed() -> None:
    assert "in_features=2, intervals=3, last=7" in repr(PMF(2, GRID))
