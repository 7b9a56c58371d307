"""Delayed entry, weights and strata on their way from the table to models and scores."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.artifacts.run_folder import RunFolder, read_json
from survlens.core.errors import DataError, SurvlensError
from survlens.models.estimator_files import load_estimator
from survlens.models.saving import load_model
from survlens.study.check import check_study
from survlens.study.evaluate import evaluate_run
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import read_study

STUDY = """\
[study]
name = "late"
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
patient = "patient"
numeric = ["x"]
{columns}
[split]
kind = "folds"
folds = 2
[evaluation]
bootstrap = 20
horizons = [3]
"""


def table(n: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(3)
    x = random.normal(size=n).round(3)
    survival, censoring = random.exponential(6 * np.exp(-x)), random.exponential(12, n)
    time = np.maximum(np.minimum(survival, censoring), 0.2).round(2)
    return pd.DataFrame({
        "patient": [f"p{at}" for at in range(n)],
        "time": time,
        "event": (survival <= censoring).astype(int),
        "x": x,
        "entry": np.where(np.arange(n) % 4 == 0, (time / 2).round(3), 0.0),
        "weight": 1.0 + np.arange(n) % 3,
        "hospital": np.arange(n) % 2,
    })  # fmt: skip


def finished(folder, frame, columns="", models=""):
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(STUDY.format(columns=columns) + models)
    home = RunFolder.create(folder / "run")
    run_study(prepare(read_study(folder / "study.toml")), home)
    return home


def cox(home):
    return load_estimator(home.model("clinical_cox") / "fold1-seed0")


def test_a_weight_of_two_is_a_patient_who_stands_twice(tmp_path):
    frame = table(60)
    doubled = pd.concat([frame, frame.assign(patient=frame["patient"] + "b")], ignore_index=True)
    weighted = prepare_cohort(tmp_path / "w", frame.assign(weight=2.0), 'weight = "weight"')
    twice = prepare_cohort(tmp_path / "d", doubled, "")
    assert float(weighted.outcome.weights().sum()) == len(twice)


def prepare_cohort(folder, frame, columns):
    folder.mkdir()
    frame.to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(STUDY.format(columns=columns))
    return prepare(read_study(folder / "study.toml")).cohort


def test_each_column_reaches_the_fit(tmp_path):
    plain = cox(finished(tmp_path / "plain", table()))
    for key, column in (("entry", "entry"), ("weight", "weight"), ("stratum", "hospital")):
        changed = cox(finished(tmp_path / key, table(), f'{key} = "{column}"'))
        assert abs(changed.coef_ - plain.coef_).max() > 1e-4
    assert changed.strata_.tolist() == [0, 1]


def test_a_network_of_cox_takes_the_baseline_of_each_stratum(tmp_path):
    frame = table()
    frame["time"] = np.where(frame["hospital"] == 1, frame["time"] * 4, frame["time"])
    net = '[[model]]\nname = "net"\nkind = "deep_surv"\nhidden = [4]\n[model.fit]\nepochs = 1\n'
    home = finished(tmp_path / "net", frame, 'stratum = "hospital"', net)
    found = pd.read_parquet(home.predictions("net")).merge(frame[["patient", "hospital"]], on="patient")
    found = found[found["part"] == "test"]
    model: Any = load_model(home.model("net") / "fold1-seed0").model
    head, rows = model.head, found[found["fold"] == 1]
    assert head.baseline.strata.tolist() == [0, 1]
    curves = head.baseline.predict(
        torch.from_numpy(rows["risk"].to_numpy()), torch.tensor([3.0]), torch.from_numpy(rows["hospital"].to_numpy())
    )
    np.testing.assert_allclose(rows["survival@3"], curves.survival[:, 0], atol=1e-5)
    assert rows.groupby("hospital")["survival@3"].mean().diff().iloc[-1] > 0.1


def test_who_entered_late_is_fitted_on_and_not_scored(tmp_path):
    home = finished(tmp_path / "late", table(), 'entry = "entry"\nweight = "weight"')
    evaluate_run(home)
    metrics = read_json(home.metrics)
    assert metrics["n_patients"] == 90
    assert "30 patients who entered after time 0 were fitted on but are not scored" in metrics["scored_on"]
    assert "every patient counts once, whatever the weight in the fit" in metrics["scored_on"]
    assert pd.read_parquet(home.predictions("clinical_cox"))["entry"].gt(0).sum() == 60


def test_a_cohort_of_late_entries_alone_cannot_be_scored(tmp_path):
    frame = table().assign(entry=lambda rows: (rows["time"] / 2).round(3))
    home = finished(tmp_path / "all", frame, 'entry = "entry"')
    with pytest.raises(DataError, match="must be followed from time 0 to be scored"):
        evaluate_run(home)


def test_a_model_that_cannot_honour_a_column_is_named_with_it(tmp_path):
    forest = '[[model]]\nname = "trees"\nkind = "forest"\ntrees = 5\n'
    with pytest.raises(DataError, match=r'trees \(forest\) must take what \[data\] says \(weight = "weight"\)'):
        finished(tmp_path / "forest", table(), 'weight = "weight"', forest)


@pytest.mark.parametrize(
    ("columns", "model", "fragment"),
    [
        ('weight = "weight"', 'name = "trees"\nkind = "forest"', "trees (forest) must take"),
        ('entry = "entry"', 'name = "path"\nkind = "lasso_cox"', "path (lasso_cox) must take"),
        ('stratum = "hospital"', 'name = "net"\nkind = "cox_time"', "net (cox_time) must take"),
        ('site = "hospital"', 'name = "net"\nkind = "cox_time"', "the number of sites"),
    ],
)
def test_what_no_fit_would_take_is_found_before_the_first(tmp_path, columns, model, fragment):
    table().to_csv(tmp_path / "t.csv", index=False)
    text = STUDY.format(columns=columns) + f"[[model]]\n{model}\n"
    if "site" in columns:
        text = text.replace('kind = "folds"\nfolds = 2', 'kind = "site_folds"\nfolds = 9')
    (tmp_path / "study.toml").write_text(text)
    settings = read_study(tmp_path / "study.toml")
    found = [one.message for one in check_study(settings).findings if one.code == "cannot-be-fitted"]
    assert len(found) == 1
    assert fragment in found[0]
    with pytest.raises(SurvlensError) as refused:
        prepare(settings)
    assert str(refused.value) == found[0]


@pytest.mark.parametrize(
    ("key", "wrong", "code"),
    [
        ("entry", 99.0, "entry-after-time"),
        ("entry", -1.0, "entry-after-time"),
        ("weight", 0.0, "weight-not-positive"),
        ("weight", np.nan, "weight-not-positive"),
        ("hospital", 1.5, "stratum-not-a-number"),
        ("hospital", "north", "stratum-not-a-number"),
    ],
)
def test_a_wrong_value_is_found_with_its_row(tmp_path, key, wrong, code):
    frame = table(40).astype({"hospital": object})
    frame.loc[7, key] = wrong
    frame.to_csv(tmp_path / "t.csv", index=False)
    columns = 'entry = "entry"\nweight = "weight"\nstratum = "hospital"'
    (tmp_path / "study.toml").write_text(STUDY.format(columns=columns))
    settings = read_study(tmp_path / "study.toml")
    found = [one for one in check_study(settings).findings if one.code == code]
    assert [one.rows for one in found] == [(9,)]
    assert found[0].column == key
    with pytest.raises(DataError):
        prepare(settings)


def test_an_empty_entry_is_followed_from_the_start(tmp_path):
    frame = table(40)
    frame["entry"] = frame["entry"].replace(0.0, np.nan)
    cohort = prepare_cohort(tmp_path / "empty", frame, 'entry = "entry"')
    assert int((cohort.outcome.entries() > 0).sum()) == 10


def test_rows_of_one_patient_have_one_entry(tmp_path):
    frame = table(40)
    frame.loc[1, ["patient", "time", "event"]] = frame.loc[0, ["patient", "time", "event"]].to_numpy()
    with pytest.raises(DataError, match="must have one outcome"):
        prepare_cohort(tmp_path / "two", frame, 'entry = "entry"')
