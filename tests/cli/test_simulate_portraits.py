"""`survlens simulate portraits`: same seed same bytes, resumable, read back as written, and ready to run."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.errors import DataError
from survlens.data.landmarks import read_landmarks
from survlens.data.simulate.portrait_files import read_portraits
from survlens.data.simulate.portraits import portrait_cohort

WORDS = ("--patients", 3, "--size", 16, "--photos-per-patient", 2)


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    from survlens.study.simulate_portraits import PortraitPlan, simulate_portraits

    folder = tmp_path_factory.mktemp("portraits") / "cohort"
    done = []
    assert simulate_portraits(folder, PortraitPlan(patients=40, size=16, photos_per_patient=2, seed=6), done.append)
    assert done == list(range(1, 41))
    return folder


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(survlens, tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        found = survlens("simulate", "portraits", tmp_path / name, *WORDS, "--seed", seed)
        assert found.exit_code == 0, found.output
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert hashes(tmp_path / "a")["photos/P00001-1.png"] != hashes(tmp_path / "c")["photos/P00001-1.png"]
    assert len(hashes(tmp_path / "a")) == 6 + 4


def test_a_second_call_does_nothing_and_a_cut_short_one_goes_on(survlens, tmp_path):
    words = ("simulate", "portraits", tmp_path / "out", *WORDS)
    assert survlens(*words).exit_code == 0
    whole = hashes(tmp_path / "out")
    assert "nothing to do" in survlens(*words).output
    for lost in ("photos/P00002-1.png", "cohort.csv"):
        (tmp_path / "out" / lost).unlink()
    record = json.loads((tmp_path / "out" / "simulation.json").read_text())
    (tmp_path / "out" / "simulation.json").write_text(json.dumps({**record, "complete": False}))
    kept = (tmp_path / "out" / "photos" / "P00001-1.png").stat().st_mtime_ns
    assert survlens(*words).exit_code == 0
    assert hashes(tmp_path / "out") == whole
    assert (tmp_path / "out" / "photos" / "P00001-1.png").stat().st_mtime_ns == kept


def test_another_simulation_in_the_same_folder_is_refused(survlens, tmp_path):
    assert survlens("simulate", "portraits", tmp_path, *WORDS).exit_code == 0
    for changed in (("--patients", 4), ("--size", 32), ("--seed", 1), ("--photos-per-patient", 1)):
        found = survlens("simulate", "portraits", tmp_path, *WORDS, *changed)
        assert (found.exit_code, "another" in found.output) == (2, True)
    found = survlens("simulate", "phantom", tmp_path, "--patients", 3, "--size", 16)
    assert (found.exit_code, "another" in found.output) == (2, True)


def test_the_cohort_read_back_is_the_one_that_was_drawn(written):
    drawn, read = portrait_cohort(40, size=16, seed=6, patients_photos=2), read_portraits(written)
    torch.testing.assert_close(read.pictures, drawn.pictures, rtol=0, atol=0.5 / 255 + 1e-6)
    assert torch.equal(read.face, drawn.face)
    assert torch.equal(read.background, drawn.background)
    pd.testing.assert_frame_equal(read.factors, drawn.factors, atol=1e-8)
    assert read.stage.tolist() == drawn.stage.tolist()
    assert read.patient.tolist() == drawn.patient.tolist()
    np.testing.assert_allclose(read.log_hazard, drawn.log_hazard, atol=1e-7)
    np.testing.assert_allclose(read.outcome.time.numpy(), drawn.outcome.time.numpy(), atol=1e-6)
    assert torch.equal(read.outcome.event, drawn.outcome.event)


def test_the_table_is_what_a_clinic_would_know_and_has_the_landmarks(written):
    cohort, truth = pd.read_csv(written / "cohort.csv"), pd.read_csv(written / "truth.csv")
    assert list(cohort)[:7] == ["photo", "patient", "time", "event", "age", "sex", "stage"]
    assert not {"illness", "log_hazard"} & set(cohort)
    expected = 0.9 * truth["illness"] + 0.5 * (truth["age"] - 62) / 12 + np.log(np.log(2) / 24)
    np.testing.assert_allclose(truth["log_hazard_photograph"], expected, atol=1e-8)
    drawn = portrait_cohort(40, size=16, seed=6, patients_photos=2)
    table = read_landmarks(written / "cohort.csv")
    for name, points in zip(cohort["photo"], drawn.landmarks, strict=True):
        (face,) = table.faces[name]
        np.testing.assert_allclose(face.right_eye, points[1], atol=1e-3)
        np.testing.assert_allclose(face.mouth, points[2:].mean(0), atol=1e-3)


def test_the_study_file_passes_the_check(survlens, written):
    found = survlens("check", written / "study.toml")
    assert found.exit_code == 0, found.output
    assert "80" in found.output


def test_tables_that_name_other_photographs_are_refused(written, tmp_path):
    for name in ("cohort.csv", "truth.csv"):
        table = pd.read_csv(written / name)
        (table.iloc[::-1] if name == "truth.csv" else table).to_csv(tmp_path / name, index=False)
    with pytest.raises(DataError, match="same photographs"):
        read_portraits(tmp_path)
