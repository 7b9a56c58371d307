import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.calibration import (
    calibration_curve,
    calibration_error_e50,
    calibration_error_e90,
    calibration_error_maximum,
    calibration_slope,
    grouped_calibration,
    integrated_calibration_index,
    observed_expected_ratio,
)
from survlens.evaluate.calibration_fit import fit_cox

KNOTS = np.linspace(0.05, 3.0, 60)


def cohort(n: int = 4000, seed: int = 1, rounding: int = 9) -> tuple[np.ndarray, SurvivalOutcome]:
    """Log-risks and exponential lives with hazard exp(log_risk), about a third censored."""
    rng = np.random.default_rng(seed)
    log_risk = rng.normal(size=n)
    life, cut = rng.exponential(np.exp(-log_risk)), rng.exponential(3, n)
    time = np.round(np.minimum(life, cut), rounding) + 1e-3
    return log_risk, SurvivalOutcome.from_arrays(time, life <= cut, "years")


def predicted(log_risk: np.ndarray, factor: float = 1.0) -> SurvivalPrediction:
    hazard = torch.outer(torch.from_numpy(factor * np.exp(log_risk)), torch.from_numpy(KNOTS))
    return SurvivalPrediction(torch.from_numpy(KNOTS), -hazard, Interpolation.EXPONENTIAL, "years")


def test_the_truth_is_calibrated():
    log_risk, outcome = cohort()
    truth = predicted(log_risk)
    assert observed_expected_ratio(truth, outcome, 1.0).value == pytest.approx(1, abs=0.03)
    assert calibration_slope(truth, outcome, 1.0).value == pytest.approx(1, abs=0.06)
    assert integrated_calibration_index(truth, outcome, 1.0).value < 0.015


@pytest.mark.parametrize("exaggeration", [0.5, 2.0])
def test_slope_is_the_inverse_of_an_exaggeration(exaggeration):
    log_risk, outcome = cohort()
    score = calibration_slope(predicted(exaggeration * log_risk), outcome, 1.0)
    assert score.value == pytest.approx(1 / exaggeration, rel=0.06)
    assert score.interval is not None
    assert score.value in score.interval


def test_ici_is_the_distance_to_the_true_risk():
    """A hazard stated twice as high: the mean distance of the two risks is known in closed form."""
    log_risk, outcome = cohort(8000)
    wrong = predicted(log_risk, 2.0)
    distance = np.abs(np.exp(-np.exp(log_risk)) - np.exp(-2 * np.exp(log_risk)))
    curve = calibration_curve(wrong, outcome, 1.0)
    assert curve.ici().value == pytest.approx(distance.mean(), abs=0.012)
    assert curve.quantile(0.5).value == pytest.approx(np.quantile(distance, 0.5), abs=0.02)
    assert curve.quantile(0.9).value == pytest.approx(np.quantile(distance, 0.9), abs=0.02)
    assert observed_expected_ratio(wrong, outcome, 1.0).value < 0.95


def test_smooth_curve_bends_where_the_truth_bends():
    """Hazard exp(|x|) predicted as exp(x): only a curve, not a line, can follow."""
    rng = np.random.default_rng(4)
    log_risk = rng.normal(size=6000)
    life = rng.exponential(np.exp(-np.abs(log_risk)))
    outcome = SurvivalOutcome.from_arrays(life + 1e-9, np.ones(6000, int), "years")
    curve = calibration_curve(predicted(log_risk), outcome, 1.0)
    true_risk = -np.expm1(-np.exp(np.abs(log_risk)))
    assert np.abs(curve.observed - true_risk).mean() < 0.05


def test_groups_hold_every_row_once_and_follow_kaplan_meier():
    log_risk, outcome = cohort(600, rounding=1)
    prediction = predicted(log_risk)
    groups = grouped_calibration(prediction, outcome, 1.0, groups=5)
    assert sum(group.n for group in groups) == 600
    means = [group.predicted for group in groups]
    assert means == sorted(means)
    risk = prediction.risk(1.0).numpy()
    lowest = outcome[np.flatnonzero(risk <= np.quantile(risk, 0.2))]
    assert groups[0].observed == pytest.approx(1 - float(kaplan_meier(lowest).at(1.0)))
    assert all(group.lower <= group.observed <= group.upper for group in groups)


def test_small_cox_fit_equals_lifelines():
    lifelines = pytest.importorskip("lifelines")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(6)
    design = rng.normal(size=(150, 2)) * [1.0, 20.0] + [0.0, 300.0]
    time, event = rng.integers(1, 12, 150).astype(float), rng.integers(0, 2, 150)
    fit = fit_cox(design, SurvivalOutcome.from_arrays(time, event, "years"))
    assert fit is not None
    frame = pandas.DataFrame({"a": design[:, 0], "b": design[:, 1], "time": time, "event": event})
    peer = lifelines.CoxPHFitter().fit(frame, "time", "event")
    assert fit.coefficients == pytest.approx(peer.params_.to_numpy(), rel=1e-4, abs=1e-7)
    assert fit.standard_errors == pytest.approx(peer.standard_errors_.to_numpy(), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.booleans(), st.sampled_from([0.0, 0.2, 3.0, np.inf])), min_size=1, max_size=20
    )
)
def test_any_rows_give_a_number_or_a_reason(rows):
    """Equal, impossible and certain predictions, few events, all tied: never a crash, never a silent NaN."""
    time, event, hazard = zip(*rows, strict=True)
    outcome = SurvivalOutcome.from_arrays(np.array(time, float), np.array(event), "years")
    prediction = SurvivalPrediction(
        torch.tensor([1.0, 6.0]).double(),
        -torch.tensor(hazard).double()[:, None].repeat(1, 2),
        Interpolation.STEP,
        "years",
    )
    curve = calibration_curve(prediction, outcome, 1.0)
    scores = [
        observed_expected_ratio(prediction, outcome, 1.0),
        calibration_slope(prediction, outcome, 1.0),
        curve.ici(),
        curve.quantile(0.9),
    ]
    for score in scores:
        assert math.isfinite(score.value) or score.settings["undefined"]
    assert sum(group.n for group in grouped_calibration(prediction, outcome, 1.0)) == len(rows)


def test_separated_events_are_undefined_not_infinite():
    log_risk = np.concatenate([np.zeros(30), np.full(30, 3.0)])
    outcome = SurvivalOutcome.from_arrays(np.arange(60, 0, -1) / 20, np.arange(60) >= 30, "years")
    score = calibration_slope(predicted(log_risk), outcome, 2.9)
    assert math.isnan(score.value)
    assert "separate" in str(score.settings["undefined"])


def test_horizon_past_the_follow_up_is_refused():
    log_risk, outcome = cohort(50)
    with pytest.raises(InvalidValueError, match=r"`horizon` must lie in \(0, .*years"):
        calibration_slope(predicted(log_risk), outcome, 99.0)


def test_the_distances_are_ordered_and_are_those_of_one_curve():
    log_risk, outcome = cohort(2000)
    wrong = predicted(log_risk, 1.5)
    curve = calibration_curve(wrong, outcome, 1.0)
    distance = np.abs(curve.observed - curve.predicted)
    median, ninety, largest = (
        score(wrong, outcome, 1.0).value
        for score in (calibration_error_e50, calibration_error_e90, calibration_error_maximum)
    )
    assert (median, ninety, largest) == pytest.approx((*np.quantile(distance, [0.5, 0.9]), distance.max()))
    assert median <= ninety <= largest
