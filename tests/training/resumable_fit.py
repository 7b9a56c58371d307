"""A training in a process of its own, to be killed: `resumable_fit.py FOLDER SECONDS_PER_EPOCH`."""

import sys
import time

import torch

from survlens.core.outcome import SurvivalOutcome
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import FitSettings, fit
from survlens.training.history import FitHistory
from survlens.training.objectives import SurvivalObjective

EPOCHS = 12


def train(folder: str | None, *, seconds: float = 0.0, resume: bool = False) -> tuple[FitHistory, SurvivalModel]:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(150, 4, generator=generator)
    time_ = -torch.log(torch.rand(150, generator=generator)) * torch.exp(-table[:, 0]) + 1e-3
    outcome = SurvivalOutcome.from_arrays(time_, torch.rand(150, generator=generator) > 0.3, "months")
    torch.manual_seed(3)
    model = SurvivalModel(MLP(4, (8, 8), dropout=0.3, batch_norm=True), CoxPH(8))
    torch.manual_seed(int(time.time()))  # what the caller's global state is must not matter
    source = TensorSource({"table": table}, outcome)
    train_rows, validation = (TensorSource(*source.batch(torch.arange(*part))) for part in ((0, 110), (110, 150)))
    settings = FitSettings(epochs=EPOCHS, batch=16, learning_rate=0.01, head_learning_rate=0.02, patience=9)
    history = fit(
        model, train_rows, validation, SurvivalObjective(), settings,
        folder=folder, resume=resume, on_epoch=lambda row: time.sleep(seconds),
    )  # fmt: skip
    return history, model


if __name__ == "__main__":
    train(sys.argv[1], seconds=float(sys.argv[2]))
    sys.stdout.write("finished")
