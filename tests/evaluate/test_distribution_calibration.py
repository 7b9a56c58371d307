import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.alignment import own_log_survival
from survlens.evaluate.distribution_calibration import d_calibration

KNOTS = np.array([1.0, 12.0])


def exponential(hazard: np.ndarray) -> SurvivalPrediction:
    log_survival = -torch.outer(torch.from_numpy(hazard), torch.from_numpy(KNOTS))
    return SurvivalPrediction(torch.from_numpy(KNOTS), log_survival, Interpolation.EXPONENTIAL, "years")


def cohort(n: int, seed: int, censored: bool):
    rng = np.random.default_rng(seed)
    hazard = np.exp(0.5 * rng.normal(size=n))
    life = rng.exponential(1 / hazard)
    cut = rng.exponential(1.5, n) if censored else np.full(n, np.inf)
    return hazard, SurvivalOutcome.from_arrays(np.minimum(life, cut), life <= cut, "years")


def p_values(censored: bool, factor: float = 1.0, repeats: int = 300) -> np.ndarray:
    drawn = (cohort(300, seed, censored) for seed in range(repeats))
    return np.array([d_calibration(exponential(factor * h), outcome, horizon=12).p_value for h, outcome in drawn])


def test_right_predictions_give_uniform_p_values():
    """Known truth: the largest distance of 300 p-values from the uniform distribution stays within its 1 % limit."""
    p = np.sort(p_values(censored=False))
    distance = np.abs(p - (np.arange(len(p)) + 0.5) / len(p)).max()
    assert distance < 1.63 / np.sqrt(len(p))


def test_censoring_makes_the_test_cautious_and_wrong_predictions_are_rejected():
    right = p_values(censored=True, repeats=150)
    assert (right < 0.05).mean() <= 0.05
    assert (p_values(censored=True, factor=1.6, repeats=50) < 0.05).mean() > 0.9


def slow_counts(survival, died, bins):
    counts = [0.0] * bins
    for s, event in zip(survival, died, strict=True):
        own = min(int(s * bins), bins - 1)
        if event or s == 0:
            counts[own] += 1
            continue
        for k in range(own + 1):
            counts[k] += (min(s, (k + 1) / bins) - k / bins) / s
    return counts


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20),
    st.sampled_from([2, 5, 10]),
)
def test_counts_equal_spreading_each_row(rows, bins):
    survival = np.array([s for s, _ in rows])
    died = np.array([event for _, event in rows])
    with np.errstate(divide="ignore"):
        log_survival = torch.from_numpy(np.log(survival))[:, None]
    prediction = SurvivalPrediction(torch.tensor([1.0]).double(), log_survival, Interpolation.STEP, "years")
    outcome = SurvivalOutcome.from_arrays(np.ones(len(rows)), died, "years")
    found = d_calibration(prediction, outcome, bins=bins)
    assert found.counts.sum() == pytest.approx(len(rows))
    read = np.exp(prediction.log_survival[:, 0].numpy())
    assert found.counts == pytest.approx(slow_counts(read, died, bins), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(Interpolation)))
def test_own_survival_is_the_diagonal_of_all_curves(seed, interpolation):
    generator = torch.Generator().manual_seed(seed)
    fall = -torch.rand((7, 5), generator=generator, dtype=torch.float64) * 3
    fall[0, 3] = -torch.inf
    knots = torch.tensor([1.0, 2.0, 3.5, 5.0, 8.0], dtype=torch.float64)
    prediction = SurvivalPrediction(knots, fall.cumsum(1), interpolation, "years")
    time = np.array([0.4, 1.0, 1.7, 3.5, 4.9, 7.0, 8.0])
    expected = [float(prediction[[i]].at([time[i]]).log_survival[0, 0]) for i in range(7)]
    assert own_log_survival(prediction, time) == pytest.approx(expected, abs=1e-12)


def test_score_carries_the_test_and_bad_questions_are_refused():
    hazard, outcome = cohort(200, 1, True)
    score = d_calibration(exponential(hazard), outcome, horizon=12).score()
    assert score.settings["df"] == 9
    assert 0 <= float(score.settings["p_value"]) <= 1
    with pytest.raises(InvalidValueError, match="`bins` must be >= 2"):
        d_calibration(exponential(hazard), outcome, bins=1)
    late = SurvivalOutcome.from_arrays([20.0], [1], "years")
    with pytest.raises(InvalidValueError, match="the predicted range"):
        d_calibration(exponential(np.ones(1)), late)
