"""`survlens explain` on a small run: what it says, what it writes, and how bad input ends."""

from __future__ import annotations

import shutil

import pytest

import survlens.study.explaining as explaining
from survlens.artifacts.attribution_files import read_attributions
from survlens.artifacts.run_folder import read_json

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run beside its study, both of which may be changed."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished.parent / "study", tmp_path / "study")
    return tmp_path / "run"


@pytest.fixture
def explain(survlens, run):
    """Calls the verb with the study file, without checks unless asked for."""

    def call(*options, model="vae", study=True):
        words = [str(each) for each in options]
        words += ["--study", str(run.parent / "study" / "study.toml")] if study else []
        words += [] if "--method" in words else ["--method", "gradient"]
        words += [] if "--checks" in words else ["--checks", "0"]
        return survlens("explain", run, "--model", model, *words)

    return call


def test_it_says_what_it_does_and_writes_what_the_report_reads(explain, run):
    done = explain("--method", "gradient_x_input", "--times", "3,6,12", "--checks", 2)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    home = run / "explanations/vae/over_time/gradient_x_input-survival"
    patients = read_json(home / "settings.json")["patients"]
    assert f"{len(patients)} of {len(patients)} patients left" in said
    assert f"{len(patients)}/{len(patients)} patients" in said
    assert f"wrote {home}" in said.replace("\n", "")
    assert "survlens report" in said
    assert {path.name for path in home.iterdir()} == {
        "settings.json", "plan.json", "attributions.safetensors", "pictures.safetensors", "global.json", "checks.json",
    }  # fmt: skip
    settings = read_json(home / "settings.json")
    assert settings["times"] == [3.0, 6.0, 12.0]
    assert (settings["model"], settings["fold"], settings["seed"], settings["unit"]) == ("vae", 1, 3, "months")
    assert len(settings["chosen"]) == 2
    assert not [path for path in run.rglob("*.part")]
    again = explain("--method", "gradient_x_input", "--times", "3,6,12", "--checks", 2)
    assert again.exit_code == 0
    assert "nothing left to do" in again.output


def test_no_patient_is_named_on_the_screen(explain, run):
    done = explain("--patients", "chosen")
    patients = read_json(run / "explanations/vae/over_time/gradient-survival/settings.json")["patients"]
    assert done.exit_code == 0, done.output
    assert not [name for name in patients if name in done.output.replace(str(run), "").split()]


def test_without_a_word_the_data_are_looked_for_beside_the_run(explain, run):
    for each in (run.parent / "study").iterdir():
        shutil.move(each, run / each.name if each.name != "study.toml" else run.parent / "moved.toml")
    done = explain("--patients", "chosen", study=False)
    assert done.exit_code == 0, done.output


def test_another_seed_of_the_training_can_be_explained(explain, run):
    done = explain("--training-seed", 4, "--patients", "chosen", "--name", "other")
    assert done.exit_code == 0, done.output
    home = run / "explanations/vae/over_time/other"
    assert read_json(home / "settings.json")["seed"] == 4
    assert set(read_attributions(home / "attributions.safetensors")) == {"image"}


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(explain, run, monkeypatch):
    real, calls = explaining.write_attributions, []

    def interrupted(path, found):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(path, found)

    with monkeypatch.context() as patch:
        patch.setattr(explaining, "write_attributions", interrupted)
        done = explain("--memory", 1)
    assert done.exit_code == INTERRUPTED, done.output
    assert "interrupted. Finished blocks of patients were kept. Go on with the same command." in done.output
    again = explain("--memory", 1)
    assert again.exit_code == 0, again.output
    home = run / "explanations/vae/over_time/gradient-survival"
    rows = len(read_json(home / "settings.json")["patients"])
    first = read_json(home / "plan.json")["rows of a block"]
    assert f"{rows - first} of {rows} patients left" in again.output
    bits = (home / "attributions.safetensors").read_bytes()
    assert explain("--memory", 1, "--name", "whole").exit_code == 0
    assert (home.parent / "whole/attributions.safetensors").read_bytes() == bits


BAD = [
    ("an unknown model", {"model": "vea"}, (), ("`model` must be one of kaplan_meier, clinical_cox, vae,",)),
    ("a model that looks at nothing", {"model": "kaplan_meier"}, (), ("it looks at nothing", "another model")),
    ("a fusion", {"model": "fused"}, (), ("Explain its members",)),
    ("a model on an embedding", {"model": "down"}, (), ("Explain that model",)),
    ("an unknown method", {}, ("--method", "gradshapp"), ("`method` must be one of gradient,", "'gradshapp'")),
    (
        "gradients of a model without", {"model": "clinical_cox"}, ("--method", "gradient"),
        ("`method` must be one for any model", "no gradients", "shap_exact"),
    ),
    ("an unknown target", {}, ("--target", "survivl"), ("`target` must be one of survival,",)),
    ("a cause is missing", {}, ("--target", "incidence"), ("`cause` must be given", "--cause")),
    ("a cause of a head without", {}, ("--target", "incidence", "--cause", 1), ("tell causes apart",)),
    ("a horizon is missing", {}, ("--target", "restricted_mean"), ("`horizon` must be given", "--horizon")),
    ("times past the fitted range", {}, ("--times", "3,900"), ("`times` must", "range of the model's curves", "900")),
    ("times that fall", {}, ("--times", "6,3"), ("`times` must be times above 0 that increase",)),
    ("times that are no numbers", {}, ("--times", "3;6"), ("numbers with commas",)),
    ("a patient who is not held out", {}, ("--patients", "p0,nobody"), ("not held out", "--fold")),
    ("too many patients", {}, ("--patients", "5000"), ("`patients` must be at most",)),
    ("an unknown fold", {}, ("--fold", 7), ("`fold` must name a saved fit, of fold1-seed3, fold1-seed4",)),
    ("an unknown seed", {}, ("--training-seed", 9), ("`training_seed` must name a saved fit",)),
    ("no references", {}, ("--references", 0), ("`references` must be at least 1",)),
    ("no memory", {}, ("--memory", 0), ("`memory` must be at least 1",)),
    ("a name that is a path", {}, ("--name", "../up"), ("`name` must start with a letter",)),
    ("a study that is not there", {"study": False}, (), ("`--study` must name the study file", "--study STUDY.toml")),
]  # fmt: skip


@pytest.mark.parametrize(("given", "options", "says"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_ends_with_one_line_that_says_what_to_do(explain, run, given, options, says):
    before = {path for path in run.rglob("*")}
    done = explain(*options, **given)
    said = " ".join(done.output.split())
    assert done.exit_code == USAGE, done.output
    assert [fragment for fragment in says if fragment not in said] == [], said
    assert "Traceback" not in said
    assert {path for path in run.rglob("*")} == before


def test_a_run_without_saved_models_is_named(explain, run):
    shutil.rmtree(run / "models" / "vae")
    done = explain()
    assert done.exit_code == USAGE
    assert "`RUN` must hold the saved model 'vae'" in " ".join(done.output.split())


def test_changed_data_and_damaged_models_are_named(explain, run):
    weights = run / "models/vae/fold1-seed3/weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    done = explain()
    assert (done.exit_code, "weights.safetensors" in done.output) == (FAILURE, True)
    weights.write_bytes(whole)
    picture = next((run.parent / "study/images").iterdir())
    picture.write_bytes(next(path for path in (run.parent / "study/images").iterdir() if path != picture).read_bytes())
    done = explain()
    assert done.exit_code == USAGE
    assert "with unchanged data" in " ".join(done.output.split())


def test_changed_settings_are_refused_until_overwritten(explain, run):
    assert explain("--patients", "chosen", "--times", "3,6").exit_code == 0
    done = explain("--patients", "chosen", "--times", "3,7")
    assert done.exit_code == USAGE
    assert "`times` must be that of the explanation" in " ".join(done.output.split())
    assert "--overwrite" in done.output
    done = explain("--patients", "chosen", "--times", "3,7", "--overwrite")
    assert done.exit_code == 0, done.output


def test_the_report_shows_it_without_the_model_or_the_data(survlens, explain, run):
    assert explain("--method", "gradient_x_input", "--times", "3,6,12", "--checks", 2).exit_code == 0
    shutil.rmtree(run / "models")
    shutil.rmtree(run.parent / "study")
    done = survlens("report", run)
    assert done.exit_code == 0, done.output
    assert "Gradient x Input" in (run / "report.html").read_text(encoding="utf-8")
