"""From a [[model]] section to a network and the objective that trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.encoders.mlp import MLP
from survlens.encoders.pooling import AttentionPooling, MeanPooling, MultipleInstance, WorstPooling
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.heads.weibull import Weibull
from survlens.models.cox_vae import Architecture, cox_vae
from survlens.models.fusion import GatedFusion
from survlens.models.survival_model import SurvivalModel
from survlens.study.bench import MOST_TIMES
from survlens.study.image_encoders import Shape, image_encoder, with_weights
from survlens.study.model_settings import Modality, ModelEntry
from survlens.study.network_settings import (
    ContinuousModel,
    CoxCnnModel,
    CoxVaeModel,
    DeepHitModel,
    DiscreteModel,
    FusionKind,
    GridKind,
    LossKind,
    PoolingKind,
    VaeEncoder,
)
from survlens.training.martingale import MartingaleObjective
from survlens.training.objectives import CoxVAEObjective, Objective, SurvivalObjective
from survlens.training.settings import FitSettings

_TABLE_WIDTHS = (32,)
"""Layers on the table where it stands beside an image."""


def network(entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome) -> nn.Module:
    """The network of a model, with initial weights drawn from `seed`; the global random state stays as it was.

    Args:
        entry: A network of the study.
        seed: Seed of the initial weights.
        shape: Channels and sides of the images: height and width, or x, y and z of volumes.
        features: Number of features of the table.
        outcome: Training outcome, which cuts the time axis of discrete heads.

    Raises:
        InvalidValueError: If the network on the image cannot take images of that shape.
        CorruptFileError: If a file of weights is not that of the network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _BUILDERS[type(entry.settings)](entry, seed, shape, features, outcome)


def objective(entry: ModelEntry, outcome: SurvivalOutcome | None = None) -> Objective:
    """What the training of a model minimises.

    Args:
        entry: A network of the study.
        outcome: Outcome of the training rows, on which alone a memory of risks can be kept; None for what is measured
            on other rows.
    """
    settings = entry.settings
    if isinstance(settings, CoxVaeModel):
        return CoxVAEObjective(
            tau=settings.tau, beta=settings.beta, warm_up_epochs=settings.warm_up, sample_head=settings.sample_head
        )
    if entry.fit.loss is LossKind.MARTINGALE and outcome is not None:
        return MartingaleObjective(outcome, refresh=entry.fit.refresh)
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
        frozen=plan.frozen,
    )


def _survival_network(
    entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome
) -> nn.Module:
    """Encoders of the inputs, their fusion, and the head of the kind."""
    settings: Any = entry.settings
    cnn = isinstance(settings, CoxCnnModel)
    widths = {
        Modality.IMAGE: settings.hidden if cnn else settings.channels,
        Modality.TABLE: _TABLE_WIDTHS if cnn else settings.hidden,
    }
    encoders: dict[str, Any] = {}
    for modality in entry.inputs:
        if modality is Modality.IMAGE:
            encoder = image_encoder(settings.encoder, widths[modality], settings.dropout, shape or (1, 1, 1))
            encoders["image"] = _pooled(entry.pooling, with_weights(encoder, settings.weights, entry.root))
        else:
            encoders["table"] = MLP(features, widths[modality], dropout=settings.dropout)
    fusion, width = None, sum(encoder.out_features for encoder in encoders.values())
    if len(encoders) > 1 and settings.fusion is FusionKind.GATED:
        width = max(encoder.out_features for encoder in encoders.values())
        fusion = GatedFusion(tuple(encoders), [encoder.out_features for encoder in encoders.values()], width)
    return SurvivalModel(encoders, _HEADS[entry.kind](width, settings, outcome), fusion=fusion)


def _grid(settings: Any, outcome: SurvivalOutcome) -> TimeGrid:
    if settings.grid is GridKind.QUANTILE:
        return TimeGrid.quantile(outcome, settings.intervals)
    grid = TimeGrid.equidistant(float(outcome.time.max()), settings.intervals, outcome.unit)
    grid.warn_if_empty(outcome)
    return grid


_HEADS: Mapping[str, Callable[[int, Any, SurvivalOutcome], nn.Module]] = {
    "deep_surv": lambda width, settings, outcome: CoxPH(width),
    "cox_cnn": lambda width, settings, outcome: CoxPH(width),
    "cox_time": lambda width, settings, outcome: CoxTime(
        width, hidden=settings.hidden[-1:], time_scale=float(outcome.time.median())
    ),
    "weibull": lambda width, settings, outcome: Weibull(width, TimeGrid.quantile(outcome, MOST_TIMES)),
    "logistic_hazard": lambda width, settings, outcome: LogisticHazard(width, _grid(settings, outcome)),
    "pmf": lambda width, settings, outcome: PMF(width, _grid(settings, outcome)),
    "mtlr": lambda width, settings, outcome: MTLR(width, _grid(settings, outcome)),
    "deep_hit": lambda width, settings, outcome: DeepHit(
        width, _grid(settings, outcome), alpha=settings.alpha, sigma=settings.sigma
    ),
    "pc_hazard": lambda width, settings, outcome: PCHazard(width, _grid(settings, outcome)),
}
"""The head of each kind of network, given its width, the settings and the training outcome."""


def _cox_vae(entry: ModelEntry, seed: int, shape: Shape | None, features: int, outcome: SurvivalOutcome) -> nn.Module:
    settings: Any = entry.settings
    return cox_vae(
        shape or (),
        latent=settings.latent,
        architecture=Architecture.DENSE if settings.encoder is VaeEncoder.MLP else Architecture.RESIDUAL,
        widths=settings.hidden,
        likelihood=settings.likelihood,
        mask_channels=settings.mask_channels,
        covariates=features if Modality.TABLE in entry.inputs else 0,
        seed=seed,
    )


def _pooled(kind: PoolingKind, encoder: Any) -> nn.Module:
    """The encoder of a patient with several images, or `encoder` itself where each image is a row."""
    width = encoder.out_features
    poolings: Mapping[PoolingKind, Callable[[], nn.Module]] = {
        PoolingKind.MEAN: MeanPooling,
        PoolingKind.ATTENTION: lambda: AttentionPooling(width, hidden=min(width, 64)),
        PoolingKind.WORST: lambda: WorstPooling(width),
    }
    return MultipleInstance(encoder, poolings[kind]()) if kind in poolings else encoder


_BUILDERS: Mapping[type, Callable[..., nn.Module]] = {
    ContinuousModel: _survival_network,
    DiscreteModel: _survival_network,
    DeepHitModel: _survival_network,
    CoxCnnModel: _survival_network,
    CoxVaeModel: _cox_vae,
}
