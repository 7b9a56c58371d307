import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import censoring_survival
from survlens.core.outcome import SurvivalOutcome
from survlens.core.pair_counts import pair_counts
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.concordance import (
    concordance_index,
    concordance_index_antolini,
    concordance_index_ipcw,
    reweighted_concordance_antolini,
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, SurvivalOutcome]:
    """Risks and outcome of 1 to 25 rows with many ties and any amount of censoring."""
    n = draw(st.integers(1, 25))
    time = draw(st.lists(st.integers(1, 8), min_size=n, max_size=n))
    event = draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=n, max_size=n))
    risk = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    return np.array(risk, dtype=float), SurvivalOutcome.from_arrays(np.array(time, dtype=float), event, "months")


def pairs(time: np.ndarray, event: np.ndarray, horizon: float = math.inf):
    """Every comparable pair (earlier event, longer life), one by one."""
    died = (event > 0) & (time <= horizon)
    for i, j in itertools.permutations(range(len(time)), 2):
        if died[i] and (time[i] < time[j] or (time[i] == time[j] and not died[j])):
            yield i, j


def slow_counts(risk, outcome, horizon=math.inf, weight=None):
    time, event = outcome.numpy()
    concordant = discordant = tied = 0.0
    for i, j in pairs(time, event, horizon):
        amount = 1.0 if weight is None else weight[i]
        concordant += amount * (risk[i] > risk[j])
        discordant += amount * (risk[i] < risk[j])
        tied += amount * (risk[i] == risk[j])
    return concordant, discordant, tied


def slow_value(counts):
    return (counts[0] + counts[2] / 2) / sum(counts) if sum(counts) else math.nan


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([None, 3.0, 5.5]))
def test_fast_counts_equal_counting_every_pair(case, horizon):
    risk, outcome = case
    expected = slow_counts(risk, outcome, horizon or math.inf)
    score = concordance_index(risk, outcome, horizon=horizon)
    assert tuple(score.settings[name] for name in ("concordant", "discordant", "tied_risk")) == expected
    assert score.value == pytest.approx(slow_value(expected), abs=1e-14, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_tied_events_are_counted_and_not_compared(case):
    risk, outcome = case
    time, event = outcome.numpy()
    tied_time = tied_both = 0
    for i, j in itertools.combinations(range(len(time)), 2):
        if event[i] > 0 and event[j] > 0 and time[i] == time[j]:
            tied_both += risk[i] == risk[j]
            tied_time += risk[i] != risk[j]
    score = concordance_index(risk, outcome)
    assert (score.settings["tied_time"], score.settings["tied_both"]) == (tied_time, tied_both)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_uno_equals_weighting_every_pair(case):
    risk, outcome = case
    censoring = censoring_survival(outcome)
    weight = 1 / np.maximum(censoring.before(outcome.numpy()[0]), 1e-300) ** 2
    expected = slow_value(slow_counts(risk, outcome, weight=weight))
    assert concordance_index_ipcw(risk, outcome, outcome).value == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(case, random):
    risk, outcome = case
    rows = list(range(len(risk)))
    random.shuffle(rows)
    first, second = concordance_index(risk, outcome), concordance_index(risk[rows], outcome[rows])
    assert dict(first.settings) == dict(second.settings)
    assert first.value == second.value or math.isnan(first.value)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_standard_error_is_that_of_deleting_weight_from_each_row(case):
    """The infinitesimal jackknife by numerical differentiation of the weighted concordance."""
    risk, outcome = case
    time, event = outcome.numpy()
    score = concordance_index(risk, outcome, confidence=0.9)
    if math.isnan(score.value):
        return

    def weighted(weights):
        comparable = list(pairs(time, event))
        amounts = np.array([weights[i] * weights[j] for i, j in comparable])
        credit = np.array([(risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]) for i, j in comparable])
        return amounts @ credit / amounts.sum()

    step = 1e-5
    slopes = [
        (weighted(np.ones(len(risk)) + step * row) - weighted(np.ones(len(risk)) - step * row)) / (2 * step)
        for row in np.eye(len(risk))
    ]
    assert score.settings["std_error"] == pytest.approx(float(np.linalg.norm(slopes)), abs=1e-8)
    assert score.interval is not None
    assert score.value in score.interval


def step_prediction(risk, knots, unit="months") -> SurvivalPrediction:
    hazard = torch.outer(torch.as_tensor(np.exp(risk)), torch.as_tensor(knots) / 10)
    return SurvivalPrediction(torch.as_tensor(knots, dtype=torch.float64), -hazard, Interpolation.STEP, unit)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_antolini_of_proportional_hazards_is_harrell(case):
    """With equal survival before the first knot, so the knots start before the first event."""
    risk, outcome = case
    prediction = step_prediction(risk, np.array([0.5, 2.0, 5.0, 8.0]))
    antolini, harrell = concordance_index_antolini(prediction, outcome), concordance_index(risk, outcome)
    assert antolini.value == pytest.approx(harrell.value, abs=1e-14, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(list(Interpolation)), st.integers(0, 2**16))
def test_antolini_equals_asking_each_curve_at_each_event(case, interpolation, seed):
    _, outcome = case
    falls = np.round(np.random.default_rng(seed).exponential(0.2, (len(outcome), 4)), 1)
    log_survival = torch.from_numpy(-np.cumsum(falls, axis=1))
    prediction = SurvivalPrediction(torch.tensor([1.5, 3.0, 5.0, 8.0]).double(), log_survival, interpolation, "months")
    time, event = outcome.numpy()
    counts = [0.0, 0.0, 0.0]
    for i, j in pairs(time, event):
        own, other = prediction.at([time[i]]).log_survival[[i, j], 0].tolist()
        counts[0 if own < other else 1 if own > other else 2] += 1
    assert concordance_index_antolini(prediction, outcome).value == pytest.approx(
        slow_value(counts), abs=1e-12, nan_ok=True
    )


def test_antolini_gives_ties_half_credit():
    """pycox gives equal survival no credit: a model that says the same for everyone must score 0.5."""
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 1, 0], "months")
    assert concordance_index_antolini(step_prediction(np.zeros(3), np.array([0.5, 4.0])), outcome).value == 0.5
    assert concordance_index(np.zeros(3), outcome).value == 0.5


def test_blocks_do_not_change_antolini(monkeypatch):
    rng = np.random.default_rng(3)
    outcome = SurvivalOutcome.from_arrays(rng.integers(1, 30, 80).astype(float), rng.integers(0, 2, 80), "months")
    prediction = step_prediction(rng.normal(size=80), np.arange(1.0, 31.0))
    whole = concordance_index_antolini(prediction, outcome)
    monkeypatch.setattr("survlens.evaluate.curve_columns._BLOCK", 200)
    assert concordance_index_antolini(prediction, outcome) == whole


def test_sign_of_the_risk_mirrors_the_concordance():
    rng = np.random.default_rng(0)
    risk = np.round(rng.normal(size=300), 1)
    outcome = SurvivalOutcome.from_arrays(rng.integers(1, 40, 300).astype(float), rng.integers(0, 2, 300), "months")
    total = concordance_index(risk, outcome).value + concordance_index(-risk, outcome).value
    assert total == pytest.approx(1.0, abs=1e-14)


def test_risks_keep_every_digit():
    """A cast to float32 ties risks that differ in the ninth digit and moves the value."""
    risk = 1 + np.arange(200) * 1e-12
    outcome = SurvivalOutcome.from_arrays(np.arange(200, 0, -1).astype(float), np.ones(200, int), "months")
    assert concordance_index(risk, outcome).value == 1.0
    assert concordance_index(torch.from_numpy(risk), outcome).value == 1.0


def test_no_comparable_pair_is_undefined_with_a_reason():
    for time, event in (([1.0, 2.0], [0, 0]), ([2.0, 2.0], [1, 1]), ([3.0], [1])):
        score = concordance_index(np.zeros(len(time)), SurvivalOutcome.from_arrays(time, event, "months"))
        assert math.isnan(score.value)
        assert "comparable" in str(score.settings["undefined"])


def test_bad_inputs_are_named():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 1, 0], "months")
    with pytest.raises(InvalidValueError, match=r"one length; got 2 and 3"):
        concordance_index(np.zeros(2), outcome)
    with pytest.raises(InvalidValueError, match=r"NaN at position 1"):
        concordance_index([0.0, math.nan, 1.0], outcome)
    with pytest.raises(InvalidValueError, match=r"`horizon` must be > 0"):
        concordance_index(np.zeros(3), outcome, horizon=0.0)
    with pytest.raises(InvalidValueError, match=r"one unit"):
        concordance_index_ipcw(np.zeros(3), outcome, SurvivalOutcome.from_arrays([1.0], [1], "days"))
    short = SurvivalOutcome.from_arrays([1.0, 1.5], [1, 0], "months")
    with pytest.raises(InvalidValueError, match=r"Pass horizon=1\.5"):
        concordance_index_ipcw(np.zeros(3), outcome, short)
    with pytest.raises(InvalidValueError, match=r"Pass horizon=1\.5"):
        concordance_index_antolini(step_prediction(np.zeros(3), np.array([1.0, 1.5])), outcome)


def test_equals_scikit_survival_without_ties_of_events_and_censorings():
    """With such ties its censoring weights are taken at T, ours and R's just before T; its horizon excludes its end."""
    metrics = pytest.importorskip("sksurv.metrics")
    rng = np.random.default_rng(5)
    time, event, risk = rng.exponential(5, 300), rng.integers(0, 2, 300), np.round(rng.normal(size=300), 1)
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    records = np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", bool), ("time", float)])
    horizon = float(np.quantile(time, 0.8)) + 1e-9
    theirs = metrics.concordance_index_censored(event.astype(bool), time, risk)
    assert concordance_index(risk, outcome).value == pytest.approx(theirs[0], abs=1e-12)
    uno = metrics.concordance_index_ipcw(records, records, risk, tau=horizon)[0]
    assert concordance_index_ipcw(risk, outcome, outcome, horizon=horizon).value == pytest.approx(uno, abs=1e-12)


def test_uno_is_less_moved_by_censoring_than_harrell():
    """Known truth: the concordance up to a horizon without censoring; heavy censoring biases Harrell's, not Uno's."""
    rng = np.random.default_rng(11)
    n = 20_000
    risk = rng.normal(size=n)
    life = rng.weibull(0.6, n) * np.exp(-2.5 * risk)
    horizon = float(np.quantile(life, 0.6))
    truth = concordance_index(risk, SurvivalOutcome.from_arrays(life, np.ones(n, int), "months"), horizon=horizon).value
    cut = rng.exponential(horizon / 3, n) + 1e-9
    outcome = SurvivalOutcome.from_arrays(np.minimum(life, cut), life <= cut, "months")
    harrell = concordance_index(risk, outcome, horizon=horizon).value
    uno = concordance_index_ipcw(risk, outcome, outcome, horizon=horizon).value
    assert abs(uno - truth) < 0.01
    assert abs(harrell - truth) > 2 * abs(uno - truth)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_two_routes_count_the_same_pairs(case):
    """`score` of the estimators counts by merging in core, this by a tree; they must never differ."""
    risk, outcome = case
    counts, score = pair_counts(risk, outcome), concordance_index(risk, outcome)
    names = ("concordant", "discordant", "tied_risk", "tied_time", "tied_both")
    assert [score.settings[name] for name in names] == [getattr(counts, name) for name in names]


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from(list(Interpolation)), st.integers(0, 100))
def test_weights_count_rows_as_often_as_they_say(case, interpolation, seed):
    """Whole weights are repeated rows, for every concordance."""
    risk, outcome = case
    times = np.random.default_rng(seed).integers(1, 4, len(risk))
    rows = np.repeat(np.arange(len(risk)), times)
    weighted = SurvivalOutcome.from_arrays(outcome.time, outcome.event, "months", weight=times.astype(float))
    prediction = crossing_curves(len(risk), seed, interpolation)
    training = SurvivalOutcome.from_arrays([20.0, 6.0, 3.0], [0, 0, 0], "months")
    for score, judged, settings_ in (
        (concordance_index, risk, {}),
        (concordance_index_ipcw, risk, {"training": training}),
        (concordance_index_antolini, prediction, {}),
    ):
        found = score(judged, weighted, **settings_).value
        assert found == pytest.approx(score(judged[rows], outcome[rows], **settings_).value, abs=1e-12, nan_ok=True)


def crossing_curves(n: int, seed: int, interpolation: Interpolation) -> SurvivalPrediction:
    """Curves that cross, with equal values among them, up to 9 months."""
    rng = np.random.default_rng(seed)
    knots = torch.tensor([0.5, 2.0, 3.0, 5.5, 9.0], dtype=torch.float64)
    fall = torch.from_numpy(rng.integers(0, 3, (n, 5)) / 4)
    return SurvivalPrediction(knots, -fall.cumsum(1), interpolation, "months")


def test_ranking_at_a_knot_counts_what_comparing_with_each_event_counts(monkeypatch):
    risk = np.random.default_rng(3).integers(0, 9, 500).astype(float)
    time = np.random.default_rng(4).integers(1, 9, 500).astype(float)
    outcome = SurvivalOutcome.from_arrays(time, np.random.default_rng(5).integers(0, 2, 500), "months")
    prediction = crossing_curves(len(risk), 6, Interpolation.STEP)
    compared = concordance_index_antolini(prediction, outcome)
    monkeypatch.setattr("survlens.evaluate.concordance._MANY", 2)
    assert concordance_index_antolini(prediction, outcome) == compared


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(list(Interpolation)), st.integers(0, 100), st.booleans())
def test_drawn_antolini_is_that_of_the_repeated_rows(case, interpolation, seed, weighted):
    _, outcome = case
    rng = np.random.default_rng(seed)
    if weighted:
        weight = rng.choice([0.5, 0.7, 2.0], len(outcome))
        outcome = SurvivalOutcome.from_arrays(outcome.time, outcome.event, "months", weight=weight)
    prediction = crossing_curves(len(outcome), seed, interpolation)
    draws = rng.integers(0, 3, (4, len(outcome)))
    found = reweighted_concordance_antolini(prediction, outcome, horizon=6.0)(draws)
    for value, draw in zip(found, draws, strict=True):
        rows = np.repeat(np.arange(len(outcome)), draw)
        expected = concordance_index_antolini(prediction[rows], outcome[rows], horizon=6.0).value
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_an_interval_of_weighted_rows_is_left_to_the_bootstrap():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "months", weight=[1.0, 2.0])
    with pytest.raises(InvalidValueError, match="Use `bootstrap`"):
        concordance_index([2.0, 1.0], outcome, confidence=0.95)
