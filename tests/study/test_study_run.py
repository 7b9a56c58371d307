"""Laws of a whole study on tables: what is learnt where, and what several folds and seeds leave behind."""

import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from survlens.artifacts.run_folder import RunFolder, read_json
from survlens.core.errors import DataError, FitError, UsageError
from survlens.data.findings import Severity
from survlens.data.preprocessing import Preprocessing, PreprocessingSettings
from survlens.data.splits import k_fold
from survlens.models.classical import CoxRegression
from survlens.models.late_fusion import fuse_risks
from survlens.study.check import check_study
from survlens.study.evaluate import evaluate_run
from survlens.study.run import chosen_models, prepare, run_study
from survlens.study.toml_source import read_study
from survlens.study.unit_tables import curve_columns

STUDY = """\
[study]
name = "table"
seed = 2
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
patient = "patient"
numeric = ["x", "noise"]
categorical = ["arm"]
[split]
kind = "folds"
folds = 3
[[model]]
name = "net"
kind = "deep_surv"
inputs = ["table"]
hidden = [4]
seeds = [1, 2]
fit = { epochs = 4, batch = 32, device = "cpu", learning_rate = 1e-2 }
[[model]]
name = "fused"
kind = "late_fusion"
members = ["net", "clinical_cox"]
[evaluation]
bootstrap = 30
horizons = [3, 6]
"""


def table(n: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=n).round(2)
    survival, censoring = random.exponential(6 * np.exp(-x)), random.exponential(12, n)
    return pd.DataFrame({
        "patient": [f"p{at}" for at in range(n)],
        "time": np.maximum(np.minimum(survival, censoring), 0.1).round(1),
        "event": (survival <= censoring).astype(int),
        "x": x,
        "noise": random.normal(size=n).round(2),
        "arm": random.choice(["a", "b"], n),
    })  # fmt: skip


def run(folder, frame, *overrides):
    folder.mkdir()
    frame.to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(STUDY)
    prepared = prepare(read_study(folder / "study.toml", overrides))
    home = RunFolder.create(folder / "run")
    run_study(prepared, home)
    return home


def predicted(home, name):
    return pd.read_parquet(home.predictions(name))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "one", table())


def test_every_patient_is_tested_once_per_seed(finished):
    for name, seeds in (("kaplan_meier", 1), ("clinical_cox", 1), ("net", 2), ("fused", 1)):
        test = predicted(finished, name).query("part == 'test'")
        assert (test.groupby("patient").size() == seeds).all()
        assert test["patient"].nunique() == 90


def test_the_same_study_gives_the_same_numbers(finished, tmp_path):
    again = run(tmp_path / "again", table())
    for name in ("clinical_cox", "net", "fused"):
        pd.testing.assert_frame_equal(predicted(finished, name), predicted(again, name), check_exact=True)


def test_outcomes_of_test_patients_reach_no_prediction(finished, tmp_path):
    """Other times and events in fold 1's test rows leave every prediction of fold 1 as it was."""
    first = predicted(finished, "net").query("fold == 1 and part == 'test'")["patient"]
    frame = table()
    mine = frame["patient"].isin(first)
    # Events stay, because the patients are dealt to folds by them; times are swapped within the test part.
    for event in (0, 1):
        chosen = mine & (frame["event"] == event)
        frame.loc[chosen, "time"] = frame.loc[chosen, "time"].to_numpy()[::-1]
    changed = run(tmp_path / "changed", frame)
    for name in ("kaplan_meier", "clinical_cox", "net", "fused"):
        before, after = (predicted(home, name).query("fold == 1") for home in (finished, changed))
        _, columns = curve_columns(before)
        pd.testing.assert_frame_equal(before[["instance", "risk", *columns]], after[["instance", "risk", *columns]])


def test_rows_of_a_patient_do_not_count_twice(finished, tmp_path):
    """A table with every row written twice fits the same clinical Cox model."""
    frame = table()
    double = run(tmp_path / "double", pd.concat([frame, frame], ignore_index=True))
    once = predicted(finished, "clinical_cox").groupby(["fold", "patient"])["risk"].mean()
    twice = predicted(double, "clinical_cox").groupby(["fold", "patient"])["risk"].mean()
    assert set(once.index) == set(twice.index)
    assert np.corrcoef(once, twice.loc[once.index])[0, 1] > 0.99
    evaluate_run(double)
    assert read_json(double.metrics)["n_patients"] == 90


def test_a_fusion_learns_its_weights_on_risks_of_patients_that_no_member_saw(tmp_path):
    """Written out by hand for two Cox models: every training patient once, each by fits without their inner fold."""
    ridge = '[[model]]\nname = "ridge"\nkind = "cox"\npenalty = 5.0\n'
    fused = '[[model]]\nname = "two"\nkind = "late_fusion"\nmembers = ["ridge", "clinical_cox"]\nfolds = 2\n'
    head, tail = STUDY.split("[[model]]")[0], STUDY[STUDY.index("[evaluation]") :]
    folder = tmp_path / "two"
    folder.mkdir()
    table().to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(head + ridge + fused + tail)
    prepared, home = prepare(read_study(folder / "study.toml")), RunFolder.create(folder / "run")
    run_study(prepared, home)
    split = prepared.splits[0]
    learnt = prepared.cohort[np.concatenate([split.train, split.validation])]
    risks = {"ridge": np.empty(len(learnt)), "clinical_cox": np.empty(len(learnt))}
    for inner in k_fold(learnt, folds=2, seed=2):
        encoded = Preprocessing.fit(learnt[inner.train], PreprocessingSettings())
        seen, held_out = (encoded.transform_table(learnt.table.iloc[rows]).double().numpy() for rows in
                          (inner.train, inner.test))  # fmt: skip
        for name, penalty in (("ridge", 5.0), ("clinical_cox", 0.0)):
            model = CoxRegression(penalty=penalty).fit(seen, learnt.outcome[inner.train])
            risks[name][inner.test] = model.predict(held_out) - model.predict(seen).mean()
    expected = fuse_risks(risks, learnt.outcome, penalty=0.01).weights
    kept = home.model("two") / "fold1-seed2"
    assert read_json(kept / "members.json")["weights"] == pytest.approx(expected, abs=1e-6)
    assert pd.read_parquet(kept / "out_of_fold.parquet").groupby("member").size().eq(len(learnt)).all()
    before, told = predicted(home, "two"), []

    @contextmanager
    def count(name, fits):
        yield lambda done, said: told.append(said)

    home.progress.unlink()
    run_study(prepared, home, resume=True, count=count)
    assert told == []
    pd.testing.assert_frame_equal(predicted(home, "two"), before, check_exact=True)


def test_metrics_have_the_spread_of_seeds_apart(finished):
    evaluate_run(finished)
    models = {model["name"]: model for model in read_json(finished.metrics)["models"]}
    assert models["net"]["seed_spread"]["concordance_index"]["n"] == 2
    assert models["clinical_cox"]["seed_spread"] is None
    score = next(each for each in models["net"]["scores"] if each["name"] == "concordance_index")
    assert score["settings"]["folds"] == 3


def test_a_run_that_was_cut_short_is_evaluated_as_far_as_it_is_whole(finished, tmp_path):
    home = run(tmp_path / "cut", table())
    cut = predicted(home, "net")
    cut[cut["fold"] < 3].to_parquet(home.predictions("net"), index=False)
    with pytest.warns(UserWarning, match="net left out: the run was cut short"):
        evaluate_run(home)
    assert "net" not in [model["name"] for model in read_json(home.metrics)["models"]]


def test_a_category_unseen_in_training_stops_the_run_before_training(tmp_path):
    frame = table()
    frame.loc[3, "arm"] = "rare"
    with pytest.raises(DataError, match="rare"):
        run(tmp_path / "rare", frame)
    assert not (tmp_path / "rare" / "run").exists()
    settings = read_study(tmp_path / "rare" / "study.toml", ["data.unseen=as_missing"])
    assert len(prepare(settings).splits) == 3


def test_a_model_that_cannot_be_fitted_is_named(tmp_path, monkeypatch):
    def fails(*_):
        raise FitError("The Cox fit cannot climb.")

    monkeypatch.setattr(CoxRegression, "fit", fails)
    with pytest.raises(FitError, match=r"Model 'clinical_cox' \(60 patients, \d+ events, 3 features\): The Cox fit"):
        run(tmp_path / "run", table())


def test_chosen_models_bring_what_they_need(tmp_path):
    (tmp_path / "t.csv").write_text("a\n")
    (tmp_path / "study.toml").write_text(STUDY)
    settings = read_study(tmp_path / "study.toml")
    assert [entry.name for entry in chosen_models(settings, ["fused"]).models] == [
        "kaplan_meier", "clinical_cox", "net", "fused",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="must be one of"):
        chosen_models(settings, ["nte"])


def test_a_model_read_back_from_a_run_folder_knows_no_data(tmp_path):
    (tmp_path / "t.csv").write_text("a\n")
    (tmp_path / "study.toml").write_text(STUDY)
    settings = read_study(tmp_path / "study.toml")
    with pytest.raises(UsageError, match="settings of a run folder"):
        prepare(replace(settings, paths=None))


@pytest.mark.parametrize("column", ["x", "patient"])
def test_resume_with_other_data_is_refused(finished, column):
    """A covariate or the names changed, while all rows stand in the same parts."""
    folder = finished.path.parent
    settings = read_study(folder / "study.toml")
    frame = table()
    frame[column] = frame[column] + (1 if column == "x" else "b")
    other = folder / "other"
    other.mkdir()
    frame.to_csv(other / "t.csv", index=False)
    (other / "study.toml").write_text(STUDY)
    try:
        prepared = prepare(read_study(other / "study.toml"))
        with pytest.raises(UsageError, match="must be given the data of the run"):
            run_study(prepared, finished, resume=True)
    finally:
        shutil.rmtree(other)
    told: list[str] = []
    run_study(prepare(settings), finished, resume=True, tell=told.append)
    assert told == [f"0 of 15 fits left, written to {finished.path}"]


def test_the_external_table_is_audited_too(tmp_path):
    frame = table()
    frame.to_csv(tmp_path / "t.csv", index=False)
    other = frame.assign(patient="q" + frame["patient"])
    other.loc[3, "time"], other.loc[5, "patient"] = -1.0, "p7"
    other.to_csv(tmp_path / "other.csv", index=False)
    split = '[split]\nkind = "external"\ntable = "other.csv"\n'
    (tmp_path / "study.toml").write_text(STUDY.replace('[split]\nkind = "folds"\nfolds = 3\n', split))
    settings = read_study(tmp_path / "study.toml")
    errors = {one.code: one for one in check_study(settings).of(Severity.ERROR)}
    assert all(one.message.startswith("other.csv: ") for one in errors.values())
    assert errors["patient-in-both"].rows == (7,)
    assert any(one.rows == (5,) for one in errors.values())
    with pytest.raises(DataError, match="must pass its audit"):
        prepare(settings)
