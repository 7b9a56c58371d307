"""The forest kept as arrays is the forest that was grown."""

from __future__ import annotations

import numpy as np
import pytest
from sksurv.ensemble import RandomSurvivalForest as Grower
from sksurv.util import Surv

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.models.forest import RandomSurvivalForest


@pytest.fixture(scope="module", params=["tied", "continuous"])
def rows(request: pytest.FixtureRequest) -> tuple[np.ndarray, SurvivalOutcome]:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(250, 4))
    X[:, 3] = rng.integers(0, 3, 250)
    time = rng.exponential(np.exp(-np.abs(X[:, 0]) - X[:, 3]))
    stop = rng.exponential(1.0, size=250)
    observed, event = np.minimum(time, stop), time <= stop
    observed = np.ceil(20 * observed) if request.param == "tied" else observed
    return X, SurvivalOutcome.from_arrays(observed, event, "months")


def test_predictions_are_those_of_scikit_survival(rows):
    X, outcome = rows
    time, event = outcome.numpy()
    grower = Grower(n_estimators=30, min_samples_leaf=8, random_state=3).fit(X, Surv.from_arrays(event > 0, time))
    model = RandomSurvivalForest(trees=30, min_leaf=8, seed=3).fit(X, outcome)
    new = np.random.default_rng(0).normal(size=(40, 4))
    np.testing.assert_allclose(model.predict(new), grower.predict(new), rtol=1e-12)
    expected = grower.predict_survival_function(new, return_array=True)
    at_their_knots = model.predict_survival(new, grower.unique_times_).survival.numpy()
    np.testing.assert_allclose(at_their_knots, expected, atol=1e-12)


def test_survival_is_one_before_the_first_event(rows):
    X, outcome = rows
    prediction = RandomSurvivalForest(trees=10, min_leaf=8).fit(X, outcome).predict_survival(X)
    first = float(outcome.time[outcome.event > 0].min())
    assert float(prediction.times[0]) == first
    np.testing.assert_array_equal(prediction.at([first * 0.999]).survival.numpy(), 1.0)


def test_the_seed_fixes_the_forest_and_the_jobs_do_not_change_it(rows):
    X, outcome = rows
    one = RandomSurvivalForest(trees=8, seed=1).fit(X, outcome).predict(X)
    np.testing.assert_array_equal(RandomSurvivalForest(trees=8, seed=1, jobs=2).fit(X, outcome).predict(X), one)
    assert (RandomSurvivalForest(trees=8, seed=2).fit(X, outcome).predict(X) != one).any()


def test_it_sees_what_a_linear_model_cannot(rows):
    X, outcome = rows
    model = RandomSurvivalForest(trees=60).fit(X, outcome)
    low, middle, high = model.predict(np.array([[-2.0, 0, 0, 1], [0, 0, 0, 1], [2, 0, 0, 1]]))
    assert min(low, high) > 1.2 * middle


def test_a_forest_of_roots_is_near_kaplan_meier(rows):
    X, outcome = rows
    prediction = RandomSurvivalForest(trees=100, min_leaf=200).fit(X, outcome).predict_survival(X[:2])
    times = np.quantile(outcome.time.numpy(), [0.2, 0.5, 0.7])
    curves = prediction.at(times).survival.numpy()
    np.testing.assert_array_equal(curves[0], curves[1])
    np.testing.assert_allclose(curves[0], kaplan_meier(outcome).at(times), atol=0.02)


def test_more_rows_than_a_block_are_predicted_alike(rows):
    X, outcome = rows
    model = RandomSurvivalForest(trees=5).fit(X, outcome)
    many = np.tile(X, (3, 1))
    np.testing.assert_array_equal(model.predict(many), np.tile(model.predict(X), 3))
    curves = model.predict_survival(many).survival.numpy()
    np.testing.assert_array_equal(curves, np.tile(model.predict_survival(X).survival.numpy(), (3, 1)))


@pytest.mark.parametrize("change", [{"trees": 0}, {"min_leaf": 0}])
def test_wrong_settings_are_refused(rows, change: dict):
    with pytest.raises(InvalidValueError, match=next(iter(change))):
        RandomSurvivalForest(**change).fit(*rows)
