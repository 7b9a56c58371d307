"""Covariates that stand for the image: models that take them see it, and clinical-only models do not take them."""

import json

import numpy as np
import pandas as pd
import pytest

from survlens.artifacts.run_folder import RunFolder
from survlens.core.errors import UsageError
from survlens.report.metrics_reader import read_metrics
from survlens.report.verdict import verdict
from survlens.study.evaluate import evaluate_run
from survlens.study.model_metrics import seen_by
from survlens.study.model_settings import Modality
from survlens.study.resolved import from_resolved, resolved
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import read_study

STUDY = """\
[study]
name = "photographs"
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
numeric = ["age", "w[1-9]*"]
{embedding}
[split]
kind = "holdout"
[evaluation]
horizons = [3]
bootstrap = 20
[[model]]
name = "photo"
kind = "cox"
columns = ["w[1-9]*"]
[[model]]
name = "whole"
kind = "cox"
[[model]]
name = "fused"
kind = "late_fusion"
members = ["clinical_cox", "photo"]
folds = 2
"""
NAMED = 'image_embedding = ["w[1-9]*"]'


def study(folder, embedding: str = NAMED):
    random = np.random.default_rng(4)
    x = random.normal(size=(80, 3)).round(3)
    time = random.exponential(6 * np.exp(-x[:, 0])).clip(0.1).round(2)
    frame = {"time": time, "event": 1 - (random.random(80) < 0.3), "age": x[:, 0], "w1": x[:, 1], "w2": x[:, 2]}
    pd.DataFrame(frame).to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(STUDY.format(embedding=embedding))
    return read_study(folder / "study.toml")


def test_models_see_what_their_columns_stand_for(tmp_path):
    settings = study(tmp_path)
    seen = {entry.name: seen_by(entry, settings) for entry in settings.models}
    image, table = Modality.IMAGE, Modality.TABLE
    assert seen["photo"] == (image,)
    assert seen["whole"] == seen["fused"] == (image, table)
    assert seen["clinical_cox"] == (table,)
    assert settings.model("clinical_cox").columns == ("age",)
    assert from_resolved(resolved(settings)).models == settings.models
    plain = study(tmp_path, "")
    assert {seen_by(entry, plain) for entry in plain.models if entry.inputs} == {(table,)}
    assert plain.model("clinical_cox").columns is None


@pytest.mark.parametrize("columns", ["", 'columns = ["age", "w1"]'])
def test_a_clinical_cox_of_the_user_cannot_take_the_photograph(tmp_path, columns):
    study(tmp_path)
    text = (tmp_path / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(f'{text}[[model]]\nname = "clinical_cox"\nkind = "cox"\n{columns}\n')
    with pytest.raises(UsageError, match="hold no column of image_embedding for clinical_cox.*got.*w1"):
        read_study(tmp_path / "study.toml")


def test_coordinates_of_photographs_cannot_pass_for_clinical_columns(tmp_path):
    (tmp_path / "embedding.json").write_text(json.dumps({"summary": {"space": "w"}}))
    assert study(tmp_path).data.image_embedding == ("w[1-9]*",)
    with pytest.raises(UsageError, match=r"got 2 of them.*image_embedding = \[\"w\[1-9\]\*\"\]"):
        study(tmp_path, "")


def test_an_embedding_that_is_no_covariate_is_refused(tmp_path):
    with pytest.raises(UsageError, match="image_embedding"):
        study(tmp_path, 'image_embedding = ["z*"]')
    with pytest.raises(UsageError, match="no clinical covariates"):
        study(tmp_path, 'image_embedding = ["*"]')


def test_the_report_says_that_the_image_was_used(tmp_path):
    home = RunFolder.create(tmp_path / "run")
    run_study(prepare(study(tmp_path)), home)
    evaluate_run(home)
    metrics = read_metrics(home.path / "metrics.json")
    inputs = {model.name: model.inputs for model in metrics.models}
    assert inputs["photo"] == ("image",)
    assert inputs["fused"] == ("image", "table")
    notes = {model.name: model.note for model in metrics.models}
    assert notes["photo"].startswith("sees the image through its embedding, 2 columns of the table")
    said = " ".join((verdict(metrics).headline, *verdict(metrics).remarks))
    assert "No model here used the image" not in said
