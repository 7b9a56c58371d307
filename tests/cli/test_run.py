"""`survlens run`, `evaluate` and `report` on a small study."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import survlens.study.report as study_report
from survlens.artifacts.run_folder import read_json

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


@pytest.fixture
def without_report(monkeypatch):
    """Leaves the page out, which takes longer than all the rest."""
    monkeypatch.setattr(study_report, "report_run", lambda run: run.report)


def predictions(run, name):
    return pd.read_parquet(run / "predictions" / f"{name}.parquet")


def test_a_run_leaves_what_the_architecture_promises(finished):
    for name in (
        "study.toml", "resolved.json", "environment.json", "progress.json", "cohort.json", "audit.json", "splits.json",
        "metrics.json", "report.html", "models/vae/history.csv", "models/vae/fold1-seed3/weights.safetensors",
        "predictions/vae.parquet", "embeddings/vae.parquet", "explanations/vae/dimensions.json",
        "explanations/vae/traversal.npz",
    ):  # fmt: skip
        assert (finished / name).is_file(), name
    progress = json.loads((finished / "progress.json").read_text())
    assert len(progress["finished"]) == progress["fits"] == 6


def test_no_path_of_this_machine_is_in_the_results(finished):
    command = json.loads((finished / "environment.json").read_text())["command"]
    for path in finished.rglob("*.json"):
        assert str(finished.parent) not in path.read_text().replace(command, ""), path


def test_no_patient_stands_on_two_sides(finished):
    table = predictions(finished, "vae")
    assert table.groupby("patient")["part"].nunique().max() == 1
    assert set(table["part"]) == {"train", "validation", "test"}


def test_curves_never_rise_and_stay_probabilities(finished):
    for name in ("kaplan_meier", "clinical_cox", "vae", "down", "fused"):
        table = predictions(finished, name)
        test = table[table["part"] == "test"]
        curves = test[[column for column in table if column.startswith("survival@")]].to_numpy()
        assert len(curves)
        assert ((curves >= 0) & (curves <= 1)).all()
        assert (np.diff(curves, axis=1) <= 1e-6).all()


def test_scores_are_of_patients_and_beside_the_references(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    names = [model["name"] for model in metrics["models"]]
    assert names == ["kaplan_meier", "clinical_cox", "vae", "down", "fused"]
    assert metrics["n_patients"] == predictions(finished, "vae").query("part == 'test'")["patient"].nunique()
    assert (metrics["reference"], metrics["clinical"], metrics["primary"]) == ("kaplan_meier", "clinical_cox", "vae")
    by_name = {model["name"]: model for model in metrics["models"]}
    assert by_name["fused"]["inputs"] == ["image", "table"]
    assert by_name["down"]["inputs"] == ["image"]
    assert by_name["vae"]["seed_spread"]["concordance_index"]["n"] == 2
    assert by_name["kaplan_meier"]["scores"][0]["value"] == 0.5
    assert {row["variable"] for row in by_name["vae"]["subgroups"]} == {"hospital", "age"}
    compared = {(row["model"], row["reference"]) for row in metrics["differences"]}
    assert ("fused", "clinical_cox") in compared


def test_evaluate_and_report_need_the_run_folder_alone(survlens, finished, tmp_path):
    run = tmp_path / "moved"
    shutil.copytree(finished, run)
    for name in ("metrics.json", "report.html"):
        (run / name).unlink()
    done = survlens("evaluate", run)
    assert done.exit_code == 0, done.output
    assert "CoxVAE" in done.output
    assert (run / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
    assert survlens("report", run).exit_code == 0
    assert (run / "report.html").is_file()


def test_a_run_is_never_overwritten_silently(survlens, study, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    done = survlens("run", study, "--out", out)
    assert done.exit_code == USAGE
    assert "must be a new or empty folder" in done.output
    assert survlens("run", study, "--out", out, "--overwrite").exit_code == USAGE, "these files are of no run"
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("without_report")
def test_resume_of_a_finished_run_fits_nothing_and_changes_nothing(survlens, study, finished, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(finished, run)
    done = survlens("run", study, "--out", run, "--resume")
    assert done.exit_code == 0, done.output
    assert "epoch" not in done.output
    assert (run / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


@pytest.mark.parametrize("change", ["model.vae.tau=0.9", "study.seed=4"])
def test_resume_of_another_study_is_refused(survlens, study, finished, tmp_path, change):
    run = tmp_path / "again"
    shutil.copytree(finished, run)
    done = survlens("run", study, "--out", run, "--resume", "--set", change)
    assert done.exit_code == USAGE
    assert "must be given the study of the run" in done.output


@pytest.mark.usefixtures("without_report")
def test_resume_takes_other_settings_of_evaluation_and_report(survlens, study, finished, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(finished, run)
    changes = ("--set", "evaluation.horizons=[7]", "--set", "evaluation.subgroups=['arm']", "--set", "report.title='T'")
    done = survlens("run", study, "--out", run, "--resume", *changes)
    assert done.exit_code == 0, done.output
    assert "epoch" not in done.output
    metrics = read_json(run / "metrics.json")
    assert metrics["horizons"] == [7.0]
    assert {row["variable"] for row in metrics["models"][0]["subgroups"]} == {"arm"}
    assert read_json(run / "resolved.json")["report"] == {"title": "T"}
    for name in ("vae", "clinical_cox"):
        assert (run / f"predictions/{name}.parquet").read_bytes() == (
            finished / f"predictions/{name}.parquet"
        ).read_bytes()


def test_evaluate_takes_other_settings_of_evaluation_and_the_run_remembers_them(survlens, finished, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(finished, run)
    done = survlens("evaluate", run, "--set", "evaluation.horizons=[7, 9]", "--set", "evaluation.bootstrap=0")
    assert done.exit_code == 0, done.output
    metrics = read_json(run / "metrics.json")
    assert metrics["horizons"] == [7.0, 9.0]
    assert all(score["lower"] is None for model in metrics["models"] for score in model["scores"])
    assert read_json(run / "resolved.json")["evaluation"]["bootstrap"] == 0
    assert survlens("evaluate", run).exit_code == 0
    assert read_json(run / "metrics.json") == metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("study.seed=4", "must change [evaluation] or [report] once models are fitted"),
        ("evaluation.bootstrap=-1", "--set evaluation.bootstrap=-1: `evaluation.bootstrap` must be at least 0"),
        ("evaluation.subgroups=['arm']", "must name columns that the run kept; got 'arm'"),
    ],
)
def test_evaluate_refuses_what_fits_depend_on_and_what_the_run_did_not_keep(
    survlens, finished, tmp_path, change, message
):
    run = tmp_path / "again"
    shutil.copytree(finished, run)
    done = survlens("evaluate", run, "--set", change)
    assert done.exit_code == USAGE
    assert message in " ".join(done.output.split())
    assert (run / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
    assert (run / "resolved.json").read_bytes() == (finished / "resolved.json").read_bytes()


def test_metrics_say_until_when_scores_were_taken_and_how_rows_of_a_patient_were_pooled(finished):
    """The last kept time with ten patients (and a tenth of them) at risk; written out anew from the predictions."""
    metrics = read_json(finished / "metrics.json")
    table = predictions(finished, "clinical_cox").query("part == 'test'").drop_duplicates("patient")
    kept = [float(name.removeprefix("survival@")) for name in table if name.startswith("survival@")]
    enough = [time for time in kept if (table["months"] if "months" in table else table["time"]).ge(time).sum() >= 10]
    assert metrics["scored_until"] == pytest.approx(max(enough))
    assert "several rows of a patient are pooled by the mean of their predictions" in metrics["scored_on"]


def test_a_dry_run_takes_a_step_and_writes_nothing(survlens, study, tmp_path):
    done = survlens("run", study, "--out", tmp_path / "run", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "one step on image (" in done.output
    assert "report.html" in done.output
    assert not (tmp_path / "run").exists()


def test_models_can_be_chosen_with_those_they_need(survlens, study, tmp_path):
    done = survlens("run", study, "--out", tmp_path / "run", "--models", "down", "--dry-run")
    assert "vae" in done.output
    assert "fused" not in done.output
    assert survlens("run", study, "--models", "dwon", "--dry-run").exit_code == USAGE


def _command(*arguments):
    code = "from survlens.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


@pytest.mark.usefixtures("without_report")
def test_interrupt_keeps_the_work_and_resume_ends_with_the_same_bits(survlens, study, tmp_path):
    longer = ["--models", "vae", "--set", "model.vae.seeds=[3]", "--set", "model.vae.fit.patience=0"]
    longer += ["--set", "model.vae.fit.epochs=30", "--set", "evaluation.bootstrap=0"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert survlens("run", study, "--out", whole, *longer).exit_code == 0
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums add up in the same order
    command = _command("run", study, "--out", cut, *longer)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "epoch 3/" in line:
                running.send_signal(signal.SIGINT)
                break
        message = running.stderr.read()
        assert running.wait(timeout=60) == INTERRUPTED, message
    assert "checkpoint" in message
    assert "--resume" in message
    assert "Traceback" not in message
    done = survlens("run", study, "--out", cut, *longer, "--resume")
    assert done.exit_code == 0, done.output
    assert "epoch 1/" not in done.output, "it goes on where it stopped"
    pd.testing.assert_frame_equal(predictions(cut, "vae"), predictions(whole, "vae"), check_exact=True)


def test_a_missing_run_folder_is_a_usage_error(survlens, tmp_path):
    for verb in ("evaluate", "report"):
        done = survlens(verb, tmp_path / "none")
        assert done.exit_code == USAGE
        assert "survlens run" in done.output


def test_a_truncated_prediction_table_is_named(survlens, finished, tmp_path):
    run = tmp_path / "broken"
    shutil.copytree(finished, run)
    path = run / "predictions" / "vae.parquet"
    path.write_bytes(path.read_bytes()[:100])
    done = survlens("evaluate", run)
    assert done.exit_code == FAILURE
    assert "vae.parquet" in done.output
    assert "Traceback" not in done.output


def test_a_demo_folder_of_another_seed_is_refused_and_a_finished_one_returns_at_once(survlens, tmp_path):
    (tmp_path / "study.toml").write_text("# Made by: survlens demo --seed 0\n")
    (tmp_path / "report.html").write_text("done")
    done = survlens("demo", "--out", tmp_path)
    assert done.exit_code == 0
    assert "finished report" in done.output
    for other in (["--seed", 1], ["--quick"]):
        refused = survlens("demo", "--out", tmp_path, *other)
        assert refused.exit_code == USAGE
        assert "--overwrite" in refused.output
