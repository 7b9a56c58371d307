"""What is told of Cox fits whose covariates separate the events: against fits of the rows that still count."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from survlens.core.errors import CorruptFileError
from survlens.core.nonparametric import Limits, breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.models.classical import CoxRegression
from survlens.models.cox_inference import (
    SurvivalLimits,
    TimeTransform,
    dfbeta_residuals,
    likelihood_ratio_tests,
    proportional_hazards_test,
    scaled_schoenfeld_residuals,
    survival_interval,
)
from survlens.models.estimator_files import load_estimator, save_estimator
from survlens.models.penalised import PartialRidgeCox

N, TIMES = 150, [0.05, 0.4, 1.0]


def separated_fit(frame: pd.DataFrame, outcome: SurvivalOutcome, *, robust: bool = False) -> CoxRegression:
    with pytest.warns(ConvergenceWarning, match="separates the events"):
        return CoxRegression(robust=robust).fit(frame, outcome)


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, SurvivalOutcome]:
    """The first six patients are the only ones of a group, and none of them has an event."""
    rng = np.random.default_rng(0)
    time, event = rng.exponential(1, N), rng.random(N) < 0.6
    frame = pd.DataFrame({"z": rng.normal(size=N), "rare": np.arange(N) < 6, "w": rng.normal(size=N)}).astype(float)
    event[:6] = False
    return frame, SurvivalOutcome.from_arrays(time, event, "years")


def without_the_group(rows: tuple[pd.DataFrame, SurvivalOutcome]) -> tuple[pd.DataFrame, SurvivalOutcome]:
    """What the likelihood is in the limit: rows of risk 0 are in no risk set."""
    return rows[0].loc[6:, ["z", "w"]], rows[1][np.arange(6, N)]


@pytest.mark.parametrize("robust", [False, True])
def test_wald_is_unknown_and_likelihood_ratio_and_score_are_not(rows, robust: bool):
    model = separated_fit(*rows, robust=robust)
    table = model.tests()
    assert table.loc["wald", ["statistic", "p"]].isna().all()
    assert table.drop(index="wald").notna().all(axis=None)
    assert np.isnan(model.standard_error_).tolist() == [False, True, False]
    alone = likelihood_ratio_tests(model, *rows).loc["rare"]
    assert 0 < alone["p"] < 0.1
    lean = CoxRegression().fit(rows[0][["z", "w"]], rows[1])
    assert alone["statistic"] == pytest.approx(2 * (model.log_likelihood_ - lean.log_likelihood_), rel=1e-9)


@pytest.mark.parametrize("transform", [TimeTransform.IDENTITY, TimeTransform.LOG])
def test_hazards_are_tested_as_among_the_rows_that_count(rows, transform: TimeTransform):
    model, lean = separated_fit(*rows), without_the_group(rows)
    table = proportional_hazards_test(model, *rows, transform=transform)
    assert table.loc["rare", ["statistic", "p"]].isna().all()
    assert table.loc["GLOBAL", "df"] == 2
    expected = proportional_hazards_test(CoxRegression().fit(*lean), *lean, transform=transform)
    pd.testing.assert_frame_equal(table.drop(index="rare"), expected, rtol=1e-6)
    terms = {"both": ["rare", "z"], "rare": ["rare"]}
    of_terms = proportional_hazards_test(model, *rows, transform=transform, terms=terms)
    assert of_terms.loc["both"].tolist() == table.loc["z"].tolist()
    assert of_terms.loc["rare", "df"] == 0


def test_residuals_of_a_separating_column_are_unknown(rows):
    model, lean = separated_fit(*rows), without_the_group(rows)
    plain = CoxRegression().fit(*lean)
    for residuals in (dfbeta_residuals, scaled_schoenfeld_residuals):
        found = residuals(model, *rows)
        assert np.isnan(found[:, 1]).all()
        np.testing.assert_allclose(found[6:, [0, 2]], residuals(plain, *lean), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("limits", list(Limits))
@pytest.mark.parametrize("robust", [False, True])
def test_limits_are_those_of_the_rows_that_count_and_unknown_for_the_group(rows, robust: bool, limits: Limits):
    model, lean = separated_fit(*rows, robust=robust), without_the_group(rows)
    new = pd.DataFrame({"z": [0.3, 0.3, -1.0], "rare": [0.0, 1.0, 0.0], "w": [0.0, 0.0, 0.5]})
    found = survival_interval(model, *rows, new, TIMES, limits=limits)
    plain = CoxRegression(robust=robust).fit(*lean)
    expected = survival_interval(plain, *lean, new.loc[[0, 2], ["z", "w"]], TIMES, limits=limits)
    for name in ("survival", "std_error", "lower", "upper"):
        np.testing.assert_allclose(getattr(found, name)[[0, 2]], getattr(expected, name), rtol=1e-5)
    assert unknown(found).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    earliest = survival_interval(model, *rows, new, [1e-6], limits=limits)
    np.testing.assert_array_equal(earliest.lower, 1.0)


def unknown(found: SurvivalLimits) -> np.ndarray:
    missing = np.isnan(found.std_error)
    np.testing.assert_array_equal(np.isnan(found.lower), missing)
    np.testing.assert_array_equal(np.isnan(found.upper), missing)
    assert np.isfinite(found.survival).all()
    return missing


def test_columns_that_separate_together_leave_the_curves_along_their_sum(rows):
    rng = np.random.default_rng(1)
    time, a = np.arange(1.0, 61.0), rng.normal(size=60)
    group = np.where(time <= 20, 1.0, -1.0)
    frame = pd.DataFrame({"a": a, "b": group - a, "harmless": rng.normal(size=60)})
    outcome = SurvivalOutcome.from_arrays(time, time <= 20, "days")
    model = separated_fit(frame, outcome)
    new = pd.DataFrame({"a": [0.0, 0.0, 3.0, 1.0], "b": [1.0, -1.0, -2.0, 0.5], "harmless": 0.0})
    found = survival_interval(model, frame, outcome, new, [2.0, 10.0, 50.0])
    assert unknown(found).all(axis=1).tolist() == [False, True, False, True]
    assert unknown(found).any(axis=1).tolist() == [False, True, False, True]
    inside = time <= 20
    lean = (frame.loc[inside, ["a", "harmless"]], outcome[inside])
    plain = CoxRegression().fit(*lean)
    expected = survival_interval(plain, *lean, new.loc[[0, 2], ["a", "harmless"]], [2.0, 10.0])
    np.testing.assert_allclose(np.log(found.lower[[0, 2], :2]), np.log(expected.lower), rtol=1e-3)
    table = proportional_hazards_test(model, frame, outcome)
    assert table["df"].tolist() == [0, 0, 1, 1]


def test_where_events_stand_apart_a_curve_is_known_up_to_the_first_that_does():
    time = np.arange(1.0, 31.0)
    frame = pd.DataFrame({"order": -np.maximum(time, 5.0)})
    outcome = SurvivalOutcome.from_arrays(time, np.ones(30, dtype=int), "days")
    model = separated_fit(frame, outcome)
    found = survival_interval(model, frame, outcome, frame.iloc[[0, 8]], [0.5, 3.0, 5.0, 6.0, 9.0])
    assert unknown(found).tolist() == [[False, False, False, True, True], [False, True, True, True, True]]
    # Until then the first five are all that count: the curve is that of five rows alone.
    plain = breslow_baseline(np.zeros(5), outcome[:5], ties=Ties.EFRON).at(np.array([0.5, 3.0]))
    np.testing.assert_allclose(-np.log(found.survival[0, :2]), plain, rtol=1e-6)
    np.testing.assert_allclose(found.std_error[0, :2] ** 2, [0, 1 / 25 + 1 / 16 + 1 / 9], rtol=1e-3)
    assert proportional_hazards_test(model, frame, outcome)["df"].tolist() == [0, 0]


def test_strata_are_judged_by_their_own_events():
    rng = np.random.default_rng(4)
    n, stratum = 120, np.repeat([0, 1], 60)
    group, event = rng.integers(0, 2, n), rng.random(n) < 0.8
    event &= (group == 1) == (stratum == 0)  # events of the first stratum are in the group, of the second outside it
    frame = pd.DataFrame({"z": rng.normal(size=n), "in": group * np.where(stratum == 0, 1.0, -1.0)})
    outcome = SurvivalOutcome.from_arrays(rng.exponential(1, n), event, "years", stratum=stratum)
    model = separated_fit(frame, outcome)
    new = pd.DataFrame({"z": 0.0, "in": [1.0, 1.0, 0.0, 0.0]})
    found = survival_interval(model, frame, outcome, new, [0.3, 0.6], stratum=np.array([0, 1, 0, 1]))
    assert unknown(found).all(axis=1).tolist() == [False, True, True, False]
    assert unknown(found).any(axis=1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("level", [1.0, 100.0])
def test_a_free_column_of_a_ridge_that_separates_is_named(rows, level: float):
    frame, outcome = rows
    wide = pd.DataFrame(np.random.default_rng(3).normal(size=(N, 10)), columns=[f"v{i}" for i in range(10)])
    wide[["rare", "z"]] = frame[["rare", "z"]]
    model = PartialRidgeCox(penalties=[level, level / 2], folds=2, unpenalised=("rare", "z"))
    with pytest.warns(ConvergenceWarning, match="'rare' separates the events.*not known. Leave it out of `unpenali"):
        model.fit(wide, outcome)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PartialRidgeCox(penalties=[level], folds=2, unpenalised=("z",)).fit(wide, outcome)
        PartialRidgeCox(penalties=[level], folds=2).fit(wide, outcome)
        constant = wide.assign(same=2.0, double=2 * wide["z"])
        PartialRidgeCox(penalties=[level], folds=2, unpenalised=("z", "same", "double")).fit(constant, outcome)


def test_free_columns_that_order_every_event_are_fitted_and_named():
    time = np.arange(1.0, 31.0)
    X = np.column_stack([np.random.default_rng(2).normal(size=(30, 4)), -time])
    with pytest.warns(ConvergenceWarning, match="'x4' separates the events"):
        PartialRidgeCox(penalties=[0.1], folds=2, unpenalised=(4,)).fit(X, (time, np.ones(30, dtype=int)))


def test_files_that_do_not_say_what_separates_are_refused(tmp_path: Path, rows):
    folder = save_estimator(CoxRegression().fit(rows[0][["z", "w"]], rows[1]), tmp_path / "model")
    description = folder / "estimator.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "format": 1}))
    with pytest.raises(CorruptFileError, match="must have format 2; got 1. Load it with the survlens that wrote it"):
        load_estimator(folder)
    description.write_text(json.dumps({**content, "values": None}))
    with pytest.raises(CorruptFileError, match="must hold `values`"):
        load_estimator(folder)
