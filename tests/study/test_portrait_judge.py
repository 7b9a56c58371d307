"""Readers of edited pictures: one embedding for risk and age, and models of other patients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from survlens.core.outcome import SurvivalOutcome
from survlens.study.portrait_comparison import compared, health_reader
from survlens.study.portrait_edit_job import fitted_judge, two_folds
from survlens.study.portrait_edits import AGE, PROJECTED, RAW, RISK, EditPlan, fitted_directions, judged_edits

PLAN = EditPlan(steps=(-1.0, 0.0, 1.0), people=30, random=3, permuted=1, resamples=5, draws=100)


def cohort(n: int = 600):
    """Latents whose first two dimensions are illness and age, which both raise the hazard."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(n, 6))
    age = 60 + 10 * (0.9 * latents[:, 1] + 0.3 * rng.normal(size=n))
    time = rng.exponential(np.exp(-latents[:, 0] - 0.7 * latents[:, 1]))
    outcome = SurvivalOutcome.from_arrays(time + 1e-6, np.ones(n, dtype=bool), "years")
    return latents, age, outcome, np.char.add("P", np.arange(n).astype(str))


@pytest.fixture(scope="module")
def judged():
    latents, age, outcome, patient = cohort()
    own, other = two_folds(np.arange(540), patient, outcome, seed=0)
    judge = fitted_judge(latents, outcome, patient, other, own, age=age, seed=0)
    directions = fitted_directions(latents[own], outcome[own], patient[own], age=age[own], plan=PLAN)
    asked = []

    def embedder(pictures: torch.Tensor) -> np.ndarray:
        asked.append(len(pictures))
        return pictures[:, 0, 0].double().numpy()

    def decode(vectors: torch.Tensor) -> torch.Tensor:
        return vectors[:, None, None, :].expand(-1, 3, 6, -1)

    edits = judged_edits(directions, latents[540:], patient[540:], decode, judge.readers(embedder), plan=PLAN)
    return latents, age, other, judge, directions, edits, asked


def test_pictures_are_embedded_once_for_risk_and_age(judged):
    _, _, _, _, _, edits, asked = judged
    assert asked == [30 * 3] * len(edits)
    assert all(set(edit.readings) == {RISK, AGE} for edit in edits)
    assert health_reader(edits[0]) == RISK


def test_the_judge_of_age_reads_age_of_others_in_standard_deviations(judged):
    latents, age, other, judge, *_ = judged
    assert judge.age is not None
    assert judge.age.r2 == pytest.approx(0.9, abs=0.03)
    read = judge.age.predict(latents)
    assert np.corrcoef(read, age)[0, 1] == pytest.approx(0.95, abs=0.02)
    assert read[other].std() == pytest.approx(1, abs=1e-9)


def test_versions_stand_beside_controls_and_age_beside_health(judged):
    *_, directions, edits, _ = judged
    beside = compared(edits, directions, PLAN)
    raw, projected = beside[RAW], beside[PROJECTED]
    assert raw.age_over_health is not None
    assert projected.age_over_health is not None
    # Risk rises with illness and age as 1 to 0.7: the raw edit moves both, the projected one hardly moves age.
    assert raw.age_over_health.value > 0.4
    assert projected.age_over_health.value < 0.2
    assert raw.controls is not None
    assert raw.controls.p_value == pytest.approx(1 / 5)
    assert "with age projected out is stable" in projected.remark
    for edit in edits:
        if edit.control:
            found = beside[edit.name]
            assert (found.age_over_health, found.controls, found.agreement, found.remark) == (None, None, None, "")


def test_without_age_there_is_no_reader_of_it():
    latents, _, outcome, patient = cohort(200)
    judge = fitted_judge(latents, outcome, patient, np.arange(120), np.arange(120, 200), seed=0)
    assert judge.age is None
    assert set(judge.readers(lambda pictures: pictures.numpy())) == {RISK}
