"""Kaplan-Meier and Cox regression against R, against slow likelihoods, and at the edges of what can be fitted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from survlens.core.errors import FitError, InvalidValueError
from survlens.core.nonparametric import kaplan_meier, nelson_aalen
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.models.classical import CoxRegression, KaplanMeierModel
from survlens.models.estimator_files import load_estimator, save_estimator
from survlens.models.partial_likelihood import RiskSets

Study = tuple[pd.DataFrame, SurvivalOutcome, dict]


@pytest.fixture(params=["lung", "veteran", "gbsg"])
def study(shared: Callable[..., Path], request: pytest.FixtureRequest) -> Study:
    golden = json.loads(shared("golden", f"{request.param}.json").read_text())
    table = pd.read_csv(shared("golden", f"{request.param}.csv"))
    return (
        table[golden["covariates"]],
        SurvivalOutcome.from_arrays(table["time"].to_numpy(), table["event"].to_numpy(), "days"),
        golden,
    )


@pytest.mark.parametrize("ties", list(Ties))
def test_coefficients_and_errors_are_those_of_r(study: Study, ties: Ties):
    X, outcome, golden = study
    expected = golden[ties.value]
    model = CoxRegression(ties=ties).fit(X, outcome)
    assert model.feature_names_ == tuple(expected["coef"])
    np.testing.assert_allclose(model.coef_, list(expected["coef"].values()), rtol=1e-10)
    np.testing.assert_allclose(model.standard_error_, list(expected["se"].values()), rtol=1e-10)
    assert model.log_likelihood_ == pytest.approx(expected["loglik"], rel=1e-12)
    assert model.log_likelihood_null_ == pytest.approx(expected["loglik_null"], rel=1e-12)


@pytest.mark.parametrize("ties", list(Ties))
def test_baseline_hazard_is_that_of_r(study: Study, ties: Ties):
    X, outcome, golden = study
    expected = golden[ties.value]["cumulative_baseline_hazard"]
    model = CoxRegression(ties=ties).fit(X, outcome)
    at_zero = model.baseline_.at(np.array(expected["time"], float)) * np.exp(-model.centre_ @ model.coef_)
    np.testing.assert_allclose(at_zero, expected["hazard"], rtol=1e-9, atol=1e-300)


def test_survival_and_risk_of_patients_are_those_of_r(study: Study):
    X, outcome, golden = study
    model = CoxRegression(ties=Ties.BRESLOW).fit(X, outcome)
    expected = golden["survival_at"]
    survival = model.predict_survival(X.iloc[:10], np.array(expected["times"], float)).survival.numpy()
    np.testing.assert_allclose(survival, expected["first_ten"], rtol=1e-9)
    np.testing.assert_allclose(model.predict(X) + model.centre_ @ model.coef_, golden["log_risk"], rtol=1e-8, atol=1e-9)
    assert model.score(X, outcome) == pytest.approx(golden["harrell_c"]["value"], rel=1e-12)


def test_kaplan_meier_model_gives_everyone_the_training_curve(study: Study):
    X, outcome, golden = study
    prediction = KaplanMeierModel().fit(X, outcome).predict_survival(X.iloc[:3])
    np.testing.assert_array_equal(prediction.times.numpy(), golden["kaplan_meier"]["time"])
    for row in prediction.survival.numpy():
        np.testing.assert_allclose(row, golden["kaplan_meier"]["survival"], rtol=1e-9, atol=1e-12)


def slow_log_likelihood(log_risk: np.ndarray, outcome: SurvivalOutcome, ties: Ties) -> float:
    time, event = outcome.numpy()
    total = 0.0
    for moment in np.unique(time[event > 0]):
        died = (time == moment) & (event > 0)
        at_risk, tied = np.exp(log_risk[time >= moment]).sum(), np.exp(log_risk[died]).sum()
        for rank in range(died.sum()):
            total -= math.log(at_risk - (rank / died.sum() * tied if ties is Ties.EFRON else 0.0))
        total += log_risk[died].sum()
    return total


@st.composite
def cases(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Ties]:
    size, features = draw(st.integers(1, 25)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    time = rng.integers(1, 1 + draw(st.sampled_from([1, 5, 1000])), size).astype(float)
    event = rng.integers(0, 2, size)
    event[rng.integers(size)] = 1
    X, coef = rng.normal(size=(size, features)), rng.normal(size=features)
    return X, coef, time, event, draw(st.sampled_from(Ties))


@settings(max_examples=25, deadline=None)
@given(cases())
def test_likelihood_gradient_and_information_agree_with_slow_ones(case):
    X, coef, time, event, ties = case
    outcome = SurvivalOutcome.from_arrays(time, event, "days")
    sets = RiskSets.of(outcome, ties)
    rows = X[sets.order]
    value = float(sets.log_likelihood(rows @ coef))
    assert value == pytest.approx(slow_log_likelihood(X @ coef, outcome, ties), rel=1e-10, abs=1e-10)
    step = 1e-5 * np.eye(len(coef))
    slopes = [
        (slow_log_likelihood(X @ (coef + d), outcome, ties) - slow_log_likelihood(X @ (coef - d), outcome, ties)) / 2e-5
        for d in step
    ]
    np.testing.assert_allclose(sets.gradient(rows, rows @ coef), slopes, rtol=1e-5, atol=1e-5)
    bends = [(sets.gradient(rows, rows @ (coef - d)) - sets.gradient(rows, rows @ (coef + d))) / 2e-5 for d in step]
    np.testing.assert_allclose(sets.information(rows, rows @ coef), bends, rtol=1e-5, atol=1e-5)


def test_many_models_are_scored_at_once():
    rng = np.random.default_rng(0)
    outcome = SurvivalOutcome.from_arrays(rng.integers(1, 9, 30), rng.integers(0, 2, 30), "days")
    sets, log_risk = RiskSets.of(outcome, Ties.EFRON), rng.normal(size=(30, 4))
    together = sets.log_likelihood(log_risk[sets.order])
    np.testing.assert_allclose(together, [slow_log_likelihood(r, outcome, Ties.EFRON) for r in log_risk.T], rtol=1e-12)


@pytest.fixture(scope="module")
def simulated() -> tuple[np.ndarray, SurvivalOutcome]:
    rng = np.random.default_rng(11)
    X = rng.normal(size=(400, 3)) * [1.0, 10.0, 0.1] + [0.0, 50.0, 1000.0]
    time = rng.exponential(np.exp(-(X - [0.0, 50.0, 1000.0]) @ [0.5, -0.05, 2.0]))
    stop = rng.exponential(2.0, size=400)
    return X, SurvivalOutcome.from_arrays(np.minimum(time, stop), time <= stop, "years")


def test_the_truth_lies_within_the_errors(simulated):
    model = CoxRegression().fit(*simulated)
    assert (np.abs(model.coef_ - [0.5, -0.05, 2.0]) < 3 * model.standard_error_).all()


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_scale_shift_order_and_clock_do_not_matter(simulated, penalty: float):
    X, outcome = simulated
    model = CoxRegression(penalty=penalty).fit(X, outcome)
    scaled = CoxRegression(penalty=penalty).fit(X * [2.0, 0.5, 100.0] + 7, outcome)
    np.testing.assert_allclose(scaled.coef_ * [2.0, 0.5, 100.0], model.coef_, rtol=1e-9)
    np.testing.assert_allclose(scaled.standard_error_ * [2.0, 0.5, 100.0], model.standard_error_, rtol=1e-9)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(
        CoxRegression(penalty=penalty).fit(X[order], outcome[order]).coef_, model.coef_, rtol=1e-9
    )
    squared = SurvivalOutcome(outcome.time**2, outcome.event, outcome.unit)
    np.testing.assert_allclose(CoxRegression(penalty=penalty).fit(X, squared).coef_, model.coef_, rtol=1e-9)


def test_without_ties_efron_is_breslow(simulated):
    efron, breslow = (CoxRegression(ties=ties).fit(*simulated) for ties in (Ties.EFRON, Ties.BRESLOW))
    np.testing.assert_allclose(efron.coef_, breslow.coef_, rtol=1e-12)
    np.testing.assert_allclose(efron.covariance_, breslow.covariance_, rtol=1e-12)


def test_a_ridge_solves_its_own_equation_and_shrinks(simulated):
    X, outcome = simulated
    sets = RiskSets.of(outcome, Ties.EFRON)
    scaled = ((X - X.mean(0)) / X.std(0))[sets.order]
    sizes = []
    for penalty in (0.01, 0.1, 1.0, 1e6):
        coef = CoxRegression(penalty=penalty).fit(X, outcome).coef_ * X.std(0)
        np.testing.assert_allclose(sets.gradient(scaled, scaled @ coef) / len(X), penalty * coef, atol=1e-10)
        sizes.append(np.linalg.norm(coef))
    assert sizes == sorted(sizes, reverse=True)
    prediction = CoxRegression(penalty=1e12).fit(X, outcome).predict_survival(X[:2])
    hazard = nelson_aalen(outcome).at(prediction.times.numpy())
    np.testing.assert_allclose(prediction.cumulative_hazard.numpy(), np.tile(hazard, (2, 1)), rtol=1e-6)


def test_summary_is_the_table_of_a_paper(simulated):
    X, outcome = simulated
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = CoxRegression().fit(frame, outcome)
    table = model.summary()
    assert list(table.index) == ["a", "b", "c"]
    assert list(table) == ["coef", "standard_error", "hazard_ratio", "lower", "upper", "z", "p", "separated"]
    assert not table["separated"].any()
    np.testing.assert_allclose(np.log(table["upper"] / table["lower"]), 2 * 1.959963984540054 * model.standard_error_)
    np.testing.assert_allclose(table["p"], [math.erfc(abs(z) / math.sqrt(2)) for z in table["z"]], rtol=1e-9)
    wide = model.summary(confidence=0.99)
    assert (wide["lower"] < table["lower"]).all()
    with pytest.raises(InvalidValueError, match="confidence"):
        model.summary(confidence=95.0)


def test_constant_and_dependent_columns_are_left_out(simulated):
    X, outcome = simulated
    full = np.column_stack([np.full(len(X), 3.7), X, X[:, 0] - 2 * X[:, 1], np.zeros(len(X))])
    model, plain = CoxRegression().fit(full, outcome), CoxRegression().fit(X, outcome)
    np.testing.assert_allclose(model.coef_[1:4], plain.coef_, rtol=1e-9)
    np.testing.assert_array_equal(model.coef_[[0, 4, 5]], 0.0)
    np.testing.assert_array_equal(np.isnan(model.standard_error_), [True, False, False, False, True, True])
    np.testing.assert_allclose(model.predict(full), plain.predict(X), rtol=1e-9)
    constant = CoxRegression().fit(np.ones((len(X), 2)), outcome)
    np.testing.assert_array_equal(constant.predict(np.ones((2, 2))), 0.0)
    assert constant.log_likelihood_ == constant.log_likelihood_null_


def test_one_hot_columns_of_every_level_can_be_fitted(simulated):
    X, outcome = simulated
    level = np.random.default_rng(1).integers(0, 3, len(X))
    every, first_left_out = np.eye(3)[level], np.eye(3)[level][:, :2]
    all_levels = CoxRegression().fit(every, outcome)
    assert all_levels.coef_[2] == 0.0
    np.testing.assert_allclose(all_levels.coef_[:2], CoxRegression().fit(first_left_out, outcome).coef_, rtol=1e-9)


def test_rows_censored_before_the_first_event_carry_no_coefficient():
    time = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    event = np.array([0, 0, 1, 1, 0, 1, 1])
    X = np.array([[0.3, 1], [0.1, 2], [0.9, 0], [0.2, 0], [0.8, 0], [0.5, 0], [0.1, 0]])
    model = CoxRegression().fit(X, (time, event))
    assert model.coef_[1] == 0.0
    assert np.isnan(model.standard_error_[1])


def test_more_covariates_than_instances_need_a_penalty():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 30)), (rng.exponential(size=20), np.ones(20, dtype=int))
    with pytest.raises(FitError, match="got 30 for 20. Set `penalty` > 0"):
        CoxRegression().fit(X, y)
    assert CoxRegression(penalty=0.1).fit(X, y).score(X, y) > 0.9


def test_a_separating_covariate_is_named():
    rng = np.random.default_rng(0)
    time, harmless = np.arange(1.0, 41.0), rng.normal(size=40)
    frame = pd.DataFrame({"harmless": harmless, "stage": (time <= 10).astype(float)})
    event = (time <= 10).astype(int)
    with pytest.warns(ConvergenceWarning, match="'stage' separates the events"):
        model = CoxRegression().fit(frame, (time, event))
    assert model.coef_[1] > 10
    table = model.summary()
    assert table["separated"].tolist() == [False, True]
    assert table.drop(columns="separated").loc["stage"].isna().all()
    assert table.loc["harmless", "lower"] < 1 < table.loc["harmless", "upper"]
    assert bool(np.isfinite(model.predict_survival(frame).survival.numpy()).all())
    CoxRegression(penalty=0.1).fit(frame, (time, event))


def test_columns_that_only_separate_together_are_both_without_a_ratio():
    rng = np.random.default_rng(1)
    time, noise = np.arange(1.0, 61.0), rng.normal(size=60)
    sum_of_both = np.where(time <= 20, 1.0, -1.0)
    frame = pd.DataFrame({"a": noise, "b": sum_of_both - noise, "harmless": rng.normal(size=60)})
    with pytest.warns(ConvergenceWarning, match="'[ab]' separates the events.*nor are those of '[ab]'"):
        model = CoxRegression().fit(frame, (time, (time <= 20).astype(int)))
    assert model.separated_.tolist() == [True, True, False]


def test_where_one_column_orders_all_events_the_others_have_no_ratio_either():
    time = np.arange(1.0, 31.0)
    frame = pd.DataFrame({"harmless": np.random.default_rng(2).normal(size=30), "order": -time})
    with pytest.warns(ConvergenceWarning, match="'order' separates the events"):
        model = CoxRegression().fit(frame, (time, np.ones(30, dtype=int)))
    assert model.separated_.all()
    assert model.summary()["hazard_ratio"].isna().all()


def test_a_separated_fit_is_saved_with_what_is_separated(tmp_path):
    time = np.arange(1.0, 41.0)
    frame = pd.DataFrame({"stage": (time <= 10).astype(float)})
    with pytest.warns(ConvergenceWarning):
        model = CoxRegression().fit(frame, (time, (time <= 10).astype(int)))
    loaded = load_estimator(save_estimator(model, tmp_path / "model"))
    pd.testing.assert_frame_equal(loaded.summary(), model.summary())


def test_a_strong_covariate_is_no_separation():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1))
    time = rng.exponential(np.exp(-5 * X[:, 0]))
    model = CoxRegression().fit(X, (time, np.ones(300, dtype=int)))
    assert model.coef_[0] == pytest.approx(5, abs=0.6)


@pytest.mark.parametrize("penalty", [-1.0, np.nan, np.inf])
def test_a_wrong_penalty_is_refused(simulated, penalty: float):
    with pytest.raises(InvalidValueError, match="penalty"):
        CoxRegression(penalty=penalty).fit(*simulated)


def test_far_away_rows_keep_valid_curves(simulated):
    X, outcome = simulated
    model = CoxRegression().fit(X, outcome)
    survival = model.predict_survival(np.array([[1e4, 50.0, 1000.0], [-1e4, 50.0, 1000.0]])).survival.numpy()
    np.testing.assert_array_equal(survival[0], 0.0)
    np.testing.assert_array_equal(survival[1], 1.0)


def test_many_covariates_and_many_rows_are_fitted():
    rng = np.random.default_rng(5)
    wide = rng.normal(size=(1900, 60))
    time = np.ceil(50 * rng.exponential(np.exp(-wide[:, 0])))
    model = CoxRegression().fit(wide, (time, np.ones(1900, dtype=int)))
    assert model.coef_[0] == pytest.approx(1.0, abs=0.1)
    long = rng.normal(size=(100_000, 2))
    time = rng.exponential(np.exp(-long[:, 0]))
    model = CoxRegression().fit(long, (time, np.ones(100_000, dtype=int)))
    np.testing.assert_allclose(model.coef_, [1.0, 0.0], atol=0.02)


def test_the_kaplan_meier_model_is_the_estimator_itself(simulated):
    X, outcome = simulated
    curve = kaplan_meier(outcome)
    prediction = KaplanMeierModel().fit(X, outcome).predict_survival(X[:1], [0.1, 1.0])
    np.testing.assert_allclose(prediction.survival[0].numpy(), curve.at(np.array([0.1, 1.0])), rtol=1e-12)
