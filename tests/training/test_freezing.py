"""Frozen parts stay as they are, to the last bit, and may be computed once."""

import pytest
import torch

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.encoders.mlp import MLP
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import fit
from survlens.training.freezing import HeadOnly, cached_embeddings, frozen_parts
from survlens.training.objectives import SurvivalObjective
from survlens.training.settings import FitSettings

SETTINGS = {"epochs": 3, "batch": 16, "learning_rate": 0.02}


def test_frozen_weights_and_statistics_never_move(rows, model, weights):
    network = model(dropout=0.5)
    before = weights(network)
    modes = []
    network.encoders.register_forward_hook(lambda module, *_: modes.append(module.training))
    network.encoders["table"].register_forward_hook(lambda module, *_: modes.append(module.training))
    fit(network, rows(), rows(40, seed=1), SurvivalObjective(), FitSettings(**SETTINGS, frozen=("encoders",)))
    after = weights(network)
    assert modes
    assert not any(modes)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("head") for name in moved)
    assert any("running_mean" in name for name in before)
    assert all(weight.requires_grad for weight in network.parameters())


def test_without_freezing_statistics_do_move(rows, model, weights):
    network = model()
    before = weights(network)
    fit(network, rows(), None, SurvivalObjective(), FitSettings(**SETTINGS))
    assert not torch.equal(
        before["encoders.table.layers.2.running_mean"], weights(network)["encoders.table.layers.2.running_mean"]
    )


def test_a_part_of_an_encoder_may_be_frozen(rows, model, weights):
    network = model()
    before = weights(network)
    fit(network, rows(), None, SurvivalObjective(), FitSettings(**SETTINGS, frozen=("encoders.table.layers.0",)))
    after = weights(network)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in still if "num_batches" not in name and "baseline" not in name} == {
        "encoders.table.layers.0.weight",
        "encoders.table.layers.0.bias",
    }


def test_cached_embeddings_train_the_head_to_the_same_weights(rows, weights):
    grid = TimeGrid.quantile(rows().outcome, 4)

    def build():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return SurvivalModel(MLP(4, (8, 8), dropout=0.3, batch_norm=True), LogisticHazard(8, grid))

    frozen, cached = build(), build()
    fit(frozen, rows(), rows(40, seed=1), SurvivalObjective(), FitSettings(**SETTINGS, frozen=("encoders", "fusion")))
    parts = [cached_embeddings(cached, source) for source in (rows(), rows(40, seed=1))]
    fit(HeadOnly(cached), parts[0], parts[1], SurvivalObjective(), FitSettings(**SETTINGS))
    one, other = weights(frozen), weights(cached)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_everything_is_restored_after_an_error(model):
    network = model()

    def fails():
        with frozen_parts(network, ("encoders",)):
            assert not any(weight.requires_grad for weight in network.encoders.parameters())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert all(weight.requires_grad for weight in network.parameters())


def test_wrong_names_are_refused_with_those_there_are(rows, model):
    with pytest.raises(InvalidValueError, match=r"got 'encoder'\. Its modules are encoders, "):
        fit(model(), rows(), None, SurvivalObjective(), FitSettings(**SETTINGS, frozen=("encoder",)))
    with pytest.raises(InvalidValueError, match="Unfreeze some"):
        fit(model(), rows(), None, SurvivalObjective(), FitSettings(**SETTINGS, frozen=("encoders", "head")))
    with pytest.raises(InvalidValueError, match="tuple of names"):
        FitSettings(**SETTINGS, frozen="head")
    with pytest.raises(InvalidTypeError, match="`head` module"):
        HeadOnly(MLP(2))
