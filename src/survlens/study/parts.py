"""Fits one model on one split with one seed, and predicts every row of the split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from survlens.artifacts.run_folder import RunFolder, write_json, write_table
from survlens.heads.cox import CoxPH
from survlens.losses.evidence import kl_to_standard_normal
from survlens.models.cox_vae import CoxVAE
from survlens.models.estimator_files import save_estimator
from survlens.models.saving import save_model
from survlens.study.bench import Bench, fitted_rows
from survlens.study.estimators import is_classical
from survlens.study.fitting import (
    embedding_and_place,
    fitted_classical,
    fitted_network,
    latent_part,
    table_frame,
)
from survlens.study.fusing import fuse
from survlens.study.model_settings import DownstreamModel, KaplanMeierModel, LateFusionModel, ModelEntry
from survlens.study.tuning import tuned
from survlens.study.unit import BLOCK, Count, Unit, UnitResult, Watch, curves_of, survival_at
from survlens.study.unit_tables import rows_of_fit


def fit_unit(
    unit: Unit,
    bench: Bench,
    run: RunFolder,
    models: Mapping[str, ModelEntry],
    *,
    watch: Watch,
    count: Count,
    resume: bool,
) -> UnitResult:
    """Fits one model and predicts the rows of its split.

    Args:
        unit: What to fit.
        bench: The split.
        run: Folder of the run; earlier models are read from it.
        models: The models of the study, by name.
        watch: Told of every epoch.
        count: Told of every inner fit.
        resume: Go on from a checkpoint, if there is one.
    """
    if isinstance(unit.entry.settings, LateFusionModel):
        return fuse(unit, bench, run, models, count=count)
    unit = replace(unit, entry=tuned(unit, bench, run, count=count))
    if is_classical(unit.entry):
        return _fit_classical(unit, bench, run)
    return _fit_network(unit, bench, run, watch=watch, resume=resume)


def _fit_network(unit: Unit, bench: Bench, run: RunFolder, *, watch: Watch, resume: bool) -> UnitResult:
    entry, folder = unit.entry, run.model(unit.entry.name) / unit.name
    with watch(unit.title, entry.fit.epochs) as on_epoch:
        model, history = fitted_network(entry, unit.seed, bench, folder=folder, resume=resume, on_epoch=on_epoch)
    write_table(folder / "history.csv", history.to_frame())
    preprocessing = bench.taking(entry.columns).preprocessing.to_json()
    save_model(model, folder, extra={"preprocessing": preprocessing, "training_data": bench.fingerprint})
    if isinstance(model, CoxVAE):
        write_json(folder / "latent.json", _latent_facts(model, bench, unit))
    return _predict_network(model, bench, entry)


@torch.no_grad()
def _predict_network(model: Any, bench: Bench, entry: ModelEntry) -> UnitResult:
    embedding, place = embedding_and_place(model, bench, entry, bench.rows)
    parts = embedding.split(BLOCK)
    risk = np.concatenate([model.head.risk(part).double().numpy() for part in parts])
    strata = np.empty(len(embedding), dtype=np.int64)
    strata[place] = bench.cohort.outcome[bench.rows].strata().numpy()
    curves = _network_curves(model.head, embedding, strata, bench.times)
    return UnitResult(risk[place], curves[place], latent_part(model, embedding).double().numpy()[place])


def _network_curves(head: Any, embedding: torch.Tensor, strata: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Survival probabilities of the rows of `embedding`, (row, time), each with the baseline of its stratum."""
    if not isinstance(head, CoxPH) or not len(head.baseline.strata):
        return np.concatenate([survival_at(head.predict(part), times) for part in embedding.split(BLOCK)])
    found = np.empty((len(embedding), len(times)))
    for each in np.unique(strata):
        rows = np.flatnonzero(strata == each)
        for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
            of_rows = torch.full((len(block),), int(each))
            found[block] = survival_at(head.predict(embedding[torch.from_numpy(block)], stratum=of_rows), times)
    return found


@torch.no_grad()
def _latent_facts(model: CoxVAE, bench: Bench, unit: Unit) -> dict[str, object]:
    """What the explanation needs of the training pictures, so that it can be made without them."""
    source = bench.subset(unit.entry.inputs, bench.split.train)
    kl, squares, values = 0.0, 0.0, 0
    for rows in torch.arange(len(source)).split(BLOCK):
        image = source.batch(rows)[0]["image"]
        mean, log_var = model.vae.encode(image)
        kl = kl + kl_to_standard_normal(mean, log_var).double().sum(0)
        squares += float((model.decode(mean) - image).double().square().sum())
        values += image.numel()
    return {"mean_kl": (kl / len(source)).tolist(), "reconstruction": {"mse": squares / values}}  # type: ignore[operator]


def _fit_classical(unit: Unit, bench: Bench, run: RunFolder) -> UnitResult:
    frame = _features(unit, bench, run)
    model = fitted_classical(unit.entry, unit.seed, bench, frame, fitted_rows(bench.split))
    stratum = bench.cohort.outcome[bench.rows].stratum
    strata = None if stratum is None else stratum.numpy()
    risk, survival = model.predict(frame), curves_of(model, frame, bench.times, strata)
    folder = run.model(unit.entry.name) / unit.name
    save_estimator(model, folder)
    write_json(folder / "preprocessing.json", bench.taking(unit.entry.columns).preprocessing.to_json())
    return UnitResult(risk, survival)


def _features(unit: Unit, bench: Bench, run: RunFolder) -> pd.DataFrame:
    """Covariates of a classical model, in the order of `bench.rows`."""
    settings = unit.entry.settings
    if isinstance(settings, KaplanMeierModel):
        return pd.DataFrame({"nothing": np.zeros(len(bench.rows))})
    if isinstance(settings, DownstreamModel):
        table = rows_of_fit(run.embeddings(settings.embedding), unit.fold, unit.seed, bench.cohort.instance[bench.rows])
        names = [name for name in table.columns if name.startswith("z") and name[1:].isdigit()]
        return table.loc[:, names].astype(np.float64)
    return table_frame(bench, unit.entry)
