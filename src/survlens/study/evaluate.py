"""Scores the predictions of a run: predictions/*.parquet -> metrics.json."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from survlens.artifacts.run_folder import RunFolder, read_json, read_table, write_json
from survlens.core.errors import DataError, UsageError
from survlens.study.model_metrics import COMPARED, Evaluation, model_metrics, one_seed, subgroup_labels
from survlens.study.model_scores import ModelScores, model_scores, within_fold_concordance
from survlens.study.model_section import CLINICAL_COX, KAPLAN_MEIER
from survlens.study.model_settings import ModelEntry
from survlens.study.resolved import changed_later, resolved
from survlens.study.scoring import Draws, Scored, draws_of, entered_late, percentile, scored_patients
from survlens.study.settings import StudySettings
from survlens.study.unit_tables import prediction_table


def evaluate_run(run: RunFolder, overrides: Sequence[str] = ()) -> None:
    """Scores every model that has predictions, and writes metrics.json; nothing but the run folder is read.

    Args:
        run: The run.
        overrides: Changes of [evaluation] and [report], such as "evaluation.bootstrap=1000"; the run remembers them.

    Raises:
        UsageError: If an override is wrong, or names a subgroup that the run did not keep.
        DataError: If no model has predictions.
        CorruptFileError: If a file of the run is not whole.
    """
    settings = changed_later(read_json(run.resolved), overrides)
    labels = subgroup_labels(run)
    _check_subgroups(settings, labels)
    tables = {entry.name: table for entry in settings.models if (table := _predictions(run, entry)) is not None}
    if not tables:
        raise DataError(f"`RUN` must hold predictions; got none in {run.path}. Run `survlens run` first.")
    scored = _complete({name: _scored(table, settings, name) for name, table in tables.items()})
    first = next(iter(scored.values()))
    horizons = tuple(each for each in settings.evaluation.horizons if each <= first.last_time())
    draws = draws_of(first.patient, settings.evaluation.bootstrap, settings.study.seed)
    scores = {name: model_scores(each, horizons, draws) for name, each in scored.items()}
    evaluation = Evaluation(settings, horizons, draws, labels)
    study, names = settings.study, list(scored)
    write_json(
        run.metrics,
        {
            "study": {name: getattr(study, name) for name in ("name", "description", "seed", "simulated", "data_note")},
            "unit": settings.data.unit,
            "horizons": horizons,
            "scored_until": first.scored_until(),
            "scored_on": _scored_on(first, tables[names[0]]),
            "n_patients": len(np.unique(first.patient)),
            "n_events": int(first.outcome[np.unique(first.patient, return_index=True)[1]].n_events),
            "primary": _primary(settings, names),
            "clinical": CLINICAL_COX if CLINICAL_COX in names else None,
            "reference": KAPLAN_MEIER if KAPLAN_MEIER in names else None,
            "oracle": _oracle(run, first, draws),
            "models": [
                model_metrics(settings.model(name), evaluation, scored[name], scores[name], tables[name])
                for name in names
            ],
            "differences": _differences(scores),
        },
    )
    if overrides:
        write_json(run.resolved, resolved(settings))


def _check_subgroups(settings: StudySettings, labels: pd.DataFrame | None) -> None:
    kept = [] if labels is None else list(labels.columns)
    for name in settings.evaluation.subgroups if labels is not None else ():
        if name not in kept:
            raise UsageError(
                f"`evaluation.subgroups` must name columns that the run kept; got {name!r}, kept are "
                f"{', '.join(map(repr, kept)) or 'none'}. Add it to the study and `survlens run` with --resume."
            )


def _predictions(run: RunFolder, entry: ModelEntry) -> pd.DataFrame | None:
    path = run.predictions(entry.name)
    return prediction_table(path) if path.exists() else None


def _scored(table: pd.DataFrame, settings: StudySettings, name: str) -> Scored:
    return scored_patients(one_seed(table, settings.model(name).seeds[0]), settings.data.unit)


def _complete(scored: Mapping[str, Scored]) -> dict[str, Scored]:
    """Models that were tested on as many patients as any: in a run that was cut short, others are left out."""
    most = max(len(each.patient) for each in scored.values())
    cut = [name for name, each in scored.items() if len(each.patient) < most]
    if cut:
        warnings.warn(
            f"{', '.join(cut)} left out: the run was cut short before all folds were tested. Resume it.", stacklevel=2
        )
    return {name: each for name, each in scored.items() if name not in cut}


def _scored_on(scored: Scored, table: pd.DataFrame) -> str:
    folds = len(np.unique(scored.fold))
    where = "held-out test patients" if folds == 1 else f"held-out patients of {folds} folds"
    several = table.duplicated(["patient", "part", "fold", "seed"]).any()
    pooled = "; several rows of a patient are pooled by the mean of their predictions" if several else ""
    late = table.loc[entered_late(table), "patient"].nunique()
    left_out = f"; {late} patients who entered after time 0 were fitted on but are not scored" if late else ""
    weighted = "; every patient counts once, whatever the weight in the fit" if "weight" in table else ""
    return f"{where}{pooled}{left_out}{weighted}"


def _primary(settings: StudySettings, names: list[str]) -> str | None:
    """The model the study is about: named, or the first that is no reference."""
    if settings.evaluation.primary in names:
        return settings.evaluation.primary
    others = [name for name in names if name not in (KAPLAN_MEIER, CLINICAL_COX)]
    return others[0] if others else names[-1]


def _oracle(run: RunFolder, scored: Scored, draws: Draws) -> dict[str, object] | None:
    """Concordance of the true log-hazard, where the outcome is simulated and truth.parquet says what it is."""
    path = run.path / "truth.parquet"
    if not path.exists():
        return None
    truth = read_table(path).drop_duplicates("patient").set_index("patient")["log_hazard"]
    return within_fold_concordance(replace(scored, risk=truth.loc[scored.patient].to_numpy()), draws).score.to_json()


def _differences(scores: Mapping[str, ModelScores]) -> list[dict[str, Any]]:
    """Every model against the two references, on the same draws."""
    rows: list[dict[str, Any]] = []
    for reference in (name for name in (CLINICAL_COX, KAPLAN_MEIER) if name in scores):
        for model in (name for name in scores if name not in (reference, KAPLAN_MEIER)):
            for name in COMPARED:
                one, other = scores[model].by_name[name], scores[reference].by_name[name]
                interval = percentile(one.values - other.values) if len(one.values) == len(other.values) else None
                rows.append({
                    "score": name, "model": model, "reference": reference,
                    "difference": one.score.value - other.score.value,
                    "lower": None if interval is None else interval.lower,
                    "upper": None if interval is None else interval.upper,
                })  # fmt: skip
    return rows


def summary_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row per model of the main scores, for a screen."""

    def shown(model: Mapping[str, Any], name: str) -> str:
        for score in model["scores"]:
            if score["name"] == name and score["value"] is not None:
                limits = "" if score["lower"] is None else f" ({score['lower']:.3f} to {score['upper']:.3f})"
                return f"{score['value']:.3f}{limits}"
        return "-"

    names = ("concordance_index", "integrated_brier_score", "integrated_ipa")
    return [(model["label"], *(shown(model, name) for name in names)) for model in metrics["models"]]
