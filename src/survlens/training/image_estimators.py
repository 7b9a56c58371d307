"""Neural survival models on images, with or without a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.encoders.cnn import CNN
from survlens.encoders.mlp import MLP
from survlens.heads.cox import CoxPH
from survlens.models.cox_vae import Architecture, cox_vae
from survlens.models.matrix import Covariates
from survlens.models.survival_model import SurvivalModel
from survlens.training.estimator import NeuralEstimator
from survlens.training.objectives import CoxVAEObjective, Objective
from survlens.training.settings import FitSettings


class _ImageEstimator(NeuralEstimator):
    epochs: int
    batch: int
    learning_rate: float
    patience: int
    device: str

    def _image_shape(self) -> tuple[int, ...]:
        if "image" not in self.shapes_:
            raise InvalidValueError(
                f"`X` must hold images; got {', '.join(self.shapes_)}. Pass an array of (instance, channel, height, "
                'width), or {"image": ..., "table": ...}.'
            )
        return tuple(self.shapes_["image"])

    def _covariates(self) -> int:
        return self.shapes_["table"][0] if "table" in self.shapes_ else 0

    def _fit_settings(self, *, stop_early: bool) -> FitSettings:
        return FitSettings(
            epochs=self.epochs, batch=self.batch, learning_rate=self.learning_rate, seed=self.seed,
            patience=self.patience if stop_early else None, device=self.device,
            head_learning_rate=self._head_learning_rate(),
        )  # fmt: skip

    def _head_learning_rate(self) -> float | None:
        return None


class ImageSurvival(_ImageEstimator):
    """A Cox model on a convolutional network; a table in `X` enters the head beside the image's embedding.

    Args:
        channels: Width of each stage of the network.
        dropout: Share of embedding units dropped in training.
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
        channels: Sequence[int] = (16, 32, 64),
        dropout: float = 0.1,
        epochs: int = 50,
        batch: int = 32,
        learning_rate: float = 1e-3,
        patience: int = 10,
        validation_fraction: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
        unit: str = "time",
    ):
        self.channels = channels
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
        shape, covariates = self._image_shape(), self._covariates()
        image = CNN(shape[0], tuple(self.channels), dimensions=len(shape) - 1, dropout=self.dropout)
        encoders: dict[str, nn.Module] = {"image": image}
        if covariates:
            encoders["table"] = MLP(covariates, ())
        return SurvivalModel(encoders, CoxPH(image.out_features + covariates))


class CoxVAESurvival(_ImageEstimator):
    """A CoxVAE: an autoencoder of the images whose latent vector also has to rank survival (Weber et al.).

    `transform` gives the latent means, so it may stand before another model in a pipeline.

    Args:
        tau: Weight of the evidence bound in [0, 1]; the head's loss has the weight 1 - tau.
        latent: Dimensions of the latent vector.
        beta: Weight of the KL divergence.
        warm_up_epochs: Epochs over which that weight rises from zero.
        architecture: Kind of the networks.
        epochs: Most passes over the training rows.
        batch: Rows in a batch.
        learning_rate: Step size of Adam for encoder and decoder.
        head_learning_rate: Step size for the head; as `learning_rate` where it is None.
        patience: Epochs without a better validation value after which training ends.
        validation_fraction: Share of the training patients kept back to stop early; 0 for none.
        seed: Seed of everything random.
        device: "cpu", "cuda" or "auto".
        unit: Unit of time, for a `y` that does not know it.
    """

    _choices: ClassVar[Mapping[str, type[Enum]]] = {"architecture": Architecture}

    def __init__(
        self,
        *,
        tau: float = 0.5,
        latent: int = 8,
        beta: float = 1.0,
        warm_up_epochs: int = 0,
        architecture: Architecture = Architecture.DENSE,
        epochs: int = 40,
        batch: int = 128,
        learning_rate: float = 1e-3,
        head_learning_rate: float | None = 1e-2,
        patience: int = 10,
        validation_fraction: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
        unit: str = "time",
    ):
        self.tau = tau
        self.latent = latent
        self.beta = beta
        self.warm_up_epochs = warm_up_epochs
        self.architecture = architecture
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.device = device
        self.unit = unit

    def transform(self, X: Covariates) -> Float64[np.ndarray, "instance latent"]:
        """Latent means of the images."""
        return self._in_batches(X, lambda inputs: self.model_.latent(inputs)).double().numpy()

    def _network(self) -> nn.Module:
        shape = self._image_shape()
        return cox_vae(
            shape, latent=self.latent, architecture=self.architecture, covariates=self._covariates(), seed=self.seed
        )

    def _objective(self) -> Objective:
        return CoxVAEObjective(tau=self.tau, beta=self.beta, warm_up_epochs=self.warm_up_epochs)

    def _head_learning_rate(self) -> float | None:
        return self.head_learning_rate
