"""A cohort of drawn portraits as a folder: photographs, clinical table, a study file, and the truth apart from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from survlens.data.simulate.portrait_drawing import draw, landmarks_of
from survlens.data.simulate.portrait_files import cohort_table, photograph_paths, truth_table, write_photograph
from survlens.data.simulate.portraits import portrait_patients
from survlens.study.simulation_record import COLUMNS, FUSION, begin, finish, write_cohort

_PATIENTS_AT_ONCE = 32

_STUDY = (
    """\
# A made-up cohort: drawn faces. Survival depends on illness, which only the photograph shows, on age, which photograph
# and table show, and on stage, which only the table has.
# The truth is in truth.csv and hidden from every model. Change what you like, then: survlens run study.toml

[study]
name = "portraits"
description = "Can a model find in a face what the clinical table lacks?"
seed = {seed}
simulated = true
data_note = "Drawn faces. The log-hazard rises with illness, age and stage; sex, skin tone, hair, glasses, pose and \
background do not matter."

[data]
"""
    + COLUMNS
    + """\
image = "photo"
image_size = {side}
channels = "rgb"
numeric = ["age"]
categorical = ["sex"]
ordered = {{ stage = ["I", "II", "III", "IV"] }}

[split]
kind = "holdout"
test_fraction = 0.3

[[model]]
name = "cnn"
kind = "cox_cnn"
label = "Cox CNN"
encoder = "cnn"
hidden = [16, 32]
seeds = [{seed}]
[model.fit]
epochs = 15
batch = 64
learning_rate = 3e-3

"""
    + FUSION
    + """
[evaluation]
horizons = [6, 12]
bootstrap = 200
subgroups = ["sex", "stage"]
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitPlan:
    """What is simulated.

    Attributes:
        patients: Number of patients, >= 1.
        size: Height and width of the photographs, a power of two from 16 to 256.
        photos_per_patient: Photographs of each patient, >= 1.
        seed: Seed of everything; the same plan writes the same bytes.
    """

    patients: int = 300
    size: int = 64
    photos_per_patient: int = 1
    seed: int = 0


def simulate_portraits(folder: Path, plan: PortraitPlan, on_patient: Callable[[int], object] | None = None) -> bool:
    """Writes the cohort into `folder`, or what of it is missing there, and returns whether there was anything to do.

    Args:
        folder: A new or empty folder, or one that the same plan was begun in.
        plan: What is simulated.
        on_patient: Told after each patient how many are done.

    Raises:
        UsageError: If the folder holds something else.
        InvalidValueError: If a number of the plan lies outside its range.
    """
    photos = plan.photos_per_patient
    factors, stage, outcome = portrait_patients(plan.patients, seed=plan.seed, patients_photos=photos)
    landmarks = landmarks_of(factors, size=plan.size)
    if not begin(folder, asdict(plan), ("photo",)):
        return False
    patient = np.repeat(np.arange(plan.patients, dtype=np.int64), photos)
    paths = [folder / each for each in photograph_paths(patient)]
    for first in range(0, plan.patients, _PATIENTS_AT_ONCE):
        last = min(first + _PATIENTS_AT_ONCE, plan.patients)
        rows = [row for row in range(first * photos, last * photos) if not paths[row].exists()]
        for row, picture in zip(rows, draw(factors.iloc[rows], size=plan.size).pictures, strict=True):
            write_photograph(paths[row], picture)
        for number in range(first, last):
            if on_patient is not None:
                on_patient(number + 1)
    cohort = cohort_table(factors, stage, patient, outcome, landmarks)
    study = _STUDY.format(seed=plan.seed, side=plan.size)
    write_cohort(folder, cohort, truth_table(factors, stage, patient), study)
    finish(folder, asdict(plan))
    return True
