"""Everything metrics.json says of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from survlens.artifacts.run_folder import RunFolder, read_table
from survlens.data.columns import column_of
from survlens.study.covariate_names import chosen, image_columns
from survlens.study.curves import brier_curve, calibration, risk_group_curves
from survlens.study.model_scores import ModelScores, model_scores, within_fold_concordance
from survlens.study.model_settings import DownstreamModel, LateFusionModel, Modality, ModelEntry
from survlens.study.network_settings import PoolingKind
from survlens.study.scoring import Draws, Scored, scored_patients
from survlens.study.settings import DataSettings, StudySettings
from survlens.study.tune_settings import TuneScore

COMPARED = ("concordance_index", "integrated_brier_score", "integrated_ipa")
"""Scores that are compared between models and between seeds."""
_MOST_LEVELS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What the evaluations of all models share.

    Attributes:
        settings: The study.
        horizons: Times at which to score.
        draws: Resamples of the patients.
        labels: Subgroups of each patient, or None.
    """

    settings: StudySettings
    horizons: tuple[float, ...]
    draws: Draws
    labels: pd.DataFrame | None


def subgroup_labels(run: RunFolder) -> pd.DataFrame | None:
    """The columns by which scores are told apart, one row per patient."""
    path = run.path / "subgroups.parquet"
    return read_table(path).drop_duplicates("patient").set_index("patient") if path.exists() else None


def model_metrics(
    entry: ModelEntry, evaluation: Evaluation, scored: Scored, scores: ModelScores, table: pd.DataFrame
) -> dict[str, Any]:
    """Scores, curves and subgroups of one model.

    Args:
        entry: The model.
        evaluation: What all models share.
        scored: Its test patients.
        scores: Its scores.
        table: Its predictions with all seeds.
    """
    settings, horizons = evaluation.settings, evaluation.horizons
    return {
        "name": entry.name,
        "label": entry.label,
        "inputs": [each.value for each in seen_by(entry, settings)],
        "family": entry.kind,
        "note": _note(entry, settings.data),
        "scores": [drawn.score.to_json() for drawn in scores.all()],
        "seed_spread": _seed_spread(entry, table, settings.data.unit),
        "brier_curve": brier_curve(scored),
        "calibration": [calibration(scored, horizon) for horizon in horizons],
        "risk_groups": risk_group_curves(scored, settings.evaluation.groups),
        "subgroups": _subgroups(evaluation, scored),
    }


def seen_by(entry: ModelEntry, settings: StudySettings) -> tuple[Modality, ...]:
    """What a model looks at, itself or through the models it is built on; of an image also through its embedding."""
    needed = [settings.model(name) for name in entry.needs]
    seen = {*entry.inputs, *(each for other in needed for each in seen_by(other, settings))}
    if Modality.TABLE in entry.inputs:
        taken, embedded = _taken(entry, settings.data), set(image_columns(settings.data))
        seen |= {Modality.IMAGE} if embedded & set(taken) else set()
        if taken and embedded.issuperset(taken):
            seen -= {Modality.TABLE}
    return tuple(each for each in Modality if each in seen)


def _taken(entry: ModelEntry, data: DataSettings) -> tuple[str, ...]:
    """The covariates that a model takes itself."""
    if Modality.TABLE not in entry.inputs:
        return ()
    return data.covariates if entry.columns is None else chosen(entry.columns, data.covariates)


_POOLED = {
    PoolingKind.MEAN: "mean embedding",
    PoolingKind.ATTENTION: "attention-weighted mean embedding",
    PoolingKind.WORST: "embedding of one, chosen by a learned score,",
}


def _note(entry: ModelEntry, data: DataSettings) -> str:
    notes = []
    embedded = len(set(image_columns(data)) & set(_taken(entry, data)))
    if embedded:
        notes.append(f"sees the image through its embedding, {embedded} columns of the table")
    if len(entry.seeds) > 1:
        notes.append(f"scores are those of seed {entry.seeds[0]}; {len(entry.seeds)} seeds were fitted")
    if entry.columns is not None:
        notes.append(f"takes {', '.join(entry.columns)} of the table")
    if entry.pooling is not PoolingKind.NONE:
        notes.append(f"{_POOLED[entry.pooling]} of a patient's images")
    if Modality.IMAGE in entry.inputs:
        said = entry.fit.augmentation
        changes = {"mirrored": said.flips, "turned by quarters": said.quarter_turns, "shaded": said.gain + said.shift}
        if said.active:
            notes.append(f"training images {', '.join(name for name, done in changes.items() if done)} at random")
    if entry.tune is not None:
        score = "highest mean C" if entry.tune.rules.score is TuneScore.CONCORDANCE else "lowest mean loss"
        notes.append(
            f"settings chosen in each fold among {len(entry.tune.candidates)} candidates by inner "
            f"{entry.tune.rules.folds}-fold cross-validation ({score})"
        )
    if isinstance(entry.settings, LateFusionModel):
        notes.append(f"a Cox model on the risks of {', '.join(entry.needs)}, its weights learnt on cross-fitted risks")
    if isinstance(entry.settings, DownstreamModel):
        notes.append(f"fitted on the embedding of {entry.settings.embedding}")
    return "; ".join(notes)


def _seed_spread(entry: ModelEntry, table: pd.DataFrame, unit: str) -> dict[str, Any] | None:
    seeds = [seed for seed in entry.seeds if seed in set(table["seed"].unique())]
    if len(seeds) < 2:
        return None
    nobody = np.empty((0, 0))
    found: dict[str, list[float]] = {}
    for seed in seeds:
        scores = model_scores(scored_patients(one_seed(table, seed), unit), (), nobody)
        for name in COMPARED:
            found.setdefault(name, []).append(scores.by_name[name].score.value)
    return {
        name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "n": len(values)}
        for name, values in found.items()
    }


def one_seed(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Predictions with one seed; with the first, where the model has no such seed."""
    found = table["seed"].unique()
    return table.loc[table["seed"] == (seed if seed in found else found[0])]


def _subgroups(evaluation: Evaluation, scored: Scored) -> list[dict[str, Any]]:
    if evaluation.labels is None:
        return []
    rows: list[dict[str, Any]] = []
    draws = evaluation.draws
    for variable in evaluation.settings.evaluation.subgroups:
        values = levels_of(column_of(evaluation.labels, variable).reindex(scored.patient))
        for level in sorted(set(values.dropna())):
            chosen = np.flatnonzero((values == level).to_numpy())
            part = scored[chosen]
            drawn = within_fold_concordance(part, draws[:, chosen] if len(draws) else draws)
            counts = {"n": len(np.unique(part.patient)), "n_events": part.outcome.n_events}
            rows.append({"variable": variable, "level": str(level), **counts, "score": drawn.score.to_json()})
    return rows


def levels_of(values: pd.Series) -> pd.Series:
    """Few values are levels as they are; many numbers are cut at their median."""
    if values.nunique() <= _MOST_LEVELS or not pd.api.types.is_numeric_dtype(values):
        return values.map(
            lambda value: value if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)
        )
    middle = float(values.median())
    named = np.where(values <= middle, f"up to {middle:.4g}", f"above {middle:.4g}")
    return pd.Series(named, index=values.index).where(values.notna())
