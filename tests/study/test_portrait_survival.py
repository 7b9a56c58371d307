"""Survival on embedded photographs: known truth, and leaks that must not pay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.errors import InvalidValueError, LeakageError
from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.concordance import concordance_index
from survlens.models.penalised import RidgeCox
from survlens.study.portrait_survival import (
    CLINICAL,
    JOINT,
    LATE,
    PHOTO,
    PortraitRows,
    Step,
    SurvivalPlan,
    portrait_survival,
)

QUICK = SurvivalPlan(inner_folds=2, tried=(Step(1e-3, 1e-4),), epochs=3, trees=0, pictures=False, draws=200)


def drawn(patients: int, *, photos: int = 1, width: int = 8, effect: float = 1.0, seed: int = 0) -> PortraitRows:
    """Latents that show illness, a hazard of illness and of an age that latents show badly, photos that vary a bit."""
    rng = np.random.default_rng(seed)
    illness, age = rng.normal(size=(2, patients))
    log_hazard = effect * (illness + 0.8 * age)
    time, stop = rng.exponential(np.exp(-log_hazard)), rng.exponential(2.0, patients)
    outcome = SurvivalOutcome.from_arrays(np.minimum(time, stop) + 1e-6, time <= stop, "years")
    base = rng.normal(size=(patients, width))
    base[:, 0], base[:, 1] = illness, 0.3 * age + base[:, 1]
    patient = np.repeat(np.arange(patients), photos)
    latents = base[patient] + 0.1 * rng.normal(size=(len(patient), width))
    sex = rng.integers(0, 2, patients)[patient]
    clinical = pd.DataFrame({"age": 60 + 10 * age[patient], "sex": sex})
    groups = {"sex": np.where(sex == 1, "male", "female")}
    return PortraitRows(latents, clinical, outcome[patient], np.char.add("P", patient.astype(str)), None, groups)


def halves(rows: PortraitRows) -> tuple[np.ndarray, np.ndarray]:
    names = np.unique(rows.patient)
    train = np.isin(rows.patient, names[: len(names) // 2])
    return np.flatnonzero(train), np.flatnonzero(~train)


def test_photo_and_clinical_beat_either_and_the_interval_says_so():
    rows = drawn(900)
    found = portrait_survival(rows, *halves(rows), QUICK, known={"truth": rows.latents[:, 0]})
    values = {name: each.score.value for name, each in found.scores.items()}
    for whole in (JOINT, LATE):
        assert values[whole] > max(values[PHOTO], values[CLINICAL]) + 0.03
        for single in (PHOTO, CLINICAL):
            interval = found.differences[f"{whole} less {single}"].interval
            assert interval is not None
            assert interval.lower > 0
    assert found.added[0] > 30
    assert found.added[1] < 1e-6
    assert values["truth"] == pytest.approx(values[PHOTO], abs=0.02)
    assert {"photo, DeepSurv", "photo, elastic net Cox", "age, Cox"} <= set(values)


def test_subgroups_hold_every_patient_once():
    rows = drawn(80, photos=2)
    found = portrait_survival(rows, *halves(rows), QUICK)
    women, men = found.subgroups["sex"]
    assert len(found.outcome) == women.n + men.n == 40
    assert women.n_events + men.n_events == found.outcome.n_events
    assert women.score.interval is not None
    again = portrait_survival(rows, *halves(rows), QUICK)
    for name, risk in found.risks.items():
        np.testing.assert_array_equal(risk, again.risks[name])


def test_noise_gives_chance_under_patient_splits_and_not_under_photo_splits():
    patient_level, photo_level = [], []
    for seed in range(3):
        rows = drawn(150, photos=3, width=150, effect=0.0, seed=seed)
        train, test = halves(rows)
        model = RidgeCox(penalties=[1e-4, 1e-3, 0.01, 0.1, 1], folds=3)
        risk = model.fit(rows.latents[train], rows.outcome[train], groups=rows.patient[train]).predict(rows.latents)
        patient_level.append(concordance_index(risk[test], rows.outcome[test]).value)
        photo = np.random.default_rng(seed).permutation(len(rows)) % 3
        seen, unseen = np.flatnonzero(photo > 0), np.flatnonzero(photo == 0)
        risk = model.fit(rows.latents[seen], rows.outcome[seen]).predict(rows.latents)
        photo_level.append(concordance_index(risk[unseen], rows.outcome[unseen]).value)
    assert np.mean(patient_level) == pytest.approx(0.5, abs=0.06)
    assert np.mean(photo_level) > 0.68


def test_a_photo_split_is_refused():
    rows = drawn(60, photos=2)
    with pytest.raises(LeakageError, match="Split patients, not photographs"):
        portrait_survival(rows, np.arange(0, 120, 2), np.arange(1, 120, 2), QUICK)


@pytest.mark.slow
def test_networks_on_pictures_get_the_settings_of_the_others():
    rows = drawn(60)
    shade = torch.from_numpy(rows.latents[:, :1]).float().sigmoid()
    pictures = shade[..., None, None].expand(-1, 3, 32, 32).contiguous()
    with_pictures = PortraitRows(rows.latents, rows.clinical, rows.outcome, rows.patient, pictures)
    plan = SurvivalPlan(inner_folds=2, tried=(Step(1e-3, 1e-4), Step(1e-4, 1e-2)), epochs=1, trees=10, draws=50)
    told = []
    found = portrait_survival(with_pictures, *halves(rows), plan, tell=told.append)
    assert {"pictures, ResNet-18", "pictures, VGG-16", "photo, forest"} <= set(found.scores)
    assert sum("step" in each for each in told) == 3


def test_rows_that_do_not_fit_are_refused():
    rows = drawn(10)
    with pytest.raises(InvalidValueError, match="one row per photograph"):
        PortraitRows(rows.latents[:3], rows.clinical, rows.outcome, rows.patient)
