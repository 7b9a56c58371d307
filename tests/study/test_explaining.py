"""What `survlens explain` writes: the numbers of the explainer, by name, in blocks that can stop and go on."""

from __future__ import annotations

import math
import shutil
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cli.conftest import STUDY, write_study
from survlens.artifacts.attribution_files import read_attributions
from survlens.artifacts.run_folder import RunFolder, read_json
from survlens.artifacts.tensors import load_tensors
from survlens.core.errors import UsageError
from survlens.core.targets import cumulative_hazard
from survlens.data.preprocessing import Preprocessing
from survlens.explain.gradient import Gradient
from survlens.models.saving import load_model
from survlens.study.explain_methods import METHODS
from survlens.study.explain_settings import TARGETS, ExplainSettings, KeptImages
from survlens.study.explained_patients import chosen_two, explained_rows
from survlens.study.explaining import explain_patients
from survlens.study.explanation_job import explanation_job
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import read_study

MODELS = """
[[model]]
name = "both"
kind = "deep_surv"
inputs = ["image", "table"]
channels = [4]
pooling = "mean"
[model.fit]
epochs = 2
batch = 32
device = "cpu"

[[model]]
name = "net"
kind = "logistic_hazard"
hidden = [8]
[model.fit]
epochs = 2
batch = 32
device = "cpu"

[[model]]
name = "forest"
kind = "forest"
trees = 5
leaf = 3

[evaluation]
horizons = [6, 12]
subgroups = ["hospital", "age"]
"""
TIMES = (3.0, 6.5, 12.0)
# The forward mode of torch compiles a few formulas when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A study and a run of it with a network on images and table, one on the table, and a forest; do not change it."""
    home = tmp_path_factory.mktemp("explained")
    study = write_study(home / "study", STUDY.partition("[[model]]")[0] + MODELS, patients=48)
    run_study(prepare(read_study(study)), RunFolder.create(home / "run"), text=study.read_text())
    return home


@pytest.fixture
def run(home, tmp_path):
    """A copy of the run that may be changed."""
    shutil.copytree(home / "run", tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


@pytest.fixture
def explain(run, home):
    """Explains with few references and without checks unless asked for otherwise."""

    def call(model, *, overwrite=False, count=None, **given):
        settings = ExplainSettings(
            **({"model": model, "method": "gradient", "times": TIMES, "references": 4, "checks": 0} | given)
        )
        more = {} if count is None else {"count": count}
        folder = explain_patients(run, settings, study=home / "study", overwrite=overwrite, **more)
        return SimpleNamespace(
            folder=folder,
            found=read_attributions(folder / "attributions.safetensors"),
            settings=read_json(folder / "settings.json"),
        )

    return call


def held_out(home, run):
    """Test patients with their rows of the table, in the order of the table."""
    table = pd.read_csv(home / "study" / "clinical.csv")
    rows = read_json(run.splits)["splits"][0]["test"]
    return table.iloc[sorted(rows)]


def test_the_numbers_are_those_of_the_explainer_on_the_saved_model(home, run, explain):
    """The pictures and the table of two patients are read and scaled here by hand."""
    done = explain("both", keep_images=KeptImages.ALL, target="cumulative_hazard")
    saved = load_model(run.model("both") / "fold1-seed3")
    preprocessing = Preprocessing.from_json(saved.extra["preprocessing"])
    table = held_out(home, run)
    for name in done.settings["patients"][:3]:
        own = table[table["patient"] == name]
        pixels = [np.asarray(Image.open(home / "study" / path), dtype=np.float32) / 255 for path in own["image"]]
        inputs = {
            "image": torch.from_numpy(np.stack(pixels))[:, None], "image.count": torch.tensor([len(own)]),
            "table": preprocessing.transform_table(own.iloc[:1]),
        }  # fmt: skip
        wanted = Gradient()(saved.model, inputs, torch.tensor(TIMES).double(), cumulative_hazard)
        at = done.settings["patients"].index(name)
        for modality in ("image", "table"):
            mine = done.found[modality][[at]]
            torch.testing.assert_close(mine.values, wanted[modality].values, rtol=1e-5, atol=1e-7)
            assert list(mine.coords["instance"]) == [name]


def test_features_and_groups_carry_the_names_of_the_table(explain):
    done = explain("both", method="gradient_x_input", keep_images=KeptImages.ALL)
    table, image, groups = (done.found[name] for name in ("table", "image", "groups"))
    assert list(table.coords["feature"]) == ["age", "arm=b"]
    assert list(groups.coords["group"]) == ["image", "age", "arm"]
    torch.testing.assert_close(groups.values[:, 0], image.total, rtol=0, atol=1e-12)
    torch.testing.assert_close(groups.values[:, 1:], table.values, rtol=0, atol=1e-12)
    for each in done.found.values():
        assert list(each.coords["instance"]) == done.settings["patients"]
        assert each.times.tolist() == list(TIMES)
        assert each.unit == "months"


def test_images_are_kept_of_the_two_chosen_patients_and_shown_as_they_are(home, run, explain):
    done = explain("both", method="gradient_x_input")
    chosen = [done.settings["patients"][at] for at in sorted(done.settings["chosen"])]
    assert list(done.found["image"].coords["instance"]) == chosen
    assert done.found["groups"].instances == len(done.settings["patients"])
    pictures = load_tensors(done.folder / "pictures.safetensors")
    table = held_out(home, run)
    for place, at in enumerate(done.settings["chosen"]):
        own = table[table["patient"] == done.settings["patients"][at]]
        shown = pictures["image"][pictures["row"] == place]
        wanted = np.stack(
            [np.asarray(Image.open(home / "study" / path), dtype=np.float32) / 255 for path in own["image"]]
        )
        np.testing.assert_allclose(shown[:, 0].numpy(), wanted, atol=1e-6)


def interrupting(after):
    """A progress that is interrupted once `after` blocks are told of."""

    @contextmanager
    def count(name, total):
        told = []

        def on_block(done, said):
            told.append(done)
            if len(told) == after:
                raise KeyboardInterrupt

        yield on_block

    return count


def test_what_was_stopped_goes_on_where_it_was_with_the_same_bits(run, explain, monkeypatch):
    given = {"method": "gradient_x_input", "memory": 1, "target": "survival", "checks": 2}
    whole = explain("both", name="whole", **given)
    with pytest.raises(KeyboardInterrupt, match="blocks of patients were kept"):
        explain("both", name="cut", count=interrupting(2), **given)
    cut = run.explanations("both") / "over_time" / "cut"
    before = {path.name: path.stat().st_mtime_ns for path in (cut / "blocks").glob("*.safetensors")}
    assert len(before) == 2
    assert not (cut / "settings.json").exists()
    asked = []
    method = METHODS["gradient_x_input"]

    def counted(given):
        explainer = method.make(given)
        return lambda model, inputs, *rest: asked.append(len(inputs["table"])) or explainer(model, inputs, *rest)

    monkeypatch.setattr(
        "survlens.study.explain_methods.METHODS", {**METHODS, "gradient_x_input": replace(method, make=counted)}
    )
    explain("both", name="cut", **given)
    blocks = math.ceil(len(whole.settings["patients"]) / read_json(cut / "plan.json")["rows of a block"])
    rows = len(whole.settings["patients"]) - 2 * read_json(cut / "plan.json")["rows of a block"]
    assert blocks >= 3
    assert sum(asked[: blocks - 2]) == rows, "blocks that were written are not computed again"
    for name in ("attributions.safetensors", "pictures.safetensors", "global.json", "checks.json"):
        assert (cut / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert not (cut / "blocks").exists()


def test_a_finished_explanation_is_not_made_again_and_another_is_refused(explain):
    first = explain("net")
    before = (first.folder / "settings.json").stat().st_mtime_ns
    explain("net")
    assert (first.folder / "settings.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"`times` must be that of the explanation .*--overwrite"):
        explain("net", times=(2.0, 4.0))
    again = explain("net", times=(2.0, 4.0), overwrite=True)
    assert again.settings["times"] == [2.0, 4.0]


def test_blocks_do_not_change_the_numbers(explain):
    one, other = explain("both", name="one"), explain("both", name="other", memory=1)
    for name in one.found:
        torch.testing.assert_close(one.found[name].values, other.found[name].values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("model", ["both", "forest"])
def test_every_method_explains_what_it_can_and_refuses_the_rest(explain, name, model):
    method, network = METHODS[name], model == "both"
    sees = {"both": ("image", "table")}.get(model, ("table",))
    if (method.network and not network) or (method.image and "image" not in sees):
        with pytest.raises(UsageError, match="`method` must"):
            explain(model, method=name)
        return
    target = method.targets[0] if method.targets else "survival"
    checks = int(model == "forest")
    done = explain(model, method=name, patients="2", times=(3.0, 6.5), target=target, checks=checks)
    assert (done.folder / "checks.json").exists() == bool(checks)
    assert done.settings["method_label"] == method.label
    assert ("groups" in done.found) == method.sums
    for key, each in done.found.items():
        assert torch.isfinite(each.values).all(), key
        assert each.instances in (1, 2)
        assert each.values.abs().max() > 0, key
    if all(each.additive for each in done.found.values()) and "groups" in done.found:
        groups = done.found["groups"]
        moved = groups.prediction - groups.reference_prediction
        left = moved - groups.total
        assert left.abs().max() < 0.05 * moved.abs().max() + 1e-3
    assert bool(done.settings["reference"]) == method.compares


@pytest.mark.parametrize("name", ["smoothgrad", "gradshap", "survshap_permutation"])
def test_the_same_seed_gives_the_same_bits(explain, name):
    folders = [
        explain("net", method=name, seed=s, patients="1", name=f"n{at}").folder for at, s in enumerate((5, 5, 6))
    ]
    one, again, other = ((folder / "attributions.safetensors").read_bytes() for folder in folders)
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("target", "given"),
    [
        ("survival", {}), ("hazard_rate", {}), ("density", {}), ("cumulative_hazard", {}), ("log_hazard_rate", {}),
        ("restricted_mean", {"horizon": 10.0}), ("risk", {"horizon": 10.0}),
    ],
)  # fmt: skip
def test_every_target_can_be_asked(explain, target, given):
    done = explain("net", target=target, patients="chosen", **given)
    assert len(done.settings["times"]) == (1 if given else 3)
    assert done.folder.name == f"gradient-{target}{'-10' if given else ''}"


def test_targets_without_what_they_need_are_refused():
    for name in TARGETS:
        settings = ExplainSettings(model="net", target=name, cause=1, horizon=5.0)
        assert settings.explained().name
    for name, argument in (("incidence", "cause"), ("risk", "horizon"), ("time_lost", "cause")):
        with pytest.raises(UsageError, match=f"`{argument}` must be given for the target '{name}'"):
            ExplainSettings(model="net", target=name).explained()


def test_references_are_training_rows_of_the_fold_alone(home, run):
    settings = ExplainSettings(model="both", times=TIMES, references=6)
    job = explanation_job(run, settings, home / "study")
    table = pd.read_csv(home / "study" / "clinical.csv")
    split = read_json(run.splits)["splits"][0]
    saved = load_model(run.model("both") / "fold1-seed3")
    preprocessing = Preprocessing.from_json(saved.extra["preprocessing"])
    train, test = (preprocessing.transform_table(table.iloc[split[part]]).numpy() for part in ("train", "test"))
    rows = job.references.inputs["table"].numpy()
    assert len(rows) == 6
    assert all((train == row).all(1).any() for row in rows)
    assert not all((test == row).all(1).any() for row in rows)
    again = explanation_job(run, settings, home / "study").references.inputs
    other = explanation_job(run, replace(settings, seed=1), home / "study").references.inputs
    assert torch.equal(again["image"], job.references.inputs["image"])
    assert not (other["image"].shape == again["image"].shape and torch.equal(other["image"], again["image"]))


def test_all_training_rows_are_taken_where_there_are_fewer_than_asked_for(explain):
    done = explain("net", method="shap_exact", references=10_000, patients="1")
    assert done.settings["reference"].startswith("22 of 22 ") or done.settings["reference"].split()[0].isdigit()


def test_the_ranking_and_the_checks_are_beside_the_attributions(explain):
    done = explain("both", method="gradient_x_input", checks=3)
    found = read_json(done.folder / "global.json")
    assert {(row["modality"], row["feature"]) for row in found["features"]} == {
        ("table", "age"), ("table", "arm"), ("image", "image"),
    }  # fmt: skip
    groups = done.found["groups"]
    for row in found["features"]:
        at = list(groups.coords["group"]).index(row["feature"])
        np.testing.assert_allclose(row["signed"], groups.values[:, at].mean(0), atol=1e-12)
        assert row["lower"] <= row["importance"] <= row["upper"]
    assert set(found["subgroups"]["hospital"]) == {"x", "y", "z"}
    checks = read_json(done.folder / "checks.json")
    names = {score["name"] for score in checks["scores"]}
    assert {"deletion_area", "insertion_area", "weight_randomisation", "effective_features"} <= names
    assert {"deletion", "random"} == set(checks["curves"])
    for score in checks["scores"]:
        assert score["label"]
        assert score["meaning"].endswith(".")
        assert score["direction"] in ("higher", "lower", "none")
    assert checks["curves"]["deletion"]["share"][-1] == 1.0


def test_the_two_patients_follow_the_rule():
    risk = np.array([5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0])
    event = np.array([1, 0, 1, 1, 1, 1, 0])
    low, high = np.quantile(risk[event > 0], [0.1, 0.9])
    chosen = chosen_two(risk, event)
    assert chosen.tolist() == [2, 0]
    assert abs(risk[chosen[0]] - low) == np.abs(risk[event > 0] - low).min()
    assert abs(risk[chosen[1]] - high) == np.abs(risk[event > 0] - high).min()
    assert len(set(chosen_two(np.zeros(4), np.ones(4)))) == 2, "ties give two patients, the first of each"
    assert chosen_two(np.array([1.0, 2.0]), np.array([1, 0])).tolist() == [0, 1], "without two events: all"
    assert chosen_two(np.array([1.0]), np.array([1])).tolist() == [0]


def test_patients_can_be_named_counted_or_all():
    names = np.array(["a#1", "a#2", "12", "c"], dtype=object)
    patients = np.array(["a", "a", "12", "c"], dtype=object)
    risk, event = np.array([3.0, 1.0, 2.0, 0.0]), np.ones(4)

    def rows(asked):
        return explained_rows(asked, names, patients, risk, event).tolist()

    assert rows("all") == [0, 1, 2, 3]
    assert rows("c, a") == [3, 0, 1]
    assert rows("a#2") == [1]
    assert rows("12,") == [2]
    assert rows("2") == [0, 3], "the lowest and the highest risk"
    assert rows("chosen") == sorted(chosen_two(risk, event).tolist())
    for wrong, said in (("a,x", "'x'"), ("12", "at most the 4"), ("0", "at most the 4"), (",", "no name")):
        with pytest.raises(UsageError, match=said):
            rows(wrong)


def test_data_that_are_not_those_of_the_run_are_refused(home, run, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(home / "study", study)
    table = pd.read_csv(study / "clinical.csv")
    table.loc[0, "age"] += 1
    table.to_csv(study / "clinical.csv", index=False)
    with pytest.raises(UsageError, match=r"`--study` must name the study that was run, with unchanged data"):
        explanation_job(run, ExplainSettings(model="net"), study)


def test_all_images_must_fit_into_the_memory(explain):
    with pytest.raises(UsageError, match="`keep_images` must be chosen where"):
        explain("both", keep_images=KeptImages.ALL, memory=1)
