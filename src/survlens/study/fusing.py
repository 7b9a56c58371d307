"""Late fusion of models that a study has fitted before, with weights learnt on risks that no member was fitted to.

Inside the training part of the split, every member is fitted again without each inner fold in turn and predicts it.
The weights and the baseline come from these risks; the risks that are fused in the end are those of the members of the
study, fitted on the whole training part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from survlens.artifacts.run_folder import RunFolder, read_table, write_json, write_table
from survlens.models.estimator_files import save_estimator
from survlens.models.late_fusion import FusedRisks, fuse_risks
from survlens.study.bench import Bench, fitted_rows
from survlens.study.estimators import FUSION_PENALTY, is_classical
from survlens.study.fitting import fitted_classical, fitted_network, network_embedding, network_risk, table_frame
from survlens.study.model_settings import DownstreamModel, LateFusionModel, ModelEntry
from survlens.study.tuning import chosen_entry
from survlens.study.unit import Count, OnFit, Unit, UnitResult, curves_of
from survlens.study.unit_tables import rows_of_fit

Models = Mapping[str, ModelEntry]


def fuse(unit: Unit, bench: Bench, run: RunFolder, models: Models, *, count: Count) -> UnitResult:
    """A Cox regression on the members' risks, its weights learnt on cross-fitted risks of training patients.

    Finished inner fits are kept in the folder of the fit and not repeated.

    Args:
        unit: The fusion.
        bench: The split.
        run: Folder with the predictions of the members.
        models: The models of the study, by name.
        count: Told of every inner fit.
    """
    folder, names = run.model(unit.entry.name) / unit.name, unit.entry.needs
    as_fitted = {name: chosen_entry(models[name], unit.fold, run) for name in _all_needed(unit.entry, models)}
    fits = len(names) * _folds(unit.entry)
    with count(f"{unit.title}: cross-fitting its members", fits) as on_fit:
        kept = _Kept(folder / "out_of_fold.parquet", on_fit)
        fused = _fused(unit.entry, bench, as_fitted, unit.seed, kept)
    instance, patient = bench.cohort.instance[bench.rows], bench.cohort.patient[bench.rows]
    tables = {name: rows_of_fit(run.predictions(name), unit.fold, unit.seed, instance) for name in names}
    learnt = np.isin(bench.rows, fitted_rows(bench.split))
    risks = {
        name: _patient_means(_centred(table["risk"].to_numpy(), patient, learnt), patient)
        for name, table in tables.items()
    }
    save_estimator(fused.regression, folder)
    about = {"members": names, "centre": fused.scale[0], "spread": fused.scale[1], "weights": fused.weights}
    write_json(folder / "members.json", {**about, "inner_folds": _folds(unit.entry)})
    stratum = bench.cohort.outcome[bench.rows].stratum
    strata = None if stratum is None else stratum.numpy()
    return UnitResult(fused.risk(risks), curves_of(fused.regression, fused.columns(risks), bench.times, strata))


def _all_needed(entry: ModelEntry, models: Models) -> set[str]:
    """Names of the models that a model is built on, and of those that they are built on."""
    return {other for name in entry.needs for other in (name, *_all_needed(models[name], models))}


def _folds(entry: ModelEntry) -> int:
    settings: Any = entry.settings
    return settings.folds


class _Kept:
    """Out-of-fold risks that are already there; with a file they outlive the process."""

    def __init__(self, path: Path | None = None, tell: OnFit = lambda done, said: None):
        self.path, self.tell = path, tell
        self.parts: dict[tuple[str, int], np.ndarray] = {}
        if path is not None and path.exists():
            table = read_table(path)
            member, fold, risk = (table[name].to_numpy() for name in ("member", "inner_fold", "risk"))
            for name, number in dict.fromkeys(zip(member.tolist(), fold.tolist(), strict=True)):
                self.parts[name, number] = risk[(member == name) & (fold == number)]

    def risk(self, name: str, fold: int, fit: Callable[[], np.ndarray]) -> np.ndarray:
        if (name, fold) not in self.parts:
            self.parts[name, fold] = fit()
            if self.path is not None:
                parts = [
                    pd.DataFrame({"member": name, "inner_fold": fold, "risk": risk})
                    for (name, fold), risk in self.parts.items()
                ]
                write_table(self.path, pd.concat(parts, ignore_index=True))
            self.tell(len(self.parts), f"{name}, inner fold {fold}")
        return self.parts[name, fold]


def _fused(entry: ModelEntry, bench: Bench, models: Models, seed: int, kept: _Kept) -> FusedRisks:
    """Weights and baseline from the out-of-fold risks of the rows that may be learnt from."""
    learnt = fitted_rows(bench.split)
    risks = {name: np.empty(len(learnt)) for name in entry.needs}
    for fold, inner in enumerate(bench.inner(_folds(entry), seed), start=1):
        members = _Members(inner, models, seed)
        for name, risk in risks.items():
            risk[inner.split.test] = kept.risk(name, fold, lambda name=name, on=members: on.tested(name))  # type: ignore[misc]
    cohort = bench.cohort
    return fuse_risks(risks, cohort.outcome[learnt], cohort.patient[learnt], penalty=FUSION_PENALTY)


class _Members:
    """Members fitted on one inner split; a network that two of them need is fitted once."""

    def __init__(self, bench: Bench, models: Models, seed: int):
        self.bench, self.models, self.seed = bench, models, seed
        self.networks: dict[str, Any] = {}

    def tested(self, name: str) -> np.ndarray:
        """Risk of the held-out rows, from the mean of the patients that were fitted."""
        bench = self.bench
        patient = bench.cohort.patient[bench.rows]
        learnt = np.isin(bench.rows, fitted_rows(bench.split))
        return _centred(self.risk(name), patient, learnt)[bench.parts == "test"]

    def risk(self, name: str) -> np.ndarray:
        """Risk of `bench.rows`."""
        entry, bench = self.models[name], self.bench
        learnt = fitted_rows(bench.split)
        if isinstance(entry.settings, LateFusionModel):
            fused = _fused(entry, bench, self.models, self.seed, _Kept())
            return fused.risk({member: self.risk(member) for member in entry.needs})
        if is_classical(entry):
            frame = table_frame(bench, entry)
            if isinstance(entry.settings, DownstreamModel):
                network = self.models[entry.settings.embedding]
                values = network_embedding(self._network(network), bench, network, bench.rows)
                frame = pd.DataFrame(values, columns=pd.Index([f"z{at + 1}" for at in range(values.shape[1])]))
            return fitted_classical(entry, self._seed(entry), bench, frame, learnt).predict(frame)
        return network_risk(self._network(entry), bench, entry, bench.rows)

    def _network(self, entry: ModelEntry) -> Any:
        if entry.name not in self.networks:
            self.networks[entry.name] = fitted_network(entry, self._seed(entry), self.bench)[0]
        return self.networks[entry.name]

    def _seed(self, entry: ModelEntry) -> int:
        return self.seed if self.seed in entry.seeds else entry.seeds[0]


def _centred(risk: np.ndarray, patient: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Risks from their mean over the patients of the fit: two Cox fits differ by a constant that means nothing."""
    codes = pd.factorize(patient[learnt])[0]
    return risk - (np.bincount(codes, weights=risk[learnt]) / np.bincount(codes)).mean()


def _patient_means(values: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Each row gets the mean over the rows of its patient."""
    codes = pd.factorize(patient)[0]
    return (np.bincount(codes, weights=values) / np.bincount(codes))[codes]
