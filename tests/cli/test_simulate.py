"""`survlens simulate phantom`: same seed same bytes, resumable, and a truth that stands."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from survlens.data.dicom import dicom_files
from survlens.data.nifti import read_nifti
from survlens.data.scans import ScanReference
from survlens.data.simulate.phantom import LoadEffect, Organ, phantom_survival

for needed in ("pydicom", "highdicom", "nibabel"):
    pytest.importorskip(needed, reason="writing scans needs the extra `imaging`")


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_the_same_seed_writes_the_same_bytes_and_another_one_others(survlens, tmp_path, kind):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        found = survlens(
            "simulate", "phantom", tmp_path / name, "--patients", 2, "--size", 12, "--format", kind, "--seed", seed
        )
        assert found.exit_code == 0, found.output
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert hashes(tmp_path / "a")["truth.csv"] != hashes(tmp_path / "c")["truth.csv"]


def test_a_second_call_does_nothing_and_a_cut_short_one_goes_on(survlens, tmp_path):
    words = ("simulate", "phantom", tmp_path / "out", "--patients", 3, "--size", 12)
    assert survlens(*words).exit_code == 0
    whole = hashes(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = survlens(*words)
    assert (again.exit_code, "nothing to do" in again.output) == (0, True)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    kept = tmp_path / "out" / "scans" / "P00001.nii.gz"
    for lost in ("scans/P00002.nii.gz", "masks/P00003.nii.gz", "cohort.csv"):
        (tmp_path / "out" / lost).unlink()
    record = json.loads((tmp_path / "out" / "simulation.json").read_text())
    (tmp_path / "out" / "simulation.json").write_text(json.dumps({**record, "complete": False}))
    before = kept.stat().st_mtime_ns
    assert survlens(*words).exit_code == 0
    assert hashes(tmp_path / "out") == whole
    assert kept.stat().st_mtime_ns == before


def test_a_patient_cut_short_in_dicom_is_written_again(survlens, tmp_path):
    words = ("simulate", "phantom", tmp_path / "out", "--patients", 2, "--size", 12, "--format", "dicom")
    assert survlens(*words).exit_code == 0
    whole = hashes(tmp_path / "out")
    home = tmp_path / "out" / "dicom"
    (home / "P00002").rename(home / ".P00002.part")
    assert survlens(*words).exit_code == 0
    assert hashes(tmp_path / "out") == whole


@pytest.mark.parametrize("changed", [("--patients", 3), ("--size", 13), ("--seed", 1), ("--variant", "wears_off")])
def test_another_simulation_in_the_same_folder_is_refused(survlens, tmp_path, changed):
    words = ("simulate", "phantom", tmp_path, "--patients", 2, "--size", 12)
    assert survlens(*words).exit_code == 0
    found = survlens(*words, *changed)
    assert found.exit_code == 2
    assert "another" in found.output


def test_a_folder_with_other_files_is_refused(survlens, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    found = survlens("simulate", "phantom", tmp_path, "--patients", 2, "--size", 12)
    assert (found.exit_code, "new or empty" in found.output) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_broken_record_is_refused(survlens, tmp_path):
    (tmp_path / "simulation.json").write_text("{")
    found = survlens("simulate", "phantom", tmp_path, "--patients", 2, "--size", 12)
    assert (found.exit_code, "cannot be read" in found.output) == (2, True)


@pytest.mark.parametrize("variant", [each.value for each in LoadEffect])
def test_files_and_tables_are_those_of_the_drawn_study(survlens, tmp_path, variant):
    words = ("simulate", "phantom", tmp_path, "--patients", 5, "--size", 12, "--seed", 9, "--variant", variant)
    assert survlens(*words).exit_code == 0
    study = phantom_survival(5, size=12, seed=9, effect=LoadEffect(variant))
    cohort, truth = pd.read_csv(tmp_path / "cohort.csv"), pd.read_csv(tmp_path / "truth.csv")
    assert list(cohort) == ["patient", "time", "event", "age", "scan", "mask"]
    time, event = study.outcome.numpy()
    np.testing.assert_allclose(cohort["time"], time, atol=1e-6)
    np.testing.assert_array_equal(cohort["event"], event)
    np.testing.assert_allclose(truth["load_ml"], study.load, atol=1e-6)
    np.testing.assert_allclose(truth["log_hazard"], study.log_hazard, atol=1e-6)
    for row, line in enumerate(cohort.to_dict("records")):
        scan, mask = read_nifti(tmp_path / line["scan"]), read_nifti(tmp_path / line["mask"])
        assert np.array_equal(scan.values, np.clip(np.rint(study.volumes[row, 0]), -1024, 3071))
        assert np.array_equal(mask.values, study.labels[row])
        np.testing.assert_allclose(scan.affine, study.affine(row), rtol=1e-5, atol=1e-4)
    # S(24) by the formula, not by the code that wrote it.
    z, age = study.covariates.T
    power = 1.2 if variant == "constant" else 2 - 0.35 * z
    scale = 0.02 if variant == "constant" else 0.01
    expected = np.exp(-scale * 24.0**power / power * np.exp(1.2 * z + 0.5 * age))
    np.testing.assert_allclose(truth["survival@24"], expected, atol=1e-8)


def test_dicom_files_hold_the_same_scans_and_name_only_people_of_the_list(survlens, tmp_path):
    import pydicom

    words = ("simulate", "phantom", tmp_path, "--patients", 3, "--size", 12, "--format", "dicom", "--seed", 2)
    assert survlens(*words).exit_code == 0
    study = phantom_survival(3, size=12, seed=2)
    people = pd.read_csv(tmp_path / "identifiers.csv", dtype=str).set_index("patient")
    for row, line in enumerate(pd.read_csv(tmp_path / "cohort.csv").to_dict("records")):
        reference = ScanReference(tmp_path / line["scan"], tmp_path / line["mask"], "liver")
        volume = reference.volume()
        assert np.array_equal(volume.canonical().values, np.clip(np.rint(study.volumes[row, 0]), -1024, 3071))
        assert int(reference.region(volume).sum()) == int((study.labels[row] >= Organ.LIVER.value).sum())
        person = people.loc[line["patient"]]
        files = dicom_files(tmp_path / "dicom" / line["patient"])
        assert len(files) == 12 + 2
        for path in files:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            assert str(header.PatientName) == person["name"]
            assert (header.PatientID, header.PatientBirthDate, header.StudyDate) == (
                person["number"],
                person["birth"],
                person["date"],
            )
    tables = (tmp_path / "cohort.csv").read_text() + (tmp_path / "truth.csv").read_text()
    assert not any(str(word) in tables for word in people.drop(columns="sex").to_numpy().ravel())
