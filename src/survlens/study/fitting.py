"""Fits a model on the training rows of one split, in memory: shared by the fits of a study and those of its tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from survlens.core.errors import FitError
from survlens.explain.latent import per_patient
from survlens.models.cox_vae import CoxVAE
from survlens.models.estimator import SurvivalEstimator
from survlens.study.bench import Bench
from survlens.study.estimators import estimator
from survlens.study.model_rows import asked_rows, learnt_rows
from survlens.study.model_settings import KaplanMeierModel, ModelEntry
from survlens.study.networks import fit_settings, network, objective
from survlens.study.unit import BLOCK, OnEpoch
from survlens.training.fit import FitHistory, fit
from survlens.training.reading import embeddings_of


def fitted_network(
    entry: ModelEntry,
    seed: int,
    bench: Bench,
    *,
    folder: Path | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
) -> tuple[Any, FitHistory]:
    """A network trained on the training rows of a split, stopped by its validation rows.

    Args:
        entry: A network of the study.
        seed: Seed of the fit.
        bench: The split.
        folder: Where checkpoints go; None for none.
        resume: Go on from a checkpoint, if there is one.
        on_epoch: Told of every epoch.
    """
    bench = bench.taking(entry.columns)
    split, shape, features = bench.split, bench.preprocessing.image_shape, bench.table.shape[1]
    train = learnt_rows(entry, bench)
    validation = None if split.validation is None else asked_rows(entry, bench, split.validation).source
    model = network(entry, seed, shape, features, train.outcome)
    settings = fit_settings(entry, seed, validated=validation is not None)
    goal = objective(entry, train.outcome)
    history = fit(model, train, validation, goal, settings, folder=folder, resume=resume, on_epoch=on_epoch)
    return model, history


def embedding_and_place(model: Any, bench: Bench, entry: ModelEntry, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """What the head of a fitted network sees of some rows, computed where it was trained.

    Args:
        model: A fitted network.
        bench: The split.
        entry: The network in the study.
        rows: Rows of the cohort.

    Returns:
        Embeddings, and the row among them of each of `rows`: rows of a pooled patient share one.
    """
    asked = asked_rows(entry, bench.taking(entry.columns), rows)
    device = fit_settings(entry, entry.seeds[0], validated=False).torch_device()
    return embeddings_of(model, asked.source, batch=BLOCK, device=device), asked.place


@torch.no_grad()
def network_risk(model: Any, bench: Bench, entry: ModelEntry, rows: np.ndarray) -> np.ndarray:
    """The risk of some rows by a fitted network; higher is worse."""
    embedding, place = embedding_and_place(model, bench, entry, rows)
    return np.concatenate([model.head.risk(part).double().numpy() for part in embedding.split(BLOCK)])[place]


@torch.no_grad()
def network_embedding(model: Any, bench: Bench, entry: ModelEntry, rows: np.ndarray) -> np.ndarray:
    """The embedding of some rows by a fitted network; latent means of a CoxVAE."""
    embedding, place = embedding_and_place(model, bench, entry, rows)
    return latent_part(model, embedding).double().numpy()[place]


def latent_part(model: Any, embedding: Tensor) -> Tensor:
    """The embedding without the covariates that a CoxVAE puts behind its latent means."""
    if not isinstance(model, CoxVAE):
        return embedding
    return embedding[:, : embedding.shape[1] - model.covariates]


def fitted_classical(
    entry: ModelEntry, seed: int, bench: Bench, frame: pd.DataFrame, learnt: np.ndarray
) -> SurvivalEstimator:
    """A classical model fitted on some rows of a split; a patient with many rows enters once, with their mean.

    Args:
        entry: A classical model of the study.
        seed: Seed of the fit.
        bench: The split.
        frame: Covariates in the order of `bench.rows`.
        learnt: Rows to fit on.

    Raises:
        FitError: If it cannot be fitted; the message names the model.
    """
    position = {row: at for at, row in enumerate(bench.rows)}
    values = frame.to_numpy(dtype=np.float64)[[position[row] for row in learnt]]
    means, outcome = per_patient(values, bench.cohort.outcome[learnt], bench.cohort.patient[learnt])
    if isinstance(entry.settings, KaplanMeierModel):
        # One curve for everybody, whatever the strata of the models that are compared with it.
        outcome = replace(outcome, stratum=None)
    try:
        return estimator(entry, seed).fit(pd.DataFrame(means, columns=frame.columns), outcome)
    except FitError as error:
        counts = f"{len(outcome)} patients, {outcome.n_events} events, {means.shape[1]} features"
        raise FitError(f"Model {entry.name!r} ({counts}): {error}") from error


def table_frame(bench: Bench, entry: ModelEntry) -> pd.DataFrame:
    """Features of the columns that a model takes of the clinical table, in the order of `bench.rows`."""
    bench = bench.taking(entry.columns)
    values = bench.table[torch.from_numpy(bench.rows)].double().numpy()
    return pd.DataFrame(values, columns=pd.Index(bench.preprocessing.feature_names))
