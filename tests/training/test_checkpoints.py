"""A training can be killed, interrupted or run out of disk, and nothing is lost."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from survlens.artifacts.atomic import WriteError
from survlens.artifacts.tensors import load_tensors, same_tensors
from survlens.core.errors import CorruptFileError, FitError, UsageError
from survlens.training.fit import FitSettings, Interrupted, fit
from survlens.training.history import EpochRow
from survlens.training.objectives import SurvivalObjective

SCRIPT = Path(__file__).with_name("resumable_fit.py")
SHORT = FitSettings(epochs=4, batch=16, learning_rate=0.01)


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("resumable_fit", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def uninterrupted(script):
    history, model = script.train(None)
    return numbers(history), {name: tensor.clone() for name, tensor in model.state_dict().items()}


def numbers(history):
    return [(row.epoch, row.train, row.validation) for row in history.rows], history.best_epoch, history.stopped_early


def assert_same(script, folder, uninterrupted):
    history, model = script.train(folder, resume=True)
    assert numbers(history) == uninterrupted[0]
    assert same_tensors(model.state_dict(), uninterrupted[1])


def start(folder: Path, seconds: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), seconds], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    state, deadline = folder / "checkpoints" / "state.json", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if state.exists() and json.loads(state.read_text())["epoch"] >= 3:
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate()[1].decode())


def test_a_killed_training_resumes_to_the_same_bits(tmp_path, script, uninterrupted):
    process = start(tmp_path, "0.2")
    process.kill()
    assert process.communicate()[0] == b""
    assert 3 <= json.loads((tmp_path / "checkpoints" / "state.json").read_text())["epoch"] < script.EPOCHS
    assert_same(script, tmp_path, uninterrupted)


class InterruptedObjective:
    """Asks for a stop in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, step: int):
        self.step = step

    def __call__(self, model, inputs, outcome, progress):
        if progress.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)
        return SurvivalObjective()(model, inputs, outcome, progress)

    def validate(self, model, batches, progress):
        return SurvivalObjective().validate(model, batches, progress)

    def __repr__(self) -> str:
        return "Interrupted"


@pytest.mark.parametrize("step", [0, 5, 7, 17])
def test_an_interrupted_epoch_goes_on_at_its_next_step(tmp_path, model, rows, weights, step):
    def trained(at, folder=None, resume=False):
        network = model()
        history = fit(network, rows(), rows(40, seed=1), InterruptedObjective(at), SHORT, folder=folder, resume=resume)
        return numbers(history), weights(network)

    whole = trained(-1)
    with pytest.raises(Interrupted, match="holds a checkpoint"):
        trained(step, tmp_path)
    state = json.loads((tmp_path / "checkpoints" / "state.json").read_text())
    assert state["epoch"] * 8 + state["step"] == step + 1
    resumed = trained(-1, tmp_path, resume=True)
    assert resumed[0] == whole[0]
    assert same_tensors(resumed[1], whole[1])


def test_interrupted_without_a_folder_says_that_nothing_is_kept(model, rows):
    network = model()
    with pytest.raises(Interrupted, match="without a folder nothing was kept") as caught:
        fit(network, rows(), None, InterruptedObjective(3), SHORT)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert not network.training
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_inside_a_step_keeps_the_checkpoint_before(tmp_path, model, rows):
    class Abrupt(InterruptedObjective):
        def __call__(self, model, inputs, outcome, progress):
            if progress.step == self.step:
                raise KeyboardInterrupt
            return SurvivalObjective()(model, inputs, outcome, progress)

    with pytest.raises(Interrupted, match="before the first checkpoint"):
        fit(model(), rows(), None, Abrupt(2), SHORT, folder=tmp_path / "early")
    with pytest.raises(Interrupted, match="holds a checkpoint"):
        fit(model(), rows(), None, Abrupt(20), SHORT, folder=tmp_path)
    state = json.loads((tmp_path / "checkpoints" / "state.json").read_text())
    assert state["step"] == 0
    assert 1 <= state["epoch"] <= 2


def test_a_finished_training_is_read_and_not_repeated(tmp_path, model, rows, weights):
    def trained(resume=False, seen=None):
        network = model()
        on_epoch = None if seen is None else seen.append
        history = fit(
            network,
            rows(),
            rows(40, seed=1),
            SurvivalObjective(),
            SHORT,
            folder=tmp_path,
            resume=resume,
            on_epoch=on_epoch,
        )
        return history, weights(network)

    first, seen = trained(), []
    again = trained(True, seen)
    assert seen == []
    assert first[0] == again[0]
    assert same_tensors(first[1], again[1])


def test_more_epochs_go_on_from_the_last_weights(tmp_path, model, rows, weights):
    def trained(epochs, folder=None, resume=False):
        network = model()
        fit(network, rows(), None, SurvivalObjective(), replace(SHORT, epochs=epochs), folder=folder, resume=resume)
        return weights(network)

    trained(2, tmp_path)
    assert same_tensors(trained(4, tmp_path, resume=True), trained(4))


def test_the_best_file_holds_the_best_weights_by_their_own_names(tmp_path, model, rows, weights):
    network = model()
    fit(network, rows(), rows(40, seed=1), SurvivalObjective(), SHORT, folder=tmp_path)
    stored = load_tensors(tmp_path / "checkpoints" / "best.safetensors")
    fresh = model()
    fresh.load_state_dict(stored)
    learned = {name: value for name, value in weights(network).items() if "baseline" not in name}
    assert all(torch.equal(value, stored[name]) for name, value in learned.items())
    assert {file.name for file in (tmp_path / "checkpoints").iterdir()} == {
        "last.safetensors",
        "best.safetensors",
        "state.json",
    }


def test_no_patient_row_is_in_a_checkpoint(tmp_path, model, rows):
    source = rows()
    fit(model(), source, None, SurvivalObjective(), SHORT, folder=tmp_path)
    tensors = load_tensors(tmp_path / "checkpoints" / "last.safetensors")
    assert not any(len(source) in tensor.shape for tensor in tensors.values())
    assert not (tmp_path / "checkpoints" / "last.safetensors").read_bytes().startswith((b"PK", pickle.dumps(0)[:2]))


def test_an_earlier_training_is_never_overwritten_unasked(tmp_path, model, rows):
    fit(model(), rows(), None, SurvivalObjective(), SHORT, folder=tmp_path)
    with pytest.raises(UsageError, match=r"no checkpoint of an earlier training.*resume=True"):
        fit(model(), rows(), None, SurvivalObjective(), SHORT, folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"settings": replace(SHORT, batch=8)}, "`batch`"), ({"seed": 5}, "`train`"), ({"width": 5}, "shape")],
)
def test_another_training_is_not_resumed(tmp_path, model, rows, change, named):
    fit(model(), rows(), None, SurvivalObjective(), SHORT, folder=tmp_path)
    network = model(features=change.get("width", 4))
    source = rows(seed=change.get("seed", 0), features=4)
    with pytest.raises((UsageError, CorruptFileError), match=named):
        fit(network, source, None, SurvivalObjective(), change.get("settings", SHORT), folder=tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["truncated", "pickle", "foreign"])
def test_a_damaged_checkpoint_is_refused(tmp_path, model, rows, damage):
    fit(model(), rows(), None, SurvivalObjective(), SHORT, folder=tmp_path)
    last = tmp_path / "checkpoints" / "last.safetensors"
    if damage == "truncated":
        last.write_bytes(last.read_bytes()[:-10])
    elif damage == "pickle":
        torch.save(model().state_dict(), last)
    else:
        last.write_bytes((tmp_path / "checkpoints" / "best.safetensors").read_bytes())
    with pytest.raises(CorruptFileError, match="last.safetensors` must"):
        fit(model(), rows(), None, SurvivalObjective(), SHORT, folder=tmp_path, resume=True)


def test_a_full_disk_says_so_and_keeps_the_checkpoint_before(tmp_path, model, rows, monkeypatch):
    fit(model(), rows(), None, SurvivalObjective(), replace(SHORT, epochs=2), folder=tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "checkpoints").iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="disk is full"):
            fit(model(), rows(), None, SurvivalObjective(), SHORT, folder=tmp_path, resume=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "checkpoints").iterdir()} == before
    fit(model(), rows(), None, SurvivalObjective(), SHORT, folder=tmp_path, resume=True)


def test_a_failed_fit_keeps_the_last_good_checkpoint(tmp_path, model, rows):
    class Breaks(InterruptedObjective):
        def __call__(self, model, inputs, outcome, progress):
            value = SurvivalObjective()(model, inputs, outcome, progress)
            return replace(value, total=value.total * float("nan")) if progress.step >= self.step else value

    with pytest.raises(FitError, match="last good checkpoint is kept in"):
        fit(model(), rows(), rows(40, seed=1), Breaks(12), SHORT, folder=tmp_path)
    stored = load_tensors(tmp_path / "checkpoints" / "last.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for name, tensor in stored.items() if name.startswith("model/"))


def test_history_in_the_checkpoint_is_the_history(tmp_path, model, rows):
    history = fit(model(), rows(), rows(40, seed=1), SurvivalObjective(), SHORT, folder=tmp_path)
    stored = json.loads((tmp_path / "checkpoints" / "state.json").read_text())["history"]
    assert [EpochRow(**row) for row in stored] == list(history.rows)
