"""Fits one model on one split with one seed, and predicts every row of the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from survlens.artifacts.run_folder import RunFolder, write_json, write_table
from survlens.explain.latent import per_patient
from survlens.losses.evidence import kl_to_standard_normal
from survlens.models.cox_vae import CoxVAE
from survlens.models.estimator_files import save_estimator
from survlens.models.saving import save_model
from survlens.study.bench import Bench, fitted_rows
from survlens.study.estimators import estimator, is_classical
from survlens.study.fusing import fuse
from survlens.study.model_settings import DownstreamModel, KaplanMeierModel, LateFusionModel, Modality, ModelEntry
from survlens.study.networks import fit_settings, network, objective
from survlens.study.unit import BLOCK, Unit, UnitResult, Watch, curves_of, survival_at
from survlens.study.unit_tables import rows_of_fit
from survlens.training.fit import fit


def fit_unit(unit: Unit, bench: Bench, run: RunFolder, *, watch: Watch, resume: bool, held_out: bool) -> UnitResult:
    """Fits one model and predicts the rows of its split.

    Args:
        unit: What to fit.
        bench: The split.
        run: Folder of the run; earlier models are read from it.
        watch: Told of every epoch.
        resume: Go on from a checkpoint, if there is one.
        held_out: Predict validation rows by a model that did not see them: a late fusion learns its weights there.
    """
    if isinstance(unit.entry.settings, LateFusionModel):
        return fuse(unit, bench, run)
    if is_classical(unit.entry):
        return _fit_classical(unit, bench, run, held_out=held_out)
    return _fit_network(unit, bench, run, watch=watch, resume=resume)


def _fit_network(unit: Unit, bench: Bench, run: RunFolder, *, watch: Watch, resume: bool) -> UnitResult:
    entry, split = unit.entry, bench.split
    shape, features = bench.preprocessing.image_shape, bench.table.shape[1]
    train_rows = split.train if Modality.IMAGE in entry.inputs else bench.one_per_patient(split.train)
    train = bench.subset(entry.inputs, train_rows)
    validation = None if split.validation is None else bench.subset(entry.inputs, split.validation)
    model = network(entry, unit.seed, shape, features, train.outcome)
    settings = fit_settings(entry, unit.seed, validated=validation is not None)
    folder = run.model(entry.name) / unit.name
    with watch(unit.title, settings.epochs) as on_epoch:
        history = fit(
            model, train, validation, objective(entry), settings, folder=folder, resume=resume, on_epoch=on_epoch
        )
    write_table(folder / "history.csv", history.to_frame())
    save_model(
        model, folder, extra={"preprocessing": bench.preprocessing.to_json(), "training_data": bench.fingerprint}
    )
    if isinstance(model, CoxVAE):
        write_json(folder / "latent.json", _latent_facts(model, bench, unit))
    return _predict_network(model, bench, entry)


@torch.no_grad()
def _predict_network(model: Any, bench: Bench, entry: ModelEntry) -> UnitResult:
    source = bench.subset(entry.inputs, bench.rows)
    risks, curves, embeddings = [], [], []
    for rows in torch.arange(len(source)).split(BLOCK):
        inputs, _ = source.batch(rows)
        risks.append(model.risk(inputs).double().numpy())
        curves.append(survival_at(model.predict_survival(inputs), bench.times))
        embedding = model.latent(inputs) if isinstance(model, CoxVAE) else model.embed(inputs)
        embeddings.append(embedding.double().numpy())
    return UnitResult(np.concatenate(risks), np.concatenate(curves), np.concatenate(embeddings))


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


def _fit_classical(unit: Unit, bench: Bench, run: RunFolder, *, held_out: bool) -> UnitResult:
    rows, parts, cohort = bench.rows, bench.parts, bench.cohort
    features, names = _features(unit, bench, run)
    position = {row: at for at, row in enumerate(rows)}

    def predicted(learnt: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        at = np.array([position[row] for row in learnt])
        # Everyone counts once: a patient with many images enters with the mean of their rows.
        means, outcome = per_patient(features[at], cohort.outcome[learnt], cohort.patient[learnt])
        model = estimator(unit.entry, unit.seed).fit(pd.DataFrame(means, columns=pd.Index(names)), outcome)
        frame = pd.DataFrame(features, columns=pd.Index(names))
        return model, model.predict(frame), curves_of(model, frame, bench.times)

    model, risk, survival = predicted(fitted_rows(bench.split))
    if held_out and bench.split.validation is not None:
        apart = predicted(bench.split.train)[1]
        risk = np.where(parts == "validation", apart, risk)
    folder = run.model(unit.entry.name) / unit.name
    save_estimator(model, folder)
    write_json(folder / "preprocessing.json", bench.preprocessing.to_json())
    return UnitResult(risk, survival)


def _features(unit: Unit, bench: Bench, run: RunFolder) -> tuple[np.ndarray, list[str]]:
    """Covariates of a classical model, in the order of `bench.rows`."""
    settings = unit.entry.settings
    if isinstance(settings, KaplanMeierModel):
        return np.zeros((len(bench.rows), 1)), ["nothing"]
    if isinstance(settings, DownstreamModel):
        table = rows_of_fit(run.embeddings(settings.embedding), unit.fold, unit.seed, bench.cohort.instance[bench.rows])
        names = [name for name in table.columns if name.startswith("z") and name[1:].isdigit()]
        return table[names].to_numpy(dtype=np.float64), names
    return bench.table[torch.from_numpy(bench.rows)].double().numpy(), list(bench.preprocessing.feature_names)
