"""A forest on many distinct times."""

import numpy as np
import pytest

from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.concordance import concordance_index
from survlens.models.forest import RandomSurvivalForest

pytest.importorskip("sksurv")


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, 3))
    time = rng.exponential(10 * np.exp(-X[:, 0]))
    return X, SurvivalOutcome.from_arrays(time, rng.random(600) < 0.8, "months")


def test_few_time_points_change_curves_little_and_end_at_the_same_time(cohort):
    X, outcome = cohort
    fine, coarse = (RandomSurvivalForest(trees=30, time_points=n).fit(X, outcome) for n in (1000, 60))
    assert len(coarse.times_) <= 61 < len(fine.times_)
    assert coarse.times_[-1] == fine.times_[-1] == float(outcome.time.max())
    times = np.quantile(outcome.time.numpy(), [0.25, 0.5, 0.75])
    gap = fine.predict_survival(X, times).survival - coarse.predict_survival(X, times).survival
    assert float(gap.abs().mean()) < 0.04
    scores = [concordance_index(model.predict(X), outcome).value for model in (fine, coarse)]
    assert abs(scores[0] - scores[1]) < 0.02


def test_enough_time_points_leave_times_alone(cohort):
    X, outcome = cohort
    fine, finer = (RandomSurvivalForest(trees=5, time_points=n).fit(X, outcome) for n in (600, 5000))
    assert np.array_equal(fine.predict(X), finer.predict(X))
