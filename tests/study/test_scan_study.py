"""A study on scans, from files to an explanation in the frame of each scan."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest

from survlens.artifacts.attribution_files import read_attributions
from survlens.artifacts.run_folder import RunFolder, read_json
from survlens.artifacts.tensors import load_tensors
from survlens.core.errors import DataError, UsageError
from survlens.data import scan_cache, scans
from survlens.data.geometry import Volume
from survlens.data.itk_scans import read_scan_file
from survlens.data.nifti import read_nifti, write_nifti
from survlens.data.simulate.phantom import Organ, phantom_survival
from survlens.study.check import check_study
from survlens.study.dry_run import dry_run
from survlens.study.evaluate import evaluate_run
from survlens.study.explain_settings import ExplainSettings
from survlens.study.explaining import explain_patients
from survlens.study.report import report_run
from survlens.study.resolved import from_resolved, resolved
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import read_study

pytest.importorskip("nibabel", reason="reading NIfTI needs the extra `imaging`")
# The forward mode of torch compiles a few formulas when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

PATIENTS = 30
STUDY = """
[study]
name = "Phantoms"
seed = 3
simulated = true

[data]
table = "clinical.csv"
unit = "months"
time = "time"
event = "event"
patient = "patient"
{scans}
numeric = ["age"]

[data.scans]
window = [-150, 250]
{more}

[[model]]
name = "cnn"
kind = "cox_cnn"
hidden = [4, 4]
[model.fit]
epochs = 2
batch = 16
device = "cpu"

[evaluation]
horizons = [12, 24]
bootstrap = 20
"""
TABLE = 'scan = "scan"\nmask = "mask"\nstructure = "structure"'
VOLUME = "size = [16, 16, 16]\nmask_channel = true"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Phantoms as NIfTI files in a folder, named by their patients, in several orientations, and their table."""
    home = tmp_path_factory.mktemp("scans")
    study = phantom_survival(PATIENTS, size=16, seed=5)
    (home / "scans").mkdir()
    rows = []
    time, event = study.outcome.numpy()
    for row in range(PATIENTS):
        scan = turned(Volume(study.volumes[row, 0], study.affine(row)), row)
        mask = turned(Volume(study.labels[row], study.affine(row)), row)
        paths = (f"scans/p{row}.nii.gz", f"scans/p{row}_seg.nii.gz")
        if row % 2:
            paths = (f"scans/p{row}/scan.nii.gz", f"scans/p{row}/mask.nii.gz")
        write_nifti(scan, home / paths[0])
        write_nifti(mask, home / paths[1])
        liver = f"{Organ.LIVER.value}, {Organ.TUMOUR.value}"
        rows.append((f"p{row}", *paths, liver, time[row], event[row], study.age[row]))
    names = ["patient", "scan", "mask", "structure", "time", "event", "age"]
    pd.DataFrame(rows, columns=names).to_csv(home / "clinical.csv", index=False)
    return home


def turned(volume: Volume, number: int) -> Volume:
    """The same volume stored with its axes in another order and direction."""
    order = [(0, 1, 2), (2, 1, 0), (1, 2, 0)][number % 3]
    values = np.flip(volume.values.transpose(order), axis=number % 2)
    affine = volume.affine[:, [*order, 3]].copy()
    axis = number % 2
    affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
    affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(values), affine)


def written(files, name="study", scans=TABLE, more=VOLUME, tail=""):
    path = files / f"{name}.toml"
    path.write_text(STUDY.format(scans=scans, more=more) + tail)
    return path


@pytest.fixture(scope="module")
def run(files):
    study = written(files)
    folder = RunFolder.create(files / "run")
    run_study(prepare(read_study(study)), folder, text=study.read_text())
    return folder


def test_a_study_on_scans_runs_and_is_explained_in_the_frame_of_each_scan(files, run, tmp_path):
    settings = ExplainSettings(model="cnn", method="gradient", times=(12.0, 24.0), patients="chosen")
    home = explain_patients(run, settings, study=files / "study.toml")
    found = read_attributions(home / "attributions.safetensors")["image"]
    assert found.dims == ("channel", "height", "width", "depth")
    names = read_json(home / "settings.json")["patients"]
    for row, name in enumerate(names):
        scan = read_nifti(files / pd.read_csv(files / "clinical.csv").set_index("patient")["scan"][name])
        overlay = read_nifti(found.to_nifti(tmp_path / f"{row}.nii.gz", instance=row, time=12.0))
        assert overlay.same_grid(scan)
    pictures = load_tensors(home / "pictures.safetensors")["image"]
    assert pictures.shape[1:] == (1, 16, 16, 16)


def test_a_folder_of_scans_gives_the_same_cohort_as_a_table_of_paths(files):
    # Of the folder every label is the region, so the table names none here.
    table = prepare(read_study(written(files, "table", 'scan = "scan"\nmask = "mask"'))).cohort
    folder = prepare(read_study(written(files, "folder", 'scan_folder = "scans"'))).cohort
    assert folder.fingerprint() == table.fingerprint()
    for one, other in zip(folder.images or (), table.images or (), strict=True):
        np.testing.assert_array_equal(one.read(), other.read())
        assert one.reference.scan == other.reference.scan


def test_check_reads_every_scan_and_every_mask_once(files, monkeypatch):
    study = read_study(written(files, "once", more=f'{VOLUME}\ncache = "once"'))
    read = []
    monkeypatch.setattr(scans, "read_scan_file", lambda path: read.append(path) or read_scan_file(path))
    assert check_study(study).ok
    assert len(read) == len(set(read)) == 2 * PATIENTS


def test_what_check_has_prepared_is_not_prepared_again(files, monkeypatch):
    study = read_study(written(files, "cached", more=f'{VOLUME}\ncache = "kept"'))
    assert check_study(study).ok
    kept = {each: each.stat().st_mtime_ns for each in (files / "kept").iterdir()}
    assert len(kept) == PATIENTS
    assert not any(f"p{row}" in each.name for row in range(PATIENTS) for each in kept)

    def refuse(*_, **__):
        raise AssertionError("a scan was prepared again")

    monkeypatch.setattr(scan_cache, "prepared", refuse)
    dry_run(prepare(study), RunFolder(files / "nothing"))
    assert {each: each.stat().st_mtime_ns for each in (files / "kept").iterdir()} == kept


def test_settings_of_scans_come_back_from_a_run(files, run):
    study = read_study(files / "study.toml")
    again = from_resolved(json.loads(json.dumps(resolved(study))))
    assert again.data == study.data
    assert read_json(run.resolved)["data"]["scans"]["window"] == [-150.0, 250.0]


@pytest.mark.parametrize(
    ("view", "channels", "encoder"),
    [("slice", 2, "cnn"), ("three_slices", 4, "residual"), ("slice", 2, "mlp")],
)
def test_slices_are_rows_that_a_patient_pools_or_not(files, view, channels, encoder):
    more = f'size = [16, 16]\nmask_channel = true\nview = "{view}"\nslices = 3\ncrop = true\ncache = ""'
    pooled = 'pooling = "mean"' if encoder == "cnn" else ""
    text = written(files, "slices", more=more).read_text()
    path = files / "slices.toml"
    path.write_text(text.replace("hidden = [4, 4]", f'hidden = [4, 4]\nencoder = "{encoder}"\n{pooled}'))
    prepared = prepare(read_study(path))
    cohort = prepared.cohort
    assert len(cohort) == 3 * PATIENTS
    assert cohort.n_patients == PATIENTS
    assert list(cohort.instance[:4]) == ["p0/1", "p0/2", "p0/3", "p1/1"]
    assert cohort.images is not None
    areas = [each.read()[-1].sum() for each in cohort.images[:3]]
    assert cohort.images[0].shape() == (channels, 16, 16)
    assert all(area > 0 for area in areas)
    steps, _ = dry_run(prepared, RunFolder(files / "nothing"))
    assert f"{channels}, 16, 16" in dict(steps)["cnn"]


def test_a_residual_network_sees_volumes(files):
    text = written(files, "residual").read_text().replace("hidden = [4, 4]", 'hidden = [4, 4]\nencoder = "residual"')
    (files / "residual.toml").write_text(text)
    steps, _ = dry_run(prepare(read_study(files / "residual.toml")), RunFolder(files / "nothing"))
    assert "2, 16, 16, 16" in dict(steps)["cnn"]


def test_everything_wrong_with_scans_is_found_in_one_table(files, tmp_path):
    table = pd.read_csv(files / "clinical.csv", dtype={"structure": str})
    for name in ("broken.nii.gz", "a.png"):
        (files / "scans" / name).write_bytes(b"\x1f\x8b no scan")
    try:
        table.loc[0, "scan"] = "scans/none.nii.gz"
        table.loc[1, "scan"] = "../outside.nii.gz"
        table.loc[2, "scan"] = "scans/broken.nii.gz"
        table.loc[3, "scan"] = None
        table.loc[4, "mask"] = None
        table.loc[5, "structure"] = "9"
        table.loc[6, "scan"] = "scans/a.png"
        table.loc[8, ["scan", "mask"]] = table.loc[10, ["scan", "mask"]].to_numpy()
        table.to_csv(files / "bad.csv", index=False)
        path = written(files, "bad")
        path.write_text(path.read_text().replace("clinical.csv", "bad.csv"))
        study = read_study(path)
        report = check_study(study)
    finally:
        for name in ("broken.nii.gz", "a.png"):
            (files / "scans" / name).unlink()
    assert not report.ok
    rows = {(one.code, row) for one in report.findings for row in one.rows}
    assert rows >= {
        ("scan-not-found", 2), ("scan-outside-root", 3), ("scan-unreadable", 4), ("scan-missing", 5),
        ("scan-unreadable", 6), ("scan-unreadable", 7), ("scan-not-found", 8), ("duplicate-across-patients", 10),
        ("duplicate-across-patients", 12),
    }  # fmt: skip
    with pytest.raises(DataError, match="must pass its audit"):
        prepare(study)


def test_scans_of_several_shapes_are_told_before_anything_is_trained(files):
    crop = "crop = true\nmargin = 0"
    report = check_study(read_study(written(files, "shapes", more=crop)))
    assert "several-scan-shapes" in [one.code for one in report.findings]


@pytest.mark.parametrize(
    ("scans", "more", "message"),
    [
        ('scan = "scan"\nimage = "scan"', VOLUME, r"line 14: `data.image` must be left out beside scans"),
        ('scan_folder = "scans"\nmask = "mask"', VOLUME, "`data.scan_folder` must stand beside `patient`"),
        (TABLE, "size = [16, 16]", r"line 20: `data.scans.size` must be 3 numbers of voxels"),
        (TABLE, "windows = [1, 2]", 'Did you mean "window"'),
        (TABLE, 'view = "slices"', 'must be one of "volume", "slice", "three_slices"'),
        (TABLE, "slices = 3", "`data.scans.slices`"),
        (f'{TABLE}\nimage_scaling = "standardise"', VOLUME, 'must be "unit" for scans'),
        ("", VOLUME, "must stand beside `scan` or `scan_folder`"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_where_they_stand(files, scans, more, message):
    with pytest.raises(UsageError, match=message):
        read_study(written(files, "wrong", scans, more))


def test_a_scan_may_not_stand_in_both_tables_of_an_external_test(files):
    table = pd.read_csv(files / "clinical.csv", dtype={"structure": str})
    table[:20].to_csv(files / "here.csv", index=False)
    table[19:].assign(patient=[f"q{row}" for row in range(PATIENTS - 19)]).to_csv(files / "there.csv", index=False)
    path = written(files, "both", tail='[split]\nkind = "external"\ntable = "there.csv"\n')
    path.write_text(path.read_text().replace("clinical.csv", "here.csv"))
    (found,) = [one for one in check_study(read_study(path)).findings if one.code == "image-in-both"]
    assert list(found.rows) == [2]


def test_a_folder_that_is_no_folder_is_a_finding(files):
    study = read_study(written(files, "nowhere", 'scan_folder = "nothing"', "size = [16, 16, 16]"))
    assert "scan-folder" in [one.code for one in check_study(study).findings]


def test_a_cache_outside_the_data_root_is_refused(files):
    study = read_study(written(files, "out", more=f'{VOLUME}\ncache = "../elsewhere"'))
    assert "must stay inside the data root" in " ".join(one.message for one in check_study(study).findings)


def test_a_link_of_the_folder_may_not_lead_out_of_it(files, tmp_path):
    home = tmp_path / "linked"
    (home / "scans").mkdir(parents=True)
    outside = tmp_path / "outside.nii.gz"
    outside.write_bytes((files / "scans" / "p0.nii.gz").read_bytes())
    table = pd.read_csv(files / "clinical.csv")
    for row, name in enumerate(table["patient"]):
        os.symlink(outside if row == 0 else files / table["scan"][row], home / "scans" / f"{name}.nii.gz")
    table.to_csv(home / "clinical.csv", index=False)
    study = read_study(written(home, "linked", 'scan_folder = "scans"', "size = [16, 16, 16]"))
    assert "scan-outside-root" in [one.code for one in check_study(study).findings]


@pytest.mark.slow
def test_the_report_draws_slices_of_the_scans(files, run):
    settings = ExplainSettings(model="cnn", method="gradient", times=(12.0, 24.0), patients="chosen")
    explain_patients(run, settings, study=files / "study.toml")
    evaluate_run(run)
    page = report_run(run)
    assert "Three slices" in page.read_text()
