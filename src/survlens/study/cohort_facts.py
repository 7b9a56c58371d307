"""The table about the cohort that opens every report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from survlens.data.cohort import Cohort
from survlens.data.description import covariate_summary, follow_up
from survlens.data.splits import Splits


def cohort_facts(cohort: Cohort, splits: Splits, flow: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Counts, patient flow, covariate table (per patient) and follow-up.

    Args:
        cohort: The rows that are used.
        splits: The parts; where there are several splits, covariates are not told apart by part.
        flow: Steps from the table to the cohort, as `survlens.data.description.flow` gives them.
    """
    parts = splits[0].parts() if len(splits) == 1 else {}
    steps = list(flow) or [_step("used", cohort, np.arange(len(cohort)))]
    if parts:
        names = {"train": "training", "validation": "validation (tells when to stop)", "test": "test (scored)"}
        steps += [_step(names[name], cohort, rows) for name, rows in parts.items()]
    else:
        tested = np.unique(np.concatenate([split.test for split in splits]))
        steps.append(_step(f"tested, over {len(splits)} splits", cohort, tested))
    outcome = cohort.outcome[cohort.per_patient()]
    return {
        "flow": steps,
        "covariates": [
            entry | {"by_part": entry["by_part"] or None} for entry in covariate_summary(cohort, parts=parts)
        ],
        "follow_up": follow_up(outcome) | {"unit": outcome.unit},
        "events": outcome.n_events,
        "unit": outcome.unit,
    }


def _step(step: str, cohort: Cohort, rows: np.ndarray) -> dict[str, Any]:
    first = np.unique(cohort.patient[rows], return_index=True)[1]
    events = cohort.outcome[rows[first]].n_events
    return {"step": step, "instances": len(rows), "patients": len(first), "events": events}
