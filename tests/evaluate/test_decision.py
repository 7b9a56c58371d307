from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.aalen_johansen import cumulative_incidence
from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.decision import decision_curve, net_benefit
from survlens.evaluate.uncertainty import bootstrap, paired_difference


def cohort(n: int = 800, seed: int = 0):
    """True risks by 1 year, outcome with independent censoring, and whether the event truly came by then."""
    rng = np.random.default_rng(seed)
    hazard = np.exp(rng.normal(size=n) - 0.5)
    life, cut = rng.exponential(1 / hazard), rng.exponential(3.0, n)
    outcome = SurvivalOutcome.from_arrays(np.minimum(life, cut), life <= cut, "years")
    return -np.expm1(-hazard), outcome, life <= 1.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2), st.sampled_from([0.1, 0.3, 0.5, 0.9])), min_size=1),
    st.sampled_from([None, 1, 2]),
)
def test_net_benefit_equals_estimating_the_treated_group_apart(rows, cause):
    time, event, risk = (np.array(column) for column in zip(*rows, strict=True))
    outcome = SurvivalOutcome.from_arrays(time.astype(float), event, "years")
    horizon = min(3.0, float(time.max()))
    curve = decision_curve(risk, outcome, horizon, thresholds=(0.2, 0.3, 0.6), cause=cause)
    for k, threshold in enumerate(curve.thresholds):
        treated = np.flatnonzero(risk >= threshold)
        if not treated.size:
            assert curve.net_benefit[k] == 0
            continue
        part = outcome[treated]
        survival = kaplan_meier(part)
        if horizon > survival.times[-1] and survival.survival[-1] > 0:
            assert np.isnan(curve.net_benefit[k])
            continue
        f = 1 - float(survival.at(horizon))
        if cause is not None:
            f = float(cumulative_incidence(part, n_causes=2).of_cause(cause).at(horizon))
        expected = len(treated) / len(rows) * (f - (1 - f) * threshold / (1 - threshold))
        assert curve.net_benefit[k] == pytest.approx(expected, abs=1e-12)


def test_without_censoring_it_counts_true_and_false_positives():
    risk, _, died = cohort()
    outcome = SurvivalOutcome.from_arrays(np.where(died, 0.5, 2.0), died, "years")
    threshold = 0.3
    treated = risk >= threshold
    expected = ((treated & died).sum() - (treated & ~died).sum() * threshold / (1 - threshold)) / len(risk)
    assert net_benefit(risk, outcome, 1.0, threshold).value == pytest.approx(expected, abs=1e-12)


def test_the_truth_beats_all_none_and_noise_in_censored_data():
    """Known truth: the net benefit on lives seen to their end."""
    risk, outcome, died = cohort(20_000)
    curve = decision_curve(risk, outcome, 1.0, thresholds=(0.2, 0.4, 0.6))
    complete = SurvivalOutcome.from_arrays(np.where(died, 0.5, 2.0), died, "years")
    truth = decision_curve(risk, complete, 1.0, thresholds=(0.2, 0.4, 0.6))
    assert curve.net_benefit == pytest.approx(truth.net_benefit, abs=0.01)
    assert (curve.net_benefit > np.maximum(curve.treat_all, 0)).all()
    assert (curve.treat_none == 0).all()
    noise = np.random.default_rng(1).permutation(risk)
    assert (decision_curve(noise, outcome, 1.0, thresholds=(0.4, 0.6)).net_benefit < curve.net_benefit[1:]).all()
    assert (curve.standardised < 1).all()


def test_everybody_above_the_threshold_is_treating_all():
    risk, outcome, _ = cohort(200)
    curve = decision_curve(np.full(len(risk), 0.7), outcome, 1.0, thresholds=(0.1, 0.7, 0.8))
    assert curve.net_benefit[:2] == pytest.approx(curve.treat_all[:2])
    assert curve.net_benefit[2] == 0


def test_limits_are_those_of_the_bootstrap_and_differences_are_paired():
    risk, outcome, _ = cohort(150)
    curve = decision_curve(risk, outcome, 1.0, thresholds=(0.3, 0.5), draws=200, seed=3)
    score = partial(net_benefit, horizon=1.0, threshold=0.5)
    made = bootstrap(score, risk, outcome, draws=200, seed=3)
    assert made.score.interval is not None
    assert curve.lower is not None
    assert curve.upper is not None
    limits = (made.score.interval.lower, made.score.interval.upper)
    assert limits == pytest.approx((curve.lower[1], curve.upper[1]))
    slow = bootstrap(lambda p, o: score(p, o), risk, outcome, draws=200, seed=3)
    assert made.draws == pytest.approx(slow.draws, abs=1e-12)
    same = paired_difference(made, made)
    assert same.score.value == 0
    assert same.score.settings["threshold"] == 0.5


def test_weights_count_rows_as_often_as_they_say():
    risk, outcome, _ = cohort(60)
    times = np.random.default_rng(2).integers(1, 4, 60)
    weighted = SurvivalOutcome.from_arrays(outcome.time, outcome.event, "years", weight=times.astype(float))
    repeated = np.repeat(np.arange(60), times)
    expected = decision_curve(risk[repeated], outcome[repeated], 1.0).net_benefit
    assert decision_curve(risk, weighted, 1.0).net_benefit == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_curves_give_their_risk_at_the_horizon():
    risk, outcome, _ = cohort(50)
    knots = torch.tensor([0.5, 1.0, 9.0], dtype=torch.float64)
    log_survival = torch.from_numpy(np.log1p(-risk))[:, None] * knots
    single = SurvivalPrediction(knots, log_survival, Interpolation.EXPONENTIAL, "years")
    by_cause = CompetingRisksPrediction(knots, -torch.expm1(log_survival)[None], Interpolation.EXPONENTIAL, "years")
    levels = (0.2, 0.5)
    expected = decision_curve(risk, outcome, 1.0, thresholds=levels).net_benefit
    assert decision_curve(single, outcome, 1.0, thresholds=levels).net_benefit == pytest.approx(expected)
    assert decision_curve(by_cause, outcome, 1.0, thresholds=levels, cause=1).net_benefit == pytest.approx(expected)
    with pytest.raises(InvalidValueError, match="`cause` must be given"):
        decision_curve(by_cause, outcome, 1.0)


@pytest.mark.parametrize(
    ("risk", "horizon", "thresholds", "message"),
    [
        ([0.1, 1.2], 1.0, (0.5,), r"probabilities in \[0, 1\]"),
        ([0.1, 0.2], 9.0, (0.5,), "`horizon` must lie in"),
        ([0.1, 0.2], 1.0, (0.0, 0.5), "`thresholds` must increase"),
    ],
)
def test_bad_questions_are_refused(risk, horizon, thresholds, message):
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "years")
    with pytest.raises(InvalidValueError, match=message):
        decision_curve(risk, outcome, horizon, thresholds=thresholds)
