"""Laws of scores over several folds: every fold is judged by its own model and its own training patients."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from survlens.core.nonparametric import censoring_survival, survival_curve
from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.accuracy import brier_score
from survlens.study.model_scores import ModelScores, model_scores
from survlens.study.scoring import Scored, draws_of, scored_patients
from survlens.study.unit_tables import CURVE

HORIZONS = (2.0, 4.0, 6.0)
TIMES = np.arange(0.5, 14.5, 0.5)


def kaplan_meier_study(n: int = 150, folds: int = 3, seed: int = 0) -> Scored:
    """Every patient is tested once, on the Kaplan-Meier curve of the patients of the other folds."""
    random = np.random.default_rng(seed)
    survival, censoring = random.exponential(6, n), random.exponential(9, n)
    rows = pd.DataFrame({
        "patient": [f"p{at:03}" for at in range(n)],
        "time": np.minimum(np.minimum(survival, censoring), 14).round(1) + 0.1,
        "event": ((survival <= censoring) & (survival <= 14)).astype(int),
    })  # fmt: skip
    tables = []
    for fold in range(1, folds + 1):
        tested = np.arange(n) % folds + 1 == fold
        learnt = SurvivalOutcome.from_arrays(
            rows["time"].to_numpy()[~tested], rows["event"].to_numpy()[~tested], "years"
        )
        curve = pd.DataFrame({f"{CURVE}{at:g}": np.full(n, survival_curve(learnt).at(at)) for at in TIMES})
        risk = 1 - curve.mean(axis=1)
        part = np.where(tested, "test", "train")
        tables.append(rows.assign(instance=rows["patient"], fold=fold, seed=1, part=part, risk=risk).join(curve))
    return scored_patients(pd.concat(tables, ignore_index=True), "years")


def value(scores: ModelScores, name: str, horizon: float) -> float:
    return next(
        drawn.score.value
        for drawn in scores.at_horizons
        if drawn.score.name == name and drawn.score.settings["horizon"] == horizon
    )


def slow_brier(scored: Scored, time: float) -> tuple[float, float]:
    """Brier score of the predictions and of the Kaplan-Meier curve of all scored rows, patient by patient."""
    null = float(survival_curve(scored.outcome).at(time))
    followed, event = scored.outcome.numpy()
    column = int(np.flatnonzero(scored.times == time)[0])
    errors, null_errors = [], []
    for row in range(len(followed)):
        censoring = censoring_survival(scored.fold_training[int(scored.fold[row])])
        died, alive = event[row] > 0 and followed[row] <= time, followed[row] > time
        weight = 1 / censoring.before(followed[row]) if died else 1 / censoring.at(time) if alive else 0.0
        errors.append(weight * (float(alive) - scored.survival[row, column]) ** 2)
        null_errors.append(weight * (float(alive) - null) ** 2)
    return float(np.mean(errors)), float(np.mean(null_errors))


def test_auc_of_kaplan_meier_is_one_half_in_folds():
    scores = model_scores(kaplan_meier_study(), HORIZONS, np.empty((0, 0)))
    for horizon in HORIZONS:
        assert value(scores, "cumulative_dynamic_auc", horizon) == pytest.approx(0.5, abs=1e-12)


def test_counts_of_a_score_within_folds_are_of_all_patients():
    scored = kaplan_meier_study()
    scores = model_scores(scored, HORIZONS, np.empty((0, 0)))
    settings = scores.by_name["concordance_index"].score.settings
    assert (settings["n"], settings["n_events"]) == (150, scored.outcome.n_events)


def test_training_of_a_fold_leaves_its_test_patients_out():
    scored = kaplan_meier_study(folds=3)
    assert len(scored.training) == 150
    assert [len(part.training) for part in scored.by_fold()] == [100, 100, 100]


def test_brier_and_ipa_equal_a_loop_over_patients_of_two_folds():
    scored = kaplan_meier_study(n=60, folds=2)
    scores = model_scores(scored, HORIZONS, np.empty((0, 0)))
    for horizon in HORIZONS:
        brier, null = slow_brier(scored, horizon)
        assert value(scores, "brier_score", horizon) == pytest.approx(brier, rel=1e-12)
        assert value(scores, "ipa", horizon) == pytest.approx(1 - brier / null, rel=1e-9)
    grid = scored.times[scored.times <= scored.scored_until()]
    by_time = np.array([slow_brier(scored, time) for time in grid])
    brier, null = np.trapezoid(by_time, grid, axis=0) / (grid[-1] - grid[0])
    assert scores.by_name["integrated_brier_score"].score.value == pytest.approx(brier, rel=1e-12)
    assert scores.by_name["integrated_ipa"].score.value == pytest.approx(1 - brier / null, rel=1e-9)


def test_brier_of_folds_is_their_mean_weighted_by_patients():
    scored = kaplan_meier_study(n=61, folds=2)
    scores = model_scores(scored, (4.0,), np.empty((0, 0)))
    of_folds = [
        brier_score(part.prediction, part.outcome, [4.0], training=part.training).values[0] for part in scored.by_fold()
    ]
    expected = np.average(of_folds, weights=[len(part.patient) for part in scored.by_fold()])
    assert value(scores, "brier_score", 4.0) == pytest.approx(expected, rel=1e-12)


def test_follow_up_is_scored_while_enough_are_at_risk_and_uncensored():
    scored = kaplan_meier_study()
    end, time = scored.scored_until(), scored.outcome.numpy()[0]
    models = [censoring_survival(part.training) for part in scored.by_fold()]

    def enough(at: float) -> bool:
        return (time >= at).sum() >= 15 and all(model.at(at) >= 0.1 for model in models)

    assert enough(end)
    assert not any(enough(later) for later in scored.times[scored.times > end])
    assert end < scored.last_time()
    scores = model_scores(scored, (), np.empty((0, 0)))
    for name in ("integrated_brier_score", "integrated_ipa", "concordance_index_ipcw"):
        assert scores.by_name[name].score.settings["horizon"] == end


def test_few_patients_are_scored_up_to_the_last_event():
    scored = kaplan_meier_study()[np.arange(8)]
    time, event = scored.outcome.numpy()
    end = scored.scored_until()
    assert end <= time[event > 0].max() < end + 0.5


@pytest.mark.parametrize("folds", [1, 3])
def test_the_interval_of_kaplan_meier_holds_its_integrated_ipa(folds):
    scored = kaplan_meier_study(folds=3)
    scored = scored if folds == 3 else scored.by_fold()[0]
    drawn = model_scores(scored, (), draws_of(scored.patient, 300, seed=0)).by_name["integrated_ipa"]
    interval = drawn.score.interval
    assert interval is not None
    assert interval.lower < drawn.score.value < interval.upper
    assert np.median(drawn.values) == pytest.approx(drawn.score.value, abs=0.005)


def test_the_null_curve_itself_scores_an_ipa_of_zero_on_every_draw():
    scored = kaplan_meier_study()
    null = np.tile(survival_curve(scored.outcome).at(scored.times), (len(scored.risk), 1))
    scores = model_scores(replace(scored, survival=null), (4.0,), draws_of(scored.patient, 50, seed=0))
    for drawn in (scores.by_name["integrated_ipa"], *scores.at_horizons):
        if "ipa" in drawn.score.name:
            np.testing.assert_allclose(drawn.values, 0.0, atol=1e-12)


def test_a_fold_that_nobody_outlives_leaves_its_auc_to_the_others():
    scored = kaplan_meier_study()
    chosen = scored[(scored.fold != 2) | (scored.outcome.time.numpy() < 4)]
    scores = model_scores(chosen, (6.0,), draws_of(chosen.patient, 50, seed=0))
    assert value(scores, "cumulative_dynamic_auc", 6.0) == pytest.approx(0.5, abs=1e-12)
