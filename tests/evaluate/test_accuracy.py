import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import censoring_survival, kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.accuracy import NullModel, brier_score, integrated_brier_score, integrated_ipa


@st.composite
def cases(draw: st.DrawFn) -> tuple[SurvivalPrediction, SurvivalOutcome]:
    """Curves to time 12 and tied outcomes up to 10, of which at least the last is an event."""
    n = draw(st.integers(2, 20))
    time = draw(st.lists(st.integers(1, 10), min_size=n, max_size=n))
    event = draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=n, max_size=n))
    time[0], event[0] = 10, 1
    falls = draw(st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.7]), min_size=4, max_size=4), min_size=n, max_size=n))
    log_survival = -torch.tensor(falls, dtype=torch.float64).cumsum(1)
    rule = draw(st.sampled_from(list(Interpolation)))
    prediction = SurvivalPrediction(torch.tensor([1.0, 2.5, 6.0, 12.0]).double(), log_survival, rule, "months")
    return prediction, SurvivalOutcome.from_arrays(np.array(time, dtype=float), event, "months")


def slow_brier(survival: np.ndarray, outcome: SurvivalOutcome, at: float, training: SurvivalOutcome) -> float:
    """One row after the other."""
    censoring = censoring_survival(training)
    total = 0.0
    for probability, time, event in zip(survival, *outcome.numpy(), strict=True):
        if time > at:
            total += (1 - probability) ** 2 / float(censoring.at(at))
        elif event > 0:
            total += probability**2 / float(censoring.before(time))
    return total / len(outcome)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_brier_equals_the_sum_over_rows_with_tied_times(case):
    prediction, outcome = case
    times = np.array([0.5, 1.0, 2.0, 2.5, 7.0, 9.0])
    curve = brier_score(prediction, outcome, times, training=outcome)
    null = kaplan_meier(outcome).at(times)
    for k, at in enumerate(times):
        own = prediction.at([at]).survival[:, 0].numpy()
        assert curve.values[k] == pytest.approx(slow_brier(own, outcome, at, outcome), abs=1e-12)
        assert curve.null_values[k] == pytest.approx(
            slow_brier(np.full(len(outcome), null[k]), outcome, at, outcome), abs=1e-12
        )


@settings(max_examples=25, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(case, random):
    prediction, outcome = case
    rows = list(range(len(outcome)))
    random.shuffle(rows)
    grid = [1.0, 2.0, 5.5, 9.0]
    first = integrated_brier_score(prediction, outcome, training=outcome, times=grid)
    second = integrated_brier_score(prediction[rows], outcome[rows], training=outcome, times=grid)
    assert first.value == pytest.approx(second.value, abs=1e-13)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_integral_is_the_trapezoid_over_the_stated_grid(case):
    prediction, outcome = case
    time = outcome.numpy()[0]
    grid = np.unique(np.append(time[time < 8.5], 8.5))
    if len(grid) < 2:
        with pytest.raises(InvalidValueError, match="at least two times"):
            integrated_brier_score(prediction, outcome, training=outcome, horizon=8.5)
        return
    score = integrated_brier_score(prediction, outcome, training=outcome, horizon=8.5)
    values = brier_score(prediction, outcome, grid, training=outcome).values
    assert score.value == pytest.approx(np.trapezoid(values, grid) / (grid[-1] - grid[0]), abs=1e-13)
    assert (score.settings["from"], score.settings["horizon"], score.settings["n_times"]) == (grid[0], 8.5, len(grid))


@settings(max_examples=25, deadline=None)
@given(cases())
def test_kaplan_meier_itself_has_an_ipa_of_zero(case):
    _, outcome = case
    curve = kaplan_meier(outcome)
    alike = torch.log(torch.from_numpy(curve.survival).clamp(min=1e-300)).repeat(len(outcome), 1)
    prediction = SurvivalPrediction(torch.from_numpy(curve.times), alike, Interpolation.STEP, "months")
    result = brier_score(prediction, outcome, [4.0, 9.0], training=outcome)
    assert np.nan_to_num(result.ipa) == pytest.approx(np.zeros(2), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_blocks_do_not_change_the_score(case):
    prediction, outcome = case
    times = np.linspace(0.5, 9.5, 19)
    whole = brier_score(prediction, outcome, times, training=outcome).values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("survlens.evaluate.squared_errors._BLOCK", 3 * len(outcome))
        assert brier_score(prediction, outcome, times, training=outcome).values == pytest.approx(whole, abs=1e-15)


def perfect(outcome: SurvivalOutcome) -> SurvivalPrediction:
    knots = torch.unique(outcome.time)
    alive = outcome.time[:, None] > knots
    return SurvivalPrediction(knots, torch.where(alive, 0.0, -torch.inf).double(), Interpolation.STEP, outcome.unit)


def test_foresight_scores_zero_and_ipa_one():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1], "months")
    curve = brier_score(perfect(outcome), outcome, [1.0, 2.5], training=outcome)
    assert curve.values.tolist() == [0.0, 0.0]
    assert curve.ipa.tolist() == [1.0, 1.0]
    assert integrated_ipa(perfect(outcome), outcome, training=outcome).value == 1.0


def test_scoring_leaves_the_prediction_as_it_was():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 0, 1], "months")
    prediction = SurvivalPrediction(
        torch.tensor([1.0, 2.0]).double(), -torch.rand(3, 2).double().cumsum(1), Interpolation.STEP, "months"
    )
    before = prediction.log_survival.clone()
    brier_score(prediction, outcome, prediction.times, training=outcome)
    assert torch.equal(prediction.log_survival, before)


def test_tied_times_do_not_bias_the_score():
    """Known truth without censoring, times in whole months; weighting events by 1/G(T) overstates by over 10 %."""
    rng = np.random.default_rng(2)
    n = 40_000
    life = np.ceil(rng.exponential(4, n))
    cut = np.ceil(rng.exponential(4, n))
    prediction = SurvivalPrediction(
        torch.arange(1.0, 40.0).double(), -torch.arange(1.0, 40.0).double().repeat(n, 1) / 4, Interpolation.STEP, "m"
    )
    uncensored = SurvivalOutcome.from_arrays(life, np.ones(n, int), "m")
    outcome = SurvivalOutcome.from_arrays(np.minimum(life, cut), life <= cut, "m")
    truth = brier_score(prediction, uncensored, [4.0], training=uncensored).values[0]
    assert brier_score(prediction, outcome, [4.0], training=outcome).values[0] == pytest.approx(truth, rel=0.01)


def test_null_model_of_training_rows_is_their_kaplan_meier():
    training = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 6.0], [1, 1, 1, 0], "months")
    outcome = SurvivalOutcome.from_arrays([4.0, 4.0, 5.0, 5.0], [1, 0, 1, 1], "months")
    curve = brier_score(perfect(outcome), outcome, [4.5], training=training, null_model=NullModel.TRAINING)
    assert curve.null_values[0] == pytest.approx(slow_brier(np.full(4, 0.25), outcome, 4.5, training))
    assert curve.ipa_score(4.5).settings["null_model"] == "Kaplan-Meier of the training rows"


def test_times_outside_the_follow_up_are_refused_with_the_legal_range():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0], [1, 0, 1, 0], "months")
    ends_censored = SurvivalOutcome.from_arrays([1.0, 2.0, 3.5], [1, 1, 0], "months")
    prediction = perfect(outcome)
    with pytest.raises(InvalidValueError, match=r"\(0, 3\.5\) months.*got 3\.5.*earlier"):
        brier_score(prediction, outcome, [1.0, 3.5], training=ends_censored)
    with pytest.raises(InvalidValueError, match=r"\(0, 4\) months.*got 5"):
        brier_score(prediction, outcome, [1.0, 5.0], training=outcome)
    with pytest.raises(InvalidValueError, match=r"increase strictly"):
        brier_score(prediction, outcome, [2.0, 1.0], training=outcome)
    with pytest.raises(InvalidValueError, match=r"must not both"):
        integrated_brier_score(prediction, outcome, training=outcome, times=[1.0, 2.0], horizon=3.0)
    short = SurvivalPrediction(torch.tensor([2.0]).double(), -torch.ones(4, 1).double(), Interpolation.STEP, "months")
    with pytest.raises(InvalidValueError, match=r"\(0, 2\] months, the predicted range; got 3.*horizon=2"):
        brier_score(short, outcome, [3.0], training=outcome)
    with pytest.raises(InvalidValueError, match=r"two times to integrate"):
        integrated_brier_score(prediction, outcome, training=outcome, times=[2.0])


def test_follow_up_that_ends_in_censoring_never_divides_by_zero():
    """G is 0 at the end: the default horizon stops before, and no weight is infinite."""
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 3.0], [1, 1, 0, 0], "months")
    score = integrated_brier_score(perfect(outcome), outcome, training=outcome)
    assert score.settings["horizon"] == 2.0
    assert math.isfinite(score.value)


def test_ipa_before_any_event_is_undefined_with_a_reason():
    outcome = SurvivalOutcome.from_arrays([3.0, 4.0], [1, 1], "months")
    score = brier_score(perfect(outcome), outcome, [1.0], training=outcome).ipa_score(1.0)
    assert math.isnan(score.value)
    assert "no event" in str(score.settings["undefined"])


def test_equals_scikit_survival_without_tied_times():
    metrics = pytest.importorskip("sksurv.metrics")
    rng = np.random.default_rng(8)
    time, event = rng.exponential(5, 200), rng.integers(0, 2, 200)
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    knots = np.sort(rng.uniform(0.5, np.quantile(time, 0.9), 20))
    prediction = SurvivalPrediction(
        torch.from_numpy(knots),
        -torch.outer(torch.from_numpy(rng.exponential(0.2, 200)), torch.from_numpy(knots)),
        Interpolation.STEP,
        "months",
    )
    records = np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", bool), ("time", float)])
    survival = prediction.survival.numpy()
    theirs = metrics.brier_score(records, records, survival, knots)[1]
    assert brier_score(prediction, outcome, knots, training=outcome).values == pytest.approx(theirs, abs=1e-12)
    integral = metrics.integrated_brier_score(records, records, survival, knots)
    ours = integrated_brier_score(prediction, outcome, training=outcome, times=knots)
    assert ours.value == pytest.approx(integral, abs=1e-12)
