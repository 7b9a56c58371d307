"""Neural survival models on tables and embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.encoders.mlp import MLP
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel
from survlens.training.estimator import NeuralEstimator
from survlens.training.settings import FitSettings


class _TableEstimator(NeuralEstimator):
    """A multilayer perceptron under a head."""

    hidden: Sequence[int]
    dropout: float
    epochs: int
    batch: int
    learning_rate: float
    patience: int
    device: str

    def _encoder(self) -> MLP:
        return MLP(self.shapes_["table"][0], tuple(self.hidden), dropout=self.dropout)

    def _fit_settings(self, *, stop_early: bool) -> FitSettings:
        return FitSettings(
            epochs=self.epochs, batch=self.batch, learning_rate=self.learning_rate, seed=self.seed,
            patience=self.patience if stop_early else None, device=self.device,
        )  # fmt: skip


class DeepSurv(_TableEstimator):
    """A Cox model whose log-risk is a multilayer perceptron of the table (Katzman et al. 2018).

    Args:
        hidden: Width of each hidden layer.
        dropout: Share of units dropped in training.
        epochs: Most passes over the training rows.
        batch: Rows in a batch.
        learning_rate: Step size of Adam.
        patience: Epochs without a better validation loss after which training ends.
        validation_fraction: Share of the training patients kept back to stop early; 0 for none.
        seed: Seed of everything random.
        device: "cpu", "cuda" or "auto".
        unit: Unit of time, for a `y` that does not know it.
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (32, 32),
        dropout: float = 0.1,
        epochs: int = 100,
        batch: int = 64,
        learning_rate: float = 1e-3,
        patience: int = 10,
        validation_fraction: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
        unit: str = "time",
    ):
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.device = device
        self.unit = unit

    def _network(self) -> nn.Module:
        encoder = self._encoder()
        return SurvivalModel({"table": encoder}, CoxPH(encoder.out_features))


class DeepHazard(_TableEstimator):
    """The hazard of every interval of time from a multilayer perceptron of the table; hazards need not be proportional.

    The intervals are cut at quantiles of the Kaplan-Meier curve of the training rows (Gensheimer and Narasimhan 2019).

    Args:
        intervals: Number of intervals.
        hidden: Width of each hidden layer.
        dropout: Share of units dropped in training.
        epochs: Most passes over the training rows.
        batch: Rows in a batch.
        learning_rate: Step size of Adam.
        patience: Epochs without a better validation loss after which training ends.
        validation_fraction: Share of the training patients kept back to stop early; 0 for none.
        seed: Seed of everything random.
        device: "cpu", "cuda" or "auto".
        unit: Unit of time, for a `y` that does not know it.
    """

    def __init__(
        self,
        *,
        intervals: int = 20,
        hidden: Sequence[int] = (32, 32),
        dropout: float = 0.1,
        epochs: int = 100,
        batch: int = 64,
        learning_rate: float = 1e-3,
        patience: int = 10,
        validation_fraction: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
        unit: str = "time",
    ):
        self.intervals = intervals
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.device = device
        self.unit = unit

    def _edges(self, outcome: SurvivalOutcome) -> Float64[np.ndarray, " edge"]:
        return TimeGrid.quantile(outcome, self.intervals).edges.numpy()

    def _network(self) -> nn.Module:
        encoder = self._encoder()
        grid = TimeGrid(torch.as_tensor(self.edges_, dtype=torch.float64), self.unit_)
        return SurvivalModel({"table": encoder}, LogisticHazard(encoder.out_features, grid))
