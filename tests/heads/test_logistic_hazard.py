"""What only the discrete-time hazard head does."""

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
from survlens.heads.logistic_hazard import LogisticHazard

GRID = TimeGrid(torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64), "months")


def with_bias(*bias: float, grid: TimeGrid = GRID) -> LogisticHazard:
    head = LogisticHazard(1, grid).double()
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor(bias))
    return head


def test_survival_is_the_product_of_the_complements_of_the_hazards() -> None:
    hazard = torch.tensor([0.1, 0.5, 0.25], dtype=torch.float64)
    prediction = with_bias(*torch.logit(hazard).tolist()).predict(torch.zeros(1, 1).double())
    torch.testing.assert_close(prediction.hazard[0], hazard, rtol=1e-6, atol=0)
    expected = torch.tensor([0.9, 0.45, 0.3375], dtype=torch.float64)
    torch.testing.assert_close(prediction.survival[0], expected, rtol=1e-6, atol=0)
    assert prediction.times.tolist() == [1.0, 3.0, 7.0]


def test_between_edges_the_hazard_rate_is_constant() -> None:
    prediction = with_bias(-1.0, 0.5, 0.0).predict(torch.zeros(1, 1).double())
    assert prediction.interpolation is Interpolation.EXPONENTIAL
    rates = prediction.at([1.2, 2.0, 2.9]).hazard_rate[0]
    torch.testing.assert_close(rates, rates[:1].expand(3))
    torch.testing.assert_close(rates[0], torch.tensor(0.5).double().sigmoid().neg().log1p().neg() / 2)


def test_risk_is_minus_the_restricted_mean() -> None:
    embedding = torch.zeros(1, 1).double()
    head = with_bias(-1.0, 0.5, 0.0)
    torch.testing.assert_close(head.risk(embedding), -head.predict(embedding).restricted_mean(7.0))
    assert with_bias(-900.0, -900.0, -900.0).risk(embedding).tolist() == [-7.0]


def test_hazards_near_certainty_keep_the_curve_above_zero_in_logarithms() -> None:
    head = with_bias(1e4, -1e4, 1e4).float()
    prediction = head.predict(torch.zeros(1, 1))
    assert prediction.log_survival.tolist() == [[-1e4, -1e4, -2e4]]
    assert not bool(torch.isnan(prediction.hazard_rate).any())


def test_fitted_without_covariates_it_is_kaplan_meier_at_the_edges() -> None:
    generator = np.random.default_rng(5)
    wait, end = generator.exponential(3, 400), 7.0
    # Censored at edges only, so that no credit rule matters.
    leave = generator.choice([1.0, 3.0, end], 400)
    outcome = SurvivalOutcome.from_arrays(np.minimum(wait, leave), wait < leave, "months")
    head = LogisticHazard(1, GRID).double()
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=100, tolerance_grad=1e-10, tolerance_change=1e-14)

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        total = head.loss(torch.zeros(400, 1).double(), outcome).mean()
        total.backward()
        return total

    optimiser.step(step)
    curve = kaplan_meier(outcome)
    found = head.predict(torch.zeros(1, 1).double()).survival[0].detach().numpy()
    np.testing.assert_allclose(found, curve.at(np.array([1.0, 3.0, 7.0])), atol=1e-4)


def test_a_network_must_have_one_output_per_interval() -> None:
    with pytest.raises(InvalidValueError, match=r"to \(instances, 3\)"):
        LogisticHazard(2, GRID, network=nn.Linear(2, 4)).predict(torch.zeros(4, 2))
    with pytest.raises(InvalidValueError, match="`in_features`"):
        LogisticHazard(0, GRID)


def test_an_outcome_in_another_unit_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="unit"):
        LogisticHazard(1, GRID).loss(torch.zeros(1, 1), SurvivalOutcome.from_arrays([1.0], [1], "days"))
