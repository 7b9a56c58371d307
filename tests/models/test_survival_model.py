"""A survival model of any inputs: what is missing has no say, bags are rows, and a saved model predicts the same."""

import numpy as np
import pytest
import torch
from torch import nn

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.inputs import select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation
from survlens.encoders.cnn import CNN
from survlens.encoders.mlp import MLP
from survlens.encoders.pooling import AttentionPooling, MeanPooling, MultipleInstance, WorstPooling
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.cox_vae import cox_vae
from survlens.models.fusion import Concatenation, GatedFusion, Missing
from survlens.models.saving import load_model, save_model
from survlens.models.survival_model import SurvivalModel

NAMES = ("slide", "mri", "table")
COUNT = torch.tensor([2, 0, 3, 1, 0])
HAS_MRI = torch.tensor([True, True, False, True, False])
GRID = TimeGrid(torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64), "years")
FUSIONS = {
    "learned": lambda widths: Concatenation(NAMES, widths),
    "zero": lambda widths: Concatenation(NAMES, widths, missing=Missing.ZERO),
    "gated": lambda widths: GatedFusion(NAMES, widths, 5, modality_dropout=0.2),
}
POOLINGS = {"mean": MeanPooling, "attention": lambda: AttentionPooling(4, hidden=3), "worst": lambda: WorstPooling(4)}


def _model(fusion="gated", pooling="attention", batch_norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        encoders = {
            "slide": MultipleInstance(CNN(1, (4,)), POOLINGS[pooling]()),
            "mri": CNN(1, (3,), dimensions=3),
            "table": MLP(2, (6,), batch_norm=batch_norm),
        }
        joint = FUSIONS[fusion]([encoder.out_features for encoder in encoders.values()])
        return SurvivalModel(encoders, LogisticHazard(joint.out_features, GRID), fusion=joint).eval()


@pytest.fixture
def inputs(generator):
    return {
        "slide": torch.rand((6, 1, 8, 8), generator=generator),
        "slide.count": COUNT,
        "mri": torch.rand((5, 1, 6, 6, 6), generator=generator),
        "mri.present": HAS_MRI,
        "table": torch.randn((5, 2), generator=generator),
    }


@pytest.fixture
def outcome():
    return SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 0.5, 2.5], [1, 0, 1, 1, 0], "years")


every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


@every_fusion
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_batch_equals_its_members(fusion, pooling, inputs):
    model = _model(fusion, pooling)
    members = torch.cat([model.embed(select_rows(inputs, torch.tensor([row]))) for row in range(5)])
    torch.testing.assert_close(model.embed(inputs), members, rtol=1e-4, atol=1e-6)


@every_fusion
def test_placeholders_change_nothing_and_get_no_gradient(fusion, inputs, outcome):
    model = _model(fusion)
    spoilt = dict(inputs)
    spoilt["mri"] = torch.where(HAS_MRI[:, None, None, None, None], inputs["mri"], torch.nan).requires_grad_()
    assert torch.equal(model.embed(spoilt), model.embed(inputs))
    model.loss(spoilt, outcome).sum().backward()
    assert torch.equal(spoilt["mri"].grad.flatten(1).abs().sum(dim=1) > 0, HAS_MRI)
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_placeholders_do_not_reach_the_statistics_of_batch_norm(inputs):
    def statistics(table):
        model = _model(batch_norm=True).train()
        model.embed({**inputs, "table": table, "table.present": torch.tensor([False, True, True, True, True])})
        return model.encoders["table"].state_dict()

    other = inputs["table"].clone()
    other[0] = 1e6
    for (name, one), two in zip(statistics(inputs["table"]).items(), statistics(other).values(), strict=True):
        assert torch.equal(one, two), name


def test_a_single_row_with_a_modality_can_be_trained_on(inputs):
    model = _model(batch_norm=True).train()
    before = model.encoders["table"].state_dict()
    before = {name: value.clone() for name, value in before.items() if "running" in name}
    alone = torch.tensor([False, False, False, False, True])
    assert torch.isfinite(model.embed({**inputs, "table.present": alone, "mri.present": ~alone})).all()
    assert all(torch.equal(model.encoders["table"].state_dict()[name], value) for name, value in before.items())
    assert all(layer.training for layer in model.modules())


def test_presence_that_is_said_or_not_is_the_same(inputs):
    model = _model()
    whole = {name: inputs[name] for name in ("mri", "table")} | {"slide": torch.cat([inputs["slide"][:5]])}
    said = whole | {f"{name}.present": torch.ones(5, dtype=torch.bool) for name in NAMES}
    counted = whole | {"slide.count": torch.ones(5, dtype=torch.int64)}
    assert torch.equal(model.embed(whole), model.embed(said))
    assert torch.equal(model.embed(whole), model.embed(counted))


def test_the_order_of_tiles_is_nothing(inputs):
    model = _model()
    shuffled = dict(inputs, slide=inputs["slide"][torch.tensor([1, 0, 4, 2, 3, 5])])
    torch.testing.assert_close(model.embed(shuffled), model.embed(inputs))


def test_a_batch_in_which_nobody_has_a_modality(inputs):
    model = _model()
    nobody = dict(inputs)
    nobody["mri.present"] = torch.zeros(5, dtype=torch.bool)
    nobody["slide"], nobody["slide.count"] = inputs["slide"][:0], torch.zeros(5, dtype=torch.int64)
    gates = model.gates(nobody)
    assert torch.equal(gates > 0, torch.tensor([[False, False, True]] * 5))
    assert model.risk(nobody).shape == (5,)


def test_a_bag_that_is_said_to_be_missing_is_missing(inputs):
    model = _model()
    without = {**inputs, "slide.present": torch.tensor([True, True, False, True, True])}
    empty = select_rows(inputs, torch.arange(5))
    empty["slide"], empty["slide.count"] = inputs["slide"][[0, 1, 5]], torch.tensor([2, 0, 0, 1, 0])
    torch.testing.assert_close(model.embed(without), model.embed(empty))
    assert model.item_weights(without, "slide")[2:5].tolist() == [0.0, 0.0, 0.0]


def test_weights_of_items_are_those_of_the_pooling(inputs):
    weights = _model().item_weights(inputs, "slide")
    torch.testing.assert_close(torch.stack([part.sum() for part in weights.split([2, 3, 1])]), torch.ones(3))
    with pytest.raises(InvalidValueError, match="MultipleInstance"):
        _model().item_weights(inputs, "table")


@every_fusion
def test_a_saved_model_predicts_the_same_bits(fusion, inputs, tmp_path):
    for pooling in POOLINGS:
        model = _model(fusion, pooling)
        loaded = load_model(save_model(model, tmp_path / fusion / pooling)).model
        assert torch.equal(loaded.risk(inputs), model.risk(inputs))
        assert torch.equal(loaded.predict_survival(inputs).log_survival, model.predict_survival(inputs).log_survival)
        assert repr(loaded) == repr(model)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mri.present": torch.ones(5)}, "vector of torch.bool"),
        ({"slide.count": torch.tensor([1, 1, 1, 1, 1])}, "add up to the 6 items"),
        ({"slide.count": torch.tensor([2, 4])}, "one number of rows"),
        ({"table.present": torch.tensor([True])}, "one number of rows"),
        ({"table.present": torch.tensor([True, True, True, True, False])}, r"1 of 5 rows with none \(rows 4\)"),
        ({"table": None}, r"Add table, with `table.present` false"),
    ],
)
def test_wrong_inputs_are_refused(change, match, inputs):
    changed = {name: value for name, value in {**inputs, **change}.items() if value is not None}
    with pytest.raises((InvalidValueError, InvalidTypeError), match=match):
        _model().embed(changed)


def test_the_default_fusion_names_what_is_missing():
    model = SurvivalModel({"a": MLP(2, (3,)), "b": MLP(2, (3,))}, CoxPH(6))
    inputs = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2), "b.present": torch.tensor([True, False])}
    with pytest.raises(InvalidValueError, match="must have b in every row.*got 1 of 2 rows without"):
        model.embed(inputs)


def test_several_items_need_an_encoder_of_bags():
    model = SurvivalModel({"a": MLP(2, (3,))}, CoxPH(3))
    with pytest.raises(InvalidValueError, match="Wrap it: MultipleInstance"):
        model.embed({"a": torch.zeros(3, 2), "a.count": torch.tensor([1, 2])})


def test_an_encoder_of_unknown_width_is_named():
    encoders = {"a": nn.Sequential(nn.Linear(2, 3)), "b": MLP(2, (3,))}
    model = SurvivalModel(encoders, CoxPH(6), fusion=Concatenation(("a", "b"), (3, 3)))
    inputs = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2), "a.present": torch.zeros(2, dtype=torch.bool)}
    with pytest.raises(InvalidValueError, match="`out_features`"):
        model.embed(inputs)


def test_gates_and_incidences_are_asked_of_models_that_have_them(inputs):
    with pytest.raises(InvalidTypeError, match="GatedFusion"):
        _model("learned").gates(inputs)
    with pytest.raises(InvalidTypeError, match="tell causes apart"):
        _model().predict_incidence(inputs)


class TwoCauses(nn.Module):
    """A head whose incidences are constants: enough to be asked."""

    n_causes, grid, reduction = 2, None, None

    def predict_incidence(self, embedding, times=None):
        incidence = torch.full((2, embedding.shape[0], 1), 0.25, dtype=torch.float64)
        return CompetingRisksPrediction(torch.ones(1, dtype=torch.float64), incidence, Interpolation.LINEAR, "years")

    def loss(self, embedding, outcome): ...

    def predict(self, embedding, times=None): ...

    def risk(self, embedding): ...


def test_incidences_come_from_the_head():
    model = SurvivalModel(MLP(2, (3,)), TwoCauses())
    incidence = model.predict_incidence({"table": torch.zeros(4, 2)})
    assert np.allclose(incidence.cumulative_incidence, 0.25)


def test_a_cox_vae_refuses_what_it_has_no_rule_for(generator):
    model = cox_vae((1, 8, 8), latent=2)
    image = torch.rand((2, 1, 8, 8), generator=generator)
    model.embed({"image": image, "image.present": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(InvalidValueError, match="1 rows without it"):
        model.embed({"image": image, "image.present": torch.tensor([True, False])})
    with pytest.raises(InvalidValueError, match="several items per row"):
        model.embed({"image": image, "image.count": torch.tensor([1, 1])})
