"""Every target says what its formula says, and refuses curves it cannot speak of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.targets import (
    Scope,
    cumulative_hazard,
    density,
    hazard_rate,
    incidence_of,
    log_hazard_rate,
    restricted_mean,
    risk_at,
    survival,
    survival_quantile,
    time_lost_to,
)

KNOTS = torch.tensor([1.0, 2.5, 4.0, 7.0], dtype=torch.float64)
LOG_S = torch.tensor([[-0.1, -0.4, -0.4, -1.5], [-0.5, -0.6, -2.0, -3.0]], dtype=torch.float64)
INCIDENCE = torch.tensor([[[0.1, 0.2, 0.2, 0.4]], [[0.0, 0.1, 0.3, 0.35]]], dtype=torch.float64)
TIMES = torch.tensor([0.4, 1.7, 3.0, 6.9], dtype=torch.float64)
RULES = (Interpolation.LINEAR, Interpolation.EXPONENTIAL)


@dataclass
class Known:
    """Curves that are given."""

    rule: Interpolation = Interpolation.EXPONENTIAL
    rate: torch.Tensor | None = None

    def survival(self, times=None):
        curves = SurvivalPrediction(KNOTS, LOG_S, self.rule, "months", self.rate)
        return curves if times is None else curves.at(times)

    def incidence(self, times=None):
        curves = CompetingRisksPrediction(KNOTS, INCIDENCE, Interpolation.LINEAR, "months")
        return curves if times is None else curves.at(times)


def curve(row, rule):
    """S(t) of a row as a function, by the definition of the rule."""
    knots, log_s = np.append(0, KNOTS), np.append(0, LOG_S[row])
    if rule is Interpolation.LINEAR:
        return lambda t: np.interp(t, knots, np.exp(log_s))
    if rule is Interpolation.EXPONENTIAL:
        return lambda t: np.exp(np.interp(t, knots, log_s))
    return lambda t: np.exp(log_s[np.searchsorted(knots, t, side="right") - 1])


def near(found, wanted, tolerance=1e-9):
    np.testing.assert_allclose(found.numpy(), np.asarray(wanted), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rule", [*RULES, Interpolation.STEP])
def test_survival_and_cumulative_hazard_follow_the_curve(rule):
    wanted = np.array([[curve(row, rule)(time) for time in TIMES.tolist()] for row in range(2)])
    near(survival(Known(rule), TIMES), wanted)
    near(cumulative_hazard(Known(rule), TIMES), -np.log(wanted))
    assert torch.equal(survival.axis(TIMES), TIMES)


def test_hazard_rates_are_the_rise_of_the_cumulative_hazard_between_knots():
    """Over the interval that a time lies in: the knot on its right belongs to it."""
    rise = np.diff(np.column_stack([np.zeros(2), -LOG_S.numpy()]), axis=1) / np.diff(np.append(0, KNOTS.numpy()))
    at = np.searchsorted(KNOTS.numpy(), TIMES.numpy())
    near(hazard_rate(Known(Interpolation.STEP), TIMES), rise[:, at])
    near(hazard_rate(Known(Interpolation.STEP), KNOTS), rise)
    times = TIMES[[0, 1, 3]]
    near(log_hazard_rate(Known(Interpolation.STEP), times), np.log(rise[:, at[[0, 1, 3]]]))
    near(
        density(Known(Interpolation.STEP), TIMES),
        rise[:, at] * survival(Known(Interpolation.STEP), TIMES).numpy(),
    )


def test_an_exact_rate_of_a_head_goes_before_the_rise_between_knots():
    rate = torch.log(torch.arange(1.0, 9).double().reshape(2, 4))
    known = Known(rate=rate)
    near(log_hazard_rate(known, KNOTS), rate)
    near(hazard_rate(known, KNOTS), rate.exp())
    near(density(known, KNOTS), rate.exp() * survival(known, KNOTS))


def test_the_log_hazard_of_an_interval_without_events_is_refused():
    with pytest.raises(InvalidValueError, match=r"with an event .* got \[3.0\]"):
        log_hazard_rate(Known(Interpolation.STEP), TIMES)
    assert hazard_rate(Known(Interpolation.STEP), TIMES)[0, 2] == 0


@pytest.mark.parametrize("rule", [*RULES, Interpolation.STEP])
@pytest.mark.parametrize("horizon", [0.7, 3.3, 7.0])
def test_sums_over_time_are_integrals_of_the_curve(rule, horizon):
    target = restricted_mean(horizon)
    found = target(Known(rule), TIMES)
    assert found.shape == (2, 1)
    assert target.scope is Scope.WHOLE
    assert target.axis(TIMES).tolist() == [horizon]
    knots = [each for each in KNOTS.tolist() if each < horizon]
    wanted = [[quad(curve(row, rule), 0, horizon, points=knots, limit=200)[0]] for row in range(2)]
    near(found, wanted, 1e-7)
    near(risk_at(horizon)(Known(rule), TIMES), [[1 - curve(row, rule)(horizon)] for row in range(2)])


def test_causes_are_told_apart():
    for cause in (1, 2):
        target = incidence_of(cause)
        assert (target.cause, target.name) == (cause, f"incidence_{cause}")
        wanted = np.interp(TIMES, np.append(0, KNOTS), np.append(0, INCIDENCE[cause - 1, 0]))
        near(target(Known(), TIMES), wanted[None])
        lost = quad(lambda t, c=cause: np.interp(t, np.append(0, KNOTS), np.append(0, INCIDENCE[c - 1, 0])), 0, 5)[0]
        near(time_lost_to(cause, 5.0)(Known(), TIMES), [[lost]], 1e-5)
        assert time_lost_to(cause, 5.0).horizon == 5.0


@pytest.mark.parametrize("rule", RULES)
def test_a_quantile_is_where_the_curve_reaches_it(rule):
    target = survival_quantile(0.5)
    found = target(Known(rule), TIMES)
    near(torch.tensor([curve(row, rule)(float(found[row, 0])) for row in range(2)]), [0.5, 0.5])
    assert torch.isnan(target.axis(TIMES)).all()


def test_a_quantile_that_no_derivative_can_speak_of_is_refused():
    with pytest.raises(InvalidValueError, match="step curve"):
        survival_quantile()(Known(Interpolation.STEP), TIMES)
    with pytest.raises(InvalidValueError, match="got 1 rows that stay above S = 0.2"):
        survival_quantile(0.8)(Known(), TIMES)


def test_targets_with_other_settings_have_other_labels():
    names = {survival_quantile(share).name for share in (0.1, 0.5, 0.1000001)}
    assert names == {"survival_quantile(0.1)", "survival_quantile(0.5)", "survival_quantile(0.1000001)"}
    for build in (restricted_mean, risk_at, lambda horizon: time_lost_to(1, horizon)):
        assert not torch.equal(build(5.0).axis(TIMES), build(6.0).axis(TIMES))
    assert survival_quantile().has_kinks
    assert not restricted_mean(5.0).has_kinks
