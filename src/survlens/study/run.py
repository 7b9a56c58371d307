"""Runs a study: cohort, audit, splits, then one fit per split, model and seed; each step leaves files for the next."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from survlens.artifacts.atomic import write_text
from survlens.artifacts.run_folder import RunFolder, plain, read_json, read_table, write_json, write_table
from survlens.core.errors import CorruptFileError, DataError, UsageError
from survlens.data.cohort import Cohort
from survlens.data.description import flow
from survlens.data.splits import Splits
from survlens.data.table import read_table as read_cohort_table
from survlens.explain.latent import PrincipalComponents
from survlens.study.bench import Bench, curve_times, default_horizons
from survlens.study.check import audit_tables
from survlens.study.cohort_facts import cohort_facts
from survlens.study.cohort_schema import schema_of
from survlens.study.dividing import divided, naming_refusals
from survlens.study.environment import environment
from survlens.study.network_checks import check_networks
from survlens.study.parts import fit_unit
from survlens.study.resolved import LATER, resolved
from survlens.study.settings import StudySettings
from survlens.study.unit import Count, OnEpoch, OnFit, Unit, UnitResult, Watch
from survlens.study.unit_tables import add_rows, curve_columns, embedding_rows, prediction_rows
from survlens.training.settings import Device


@contextmanager
def silent(name: str, epochs: int) -> Iterator[OnEpoch]:
    """Tells nobody about the epochs."""
    yield lambda row: None


@contextmanager
def uncounted(name: str, fits: int) -> Iterator[OnFit]:
    """Tells nobody about the inner fits."""
    yield lambda done, said: None


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A cohort that passed its audit, with its splits.

    Attributes:
        settings: What is studied.
        cohort: The rows.
        splits: Rows of every part.
        audit: Findings, as json holds them.
        flow: Steps from the table to the cohort.
    """

    settings: StudySettings
    cohort: Cohort
    splits: Splits
    audit: Mapping[str, Any] = field(default_factory=lambda: {"ok": True, "counts": {}, "findings": []})
    flow: Sequence[dict[str, Any]] = ()


def prepare(settings: StudySettings) -> Prepared:
    """Reads and audits the cohort of a study, and divides it.

    Raises:
        DataError: If the audit finds an error, a part would be empty, or a model refuses what [data] says.
    """
    paths, schema = settings.files(), schema_of(settings.data, settings.split)
    frame = read_cohort_table(paths.table)
    beside = None if paths.external is None else read_cohort_table(paths.external)
    report = audit_tables(settings, frame, beside)
    if not report.ok:
        raise DataError(f"{paths.table.name} must pass its audit; got errors. See them: survlens check STUDY.toml.")
    cohort = Cohort.from_frame(frame, schema, root=paths.root)
    steps = flow(frame, schema, cohort)
    other = None if beside is None else Cohort.from_frame(beside, schema, root=paths.root)
    cohort, splits = divided(settings, cohort, other)
    check_networks(settings, cohort)
    return Prepared(with_horizons(settings, cohort), cohort, splits, report.to_json(), steps)


def with_horizons(settings: StudySettings, cohort: Cohort) -> StudySettings:
    """The settings with horizons; where the study names none, they are quartiles of the event times."""
    if settings.evaluation.horizons:
        return settings
    horizons = default_horizons(cohort.outcome[cohort.per_patient()])
    return replace(settings, evaluation=replace(settings.evaluation, horizons=horizons))


def on_device(settings: StudySettings, device: Device) -> StudySettings:
    """The same study, trained elsewhere."""
    return replace(settings, models=tuple(entry.on_device(device) for entry in settings.models))


def chosen_models(settings: StudySettings, names: Sequence[str]) -> StudySettings:
    """The study with some of its models, those they need, and the two reference rows.

    Raises:
        UsageError: If a name is not a model of the study.
    """
    wanted = {entry.name for entry in settings.models if entry.name in ("kaplan_meier", "clinical_cox")}
    waiting = list(names)
    while waiting:
        entry = settings.model(waiting.pop())
        wanted.add(entry.name)
        waiting += [name for name in entry.needs if name not in wanted]
    return replace(settings, models=tuple(entry for entry in settings.models if entry.name in wanted))


def units_of(settings: StudySettings, splits: Splits) -> tuple[Unit, ...]:
    """Every fit of a study, split by split, each model after those it needs."""
    return tuple(
        Unit(entry, fold, seed)
        for fold in range(1, len(splits) + 1)
        for entry in settings.models
        for seed in entry.seeds
    )


def run_study(
    prepared: Prepared,
    run: RunFolder,
    *,
    text: str = "",
    watch: Watch = silent,
    count: Count = uncounted,
    resume: bool = False,
    tell: Callable[[str], None] = lambda said: None,
) -> None:
    """Fits every model of a study and writes what the later steps need.

    Finished fits are listed in progress.json; with `resume` they are skipped, and a training that was cut short goes on
    from its checkpoint.

    Args:
        prepared: Cohort and splits.
        run: Folder of the run.
        text: Text of the study file, kept beside the results.
        watch: Told of every epoch.
        count: Told of every inner fit of a search or a fusion.
        resume: Go on in a run of the same study and data.
        tell: Told how many fits are left, once the run may begin.

    Raises:
        UsageError: If `resume` is asked for in the folder of another study or other data; the sections [evaluation] and
            [report] may differ, since no fit depends on them.
    """
    settings, cohort, splits = prepared.settings, prepared.cohort, prepared.splits
    _write_head(prepared, run, text, resume=resume)
    units = units_of(settings, splits)
    finished = set(_finished(run)) if resume else set()
    left = sum(_key(unit) not in finished for unit in units)
    tell(
        f"{left} of {len(units)} fits left, written to {run.path}" if resume else f"{left} fits, written to {run.path}"
    )
    kept = _kept_times(run, sorted(finished))
    times = curve_times(cohort.outcome, settings.evaluation.horizons) if kept is None else kept
    models = {entry.name: entry for entry in settings.models}
    bench: Bench | None = None
    for unit in units:
        if _key(unit) in finished:
            continue
        if bench is None or bench.fold != unit.fold:
            bench = Bench.of(cohort, splits[unit.fold - 1], unit.fold, settings.data, times)
        with naming_refusals(unit.entry, settings.data):
            result = fit_unit(unit, bench, run, models, watch=watch, count=count, resume=resume)
        _write_result(unit, bench, run, result, true_log_hazard(prepared))
        finished.add(_key(unit))
        _write_progress(run, units, finished)


def _write_head(prepared: Prepared, run: RunFolder, text: str, *, resume: bool) -> None:
    """Writes what is known before the first fit, or makes sure that it is the same as in the run to resume."""
    content, data = plain(resolved(prepared.settings)), data_hash(prepared.cohort)
    if resume and run.resolved.exists():
        if _binding(read_json(run.resolved)) != _binding(content):
            raise UsageError(
                f"`--resume` must be given the study of the run; got other settings than {run.resolved}. "
                "Undo the change, or choose another --out. Only [evaluation] and [report] may change."
            )
        _check_same_data(run, prepared.splits, data)
    write_json(run.resolved, content)
    write_text(run.study, text)
    write_json(run.environment, environment(prepared.settings.study.seed, ["survlens", shlex.join(sys.argv[1:])]))
    write_json(run.audit, prepared.audit)
    write_json(run.splits, {**prepared.splits.to_json(), "data": data})
    write_json(run.cohort, cohort_facts(prepared.cohort, prepared.splits, prepared.flow))
    write_table(run.subgroups, _subgroups(prepared))
    truth = true_log_hazard(prepared)
    if truth is None:
        run.truth.unlink(missing_ok=True)
    else:
        columns = {"instance": prepared.cohort.instance, "patient": prepared.cohort.patient, "log_hazard": truth}
        write_table(run.truth, pd.DataFrame(columns))


def _check_same_data(run: RunFolder, splits: Splits, data: str) -> None:
    if not run.splits.exists():
        return
    before = read_json(run.splits)
    if Splits.from_json(before).hash != splits.hash:
        raise UsageError("`--resume` must be given the data of the run; got other rows. Choose another --out.")
    if before.get("data", data) != data:
        raise UsageError(
            "`--resume` must be given the data of the run; got other values, names or images. Choose another --out."
        )


def data_hash(cohort: Cohort) -> str:
    """SHA-256 of a whole cohort: what models learn from, names and groups; one value, so no name can be guessed."""
    digest = hashlib.sha256(cohort.fingerprint().encode())
    for names in (cohort.instance, cohort.patient):
        digest.update(repr(names.tolist()).encode())
    for column in cohort.groups:
        digest.update(f"{column}\0{cohort.groups[column].tolist()!r}".encode())
    return digest.hexdigest()


def true_log_hazard(prepared: Prepared) -> np.ndarray | None:
    """The truth of a simulation, one value per row of the cohort; None for real outcomes."""
    column = prepared.settings.data.true_log_hazard
    return None if column is None else prepared.cohort.groups[column].to_numpy(dtype=np.float64)


def _binding(content: dict[str, Any]) -> dict[str, Any]:
    """The settings that fits depend on: not where they are computed, nor how they are scored and shown."""
    models = [{**model, "fit": {**model.get("fit", {}), "device": ""}} for model in content.get("model", [])]
    return {**{name: said for name, said in content.items() if name not in LATER}, "model": models}


def _kept_times(run: RunFolder, finished: Sequence[tuple[str, int, int]]) -> np.ndarray | None:
    """Times of the curves of a run that is gone on with: changed horizons do not change where its curves are kept."""
    for name in dict.fromkeys(model for model, _, _ in finished):
        if run.predictions(name).exists():
            return curve_columns(read_table(run.predictions(name)))[0]
    return None


def _subgroups(prepared: Prepared) -> Any:
    """Columns by which scores are told apart, one row per instance."""
    cohort, names = prepared.cohort, list(prepared.settings.evaluation.subgroups)
    known = {**dict(cohort.table.items()), **dict(cohort.groups.items())}
    frame = cohort.table[[]].copy()
    frame["instance"], frame["patient"] = cohort.instance, cohort.patient
    for name in names:
        frame[name] = known[name].to_numpy()
    return frame


def _write_result(unit: Unit, bench: Bench, run: RunFolder, result: UnitResult, truth: np.ndarray | None) -> None:
    name = unit.entry.name
    if result.embedding is not None:
        learnt = result.embedding[bench.parts == "train"]
        components = PrincipalComponents.fit(learnt).transform(result.embedding)
        if components.shape[1] < 2:
            components = np.column_stack([components, np.zeros(len(components))])
        table = embedding_rows(bench, unit.seed, result.embedding, components)
        if truth is not None:
            table["true_log_hazard"] = truth[bench.rows]
        add_rows(run.embeddings(name), table)
        history = run.model(name) / unit.name / "history.csv"
        if history.exists() and not run.history(name).exists():
            write_table(run.history(name), read_table(history))
    if unit.entry.predicts:
        add_rows(run.predictions(name), prediction_rows(bench, unit.seed, result.risk, result.survival))


def _key(unit: Unit) -> tuple[str, int, int]:
    return unit.entry.name, unit.fold, unit.seed


def _finished(run: RunFolder) -> list[tuple[str, int, int]]:
    if not run.progress.exists():
        return []
    try:
        return [(row["model"], row["fold"], row["seed"]) for row in read_json(run.progress)["finished"]]
    except (KeyError, TypeError) as error:
        raise CorruptFileError(
            f"`{run.progress}` must list the finished fits; got something else ({error}). Remove it to fit all anew."
        ) from error


def _write_progress(run: RunFolder, units: Sequence[Unit], finished: set[tuple[str, int, int]]) -> None:
    done = [_key(unit) for unit in units if _key(unit) in finished]
    rows = [dict(zip(("model", "fold", "seed"), key, strict=True)) for key in done]
    write_json(run.progress, {"finished": rows, "fits": len(units)})
