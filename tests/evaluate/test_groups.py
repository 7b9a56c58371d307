import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.concordance import concordance_index, concordance_index_ipcw
from survlens.evaluate.groups import group_curves, log_rank_test, risk_groups, subgroup_scores


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, SurvivalOutcome]:
    n = draw(st.integers(1, 30))
    rows = st.tuples(st.integers(1, 8), st.integers(0, 1), st.sampled_from("abc"))
    time, event, label = zip(*draw(st.lists(rows, min_size=n, max_size=n)), strict=True)
    return np.array(label), SurvivalOutcome.from_arrays(np.array(time, float), np.array(event), "days")


def test_groups_are_cut_on_training_rows_only():
    groups = risk_groups(np.arange(1.0, 101.0), (1 / 3, 2 / 3))
    assert len(groups) == 3
    assert groups.assign([-5.0, 40.0, 1000.0]).tolist() == [0, 1, 2]
    assert groups.assign(groups.cutpoints).tolist() == [0, 1]


def test_equal_risks_make_one_cutpoint():
    assert risk_groups(np.ones(10), (0.25, 0.5, 0.75)).assign(np.ones(4)).tolist() == [0, 0, 0, 0]


@settings(max_examples=25, deadline=None)
@given(cases())
def test_log_rank_equals_the_sum_over_event_times(case):
    label, outcome = case
    time, event = outcome.numpy()
    result = log_rank_test(label, outcome)
    present = sorted(set(label))
    excess, covariance = np.zeros(len(present)), np.zeros((len(present), len(present)))
    for at in np.unique(time[event > 0]):
        n_group = np.array([(time[label == g] >= at).sum() for g in present], float)
        d_group = np.array([((time == at) & (event > 0) & (label == g)).sum() for g in present], float)
        n, d = n_group.sum(), d_group.sum()
        excess += d_group - d * n_group / n
        if n > 1:
            share = n_group / n
            covariance += d * (n - d) / (n - 1) * (np.diag(share) - np.outer(share, share))
    if len(present) < 2 or not event.any():
        assert math.isnan(result.chi2)
        return
    assert result.df == len(present) - 1
    assert result.chi2 == pytest.approx(float(excess @ np.linalg.pinv(covariance) @ excess), abs=1e-8)


def test_log_rank_equals_lifelines():
    statistics = pytest.importorskip("lifelines.statistics")
    rng = np.random.default_rng(0)
    time, event, label = rng.integers(1, 30, 200).astype(float), rng.integers(0, 2, 200), rng.integers(0, 3, 200)
    theirs = statistics.multivariate_logrank_test(time, label, event)
    ours = log_rank_test(label, SurvivalOutcome.from_arrays(time, event, "days"))
    assert ours.chi2 == pytest.approx(theirs.test_statistic, rel=1e-9)
    assert ours.p_value == pytest.approx(theirs.p_value, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_curves_of_groups_share_out_the_rows(case):
    label, outcome = case
    curves = group_curves(label, outcome, [1.0, 4.0, 20.0])
    assert [curve.group for curve in curves] == sorted(set(label))
    assert sum(curve.n for curve in curves) == len(outcome)
    assert sum(curve.n_events for curve in curves) == outcome.n_events
    time = outcome.numpy()[0]
    assert np.sum([curve.at_risk for curve in curves], axis=0).tolist() == [len(time), int((time >= 4).sum()), 0]


def test_subgroup_scores_are_the_scores_of_their_rows():
    rng = np.random.default_rng(3)
    risk, label = rng.normal(size=90), rng.choice(["left", "right"], 90)
    outcome = SurvivalOutcome.from_arrays(rng.exponential(3, 90), rng.integers(0, 2, 90), "days")
    for part in subgroup_scores(concordance_index, risk, outcome, label):
        rows = np.flatnonzero(label == part.group)
        assert part.score == concordance_index(risk[rows], outcome[rows])
        assert (part.n, part.n_events) == (len(rows), outcome[rows].n_events)


def test_subgroup_that_cannot_be_scored_says_why():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 9.0, 10.0], [1, 1, 0, 0, 0], "days")
    training = SurvivalOutcome.from_arrays([1.0, 2.0, 5.0], [1, 1, 0], "days")

    def uno(risk, observed):
        return concordance_index_ipcw(risk, observed, training)

    parts = subgroup_scores(uno, np.arange(5.0), outcome, ["a", "a", "a", "b", "b"])
    assert not math.isnan(parts[0].score.value)
    assert math.isnan(parts[1].score.value)
    assert parts[1].score.settings["undefined"]


def test_bad_groups_are_named():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 1], "days")
    with pytest.raises(InvalidValueError, match=r"one label per row"):
        log_rank_test(["a"], outcome)
    with pytest.raises(InvalidValueError, match=r"increase within \(0, 1\)"):
        risk_groups([1.0, 2.0], (0.5, 0.2))


def test_late_entries_count_from_their_entry_on():
    """Splitting each life in two pieces, the second entering where the first was cut, changes nothing."""
    rng = np.random.default_rng(12)
    time, event, arm = rng.integers(2, 12, 80).astype(float), rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    cut = time / 2 + 0.01
    whole = SurvivalOutcome.from_arrays(time, event, "years")
    pieces = SurvivalOutcome.from_arrays(
        np.append(cut, time), np.append(0 * event, event), "years", entry=np.append(0 * cut, cut)
    )
    both = np.append(arm, arm)
    assert log_rank_test(both, pieces).chi2 == pytest.approx(log_rank_test(arm, whole).chi2)
    for one, two in zip(group_curves(arm, whole, [1.0, 5.0]), group_curves(both, pieces, [1.0, 5.0]), strict=True):
        assert one.at_risk.tolist() == two.at_risk.tolist()
        assert two.curve.at(6.0) == pytest.approx(float(one.curve.at(6.0)))
    weighted = SurvivalOutcome.from_arrays(time, event, "years", weight=time)
    with pytest.raises(InvalidValueError, match="equal weights"):
        log_rank_test(arm, weighted)
