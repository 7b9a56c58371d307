"""Kaplan-Meier and its kin against R, against slow definitions, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.strategies import Case, cases, outcomes, permutations, whole_outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import (
    EmptyRiskSetWarning,
    Limits,
    StepCurve,
    as_tensor,
    breslow_baseline,
    censoring_survival,
    kaplan_meier,
    log_breslow_baseline,
    nelson_aalen,
    reverse_kaplan_meier,
    survival_curve,
)
from survlens.core.outcome import SurvivalOutcome
from survlens.core.risk_sets import sums_over_ranges
from survlens.core.ties import Ties

few = settings(max_examples=25, deadline=None)
names = pytest.mark.parametrize("name", ["lung", "veteran", "gbsg"])


def golden_case(shared, name: str) -> tuple[dict, pd.DataFrame, SurvivalOutcome]:
    golden = json.loads(shared("golden", f"{name}.json").read_text())
    table = pd.read_csv(shared("golden", f"{name}.csv"))
    return golden, table, SurvivalOutcome.from_arrays(table["time"].to_numpy(), table["event"].to_numpy(), "days")


def close_where_r_has_numbers(found: np.ndarray, expected: list) -> None:
    """R writes 'NA' where a limit is not defined; there we only ask for a value that is no nonsense."""
    numbers = np.array([np.nan if value == "NA" else value for value in expected], float)
    defined = ~np.isnan(numbers)
    assert defined.any()
    np.testing.assert_allclose(found[defined], numbers[defined], atol=1e-8, rtol=1e-8)
    rest = found[~defined]
    assert (np.isnan(rest) | (rest == 1.0) | (rest == 0.0)).all()


@names
def test_kaplan_meier_and_both_kinds_of_limits_equal_those_of_r(name: str, shared) -> None:
    golden, _, outcome = golden_case(shared, name)
    expected = golden["kaplan_meier"]
    curve = kaplan_meier(outcome)
    assert curve.times.tolist() == expected["time"]
    assert curve.n_risk.tolist() == expected["n_risk"]
    close_where_r_has_numbers(curve.survival, expected["survival"])
    alive = curve.survival > 0
    np.testing.assert_allclose(
        curve.std_error[alive], np.array(expected["se_log"], object)[alive].astype(float), atol=1e-8
    )
    close_where_r_has_numbers(curve.lower, expected["lower"])
    close_where_r_has_numbers(curve.upper, expected["upper"])
    log_log = kaplan_meier(outcome, limits=Limits.LOG_LOG)
    close_where_r_has_numbers(log_log.lower, golden["kaplan_meier_log_log"]["lower"])
    close_where_r_has_numbers(log_log.upper, golden["kaplan_meier_log_log"]["upper"])


@names
@pytest.mark.parametrize("ties", list(Ties))
def test_the_baseline_hazard_equals_that_of_r(name: str, ties: Ties, shared) -> None:
    golden, table, outcome = golden_case(shared, name)
    fit = golden[ties.value]
    score = table[golden["covariates"]].to_numpy(float) @ np.array([fit["coef"][c] for c in golden["covariates"]])
    expected = fit["cumulative_baseline_hazard"]
    found = breslow_baseline(score, outcome, ties=ties).at(np.array(expected["time"], float))
    np.testing.assert_allclose(found, expected["hazard"], rtol=1e-8, atol=1e-12)


@few
@given(outcome=outcomes(max_size=20))
def test_kaplan_meier_is_the_product_over_event_times(outcome: SurvivalOutcome) -> None:
    time, event = outcome.numpy()
    curve = kaplan_meier(outcome)
    for asked in (0.001, *np.unique(time), 200.0):
        product = 1.0
        for u in sorted(set(time[event > 0])):
            if u <= asked:
                product *= 1 - ((time == u) & (event > 0)).sum() / (time >= u).sum()
        assert float(curve.at(asked)) == pytest.approx(product, abs=1e-12)
        assert float(curve.before(asked)) >= float(curve.at(asked)) - 1e-15


@few
@given(outcome=outcomes(max_size=20))
def test_limits_enclose_a_curve_that_never_rises(outcome: SurvivalOutcome) -> None:
    for limits in Limits:
        curve = kaplan_meier(outcome, limits=limits)
        assert (np.diff(curve.survival) <= 1e-15).all()
        inside = curve.survival > 1e-12
        assert (curve.lower[inside] <= curve.survival[inside] + 1e-12).all()
        assert (curve.upper[inside] >= curve.survival[inside] - 1e-12).all()
        assert ((curve.upper[inside] <= 1) & (curve.lower[inside] >= 0)).all()


@few
@given(outcome=outcomes(max_size=20), data=st.data())
def test_row_order_changes_nothing(outcome: SurvivalOutcome, data: st.DataObject) -> None:
    other = outcome[data.draw(permutations(len(outcome)))]
    for estimate in (kaplan_meier, reverse_kaplan_meier):
        np.testing.assert_array_equal(estimate(outcome).survival, estimate(other).survival)
    np.testing.assert_array_equal(nelson_aalen(outcome).values, nelson_aalen(other).values)


@few
@given(outcome=outcomes(max_size=20))
def test_survival_and_censoring_survival_share_the_observed_curve(outcome: SurvivalOutcome) -> None:
    # With events before censorings at one time, S(t) G(t) is the share still under observation after t.
    time, _ = outcome.numpy()
    grid = np.unique(time)
    product = kaplan_meier(outcome).at(grid) * censoring_survival(outcome).at(grid)
    np.testing.assert_allclose(product, [(time > t).mean() for t in grid], atol=1e-12)


def test_by_hand() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 2.0, 3.0, 4.0], [1, 1, 0, 0, 1], "days")
    curve = kaplan_meier(outcome)
    np.testing.assert_allclose(curve.survival, [0.8, 0.6, 0.6, 0.0], atol=1e-15)
    np.testing.assert_allclose(nelson_aalen(outcome).values, [0.2, 0.45, 0.45, 1.45])
    censoring = censoring_survival(outcome)
    np.testing.assert_allclose(censoring.at(np.array([1.0, 2.0, 3.0, 4.0])), [1, 2 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(censoring.before(np.array([2.0, 3.0])), [1, 2 / 3])
    assert float(curve.at(0.5)) == 1.0
    assert float(curve.before(1.0)) == 1.0


def test_a_median_on_a_flat_stretch_is_its_middle() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1], "days")
    curve = kaplan_meier(outcome)
    assert curve.quantile(0.5) == 2.5
    assert curve.quantile(0.4) == 2.0
    assert kaplan_meier(SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "days")).quantile(0.5) == np.inf


def test_limits_of_a_median_stand_around_it(shared) -> None:
    _, _, outcome = golden_case(shared, "lung")
    curve = kaplan_meier(outcome)
    lower, upper = curve.quantile_limits(0.5)
    assert lower < curve.quantile(0.5) < upper


def test_without_events_survival_is_one() -> None:
    curve = kaplan_meier(SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "days"))
    assert curve.survival.tolist() == curve.lower.tolist() == curve.upper.tolist() == [1.0, 1.0]


def test_a_step_curve_is_right_continuous_and_asked_for_its_left_limit() -> None:
    curve = StepCurve(np.array([1.0, 2.0]), np.array([0.7, 0.4]), 1.0, "days")
    assert curve.at(np.array([0.5, 1.0, 1.5, 2.0, 9.0])).tolist() == [1.0, 0.7, 0.7, 0.4, 0.4]
    assert curve.before(np.array([0.5, 1.0, 1.5, 2.0, 9.0])).tolist() == [1.0, 1.0, 0.7, 0.7, 0.4]
    times, values = as_tensor(curve)
    assert (times.dtype, values.tolist()) == (torch.float64, [0.7, 0.4])


def baseline_by_definition(log_risk: np.ndarray, outcome: SurvivalOutcome, ties: Ties) -> tuple[list, list]:
    time, event = outcome.numpy()
    total, values, times = 0.0, [], sorted(set(time[event > 0]))
    for u in times:
        at_risk = np.exp(log_risk[time >= u]).sum()
        tied = np.exp(log_risk[(time == u) & (event > 0)])
        for rank in range(len(tied)):
            total += 1 / (at_risk - (rank / len(tied) * tied.sum() if ties is Ties.EFRON else 0))
        values.append(total)
    return times, values


@pytest.mark.parametrize("ties", list(Ties))
@few
@given(case=cases(max_size=20))
def test_the_baseline_hazard_equals_its_definition(ties: Ties, case: Case) -> None:
    times, values = baseline_by_definition(case.log_risk.numpy(), case.outcome, ties)
    for log_risk in (case.log_risk, case.log_risk.numpy()):
        curve = breslow_baseline(log_risk, case.outcome, ties=ties)
        assert curve.times.tolist() == times
        np.testing.assert_allclose(curve.values, values, rtol=1e-10)
        assert (curve.initial, curve.unit) == (0.0, case.outcome.unit)


@pytest.mark.parametrize("ties", list(Ties))
@few
@given(case=cases(max_size=20), shift=st.floats(-1000, 1000))
def test_a_shift_of_the_log_risks_shifts_the_log_baseline(ties: Ties, case: Case, shift: float) -> None:
    curve = log_breslow_baseline(case.log_risk, case.outcome, ties=ties)
    shifted = log_breslow_baseline(case.log_risk + shift, case.outcome, ties=ties)
    np.testing.assert_allclose(shifted.values, curve.values - shift, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("ties", list(Ties))
def test_log_risks_a_thousand_apart_lose_no_baseline(ties: Ties) -> None:
    log_risk = np.array([1000.0, 1000.0, 0.0, -1000.0, -1000.0])
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0, 4.0], [1, 1, 1, 1, 1], "days")
    curve = log_breslow_baseline(log_risk, outcome, ties=ties)
    last = {Ties.EFRON: np.log(1 / 2 + 1), Ties.BRESLOW: 0.0}[ties]
    expected = [-1000 - np.log(2), -1000 + np.log(1.5), 0.0, 1000 + last]
    np.testing.assert_allclose(curve.values, expected, rtol=1e-13, atol=1e-12)
    assert breslow_baseline(log_risk, outcome, ties=ties).values[-1] == np.inf


def test_a_baseline_without_events_is_empty() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "days")
    curve = breslow_baseline(np.zeros(2), outcome)
    assert (len(curve.times), float(curve.at(5.0))) == (0, 0.0)


def test_lengths_and_values_are_checked() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "days")
    with pytest.raises(InvalidValueError, match="one value per instance"):
        breslow_baseline(np.zeros(3), outcome)
    with pytest.raises(InvalidValueError, match="must be finite"):
        breslow_baseline(np.array([0.0, np.nan]), outcome)
    with pytest.raises(InvalidValueError, match="`confidence`"):
        kaplan_meier(outcome, confidence=95)


@names
def test_censoring_weights_reproduce_the_null_brier_score_of_riskregression(name: str, shared) -> None:
    golden, _, outcome = golden_case(shared, name)
    time, event = outcome.numpy()
    survival, censoring = kaplan_meier(outcome), censoring_survival(outcome)
    for horizon, expected in zip(golden["score"]["times"], golden["score"]["brier_null"], strict=True):
        risk = 1 - float(survival.at(horizon))
        cases_ = (time <= horizon) & (event > 0)
        weight_case = 1 / np.where(cases_, censoring.before(time), 1.0)
        squares = np.where(cases_, (1 - risk) ** 2 * weight_case, 0.0)
        squares += np.where(time > horizon, risk**2 / float(censoring.at(horizon)), 0.0)
        assert squares.mean() == pytest.approx(expected, abs=1e-8)


whole = whole_outcomes(max_size=15)
early_zero = pytest.mark.filterwarnings(f"ignore::{EmptyRiskSetWarning.__module__}.{EmptyRiskSetWarning.__qualname__}")


def product_by_definition(outcome: SurvivalOutcome, flagged: np.ndarray, gone: np.ndarray) -> list[float]:
    """The product over times of 1 - flagged / at risk, where `gone` have left before those flagged at their time."""
    time, _ = outcome.numpy()
    entry, weight = outcome.entries().numpy(), outcome.weights().numpy()
    values, product = [], 1.0
    for u in np.unique(time):
        at_risk = (entry < u) & (time >= u) & ~(gone & (time == u))
        rest = at_risk & ~(flagged & (time == u))
        if at_risk.any():
            product *= weight[rest].sum() / weight[at_risk].sum()
        values.append(product)
    return values


@early_zero
@few
@given(outcome=whole)
def test_curves_with_entries_and_weights_equal_their_definition(outcome: SurvivalOutcome) -> None:
    time, event = outcome.numpy()
    died, nobody = event > 0, np.zeros(len(outcome), bool)
    curve = kaplan_meier(outcome)
    truth = product_by_definition(outcome, died, nobody)
    np.testing.assert_allclose(curve.survival, truth, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(survival_curve(outcome).values, truth, rtol=1e-12, atol=1e-14)
    assert ((curve.survival == 0) == (np.array(truth) == 0)).all()
    censoring = product_by_definition(outcome, ~died, died)
    np.testing.assert_allclose(reverse_kaplan_meier(outcome).survival, censoring, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(censoring_survival(outcome).values, censoring, rtol=1e-12, atol=1e-14)
    entry, weight = outcome.entries().numpy(), outcome.weights().numpy()
    jumps = [weight[(time == u) & died].sum() / weight[(entry < u) & (time >= u)].sum() for u in np.unique(time)]
    np.testing.assert_allclose(nelson_aalen(outcome).values, np.cumsum(jumps), rtol=1e-12)


@early_zero
@few
@given(outcome=whole, times=st.lists(st.integers(1, 4), min_size=15, max_size=15))
def test_whole_weights_are_repeated_rows(outcome: SurvivalOutcome, times: list[int]) -> None:
    count = torch.tensor(times[: len(outcome)])
    heavy, single = replace(outcome, weight=count.double()), replace(outcome, weight=None)
    repeated = single[torch.arange(len(outcome)).repeat_interleave(count)]
    for estimate in (kaplan_meier, reverse_kaplan_meier):
        found, expected = estimate(heavy), estimate(repeated)
        np.testing.assert_allclose(found.n_risk, expected.n_risk)
        np.testing.assert_allclose(found.survival, expected.survival, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found.std_error, expected.std_error, rtol=1e-10)
        np.testing.assert_allclose(found.upper, expected.upper, rtol=1e-10)


@few
@given(outcome=outcomes(max_size=20))
def test_entries_at_the_origin_and_weights_of_one_change_nothing(outcome: SurvivalOutcome) -> None:
    n = len(outcome)
    zeros, ones = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    for same in (
        replace(outcome, entry=zeros),
        replace(outcome, weight=ones),
        replace(outcome, entry=zeros, weight=ones),
    ):
        for estimate in (kaplan_meier, reverse_kaplan_meier):
            np.testing.assert_allclose(estimate(same).survival, estimate(outcome).survival, rtol=1e-13)
            np.testing.assert_allclose(estimate(same).lower, estimate(outcome).lower, rtol=1e-13)
        for ties in Ties:
            found = breslow_baseline(zeros.numpy(), same, ties=ties).values
            np.testing.assert_allclose(found, breslow_baseline(zeros.numpy(), outcome, ties=ties).values, rtol=1e-13)


def test_survival_that_falls_to_zero_before_others_enter_is_told() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 3.0, 4.0], [1, 1, 0], "days", entry=[0, 2, 2])
    for estimate in (kaplan_meier, survival_curve):
        with pytest.warns(EmptyRiskSetWarning, match=r"falls to 0 at 1 days .* 2 instances .* later origin"):
            assert estimate(outcome).at(3.5) == 0.0
    assert reverse_kaplan_meier(outcome).survival.tolist() == [1.0, 1.0, 0.0]
    # At the last time nobody is left to come, and that is no surprise.
    assert kaplan_meier(outcome[[1]]).survival.tolist() == [0.0]


def test_delayed_entry_by_hand() -> None:
    outcome = SurvivalOutcome.from_arrays([2, 4, 5, 6], [1, 1, 0, 1], "days", entry=[0, 0, 2, 3])
    curve = kaplan_meier(outcome)
    assert curve.n_risk.tolist() == [2, 3, 2, 1]  # who enters at 2 is not at risk at 2
    np.testing.assert_allclose(curve.survival, [1 / 2, 1 / 3, 1 / 3, 0], atol=1e-15)


def whole_baseline_by_definition(log_risk: np.ndarray, outcome: SurvivalOutcome, ties: Ties) -> list[float]:
    time, event = outcome.numpy()
    entry, weight = outcome.entries().numpy(), outcome.weights().numpy()
    share, total, values = weight * np.exp(log_risk), 0.0, []
    for u in np.unique(time[event > 0]):
        tied = (time == u) & (event > 0)
        at_risk, d = share[(entry < u) & (time >= u)].sum(), tied.sum()
        for rank in range(d):
            total += weight[tied].mean() / (at_risk - (rank / d * share[tied].sum() if ties is Ties.EFRON else 0))
        values.append(total)
    return values


@pytest.mark.parametrize("ties", list(Ties))
@few
@given(case=cases(max_size=15, drawn=whole))
def test_the_baseline_with_entries_and_weights_equals_its_definition(ties: Ties, case: Case) -> None:
    one = replace(case.outcome, stratum=None)
    for outcome in (one, replace(one, entry=None), replace(one, weight=None)):
        found = breslow_baseline(case.log_risk, outcome, ties=ties)
        expected = whole_baseline_by_definition(case.log_risk.numpy(), outcome, ties)
        np.testing.assert_allclose(found.values, expected, rtol=1e-10)
    for shift in (-1000, 1000):
        log_values = log_breslow_baseline(case.log_risk + shift, one, ties=ties).values
        np.testing.assert_allclose(log_values, log_breslow_baseline(case.log_risk, one, ties=ties).values - shift)


@pytest.mark.parametrize("ties", list(Ties))
@few
@given(case=cases(max_size=15, scale=400.0, drawn=whole))
def test_log_risks_a_thousand_apart_lose_no_baseline_under_delayed_entry(ties: Ties, case: Case) -> None:
    outcome = replace(case.outcome, stratum=None, entry=torch.zeros(len(case), dtype=torch.float64))
    found = log_breslow_baseline(case.log_risk, outcome, ties=ties).values
    expected = log_breslow_baseline(case.log_risk, replace(outcome, entry=None), ties=ties).values
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-10)


def test_a_baseline_of_several_strata_is_refused_and_of_one_is_not() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 1, 1], "days", stratum=[4, 9, 4])
    with pytest.raises(InvalidValueError, match=r"one stratum.*got 2.*outcome\[outcome.stratum == 4\]"):
        breslow_baseline(np.zeros(3), outcome)
    one = breslow_baseline(np.zeros(2), outcome[outcome.strata() == 4])
    np.testing.assert_allclose(one.values, [0.5, 1.5])
    # Curves pool strata.
    np.testing.assert_allclose(kaplan_meier(outcome).survival, [2 / 3, 1 / 3, 0], atol=1e-15)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 33])
def test_sums_over_ranges_equal_a_table_of_who_covers_what(size: int) -> None:
    random = np.random.default_rng(size)
    first, last, values = random.integers(0, size, 50), random.integers(-1, size, 50), random.random(50)
    covers = (first[:, None] <= np.arange(size)) & (np.arange(size) <= last[:, None])
    np.testing.assert_allclose(sums_over_ranges(first, last, values, size), values @ covers, rtol=1e-13)
