"""What a drawn portrait shows: factors of the patient, which all photographs share, and factors of one photograph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np
import pandas as pd

from survlens.core.errors import DataError, InvalidValueError
from survlens.data.columns import column_of

AGE_CENTRE, AGE_SPREAD = 62.0, 12.0
"""Mean and standard deviation of age in years."""
YOUNGEST, OLDEST = 30.0, 94.0
ILLNESS_LIMIT = 2.5
"""Illness is standard normal, cut at this many standard deviations on both sides."""
AGE_ILLNESS_CORRELATION = 0.4
"""Correlation of age and illness before both are cut."""


class FactorScope(Enum):
    """Whether a factor is the patient's, or changes from photograph to photograph."""

    PATIENT = "patient"
    PHOTOGRAPH = "photograph"


class HairStyle(IntEnum):
    """How the hair is worn, as the factor `hair_style` counts it."""

    CROPPED = 0
    SHORT = 1
    BOB = 2
    LONG = 3


@dataclass(frozen=True, slots=True)
class PortraitFactor:
    """One thing that a drawing shows.

    Attributes:
        name: Its column.
        scope: Whose it is.
        low: Least value.
        high: Largest value.
        whole: Whether only whole numbers have a meaning.
    """

    name: str
    scope: FactorScope
    low: float
    high: float
    whole: bool = False


_OF_PATIENT = (
    ("illness", -ILLNESS_LIMIT, ILLNESS_LIMIT, False),
    ("age", YOUNGEST, OLDEST, False),
    ("sex", 0, 1, True),
    ("skin_tone", 0, 1, False),
    ("face_width", -1, 1, False),
    ("hair_style", 0, 3, True),
    ("hair_colour", 0, 1, False),
    ("eye_colour", 0, 1, False),
    ("beard", 0, 1, True),
    ("glasses", 0, 1, True),
    ("texture", 0, 1, False),
)
_OF_PHOTOGRAPH = (
    ("yaw", -1, 1, False),
    ("roll", -15, 15, False),
    ("shift_x", -0.2, 0.2, False),
    ("shift_y", -0.2, 0.2, False),
    ("scale", 0.8, 1.2, False),
    ("light", -1, 1, False),
    ("light_side", -1, 1, False),
    ("hair_light", -1, 1, False),
    ("background_hue", 0, 1, False),
    ("background_light", 0, 1, False),
)
FACTORS = (
    *(PortraitFactor(name, FactorScope.PATIENT, low, high, whole) for name, low, high, whole in _OF_PATIENT),
    *(PortraitFactor(name, FactorScope.PHOTOGRAPH, low, high, whole) for name, low, high, whole in _OF_PHOTOGRAPH),
)
"""Every factor, in the order of the columns.

illness: pallor, rings under the eyes, drooping lids, folds and mouth corners, sunken cheeks. age: in years; grey hair,
a receding hairline, lines on the forehead and beside the eyes, spots, a heavier jaw, thinner lips. sex: 1 is male.
skin_tone: from light to dark. texture: which of all possible patterns of spots and strands. yaw: in units of about 25
degrees. roll: in degrees, clockwise. shift_x and shift_y: in half sides of the picture, to the right and downwards.
"""
FACTOR_NAMES = tuple(each.name for each in FACTORS)


def draw_factors(patients: int, *, photos: int = 1, seed: int = 0) -> pd.DataFrame:
    """Draws the factors of all photographs: a row per photograph, those of one patient one after another.

    Illness and age have correlation 0.4; men have beards and long hair at other rates than women; all else is drawn
    apart from everything, and from the factors that the hazard depends on in particular.

    Args:
        patients: Number of patients, >= 1.
        photos: Photographs of each patient, >= 1.
        seed: Seed of the draws; each patient has draws of its own, so a longer cohort begins with the shorter one.

    Raises:
        InvalidValueError: If an argument lies outside its range.
    """
    if patients < 1 or photos < 1:
        raise InvalidValueError(f"`patients` and `photos` must be >= 1; got {patients} and {photos}.")
    rows = []
    for child in np.random.SeedSequence([seed, 1]).spawn(patients):
        own, of_photos = (np.random.default_rng(each) for each in child.spawn(2))
        patient = _patient(own)
        rows += [patient | _photograph(of_photos) for _ in range(photos)]
    return pd.DataFrame(rows, columns=pd.Index(FACTOR_NAMES)).astype(np.float64)


def checked_factors(factors: pd.DataFrame) -> pd.DataFrame:
    """The factors in the order of `FACTORS`, as float64.

    Raises:
        DataError: If a factor is missing, is not a finite number, or lies outside its range.
    """
    missing = [name for name in FACTOR_NAMES if name not in factors]
    if missing:
        raise DataError(f"`factors` must have the columns {', '.join(FACTOR_NAMES)}; it lacks {', '.join(missing)}.")
    values = factors.loc[:, list(FACTOR_NAMES)].astype(np.float64)
    for factor in FACTORS:
        column = column_of(values, factor.name).to_numpy()
        bad = ~((column >= factor.low) & (column <= factor.high))
        if factor.whole:
            bad |= column != np.rint(column)
        if bad.any():
            rule = "whole numbers" if factor.whole else "numbers"
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"`{factor.name}` must hold {rule} in [{factor.low:g}, {factor.high:g}]; got {column[row]} in row "
                f"{row}. Clip the factors to the range before drawing."
            )
    return values.reset_index(drop=True)


def _patient(rng: np.random.Generator) -> dict[str, float]:
    shared, own = rng.standard_normal(2)
    illness = shared
    age = AGE_ILLNESS_CORRELATION * shared + np.sqrt(1 - AGE_ILLNESS_CORRELATION**2) * own
    male = rng.uniform() < 0.5
    styles = (0.45, 0.45, 0.05, 0.05) if male else (0.05, 0.25, 0.35, 0.35)
    return {
        "illness": float(np.clip(illness, -ILLNESS_LIMIT, ILLNESS_LIMIT)),
        "age": float(np.clip(AGE_CENTRE + AGE_SPREAD * age, YOUNGEST, OLDEST)),
        "sex": float(male),
        "skin_tone": float(rng.uniform()),
        "face_width": float(rng.uniform(-1, 1)),
        "hair_style": float(rng.choice(4, p=styles)),
        "hair_colour": float(rng.uniform()),
        "eye_colour": float(rng.uniform()),
        "beard": float(rng.uniform() < (0.3 if male else 0.0)),
        "glasses": float(rng.uniform() < 0.3),
        "texture": float(rng.uniform()),
    }


def _photograph(rng: np.random.Generator) -> dict[str, float]:
    return {
        "yaw": float(rng.uniform(-1, 1)),
        "roll": float(np.clip(rng.normal(0, 2), -6, 6)),
        "shift_x": float(np.clip(rng.normal(0, 0.015), -0.05, 0.05)),
        "shift_y": float(np.clip(rng.normal(0, 0.015), -0.05, 0.05)),
        "scale": float(np.clip(rng.normal(1, 0.02), 0.94, 1.06)),
        "light": float(rng.uniform(-1, 1)),
        "light_side": float(rng.uniform(-1, 1)),
        "hair_light": float(rng.uniform(-1, 1)),
        "background_hue": float(rng.uniform()),
        "background_light": float(rng.uniform()),
    }
