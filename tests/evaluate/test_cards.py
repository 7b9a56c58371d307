import inspect
import json
import math
from functools import partial

import numpy as np
import pytest
import torch

import survlens.evaluate as scores
from survlens import __version__
from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.score import Score
from survlens.evaluate.cards import MetricCard, metric_card
from survlens.evaluate.definitions import DEFINITIONS
from survlens.evaluate.uncertainty import bootstrap, paired_difference

KNOTS = torch.linspace(0.25, 3.0, 12, dtype=torch.float64)


def outcome_with(**columns: object) -> SurvivalOutcome:
    rng = np.random.default_rng(0)
    life, cut = rng.exponential(1 / np.exp(log_risk()), 120), rng.exponential(2.0, 120)
    event = np.where(life <= cut, rng.integers(1, 3, 120), 0)
    return SurvivalOutcome.from_arrays(np.minimum(np.minimum(life, cut), 2.9), event, "years", **columns)


def log_risk() -> np.ndarray:
    return np.random.default_rng(1).normal(size=120)


OUTCOME = outcome_with()
RISK = log_risk()
HAZARD = -torch.outer(torch.from_numpy(np.exp(RISK)), KNOTS)
CURVES = SurvivalPrediction(KNOTS, HAZARD, Interpolation.EXPONENTIAL, "years")
BY_CAUSE = CompetingRisksPrediction(
    KNOTS, (-torch.expm1(HAZARD) / 2).expand(2, -1, -1), Interpolation.EXPONENTIAL, "years"
)

ROWS = {
    "concordance_index": lambda o: [scores.concordance_index(RISK, o)],
    "concordance_index_ipcw": lambda o: [scores.concordance_index_ipcw(RISK, o, OUTCOME, horizon=2.0)],
    "concordance_index_antolini": lambda o: [scores.concordance_index_antolini(CURVES, o)],
    "cumulative_dynamic_auc": lambda o: [scores.cumulative_dynamic_auc(CURVES, o, [1.0], training=OUTCOME).score(1.0)],
    "brier_score": lambda o: [
        (curve := scores.brier_score(CURVES, o, [0.5, 1.0], training=OUTCOME)).score(1.0),
        curve.ipa_score(1.0),
        curve.integrated(),
        curve.integrated_ipa(),
    ],
    "integrated_brier_score": lambda o: [scores.integrated_brier_score(CURVES, o, training=OUTCOME, horizon=2.0)],
    "integrated_ipa": lambda o: [scores.integrated_ipa(CURVES, o, training=OUTCOME, horizon=2.0)],
    "observed_expected_ratio": lambda o: [scores.observed_expected_ratio(CURVES, o, 1.0)],
    "calibration_slope": lambda o: [scores.calibration_slope(CURVES, o, 1.0)],
    "calibration_curve": lambda o: [scores.calibration_curve(CURVES, o, 1.0).ici()],
    "integrated_calibration_index": lambda o: [scores.integrated_calibration_index(CURVES, o, 1.0)],
    "calibration_error_e50": lambda o: [scores.calibration_error_e50(CURVES, o, 1.0)],
    "calibration_error_e90": lambda o: [scores.calibration_error_e90(CURVES, o, 1.0)],
    "calibration_error_maximum": lambda o: [scores.calibration_error_maximum(CURVES, o, 1.0)],
    "d_calibration": lambda o: [scores.d_calibration(CURVES, o).score()],
    "decision_curve": lambda o: [scores.decision_curve(CURVES, o, 1.0, thresholds=(0.5,)).score(0.5)],
    "net_benefit": lambda o: [scores.net_benefit(CURVES, o, 1.0, 0.5)],
    "restricted_mean_error": lambda o: [scores.restricted_mean_error(CURVES, o, 2.0)],
    "concordance_index_of_cause": lambda o: [scores.concordance_index_of_cause(RISK, o, 1)],
    "concordance_index_ipcw_of_cause": lambda o: [
        scores.concordance_index_ipcw_of_cause(RISK, o, 1, OUTCOME, horizon=2.0)
    ],
    "cumulative_dynamic_auc_of_cause": lambda o: [
        scores.cumulative_dynamic_auc_of_cause(BY_CAUSE, o, 1, [1.0], training=OUTCOME).score(1.0)
    ],
    "brier_score_of_cause": lambda o: [
        (curve := scores.brier_score_of_cause(BY_CAUSE, o, 1, [0.5, 1.0], training=OUTCOME)).score(1.0),
        curve.ipa_score(1.0),
        curve.integrated(),
        curve.integrated_ipa(),
    ],
    "integrated_brier_score_of_cause": lambda o: [
        scores.integrated_brier_score_of_cause(BY_CAUSE, o, 1, training=OUTCOME, horizon=2.0)
    ],
    "observed_expected_ratio_of_cause": lambda o: [scores.observed_expected_ratio_of_cause(BY_CAUSE, o, 1, 1.0)],
}
"""Every public function that gives scores, and the scores it gives for an outcome."""

HONOUR_WEIGHTS = {
    "restricted_mean_error",
    "concordance_index",
    "concordance_index_ipcw",
    "concordance_index_antolini",
    "cumulative_dynamic_auc",
    "decision_curve",
    "net_benefit",
    "concordance_index_of_cause",
    "concordance_index_ipcw_of_cause",
    "cumulative_dynamic_auc_of_cause",
    "observed_expected_ratio_of_cause",
}


OF_EDITS = {"slope_ratio", "background_change"}
"""Scores of edited pictures, which have no outcome; their contract stands in test_edits.py."""


def test_every_public_score_has_a_row():
    giving = ("Score", "BrierCurve", "AucCurve", "CalibrationCurve", "DistributionCalibration", "DecisionCurve")
    functions = {
        name
        for name, value in vars(scores).items()
        if inspect.isfunction(value) and str(inspect.signature(value).return_annotation) in giving
    }
    assert functions == set(ROWS) | OF_EDITS


@pytest.mark.parametrize("name", ROWS)
def test_every_score_has_a_complete_card(name):
    for score in ROWS[name](OUTCOME):
        card = metric_card(score)
        assert math.isfinite(card.value)
        fields = card.to_dict()
        assert all(fields[key] not in ("", None, "not recorded") for key in fields), fields
        assert (card.rows, card.events) == (120, OUTCOME.n_events)
        assert "years" in card.horizon
        assert card.software == f"survlens {__version__}"
        assert json.loads(json.dumps(fields, allow_nan=False)) == fields
        assert card.definition in card.text()


@pytest.mark.parametrize("name", ROWS)
def test_delayed_entries_are_refused(name):
    with pytest.raises(InvalidValueError, match="`outcome` must be followed from the origin"):
        ROWS[name](outcome_with(entry=np.full(120, 1e-9)))


@pytest.mark.parametrize("name", ROWS)
def test_unequal_weights_are_honoured_or_refused(name):
    weighted = outcome_with(weight=np.linspace(0.5, 4.0, 120))
    if name not in HONOUR_WEIGHTS:
        with pytest.raises(InvalidValueError, match="`outcome` must have equal weights"):
            ROWS[name](weighted)
        return
    for plain, counted in zip(ROWS[name](OUTCOME), ROWS[name](weighted), strict=True):
        assert abs(plain.value - counted.value) > 1e-6


@pytest.mark.parametrize("name", ROWS)
def test_strata_and_equal_weights_change_nothing(name):
    stratified = outcome_with(stratum=np.arange(120) % 3, weight=np.full(120, 2.0), entry=np.zeros(120))
    for plain, same in zip(ROWS[name](OUTCOME), ROWS[name](stratified), strict=True):
        assert same.value == pytest.approx(plain.value, abs=1e-12)


def test_a_training_outcome_with_entries_is_refused_and_its_weights_count():
    late = outcome_with(entry=np.full(120, 1e-9))
    with pytest.raises(InvalidValueError, match="`training` must be followed from the origin"):
        scores.concordance_index_ipcw(RISK, OUTCOME, late)
    times = np.arange(120) % 3 + 1
    weighted, repeated = outcome_with(weight=times.astype(float)), OUTCOME[np.repeat(np.arange(120), times)]
    found, expected = (scores.concordance_index_ipcw(RISK, OUTCOME, training) for training in (weighted, repeated))
    assert found.value == pytest.approx(expected.value, abs=1e-12)


def test_a_difference_has_a_card_too():
    score = partial(scores.concordance_index, horizon=2.0)
    first, second = (bootstrap(score, risk, OUTCOME, draws=20) for risk in (RISK, -RISK))
    card = metric_card(paired_difference(first, second).score)
    assert card.horizon == "2 years"
    assert card.rows == 120
    assert "bootstrap" in card.interval
    assert card.definition.startswith("First model minus second")


def test_an_unknown_score_has_no_card():
    with pytest.raises(InvalidValueError, match="survlens.evaluate.definitions"):
        metric_card(Score("made_up", 0.5))


def test_every_definition_is_whole():
    for definition in DEFINITIONS.values():
        fields = (definition.meaning, definition.formula, definition.risk, definition.ties, definition.paper)
        assert all(fields)


def test_a_card_of_an_undefined_score_keeps_its_definition():
    nobody = SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "years")
    card = metric_card(scores.concordance_index([0.1, 0.2], nobody))
    assert isinstance(card, MetricCard)
    assert card.to_dict()["value"] is None
