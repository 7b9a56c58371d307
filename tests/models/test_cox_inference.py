"""Tests, robust errors, residuals and limits of Cox models: against R, lifelines, and slower second routes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import Limits, breslow_baseline, nelson_aalen
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.models.classical import CoxRegression
from survlens.models.cox_inference import (
    TimeTransform,
    dfbeta_residuals,
    likelihood_ratio_tests,
    martingale_residuals,
    proportional_hazards_test,
    scaled_schoenfeld_residuals,
    schoenfeld_residuals,
    score_residuals,
    survival_interval,
)
from survlens.models.newton import maximise
from survlens.models.partial_likelihood import RiskSets

Study = tuple[pd.DataFrame, SurvivalOutcome, dict]
Rows = tuple[np.ndarray, SurvivalOutcome]
FUNCTIONS = (
    *(martingale_residuals, score_residuals, dfbeta_residuals, schoenfeld_residuals, scaled_schoenfeld_residuals),
    *(proportional_hazards_test, likelihood_ratio_tests),
)


@pytest.fixture(params=["lung", "veteran", "gbsg"])
def study(shared: Callable[..., Path], request: pytest.FixtureRequest) -> Study:
    golden = json.loads(shared("golden", f"{request.param}.json").read_text())
    table = pd.read_csv(shared("golden", f"{request.param}.csv"))
    outcome = SurvivalOutcome.from_arrays(table["time"].to_numpy(), table["event"].to_numpy(), "days")
    return table[golden["covariates"]], outcome, golden


def drawn(seed: int, n: int = 60) -> Rows:
    """Many ties; entries, weights and strata."""
    rng = np.random.default_rng(seed)
    X, time = rng.normal(size=(n, 2)), rng.integers(1, 9, n).astype(float)
    entry, weight = time * rng.choice([0, 0, 0.25, 0.5], n), rng.choice([0.5, 1.0, 2.0, 3.0], n)
    event, stratum = rng.integers(0, 2, n), rng.integers(0, 2, n)
    return X, SurvivalOutcome.from_arrays(time, event, "days", entry=entry, weight=weight, stratum=stratum)


@pytest.fixture(scope="module")
def full() -> Rows:
    return drawn(7)


@pytest.fixture(scope="module")
def plain(full: Rows) -> Rows:
    X, outcome = full
    return X, SurvivalOutcome(outcome.time, outcome.event, outcome.unit)


@pytest.mark.parametrize("ties", list(Ties))
def test_the_proportional_hazards_test_is_that_of_r(study: Study, ties: Ties):
    X, outcome, golden = study
    model = CoxRegression(ties=ties).fit(X, outcome)
    table, expected = proportional_hazards_test(model, X, outcome), golden[ties.value]["zph_chisq"]
    assert list(table.index) == list(expected)
    np.testing.assert_allclose(table["statistic"], list(expected.values()), rtol=1e-11)
    np.testing.assert_array_equal(table["df"], [1] * X.shape[1] + [X.shape[1]])
    np.testing.assert_allclose(table["p"], chi2.sf(table["statistic"], table["df"]))


@pytest.mark.parametrize("ties", list(Ties))
def test_tests_of_the_model_follow_from_the_numbers_of_r(study: Study, ties: Ties):
    X, outcome, golden = study
    expected = golden[ties.value]
    model = CoxRegression(ties=ties).fit(X, outcome)
    table = model.tests()
    assert list(table.index) == ["likelihood_ratio", "wald", "score"]
    ratio = 2 * (expected["loglik"] - expected["loglik_null"])
    assert table.loc["likelihood_ratio", "statistic"] == pytest.approx(ratio, rel=1e-11)
    assert model.aic_ == pytest.approx(-2 * expected["loglik"] + 2 * X.shape[1], rel=1e-12)
    assert model.n_events_ == golden["events"]
    np.testing.assert_array_equal(table["df"], X.shape[1])
    np.testing.assert_allclose(table["p"], chi2.sf(table["statistic"], X.shape[1]))
    alone = CoxRegression(ties=ties).fit(X.iloc[:, :1], outcome)
    z = next(iter(alone.summary()["z"]))
    assert alone.tests().loc["wald", "statistic"] == pytest.approx(z**2, rel=1e-10)


@pytest.mark.parametrize("ties", list(Ties))
def test_the_score_test_is_a_quadratic_form_of_numerical_derivatives(full: Rows, ties: Ties):
    X, outcome = full
    sets = RiskSets.of(outcome, ties)

    def value(a: float, b: float) -> float:
        return float(sets.log_likelihood((X @ [a, b])[sets.order]))

    h = 1e-4
    slope = np.array([value(h, 0) - value(-h, 0), value(0, h) - value(0, -h)]) / (2 * h)
    corner = (value(h, h) - value(h, -h) - value(-h, h) + value(-h, -h)) / (4 * h**2)
    own = [(value(h, 0) - 2 * value(0, 0) + value(-h, 0)), (value(0, h) - 2 * value(0, 0) + value(0, -h))]
    bend = -np.array([[own[0] / h**2, corner], [corner, own[1] / h**2]])
    score = CoxRegression(ties=ties).fit(X, outcome).tests().loc["score", "statistic"]
    assert score == pytest.approx(slope @ np.linalg.solve(bend, slope), rel=1e-5)


def test_without_ties_the_score_test_of_one_group_is_the_log_rank_test():
    rng = np.random.default_rng(1)
    group, time, event = rng.integers(0, 2, 80), rng.exponential(size=80), rng.integers(0, 2, 80)
    observed, variance = 0.0, 0.0
    for u, g in zip(time[event > 0], group[event > 0], strict=True):
        share = group[time >= u].mean()
        observed, variance = observed + g - share, variance + share * (1 - share)
    score = CoxRegression().fit(group[:, None], (time, event)).tests().loc["score", "statistic"]
    assert score == pytest.approx(observed**2 / variance, rel=1e-10)


def test_a_penalised_fit_has_no_tests_but_an_aic(plain: Rows):
    X, outcome = plain
    model = CoxRegression(penalty=0.1).fit(X, outcome)
    with pytest.raises(InvalidValueError, match="`penalty` must be 0"):
        model.tests()
    for function in (proportional_hazards_test, likelihood_ratio_tests):
        with pytest.raises(InvalidValueError, match="penalty 0"):
            function(model, X, outcome)
    assert 0 < model.effective_parameters_ < 2
    assert model.aic_ == -2 * model.log_likelihood_ + 2 * model.effective_parameters_


def test_likelihood_ratios_of_covariates_are_those_of_fits_without_them(full: Rows):
    X, outcome = full
    wide = np.column_stack([X, X[:, 0] - X[:, 1]])
    model = CoxRegression().fit(wide, outcome)
    table = likelihood_ratio_tests(model, wide, outcome)
    for column in (0, 1):
        rest = CoxRegression().fit(X[:, [1 - column]], outcome)
        expected = 2 * (model.log_likelihood_ - rest.log_likelihood_)
        assert table["statistic"].iloc[column] == pytest.approx(expected, rel=1e-8)
    assert np.isnan(table[["statistic", "p"]].iloc[2].to_numpy(float)).all()
    np.testing.assert_array_equal(table["df"], [1, 1, 0])


# Coefficients and standard errors of lifelines 0.30.3: CoxPHFitter().fit(..., robust=True, cluster_col, weights_col,
# strata, fit_options={"precision": 1e-14}) on `lifelines_rows`, of which no two times are equal. Its robust errors with
# delayed entry leave the entries out, and with ties are approximate: these are held to numerical derivatives below.
LIFELINES = {
    "": ([1.1615338905547925, 0.2900839136772015], [0.3357337885069607, 0.2446829508422009]),
    "patients": ([1.1615338905547925, 0.2900839136772015], [0.3835183948755018, 0.21285757178438056]),
    "weight": ([1.025823686732768, 0.25296105561448573], [0.37322483722669475, 0.2524825867668147]),
    "weight patients": ([1.025823686732768, 0.25296105561448573], [0.42046590329048394, 0.2429171366860058]),
    "stratum patients": ([1.1131631674678604, 0.23552157204859317], [0.3667779678593812, 0.20905089982440403]),
    "stratum weight patients": ([0.9359476621556985, 0.20326132133259342], [0.3957756060718962, 0.2205271007548869]),
}


@pytest.mark.parametrize("what", LIFELINES)
def test_robust_errors_are_those_of_lifelines(what: str):
    i = np.arange(1, 61)
    X = np.column_stack([np.sin(i), np.cos(2.0 * i)])
    outcome = SurvivalOutcome.from_arrays(
        (5 + 4 * np.sin(7.0 * i)) * np.exp(-np.sin(i) / 2),
        (i % 3 > 0).astype(int),
        "days",
        weight=np.array([0.5, 1, 2, 3])[i % 4] if "weight" in what else None,
        stratum=i % 2 if "stratum" in what else None,
    )
    model = CoxRegression(robust=True).fit(X, outcome, groups=i // 3 if "patients" in what else None)
    coef, error = LIFELINES[what]
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-6)
    np.testing.assert_allclose(model.standard_error_, error, rtol=1e-6)


@pytest.mark.parametrize("ties", list(Ties))
def test_dfbeta_is_the_derivative_by_each_weight_and_makes_the_sandwich(full: Rows, ties: Ties):
    X, outcome = full
    n, step = len(X), 1e-5

    def coef(change: np.ndarray) -> np.ndarray:
        y = SurvivalOutcome(
            *(outcome.time, outcome.event, "days", outcome.entry),
            outcome.weights() + torch.from_numpy(change),
            outcome.stratum,
        )
        sets = RiskSets.of(y, ties)
        return maximise(sets, X[sets.order], start=model.coef_).coef

    model = CoxRegression(ties=ties, robust=True).fit(X, outcome)
    numerical = np.array([(coef(h) - coef(-h)) / (2 * step) for h in step * np.eye(n)])
    np.testing.assert_allclose(dfbeta_residuals(model, X, outcome), numerical, atol=1e-9)
    moved = outcome.weights().numpy()[:, None] * numerical
    np.testing.assert_allclose(model.covariance_, moved.T @ moved, rtol=1e-6)
    patient = np.arange(n) // 4
    together = np.array([moved[patient == k].sum(0) for k in range(n // 4)])
    clustered = CoxRegression(ties=ties, robust=True).fit(X, outcome, groups=patient)
    np.testing.assert_allclose(clustered.covariance_, together.T @ together, rtol=1e-6)
    np.testing.assert_allclose(clustered.model_covariance_, model.model_covariance_, rtol=1e-12)
    np.testing.assert_allclose(CoxRegression(ties=ties).fit(X, outcome).covariance_, model.model_covariance_)


def test_rows_copied_within_a_patient_say_nothing_new_to_a_robust_error(plain: Rows):
    X, outcome = plain
    index = np.repeat(np.arange(len(X)), 3)
    once = CoxRegression(ties=Ties.BRESLOW, robust=True).fit(X, outcome)
    thrice = CoxRegression(ties=Ties.BRESLOW, robust=True).fit(X[index], outcome[index], groups=index)
    np.testing.assert_allclose(thrice.coef_, once.coef_, rtol=1e-8)
    np.testing.assert_allclose(thrice.standard_error_, once.standard_error_, rtol=1e-8)
    np.testing.assert_allclose(thrice.model_covariance_ * 3, once.model_covariance_, rtol=1e-8)
    tests = [model.tests()["statistic"] for model in (once, thrice)]
    assert list(tests[0].index) == ["likelihood_ratio", "wald", "score", "robust_score"]
    np.testing.assert_allclose(tests[1] / tests[0], [3, 1, 3, 1], rtol=1e-7)


def test_a_sandwich_of_fewer_patients_than_covariates_tests_what_it_can(plain: Rows):
    _, outcome = plain
    X = np.random.default_rng(2).normal(size=(60, 4)) * [1e-6, 1.0, 1.0, 1e6]
    patient = np.arange(60) // 20
    model = CoxRegression(robust=True).fit(X, outcome, groups=patient)
    # The scores of three patients sum to 0 at the fit, so they span two directions; at zero they span three.
    assert list(model.tests()["df"]) == [4, 2, 4, 3]
    assert (model.tests()["statistic"] > 0).all()
    rescaled = CoxRegression(robust=True).fit(X * [1e6, 1.0, 1.0, 1e-6], outcome, groups=patient)
    np.testing.assert_allclose(rescaled.tests()["statistic"], model.tests()["statistic"], rtol=1e-5)


def test_one_event_time_has_nothing_to_say_about_time():
    X, time = np.array([[0.1], [1.3], [-0.4], [0.6], [-1.0]]), np.array([2.0, 2.0, 3.0, 4.0, 5.0])
    outcome = SurvivalOutcome.from_arrays(time, [1, 1, 0, 0, 0], "days")
    table = proportional_hazards_test(CoxRegression().fit(X, outcome), X, outcome)
    assert list(table["df"]) == [0, 0]
    assert table[["statistic", "p"]].isna().to_numpy().all()


def test_the_summary_says_which_errors_it_shows(full: Rows):
    X, outcome = full
    model, robust = CoxRegression().fit(X, outcome), CoxRegression(robust=True).fit(X, outcome)
    clustered = CoxRegression(robust=True).fit(X, outcome, groups=np.arange(60) // 2)
    tables = [fitted.summary() for fitted in (model, robust, clustered)]
    words = ["model-based", "robust, by row", "robust, clustered by 30 patients"]
    assert [table.attrs["covariance"] for table in tables] == words
    assert "model_standard_error" not in tables[0]
    np.testing.assert_array_equal(tables[1]["model_standard_error"], tables[0]["standard_error"])
    np.testing.assert_array_equal(tables[2]["standard_error"], np.sqrt(np.diag(clustered.covariance_)))
    with pytest.raises(InvalidValueError, match="one patient per row"):
        CoxRegression(robust=True).fit(X, outcome, groups=[1, 2])


@pytest.mark.parametrize("ties", list(Ties))
def test_residuals_sum_to_nothing(full: Rows, ties: Ties):
    X, outcome = full
    model = CoxRegression(ties=ties).fit(X, outcome)
    weight, died = outcome.weights().numpy(), outcome.numpy()[1] > 0
    assert weight @ martingale_residuals(model, X, outcome) == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(weight @ score_residuals(model, X, outcome), 0, atol=1e-6)
    schoenfeld = schoenfeld_residuals(model, X, outcome)
    np.testing.assert_array_equal(np.isnan(schoenfeld).any(1), ~died)
    scaled = scaled_schoenfeld_residuals(model, X, outcome)
    covariance = model.model_covariance_ * died.sum()
    np.testing.assert_allclose(scaled[died], schoenfeld[died] @ covariance + model.coef_, rtol=1e-10)


def test_martingale_residuals_are_events_less_the_hazard_met(plain: Rows):
    X, outcome = plain
    model = CoxRegression(ties=Ties.BRESLOW).fit(X, outcome)
    time, event = outcome.numpy()
    met = model.baseline_.at(time) * np.exp(model.predict(X))
    np.testing.assert_allclose(martingale_residuals(model, X, outcome), event - met, atol=1e-12)


def slow_means(X: np.ndarray, log_risk: np.ndarray, outcome: SurvivalOutcome, ties: Ties, row: int) -> np.ndarray:
    """Means of X over the risk set of the event of `row`, one for each event tied with it."""
    time, event = outcome.numpy()
    entry, stratum = outcome.entries().numpy(), outcome.strata().numpy()
    same = (stratum == stratum[row]) & (entry < time[row]) & (time >= time[row])
    tied = same & (time == time[row]) & (event > 0)
    means = []
    for rank in range(tied.sum()):
        share = rank / tied.sum() if ties is Ties.EFRON else 0.0
        weight = outcome.weights().numpy() * np.exp(log_risk) * (same - share * tied)
        means.append(weight @ X / weight.sum())
    return np.array(means)


@pytest.mark.parametrize("ties", list(Ties))
def test_schoenfeld_residuals_are_those_of_the_slow_means(full: Rows, ties: Ties):
    X, outcome = full
    model = CoxRegression(ties=ties).fit(X, outcome)
    residual = schoenfeld_residuals(model, X, outcome)
    for row in np.flatnonzero(outcome.numpy()[1] > 0):
        means = slow_means(X, model.predict(X), outcome, ties, row)
        np.testing.assert_allclose(residual[row], X[row] - means.mean(0), atol=1e-11)


@pytest.mark.parametrize("transform", [TimeTransform.IDENTITY, TimeTransform.LOG])
@pytest.mark.parametrize("ties", list(Ties))
def test_the_proportional_hazards_test_is_a_score_test_of_rows_cut_at_every_event(
    full: Rows, ties: Ties, transform: TimeTransform
):
    X, outcome = full
    model = CoxRegression(ties=ties).fit(X, outcome)
    time, event = outcome.numpy()
    entry = outcome.entries().numpy()
    moments = np.unique(time[event > 0])
    before = np.concatenate([[0.0], moments[:-1]])
    row, piece = np.nonzero((entry[:, None] < moments) & (time[:, None] >= moments))
    cut = SurvivalOutcome.from_arrays(
        moments[piece],
        event[row] * (time[row] == moments[piece]),
        "days",
        entry=np.maximum(before[piece], entry[row]),
        weight=outcome.weights().numpy()[row],
        stratum=outcome.strata().numpy()[row],
    )
    g = {TimeTransform.IDENTITY: moments, TimeTransform.LOG: np.log(moments)}[transform][piece]
    sets = RiskSets.of(cut, ties)
    columns = np.column_stack([X[row], X[row] * g[:, None]])[sets.order]
    log_risk = columns[:, :2] @ model.coef_
    score, information = sets.gradient(columns, log_risk), sets.information(columns, log_risk)
    table = proportional_hazards_test(model, X, outcome, transform=transform)
    for name, tested in {"x0": [2], "x1": [3], "GLOBAL": [2, 3]}.items():
        chosen = np.array([0, 1, *tested])
        expected = score[chosen] @ np.linalg.solve(information[np.ix_(chosen, chosen)], score[chosen])
        assert table.loc[name, "statistic"] == pytest.approx(expected, rel=1e-7)


def test_squared_times_change_the_test_by_the_clock_only(full: Rows):
    X, outcome = full
    squared = SurvivalOutcome(
        outcome.time**2, outcome.event, "days", outcome.entries() ** 2, outcome.weight, outcome.stratum
    )
    model, twin = (CoxRegression().fit(X, y) for y in (outcome, squared))
    for transform in TimeTransform:
        own = proportional_hazards_test(model, X, outcome, transform=transform)["statistic"]
        other = proportional_hazards_test(twin, X, squared, transform=transform)["statistic"]
        same = np.allclose(own, other, rtol=1e-6)
        assert same is (transform is not TimeTransform.IDENTITY)


def test_a_term_of_several_columns_is_tested_at_once(study: Study):
    X, outcome, _ = study
    model = CoxRegression().fit(X, outcome)
    names = list(X.columns)
    every = proportional_hazards_test(model, X, outcome)
    terms = {"first": names[:1], "rest": names[1:], "all": names}
    table = proportional_hazards_test(model, X, outcome, terms=terms)
    assert list(table.index) == ["first", "rest", "all", "GLOBAL"]
    assert table.loc["first", "statistic"] == pytest.approx(every["statistic"].iloc[0], rel=1e-10)
    assert table.loc["all", "statistic"] == pytest.approx(every.loc["GLOBAL", "statistic"], rel=1e-10)
    np.testing.assert_array_equal(table["df"], [1, len(names) - 1, len(names), len(names)])
    with pytest.raises(InvalidValueError, match="covariates of the fit; got 'nobody'"):
        proportional_hazards_test(model, X, outcome, terms={"one": ["nobody"]})


def test_a_changing_hazard_ratio_is_found_and_a_constant_one_is_not():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(1500, 2)) * [1, 0.7]
    x = X[:, 0] > 0
    # The hazard ratio of x is 4 up to time 0.5 and 1/4 after it.
    unit = rng.exponential(size=1500) * np.exp(-0.7 * X[:, 1])
    early, late = np.where(x, 2.0, 0.5), np.where(x, 0.5, 2.0)
    time = np.where(unit < 0.5 * early, unit / early, 0.5 + (unit - 0.5 * early) / late)
    design = np.column_stack([x, X[:, 1]])
    outcome = SurvivalOutcome.from_arrays(time, np.ones(1500, int), "years")
    table = proportional_hazards_test(CoxRegression().fit(design, outcome), design, outcome)
    assert table.loc["x0", "p"] < 1e-10
    assert table.loc["x1", "p"] > 0.01


def test_left_out_columns_do_not_disturb_inference(full: Rows):
    X, outcome = full
    wide = np.column_stack([np.ones(len(X)), X, X.sum(1)])
    model, lean = CoxRegression(robust=True).fit(wide, outcome), CoxRegression(robust=True).fit(X, outcome)
    table, expected = proportional_hazards_test(model, wide, outcome), proportional_hazards_test(lean, X, outcome)
    np.testing.assert_array_equal(table["df"], [0, 1, 1, 0, 2])
    np.testing.assert_allclose(table["statistic"].dropna(), expected["statistic"], rtol=1e-7)
    dfbeta = dfbeta_residuals(model, wide, outcome)
    np.testing.assert_allclose(dfbeta[:, 1:3], dfbeta_residuals(lean, X, outcome), atol=1e-10)
    np.testing.assert_array_equal(dfbeta[:, [0, 3]], 0.0)
    assert np.isnan(scaled_schoenfeld_residuals(model, wide, outcome)[:, [0, 3]]).all()
    np.testing.assert_allclose(model.tests()["statistic"], lean.tests()["statistic"], rtol=1e-7)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rows_that_are_not_of_the_fit_are_refused(full: Rows, function: Callable):
    X, outcome = full
    model = CoxRegression().fit(X, outcome)
    with pytest.raises(InvalidValueError, match="must be the rows of the fit"):
        function(model, X[::-1].copy(), outcome)
    with pytest.raises(InvalidValueError, match="one row per instance"):
        function(model, X[:-1], outcome)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tables_embeddings_and_inputs_give_the_same(full: Rows, function: Callable):
    X, outcome = full
    inputs = {"image": torch.from_numpy(X[:, :1].reshape(-1, 1, 1, 1)), "table": torch.from_numpy(X[:, 1:])}
    shapes = (X, torch.from_numpy(X), pd.DataFrame(X, columns=["a", "b"]), inputs)
    results = [np.asarray(function(CoxRegression(unit="days").fit(shape, outcome), shape, outcome)) for shape in shapes]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("ties", list(Ties))
@pytest.mark.parametrize("robust", [False, True])
def test_limits_of_a_curve_follow_from_numerical_derivatives(full: Rows, ties: Ties, robust: bool):
    X, outcome = full
    model = CoxRegression(ties=ties, robust=robust).fit(X, outcome)
    times, new, stratum = np.array([0.5, 2.0, 5.0, 7.5]), np.array([[0.3, -1.2], [2.0, 0.4]]), np.array([1, 0])
    found = survival_interval(model, X, outcome, new, times, stratum=stratum)
    for row, k in enumerate(stratum):
        own = np.flatnonzero(outcome.strata().numpy() == k)
        part = outcome[own]
        unstratified = SurvivalOutcome(part.time, part.event, "days", part.entry, part.weight)

        def hazard(coef: np.ndarray, own=own, part=unstratified, row=row) -> np.ndarray:
            return breslow_baseline((X[own] - new[row]) @ coef, part, ties=ties).at(times)

        slope = np.array([(hazard(model.coef_ + d) - hazard(model.coef_ - d)) / 2e-5 for d in 1e-5 * np.eye(2)])
        sets = RiskSets.of(unstratified, ties)
        denominator = sets.denominators(((X[own] - new[row]) @ model.coef_)[sets.order])
        moments = unstratified.numpy()[0][sets.order][sets.events]
        noise = np.array([(sets.count / denominator**2)[moments <= u].sum() for u in times])
        expected = np.sqrt(noise + np.einsum("ft,fg,gt->t", slope, model.covariance_, slope))
        np.testing.assert_allclose(found.std_error[row], expected, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(-np.log(found.survival[row]), hazard(model.coef_), rtol=1e-9, atol=1e-15)


def test_limits_without_covariates_are_those_of_nelson_and_aalen(plain: Rows):
    X, outcome = plain
    constant = np.ones((len(X), 1))
    model = CoxRegression(ties=Ties.BRESLOW).fit(constant, outcome)
    time, event = outcome.numpy()
    asked = np.unique(time[event > 0])
    deaths = np.array([((time == u) & (event > 0)).sum() for u in asked])
    at_risk = np.array([(time >= u).sum() for u in asked])
    error = np.sqrt(np.cumsum(deaths / at_risk**2))
    hazard, z = nelson_aalen(outcome).at(asked), 1.6448536269514722
    log = survival_interval(model, constant, outcome, constant[:1], asked, confidence=0.9)
    np.testing.assert_allclose(log.std_error[0], error, rtol=1e-12)
    np.testing.assert_allclose(log.lower[0], np.exp(-hazard - z * error), rtol=1e-10)
    np.testing.assert_allclose(log.upper[0], np.minimum(np.exp(-hazard + z * error), 1), rtol=1e-10)
    twice = survival_interval(model, constant, outcome, constant[:1], asked, confidence=0.9, limits=Limits.LOG_LOG)
    np.testing.assert_allclose(np.log(-np.log(twice.lower[0])), np.log(hazard) + z * error / hazard, rtol=1e-9)
    np.testing.assert_allclose(np.log(-np.log(twice.upper[0])), np.log(hazard) - z * error / hazard, rtol=1e-9)


def test_limits_hold_the_true_curve_about_as_often_as_they_say():
    rng, held = np.random.default_rng(0), []
    new, times = np.array([[0.0], [1.0]]), np.array([0.2, 0.7])
    truth = np.exp(-times * np.exp(new))
    for _ in range(100):
        X = rng.normal(size=(120, 1))
        life, stop = rng.exponential(np.exp(-X[:, 0])), rng.exponential(2.0, 120) + 0.8
        outcome = SurvivalOutcome.from_arrays(np.minimum(life, stop), life <= stop, "years")
        found = survival_interval(CoxRegression().fit(X, outcome), X, outcome, new, times, limits=Limits.LOG_LOG)
        held.append((found.lower <= truth) & (truth <= found.upper))
    assert (np.abs(np.mean(held, axis=0) - 0.95) < 0.065).all()


def test_limits_start_at_one_and_are_asked_for_rightly(full: Rows):
    X, outcome = full
    model = CoxRegression().fit(X, outcome)
    for limits in Limits:
        found = survival_interval(model, X, outcome, X[:3], [0.1, 4.0], stratum=1, limits=limits)
        np.testing.assert_array_equal(found.lower[:, 0], 1.0)
        np.testing.assert_array_equal(found.upper[:, 0], 1.0)
        assert (found.lower <= found.survival).all()
        assert (found.survival <= found.upper).all()
        assert found.unit == "days"
    with pytest.raises(InvalidValueError, match="`confidence`"):
        survival_interval(model, X, outcome, X[:3], [1.0], stratum=1, confidence=95)
    with pytest.raises(InvalidValueError, match="`stratum` must name"):
        survival_interval(model, X, outcome, X[:3], [1.0])
    with pytest.raises(InvalidValueError, match="rows of the fit"):
        survival_interval(model, X[::-1].copy(), outcome, X[:3], [1.0], stratum=0)
