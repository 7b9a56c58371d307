"""Laws of a prediction that tells causes apart."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.prediction import Interpolation, SurvivalPrediction

every_rule = pytest.mark.parametrize("rule", list(Interpolation))


def prediction(rule=Interpolation.LINEAR, causes=2, rows=3, seed=0, knots=5):
    generator = torch.Generator().manual_seed(seed)
    mass = torch.rand((causes * knots + 1, rows), generator=generator, dtype=torch.float64)
    mass = (mass / mass.sum(0))[:-1].reshape(causes, knots, rows).transpose(1, 2)
    times = torch.rand(knots, generator=generator, dtype=torch.float64).add(0.1).cumsum(0)
    return CompetingRisksPrediction(times, mass.cumsum(2), rule, "years")


@every_rule
def test_incidences_and_survival_sum_to_1_at_every_time(rule):
    asked = np.linspace(0.05, float(prediction(rule).times[-1]), 37)
    there = prediction(rule).at(asked)
    total = there.cumulative_incidence.sum(0) + there.overall().survival
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


@every_rule
def test_asking_at_the_knots_gives_the_knots(rule):
    whole = prediction(rule)
    torch.testing.assert_close(whole.at(whole.times).cumulative_incidence, whole.cumulative_incidence)


@every_rule
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), causes=st.integers(1, 4))
def test_incidences_never_fall(rule, seed, causes):
    whole = prediction(rule, causes, seed=seed)
    asked = torch.linspace(0.01, float(whole.times[-1]), 101, dtype=torch.float64)
    assert bool((whole.at(asked).cumulative_incidence.diff(dim=2) >= -1e-15).all())


@every_rule
def test_one_cause_is_a_survival_prediction(rule):
    whole = prediction(rule, causes=1)
    single = SurvivalPrediction(whole.times, torch.log1p(-whole.incidence(1)), rule, "years")
    asked = torch.linspace(0.05, float(whole.times[-1]), 29, dtype=torch.float64)
    torch.testing.assert_close(whole.at(asked).incidence(1), 1 - single.at(asked).survival)
    horizon = float(whole.times[3]) - 0.02
    lost = whole.restricted_mean_time_lost(horizon, 1)
    torch.testing.assert_close(lost, horizon - single.restricted_mean(horizon))


@every_rule
def test_time_lost_is_the_area_under_the_incidence(rule):
    whole = prediction(rule)
    horizon = float(whole.times[-1]) * 0.9
    fine = torch.linspace(0, horizon, 200_001, dtype=torch.float64)[1:]
    values = whole.at(fine).incidence(2)
    area = values.mean(1) * horizon  # a Riemann sum by another route
    torch.testing.assert_close(whole.restricted_mean_time_lost(horizon, 2), area, rtol=1e-4, atol=1e-5)


def test_cause_specific_hazards_give_the_mass_back():
    whole = prediction()
    before = torch.cat([torch.ones(3, 1, dtype=torch.float64), whole.overall().survival[:, :-1]], 1)
    torch.testing.assert_close(whole.hazard * before, whole.pmf)


def test_all_mass_spent_gives_no_nan():
    mass = torch.tensor([[[0.5, 0.5, 0.0]], [[0.0, 0.0, 0.0]]], dtype=torch.float64)
    whole = CompetingRisksPrediction(
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), mass.cumsum(2), Interpolation.EXPONENTIAL, "years"
    )
    there = whole.at([0.5, 1.5, 2.0, 2.5, 3.0])
    assert bool(torch.isfinite(there.cumulative_incidence).all())
    assert float(there.incidence(1)[0, -1]) == pytest.approx(1.0)


def test_rows_device_and_detach_keep_everything():
    whole = prediction()
    part = whole[[2, 0]].to("cpu").detach()
    torch.testing.assert_close(part.cumulative_incidence, whole.cumulative_incidence[:, [2, 0]])
    assert (len(part), part.n_causes, part.unit) == (2, 2, "years")
    horizon = float(whole.times[2])
    torch.testing.assert_close(part.risk(horizon, 2), whole.incidence(2)[[2, 0], 2])


def test_gradients_pass_through_a_question_between_knots():
    times = torch.tensor([1.0, 2.0], dtype=torch.float64)
    mass = torch.tensor([[[0.2, 0.1]], [[0.1, 0.3]]], dtype=torch.float64, requires_grad=True)

    def asked(mass):
        whole = CompetingRisksPrediction(times, mass.cumsum(2), Interpolation.EXPONENTIAL, "years")
        return whole.at([0.4, 1.7]).cumulative_incidence

    assert torch.autograd.gradcheck(asked, mass)


@pytest.mark.parametrize(
    ("incidence", "message"),
    [
        ([[[0.3, 0.2]]], "never fall"),
        ([[[0.6, 0.7]], [[0.3, 0.5]]], "sum to at most 1"),
        ([[[float("nan"), 0.2]]], "NaN"),
        ([[[0.3]]], "one column per time"),
    ],
)
def test_impossible_incidences_are_refused(incidence, message):
    times = torch.tensor([1.0, 2.0], dtype=torch.float64)
    with pytest.raises(InvalidValueError, match=message):
        CompetingRisksPrediction(times, torch.tensor(incidence, dtype=torch.float64), Interpolation.STEP, "years")


def test_a_cause_that_is_not_there_is_refused():
    with pytest.raises(InvalidValueError, match=r"`cause` must lie in 1 .. 2; got 3"):
        prediction().incidence(3)
