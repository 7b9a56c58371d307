"""The stored weights of another DeepHit give its stored predictions here.

The numbers in shared/data/survinng_deephit are those of a network of two hidden layers (32 units: linear, rectified,
batch norm in that order) with one output for each of 30 times, the first of them 0, and a tail of logit 0 that is not
stored. The mass at time 0 becomes here an interval that ends a moment later. Predictions were stored with four digits,
after a float32 network.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.heads.deephit import DeepHit

MOMENT = 1e-9


def loaded(module: nn.Module, stored: Mapping[str, np.ndarray], prefix: str) -> nn.Module:
    """The module with the stored tensors whose names begin with `prefix`."""
    state = module.state_dict()
    found = {name: torch.from_numpy(stored[f"{prefix}.{name}"]).reshape(state[name].shape) for name in state}
    module.load_state_dict(found)
    return module


def network(stored: Mapping[str, np.ndarray]) -> nn.Module:
    """Linear layers, rectifiers and batch norms with the stored weights, in eval mode."""
    layers: list[nn.Module] = []
    for block, width in enumerate((3, 32)):
        linear = loaded(nn.Linear(width, 32), stored, f"net.{block}.linear")
        layers += [linear, nn.ReLU(), loaded(nn.BatchNorm1d(32), stored, f"net.{block}.batch_norm")]
    return nn.Sequential(*layers, loaded(nn.Linear(32, 30), stored, "net.2")).eval()


def table(path: Path, *columns: str) -> Tensor:
    with path.open(encoding="utf-8") as file:
        return torch.tensor(
            [[float(row[name]) for name in columns] for row in csv.DictReader(file)], dtype=torch.float64
        )


def test_stored_weights_give_the_stored_predictions(shared: Callable[..., Path]) -> None:
    folder = shared("data", "survinng_deephit")
    with np.load(folder / "deephit_time_independent.npz") as stored:
        weights = dict(stored)
    edges = [0.0, MOMENT, *weights["time_bins"][1:]]
    head = DeepHit(3, TimeGrid(torch.tensor(edges, dtype=torch.float64), "none"), network=network(weights))
    covariates = table(shared("data", "simulations", "time_independent_test.csv"), "x1", "x2", "x3")
    expected = table(folder / "deephit_time_independent_pred_test.csv", "pred", "time", "id")
    assert expected[:, 2].reshape(30, -1).eq(torch.arange(1, len(covariates) + 1)).all()
    times = expected[:, 1].reshape(30, -1)[:, 0].clone()
    torch.testing.assert_close(times, torch.from_numpy(weights["time_bins"]))

    with torch.no_grad():
        found = head.predict(covariates.float()).survival.T
    gap = (found - expected[:, 0].reshape(30, -1)).abs()
    # Half a unit of the fourth digit, and the rounding of float32 where a prediction lies right between two of them.
    assert float(gap.max()) < 5e-5 + 1e-7
    assert int((gap > 5e-5).sum()) <= 5
