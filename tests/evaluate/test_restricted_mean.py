import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.restricted_mean import (
    restricted_mean_difference,
    restricted_mean_error,
    restricted_mean_survival_time,
)


def slow(time, event, horizon):
    """Area and variance, one event time after the other."""
    survival, area, previous, steps = 1.0, 0.0, 0.0, []
    for t in sorted(set(time.tolist())):
        if t > horizon:
            break
        n, d = (time >= t).sum(), ((time == t) & event).sum()
        steps.append((previous, t, survival, n, d))
        survival, previous = survival * (1 - d / n), t
    steps.append((previous, horizon, survival, 1, 0))
    area = sum((end - start) * s for start, end, s, _, _ in steps)
    variance = 0.0
    for _, t, _, n, d in steps:
        after = sum((end - start) * s for start, end, s, _, _ in steps if start >= t)
        variance += after**2 * d / (n * (n - d)) if n > d else 0.0
    return area, np.sqrt(variance)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=25), st.floats(0.05, 1.0))
def test_area_and_error_equal_summing_rectangles(rows, share):
    time, event = np.array([t for t, _ in rows], float), np.array([e for _, e in rows])
    horizon = share * time.max()
    found = restricted_mean_survival_time(SurvivalOutcome.from_arrays(time, event, "years"), horizon)
    assert (found.value, found.std_error) == pytest.approx(slow(time, event, horizon), abs=1e-12)
    assert found.lower <= found.value <= found.upper


def cohort(n: int, seed: int, hazard: float = 1.0):
    rng = np.random.default_rng(seed)
    life, cut = rng.exponential(1 / hazard, n), rng.exponential(2.0, n)
    return SurvivalOutcome.from_arrays(np.minimum(life, cut), life <= cut, "years")


def test_error_is_that_of_the_bootstrap_and_the_interval_covers():
    outcome = cohort(300, 0)
    found = restricted_mean_survival_time(outcome, 1.0)
    rng = np.random.default_rng(1)
    drawn = [restricted_mean_survival_time(outcome[rng.integers(0, 300, 300)], 1.0).value for _ in range(400)]
    assert found.std_error == pytest.approx(np.std(drawn), rel=0.12)
    truth = 1 - np.exp(-1)
    covered = [
        abs(r.value - truth) < 1.96 * r.std_error
        for r in (restricted_mean_survival_time(cohort(200, seed), 1.0) for seed in range(300))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)


def test_difference_finds_the_life_that_is_gained():
    parts = [cohort(2000, 1, 2.0), cohort(2000, 2, 1.0)]
    both = SurvivalOutcome.concatenate(parts)
    arm = np.repeat(["control", "treated"], 2000)
    found = restricted_mean_difference(arm, both, 1.0)
    assert found.labels == ("control", "treated")
    assert found.value == pytest.approx((1 - np.exp(-1)) - (1 - np.exp(-2)) / 2, abs=0.03)
    assert found.lower < found.value < found.upper
    assert found.p_value < 1e-6
    assert found.first.value + found.value == pytest.approx(found.second.value)


def test_p_values_are_uniform_where_both_groups_are_alike():
    arm = np.arange(200) % 2
    p = np.sort([restricted_mean_difference(arm, cohort(200, seed), 1.0).p_value for seed in range(300)])
    assert np.abs(p - (np.arange(300) + 0.5) / 300).max() < 1.63 / np.sqrt(300)


def test_predicted_and_observed_means_agree_for_the_truth():
    outcome = cohort(4000, 3)
    knots = torch.linspace(0.05, 3.0, 60, dtype=torch.float64)
    right = SurvivalPrediction(knots, -knots.repeat(4000, 1), Interpolation.EXPONENTIAL, "years")
    score = restricted_mean_error(right, outcome, 1.0)
    assert score.value == pytest.approx(0, abs=0.02)
    assert score.interval is not None
    assert 0.0 in score.interval
    hopeful = SurvivalPrediction(knots, -0.5 * knots.repeat(4000, 1), Interpolation.EXPONENTIAL, "years")
    assert restricted_mean_error(hopeful, outcome, 1.0).value == pytest.approx(
        2 * (1 - np.exp(-0.5)) - (1 - np.exp(-1)), abs=0.02
    )


def test_horizon_past_what_is_known_is_refused():
    with pytest.raises(InvalidValueError, match=r"`horizon` must lie in \(0, 2\]"):
        restricted_mean_survival_time(SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "years"), 3.0)
    dead = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 1], "years")
    assert restricted_mean_survival_time(dead, 3.0).value == pytest.approx(1.5)
    with pytest.raises(InvalidValueError, match="two labels"):
        restricted_mean_difference([1, 1], dead, 1.0)
    late = SurvivalOutcome.from_arrays([2.0], [1], "years", entry=[1.0])
    knots = torch.tensor([2.0], dtype=torch.float64)
    with pytest.raises(InvalidValueError, match="delayed entry"):
        restricted_mean_error(SurvivalPrediction(knots, -knots[None], Interpolation.STEP, "years"), late, 1.0)


def test_weights_are_repeated_rows_and_late_entries_leave_the_truth():
    outcome, times = cohort(200, 4), np.random.default_rng(5).integers(1, 4, 200)
    weighted = SurvivalOutcome.from_arrays(outcome.time, outcome.event, "years", weight=times.astype(float))
    repeated = restricted_mean_survival_time(outcome[np.repeat(np.arange(200), times)], 1.0)
    found = restricted_mean_survival_time(weighted, 1.0)
    assert (found.value, found.std_error) == pytest.approx((repeated.value, repeated.std_error))
    rng = np.random.default_rng(6)
    life, entry = rng.exponential(1.0, 20_000), rng.uniform(0, 1, 20_000) * (rng.random(20_000) < 0.7)
    seen = life > entry
    late = SurvivalOutcome.from_arrays(life[seen], np.ones(seen.sum(), int), "years", entry=entry[seen])
    truth = 1 - np.exp(-1)
    assert restricted_mean_survival_time(late, 1.0).value == pytest.approx(truth, abs=0.015)
    blind = SurvivalOutcome.from_arrays(late.time, late.event, "years")
    assert restricted_mean_survival_time(blind, 1.0).value > truth + 0.03
