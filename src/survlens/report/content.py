"""Reads a run folder into the values that a report shows; never runs a model.

`metrics.json` must be there. Everything else may be missing: its section is then left out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from survlens.core.errors import CorruptFileError, DataError
from survlens.report.choice_reader import read_choices
from survlens.report.explanation_reader import read_explanation
from survlens.report.json_node import JsonNode
from survlens.report.metrics_reader import read_metrics
from survlens.report.over_time_reader import read_over_time
from survlens.report.over_time_records import ExplanationOverTime
from survlens.report.portrait_reader import read_portraits
from survlens.report.records import (
    CohortFacts,
    Covariate,
    EmbeddingPoints,
    Explanation,
    Finding,
    FlowStep,
    History,
    Metrics,
    RunContent,
)

_PARTS = ("test", "validation", "train")
_HASHED = ("metrics.json", "cohort.json", "audit.json", "resolved.json", "study.toml")


def read_content(run_folder: Path) -> RunContent:
    """Reads everything that the report of a run shows.

    Args:
        run_folder: Folder written by a study.

    Raises:
        DataError: If the folder or its `metrics.json` is missing.
        CorruptFileError: If a file cannot be read, or lacks a key that it must have.
    """
    if not run_folder.is_dir():
        raise DataError(f"`run_folder` must be a folder; got {run_folder}. Run `survlens run` first.")
    metrics = read_metrics(run_folder / "metrics.json")
    labels = _labels(run_folder, metrics)
    over_time, unfinished = _over_time(run_folder, metrics, labels)
    return RunContent(
        metrics=metrics,
        cohort=_cohort(run_folder / "cohort.json"),
        findings=_findings(run_folder / "audit.json"),
        explanations=_explanations(run_folder, metrics, labels),
        embeddings=_embeddings(run_folder, labels),
        histories=_histories(run_folder, metrics, labels),
        choices=read_choices(run_folder, labels),
        environment=_environment(run_folder / "environment.json"),
        hashes=_hashes(run_folder),
        split=_split_kind(run_folder / "resolved.json"),
        over_time=over_time,
        unfinished=unfinished,
        portraits=read_portraits(run_folder),
    )


def _cohort(path: Path) -> CohortFacts | None:
    if not path.is_file():
        return None
    top = JsonNode.read(path, remedy="Run `survlens run` again.")
    return CohortFacts(
        flow=tuple(
            FlowStep(n.text("step"), n.whole("instances"), n.whole("patients"), n.whole("events"))
            for n in top.each("flow")
        ),
        covariates=tuple(_covariate(node) for node in top.each("covariates")),
        follow_up=_follow_up(top.get("follow_up")),
        events=top.whole("events"),
        unit=top.text("unit", ""),
    )


def _follow_up(node: JsonNode | None) -> tuple[float, float | None, float | None] | None:
    median = None if node is None else node.number("median")
    return None if node is None or median is None else (median, node.number("lower"), node.number("upper"))


def _covariate(node: JsonNode) -> Covariate:
    parts = node.get("by_part")
    by_part = {} if parts is None else {key: _plain(value.value) for key, value in parts.items()}
    summary = node.get("summary")
    return Covariate(
        name=node.text("name"),
        kind=node.text("kind", ""),
        n=node.count("n"),
        missing=node.count("missing"),
        summary="" if summary is None else _plain(summary.value),
        by_part=by_part,
    )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(member)}" for key, member in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _findings(path: Path) -> tuple[Finding, ...] | None:
    if not path.is_file():
        return None
    return tuple(_finding(node) for node in JsonNode.read(path, remedy="Run `survlens check` again.").each("findings"))


def _finding(node: JsonNode) -> Finding:
    rows = node.get("rows")
    listed = 0 if rows is None else rows.value
    count = len(listed) if isinstance(listed, list) else int(listed) if isinstance(listed, int) else 0
    return Finding(node.text("code"), node.text("severity"), node.text("message"), count, node.text("column", ""))


def _folder_name(name: str) -> str | None:
    """The name, if it is safe as one path component."""
    return name if name not in ("", ".", "..") and Path(name).name == name and "\\" not in name else None


def _labels(run_folder: Path, metrics: Metrics) -> dict[str, str]:
    """Name and label of every model in the order of the study, also of those that were not scored."""
    labels: dict[str, str] = {}
    path = run_folder / "resolved.json"
    if path.is_file():
        for node in JsonNode.read(path, remedy="Run the study again.").each("model"):
            labels[node.text("name")] = node.text("label", node.text("name"))
    return labels | {model.name: model.label for model in metrics.models}


def _split_kind(path: Path) -> str:
    split = JsonNode.read(path, remedy="Run the study again.").get("split") if path.is_file() else None
    return "" if split is None else split.text("kind", "")


def _primary_first(labels: dict[str, str], metrics: Metrics) -> list[str]:
    return sorted(labels, key=lambda name: name != metrics.primary)


def _explanations(run_folder: Path, metrics: Metrics, labels: dict[str, str]) -> tuple[Explanation, ...]:
    found = []
    for model in _primary_first(labels, metrics):
        name = _folder_name(model)
        folder = run_folder / "explanations" / (name or "")
        if name is not None and (folder / "dimensions.json").is_file():
            found.append(read_explanation(folder, labels[model]))
    return tuple(found)


def _over_time(
    run_folder: Path, metrics: Metrics, labels: dict[str, str]
) -> tuple[tuple[ExplanationOverTime, ...], tuple[str, ...]]:
    found: list[ExplanationOverTime] = []
    unfinished: list[str] = []
    for model in _primary_first(labels, metrics):
        if (name := _folder_name(model)) is not None:
            finished, begun = read_over_time(run_folder / "explanations" / name / "over_time", labels[model])
            found += finished
            unfinished += [f"{labels[model]}, {each}" for each in begun]
    return tuple(found), tuple(unfinished)


def _embeddings(run_folder: Path, labels: dict[str, str]) -> tuple[EmbeddingPoints, ...]:
    paths = {path.stem: path for path in sorted((run_folder / "embeddings").glob("*.parquet"))}
    ordered = [name for name in labels if name in paths] + [name for name in paths if name not in labels]
    read = (_embedding(paths[name], labels.get(name, name)) for name in ordered)
    return tuple(points for points in read if points is not None)


def _embedding(path: Path, label: str) -> EmbeddingPoints | None:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as err:
        raise CorruptFileError(
            f"`{path.name}` must be a parquet table; got an error: {err}. Run the study again."
        ) from err
    missing = {"time", "event", "pc1", "pc2"} - set(frame.columns)
    if missing:
        raise CorruptFileError(
            f"`{path.name}` must hold the columns time, event, pc1, pc2; got none named {', '.join(sorted(missing))}. "
            "Run the study again."
        )
    keep = np.ones(len(frame), dtype=bool)
    for column in ("fold", "seed"):
        if column in frame.columns and len(frame):
            keep &= frame[column].to_numpy() == frame[column].min()
    of_fit = keep.copy()
    marks = frame["part"].to_numpy() if "part" in frame.columns else np.full(len(frame), "")
    part = next((p for p in _PARTS if bool((keep & (marks == p)).any())), "")
    columns = {key: _column(frame, key) for key in ("time", "event", "pc1", "pc2")}
    keep &= (marks == part) if part else True
    keep &= np.logical_and.reduce([np.isfinite(values) for values in columns.values()])
    truth = _column(frame, "true_log_hazard")[keep] if "true_log_hazard" in frame.columns else None
    if not keep.any():
        return None
    time, event, pc1, pc2 = (columns[key][keep] for key in ("time", "event", "pc1", "pc2"))
    explained = _explained(frame.loc[of_fit & (marks == "train")])
    return EmbeddingPoints(path.stem, label, part, time, event > 0, pc1, pc2, truth, explained)


def _explained(training: pd.DataFrame) -> tuple[float, ...]:
    """Share of the variance of the training embeddings along PC 1 and PC 2; empty where they were not kept.

    The components are a rotation of the embedding, so the variances of its coordinates have the same sum.
    """
    coordinates = [name for name in training.columns if name.startswith("z") and name[1:].isdigit()]
    if len(training) < 2 or not coordinates:
        return ()
    total = float(np.var(np.column_stack([_column(training, name) for name in coordinates]), axis=0).sum())
    if not total > 0:
        return ()
    return tuple(float(np.var(_column(training, name))) / total for name in ("pc1", "pc2"))


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as float64; NaN where the frame lacks it or a value is not a number."""
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    return np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype=np.float64)


def _histories(run_folder: Path, metrics: Metrics, labels: dict[str, str]) -> tuple[History, ...]:
    found = []
    for model in _primary_first(labels, metrics):
        name = _folder_name(model)
        path = run_folder / "models" / (name or "") / "history.csv"
        if name is None or not path.is_file():
            continue
        try:
            frame = pd.read_csv(path)
        except (OSError, ValueError) as err:
            raise CorruptFileError(f"`models/{name}/history.csv` must be a csv table; got an error: {err}.") from err
        if {"epoch", "train_total"} <= set(frame.columns) and len(frame):
            losses = (_column(frame, key) for key in ("epoch", "train_total", "validation_total"))
            found.append(History(model, labels[model], *losses))
    return tuple(found)


def _environment(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    facts: dict[str, str] = {}
    for key, node in JsonNode.read(path, remedy="Run `survlens run` again.").items():
        value = node.value
        if isinstance(value, dict):
            facts |= {str(name): _plain(member) for name, member in value.items() if str(name) not in facts}
        elif isinstance(value, list):
            facts[key] = " ".join(map(str, value))
        elif value is not None:
            facts[key] = str(value)
    return facts


def _hashes(run_folder: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    splits = run_folder / "splits.json"
    if splits.is_file():
        hashes["patients in each part (splits.json)"] = JsonNode.read(splits, remedy="Run the study again.").text(
            "hash", ""
        )
    for name in _HASHED:
        if (run_folder / name).is_file():
            hashes[f"{name} (sha256)"] = hashlib.sha256((run_folder / name).read_bytes()).hexdigest()
    return {key: value for key, value in hashes.items() if value}
