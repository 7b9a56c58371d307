"""Describing a cohort: covariate table, patient flow, follow-up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from survlens.core.nonparametric import reverse_kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.data.cohort import Cohort
from survlens.data.columns import as_text, column_of, parse_events
from survlens.data.schema import CohortSchema
from survlens.data.table import Covariate, CovariateKind


def follow_up(outcome: SurvivalOutcome) -> dict[str, float | None]:
    """Median follow-up with its 95 % limits, by reverse Kaplan-Meier; None where it is not reached.

    Args:
        outcome: One row per patient.
    """
    curve = reverse_kaplan_meier(outcome)
    values = (curve.quantile(0.5), *curve.quantile_limits(0.5))
    return {
        name: float(value) if math.isfinite(value) else None
        for name, value in zip(("median", "lower", "upper"), values, strict=True)
    }


def covariate_summary(cohort: Cohort, *, parts: Mapping[str, np.ndarray] | None = None) -> list[dict[str, Any]]:
    """One entry per covariate, over patients (the first row of each).

    Args:
        cohort: The cohort.
        parts: Rows of the parts of a split, to summarise each beside the whole (`split.parts()`).

    Returns:
        Dictionaries with `name`, `kind`, `n`, `missing`, `summary` (median [quartiles], or counts and percentages), for
        numbers `median`, `lower_quartile`, `upper_quartile`, for the others `levels` (counts), and `by_part`.
    """
    whole = cohort[cohort.per_patient()]
    subsets = {name: cohort[rows] for name, rows in (parts or {}).items()}
    subsets = {name: part[part.per_patient()] for name, part in subsets.items()}
    entries = []
    for covariate in cohort.covariates:
        by_part = {name: _described(covariate, part.table)["summary"] for name, part in subsets.items()}
        entries.append(_described(covariate, whole.table) | {"by_part": by_part})
    return entries


def _described(covariate: Covariate, table: pd.DataFrame) -> dict[str, Any]:
    column = column_of(table, covariate.name)
    known = column.dropna()
    entry = {
        "name": covariate.name,
        "kind": covariate.kind.value,
        "n": len(column),
        "missing": len(column) - len(known),
    }
    if covariate.kind is not CovariateKind.NUMERIC:
        counts = Counter(known)
        ordered = {level: counts[level] for level in covariate.levels or ()}
        return entry | {"levels": ordered, "summary": _counted(ordered, len(known))}
    numbers = known.to_numpy(dtype=np.float64)
    if not numbers.size:
        return entry | {"summary": "all missing"}
    lower, median, upper = (float(value) for value in np.quantile(numbers, [0.25, 0.5, 0.75]))
    entry |= {"median": median, "lower_quartile": lower, "upper_quartile": upper}
    if set(numbers) <= {0.0, 1.0}:
        ones = int(numbers.sum())
        return entry | {
            "levels": {"0": len(numbers) - ones, "1": ones},
            "summary": f"{ones} ({100 * ones / len(numbers):.0f} %)",
        }
    return entry | {"summary": f"{median:.3g} [{lower:.3g} to {upper:.3g}]"}


def _counted(counts: Mapping[str, int], n: int) -> str:
    return "; ".join(f"{level} {count} ({100 * count / max(n, 1):.0f} %)" for level, count in counts.items())


def flow(
    frame: pd.DataFrame, schema: CohortSchema, cohort: Cohort, *, parts: Mapping[str, np.ndarray] | None = None
) -> list[dict[str, Any]]:
    """Instances, patients and events of the table, of what was dropped, of what was kept, and of each part.

    Args:
        frame: The table that was read.
        schema: What its columns are.
        cohort: What was made of it.
        parts: Rows of the parts of a split (`split.parts()`).
    """
    event = parse_events(column_of(frame, schema.event), schema.event_values) > 0
    owner = np.arange(len(frame)) if schema.patient is None else as_text(column_of(frame, schema.patient))
    read = _step("read", owner, event)
    kept = _step("used", cohort.patient, cohort.outcome.numpy()[1] > 0)
    dropped = {name: read[name] - kept[name] for name in ("instances", "patients", "events")}
    dropped["instances"] = max(dropped["instances"], dropped["patients"])  # slices of a scan are rows of their own
    steps = [read, *([{"step": "left out (time 0)"} | dropped] if dropped["instances"] else []), kept]
    for name, rows in (parts or {}).items():
        steps.append(_step(name, cohort.patient[rows], cohort.outcome.numpy()[1][rows] > 0))
    return steps


def _step(step: str, patient: np.ndarray, event: np.ndarray) -> dict[str, Any]:
    return {
        "step": step,
        "instances": len(patient),
        "patients": len(set(patient)),
        "events": len(set(patient[event])),
    }
