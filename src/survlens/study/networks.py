"""From a [[model]] section to a network and the objective that trains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.encoders.cnn import CNN
from survlens.encoders.mlp import MLP
from survlens.encoders.residual import ResidualCNN
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.cox_vae import Architecture, cox_vae
from survlens.models.survival_model import SurvivalModel
from survlens.study.model_settings import (
    CoxCnnModel,
    CoxVaeModel,
    DeepSurvModel,
    EncoderKind,
    LogisticHazardModel,
    Modality,
    ModelEntry,
    VaeEncoder,
)
from survlens.training.objectives import CoxVAEObjective, Objective, SurvivalObjective
from survlens.training.settings import FitSettings

Shape = tuple[int, int, int]
_TABLE_WIDTHS = (32,)
"""Layers on the table where it stands beside an image."""


def network(entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome) -> nn.Module:
    """The network of a model, with initial weights drawn from `seed`; the global random state stays as it was.

    Args:
        entry: A network of the study.
        seed: Seed of the initial weights.
        shape: Channels, height and width of the images.
        features: Number of features of the table.
        outcome: Training outcome, which cuts the time axis of discrete heads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _BUILDERS[type(entry.settings)](entry, seed, shape, features, outcome)


def objective(entry: ModelEntry) -> Objective:
    """What the training of a model minimises."""
    settings = entry.settings
    if isinstance(settings, CoxVaeModel):
        return CoxVAEObjective(
            tau=settings.tau, beta=settings.beta, warm_up_epochs=settings.warm_up, sample_head=settings.sample_head
        )
    return SurvivalObjective()


def fit_settings(entry: ModelEntry, seed: int, *, validated: bool) -> FitSettings:
    """How a model is trained.

    Args:
        entry: A network of the study.
        seed: Seed of batches, dropout and draws.
        validated: Whether there are validation rows, without which nothing can stop early.
    """
    plan = entry.fit
    return FitSettings(
        epochs=plan.epochs,
        batch=plan.batch,
        learning_rate=plan.learning_rate,
        head_learning_rate=plan.head_learning_rate,
        weight_decay=plan.weight_decay,
        patience=plan.patience if validated and plan.patience else None,
        precision=plan.precision,
        device=plan.device,
        seed=seed,
    )


def _deep_surv(entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome) -> nn.Module:
    settings: Any = entry.settings
    encoder = MLP(features, settings.hidden, dropout=settings.dropout)
    return SurvivalModel({"table": encoder}, CoxPH(encoder.out_features))


def _cox_cnn(entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome) -> nn.Module:
    settings: Any = entry.settings
    encoders: dict[str, nn.Module] = {}
    for modality in entry.inputs:
        if modality is Modality.IMAGE:
            encoders["image"] = _image_encoder(settings.encoder, settings.hidden, settings.dropout, shape)
        else:
            encoders["table"] = MLP(features, _TABLE_WIDTHS, dropout=settings.dropout)
    return SurvivalModel(encoders, CoxPH(_width(encoders)))


def _logistic(entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome) -> nn.Module:
    settings: Any = entry.settings
    encoders: dict[str, nn.Module] = {}
    for modality in entry.inputs:
        if modality is Modality.IMAGE:
            encoders["image"] = _image_encoder(settings.encoder, settings.channels, settings.dropout, shape)
        else:
            encoders["table"] = MLP(features, settings.hidden, dropout=settings.dropout)
    return SurvivalModel(encoders, LogisticHazard(_width(encoders), TimeGrid.quantile(outcome, settings.intervals)))


def _cox_vae(entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome) -> nn.Module:
    settings: Any = entry.settings
    return cox_vae(
        shape or (),
        latent=settings.latent,
        architecture=Architecture.DENSE if settings.encoder is VaeEncoder.MLP else Architecture.RESIDUAL,
        widths=settings.hidden,
        likelihood=settings.likelihood,
        covariates=features if Modality.TABLE in entry.inputs else 0,
        seed=seed,
    )


def _image_encoder(kind: EncoderKind, widths: tuple[int, ...], dropout: float, shape: Shape | None) -> nn.Module:
    shape = shape or (1, 1, 1)
    encoders: Mapping[EncoderKind, Callable[[], nn.Module]] = {
        EncoderKind.MLP: lambda: MLP(math.prod(shape), widths, dropout=dropout),
        EncoderKind.CNN: lambda: CNN(shape[0], widths, dropout=dropout),
        EncoderKind.RESIDUAL: lambda: ResidualCNN(shape[0], widths, image_size=shape[1:], dropout=dropout),
    }
    return encoders[kind]()


def _width(encoders: Mapping[str, Any]) -> int:
    return sum(encoder.out_features for encoder in encoders.values())


_BUILDERS: Mapping[type, Callable[..., nn.Module]] = {
    DeepSurvModel: _deep_surv,
    LogisticHazardModel: _logistic,
    CoxCnnModel: _cox_cnn,
    CoxVaeModel: _cox_vae,
}
