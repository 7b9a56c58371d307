"""Models that take some of the covariates, and covariates named by patterns."""

import json

import numpy as np
import pandas as pd
import pytest

from survlens.artifacts.run_folder import RunFolder
from survlens.core.errors import UsageError
from survlens.data.preprocessing import Preprocessing
from survlens.models.estimator_files import load_estimator
from survlens.models.saving import load_model
from survlens.study.bench import Bench
from survlens.study.resolved import from_resolved, resolved
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import read_study

STUDY = """\
[study]
name = "columns"
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
numeric = ["age", "texture_*"]
categorical = ["arm"]
[split]
kind = "folds"
folds = 2
[evaluation]
horizons = [3]
"""
MODELS = """\
[[model]]
name = "few"
kind = "cox"
columns = ["texture_*"]
[[model]]
name = "net"
kind = "deep_surv"
hidden = [3]
columns = ["arm", "age"]
fit = { epochs = 2, batch = 32, device = "cpu" }
[[model]]
name = "tuned"
kind = "cox"
columns = ["age"]
tune = { penalty = [0.0, 1.0], folds = 2 }
[[model]]
name = "fused"
kind = "late_fusion"
members = ["few", "net"]
folds = 2
"""


def frame(n: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(4)
    x = random.normal(size=(n, 3)).round(3)
    survival, censoring = random.exponential(6 * np.exp(-x[:, 0])), random.exponential(12, n)
    return pd.DataFrame({
        "time": np.maximum(np.minimum(survival, censoring), 0.1).round(2),
        "event": (survival <= censoring).astype(int),
        "age": x[:, 0], "texture_a": x[:, 1], "texture_b": x[:, 2], "arm": random.choice(["x", "y", "z"], n),
    })  # fmt: skip


def study(folder, models: str = MODELS, table: pd.DataFrame | None = None):
    (frame() if table is None else table).to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(STUDY + models)
    return read_study(folder / "study.toml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    home = RunFolder.create(folder / "run")
    run_study(prepare(study(folder)), home)
    return home


def test_patterns_of_covariates_stand_for_the_columns_of_the_table(tmp_path):
    settings = study(tmp_path)
    assert settings.data.numeric == ("age", "texture_a", "texture_b")
    assert from_resolved(resolved(settings)).models == settings.models


def test_a_pattern_leaves_out_columns_that_have_another_part(tmp_path):
    text = STUDY.replace('["age", "texture_*"]', '["*"]')
    frame().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "study.toml").write_text(text)
    assert read_study(tmp_path / "study.toml").data.covariates == ("age", "texture_a", "texture_b", "arm")


def test_a_pattern_that_matches_no_column_is_an_error_with_its_line(tmp_path):
    frame().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "study.toml").write_text(STUDY.replace('"texture_*"', '"textur*_c"'))
    with pytest.raises(UsageError, match=r"study.toml, line 8: `data.numeric.textur\*_c` must be a known column"):
        read_study(tmp_path / "study.toml")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('["texture_q*", "age"]', r"`model.few.columns.texture_q\*` must be a known covariate.*\"texture_"),
        ('["agee"]', 'Did you mean "age"?'),
        ("[]", "must not be empty"),
    ],
)
def test_an_unknown_column_is_an_error_with_its_line(tmp_path, said, expected):
    with pytest.raises(UsageError, match=expected) as caught:
        study(tmp_path, MODELS.replace('["texture_*"]', said))
    assert "line 18" in str(caught.value)


@pytest.mark.parametrize("model", ['kind = "downstream"\nembedding = "net"', 'kind = "kaplan_meier"'])
def test_models_without_a_table_of_their_own_take_no_columns(tmp_path, model):
    with pytest.raises(UsageError, match="columns` must be a known setting"):
        study(tmp_path, MODELS + f'[[model]]\nname = "late"\n{model}\ncolumns = ["age"]\n')


def test_a_model_is_given_its_columns_alone(finished):
    features = load_estimator(finished.model("few") / "fold1-seed0").feature_names_
    assert list(features) == ["texture_a", "texture_b"]
    everything = load_estimator(finished.model("clinical_cox") / "fold1-seed0").feature_names_
    assert {"age", "texture_a", "texture_b"} < set(everything)


def test_what_is_saved_beside_a_model_makes_the_tensors_that_it_takes(finished):
    table = frame()
    for name, columns in (("few", {"texture_a", "texture_b"}), ("tuned", {"age"})):
        saved = json.loads((finished.model(name) / "fold2-seed0" / "preprocessing.json").read_text())
        assert {column.name for column in Preprocessing.from_json(saved).columns} == columns
    saved = load_model(finished.model("net") / "fold2-seed0")
    preprocessing = Preprocessing.from_json(saved.extra["preprocessing"])
    assert {column.name for column in preprocessing.columns} == {"age", "arm"}
    risk = saved.model.risk({"table": preprocessing.transform_table(table)}).detach().numpy()
    told = pd.read_parquet(finished.predictions("net")).query("fold == 2")["risk"].to_numpy()
    np.testing.assert_allclose(np.sort(risk), np.sort(told), rtol=1e-5)


def test_other_columns_change_nothing(tmp_path, finished):
    other = frame().assign(age=lambda table: np.random.default_rng(9).normal(size=len(table)).round(3))
    home = RunFolder.create(tmp_path / "run")
    run_study(prepare(study(tmp_path, MODELS.split('[[model]]\nname = "net"')[0], other)), home)
    told, again = (pd.read_parquet(run.predictions("few"))["risk"] for run in (finished, home))
    np.testing.assert_array_equal(told.to_numpy(), again.to_numpy())
    changed = pd.read_parquet(home.predictions("clinical_cox"))["risk"].to_numpy()
    assert not np.allclose(changed, pd.read_parquet(finished.predictions("clinical_cox"))["risk"].to_numpy())


def test_preprocessing_is_fitted_on_rows_that_may_be_learnt_from(tmp_path):
    prepared = prepare(study(tmp_path))
    split = prepared.splits[0]
    bench = Bench.of(prepared.cohort, split, 1, prepared.settings.data, np.array([3.0]))
    taken = bench.taking(("age",))
    learnt = np.concatenate([split.train, split.validation])
    assert taken.table.shape == (90, 1)
    np.testing.assert_allclose(taken.table[learnt].double().mean(), 0.0, atol=1e-6)
    np.testing.assert_array_equal(taken.table[:, 0], bench.table[:, bench.preprocessing.feature_names.index("age")])
