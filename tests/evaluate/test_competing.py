import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.aalen_johansen import cumulative_incidence
from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import censoring_survival, kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation
from survlens.evaluate.accuracy import brier_score, integrated_brier_score
from survlens.evaluate.calibration import observed_expected_ratio
from survlens.evaluate.competing import (
    brier_score_of_cause,
    concordance_index_ipcw_of_cause,
    concordance_index_of_cause,
    cumulative_dynamic_auc_of_cause,
    integrated_brier_score_of_cause,
    observed_expected_ratio_of_cause,
)
from survlens.evaluate.concordance import concordance_index, concordance_index_ipcw
from survlens.evaluate.discrimination import cumulative_dynamic_auc
from survlens.evaluate.incidence import IncidenceRows


@st.composite
def cases(draw: st.DrawFn, causes: int = 2) -> tuple[np.ndarray, SurvivalOutcome]:
    """Risks and outcome of 2 to 20 rows, the last of which is censored after all others."""
    n = draw(st.integers(1, 19))
    time = draw(st.lists(st.integers(1, 7), min_size=n, max_size=n))
    event = draw(st.lists(st.integers(0, causes), min_size=n, max_size=n))
    risk = draw(st.lists(st.integers(-2, 2), min_size=n + 1, max_size=n + 1))
    outcome = SurvivalOutcome.from_arrays(np.array([*time, 8], float), [*event, 0], "months")
    return np.array(risk, float), outcome


def curves(n: int, causes: int, seed: int, interpolation: Interpolation = Interpolation.STEP):
    """Random incidences that reach 9 months."""
    generator = torch.Generator().manual_seed(seed)
    mass = torch.rand((causes, n, 6), generator=generator, dtype=torch.float64)
    share = torch.softmax(mass.permute(1, 0, 2).reshape(n, -1), dim=1).reshape(n, causes, 6).permute(1, 0, 2) * 0.8
    times = torch.tensor([0.5, 2.0, 3.5, 5.0, 7.0, 9.0], dtype=torch.float64)
    return CompetingRisksPrediction(times, share.cumsum(2), interpolation, "months")


def slow_concordance(risk, outcome, cause, horizon, ipcw):
    time, event = outcome.numpy()
    g = censoring_survival(outcome)
    died = (event > 0) & (time <= horizon)
    won = total = 0.0
    for i, j in itertools.permutations(range(len(time)), 2):
        if not (died[i] and event[i] == cause):
            continue
        never = died[j] and event[j] != cause
        outlives = time[j] > time[i] or (time[j] == time[i] and not (died[j] and event[j] == cause))
        if not (never or outlives):
            continue
        amount = 1.0
        if ipcw:
            until = time[j] if never and time[j] < time[i] else time[i]
            amount = 1 / (float(g.before(time[i])) * float(g.before(until)))
        won += amount * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
        total += amount
    return won / total if total else math.nan


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([1, 2]), st.sampled_from([None, 4.0, 5.5]))
def test_concordance_of_a_cause_equals_counting_every_pair(case, cause, horizon):
    risk, outcome = case
    end = math.inf if horizon is None else horizon
    plain = concordance_index_of_cause(risk, outcome, cause, horizon=horizon)
    weighted = concordance_index_ipcw_of_cause(risk, outcome, cause, outcome, horizon=horizon)
    assert plain.value == pytest.approx(slow_concordance(risk, outcome, cause, end, False), abs=1e-12, nan_ok=True)
    assert weighted.value == pytest.approx(slow_concordance(risk, outcome, cause, end, True), abs=1e-12, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(cases(causes=1), st.integers(0, 10**6), st.sampled_from(list(Interpolation)))
def test_one_cause_is_the_single_risk_score(case, seed, interpolation):
    risk, outcome = case
    prediction = curves(len(outcome), 1, seed, interpolation)
    overall, times = prediction.overall(), [1.0, 3.0, 5.5, 7.0]
    pairs = [
        (concordance_index_of_cause(risk, outcome, 1), concordance_index(risk, outcome)),
        (
            concordance_index_ipcw_of_cause(risk, outcome, 1, outcome, horizon=5.5),
            concordance_index_ipcw(risk, outcome, outcome, horizon=5.5),
        ),
        (
            integrated_brier_score_of_cause(prediction, outcome, 1, training=outcome, times=times),
            integrated_brier_score(overall, outcome, training=outcome, times=times),
        ),
        (
            observed_expected_ratio_of_cause(prediction, outcome, 1, 5.0),
            observed_expected_ratio(overall, outcome, 5.0),
        ),
    ]
    for of_cause, single in pairs:
        assert of_cause.value == pytest.approx(single.value, abs=1e-12, nan_ok=True)
    brier = brier_score_of_cause(prediction, outcome, 1, times, training=outcome)
    expected = brier_score(overall, outcome, times, training=outcome)
    assert brier.values == pytest.approx(expected.values, abs=1e-12)
    assert brier.null_values == pytest.approx(expected.null_values, abs=1e-12)
    auc = cumulative_dynamic_auc_of_cause(prediction, outcome, 1, times, training=outcome)
    expected_auc = cumulative_dynamic_auc(overall, outcome, times, training=outcome)
    assert auc.values == pytest.approx(expected_auc.values, abs=1e-12, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([1, 2]), st.integers(0, 10**6), st.sampled_from(list(Interpolation)))
def test_brier_and_auc_of_a_cause_equal_their_sums(case, cause, seed, interpolation):
    _, outcome = case
    prediction = curves(len(outcome), 2, seed, interpolation)
    time, event = outcome.numpy()
    g, times = censoring_survival(outcome), [1.0, 3.0, 5.5]
    brier = brier_score_of_cause(prediction, outcome, cause, times, training=outcome)
    auc = cumulative_dynamic_auc_of_cause(prediction, outcome, cause, times, training=outcome)
    for k, t in enumerate(times):
        risk = prediction.risk(t, cause).numpy()
        weight = [1 / g.before(time[i]) if time[i] <= t else 1 / g.at(t) for i in range(len(time))]
        weight = [0.0 if event[i] == 0 and time[i] <= t else float(weight[i]) for i in range(len(time))]
        happened = (time <= t) & (event == cause)
        assert brier.values[k] == pytest.approx(np.mean(weight * (happened - risk) ** 2), abs=1e-12)
        won = total = 0.0
        for i, j in itertools.permutations(range(len(time)), 2):
            if happened[i] and not happened[j]:
                amount = weight[i] * weight[j]
                won += amount * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
                total += amount
        assert auc.values[k] == pytest.approx(won / total if total else math.nan, abs=1e-9, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(cases(causes=3))
def test_risk_by_a_horizon_is_that_of_the_aalen_johansen_curve(case):
    """Two routes: one pass for many weightings, and the estimator of the core."""
    _, outcome = case
    times = np.array([0.5, 1.0, 3.0, 6.5, 8.0])
    by_rows = [IncidenceRows.of(outcome, t, 2).risk() for t in times]
    curve = cumulative_incidence(outcome, n_causes=3).of_cause(2)
    assert by_rows == pytest.approx(curve.at(times).tolist(), abs=1e-12)


def simulated(n: int, seed: int = 0):
    """Two causes with hazards exp(x) and 1 / 2 exp(-x), independent censoring; true incidences of the first by 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    first, second = np.exp(x), 0.5 * np.exp(-x)
    life = rng.exponential(1 / (first + second))
    cause = np.where(rng.random(n) < first / (first + second), 1, 2)
    cut = rng.exponential(2.0, n)
    event = np.where(life <= cut, cause, 0)
    truth = first / (first + second) * -np.expm1(-(first + second))
    outcome = SurvivalOutcome.from_arrays(np.minimum(life, cut), event, "years")
    complete = SurvivalOutcome.from_arrays(life, cause, "years")
    return truth, outcome, complete


def test_censored_scores_estimate_those_of_complete_lives():
    """Known truth: what would be scored if nobody were lost; ignoring the other cause would give other values."""
    truth, outcome, complete = simulated(20_000)
    seen = concordance_index_ipcw_of_cause(truth, outcome, 1, outcome, horizon=1.0).value
    assert seen == pytest.approx(concordance_index_of_cause(truth, complete, 1, horizon=1.0).value, abs=0.01)
    ratio = observed_expected_ratio_of_cause(truth, outcome, 1, 1.0)
    assert ratio.value == pytest.approx(1, abs=0.03)
    assert ratio.interval is not None
    assert 1.0 in ratio.interval
    naive = 1 - float(kaplan_meier(outcome.of_cause(1)).at(1.0))
    assert naive > 1.1 * float(ratio.settings["observed"])


def test_late_entries_and_impossible_causes_are_refused():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 2], "years", entry=[0.5, 0.0])
    with pytest.raises(InvalidValueError, match=r"`outcome` must be followed from the origin"):
        concordance_index_of_cause([0.1, 0.2], outcome, 1)
    with pytest.raises(InvalidValueError, match=r"`cause` must be >= 1"):
        concordance_index_of_cause([0.1, 0.2], SurvivalOutcome.from_arrays([1.0, 2.0], [1, 2], "years"), 0)
