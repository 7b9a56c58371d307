"""Portraits: drawn faces, and survival with a known function of illness, age and stage."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.simulate.hazards import CensoringTarget, exponential_outcome
from survlens.data.simulate.portrait_drawing import draw
from survlens.data.simulate.portrait_factors import (
    AGE_CENTRE,
    AGE_ILLNESS_CORRELATION,
    AGE_SPREAD,
    draw_factors,
)

STAGES = ("I", "II", "III", "IV")
"""Stages of disease, equally frequent; a clinical covariate that no photograph shows."""
LOG_HAZARD_PER_ILLNESS = 0.9
"""Change of the log-hazard per standard deviation of illness."""
LOG_HAZARD_PER_AGE = 0.5
"""Change of the log-hazard per standard deviation of age."""
LOG_HAZARD_PER_STAGE = 0.7
"""Change of the log-hazard per stage."""
LOG_HAZARD_AT_MEAN = float(np.log(np.log(2) / 24))
"""Log-hazard at illness 0, age 62 and between stages II and III: half of such patients live 24 months."""


class Known(Enum):
    """What one may know of a patient.

    EVERYTHING: illness, age and stage. PHOTOGRAPH: illness and age, which a photograph shows. CLINICAL: age and stage,
    which the clinical table has.
    """

    EVERYTHING = "everything"
    PHOTOGRAPH = "photograph"
    CLINICAL = "clinical"


@dataclass(frozen=True, slots=True, eq=False)
class PortraitCohort:
    """Drawn photographs with what they show, the simulated outcome, and the truth behind it; a row per photograph.

    Attributes:
        pictures: In [0, 1].
        factors: What each photograph shows, the columns of `portrait_factors.FACTORS`. Illness is to be found in the
            photograph only; age and sex (1 is male) are clinical columns too.
        stage: 0 to 3, the place in `STAGES`: a clinical column that no photograph shows.
        patient: Number of the patient, from 0; rows of one patient follow one another.
        outcome: Simulated survival in months; photographs of one patient have the same.
        face: Whether a pixel is mostly skin of the face, eyes and mouth included, hair not.
        background: Whether nothing of the person touches a pixel.
        landmarks: (x, y) of the eyes and the corners of the mouth in pixels, in the order of
            `portrait_drawing.LANDMARKS`.
    """

    pictures: Float32[Tensor, "instance 3 height width"]
    factors: pd.DataFrame
    stage: Int64[np.ndarray, " instance"]
    patient: Int64[np.ndarray, " instance"]
    outcome: SurvivalOutcome
    face: Bool[Tensor, "instance height width"]
    background: Bool[Tensor, "instance height width"]
    landmarks: Float64[np.ndarray, "instance landmark 2"]

    def __len__(self) -> int:
        return len(self.patient)

    def __getitem__(self, rows: np.ndarray) -> PortraitCohort:
        index = torch.as_tensor(np.arange(len(self))[rows])
        return PortraitCohort(
            self.pictures[index],
            self.factors.iloc[index.numpy()].reset_index(drop=True),
            self.stage[rows],
            self.patient[rows],
            self.outcome[index],
            self.face[index],
            self.background[index],
            self.landmarks[rows],
        )

    @property
    def log_hazard(self) -> Float64[np.ndarray, " instance"]:
        """True log-hazard per month of each row."""
        return portrait_log_hazard(self.factors, self.stage)

    @property
    def first_photographs(self) -> Int64[np.ndarray, " patient"]:
        """Rows of the first photograph of each patient."""
        return np.unique(self.patient, return_index=True)[1].astype(np.int64)

    @property
    def clinical(self) -> pd.DataFrame:
        """What the clinical table has: age in years, sex (1 is male) and stage (1 to 4)."""
        return pd.DataFrame({"age": self.factors["age"], "sex": self.factors["sex"], "stage": self.stage + 1.0})

    def expected(self, known: Known) -> Float64[np.ndarray, " instance"]:
        """Mean of the true log-hazard given what is known: what no predictor that knows the same can beat in the mean.

        See `expected_log_hazard`.
        """
        return expected_log_hazard(self.factors, self.stage, known)


def portrait_cohort(
    instances: int, *, size: int = 32, seed: int = 0, patients_photos: int = 1, censored: float = 0.57
) -> PortraitCohort:
    """Draws patients, their photographs and survival that depends on illness, age and stage, and on nothing else.

    With i the illness, a = (age - 62) / 12 and s the stage from 0 to 3, the hazard is constant in time,
    h = (ln 2 / 24) exp(0.9 i + 0.5 a + 0.7 (s - 1.5)) per month, under independent exponential censoring. The
    photograph shows i and a, the clinical table a and s. Illness and age have correlation 0.4; stage is independent.

    Args:
        instances: Number of patients, >= 1.
        size: Height and width of the pictures, a power of two from 16 to 256.
        seed: Seed of all draws. A longer cohort begins with the faces of the shorter one.
        patients_photos: Photographs of each patient, >= 1; pose, light and background change, the patient does not.
        censored: Share of censored patients, in [0, 1).

    Raises:
        InvalidValueError: If an argument lies outside its range.
    """
    factors, stage, outcome = portrait_patients(
        instances, seed=seed, patients_photos=patients_photos, censored=censored
    )
    drawing = draw(factors, size=size)
    patient = np.repeat(np.arange(instances, dtype=np.int64), patients_photos)
    return PortraitCohort(
        pictures=drawing.pictures,
        factors=factors,
        stage=stage,
        patient=patient,
        outcome=outcome,
        face=drawing.face,
        background=drawing.background,
        landmarks=drawing.landmarks,
    )


def portrait_patients(
    instances: int, *, seed: int = 0, patients_photos: int = 1, censored: float = 0.57
) -> tuple[pd.DataFrame, Int64[np.ndarray, " instance"], SurvivalOutcome]:
    """Factors, stages and outcome of `portrait_cohort` without the pictures, for cohorts that do not fit in memory.

    Args:
        instances: Number of patients, >= 1.
        seed: Seed of all draws.
        patients_photos: Photographs of each patient, >= 1.
        censored: Share of censored patients, in [0, 1).

    Raises:
        InvalidValueError: If an argument lies outside its range.
    """
    target = CensoringTarget(censored)
    factors = draw_factors(instances, photos=patients_photos, seed=seed)
    stages, times = (np.random.default_rng(each) for each in np.random.SeedSequence([seed, 2]).spawn(2))
    stage = stages.integers(0, len(STAGES), instances)
    own = portrait_log_hazard(factors.iloc[::patients_photos], stage)
    outcome = exponential_outcome(own, target, times, unit="months")
    rows = np.repeat(np.arange(instances), patients_photos)
    return factors, stage[rows].astype(np.int64), outcome[torch.from_numpy(rows)]


def portrait_log_hazard(
    factors: pd.DataFrame, stage: Int64[np.ndarray, " instance"]
) -> Float64[np.ndarray, " instance"]:
    """The true log-hazard per month of `portrait_cohort`.

    Args:
        factors: With the columns illness and age.
        stage: 0 to 3 for stages I to IV.
    """
    return expected_log_hazard(factors, stage, Known.EVERYTHING)


def expected_log_hazard(
    factors: pd.DataFrame, stage: Int64[np.ndarray, " instance"], known: Known
) -> Float64[np.ndarray, " instance"]:
    """Mean of the true log-hazard given what is known.

    What a photograph lacks, the stage, is independent of it and enters by its mean. What the clinical table lacks, the
    illness, has mean 0.4 a given the standardised age a.

    Args:
        factors: With the columns age and, unless only the table is known, illness.
        stage: 0 to 3 for stages I to IV.
        known: What is known.
    """
    check_choice("known", known, Known)
    if len(factors) != len(stage):
        raise InvalidValueError(f"`factors` and `stage` must be of one length; got {len(factors)} and {len(stage)}.")
    age = (factors["age"].to_numpy(dtype=np.float64) - AGE_CENTRE) / AGE_SPREAD
    hidden = known is Known.CLINICAL
    illness = AGE_ILLNESS_CORRELATION * age if hidden else factors["illness"].to_numpy(dtype=np.float64)
    seen = np.zeros(len(age)) if known is Known.PHOTOGRAPH else stage - (len(STAGES) - 1) / 2
    part = LOG_HAZARD_PER_ILLNESS * illness + LOG_HAZARD_PER_AGE * age + LOG_HAZARD_PER_STAGE * seen
    return LOG_HAZARD_AT_MEAN + part
