import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import censoring_survival
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.discrimination import cumulative_dynamic_auc


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, SurvivalOutcome]:
    n = draw(st.integers(2, 20))
    time = draw(st.lists(st.integers(1, 10), min_size=n, max_size=n))
    event = draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=n, max_size=n))
    time[0], event[0] = 10, 1
    risk = draw(st.lists(st.integers(-2, 2), min_size=n, max_size=n))
    return np.array(risk, dtype=float), SurvivalOutcome.from_arrays(np.array(time, dtype=float), event, "months")


@settings(max_examples=25, deadline=None)
@given(cases())
def test_auc_equals_the_double_sum(case):
    risk, outcome = case
    times = [1.0, 3.5, 6.0, 9.0]
    censoring = censoring_survival(outcome)
    curve = cumulative_dynamic_auc(risk, outcome, times, training=outcome)
    time, event = outcome.numpy()
    for k, at in enumerate(times):
        won = total = 0.0
        for i in np.flatnonzero((time <= at) & (event > 0)):
            for j in np.flatnonzero(time > at):
                weight = 1 / float(censoring.before(time[i])) / float(censoring.at(at))
                won += weight * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
                total += weight
        expected = won / total if total else math.nan
        assert curve.values[k] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_curves_and_their_risk_give_one_auc(case):
    risk, outcome = case
    hazard = torch.outer(torch.from_numpy(np.exp(risk)), torch.tensor([0.1, 0.5, 1.0]).double())
    knots = torch.tensor([1.0, 5.0, 10.0]).double()
    prediction = SurvivalPrediction(knots, -hazard, Interpolation.EXPONENTIAL, "months")
    by_curve = cumulative_dynamic_auc(prediction, outcome, [2.0, 7.0], training=outcome).values
    by_risk = cumulative_dynamic_auc(risk, outcome, [2.0, 7.0], training=outcome).values
    assert by_curve == pytest.approx(by_risk, abs=1e-14, nan_ok=True)


def test_nobody_to_compare_is_undefined_with_a_reason():
    outcome = SurvivalOutcome.from_arrays([2.0, 3.0], [1, 1], "months")
    curve = cumulative_dynamic_auc([0.0, 1.0], outcome, [1.0, 3.0], training=outcome)
    for at in (1.0, 3.0):
        assert math.isnan(curve.score(at).value)
        assert "no event" in str(curve.score(at).settings["undefined"])


def test_times_past_the_follow_up_are_refused():
    outcome = SurvivalOutcome.from_arrays([2.0, 3.0], [1, 1], "months")
    with pytest.raises(InvalidValueError, match=r"\(0, 3\] months"):
        cumulative_dynamic_auc([0.0, 1.0], outcome, [4.0], training=outcome)
    with pytest.raises(InvalidValueError, match=r"one of the curve's times"):
        cumulative_dynamic_auc([0.0, 1.0], outcome, [2.0], training=outcome).score(2.5)


def test_equals_scikit_survival_without_tied_times():
    metrics = pytest.importorskip("sksurv.metrics")
    rng = np.random.default_rng(9)
    time, event, risk = rng.exponential(5, 250), rng.integers(0, 2, 250), np.round(rng.normal(size=250), 1)
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    records = np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", bool), ("time", float)])
    at = np.quantile(time, [0.2, 0.5, 0.8])
    theirs = metrics.cumulative_dynamic_auc(records, records, risk, at)[0]
    assert cumulative_dynamic_auc(risk, outcome, at, training=outcome).values == pytest.approx(theirs, abs=1e-10)


def test_weights_count_rows_as_often_as_they_say():
    rng = np.random.default_rng(8)
    time, event, times = rng.integers(1, 9, 60).astype(float), rng.integers(0, 2, 60), rng.integers(1, 4, 60)
    risk, rows = rng.integers(0, 6, 60).astype(float), np.repeat(np.arange(60), times)
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    weighted = SurvivalOutcome.from_arrays(time, event, "months", weight=times.astype(float))
    found = cumulative_dynamic_auc(risk, weighted, [2.0, 5.0], training=outcome)
    repeated = cumulative_dynamic_auc(risk[rows], outcome[rows], [2.0, 5.0], training=outcome)
    assert found.values == pytest.approx(repeated.values, abs=1e-12)
