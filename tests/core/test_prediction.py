"""Laws of a prediction that can be asked at any time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.prediction import Interpolation, SurvivalPrediction

every_rule = pytest.mark.parametrize("rule", list(Interpolation))
sloped = pytest.mark.parametrize("rule", [Interpolation.LINEAR, Interpolation.EXPONENTIAL])
few = settings(max_examples=25, deadline=None)


@st.composite
def curves(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Knots and log-survival of a few instances, with flat stretches."""
    steps = draw(st.lists(st.floats(0.05, 10.0), min_size=1, max_size=6))
    rows = draw(st.integers(1, 4))
    fall = draw(
        st.lists(
            st.lists(st.sampled_from([0.0, 1e-7, 0.01, 0.3, 2.0]), min_size=len(steps), max_size=len(steps)),
            min_size=rows,
            max_size=rows,
        )
    )
    return torch.tensor(steps).double().cumsum(0), -torch.tensor(fall).double().cumsum(1)


def prediction_of(curve: tuple[torch.Tensor, torch.Tensor], rule: Interpolation) -> SurvivalPrediction:
    return SurvivalPrediction(*curve, rule, "months")


def simple(rule: Interpolation) -> SurvivalPrediction:
    survival = torch.tensor([[0.8, 0.4, 0.4], [1.0, 0.5, 0.1]], dtype=torch.float64)
    return SurvivalPrediction(torch.tensor([1.0, 3.0, 4.0]).double(), survival.log(), rule, "months")


@every_rule
@few
@given(curve=curves())
def test_the_curve_at_its_knots_is_what_was_stored(rule: Interpolation, curve) -> None:
    prediction = prediction_of(curve, rule)
    again = prediction.at(prediction.times)
    torch.testing.assert_close(again.log_survival, prediction.log_survival, rtol=1e-9, atol=1e-12)


@every_rule
@few
@given(curve=curves(), shares=st.lists(st.integers(1, 97), min_size=1, max_size=8, unique=True))
def test_between_knots_survival_stays_between_their_values(rule: Interpolation, curve, shares: list[int]) -> None:
    prediction = prediction_of(curve, rule)
    asked = torch.tensor(sorted(shares)).double() / 97 * prediction.times[-1]
    found = prediction.at(asked)
    assert bool((found.survival <= 1).all())
    assert bool((found.survival >= prediction.survival[:, -1:] - 1e-12).all())
    assert bool((found.survival.diff(dim=1) <= 1e-12).all())


@every_rule
def test_values_between_knots_follow_the_rule(rule: Interpolation) -> None:
    prediction = simple(rule).at([0.5, 2.0, 3.0, 3.5])
    expected = {
        Interpolation.STEP: [1.0, 0.8, 0.4, 0.4],
        Interpolation.LINEAR: [0.9, 0.6, 0.4, 0.4],
        Interpolation.EXPONENTIAL: [0.8**0.5, (0.8 * 0.4) ** 0.5, 0.4, 0.4],
    }[rule]
    assert prediction.survival[0].tolist() == pytest.approx(expected, rel=1e-12)
    assert prediction.times.tolist() == [0.5, 2.0, 3.0, 3.5]
    assert prediction.unit == "months"


@every_rule
@few
@given(curve=curves())
def test_masses_and_tail_sum_to_1_and_cumulative_hazard_is_minus_log_survival(rule: Interpolation, curve) -> None:
    prediction = prediction_of(curve, rule)
    total = prediction.pmf.sum(1) + prediction.survival[:, -1]
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)
    torch.testing.assert_close(prediction.cumulative_hazard, -prediction.survival.log(), rtol=1e-9, atol=1e-12)
    assert bool(((prediction.hazard >= 0) & (prediction.hazard <= 1)).all())


@every_rule
def test_past_the_last_knot_is_an_error_unless_held(rule: Interpolation) -> None:
    prediction = simple(rule)
    with pytest.raises(InvalidValueError, match=r'`times` must lie in \(0, 4\] months.*got 5.*extrapolate="hold"'):
        prediction.at([1.0, 5.0])
    held = prediction.at([1.0, 5.0, 50.0], extrapolate="hold")
    assert held.survival[0, 1:].tolist() == pytest.approx([0.4, 0.4])
    with pytest.raises(ValueError, match="line"):
        prediction.at([5.0], extrapolate="line")


@every_rule
@few
@given(curve=curves(), probability=st.floats(0.02, 0.98))
def test_quantiles_are_the_first_time_at_or_below_their_level(rule: Interpolation, curve, probability: float) -> None:
    prediction = prediction_of(curve, rule)
    found = prediction.quantile(probability)
    for row, time in enumerate(found.tolist()):
        one = prediction[[row]]
        if np.isinf(time):
            assert float(one.survival[0, -1]) > 1 - probability - 1e-9
            continue
        assert float(one.at([time]).survival[0, 0]) <= 1 - probability + 1e-9
        if time > 1e-6:
            assert float(one.at([time * (1 - 1e-7)]).survival[0, 0]) >= 1 - probability - 1e-6


@every_rule
def test_medians_by_hand(rule: Interpolation) -> None:
    expected = {
        Interpolation.STEP: 3.0,
        Interpolation.LINEAR: 2.5,
        Interpolation.EXPONENTIAL: 1 + 2 * np.log(0.8 / 0.5) / np.log(0.8 / 0.4),
    }[rule]
    median = simple(rule).quantile(0.5)
    assert float(median[0]) == pytest.approx(expected)
    assert simple(rule).quantile(0.7)[0] == torch.inf
    with pytest.raises(InvalidValueError, match="`probability`"):
        simple(rule).quantile(0.0)


@every_rule
@few
@given(curve=curves(), share=st.floats(0.05, 1.0))
def test_restricted_means_are_the_area_under_the_curve(rule: Interpolation, curve, share: float) -> None:
    prediction = prediction_of(curve, rule)
    horizon = float(prediction.times[-1]) * share
    middles = (torch.arange(20_000, dtype=torch.float64) + 0.5) * horizon / 20_000
    area = prediction.at(middles).survival.mean(1) * horizon
    torch.testing.assert_close(prediction.restricted_mean(horizon), area, rtol=2e-4, atol=1e-6)


def test_restricted_means_refuse_horizons_outside_the_curve() -> None:
    for horizon in (0.0, -1.0, 4.1, float("nan")):
        with pytest.raises(InvalidValueError, match=r"`horizon` must lie in \(0, 4\] months"):
            simple(Interpolation.STEP).restricted_mean(horizon)


def test_risk_is_one_minus_survival_at_the_horizon() -> None:
    assert simple(Interpolation.LINEAR).risk(2.0).tolist() == pytest.approx([0.4, 0.25])


@sloped
@few
@given(curve=curves())
def test_hazard_rates_are_the_slope_of_minus_log_survival(rule: Interpolation, curve) -> None:
    prediction = prediction_of(curve, rule)
    starts = torch.nn.functional.pad(prediction.times[:-1], (1, 0))
    middles = (starts + prediction.times) / 2
    step = 1e-6 * (prediction.times - starts)
    rise = prediction.at(middles - step).log_survival - prediction.at(middles + step).log_survival
    torch.testing.assert_close(prediction.at(middles).hazard_rate, rise / (2 * step), rtol=1e-4, atol=1e-6)


def test_a_step_curve_has_no_rate_and_says_what_to_ask_instead() -> None:
    with pytest.raises(InvalidValueError, match="`hazard_rate` must not be asked of a step curve.*cumulative_hazard"):
        _ = simple(Interpolation.STEP).hazard_rate


def test_a_rate_that_the_head_knows_is_used_at_its_knots() -> None:
    plain = simple(Interpolation.EXPONENTIAL)
    rate = torch.full((2, 3), 0.3).double().log()
    prediction = SurvivalPrediction(plain.times, plain.log_survival, plain.interpolation, plain.unit, rate)
    assert prediction.hazard_rate.tolist() == pytest.approx(np.full((2, 3), 0.3))
    asked = prediction.at([2.0, 3.0]).hazard_rate
    assert asked[:, 1].tolist() == pytest.approx([0.3, 0.3])
    assert float(asked[0, 0]) == pytest.approx(np.log(2) / 2)
    assert prediction[[1]].hazard_rate.tolist() == pytest.approx(np.full((1, 3), 0.3))


@every_rule
def test_a_curve_may_reach_zero(rule: Interpolation) -> None:
    times = torch.tensor([1.0, 2.0, 3.0]).double()
    log_survival = torch.tensor([[-0.5, -torch.inf, -torch.inf]]).double()
    prediction = SurvivalPrediction(times, log_survival, rule, "months")
    assert prediction.at([2.0, 2.5]).survival.tolist() == [[0.0, 0.0]]
    assert float(prediction.pmf.sum()) == pytest.approx(1.0)
    assert 1.0 <= float(prediction.quantile(0.99)) <= 2.0
    assert 0.5 < float(prediction.restricted_mean(3.0)) < 2.0


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_curve_far_in_its_tail_can_be_asked_anywhere(rule: Interpolation, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    times = torch.rand(60, generator=generator, dtype=torch.float64).cumsum(0)
    fall = torch.rand((20, 60), generator=generator) * torch.randint(0, 2, (20, 60), generator=generator)
    prediction = SurvivalPrediction(times, (-fall * 1e4).cumsum(1).to(dtype), rule, "months")
    near = torch.cat([times, times[:-1] * (1 + 1e-13), times * (1 - 1e-13), times * 0.99]).sort().values.unique()
    assert bool((prediction.at(near).log_survival <= 0).all())


@every_rule
def test_gradients_pass_through_every_question(rule: Interpolation) -> None:
    times = torch.tensor([1.0, 3.0, 4.0]).double()

    def answers(fall: torch.Tensor) -> torch.Tensor:
        prediction = SurvivalPrediction(times, -fall.cumsum(1), rule, "months")
        asked = prediction.at([0.5, 2.0, 3.7])
        questions = [asked.survival, prediction.pmf, prediction.hazard, prediction.restricted_mean(3.5)[:, None]]
        return torch.cat([*questions, prediction.risk(2.2)[:, None]], 1)

    fall = torch.tensor([[0.3, 0.9, 0.2], [1e-6, 0.4, 1.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(answers, fall)


def test_indexing_detaching_and_numpy_keep_the_curves() -> None:
    prediction = simple(Interpolation.STEP)
    assert len(prediction) == 2
    for rows in ([1], np.array([False, True]), torch.tensor([1]), slice(1, 2)):
        assert torch.equal(prediction[rows].log_survival, prediction.log_survival[1:])
    assert len(prediction[[]]) == 0
    leaf = torch.tensor([[-0.1, -0.2]], requires_grad=True)
    made = SurvivalPrediction(torch.tensor([1.0, 2.0]), leaf * 2, Interpolation.LINEAR, "days")
    assert made.log_survival.requires_grad
    assert not made.detach().log_survival.requires_grad
    times, survival = made.numpy()
    assert (times.dtype, survival.dtype) == (np.float64, np.float64)
    assert torch.equal(made.to("cpu").log_survival, made.log_survival)


@pytest.mark.parametrize(
    ("times", "log_survival", "message"),
    [
        ([1.0, 2.0], [[-0.1]], "one column per time"),
        ([], [[]], "one column per time"),
        ([0.0, 2.0], [[-0.1, -0.2]], "strictly increasing"),
        ([2.0, 2.0], [[-0.1, -0.2]], "strictly increasing"),
        ([1.0, float("inf")], [[-0.1, -0.2]], "finite"),
        ([1.0, 2.0], [[-0.2, -0.1]], "never rise"),
        ([1.0, 2.0], [[0.1, -0.1]], "<= 0"),
        ([1.0, 2.0], [[-0.1, -0.2], [-0.1, float("nan")]], r"NaN in rows \[1\]"),
    ],
)
def test_impossible_curves_are_refused(times: list, log_survival: list, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        SurvivalPrediction(
            torch.tensor(times, dtype=torch.float64),
            torch.tensor(log_survival, dtype=torch.float64),
            Interpolation.STEP,
            "days",
        )


def test_a_rate_of_another_shape_is_refused() -> None:
    plain = simple(Interpolation.LINEAR)
    with pytest.raises(InvalidValueError, match="`log_hazard_rate`"):
        SurvivalPrediction(plain.times, plain.log_survival, plain.interpolation, plain.unit, torch.zeros(2, 2))
