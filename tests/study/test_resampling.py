"""What a draw of patients scores is what the repeated rows score."""

import numpy as np
import pytest

from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.accuracy import brier_score, reweighted_integrated_brier_score, reweighted_integrated_ipa
from survlens.evaluate.concordance import concordance_index, concordance_index_antolini
from survlens.evaluate.discrimination import cumulative_dynamic_auc
from survlens.study.model_scores import model_scores, within_fold_concordance
from survlens.study.resampling import reweighted_antolini, reweighted_auc
from survlens.study.scoring import Scored, draws_of

HORIZON = 4.0


def patients(n: int = 60, folds: int = 1, seed: int = 0) -> Scored:
    random = np.random.default_rng(seed)
    risk = random.normal(size=n).round(1)
    time = np.minimum(random.exponential(4 * np.exp(-risk)), 9).round(0) + 1
    event = (random.random(n) < 0.7).astype(int)
    times = np.arange(1.0, 11.0)
    survival = np.exp(-0.1 * np.exp(risk)[:, None] * times)
    training = SurvivalOutcome.from_arrays(random.integers(1, 12, 200), random.random(200) < 0.6, "years")
    return Scored(
        np.array([f"p{at}" for at in range(n)]),
        np.arange(n) % folds + 1,
        SurvivalOutcome.from_arrays(time, event, "years"),
        risk,
        survival,
        times,
        training,
        dict.fromkeys(range(1, folds + 1), risk),
    )


def repeated(scored: Scored, counts: np.ndarray) -> Scored:
    return scored[np.repeat(np.arange(len(counts)), counts)]


SCORES = {
    "antolini": (
        lambda scored: reweighted_antolini(scored, HORIZON),
        lambda part: concordance_index_antolini(part.prediction, part.outcome, horizon=HORIZON).value,
    ),
    "auc": (
        lambda scored: reweighted_auc(scored, HORIZON),
        lambda part: cumulative_dynamic_auc(part.prediction, part.outcome, [HORIZON], training=part.training).values[0],
    ),
    "brier": (
        lambda scored: reweighted_integrated_brier_score(
            scored.prediction, scored.outcome, training=scored.training, times=[HORIZON]
        ),
        lambda part: brier_score(part.prediction, part.outcome, [HORIZON], training=part.training).values[0],
    ),
    "ipa": (
        lambda scored: reweighted_integrated_ipa(
            scored.prediction, scored.outcome, training=scored.training, times=[HORIZON]
        ),
        lambda part: brier_score(part.prediction, part.outcome, [HORIZON], training=part.training).ipa[0],
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_a_weighted_draw_equals_repeated_rows(name):
    scored = patients()
    draws = draws_of(scored.patient, 8, seed=3)
    over, score = SCORES[name]
    np.testing.assert_allclose(over(scored)(draws), [score(repeated(scored, counts)) for counts in draws], rtol=1e-10)


def test_rows_of_one_patient_are_drawn_together():
    patient = np.array(["a", "b", "a", "c", "b"])
    draws = draws_of(patient, 50, seed=1)
    assert (draws[:, 0] == draws[:, 2]).all()
    assert (draws[:, 1] == draws[:, 4]).all()
    assert (draws[:, [0, 1, 3]].sum(1) == 3).all()


def test_concordance_is_taken_within_folds():
    """A shift of the risks of one fold, which no patient can be compared across, changes nothing."""
    scored = patients(folds=3)
    shifted = Scored(
        scored.patient, scored.fold, scored.outcome, scored.risk + 100.0 * (scored.fold == 2), scored.survival,
        scored.times, scored.training, scored.training_risk,
    )  # fmt: skip
    draws = draws_of(scored.patient, 30, seed=0)
    first, second = within_fold_concordance(scored, draws), within_fold_concordance(shifted, draws)
    assert first.score.value == second.score.value
    np.testing.assert_array_equal(first.values, second.values)
    mean = np.mean(
        [concordance_index(scored.risk[rows], scored.outcome[rows]).value for rows in scored.rows_of_folds()]
    )
    assert first.score.value == pytest.approx(mean, abs=1e-12)


def test_every_score_has_an_interval_that_holds_it():
    scores = model_scores(patients(120, folds=2), (3.0, 5.0), draws_of(patients(120).patient, 100, seed=0))
    names = [drawn.score.name for drawn in scores.all()]
    assert names.count("brier_score") == names.count("ipa") == names.count("cumulative_dynamic_auc") == 2
    for drawn in scores.all():
        assert drawn.score.value in drawn.score.interval, drawn.score


def test_without_draws_there_are_no_intervals():
    scores = model_scores(patients(), (3.0,), np.empty((0, 0)))
    assert all(drawn.score.interval is None for drawn in scores.all())
