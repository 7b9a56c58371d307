"""Splits keep patients whole, events balanced and rows unique, and remember themselves."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.model_selection import cross_val_score

from survlens.core.errors import DataError, InvalidValueError, LeakageError
from survlens.data.cohort import Cohort
from survlens.data.schema import CohortSchema
from survlens.data.splits import (
    PatientKFold,
    Split,
    Splits,
    by_column,
    by_date,
    check_leak,
    external,
    holdout,
    k_fold,
    leave_one_site_out,
    site_folds,
    validation_part,
)


def cohort(events, rows_per_patient=None, **columns) -> Cohort:
    """Patients p0, p1, ... with these events, each with some rows."""
    count = np.asarray(rows_per_patient if rows_per_patient is not None else np.ones(len(events), int))
    owner = np.repeat(np.arange(len(events)), count)
    frame = pd.DataFrame({"id": [f"p{i}" for i in owner], "time": owner + 1.0, "event": np.asarray(events)[owner]})
    for name, values in columns.items():
        frame[name] = values
    schema = CohortSchema(time="time", event="event", unit="days", patient="id", keep=tuple(columns))
    return Cohort.from_frame(frame, schema)


@st.composite
def cohorts(draw) -> Cohort:
    n = draw(st.integers(4, 40))
    events = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    events[0] = events[1] = 1
    return cohort(events, draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)))


def patients_with_event(part: Cohort) -> int:
    return part[part.per_patient()].outcome.n_events


@settings(max_examples=25, deadline=None)
@given(cohorts(), st.integers(2, 4), st.integers(1, 2), st.integers(0, 99))
def test_folds_hold_every_patient_once_and_share_the_events(whole, folds, repeats, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splits = k_fold(whole, folds=folds, seed=seed, repeats=repeats)
    assert len(splits) == folds * repeats
    for repeat in range(repeats):
        tests = [split.test for split in splits.items[repeat * folds : (repeat + 1) * folds]]
        assert sorted(np.concatenate(tests)) == list(range(len(whole)))
        sizes = [whole[test].n_patients for test in tests]
        events = [patients_with_event(whole[test]) for test in tests]
        assert max(sizes) - min(sizes) <= 1
        assert max(events) - min(events) <= 1
    for split in splits:
        assert not set(whole.patient[split.train]) & set(whole.patient[split.test])
        assert whole[split.train].outcome.n_events > 0


@settings(max_examples=25, deadline=None)
@given(cohorts(), st.floats(0.05, 0.95), st.sampled_from([0.0, 0.2]), st.integers(0, 99))
def test_a_holdout_has_its_share_of_patients_and_events(whole, fraction, validation, seed):
    assume(fraction <= 0.5 or not validation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = holdout(whole, test_fraction=fraction, seed=seed, validation_fraction=validation)[0]
    check_leak(split, whole.patient)
    rows = np.concatenate(list(split.parts().values()))
    assert sorted(rows) == list(range(len(whole)))
    assert (split.validation is not None) == bool(validation)
    n, d = whole.n_patients, patients_with_event(whole)
    held = whole[split.test]
    assert abs(held.n_patients - fraction * n) <= 1.0 + (d == n)
    assert abs(patients_with_event(held) - held.n_patients * d / n) <= 1.01
    assert patients_with_event(whole[split.train]) >= 1


def test_the_same_seed_gives_the_same_split_and_another_does_not():
    whole = cohort([1, 0] * 20)
    hashes = [k_fold(whole, folds=4, seed=seed).hash for seed in (3, 3, 4)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_saved_splits_come_back_and_edited_ones_do_not():
    splits = holdout(cohort([1, 0] * 10), test_fraction=0.25, seed=1, validation_fraction=0.2)
    plain = json.loads(json.dumps(splits.to_json()))
    again = Splits.from_json(plain)
    assert again.hash == splits.hash
    assert again[0].validation.tolist() == splits[0].validation.tolist()
    plain["splits"][0]["test"].pop()
    with pytest.raises(DataError, match="match their hash"):
        Splits.from_json(plain)
    with pytest.raises(DataError, match="must hold"):
        Splits.from_json({"n_instances": 3})


def test_a_patient_on_two_sides_is_named():
    owner = np.array(["ann", "ann", "bob", "cy", "cy", "dee", "dee", "eve", "eve"], dtype=object)
    split = Split(np.array([0, 2, 3, 5, 7]), None, np.array([1, 4, 6, 8]), "mine")
    with pytest.raises(LeakageError, match="got 4 in train and test: ann, cy, dee, ..."):
        check_leak(split, owner)
    with pytest.raises(LeakageError, match="validation and test: eve"):
        check_leak(Split(np.array([2]), np.array([7]), np.array([8]), "mine"), owner)


def test_splits_must_fit_their_cohort():
    with pytest.raises(DataError, match="another cohort"):
        Splits((Split(np.array([0]), None, np.array([3]), "a"),), 3)
    with pytest.raises(LeakageError, match="one part"):
        Splits((Split(np.array([0, 1]), None, np.array([1]), "a"),), 3)


def test_a_column_makes_the_split():
    whole = cohort([1, 0, 1, 0], [1, 2, 1, 1], part=["train", "test", "test", "tune", "train"])
    split = by_column(whole, "part", ["test"], validation_values=["tune"])[0]
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 4], [3], [1, 2])
    numbered = by_column(cohort([1, 0, 1], fold=[1.0, 2.0, 2.0]), "fold", [2])[0]
    assert numbered.test.tolist() == [1, 2]
    leaking = cohort([1, 0], [2, 1], part=["train", "test", "test"])
    with pytest.raises(LeakageError, match="p0"):
        by_column(leaking, "part", ["test"])


def test_dates_and_years_make_the_split():
    dated = cohort([1, 0, 1], [1, 2, 1], date=["2015-03-01", "2016-12-31", "2017-01-01", "2017-06-30"])
    assert by_date(dated, "date", "2017-01-01")[0].test.tolist() == [3]
    assert by_date(dated, "date", 2016)[0].test.tolist() == [1, 2, 3]
    assert by_date(cohort([1, 0, 1], year=[2010, 2012, 2011]), "year", 2012)[0].test.tolist() == [1]
    stamps = pd.to_datetime(["2015-03-01", "2016-12-31", "2017-01-01"])
    assert by_date(cohort([1, 0, 1], when=stamps), "when", "2016-06-01")[0].test.tolist() == [1, 2]


def test_each_site_is_left_out_once():
    whole = cohort([1, 0, 1, 0], site=["x", "y", "x", "z"])
    splits = leave_one_site_out(whole, "site")
    assert {split.name: split.test.tolist() for split in splits} == {"x": [0, 2], "y": [1], "z": [3]}


def test_a_site_is_tested_once_and_never_beside_its_own():
    sites = np.array(list("aaaabbbccddef"))
    whole = cohort([1, 0] * 6 + [1], site=sites)
    splits = site_folds(whole, "site", folds=3, seed=1)
    assert np.sort(np.concatenate([split.test for split in splits])).tolist() == list(range(13))
    for split in splits:
        assert not set(sites[split.train]) & set(sites[split.test])
    assert site_folds(whole, "site", folds=3, seed=1).hash == splits.hash


def test_another_cohort_is_the_test_part():
    first = cohort([1, 0, 1])
    second = Cohort(
        first.instance, np.array(["q0", "q1", "q2"], dtype=object), *[getattr(first, name) for name in
        ("outcome", "table", "covariates", "images", "masks", "groups")]
    )  # fmt: skip
    joined, splits = external(first, second)
    assert splits[0].test.tolist() == [3, 4, 5]
    assert joined.patient[3:].tolist() == ["q0", "q1", "q2"]
    with pytest.raises(LeakageError, match="p0, p1, p2"):
        external(first, first)


BAD_SPLITS = [
    (lambda: holdout(cohort([0, 0, 0]), test_fraction=0.3, seed=0), DataError, "at least one event to learn from"),
    (lambda: holdout(cohort([1]), test_fraction=0.3, seed=0), DataError, "two patients are needed"),
    (lambda: holdout(cohort([1, 0]), test_fraction=1.0, seed=0), InvalidValueError, "`test_fraction`"),
    (lambda: k_fold(cohort([1, 0, 0]), folds=2, seed=0), DataError, "two patients with an event are needed"),
    (lambda: k_fold(cohort([1, 1, 0]), folds=4, seed=0), DataError, "got 4 for 3"),
    (lambda: k_fold(cohort([1, 1, 0]), folds=1, seed=0), InvalidValueError, "`folds`"),
    (lambda: k_fold(cohort([1, 1, 0]), folds=2, seed=0, repeats=0), InvalidValueError, "`repeats`"),
    (lambda: by_column(cohort([1, 0], s=["a", "b"]), "s", ["c"]), DataError, "but it holds a, b"),
    (lambda: by_column(cohort([1, 0], s=["a", "a"]), "s", ["a"]), DataError, "the train part of"),
    (lambda: by_column(cohort([1, 0], s=["a", None]), "s", ["a"]), DataError, "got 1 empty"),
    (lambda: by_column(cohort([1, 0], site=["a", "b"]), "sight", ["a"]), DataError, "Did you mean 'site'"),
    (lambda: by_column(cohort([1, 0]), "site", ["a"]), DataError, "None is kept"),
    (lambda: by_date(cohort([1, 0], d=["2011-01-01", "soon"]), "d", "2011-06-01"), DataError, "got 'soon'"),
    (lambda: by_date(cohort([1, 0], d=["2011-01-01", "2012-01-01"]), "d", "later"), DataError, "got 'later'"),
    (lambda: leave_one_site_out(cohort([1, 0], s=["a", "a"]), "s"), DataError, "two or more sites"),
    (lambda: site_folds(cohort([1, 0, 1], s=["a", "a", "b"]), "s", folds=3, seed=0), DataError, "in 2 .. 2, the"),
]


@pytest.mark.parametrize(("make", "error", "fragment"), BAD_SPLITS)
def test_an_impossible_split_is_refused(make, error, fragment):
    with pytest.raises(error) as caught:
        make()
    assert fragment in str(caught.value)


def test_one_event_stays_in_training_with_a_warning():
    whole = cohort([1, 0, 0, 0])
    with pytest.warns(UserWarning, match="no event in test: scores are undefined"):
        split = holdout(whole, test_fraction=0.25, seed=0)[0]
    assert 0 in split.train
    with pytest.warns(UserWarning, match="no event in fold"):
        k_fold(cohort([1, 1, 0, 0, 0]), folds=4, seed=0)


def test_a_validation_part_comes_out_of_the_training_rows():
    whole = cohort([1, 0] * 20, [2] * 40)
    split = holdout(whole, test_fraction=0.5, seed=0)[0]
    train, validation = validation_part(whole, split.train, fraction=0.25, seed=0)
    assert sorted([*train, *validation]) == split.train.tolist()
    assert not set(whole.patient[train]) & set(whole.patient[validation])
    assert whole[validation].n_patients == 5
    assert patients_with_event(whole[validation]) in {2, 3}


class MeanTime(BaseEstimator):
    """Scores the number of test rows."""

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return float(len(X))


def test_scikit_learn_takes_the_patient_folds():
    whole = cohort([1, 0] * 10, [3] * 20)
    time, event = whole.outcome.numpy()
    y = np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", "?"), ("time", "<f8")])
    folds = PatientKFold(4, seed=1)
    assert folds.get_n_splits() == 4
    scores = cross_val_score(MeanTime(), np.zeros((60, 1)), y, groups=whole.patient, cv=folds)
    assert scores.tolist() == [15.0] * 4
    for train, test in folds.split(np.zeros((60, 1)), y, whole.patient):
        assert not set(whole.patient[train]) & set(whole.patient[test])
    with pytest.raises(InvalidValueError, match="`groups`"):
        next(folds.split(None, y, whole.patient[:3]))
    with pytest.raises(InvalidValueError, match="`y`"):
        next(folds.split(None))
