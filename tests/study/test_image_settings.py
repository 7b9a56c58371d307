"""Settings of networks on images: pooling, augmentation, stains and scaling."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from survlens.artifacts.run_folder import RunFolder
from survlens.core.errors import UsageError
from survlens.data.augmentation import AugmentedSource
from survlens.data.bags import BagSource
from survlens.encoders.pooling import AttentionPooling, MeanPooling, MultipleInstance, WorstPooling
from survlens.models.saving import load_model
from survlens.study.bench import Bench
from survlens.study.export import export_model
from survlens.study.fitting import fitted_network, network_risk
from survlens.study.model_rows import asked_rows, learnt_rows
from survlens.study.model_settings import Modality
from survlens.study.run import prepare, run_study
from survlens.study.splitting import make_splits
from survlens.study.toml_source import read_study

HEAD = """\
[study]
name = "tiles"
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
patient = "patient"
image = "image"
numeric = ["age"]
site = "site"
image_size = 8
channels = "stains"
image_scaling = "each_image"
[split]
kind = "site_folds"
folds = 2
[evaluation]
horizons = [3]
bootstrap = 20
"""
NET = """\
[[model]]
name = "{name}"
kind = "{kind}"
{more}
dropout = 0.1
[model.fit]
epochs = 3
batch = 16
device = "cpu"
{fit}
"""
CNN, BOTH = "hidden = [4]\n", 'inputs = ["image", "table"]\nchannels = [4]\nhidden = [3]\n'
TUNE = 'tune = { pooling = ["none", "mean"], score = "loss", folds = 2 }'
SHADES = "flips = true\nquarter_turns = true\ngain = 0.1\nshift = 0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("tiles")
    random, rows = np.random.default_rng(5), []
    (home / "images").mkdir()
    for patient in range(40):
        time, event = round(random.exponential(6), 2) + 0.1, int(random.random() < 0.7)
        age = round(random.normal(60, 9), 1)
        for tile in range(1 + patient % 4):
            name = f"images/{patient}-{tile}.png"
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(home / name)
            known = {"patient": f"p{patient}", "image": name, "time": time, "event": event, "age": age}
            rows.append({**known, "site": f"h{patient % 5}"})
    order = random.permutation(len(rows))
    pd.DataFrame(rows).iloc[order].to_csv(home / "t.csv", index=False)
    return home


def prepared_of(folder, models: str, head: str = HEAD):
    (folder / "study.toml").write_text(head + models)
    return prepare(read_study(folder / "study.toml"))


def bench_of(prepared) -> Bench:
    return Bench.of(prepared.cohort, prepared.splits[0], 1, prepared.settings.data, np.array([3.0]))


def entry_and_bench(folder, *, more: str = "", fit: str = "", kind: str = "cox_cnn"):
    inputs = CNN if kind == "cox_cnn" else BOTH
    prepared = prepared_of(folder, NET.format(name="net", kind=kind, more=inputs + more, fit=fit))
    return prepared.settings.model("net"), bench_of(prepared)


def test_no_test_patient_shares_a_site_with_a_training_patient(folder):
    prepared = prepared_of(folder, "")
    site = prepared.cohort.groups["site"].to_numpy()
    assert len(prepared.splits) == 2
    for split in prepared.splits:
        learnt = np.concatenate([split.train, split.validation])
        assert not set(site[learnt]) & set(site[split.test])
    again = make_splits(prepared.cohort, prepared.settings.data, prepared.settings.split, 0)
    assert again.hash == prepared.splits.hash


def test_stains_and_each_image_reach_the_network(folder):
    _, bench = entry_and_bench(folder)
    assert bench.preprocessing.image_shape == (2, 8, 8)
    values = bench.subset((Modality.IMAGE,), np.arange(3)).batch([0, 1, 2])[0]["image"]
    np.testing.assert_allclose(values.mean((2, 3)), 0.0, atol=1e-5)
    np.testing.assert_allclose(values.std((2, 3), correction=0), 1.0, atol=1e-4)


def test_only_training_rows_are_changed(folder):
    entry, bench = entry_and_bench(folder, fit=SHADES)
    train = learnt_rows(entry, bench)
    assert isinstance(train, AugmentedSource)
    first, second = (train.batch(range(5))[0]["image"] for _ in range(2))
    assert not torch.equal(first, second)
    for rows in (bench.split.validation, bench.split.test, bench.split.train):
        source = asked_rows(entry, bench, rows).source
        plain = bench.subset(entry.inputs, rows).batch(range(5))[0]["image"]
        assert torch.equal(source.batch(range(5))[0]["image"], plain)
    entry, bench = entry_and_bench(folder)
    assert not isinstance(learnt_rows(entry, bench), AugmentedSource)


@pytest.mark.parametrize("more", ["", 'pooling = "attention"\nmax_items = 2\n'])
def test_a_training_with_changed_images_is_resumed_bit_for_bit(folder, tmp_path, more):
    entry, bench = entry_and_bench(folder, more=more, fit=SHADES)
    whole, _ = fitted_network(entry, 3, bench, folder=tmp_path / "whole")

    def stop(row):
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted_network(entry, 3, bench, folder=tmp_path / "cut", on_epoch=stop)
    torch.rand(17)
    again, _ = fitted_network(entry, 3, bench, folder=tmp_path / "cut", resume=True)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("pooling", "cls"), [("mean", MeanPooling), ("attention", AttentionPooling), ("worst", WorstPooling)]
)
@pytest.mark.parametrize("kind", ["cox_cnn", "logistic_hazard"])
def test_pooled_patients_are_one_row_and_share_one_risk(folder, pooling, cls, kind):
    entry, bench = entry_and_bench(folder, more=f'pooling = "{pooling}"\nmax_items = 2\n', kind=kind)
    model, _ = fitted_network(entry, 0, bench)
    assert isinstance(model.encoders["image"], MultipleInstance)
    assert isinstance(model.encoders["image"].pooling, cls)
    train = learnt_rows(entry, bench)
    assert len(train) == len(set(bench.cohort.patient[bench.split.train]))
    drawn = train.for_epoch(torch.Generator().manual_seed(0)).batch(range(len(train)))[0]
    assert int(drawn["image.count"].max()) == 2
    risk = network_risk(model, bench, entry, bench.rows)
    by_patient = pd.Series(risk).groupby(bench.cohort.patient[bench.rows])
    assert (by_patient.nunique() == 1).all()
    # The slow route: a bag of one patient alone, asked for by hand.
    bags = BagSource(bench.cohort, bench.preprocessing)
    for at in (0, 7):
        expected = model.risk(bags.batch([at])[0]).detach().double().numpy()
        np.testing.assert_allclose(by_patient.first()[bags.patient[at]], expected[0], rtol=1e-4, atol=1e-6)


def test_a_run_with_pooled_models_keeps_one_prediction_per_row(folder, tmp_path):
    models = NET.format(name="tiles", kind="cox_cnn", more=CNN + 'pooling = "worst"', fit=SHADES)
    models += NET.format(name="both", kind="deep_surv", more=BOTH + 'pooling = "mean"\ncolumns = ["age"]', fit="")
    models += '[[model]]\nname = "fused"\nkind = "late_fusion"\nmembers = ["clinical_cox", "tiles"]\nfolds = 2\n'
    models += '[[model]]\nname = "down"\nkind = "downstream"\nembedding = "tiles"\npenalty = 0.1\n'
    models += NET.format(
        name="tuned",
        kind="cox_cnn",
        more=CNN + TUNE,
        fit="",
    )
    prepared = prepared_of(folder, models)
    home = RunFolder.create(tmp_path / "run")
    run_study(prepared, home)
    n = len(prepared.cohort)
    for name in ("clinical_cox", "tiles", "both", "fused", "down", "tuned"):
        table = pd.read_parquet(home.predictions(name))
        assert (table.groupby("fold").size() == n).all()
    table = pd.read_parquet(home.predictions("tiles")).query("fold == 1")
    assert (table.groupby("patient")["risk"].nunique() == 1).all()
    assert isinstance(load_model(home.model("tiles") / "fold1-seed0").model.encoders["image"], MultipleInstance)
    with pytest.raises(UsageError, match="must be a network of single images; 'tiles' pools"):
        export_model(home, "tiles", tmp_path / "x.onnx", times=[3.0])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ('kind = "pmf"\npooling = "mean"', '`model.m.pooling` must be "none" for a model that looks at no image'),
        ('kind = "pmf"\nfit = { flips = true }', "`model.m.fit` must change no images"),
        ('kind = "cox_cnn"\npooling = "mena"', 'Did you mean "mean"?'),
        ('kind = "cox_cnn"\nmax_items = 0', "must be at least 1"),
        ('kind = "cox_cnn"\nfit = { gain = -1.0 }', "must be at least 0"),
        ('kind = "cox_cnn"\ncolumns = ["age"]', "must be left out for a model that does not look at the table"),
        ('kind = "cox_vae"\nfit = { shift = 0.1 }', "`model.m.fit.shift` must be 0 for a cox_vae"),
        ('kind = "cox_vae"', "`data.channels` must be"),
    ],
)
def test_settings_that_cannot_be_are_errors(folder, model, expected):
    head = HEAD.replace('image_scaling = "each_image"\n', "")
    head = head if model == 'kind = "cox_vae"' else head.replace('"stains"', '"grey"')
    with pytest.raises(UsageError, match=expected.replace("?", r"\?")):
        prepared_of(folder, f'[[model]]\nname = "m"\n{model}\n', head)


def test_site_folds_need_a_site(folder):
    with pytest.raises(UsageError, match="`data.site` must be given for"):
        prepared_of(folder, "", HEAD.replace('site = "site"\n', ""))


def test_pooling_needs_patients(folder):
    model = NET.format(name="net", kind="cox_cnn", more=CNN + 'pooling = "mean"', fit="")
    with pytest.raises(UsageError, match="without a patient column"):
        prepared_of(folder, model, HEAD.replace('patient = "patient"\n', ""))
