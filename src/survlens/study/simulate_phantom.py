"""A cohort of phantoms as a folder: scans, masks, clinical table, a study file, and the truth apart from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from survlens.data.simulate.phantom import (
    LOG_HAZARD_PER_AGE,
    LOG_HAZARD_PER_LOAD,
    LoadEffect,
    drawn_phantoms,
    phantom_covariates,
    phantom_hazard,
    phantom_outcome,
)
from survlens.data.simulate.phantom_files import PhantomFormat, write_phantom_dicom, write_phantom_nifti
from survlens.study.simulation_record import COLUMNS, FUSION, begin, finish, write_cohort, write_csv

TRUTH_TIMES = (6.0, 12.0, 24.0, 36.0, 48.0)
"""Months at which truth.csv has the true survival."""


_STUDY = (
    """\
# A made-up cohort: abdominal scans with liver tumours. Survival depends on tumour load and age, and on nothing else.
# The truth is in truth.csv and hidden from every model. Change what you like, then: survlens run study.toml

[study]
name = "phantoms"
description = "Can a model find in a scan what decides about survival?"
seed = {seed}
simulated = true
data_note = "Drawn scans. The log-hazard rises with the log of tumour load and with age; the liver does not matter."

[data]
"""
    + COLUMNS
    + """\
scan = "scan"
numeric = ["age"]

[data.scans]
window = [-160, 240]
size = [{side}, {side}, {side}]

[split]
kind = "holdout"
test_fraction = 0.3

[[model]]
name = "cnn"
kind = "cox_cnn"
label = "Cox CNN, 3-D"
hidden = [8, 16]
seeds = [{seed}]
[model.fit]
epochs = 20
batch = 16
learning_rate = 3e-3

"""
    + FUSION
    + """
[evaluation]
horizons = [12, 24]
bootstrap = 200
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomPlan:
    """What is simulated.

    Attributes:
        patients: Number of patients, >= 1.
        size: Voxels along each axis, >= 12.
        effect: How the effect of tumour load depends on time.
        kind: Kind of files.
        seed: Seed of everything; the same plan writes the same bytes.
    """

    patients: int = 100
    size: int = 64
    effect: LoadEffect = LoadEffect.CONSTANT
    kind: PhantomFormat = PhantomFormat.NIFTI
    seed: int = 0

    @property
    def record(self) -> dict[str, Any]:
        """The plan as it stands in the record of its folder."""
        return {key: each.value if isinstance(each, Enum) else each for key, each in asdict(self).items()}


def simulate_phantom(folder: Path, plan: PhantomPlan, on_patient: Callable[[int], object] | None = None) -> bool:
    """Writes the cohort into `folder`, or what of it is missing there, and returns whether there was anything to do.

    Args:
        folder: A new or empty folder, or one that the same plan was begun in.
        plan: What is simulated.
        on_patient: Told after each patient how many are done.

    Raises:
        UsageError: If the folder holds something else.
        MissingDependencyError: Without the extra `[imaging]`.
    """
    if not begin(folder, plan.record, ("scan", "mask")):
        return False
    rows, truth, people = [], [], []
    for number, phantom in enumerate(drawn_phantoms(plan.patients, size=plan.size, seed=plan.seed), start=1):
        name = f"P{number:05d}"
        if plan.kind is PhantomFormat.DICOM:
            scan, mask, person = write_phantom_dicom(folder, name, phantom, seed=plan.seed * 1_000_003 + number)
            people.append({"patient": name, **asdict(person)})
        else:
            scan, mask = write_phantom_nifti(folder, name, phantom)
        rows.append({"patient": name, "age": phantom.age, "scan": scan, "mask": mask})
        truth.append({
            "patient": name, "load_ml": phantom.load, "tumours": phantom.tumours, "liver_ml": phantom.liver,
        })  # fmt: skip
        if on_patient is not None:
            on_patient(number)
    _write_tables(folder, plan, pd.DataFrame(rows), pd.DataFrame(truth))
    if people:
        write_csv(folder / "identifiers.csv", pd.DataFrame(people))
    finish(folder, plan.record)
    return True


def _write_tables(folder: Path, plan: PhantomPlan, cohort: pd.DataFrame, truth: pd.DataFrame) -> None:
    load, age = truth["load_ml"].to_numpy(), cohort["age"].to_numpy()
    outcome = phantom_outcome(load, age, effect=plan.effect, seed=plan.seed)
    time, event = outcome.numpy()
    cohort["age"] = age.round(6)
    cohort.insert(1, "time", time.round(6).clip(1e-6))
    cohort.insert(2, "event", event)
    covariates = phantom_covariates(load, age)
    truth["log_hazard"] = covariates @ np.array([LOG_HAZARD_PER_LOAD, LOG_HAZARD_PER_AGE])
    times = torch.tensor(TRUTH_TIMES, dtype=torch.float64)
    survival = phantom_hazard(plan.effect).predict(torch.from_numpy(covariates), times).survival.numpy()
    for column, month in enumerate(TRUTH_TIMES):
        truth[f"survival@{month:g}"] = survival[:, column]
    write_cohort(folder, cohort, truth.round(9), _STUDY.format(seed=plan.seed, side=min(plan.size, 32)))
