"""Laws of nested cross-validation: what is tried, what may be seen, what is chosen, and what a kill costs."""

import json
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from survlens.artifacts.run_folder import RunFolder, plain, read_json
from survlens.core.errors import CorruptFileError, FitError, UsageError
from survlens.models.saving import load_model
from survlens.report.content import read_content
from survlens.report.sections.provenance import reproducibility
from survlens.study import tuning
from survlens.study.evaluate import evaluate_run
from survlens.study.resolved import from_resolved, resolved
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import parse_study, read_study
from survlens.study.tune_settings import TuneScore

STUDY = """\
[study]
name = "tuned"
seed = 2
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
patient = "patient"
numeric = ["x", "noise"]
[split]
kind = "folds"
folds = 2
[[model]]
name = "ridge"
kind = "cox"
[model.tune]
penalty = [0.0, 0.1, 10.0]
[[model]]
name = "net"
kind = "logistic_hazard"
intervals = 5
seeds = [1, 2]
fit = { epochs = 2, batch = 32, device = "cpu" }
[model.tune]
hidden = [[2], [4]]
fit.learning_rate = [1e-2, 1e-3]
folds = 2
score = "loss"
[evaluation]
bootstrap = 0
horizons = [3]
"""
HEAD, MODELS = STUDY.split("[[model]]", 1)


def table(n: int = 80) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=n).round(2)
    survival, censoring = random.exponential(6 * np.exp(-x)), random.exponential(12, n)
    return pd.DataFrame({
        "patient": [f"p{at}" for at in range(n)],
        "time": np.maximum(np.minimum(survival, censoring), 0.1).round(1),
        "event": (survival <= censoring).astype(int),
        "x": x,
        "noise": random.normal(size=n).round(2),
    })  # fmt: skip


def prepared(folder, frame, text=STUDY):
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(text)
    return prepare(read_study(folder / "study.toml"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    home = RunFolder.create(folder / "run")
    run_study(prepared(folder, table()), home)
    return home


def choices(home, model, fold):
    folder = home.model(model) / f"fold{fold}"
    return read_json(folder / "chosen.json"), pd.read_csv(folder / "tuning.csv")


def test_every_candidate_is_tried_in_every_inner_fold(finished):
    for model, candidates, inner in (("ridge", 3, 3), ("net", 4, 2)):
        for fold in (1, 2):
            chosen, results = choices(finished, model, fold)
            assert len(results) == candidates * inner
            assert results.groupby("settings")["inner_fold"].nunique().eq(inner).all()
            assert (chosen["candidates"], chosen["inner_folds"]) == (candidates, inner)


def test_the_best_mean_is_chosen(finished):
    for model, best in (("ridge", "max"), ("net", "min")):
        chosen, results = choices(finished, model, 1)
        means = results.groupby("settings", sort=False)["value"].mean()
        assert json.loads(getattr(means, f"idx{best}")()) == chosen["chosen"]
        assert chosen["value"] == pytest.approx(getattr(means, best)())


def test_the_fit_has_the_chosen_settings(finished):
    chosen, _ = choices(finished, "net", 1)
    model = load_model(finished.model("net") / "fold1-seed1").model
    assert [model.encoders["table"].out_features] == chosen["chosen"]["hidden"]


def test_garbage_in_the_outer_test_rows_changes_no_choice_and_no_fit(finished, tmp_path):
    tested = pd.read_parquet(finished.predictions("ridge")).query("fold == 1 and part == 'test'")["patient"]
    frame = table()
    mine = frame["patient"].isin(tested)
    random = np.random.default_rng(9)
    frame.loc[mine, "x"] = random.normal(scale=1e3, size=mine.sum())
    frame.loc[mine, "noise"] = 77.0
    frame.loc[mine, "time"] = random.uniform(0.1, 14.9, mine.sum())
    home = RunFolder.create(tmp_path / "run")
    run_study(prepared(tmp_path, frame), home)
    same = [f"models/{name}/fold1/{file}" for name in ("ridge", "net") for file in ("tuning.csv", "chosen.json")]
    same += ["models/net/fold1-seed1/weights.safetensors", "models/net/fold1-seed2/weights.safetensors"]
    for file in same:
        assert (home.path / file).read_bytes() == (finished.path / file).read_bytes(), file
    for name in ("ridge", "net"):
        before, after = (
            pd.read_parquet(run.predictions(name)).query("fold == 1 and part == 'train'") for run in (finished, home)
        )
        np.testing.assert_array_equal(before["risk"], after["risk"])


def test_a_killed_search_goes_on_without_repeating_an_inner_fit(finished, tmp_path, monkeypatch):
    study, home = prepared(tmp_path, table()), RunFolder.create(tmp_path / "run")
    done = []

    @contextmanager
    def killed(name, fits):
        def on_fit(number, said):
            done.append(number)
            if len(done) == 5:
                raise KeyboardInterrupt

        yield on_fit

    with pytest.raises(KeyboardInterrupt):
        run_study(study, home, count=killed)
    fits = []
    attempt = tuning._try
    monkeypatch.setattr(tuning, "_try", lambda *given: fits.append(given) or attempt(*given))
    run_study(study, home, resume=True)
    assert len(fits) == 2 * (3 * 3 + 4 * 2) - 5
    for name in ("ridge", "net"):
        for fold in (1, 2):
            left, right = (choices(run, name, fold) for run in (home, finished))
            assert left[0] == right[0]
            pd.testing.assert_frame_equal(left[1], right[1], check_exact=True)


def test_of_equally_good_candidates_the_first_is_chosen(tmp_path):
    """A Cox model on one column ranks alike whatever its ridge."""
    text = HEAD.replace('["x", "noise"]', '["x"]') + (
        '[[model]]\nname = "ridge"\nkind = "cox"\n[model.tune]\npenalty = [0.5, 0.1, 1.0]\n'
        "[evaluation]\nhorizons = [3]\n"
    )
    home = RunFolder.create(tmp_path / "run")
    run_study(prepared(tmp_path, table(), text), home)
    chosen, _ = choices(home, "ridge", 1)
    assert chosen["chosen"] == {"penalty": 0.5}
    assert chosen["tied"] == 2


def test_a_candidate_that_cannot_be_fitted_is_out_and_the_others_are_not(tmp_path, monkeypatch):
    attempt = tuning._try

    def diverging(entry, *given):
        failed = tuning._Tried(float("nan"), problem="too large")
        return failed if entry.settings.penalty == 0 else attempt(entry, *given)

    monkeypatch.setattr(tuning, "_try", diverging)
    text = HEAD + MODELS.split("[[model]]")[0].join(["[[model]]", "[evaluation]\nhorizons = [3]\n"])
    home = RunFolder.create(tmp_path / "run")
    run_study(prepared(tmp_path, table(), text), home)
    chosen, results = choices(home, "ridge", 1)
    assert chosen["chosen"]["penalty"] > 0
    assert set(results["problem"].dropna()) == {"too large"}
    monkeypatch.setattr(tuning, "_try", lambda *given: tuning._Tried(float("nan"), problem="too large"))
    with pytest.raises(FitError, match="too large"):
        run_study(prepared(tmp_path, table(), text), RunFolder.create(tmp_path / "other"))


def test_a_broken_table_of_inner_results_is_named(finished, tmp_path):
    home = RunFolder.create(tmp_path / "run")
    path = home.model("ridge") / "fold1" / "tuning.csv"
    path.parent.mkdir(parents=True)
    path.write_text("settings\n1\n")
    with pytest.raises(CorruptFileError, match=r"tuning\.csv"):
        run_study(prepared(tmp_path, table()), home)


def test_settings_survive_the_way_through_resolved_json(finished):
    settings = from_resolved(read_json(finished.resolved))
    net = settings.model("net")
    assert net.tune is not None
    assert net.tune.rules.score is TuneScore.LOSS
    assert [each.settings.hidden for each in net.tune.candidates] == [(2,), (2,), (4,), (4,)]
    assert [each.fit.learning_rate for each in net.tune.candidates] == [1e-2, 1e-3] * 2
    assert plain(resolved(settings)) == read_json(finished.resolved)


def test_the_report_says_what_was_chosen_in_each_fold(finished):
    evaluate_run(finished)
    notes = {model["name"]: model["note"] for model in read_json(finished.metrics)["models"]}
    assert "among 3 candidates by inner 3-fold cross-validation (highest mean C)" in notes["ridge"]
    content = read_content(finished.path)
    assert [(choice.label, choice.fold) for choice in content.choices] == [
        ("Cox (ridge)", 1), ("Cox (ridge)", 2), ("Logistic hazard (net)", 1), ("Logistic hazard (net)", 2),
    ]  # fmt: skip
    shown = next(block for block in reproducibility(content).blocks if "chosen" in getattr(block, "caption", ""))
    assert "penalty = " in shown.rows[0][2]
    assert "had no part in it" in shown.note


def study(tune: str, model: str = 'name = "net"\nkind = "pmf"\n'):
    return HEAD + f"[[model]]\n{model}[model.tune]\n{tune}\n"


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("hidden = [[2], [4]]\ndropout = [0, 0.1, 0.2]\nmax_candidates = 5", r"at most 5 candidates; got 2 x 3 = 6"),
        ("dropout = [0.1, 1.0]", r"`model.net.tune.dropout` must lie in \[0, 1\); got 1"),
        ("dropout = 0.1", "must be a list of values to try; got 0.1"),
        ("dropout = [0.1, 0.1]", "must list each value once"),
        ("dropuot = [0.1]", 'Did you mean "dropout"'),
        ("fit.epoch = [1]", 'Did you mean "epochs"'),
        ("folds = 1\ndropout = [0.1]", "must be at least 2; got 1"),
        ("folds = 3", "must name a setting and the values to try"),
    ],
)
def test_a_wrong_search_space_is_refused_with_its_line(tmp_path, tune, message):
    (tmp_path / "t.csv").write_text("x\n1\n")
    with pytest.raises(UsageError, match=message):
        parse_study(study(tune), "study.toml", tmp_path)


def test_what_is_built_on_fitted_models_cannot_be_tuned_and_a_forest_has_no_loss(tmp_path):
    (tmp_path / "t.csv").write_text("x\n1\n")
    with pytest.raises(UsageError, match="tune"):
        parse_study(study("folds = [2]", 'name = "f"\nkind = "late_fusion"\nmembers = ["clinical_cox", "a"]\n'),
                    "study.toml", tmp_path)  # fmt: skip
    with pytest.raises(UsageError, match="loss"):
        parse_study(study('trees = [5]\nscore = "loss"', 'name = "f"\nkind = "forest"\n'), "study.toml", tmp_path)
