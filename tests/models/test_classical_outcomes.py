"""Delayed entry, weights and strata in Cox regression: slow likelihoods, and laws that tie one of them to another."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.strategies import Case, cases, whole_outcomes
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.nonparametric import breslow_baseline, kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.pair_counts import pair_counts
from survlens.core.ties import Ties
from survlens.models.classical import CoxRegression, KaplanMeierModel
from survlens.models.estimator_files import load_estimator, save_estimator
from survlens.models.forest import RandomSurvivalForest
from survlens.models.late_fusion import LateFusion
from survlens.models.partial_likelihood import RiskSets
from survlens.models.penalised import LassoCox, PartialRidgeCox, RidgeCox
from survlens.models.risk_ranges import EnteredLate

Rows = tuple[np.ndarray, SurvivalOutcome]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Tied times with entries, weights and two strata of different baselines."""
    rng = np.random.default_rng(8)
    X, stratum = rng.normal(size=(150, 2)), rng.integers(0, 2, 150) * 5
    life = np.ceil(12 * rng.exponential(np.exp(-X @ [0.8, -0.4])) * (1 + stratum))
    stop = np.ceil(60 * rng.exponential(size=150))
    time, event = np.minimum(life, stop), (life <= stop).astype(int)
    entry, weight = np.floor(time * rng.choice([0, 0, 0.3, 0.6], 150)), rng.choice([0.5, 1.0, 2.0, 3.5], 150)
    return X, SurvivalOutcome.from_arrays(time, event, "days", entry=entry, weight=weight, stratum=stratum)


def without(outcome: SurvivalOutcome, *parts: str) -> SurvivalOutcome:
    left = {name: getattr(outcome, name) for name in ("entry", "weight", "stratum") if name not in parts}
    return SurvivalOutcome(outcome.time, outcome.event, outcome.unit, **left)


def slow_log_likelihood(log_risk: np.ndarray, outcome: SurvivalOutcome, ties: Ties) -> float:
    """One event after the other, its risk set and its tie picked from all rows."""
    time, event = outcome.numpy()
    entry, weight, stratum = outcome.entries().numpy(), outcome.weights().numpy(), outcome.strata().numpy()
    total = 0.0
    for k, moment in {(k, u) for k, u, d in zip(stratum, time, event, strict=True) if d}:
        died = (time == moment) & (event > 0) & (stratum == k)
        at_risk = (stratum == k) & (entry < moment) & (time >= moment)
        whole, tied = (np.sum((weight * np.exp(log_risk))[chosen]) for chosen in (at_risk, died))
        total += np.sum((weight * log_risk)[died])
        for rank in range(died.sum()):
            total -= weight[died].mean() * math.log(whole - (rank / died.sum() * tied if ties is Ties.EFRON else 0))
    return total


@settings(max_examples=40, deadline=None)
@given(cases(width=2, scale=1.0, drawn=whole_outcomes(max_size=20)), st.sampled_from(Ties))
def test_likelihood_and_derivatives_are_those_of_the_slow_one(case: Case, ties: Ties):
    X, outcome, coef = case.embedding.numpy(), case.outcome, np.array([0.7, -1.1])
    if not outcome.n_events:
        return
    sets = RiskSets.of(outcome, ties)
    ordered = X[sets.order]
    log_risk = ordered @ coef
    expected = slow_log_likelihood(X @ coef, outcome, ties)
    assert float(sets.log_likelihood(log_risk)) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    step = 1e-5 * np.eye(2)
    slope = [
        (slow_log_likelihood(X @ (coef + d), outcome, ties) - slow_log_likelihood(X @ (coef - d), outcome, ties)) / 2e-5
        for d in step
    ]
    gradient = sets.gradient(ordered, log_risk)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-5)
    bend = [
        (sets.gradient(ordered, ordered @ (coef - d)) - sets.gradient(ordered, ordered @ (coef + d))) / 2e-5
        for d in step
    ]
    np.testing.assert_allclose(sets.information(ordered, log_risk), bend, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sets.weight @ sets.score_residuals(ordered, log_risk), gradient, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 30))
def test_sums_over_ranges_are_products_with_a_matrix_of_ones(data: st.DataObject, n_rows: int, n_groups: int):
    bounds = st.lists(st.integers(0, n_groups), min_size=n_rows, max_size=n_rows).map(np.array)
    first, end = data.draw(bounds), data.draw(bounds)
    ranges = EnteredLate.of(first, end, n_groups)
    group = np.arange(n_groups)[:, None]
    dense = ((group >= first) & (group < end)).astype(float)
    rng = np.random.default_rng(0)
    for trailing in ((), (3,)):
        values, rates = rng.normal(size=(n_rows, *trailing)), rng.normal(size=(n_groups, *trailing))
        np.testing.assert_allclose(ranges.over_risk_sets(values), dense @ values, atol=1e-12)
        np.testing.assert_allclose(ranges.over_groups(rates), dense.T @ rates, atol=1e-12)
    np.testing.assert_array_equal(ranges.ever(), dense.any(0))


def test_risk_sets_of_low_risk_are_not_lost_behind_those_of_high_risk():
    # Rows of risk e^40 enter at 10, after all the events at 1 .. 9 of rows of risk 1: differences of sums give 0 there.
    time = np.concatenate([np.arange(1.0, 10.0), [20.0, 30.0]])
    entry = np.concatenate([np.zeros(9), [10.0, 10.0]])
    log_risk = np.concatenate([np.zeros(9), [40.0, 40.0]])
    outcome = SurvivalOutcome.from_arrays(time, np.ones(11, int), "days", entry=entry)
    sets = RiskSets.of(outcome, Ties.EFRON)
    assert float(sets.log_likelihood(log_risk[sets.order])) == pytest.approx(
        -math.log(math.factorial(9)) - math.log(2), rel=1e-13
    )
    residual = np.empty(11)
    residual[sets.order] = sets.martingale_residuals(log_risk[sets.order])
    expected = 1 - np.cumsum(1 / np.arange(9.0, 0.0, -1))
    np.testing.assert_allclose(residual, [*expected, 0.5, -0.5], rtol=1e-12)


def test_strata_of_far_apart_risks_do_not_disturb_each_other():
    stratum = np.repeat([0, 1], 20)
    time, event = np.tile(np.arange(1.0, 21.0), 2), np.ones(40, int)
    outcome = SurvivalOutcome.from_arrays(time, event, "days", stratum=stratum)
    sets = RiskSets.of(outcome, Ties.EFRON)
    apart = float(sets.log_likelihood(np.where(stratum == 1, 2000.0, -2000.0)[sets.order]))
    assert apart == pytest.approx(-2 * math.lgamma(21), rel=1e-12)


def same_fit(one: CoxRegression, other: CoxRegression, rtol: float = 1e-8) -> None:
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=rtol)
    np.testing.assert_allclose(one.covariance_, other.covariance_, rtol=rtol)


def test_a_weight_of_two_is_a_row_that_stands_twice(rows: Rows):
    X, outcome = rows
    times = np.random.default_rng(0).integers(1, 4, len(X))
    weighted = SurvivalOutcome.from_arrays(
        outcome.time, outcome.event, "days", entry=outcome.entry, weight=times, stratum=outcome.stratum
    )
    index = np.repeat(np.arange(len(X)), times)
    repeated = without(outcome, "weight")[index]
    for penalty in (0.0, 0.1):
        model = CoxRegression(ties=Ties.BRESLOW, penalty=penalty).fit(X, weighted)
        twin = CoxRegression(ties=Ties.BRESLOW, penalty=penalty).fit(X[index], repeated)
        same_fit(model, twin)
        np.testing.assert_allclose(model.baseline_hazard_, twin.baseline_hazard_, rtol=1e-8)
        assert model.log_likelihood_ == pytest.approx(twin.log_likelihood_, rel=1e-10)
    by_row = CoxRegression(ties=Ties.BRESLOW, robust=True)
    same_fit(by_row.fit(X, weighted), CoxRegression(ties=Ties.BRESLOW, robust=True).fit(X[index], repeated, index))
    ridge = RidgeCox(ties=Ties.BRESLOW, penalties=4, folds=3).fit(X, weighted)
    twin = RidgeCox(ties=Ties.BRESLOW, penalties=4, folds=3).fit(X[index], repeated, groups=index)
    np.testing.assert_allclose(ridge.penalties_, twin.penalties_, rtol=1e-10)
    np.testing.assert_allclose(ridge.deviance_, twin.deviance_, rtol=1e-5)
    np.testing.assert_allclose(ridge.coef_path_, twin.coef_path_, rtol=1e-6)


def test_the_scale_of_weights_changes_the_model_covariance_only(rows: Rows):
    X, outcome = rows
    tenfold = SurvivalOutcome(
        outcome.time, outcome.event, "days", outcome.entry, 10 * outcome.weights(), outcome.stratum
    )
    model, scaled = (CoxRegression(robust=True).fit(X, y) for y in (outcome, tenfold))
    same_fit(model, scaled)
    np.testing.assert_allclose(scaled.model_covariance_, model.model_covariance_ / 10, rtol=1e-8)
    np.testing.assert_allclose(scaled.baseline_hazard_, model.baseline_hazard_, rtol=1e-8)


@pytest.mark.parametrize("ties", list(Ties))
def test_follow_up_cut_in_two_gives_the_same_fit(rows: Rows, ties: Ties):
    X, outcome = rows
    time, event = outcome.numpy()
    entry, cut = outcome.entries().numpy(), 7.5
    later = np.flatnonzero((entry < cut) & (time > cut))
    index = np.concatenate([np.arange(len(X)), later])
    split = SurvivalOutcome.from_arrays(
        np.concatenate([np.where((entry < cut) & (time > cut), cut, time), time[later]]),
        np.concatenate([np.where((entry < cut) & (time > cut), 0, event), event[later]]),
        "days",
        entry=np.concatenate([entry, np.full(len(later), cut)]),
        weight=outcome.weights()[index],
        stratum=outcome.strata()[index],
    )
    for robust in (False, True):
        model = CoxRegression(ties=ties, robust=robust).fit(X, outcome, groups=np.arange(len(X)))
        cut_up = CoxRegression(ties=ties, robust=robust).fit(X[index], split, groups=index)
        same_fit(model, cut_up)
        assert model.log_likelihood_ == pytest.approx(cut_up.log_likelihood_, rel=1e-12)
    for stratum in (0, 5):
        known = model.baseline_of(stratum).times
        np.testing.assert_allclose(
            cut_up.baseline_of(stratum).at(known) * np.exp((model.centre_ - cut_up.centre_) @ model.coef_),
            model.baseline_of(stratum).values,
            rtol=1e-8,
        )


def test_entry_before_everything_weight_one_and_one_stratum_change_nothing(rows: Rows):
    X, outcome = rows
    plain = without(outcome, "entry", "weight", "stratum")
    n = len(X)
    full = SurvivalOutcome.from_arrays(
        plain.time, plain.event, "days", entry=np.zeros(n), weight=np.ones(n), stratum=np.full(n, 3)
    )
    model, twin = CoxRegression().fit(X, plain), CoxRegression().fit(X, full)
    same_fit(model, twin, 1e-10)
    np.testing.assert_allclose(twin.baseline_hazard_, model.baseline_hazard_, rtol=1e-10)
    times = [1.0, 10.0, 20.0]
    survival = twin.predict_survival(X, times, stratum=3).survival
    assert torch.allclose(survival, model.predict_survival(X, times).survival, rtol=1e-10)
    assert twin.score(X, SurvivalOutcome(plain.time, plain.event, "days", stratum=full.stratum)) == model.score(
        X, plain
    )


def test_delayed_entry_recovers_the_truth_where_ignoring_it_does_not():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(6000, 1))
    life, entry = rng.exponential(np.exp(-X[:, 0])), rng.exponential(0.7, 6000)
    seen = life > entry
    outcome = SurvivalOutcome.from_arrays(life[seen], np.ones(seen.sum(), int), "years", entry=entry[seen])
    model = CoxRegression().fit(X[seen], outcome)
    assert abs(model.coef_[0] - 1) < 3 * model.standard_error_[0]
    np.testing.assert_allclose(model.baseline_.at(1.0) * np.exp(-model.centre_ @ model.coef_), 1.0, atol=0.1)
    ignored = CoxRegression().fit(X[seen], without(outcome, "entry"))
    assert ignored.baseline_.at(1.0) * np.exp(-ignored.centre_ @ ignored.coef_) < 0.8


def test_every_stratum_has_its_own_baseline(rows: Rows):
    X, outcome = rows
    model = CoxRegression().fit(X, outcome)
    np.testing.assert_array_equal(model.strata_, [0, 5])
    for k in (0, 5):
        own = np.flatnonzero(outcome.strata().numpy() == k)
        part = without(outcome, "stratum")[own]
        expected = breslow_baseline(model.predict(X[own]), part)
        curve = model.baseline_of(k)
        np.testing.assert_allclose(curve.at(expected.times), expected.values, rtol=1e-12)
        assert curve.times[-1] == float(part.time.max())
        survival = model.predict_survival(X[:2], stratum=k).survival.numpy()
        hazard = np.exp(model.predict(X[:2]))[:, None] * curve.values
        np.testing.assert_allclose(survival, np.exp(-hazard), rtol=1e-12)
    with pytest.raises(InvalidValueError, match=r"baseline_of\(stratum\)"):
        model.baseline_  # noqa: B018


def test_rows_of_several_strata_are_predicted_together(rows: Rows):
    X, outcome = rows
    model = CoxRegression().fit(X, outcome)
    stratum = outcome.strata()
    together = model.predict_survival(X, stratum=stratum)
    ends = [float(model.baseline_of(k).times[-1]) for k in (0, 5)]
    assert float(together.times[-1]) == min(ends)
    for k in (0, 5):
        own = (stratum == k).numpy()
        alone = model.predict_survival(X[own], together.times, stratum=k)
        assert torch.equal(alone.survival, together.survival[own])
    assert float(model.predict_survival(X[:1], stratum=5 if ends[1] > ends[0] else 0).times[-1]) == max(ends)
    assert model.predict_survival(X[:0], stratum=np.empty(0, int)).survival.shape[0] == 0


def test_a_stratum_must_be_known_and_asked_only_where_there_are_some(rows: Rows):
    X, outcome = rows
    model = CoxRegression().fit(X, outcome)
    with pytest.raises(InvalidValueError, match=r"`stratum` must name the stratum of each row \(0, 5\); got None"):
        model.predict_survival(X)
    with pytest.raises(InvalidValueError, match="must be one of the fit, 0, 5; got 1"):
        model.predict_survival(X[:2], stratum=[5, 1])
    with pytest.raises(InvalidValueError, match="one number or one per row"):
        model.predict_survival(X, stratum=[5, 0])
    with pytest.raises(InvalidTypeError, match="whole numbers"):
        model.predict_survival(X[:2], stratum=np.array([0.0, 5.0]))
    plain = CoxRegression().fit(X, without(outcome, "stratum"))
    with pytest.raises(InvalidValueError, match="without strata"):
        plain.predict_survival(X, stratum=0)


def test_a_covariate_that_only_tells_strata_apart_is_left_out(rows: Rows):
    X, outcome = rows
    stratum = outcome.strata().numpy()
    wide = np.column_stack([stratum == 5, X, X[:, 0] + 3.0 * (stratum == 5)])
    model, plain = CoxRegression().fit(wide, outcome), CoxRegression().fit(X, outcome)
    np.testing.assert_array_equal(np.isnan(model.standard_error_), [True, False, False, True])
    np.testing.assert_allclose(model.coef_[1:3], plain.coef_, rtol=1e-9)
    assert model.aic_ == pytest.approx(plain.aic_, rel=1e-12)


def test_what_a_model_cannot_honour_is_refused(rows: Rows):
    X, outcome = rows
    refused = {
        KaplanMeierModel(): {"stratum"},
        LassoCox(penalties=5, folds=2): {"entry", "weight", "stratum"},
        RandomSurvivalForest(trees=2): {"entry", "weight", "stratum"},
        LateFusion({"a": CoxRegression()}, folds=2): {"stratum"},
        CoxRegression(): set(),
        RidgeCox(penalties=3, folds=2): set(),
        PartialRidgeCox(penalties=3, folds=2): set(),
    }
    for model, parts in refused.items():
        for name in ("entry", "weight", "stratum"):
            alone = without(outcome, *({"entry", "weight", "stratum"} - {name}))
            if name in parts:
                with pytest.raises(InvalidValueError, match=f"must not hold `{name}`, which {type(model).__name__}"):
                    model.fit(X, alone)
            else:
                model.fit(X, alone)
    with pytest.raises(InvalidValueError, match="which RandomSurvivalForest"):
        LateFusion({"a": RandomSurvivalForest(trees=2)}, folds=2).fit(X, without(outcome, "entry", "stratum"))


def test_kaplan_meier_honours_entry_and_weight(rows: Rows):
    X, outcome = rows
    late = without(outcome, "stratum")
    curve = kaplan_meier(late)
    survival = KaplanMeierModel().fit(X, late).predict_survival(X[:1]).survival[0].numpy()
    np.testing.assert_allclose(survival, curve.survival, rtol=1e-12)
    assert np.abs(survival - kaplan_meier(without(late, "entry", "weight")).survival).max() > 0.01


def test_concordance_stays_within_strata(rows: Rows):
    X, outcome = rows
    model = CoxRegression().fit(X, outcome)
    risk, stratum = model.predict(X), outcome.strata().numpy()
    counts = [pair_counts(risk[stratum == k], outcome[np.flatnonzero(stratum == k)]) for k in (0, 5)]
    expected = sum(c.concordant + c.tied_risk / 2 for c in counts) / sum(c.comparable for c in counts)
    assert model.score(X, outcome) == pytest.approx(expected, rel=1e-12)


def test_a_stratified_robust_model_is_saved_whole(rows: Rows, tmp_path):
    X, outcome = rows
    frame = pd.DataFrame(X, columns=["a", "b"])
    model = CoxRegression(robust=True, unit="days").fit(frame, outcome, groups=np.arange(150) // 3)
    loaded = load_estimator(save_estimator(model, tmp_path / "model"))
    assert isinstance(loaded, CoxRegression)
    assert loaded.get_params() == model.get_params()
    pd.testing.assert_frame_equal(loaded.summary(), model.summary())
    pd.testing.assert_frame_equal(loaded.tests(), model.tests())
    stratum = outcome.strata()
    for one, other in ((loaded, model),):
        curves = [m.predict_survival(frame, stratum=stratum).log_survival for m in (one, other)]
        assert torch.equal(*curves)
    assert loaded.summary().attrs["covariance"] == "robust, clustered by 50 patients"
