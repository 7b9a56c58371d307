import math
from functools import partial

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.accuracy import NullModel, integrated_brier_score, integrated_ipa
from survlens.evaluate.concordance import concordance_index, concordance_index_ipcw
from survlens.evaluate.uncertainty import bootstrap, paired_difference, seed_spread


def cohort(n: int = 120, seed: int = 0) -> tuple[np.ndarray, SurvivalOutcome, np.ndarray, SurvivalPrediction]:
    """Risks, tied outcome, patients with one to four rows, curves of the risks."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=n), 1)
    time = np.ceil(rng.exponential(8 * np.exp(-risk)))
    outcome = SurvivalOutcome.from_arrays(np.minimum(time, 12), (rng.random(n) < 0.7) & (time <= 12), "months")
    patient = np.array([f"p{k}" for k in rng.integers(0, n // 2, n)])
    knots = torch.arange(1.0, 13.0).double()
    hazard = torch.outer(torch.from_numpy(np.exp(risk) / 8), knots)
    return risk, outcome, patient, SurvivalPrediction(knots, -hazard, Interpolation.STEP, "months")


@pytest.mark.parametrize("score", [concordance_index, partial(concordance_index, horizon=5.0)])
def test_multiplicities_equal_resampled_rows(score):
    risk, outcome, patient, _ = cohort()
    fast = bootstrap(score, risk, outcome, patient=patient, draws=60)
    slow = bootstrap(lambda r, o: score(r, o), risk, outcome, patient=patient, draws=60)
    assert fast.draws == pytest.approx(slow.draws, abs=1e-13)
    assert fast.score.interval == slow.score.interval


def test_integrated_scores_of_multiplicities_equal_resampled_rows():
    risk, outcome, patient, prediction = cohort()
    grid = np.arange(1.0, 9.0)
    settings = {"training": outcome}
    for score in (
        partial(integrated_brier_score, times=grid, **settings),
        partial(integrated_ipa, times=grid, **settings),
        partial(integrated_ipa, times=grid, null_model=NullModel.TRAINING, **settings),
    ):
        fast = bootstrap(score, prediction, outcome, patient=patient, draws=40)
        slow = bootstrap(lambda p, o, score=score: score(p, o), prediction, outcome, patient=patient, draws=40)
        assert fast.draws == pytest.approx(slow.draws, abs=1e-12)
    uno = partial(concordance_index_ipcw, horizon=8.0, **settings)
    fast = bootstrap(uno, risk, outcome, patient=patient, draws=40)
    slow = bootstrap(lambda r, o: uno(r, o), risk, outcome, patient=patient, draws=40)
    assert fast.draws == pytest.approx(slow.draws, abs=1e-12)


def test_rows_of_one_patient_are_drawn_together():
    risk, outcome, _, _ = cohort(40)
    twice = np.tile(np.arange(40), 2)
    time, event = outcome.numpy()
    doubled = SurvivalOutcome.from_arrays(np.tile(time, 2), np.tile(event, 2), "months")
    single = bootstrap(concordance_index, risk, outcome, draws=50)
    clustered = bootstrap(concordance_index, np.tile(risk, 2), doubled, patient=twice, draws=50)
    assert clustered.draws == pytest.approx(single.draws, abs=1e-13)
    naive = bootstrap(concordance_index, np.tile(risk, 2), doubled, draws=300)
    assert naive.draws.std() < 0.85 * bootstrap(concordance_index, risk, outcome, draws=300).draws.std()


def test_order_of_patients_labels_does_not_matter_and_seed_decides():
    risk, outcome, patient, _ = cohort()
    first = bootstrap(concordance_index, risk, outcome, patient=patient, draws=30, seed=4)
    renamed = np.array([f"x{name}" for name in patient])
    assert np.array_equal(
        bootstrap(concordance_index, risk, outcome, patient=renamed, draws=30, seed=4).draws, first.draws
    )
    assert not np.array_equal(bootstrap(concordance_index, risk, outcome, patient=patient, draws=30).draws, first.draws)


def test_interval_agrees_with_the_jackknife_and_covers_the_truth():
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        risk = rng.normal(size=150)
        outcome = SurvivalOutcome.from_arrays(rng.exponential(np.exp(-risk)), np.ones(150, int), "months")
        result = bootstrap(concordance_index, risk, outcome, draws=200, seed=seed)
        assert result.score.interval is not None
        covered += 0.7290 in result.score.interval
        if seed == 0:
            analytic = concordance_index(risk, outcome, confidence=0.95)
            assert result.draws.std() == pytest.approx(float(analytic.settings["std_error"]), rel=0.15)
    assert covered >= 34


def test_paired_difference_uses_the_same_draws():
    risk, outcome, patient, _ = cohort()
    noisy = risk + np.random.default_rng(1).normal(scale=0.5, size=len(risk))
    first = bootstrap(concordance_index, risk, outcome, patient=patient, draws=200)
    second = bootstrap(concordance_index, noisy, outcome, patient=patient, draws=200)
    difference = paired_difference(first, second)
    assert np.array_equal(difference.draws, first.draws - second.draws)
    assert difference.score.value == pytest.approx(first.score.value - second.score.value)
    assert difference.draws.std() < math.hypot(first.draws.std(), second.draws.std())
    itself = paired_difference(first, first).score
    assert itself.interval is not None
    assert (itself.value, itself.interval.lower, itself.interval.upper) == (0.0, 0.0, 0.0)
    for other in (
        bootstrap(concordance_index, noisy, outcome, patient=patient, draws=200, seed=1),
        bootstrap(concordance_index, noisy, outcome, draws=200),
        bootstrap(partial(concordance_index_ipcw, training=outcome), noisy, outcome, patient=patient, draws=200),
    ):
        with pytest.raises(InvalidValueError, match="same draws"):
            paired_difference(first, other)


def test_undefined_draws_are_counted_and_left_out():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 0, 0], "months")
    for score in (concordance_index, lambda r, o: concordance_index(r, o)):
        result = bootstrap(score, np.array([2.0, 1.0, 3.0]), outcome, draws=300)
        assert 0 < result.undefined < 300
        assert result.score.settings["undefined_draws"] == result.undefined
        assert result.score.interval is not None
        assert result.score.interval.lower >= 0
    censored = SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "months")
    nothing = bootstrap(concordance_index, np.zeros(2), censored, draws=10)
    assert nothing.undefined == 10
    assert nothing.score.interval is not None
    assert math.isnan(nothing.score.interval.lower)


def test_seed_spread_is_no_interval():
    spread = seed_spread([0.70, 0.72, 0.74])
    assert (spread.mean, spread.smallest, spread.largest, spread.n_seeds) == (pytest.approx(0.72), 0.70, 0.74, 3)
    assert spread.deviation == pytest.approx(0.02)
    assert not hasattr(spread, "interval")
    assert math.isnan(seed_spread([0.7]).deviation)
    with pytest.raises(InvalidValueError, match="finite"):
        seed_spread([0.7, math.nan])


def test_bad_arguments_are_named():
    risk, outcome, _, _ = cohort(10)
    with pytest.raises(InvalidValueError, match="one length; got 3 and 10"):
        bootstrap(concordance_index, risk, outcome, patient=["a", "b", "c"])
    with pytest.raises(InvalidValueError, match="`draws` must be >= 1"):
        bootstrap(concordance_index, risk, outcome, draws=0)
