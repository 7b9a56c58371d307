"""CoxVAE: what its parts must add up to, and saving."""

import json

import pytest
import torch
from torch import nn

from survlens.core.errors import CorruptFileError, InvalidTypeError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.encoders import CNN, MLP
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.cox_vae import Architecture, CoxVAE, cox_vae
from survlens.models.saving import load_model, save_model
from survlens.models.survival_model import SurvivalModel

OUTCOME = SurvivalOutcome.from_arrays([3.0, 1.0, 2.0, 5.0, 4.0, 4.0], [1, 0, 1, 1, 1, 0], "months")
GRID = TimeGrid(torch.tensor([0.0, 1.5, 3.0, 5.0], dtype=torch.float64), "months")


@pytest.fixture
def inputs(generator):
    return {
        "image": torch.rand(6, 1, 8, 8, generator=generator),
        "table": torch.randn(6, 2, generator=generator),
    }


def built():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return {
            "CoxVAE": cox_vae((1, 8, 8), latent=3, architecture=Architecture.DENSE, widths=(16,)),
            "CoxVAE with covariates": cox_vae((1, 8, 8), latent=3, widths=(4, 8), covariates=2),
            "multi-modal": SurvivalModel(
                {"image": CNN(1, (4,)), "table": MLP(2, (8, 3))}, CoxPH(7, network=nn.Sequential(nn.Linear(7, 1)))
            ),
            "LogisticHazard": SurvivalModel({"table": MLP(2, (8,), activation=nn.Tanh)}, LogisticHazard(8, GRID)),
        }


@pytest.fixture(params=built(), ids=str)
def model(request, inputs):
    module = built()[request.param].eval()
    with torch.no_grad():
        for weight in module.head.parameters():
            weight.add_(0.1)
    if hasattr(module.head, "fit_baseline"):
        module.head.fit_baseline(module.embed(inputs), OUTCOME)
    return module


def test_loss_is_the_heads_loss_of_the_embedding(model, inputs):
    torch.testing.assert_close(model.loss(inputs, OUTCOME), model.head.loss(model.embed(inputs), OUTCOME))


def test_prediction_is_differentiable_with_respect_to_the_inputs(model, inputs):
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    model.predict_survival(leaves, torch.tensor([2.0, 4.0], dtype=torch.float64)).survival.sum().backward()
    for name in model.modalities:
        assert leaves[name].grad.abs().sum() > 0


def test_missing_modality_is_named(model, inputs):
    name = model.modalities[0]
    with pytest.raises(InvalidValueError, match=f"Add {name}"):
        model.embed({key: value for key, value in inputs.items() if key != name})


def test_different_numbers_of_rows_are_refused(inputs):
    model = built()["multi-modal"]
    with pytest.raises(InvalidValueError, match="'table': 5"):
        model.embed({**inputs, "table": inputs["table"][:5]})


def test_loaded_model_predicts_bit_identically(model, inputs, tmp_path):
    save_model(model, tmp_path / "m", extra={"unit": "months", "preprocessing": {"mean": [0.1]}})
    loaded = load_model(tmp_path / "m")
    before, after = model.predict_survival(inputs), loaded.model.predict_survival(inputs)
    assert torch.equal(before.log_survival, after.log_survival)
    assert torch.equal(before.times, after.times)
    assert before.unit == after.unit
    assert torch.equal(model.risk(inputs), loaded.model.risk(inputs))
    assert loaded.extra["preprocessing"] == {"mean": [0.1]}
    assert not loaded.model.training


def test_saved_folder_holds_no_pickle_and_no_rows(model, inputs, tmp_path):
    folder = save_model(model, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    largest = max(value.numel() for value in model.state_dict().values())
    assert largest < 64 * 300, "a buffer has grown with the rows"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.safetensors").write_bytes(b""), "safetensors"),
        (
            lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes()[:-9]),
            "safetensors",
        ),
        (lambda f: (f / "weights.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "pickle"),
        (lambda f: (f / "model.json").write_text("{"), "damaged"),
        (lambda f: (f / "model.json").write_text("{}"), "damaged"),
        (lambda f: (f / "model.json").unlink(), "model.json"),
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors"),
        (lambda f: edit(f, lambda d: d.update(format=99)), "format"),
        (lambda f: edit(f, lambda d: d["architecture"]["arguments"].update(covariates=1)), "damaged|must take"),
    ],
)
def test_damaged_model_is_refused_with_its_reason(damage, message, tmp_path):
    save_model(built()["CoxVAE"], tmp_path)
    damage(tmp_path)
    with pytest.raises((CorruptFileError, InvalidValueError), match=message):
        load_model(tmp_path)


def edit(folder, change):
    content = json.loads((folder / "model.json").read_text())
    change(content)
    (folder / "model.json").write_text(json.dumps(content))


class OwnEncoder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.layer = nn.Linear(2, width)

    def forward(self, x):
        return self.layer(x).tanh()


def test_modules_of_the_user_are_saved_by_name_only(inputs, tmp_path):
    model = SurvivalModel(OwnEncoder(4), CoxPH(4))
    with pytest.raises(InvalidTypeError, match="OwnEncoder"):
        save_model(model, tmp_path)
    save_model(model, tmp_path, modules={"OwnEncoder": OwnEncoder})
    with pytest.raises(InvalidValueError, match="OwnEncoder"):
        load_model(tmp_path)
    loaded = load_model(tmp_path, modules={"OwnEncoder": OwnEncoder}).model
    assert torch.equal(loaded.risk(inputs), model.risk(inputs))


def test_seed_decides_the_initial_weights_and_leaves_the_global_source_alone():
    state = torch.random.get_rng_state()
    first, second, third = (cox_vae((1, 8, 8), latent=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.vae.posterior.weight, second.vae.posterior.weight)
    assert not torch.equal(first.vae.posterior.weight, third.vae.posterior.weight)


def test_head_starts_on_the_first_axis():
    assert cox_vae((1, 8, 8), latent=3, covariates=1).head.linear.weight.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_only_the_dimension_changes_between_images_and_volumes():
    volume = cox_vae((1, 16, 16, 16), latent=4)
    assert isinstance(volume, CoxVAE)
    image = torch.rand(2, 1, 16, 16, 16)
    assert volume.decode(volume.latent({"image": image})).shape == image.shape


def test_head_of_the_wrong_width_is_refused():
    good = cox_vae((1, 8, 8), latent=3)
    with pytest.raises(InvalidValueError, match="3 latents"):
        CoxVAE(good.vae, CoxPH(4))
