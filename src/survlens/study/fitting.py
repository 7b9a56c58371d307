"""Fits a model on the training rows of one split, in memory: shared by the fits of a study and those of its tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from survlens.explain.latent import per_patient
from survlens.models.cox_vae import CoxVAE
from survlens.models.estimator import SurvivalEstimator
from survlens.study.bench import Bench
from survlens.study.estimators import estimator
from survlens.study.model_settings import KaplanMeierModel, Modality, ModelEntry
from survlens.study.networks import fit_settings, network, objective
from survlens.study.unit import BLOCK, OnEpoch
from survlens.training.fit import FitHistory, fit


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
    split, shape, features = bench.split, bench.preprocessing.image_shape, bench.table.shape[1]
    train_rows = split.train if Modality.IMAGE in entry.inputs else bench.one_per_patient(split.train)
    train = bench.subset(entry.inputs, train_rows)
    validation = None if split.validation is None else bench.subset(entry.inputs, split.validation)
    model = network(entry, seed, shape, features, train.outcome)
    settings = fit_settings(entry, seed, validated=validation is not None)
    history = fit(model, train, validation, objective(entry), settings, folder=folder, resume=resume, on_epoch=on_epoch)
    return model, history


@torch.no_grad()
def network_risk(model: Any, bench: Bench, entry: ModelEntry, rows: np.ndarray) -> np.ndarray:
    """The risk of some rows by a fitted network; higher is worse."""
    source = bench.subset(entry.inputs, rows)
    blocks = torch.arange(len(source)).split(BLOCK)
    return np.concatenate([model.risk(source.batch(block)[0]).double().numpy() for block in blocks])


@torch.no_grad()
def network_embedding(model: Any, bench: Bench, entry: ModelEntry, rows: np.ndarray) -> np.ndarray:
    """The embedding of some rows by a fitted network; latent means of a CoxVAE."""
    source = bench.subset(entry.inputs, rows)
    embed = model.latent if isinstance(model, CoxVAE) else model.embed
    blocks = torch.arange(len(source)).split(BLOCK)
    return np.concatenate([embed(source.batch(block)[0]).double().numpy() for block in blocks])


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
    """
    position = {row: at for at, row in enumerate(bench.rows)}
    values = frame.to_numpy(dtype=np.float64)[[position[row] for row in learnt]]
    means, outcome = per_patient(values, bench.cohort.outcome[learnt], bench.cohort.patient[learnt])
    if isinstance(entry.settings, KaplanMeierModel):
        # One curve for everybody, whatever the strata of the models that are compared with it.
        outcome = replace(outcome, stratum=None)
    return estimator(entry, seed).fit(pd.DataFrame(means, columns=frame.columns), outcome)


def table_frame(bench: Bench) -> pd.DataFrame:
    """Features of the clinical table, in the order of `bench.rows`."""
    values = bench.table[torch.from_numpy(bench.rows)].double().numpy()
    return pd.DataFrame(values, columns=pd.Index(bench.preprocessing.feature_names))
