"""What all simulated cohorts write alike: tables, parts of a study file, and the record of the plan behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from survlens.artifacts.atomic import write_text
from survlens.artifacts.run_folder import write_json
from survlens.core.errors import UsageError

RECORD = "simulation.json"

COLUMNS = """\
table = "cohort.csv"
patient = "patient"
time = "time"
event = "event"
unit = "months"
"""
"""First lines of [data] in the study file of every cohort."""

FUSION = """\
[[model]]
name = "fusion"
kind = "late_fusion"
label = "Clinical Cox + CNN"
members = ["cnn", "clinical_cox"]
folds = 2
"""
"""The model of table and image, after a network that is called cnn."""


def begin(folder: Path, plan: Mapping[str, Any], columns: tuple[str, ...]) -> bool:
    """Notes the plan in a new folder, and returns whether there is anything to do.

    Args:
        folder: A new or empty folder, or one that the same plan was begun in.
        plan: What is simulated.
        columns: Columns of cohort.csv with paths of files, all of which a whole cohort has.

    Raises:
        UsageError: If the folder holds anything else.
    """
    if _begun(folder, plan):
        return not _complete(folder, columns)
    write_json(folder / RECORD, {"simulated": True, "plan": dict(plan), "complete": False})
    return True


def finish(folder: Path, plan: Mapping[str, Any]) -> None:
    """Notes that the cohort is whole."""
    write_json(folder / RECORD, {"simulated": True, "plan": dict(plan), "complete": True})


def write_cohort(folder: Path, cohort: pd.DataFrame, truth: pd.DataFrame, study: str) -> None:
    """Writes cohort.csv and truth.csv, and study.toml where there is none yet.

    Args:
        folder: Folder of the cohort.
        cohort: What a clinic would know.
        truth: What no model may see.
        study: Text of the study file.
    """
    write_csv(folder / "truth.csv", truth)
    write_csv(folder / "cohort.csv", cohort)
    if not (folder / "study.toml").exists():
        write_text(folder / "study.toml", study)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Writes a table so that equal tables are equal bytes on every system."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def _begun(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether the folder holds a simulation by this plan.

    Raises:
        UsageError: If it holds anything else.
    """
    record = folder / RECORD
    if not record.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} must be a new or empty folder; it holds other files. Choose another folder.")
        return False
    stands = _plan_in(record)
    if stands is None:
        raise UsageError(f"{record} must be the record of a simulation; it cannot be read. Choose another folder.")
    differing = [key for key, value in plan.items() if stands.get(key) != value]
    differing += [key for key in stands if key not in plan]
    if differing:
        said = ", ".join(f"{key} {stands.get(key)} there and {plan.get(key)} now" for key in differing)
        raise UsageError(f"{folder} must hold the same simulation; it holds another: {said}. Choose another folder.")
    return True


def _plan_in(record: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    plan = found.get("plan") if isinstance(found, dict) else None
    return plan if isinstance(plan, dict) else None


def _complete(folder: Path, columns: tuple[str, ...]) -> bool:
    """Whether the simulation went through and every file of its table is still there."""
    if not json.loads((folder / RECORD).read_text(encoding="utf-8")).get("complete"):
        return False
    tables = [folder / "cohort.csv", folder / "truth.csv"]
    if not all(each.is_file() for each in tables):
        return False
    cohort = pd.read_csv(tables[0])
    return all((folder / path).exists() for column in columns for path in cohort[column])
