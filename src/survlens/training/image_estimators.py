"""Neural survival models on images, with or without a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.encoders.cnn import CNN
from survlens.encoders.mlp import MLP
from survlens.models.cox_vae import Architecture, cox_vae
from survlens.models.matrix import Covariates
from survlens.models.survival_model import SurvivalModel
from survlens.training.estimator import HeadedEstimator, TrainedEstimator
from survlens.training.objectives import CoxVAEObjective, Objective
from survlens.training.settings import FitSettings

_TIMED_WIDTH = 32
"""Width of the layer of `CoxTime` that sees embedding and time."""

Shapes = Mapping[str, list[int]]


def _image_shape(shapes: Shapes) -> tuple[int, ...]:
    if "image" not in shapes:
        raise InvalidValueError(
            f"`X` must hold images; got {', '.join(shapes)}. Pass an array of (instance, channel, height, "
            'width), or {"image": ..., "table": ...}.'
        )
    return tuple(shapes["image"])


def _covariates(shapes: Shapes) -> int:
    return shapes["table"][0] if "table" in shapes else 0


@dataclass(kw_only=True, eq=False, repr=False)
class ImageSurvival(HeadedEstimator):
    """A head on a convolutional network, a Cox model by default; a table in `X` enters it beside the image's embedding.

    The settings of training are those of `TrainedEstimator`, those of the head those of `HeadedEstimator`.

    Attributes:
        channels: Width of each stage of the network.
        dropout: Share of embedding units dropped in training.
    """

    channels: Sequence[int] = (16, 32, 64)
    dropout: float = 0.1
    epochs: int = 50
    batch: int = 32

    def _network(self) -> nn.Module:
        shape, covariates = _image_shape(self.shapes_), _covariates(self.shapes_)
        image = CNN(shape[0], tuple(self.channels), dimensions=len(shape) - 1, dropout=self.dropout)
        encoders: dict[str, nn.Module] = {"image": image}
        if covariates:
            encoders["table"] = MLP(covariates, ())
        return SurvivalModel(encoders, self._head(image.out_features + covariates, _TIMED_WIDTH))


@dataclass(kw_only=True, eq=False, repr=False)
class CoxVAESurvival(TrainedEstimator):
    """A CoxVAE: an autoencoder of the images whose latent vector also has to rank survival (Weber et al.).

    `transform` gives the latent means, so it may stand before another model in a pipeline. The settings of training are
    those of `TrainedEstimator`.

    Attributes:
        tau: Weight of the evidence bound in [0, 1]; the head's loss has the weight 1 - tau.
        latent: Dimensions of the latent vector.
        beta: Weight of the KL divergence.
        warm_up_epochs: Epochs over which that weight rises from zero.
        architecture: Kind of the networks.
        head_learning_rate: Step size for the head; as `learning_rate`, which is that of encoder and decoder, where it
            is None.
    """

    _choices: ClassVar[Mapping[str, type[Enum]]] = {"architecture": Architecture}

    tau: float = 0.5
    latent: int = 8
    beta: float = 1.0
    warm_up_epochs: int = 0
    architecture: Architecture = Architecture.DENSE
    epochs: int = 40
    batch: int = 128
    head_learning_rate: float | None = 1e-2

    def transform(self, X: Covariates) -> Float64[np.ndarray, "instance latent"]:
        """Latent means of the images."""
        return self._in_batches(X, lambda inputs: self.model_.latent(inputs)).double().numpy()

    def _network(self) -> nn.Module:
        return cox_vae(
            _image_shape(self.shapes_), latent=self.latent, architecture=self.architecture,
            covariates=_covariates(self.shapes_), seed=self.seed,
        )  # fmt: skip

    def _objective(self) -> Objective:
        return CoxVAEObjective(tau=self.tau, beta=self.beta, warm_up_epochs=self.warm_up_epochs)

    def _fit_settings(self, *, stop_early: bool) -> FitSettings:
        return replace(super()._fit_settings(stop_early=stop_early), head_learning_rate=self.head_learning_rate)
