"""Penalty paths against R's glmnet, against their optimality conditions, and the choice of the penalty."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from survlens.core.errors import FitError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.models.classical import CoxRegression
from survlens.models.cross_fitting import patient_folds
from survlens.models.partial_likelihood import RiskSets
from survlens.models.penalised import LassoCox, PenaltyRule, RidgeCox


@pytest.fixture(scope="module")
def simulated() -> tuple[np.ndarray, SurvivalOutcome]:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(200, 12)) * np.geomspace(0.1, 10, 12)
    time = np.ceil(30 * rng.exponential(np.exp(-X[:, 5] / X[:, 5].std() - 0.7 * X[:, 6] / X[:, 6].std())))
    stop = np.ceil(60 * rng.exponential(size=200))
    return X, SurvivalOutcome.from_arrays(np.minimum(time, stop), time <= stop, "days")


# R's own note: glmnet's path is exact to 1e-6 on veteran, and to about 1e-4 in its optimality conditions where censored
# and event times tie (lung, gbsg), so that coefficients are compared to 1e-4 and 1e-2.
@pytest.mark.parametrize(("name", "tolerance"), [("veteran", 1e-4), ("lung", 1e-2), ("gbsg", 1e-2)])
def test_lasso_path_is_that_of_glmnet(shared: Callable[..., Path], name: str, tolerance: float):
    golden = json.loads(shared("golden", f"{name}.json").read_text())
    table = pd.read_csv(shared("golden", f"{name}.csv"))
    X, path = table[golden["covariates"]], golden["lasso_path"]
    model = LassoCox(penalties=path["lambda"], folds=2, unit="days").fit(X, table[["time", "event"]])
    standardised = model.coef_path_ * X.to_numpy(float).std(0)
    np.testing.assert_allclose(standardised, np.array(path["coef"], dtype=float)[: len(standardised)], atol=tolerance)
    assert len(standardised) >= len(path["lambda"]) - 1
    automatic = LassoCox(folds=2, unit="days").fit(X, table[["time", "event"]])
    assert automatic.penalties_[0] == pytest.approx(path["lambda"][0], rel=2e-3)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_the_elastic_net_meets_its_optimality_conditions(simulated, l1_ratio: float):
    X, outcome = simulated
    model = LassoCox(l1_ratio=l1_ratio, penalties=20).fit(X, outcome)
    sets = RiskSets.of(outcome, Ties.BRESLOW)
    scaled = ((X - X.mean(0)) / X.std(0))[sets.order]
    for penalty, row in zip(model.penalties_, model.coef_path_ * X.std(0), strict=True):
        slope = sets.gradient(scaled, scaled @ row) / len(X) - penalty * (1 - l1_ratio) * row
        active = row != 0
        np.testing.assert_allclose(slope[active], penalty * l1_ratio * np.sign(row[active]), atol=2e-4)
        assert (np.abs(slope[~active]) <= penalty * l1_ratio + 2e-4).all()
    np.testing.assert_array_equal(model.coef_path_[0], 0.0)


def test_a_ridge_path_is_a_row_of_single_fits(simulated):
    X, outcome = simulated
    model = RidgeCox(penalties=[0.01, 1.0, 0.1]).fit(X, outcome)
    np.testing.assert_array_equal(model.penalties_, [1.0, 0.1, 0.01])
    for penalty, row in zip(model.penalties_, model.coef_path_, strict=True):
        np.testing.assert_allclose(row, CoxRegression(penalty=penalty).fit(X, outcome).coef_, rtol=1e-5, atol=1e-7)
    chosen = CoxRegression(penalty=model.penalty_).fit(X, outcome)
    np.testing.assert_allclose(model.predict(X), chosen.predict(X), rtol=1e-5, atol=1e-6)


def test_the_deviance_is_that_of_refits_without_each_fold(simulated):
    X, outcome = simulated
    model = RidgeCox(penalties=[0.02, 0.5], folds=3, seed=4).fit(X, outcome)
    fold = patient_folds(outcome, None, folds=3, seed=4)
    whole, events, deviance = RiskSets.of(outcome, Ties.EFRON), [], []
    for k in range(3):
        part = outcome[fold != k]
        sets = RiskSets.of(part, Ties.EFRON)
        row = []
        for penalty in (0.5, 0.02):
            fit = CoxRegression(penalty=penalty).fit(X[fold != k], part)
            risk = fit.predict(X)
            gain = whole.log_likelihood(risk[whole.order]) - sets.log_likelihood(risk[fold != k][sets.order])
            row.append(-2 * float(gain) / outcome[fold == k].n_events)
        events.append(outcome[fold == k].n_events)
        deviance.append(row)
    mean = np.average(deviance, axis=0, weights=events)
    np.testing.assert_allclose(model.deviance_, mean, rtol=1e-6)
    spread = np.sqrt(np.average((np.array(deviance) - mean) ** 2, axis=0, weights=events) / 2)
    np.testing.assert_allclose(model.deviance_error_, spread, rtol=1e-4)


@pytest.mark.parametrize("make", [RidgeCox, LassoCox])
def test_one_standard_error_takes_a_larger_penalty(simulated, make):
    best, sparse = (make(penalties=40, rule=rule).fit(*simulated) for rule in PenaltyRule)
    at = int(np.argmin(best.deviance_))
    assert best.penalty_ == best.penalties_[at]
    assert sparse.penalty_ > best.penalty_
    taken = int(np.flatnonzero(sparse.penalties_ == sparse.penalty_)[0])
    limit = best.deviance_[at] + best.deviance_error_[at]
    assert sparse.deviance_[taken] <= limit < sparse.deviance_[taken - 1]


def test_lasso_finds_the_two_covariates_that_matter(simulated):
    model = LassoCox(rule=PenaltyRule.ONE_STANDARD_ERROR).fit(*simulated)
    assert set(np.flatnonzero(model.coef_)) == {5, 6}
    assert (model.coef_ == 0).sum() == 10


@pytest.mark.parametrize("make", [RidgeCox, LassoCox])
def test_more_columns_than_rows_can_be_fitted(make):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 150))
    time = rng.exponential(np.exp(-2 * X[:, 0]))
    model = make(penalties=10, folds=3).fit(X, (time, np.ones(60, dtype=int)))
    assert int(np.argmax(np.abs(model.coef_))) == 0
    if make is RidgeCox:
        direct = CoxRegression(penalty=model.penalty_).fit(X, (time, np.ones(60, dtype=int)))
        np.testing.assert_allclose(model.coef_, direct.coef_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [RidgeCox, LassoCox])
def test_constant_columns_are_left_at_zero(simulated, make):
    X, outcome = simulated
    with_constant = np.column_stack([np.full(len(X), 5.0), X])
    model, plain = make(penalties=8).fit(with_constant, outcome), make(penalties=8).fit(X, outcome)
    assert model.coef_[0] == 0.0
    np.testing.assert_allclose(model.coef_[1:], plain.coef_, rtol=1e-6, atol=1e-9)
    with pytest.raises(FitError, match="varies"):
        make().fit(np.ones((len(X), 2)), outcome)


def test_patients_never_stand_on_two_sides_and_events_are_spread():
    rng = np.random.default_rng(0)
    patients = rng.permutation(np.repeat([f"p{i}" for i in range(40)], 5))
    event = np.isin(patients, [f"p{i}" for i in range(10)]).astype(int)
    outcome = SurvivalOutcome.from_arrays(rng.exponential(size=200) + 0.1, event, "days")
    fold = patient_folds(outcome, patients, folds=5, seed=1)
    assert all(len(set(fold[patients == patient])) == 1 for patient in set(patients))
    assert [len(set(patients[(fold == k) & (event == 1)])) for k in range(5)] == [2] * 5
    assert [len(set(patients[fold == k])) for k in range(5)] == [8] * 5
    np.testing.assert_array_equal(fold, patient_folds(outcome, pd.Series(patients), folds=5, seed=1))
    assert (fold != patient_folds(outcome, patients, folds=5, seed=2)).any()


def test_groups_change_the_choice_only_through_the_folds(simulated):
    X, outcome = simulated
    doubled = np.repeat(np.arange(len(X)), 2)
    grouped = RidgeCox(penalties=6).fit(X[doubled], outcome[doubled], groups=doubled)
    leaking = RidgeCox(penalties=6).fit(X[doubled], outcome[doubled])
    assert grouped.penalty_ >= leaking.penalty_
    np.testing.assert_allclose(grouped.coef_path_, leaking.coef_path_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 1}, "folds"),
        ({"penalties": 1}, "penalties"),
        ({"penalties": [0.1, -1.0]}, "penalties"),
        ({"penalties": []}, "penalties"),
        ({"folds": 500}, "200 patients"),
    ],
)
def test_wrong_settings_are_refused(simulated, change: dict, message: str):
    for make in (RidgeCox, LassoCox):
        with pytest.raises(InvalidValueError, match=message):
            make(**change).fit(*simulated)
    with pytest.raises(InvalidValueError, match="l1_ratio"):
        LassoCox(l1_ratio=0.0).fit(*simulated)


def test_wrong_groups_are_refused(simulated):
    X, outcome = simulated
    with pytest.raises(InvalidValueError, match="one patient per row"):
        RidgeCox().fit(X, outcome, groups=np.arange(3))
    with pytest.raises(InvalidValueError, match="missing"):
        RidgeCox().fit(X, outcome, groups=[None, *range(1, 200)])
