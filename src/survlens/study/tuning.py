"""Nested cross-validation: chooses the settings of a model inside the training part of one split.

The inner folds are made of the rows that may be learnt from, and their benches hold no other row: nothing of the test
rows can reach a choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from survlens.artifacts.run_folder import RunFolder, read_json, write_json, write_table
from survlens.core.errors import CorruptFileError, FitError
from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.concordance import concordance_index
from survlens.explain.latent import per_patient
from survlens.study.bench import Bench, fitted_rows
from survlens.study.estimators import is_classical
from survlens.study.fitting import fitted_classical, fitted_network, network_risk, table_frame
from survlens.study.model_rows import asked_rows
from survlens.study.model_settings import ModelEntry
from survlens.study.networks import objective
from survlens.study.tune_settings import Candidate, TunePlan, TuneScore
from survlens.study.unit import Count, Unit
from survlens.training.objectives import TrainingProgress

_COLUMNS = ["settings", "inner_fold", "score", "value", "epochs", "problem"]


def tuned(unit: Unit, bench: Bench, run: RunFolder, *, count: Count) -> ModelEntry:
    """The model of `unit` with the settings that did best in the inner folds of its split; itself if nothing is tuned.

    Every inner result is written to tuning.csv as soon as it is there, and one that stands there is not computed again.
    All seeds of a model take the choice that was made with its first seed.

    Args:
        unit: The fit that needs settings.
        bench: Its split.
        run: Folder of the run.
        count: Told of every inner fit.

    Raises:
        FitError: If no candidate could be fitted and scored in all inner folds.
    """
    plan = unit.entry.tune
    if plan is None:
        return unit.entry
    home = run.model(unit.entry.name) / f"fold{unit.fold}"
    results = _Results.read(home / "tuning.csv", plan)
    _run_missing(unit, bench, plan, results, count)
    chosen, means = _best(plan, results)
    write_json(home / "chosen.json", _choice(unit, plan, chosen, means, results))
    return unit.entry.with_candidate(chosen)


def chosen_entry(entry: ModelEntry, fold: int, run: RunFolder) -> ModelEntry:
    """A model with the settings that were chosen for it in a split; itself if nothing is tuned."""
    if entry.tune is None:
        return entry
    path = run.model(entry.name) / f"fold{fold}" / "chosen.json"
    values = read_json(path)["chosen"] if path.exists() else None
    for candidate in entry.tune.candidates:
        if dict(candidate.values) == values:
            return entry.with_candidate(candidate)
    raise CorruptFileError(f"`{path}` must name a candidate of [model.tune]; got {values}. Run the study again.")


def _run_missing(unit: Unit, bench: Bench, plan: TunePlan, results: _Results, count: Count) -> None:
    missing = results.missing(plan)
    if not missing:
        return
    rules, seed = plan.rules, unit.entry.seeds[0]
    total = len(plan.candidates) * rules.folds
    with count(f"{unit.entry.name}, fold {unit.fold}: tuning", total) as on_fit:
        for inner_fold, inner in enumerate(bench.inner(rules.folds, seed), start=1):
            for candidate in plan.candidates:
                if (candidate.key, inner_fold) in missing:
                    entry = unit.entry.with_candidate(candidate)
                    tried = _try(entry, seed, inner, rules.score)
                    results.add(candidate, inner_fold, rules.score, tried)
                    done = total - len(results.missing(plan))
                    on_fit(done, f"{rules.score.value} {tried.value:.3f} with {candidate.key}, inner fold {inner_fold}")


@dataclass(frozen=True, slots=True)
class _Tried:
    value: float
    epochs: int | None = None
    problem: str = ""


def _try(entry: ModelEntry, seed: int, bench: Bench, score: TuneScore) -> _Tried:
    """Fits a candidate on the training part of an inner split and scores it on the held-out patients."""
    try:
        if is_classical(entry):
            frame = table_frame(bench, entry)
            model = fitted_classical(entry, seed, bench, frame, fitted_rows(bench.split))
            return _Tried(_concordance(model.predict(frame.loc[bench.parts == "test"]), bench))
        model, history = fitted_network(entry, seed, bench)
    except FitError as error:
        # A step that is too large, say: the candidate is out, the others are not.
        return _Tried(float("nan"), problem=" ".join(str(error).split()))
    if score is TuneScore.LOSS:
        return _Tried(_loss(entry, model, bench), history.best_epoch)
    return _Tried(_concordance(network_risk(model, bench, entry, bench.split.test), bench), history.best_epoch)


def _concordance(risk: np.ndarray, bench: Bench) -> float:
    """Harrell's C of the held-out patients, each with the mean risk of their rows; NaN where there is no pair."""
    rows = bench.split.test
    means, outcome = per_patient(np.asarray(risk)[:, None], bench.cohort.outcome[rows], bench.cohort.patient[rows])
    from_origin = outcome.entries().numpy() == 0
    time, event = outcome.numpy()
    if from_origin.sum() < 2:
        return float("nan")
    plain = SurvivalOutcome.from_arrays(time[from_origin], event[from_origin], outcome.unit)
    return concordance_index(means[from_origin, 0], plain).value


@torch.no_grad()
def _loss(entry: ModelEntry, model: Any, bench: Bench) -> float:
    """What training minimises, on all held-out rows together."""
    source = asked_rows(entry, bench.taking(entry.columns), bench.split.test).source
    inputs, outcome = source.batch(torch.arange(len(source)))
    progress = TrainingProgress(1, 1, 1, 1, torch.Generator().manual_seed(0))
    return float(objective(entry)(model, inputs, outcome, progress).total)


@dataclass(slots=True)
class _Results:
    """Every inner result of one model and split, kept in a file as it grows."""

    path: Path
    rows: list[dict[str, Any]]

    @staticmethod
    def read(path: Path, plan: TunePlan) -> _Results:
        """The results that stand in the file, if it is of the same search."""
        if not path.exists():
            return _Results(path, [])
        try:
            # The shortest text of a float is read back as that float only so.
            table = pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values={"value": [""]})  # type: ignore[call-overload]
            rows = table[_COLUMNS].to_dict("records")
        except (OSError, ValueError, KeyError) as error:
            raise CorruptFileError(
                f"`{path}` must be a whole table of inner results; got a fault ({error}). Remove it to tune anew."
            ) from error
        keys = {candidate.key for candidate in plan.candidates}
        mine = [row for row in rows if row["settings"] in keys and row["score"] == plan.rules.score.value]
        return _Results(path, [row for row in mine if row["inner_fold"] <= plan.rules.folds])

    def add(self, candidate: Candidate, inner_fold: int, score: TuneScore, tried: _Tried) -> None:
        """Adds one result and writes the file."""
        epochs = "" if tried.epochs is None else tried.epochs
        values = (candidate.key, inner_fold, score.value, tried.value, epochs, tried.problem)
        self.rows.append(dict(zip(_COLUMNS, values, strict=True)))
        write_table(self.path, pd.DataFrame(self.rows, columns=pd.Index(_COLUMNS)))

    def missing(self, plan: TunePlan) -> set[tuple[str, int]]:
        """Candidates and inner folds without a result."""
        wanted = {(each.key, fold) for each in plan.candidates for fold in range(1, plan.rules.folds + 1)}
        return wanted - {(row["settings"], row["inner_fold"]) for row in self.rows}

    def values(self, candidate: Candidate) -> np.ndarray:
        """Results of a candidate in the order of the inner folds."""
        mine = [row for row in self.rows if row["settings"] == candidate.key]
        return np.array([row["value"] for row in sorted(mine, key=lambda row: row["inner_fold"])], dtype=np.float64)


def _best(plan: TunePlan, results: _Results) -> tuple[Candidate, list[float]]:
    """The candidate with the best mean, the first of equally good ones, and the means of all.

    Inner folds in which no candidate has a score (no pair to compare) are left out for all; a candidate without one
    where others have one is out.
    """
    values = np.stack([results.values(candidate) for candidate in plan.candidates])
    scored = np.isfinite(values).any(0)
    if not scored.any() or not np.isfinite(values[:, scored]).all(1).any():
        problems = sorted({row["problem"] for row in results.rows if row["problem"]})
        cause = problems[0] if problems else "the held-out patients of the inner folds have no pair to compare."
        raise FitError(f"[model.tune] must hold a candidate that can be scored in every inner fold; none was: {cause}")
    means = values[:, scored].mean(1)
    worth = means if plan.rules.score is TuneScore.CONCORDANCE else -means
    at = int(np.argmax(np.where(np.isfinite(worth), worth, -np.inf)))
    return plan.candidates[at], means.tolist()


def _choice(unit: Unit, plan: TunePlan, chosen: Candidate, means: list[float], results: _Results) -> dict[str, Any]:
    at = plan.candidates.index(chosen)
    return {
        "model": unit.entry.name,
        "fold": unit.fold,
        "score": plan.rules.score.value,
        "inner_folds": plan.rules.folds,
        "candidates": len(plan.candidates),
        "chosen": dict(chosen.values),
        "value": means[at],
        "by_inner_fold": results.values(chosen).tolist(),
        "tied": int(np.sum(np.asarray(means) == means[at])) - 1,
    }
