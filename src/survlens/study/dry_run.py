"""Tries a study: one batch and one step of every network, nothing written."""

from __future__ import annotations

import torch

from survlens.artifacts.run_folder import RunFolder
from survlens.data.loaders import ItemSource
from survlens.study.bench import Bench, curve_times, fitted_rows
from survlens.study.estimators import is_classical
from survlens.study.model_rows import learnt_rows
from survlens.study.model_settings import ModelEntry
from survlens.study.network_settings import CoxVaeModel
from survlens.study.networks import fit_settings, network, objective
from survlens.study.run import Prepared, units_of
from survlens.training.objectives import TrainingProgress

Rows = list[tuple[str, str]]


def dry_run(prepared: Prepared, run: RunFolder) -> tuple[Rows, Rows]:
    """Loads one batch for every network and takes one step on the CPU; says what a run would write.

    Args:
        prepared: Cohort and splits.
        run: Folder that a run would write; it is not made.

    Returns:
        What was done with each model, and the files of a run with what they hold.
    """
    settings, split = prepared.settings, prepared.splits[0]
    times = curve_times(prepared.cohort.outcome, settings.evaluation.horizons)
    bench = Bench.of(prepared.cohort, split, 1, settings.data, times)
    steps = [(entry.name, _step(entry, bench) + _search(entry, prepared)) for entry in settings.models]
    return steps, _files(prepared, run)


def _search(entry: ModelEntry, prepared: Prepared) -> str:
    if entry.tune is None:
        return ""
    candidates, folds = len(entry.tune.candidates), entry.tune.rules.folds
    fits = candidates * folds * len(prepared.splits)
    return f"; {candidates} candidates would be tried in {folds} inner folds of each split, {fits} fits"


def _step(entry: ModelEntry, bench: Bench) -> str:
    if entry.needs:
        return f"waits for {', '.join(entry.needs)}"
    if is_classical(entry):
        return f"would be fitted on {len(bench.one_per_patient(fitted_rows(bench.split)))} patients"
    bench = bench.taking(entry.columns)
    generator = torch.Generator().manual_seed(entry.seeds[0])
    source = learnt_rows(entry, bench)
    settings = fit_settings(entry, entry.seeds[0], validated=bench.split.validation is not None)
    model = network(entry, entry.seeds[0], bench.preprocessing.image_shape, bench.table.shape[1], source.outcome)
    read = source.for_epoch(generator) if isinstance(source, ItemSource) else source
    inputs, outcome = read.batch(torch.arange(min(settings.batch, len(read))))
    value = objective(entry, source.outcome)(model, inputs, outcome, TrainingProgress(0, 1, 0, 1, generator))
    value.total.backward()
    settings.optimiser(model.parameters(), lr=settings.learning_rate).step()  # type: ignore[call-arg]
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items() if name in _names(entry))
    weights = sum(weight.numel() for weight in model.parameters())
    return f"one step on {shapes}: loss {float(value.total.detach()):.4f}, {weights:,} weights"


def _names(entry: ModelEntry) -> list[str]:
    return [each.value for each in entry.inputs]


def _files(prepared: Prepared, run: RunFolder) -> Rows:
    settings, splits = prepared.settings, prepared.splits
    fits = len(units_of(settings, splits))
    patients = prepared.cohort.n_patients
    names = [entry.name for entry in settings.models]
    latent = [entry.name for entry in settings.models if isinstance(entry.settings, CoxVaeModel)]
    rows = [
        (path.name, what)
        for path, what in (
            (run.study, "the study file"),
            (run.resolved, "every setting"),
            (run.environment, "versions"),
            (run.progress, f"which of {fits} fits are done"),
            (run.cohort, f"{patients} patients"),
            (run.audit, "findings"),
            (run.splits, f"{len(splits)} splits"),
        )
    ]
    rows.append(("models/NAME/", f"saved models and histories of {', '.join(names)}"))
    tuned = [entry.name for entry in settings.models if entry.tune is not None]
    if tuned:
        rows.append(("models/NAME/foldN/tuning.csv", f"every inner result of {', '.join(tuned)}"))
    rows.append(("predictions/NAME.parquet", f"{len(names)} tables"))
    if latent:
        rows.append(("explanations/NAME/", f"dimensions and traversals of {', '.join(latent)}"))
    return [*rows, (run.metrics.name, "scores"), ("figures/", "svg and png"), (run.report.name, "the report")]
