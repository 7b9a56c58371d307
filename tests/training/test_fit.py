"""Training: what it ends with, when it stops, and that the same seed gives the same result."""

import warnings
from dataclasses import dataclass, replace
from importlib import import_module

import pytest
import torch
from torch import nn

from survlens.core.errors import FitError, InvalidValueError
from survlens.data.loaders import TensorSource
from survlens.training.accelerators import FabricAccelerator, accelerator_for
from survlens.training.fit import FitSettings, fit
from survlens.training.objectives import ObjectiveValue, SurvivalObjective, TrainingProgress
from survlens.training.settings import Precision

SHORT = FitSettings(epochs=4, batch=16, learning_rate=0.01)


def test_training_learns_and_leaves_a_model_that_predicts(model, rows):
    network, train, test = model(), rows(300), rows(300, seed=1)
    history = fit(network, train, None, SurvivalObjective(), replace(SHORT, epochs=15))
    risk = network.risk(test.inputs)
    hazard = test.inputs["table"][:, 0]
    assert not network.training
    assert float(torch.corrcoef(torch.stack([risk.detach(), hazard]))[0, 1]) > 0.8
    assert history.rows[-1].train["total"] < history.rows[0].train["total"]
    assert network.predict_survival(test.inputs).survival.shape[0] == 300


def test_the_baseline_is_that_of_all_training_rows_in_eval_mode(model, rows):
    network, train = model(), rows(90)
    fit(network, train, rows(40, seed=1), SurvivalObjective(), SHORT)
    fitted = network.head.baseline.log_cumulative_hazard.clone()
    network.eval()
    network.head.fit_baseline(network.embed(train.inputs), train.outcome)
    assert torch.equal(fitted, network.head.baseline.log_cumulative_hazard)


def test_same_seed_same_result_and_the_global_source_is_left_alone(model, rows, weights):
    def trained(seed: int):
        torch.manual_seed(seed + 100)
        before = torch.get_rng_state()
        network = model()
        history = fit(network, rows(), rows(40, seed=1), SurvivalObjective(), replace(SHORT, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        return weights(network), [(row.train, row.validation) for row in history.rows]

    first, again, other = trained(0), trained(0), trained(1)
    assert first[1] == again[1]
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])
    assert first[1] != other[1]


def test_a_caller_keeps_its_settings_of_torch(model, rows):
    fit(model(), rows(), None, SurvivalObjective(), SHORT)
    assert not torch.are_deterministic_algorithms_enabled()


@dataclass(frozen=True)
class Scripted:
    """Trains as usual, and says what it is told on validation."""

    values: tuple[float, ...]

    def __call__(self, model, inputs, outcome, progress):
        return SurvivalObjective()(model, inputs, outcome, progress)

    def validate(self, model, batches, progress):
        return ObjectiveValue(torch.tensor(self.values[progress.epoch - 1]), {})


def test_the_best_weights_come_back(model, rows, weights):
    kept = []
    network = model()
    history = fit(
        network,
        rows(),
        rows(30, seed=1),
        Scripted((3.0, 1.0, 2.0, 1.0)),
        SHORT,
        on_epoch=lambda _: kept.append(weights(network)),
    )
    assert history.best_epoch == 2
    learned = {name: value for name, value in weights(network).items() if "baseline" not in name}
    assert all(torch.equal(value, kept[1][name]) for name, value in learned.items())


def test_training_stops_when_patience_is_used_up(model, rows):
    settings = replace(SHORT, epochs=10, patience=3)
    history = fit(model(), rows(), rows(30, seed=1), Scripted((3.0, 1.0, 2.0, 2.0, 1.5, 0.0)), settings)
    assert [len(history.rows), history.best_epoch, history.stopped_early] == [5, 2, True]
    history = fit(model(), rows(), rows(30, seed=1), Scripted((4.0, 3.0, 2.0, 1.0)), replace(settings, epochs=4))
    assert [len(history.rows), history.best_epoch, history.stopped_early] == [4, 4, False]


def test_the_validation_value_has_the_full_risk_set(model, rows):
    validation, network = rows(200, seed=1), model()
    history = fit(network, rows(), validation, SurvivalObjective(), replace(SHORT, epochs=1))
    with torch.no_grad():
        whole = SurvivalObjective()(network, validation.inputs, validation.outcome, TrainingProgress(0, 1, 0, 1))
    assert history.rows[0].validation["total"] == pytest.approx(float(whole.total), rel=1e-6)


def test_an_objective_may_be_a_plain_function(model, rows):
    def squared(model, inputs, outcome, progress):
        loss = (model.risk(inputs) ** 2).mean()
        return ObjectiveValue(loss, {"squared": loss.detach(), "step": progress.step})

    history = fit(model(), rows(64), rows(30, seed=1), squared, SHORT)
    assert [row.train["step"] for row in history.rows] == [1.5, 5.5, 9.5, 13.5]
    assert set(history.to_frame().columns) == {
        "epoch", "seconds", "train_total", "train_squared", "train_step",
        "validation_total", "validation_squared", "validation_step",
    }  # fmt: skip


def test_the_head_has_its_own_learning_rate(model, rows, weights):
    network = model()
    before = weights(network)
    settings = replace(SHORT, learning_rate=1e-12, head_learning_rate=0.1, epochs=1)
    fit(network, rows(), None, SurvivalObjective(), settings)
    moved = {
        name: float((tensor.detach() - before[name]).abs().max())
        for name, tensor in network.named_parameters()
        if tensor.requires_grad
    }
    assert max(change for name, change in moved.items() if "head" not in name) < 1e-9
    assert moved["head.linear.weight"] > 0.1


def test_frozen_weights_stay(model, rows, weights):
    network = model()
    network.encoders.requires_grad_(False)
    before = weights(network)
    fit(network, rows(), None, SurvivalObjective(), SHORT)
    after = weights(network)
    frozen = [name for name, _ in network.named_parameters() if name.startswith("encoders")]
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    network.requires_grad_(False)
    with pytest.raises(InvalidValueError, match="Unfreeze"):
        fit(network, rows(), None, SurvivalObjective(), SHORT)


def test_the_gradient_is_clipped(model, rows, weights):
    def moved(clip):
        network = model(batch_norm=False)
        before = weights(network)
        settings = replace(SHORT, optimiser=torch.optim.SGD, learning_rate=1.0, clip_gradient=clip, epochs=1, batch=200)
        fit(network, rows(), None, SurvivalObjective(), settings)
        return (
            sum(float(((tensor.detach() - before[name]) ** 2).sum()) for name, tensor in network.named_parameters())
            ** 0.5
        )

    assert moved(1e-3) == pytest.approx(1e-3, rel=1e-3)
    assert moved(None) > 1e-2


def test_a_loss_that_is_not_finite_says_why(model, rows):
    broken = rows()
    broken.inputs["table"][3, 1] = float("nan")
    with pytest.raises(FitError, match=r"epoch 1\. The cause is values in table that are not finite"):
        fit(model(), broken, None, SurvivalObjective(), SHORT)
    settings = replace(SHORT, optimiser=torch.optim.SGD, learning_rate=1e30)
    with pytest.raises(FitError, match="learning rate that is too high"):
        fit(model(batch_norm=False), rows(), None, SurvivalObjective(), settings)


def test_the_callers_mistakes_are_named(model, rows):
    train, objective = rows(), SurvivalObjective()
    with pytest.raises(InvalidValueError, match="`validation` must be given to stop early"):
        fit(model(), train, None, objective, replace(SHORT, patience=2))
    with pytest.raises(InvalidValueError, match="`train` must hold at least one row"):
        fit(model(), TensorSource(*train.batch(torch.arange(0))), None, objective, SHORT)
    with pytest.raises(InvalidValueError, match="`validation` must hold at least one row"):
        fit(model(), train, TensorSource(*train.batch(torch.arange(0))), objective, SHORT)
    with pytest.raises(InvalidValueError, match="head_learning_rate"):
        fit(nn.Linear(4, 1), train, None, objective, replace(SHORT, head_learning_rate=0.1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch", 2.5), ("learning_rate", 0.0), ("learning_rate", float("nan")), ("weight_decay", -1.0),
        ("patience", 0), ("clip_gradient", 0.0), ("precision", "8"), ("device", "tpu"), ("seed", -1),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InvalidValueError, match=f"`{name}` must"):
        replace(SHORT, **{name: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named():
    with pytest.raises(InvalidValueError, match="finds no CUDA device"):
        replace(SHORT, device="cuda").torch_device()


def test_one_row_trains(model, rows):
    history = fit(model(batch_norm=False), rows(1), rows(1, seed=1), SurvivalObjective(), replace(SHORT, epochs=1))
    assert len(history.rows) == 1


def test_a_large_source_trains_as_a_small_one(model, rows, weights, monkeypatch):
    def trained():
        network = model()
        fit(network, rows(), None, SurvivalObjective(), SHORT)
        return weights(network)

    small = trained()
    monkeypatch.setattr("survlens.training.reading._WHOLE_EPOCH_BYTES", 0)
    large = trained()
    assert all(torch.equal(small[name], large[name]) for name in small)


@pytest.fixture
def quiet_fabric():
    """Fabric's own deprecation warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("quiet_fabric")
def test_fabric_and_the_plain_loop_give_the_same_numbers(model, rows, weights, monkeypatch):
    def trained():
        network = model()
        history = fit(network, rows(), rows(40, seed=1), SurvivalObjective(), replace(SHORT, clip_gradient=0.5))
        return weights(network), [(row.train, row.validation) for row in history.rows]

    plain = trained()
    cpu = torch.device("cpu")
    module = import_module("survlens.training.fit")
    monkeypatch.setattr(module, "accelerator_for", lambda _: FabricAccelerator(cpu, Precision.SINGLE))
    fabric = trained()
    assert plain[1] == fabric[1]
    assert all(torch.equal(plain[0][name], fabric[0][name]) for name in plain[0])


@pytest.mark.usefixtures("quiet_fabric")
def test_mixed_precision_is_one_argument(model, rows):
    settings = replace(SHORT, precision="bf16-mixed", epochs=8)
    assert isinstance(accelerator_for(settings), FabricAccelerator)
    network = model()
    half = fit(network, rows(), rows(40, seed=1), SurvivalObjective(), settings)
    single = fit(model(), rows(), rows(40, seed=1), SurvivalObjective(), replace(settings, precision="32-true"))
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert half.rows[-1].train["total"] == pytest.approx(single.rows[-1].train["total"], rel=0.02)
    assert half.rows[-1].train["total"] != single.rows[-1].train["total"]
