"""Weights from files, frozen parts, martingales and mask channels, as a study file asks for them."""

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from survlens.artifacts.run_folder import RunFolder
from survlens.artifacts.tensors import load_tensors, save_tensors
from survlens.cli.main import main
from survlens.core.errors import InvalidValueError, UsageError
from survlens.encoders.cnn_survival import CNNSurvivalEncoder
from survlens.encoders.transfer_2d import TransferResNet2D
from survlens.encoders.transfer_3d import TransferResNet3D
from survlens.encoders.transfer_blocks import Shortcut
from survlens.models.saving import load_model
from survlens.study.check import check_study
from survlens.study.image_encoders import image_encoder
from survlens.study.model_settings import KINDS
from survlens.study.network_settings import EncoderKind
from survlens.study.networks import network
from survlens.study.resolved import from_resolved, resolved
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import read_study, with_files

HEAD = """\
[study]
name = "pictures"
[data]
table = "{table}"
time = "time"
event = "event"
unit = "months"
patient = "patient"
image = "image"
numeric = ["age"]
image_size = 16
{data}
[split]
kind = "holdout"
[evaluation]
horizons = [3]
bootstrap = 0
[[model]]
name = "net"
kind = "{kind}"
{model}
[model.fit]
epochs = 2
batch = 16
device = "cpu"
{fit}
"""
SMALL = 'inputs = ["image"]\ndropout = 0.0\nhidden = [4]\nchannels = [4, 6]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two cohorts of grey pictures with masks, whose brightness shortens survival."""
    home, random = tmp_path_factory.mktemp("transfer"), np.random.default_rng(4)
    for table in ("first.csv", "second.csv"):
        rows = []
        for patient in range(40):
            bright, inside = random.uniform(60, 200), np.zeros((16, 16), np.uint8)
            inside[4:12, 4:12] = 255
            name = f"{table[:-4]}{patient}.png"
            Image.fromarray(random.normal(bright, 20, (16, 16)).clip(0, 255).astype(np.uint8)).save(home / name)
            Image.fromarray(inside).save(home / f"mask_{name}")
            time = round(random.exponential(6 * np.exp((120 - bright) / 60)), 2) + 0.1
            event, age = int(random.random() < 0.7), round(random.normal(60, 9), 1)
            known = {"patient": f"p{patient}", "image": name, "mask": f"mask_{name}"}
            rows.append({**known, "time": time, "event": event, "age": age})
        pd.DataFrame(rows).to_csv(home / table, index=False)
    return home


def study(folder, *, model, fit="", kind="logistic_hazard", table="first.csv", data=""):
    path = folder / "study.toml"
    path.write_text(HEAD.format(table=table, data=data, kind=kind, model=model, fit=fit))
    return path


def ran(folder, name, path):
    home = RunFolder.create(folder / name)
    run_study(prepare(read_study(path)), home)
    return home.model("net") / "fold1-seed0"


@pytest.fixture(scope="module")
def pretrained(folder):
    return ran(folder, "pretraining", study(folder, model=SMALL))


WEIGHTS = "pretraining/models/net/fold1-seed0/weights.safetensors"


def test_a_network_goes_on_from_another_run_with_its_encoder_frozen(folder, pretrained):
    assert (pretrained / "weights.safetensors") == folder / WEIGHTS
    path = study(folder, model=f'{SMALL}\nweights = "{WEIGHTS}"', fit='frozen = ["encoders"]', table="second.csv")
    assert check_study(read_study(path)).ok
    before = load_tensors(pretrained / "weights.safetensors")
    after = load_tensors(ran(folder, "tuned", path) / "weights.safetensors")
    of_encoder = [name for name in before if name.startswith("encoders.")]
    assert of_encoder
    assert all(torch.equal(before[name], after[name]) for name in of_encoder)
    assert not torch.equal(before["head.linear.weight"], after["head.linear.weight"])


def test_without_freezing_weights_of_a_file_are_a_start_only(folder, pretrained):
    path = study(folder, model=f'{SMALL}\nweights = "{WEIGHTS}"\npooling = "mean"', table="second.csv")
    before = load_tensors(pretrained / "weights.safetensors")
    after = load_tensors(ran(folder, "started", path) / "weights.safetensors")
    names = [name for name in before if name.startswith("encoders.") and before[name].is_floating_point()]
    moved = {name.replace("encoders.image.", "encoders.image.encoder."): before[name] for name in names}
    assert any(not torch.equal(after[name], value) for name, value in moved.items())
    assert all(float((after[name] - value).abs().max()) < 0.2 for name, value in moved.items() if "running" not in name)


def test_every_setting_comes_back_from_a_run_and_finds_its_files_again(folder, pretrained):
    settings = read_study(study(folder, model=f'{SMALL}\nweights = "{WEIGHTS}"', fit='frozen = ["encoders.image"]'))
    again = from_resolved(resolved(settings))
    assert again.models == settings.models
    assert str(folder) not in str(resolved(settings))
    assert str(folder) not in str(settings.models)
    assert with_files(again, folder).model("net").root == folder.resolve()
    outcome = prepare(settings).cohort.outcome
    with pytest.raises(InvalidValueError, match="data root"):
        network(again.model("net"), 0, (1, 16, 16), 1, outcome)


@pytest.mark.parametrize(
    ("model", "fit", "message"),
    [
        (f'{SMALL}\nweights = "none.pth"', "", r"`model.net.weights` must be a file; got \"none.pth\""),
        (f'{SMALL}\nweights = "../none.pth"', "", "must stay inside the data root"),
        (SMALL, 'frozen = ["encoders"]', r"`model.net.fit.frozen` must stand beside `weights`"),
        (SMALL, 'loss = "martingale"', '`model.net.fit.loss` must be "batch" for logistic_hazard'),
        (SMALL, "refresh = 0", r"`model.net.fit.refresh` must be at least 1"),
        (f'{SMALL}\nencoder = "resnet19"', "", 'Did you mean "resnet10"|"resnet18"'),
        ('inputs = ["table"]\nweights = "first.csv"', "", "must be left out for a model that looks at no image"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_where_they_stand(folder, model, fit, message):
    with pytest.raises(UsageError, match=message):
        read_study(study(folder, model=model, fit=fit))


@pytest.mark.parametrize(
    ("model", "fit", "message"),
    [
        (f'{SMALL}\nweights = "first.csv"', "", "model net: `first.csv` must be a file of tensors"),
        (f'{SMALL}\nencoder = "residual"\nweights = "{WEIGHTS}"', "", "must hold the weights of ResidualCNN"),
        (f'{SMALL}\nweights = "{WEIGHTS}"', 'frozen = ["encoder"]', "`frozen` must name modules of the model"),
        (f'{SMALL}\nweights = "{WEIGHTS}"', 'frozen = ["encoders", "head"]', "must leave a part to train"),
        (f'{SMALL}\nencoder = "vgg16"', "", '"vgg16" for sides below 32'),
        (f'{SMALL}\nencoder = "resnet10"', "", "`depth` must be one of 18, 34, 50; got 10"),
    ],
)
def test_check_and_run_say_what_only_building_the_network_shows(folder, pretrained, model, fit, message):
    path = study(folder, model=model, fit=fit)
    (found,) = [one for one in check_study(read_study(path)).findings if one.code == "cannot-be-fitted"]
    assert message in found.message
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 3
    with pytest.raises(UsageError, match="model net: "):
        prepare(read_study(path))


@pytest.mark.parametrize(
    ("kind", "shape", "cls"),
    [
        (EncoderKind.RESNET_18, (1, 16, 16), TransferResNet2D),
        (EncoderKind.RESNET_10, (2, 8, 8, 8), TransferResNet3D),
        (EncoderKind.CNN_SURVIVAL, (1, 16, 16), CNNSurvivalEncoder),
    ],
)
def test_transfer_encoders_are_built_for_pictures_and_volumes(kind, shape, cls):
    encoder = image_encoder(kind, (4,), 0.0, shape)
    assert isinstance(encoder, cls)
    assert encoder.eval()(torch.zeros(1, *shape)).shape == (1, encoder.out_features)


def test_shortcuts_of_volumes_are_those_of_the_usual_files():
    shortcuts = [
        image_encoder(kind, (4,), 0.0, (1, 8, 8, 8)).shortcut for kind in (EncoderKind.RESNET_10, EncoderKind.RESNET_18)
    ]
    assert shortcuts == [Shortcut.PROJECTION, Shortcut.PADDING]
    with pytest.raises(InvalidValueError, match="for volumes"):
        image_encoder(EncoderKind.CNN_SURVIVAL, (4,), 0.0, (1, 8, 8, 8))


def test_the_paper_network_is_taken_where_slices_are_large_enough():
    large, small = (image_encoder(EncoderKind.CNN_SURVIVAL, (4,), 0.5, (1, side, side)) for side in (54, 53))
    assert (large.pools, large.padded) == ((2, 3, 3), False)
    assert (small.pools, small.padded) == ((2, 2, 2), True)


def test_a_transfer_encoder_with_a_file_is_trained_saved_and_loaded(folder):
    encoder = TransferResNet2D(18)
    save_tensors(folder / "resnet18.safetensors", encoder.state_dict())
    model = 'inputs = ["image"]\nencoder = "resnet18"\nweights = "resnet18.safetensors"'
    saved = ran(folder, "resnet", study(folder, model=model, fit='frozen = ["encoders.image"]'))
    loaded = load_model(saved).model.encoders["image"]
    assert isinstance(loaded, TransferResNet2D)
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_cnn_survival_is_trained_saved_and_loaded(folder):
    saved = ran(folder, "cnn_survival", study(folder, model='inputs = ["image"]\nencoder = "cnn_survival"'))
    assert isinstance(load_model(saved).model.encoders["image"], CNNSurvivalEncoder)


@pytest.mark.parametrize(("kind", "inputs"), [("deep_surv", '["table"]'), ("cox_cnn", '["image"]')])
def test_cox_networks_are_trained_on_martingales(folder, kind, inputs):
    model, fit = f"inputs = {inputs}\nhidden = [4]", 'loss = "martingale"\nrefresh = 2\nflips = true'
    fit = fit if kind == "cox_cnn" else fit.replace("\nflips = true", "")
    path = study(folder, model=model, kind=kind, fit=fit)
    assert check_study(read_study(path)).ok
    saved = [ran(folder, f"{kind}{number}", path) for number in range(2)]
    first, again = (load_tensors(each / "weights.safetensors") for each in saved)
    assert all(torch.equal(first[name], again[name]) for name in first)
    plain = ran(folder, f"{kind}_plain", study(folder, model=model, kind=kind, fit=fit.replace("martingale", "batch")))
    other = load_tensors(plain / "weights.safetensors")
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_search_may_choose_between_the_losses(folder):
    model = "inputs = ['table']\nhidden = [4]"
    tune = '[model.tune]\nfit.loss = ["batch", "martingale"]\nfolds = 2\nscore = "loss"'
    path = study(folder, model=model, kind="deep_surv", fit=tune)
    run = ran(folder, "searched", path)
    assert len(pd.read_csv(run.parent / "fold1" / "tuning.csv")) == 4


def test_martingales_refuse_strata_before_anything_is_trained(folder):
    table = pd.read_csv(folder / "first.csv").assign(stratum=lambda each: np.arange(len(each)) % 2)
    table.to_csv(folder / "strata.csv", index=False)
    model, fit = 'inputs = ["table"]\nhidden = [4]', 'loss = "martingale"'
    path = study(folder, model=model, kind="deep_surv", fit=fit, table="strata.csv", data='stratum = "stratum"')
    assert any("must have no strata" in one.message for one in check_study(read_study(path)).findings)


def test_the_mask_of_a_cox_vae_is_a_channel_of_its_own_kind(folder):
    model = "latent = 2\nhidden = [4, 4]\nmask_channels = 1"
    path = study(folder, model=model, kind="cox_vae", data='mask = "mask"')
    loaded = load_model(ran(folder, "masked", path)).model
    assert loaded.vae.mask_channels == 1
    assert loaded.vae.image_shape == (2, 16, 16)
    shares = loaded.decode(torch.zeros(1, 2))[:, 1]
    assert bool(((shares >= 0) & (shares <= 1)).all())
    with pytest.raises(UsageError, match=r"`model.net.mask_channels` must be at most 0.*Set mask_channel = true"):
        read_study(study(folder, model=model, kind="cox_vae"))


def test_every_network_on_images_takes_weights():
    names = [name for name, kind in KINDS.items() if kind.trained and name != "cox_vae"]
    assert all("weights" in KINDS[name].settings.__dataclass_fields__ for name in names)
