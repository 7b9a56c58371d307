"""Abdominal phantoms: drawn volumes with liver tumours, and survival with a known function of tumour load and age."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.data.simulate.hazards import CensoringTarget
from survlens.data.simulate.published_hazards import PowerHazard

FIELD_OF_VIEW = (320.0, 320.0, 240.0)
"""Extent of a volume along x, y and z, in millimetres, before the spacing varies."""
LOG_HAZARD_PER_LOAD = 1.2
"""Change of the log-hazard per standard deviation of the log tumour load."""
LOG_HAZARD_PER_AGE = 0.5
"""Change of the log-hazard per standard deviation of age."""
LOAD_CENTRE, LOAD_SPREAD = 3.2, 1.7
"""Mean and standard deviation of log(1 + load in ml) by which it is standardised in the hazard."""
AGE_CENTRE, AGE_SPREAD = 65.0, 10.0
"""Mean and standard deviation of age in years."""
TURN = 0.07
"""Standard deviation of the angle by which a patient lies turned about each axis, in radians."""
END_OF_STUDY = 60.0
"""Time at which follow-up ends, in months."""


class LoadEffect(Enum):
    """How the effect of tumour load depends on time.

    CONSTANT: proportional hazards. WEARS_OFF: strong at first and fading: the power of time in H falls with the load,
    so the hazard ratio per standard deviation is proportional to t^-0.35.
    """

    CONSTANT = "constant"
    WEARS_OFF = "wears_off"


class Organ(Enum):
    """Labels of voxels; 0 is air."""

    BODY = 1
    SPINE = 2
    LIVER = 3
    TUMOUR = 4


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """One drawn patient.

    Attributes:
        volume: (x, y, z) in Hounsfield units, noise included.
        labels: What each voxel is mostly made of, by `Organ`.
        spacing: Millimetres between voxels.
        tumours: Number of tumours.
        load: Volume of all tumours together, in ml: what the hazard depends on.
        liver: Volume of the liver, in ml, that of the tumours in it included.
        age: Age in years.
    """

    volume: Float32[np.ndarray, "x y z"]
    labels: UInt8[np.ndarray, "x y z"]
    spacing: Float64[np.ndarray, "3"]
    tumours: int
    load: float
    liver: float
    age: float

    @property
    def affine(self) -> Float64[np.ndarray, "4 4"]:
        """Voxel to world matrix: millimetres, RAS+, origin in the middle of the volume."""
        return _affine(self.spacing, self.labels.shape)


@dataclass(frozen=True, slots=True, eq=False)
class PhantomStudy:
    """Drawn volumes with what is in them, the simulated outcome, and the truth behind it.

    Axes of a volume are x (towards the patient's right), y (front) and z (head), as in a canonical NIfTI file.

    Attributes:
        volumes: (instance, channel, x, y, z) in Hounsfield units, noise included.
        labels: What each voxel is mostly made of, by `Organ`; 0 is air.
        spacing: Millimetres between voxels of each instance, (instance, 3).
        tumours: Number of tumours of each instance.
        load: Volume of all tumours together, in ml: what the hazard depends on.
        liver: Volume of the liver, tumours included, in ml: a distractor that is drawn apart from the load, and on
            which the hazard does not depend. (The healthy part alone would fall as the load rises.)
        age: Age in years: what the hazard also depends on.
        outcome: Simulated survival, in months.
        truth: The hazard, a head of (standardised log load, standardised age).
    """

    volumes: Float32[np.ndarray, "instance 1 x y z"]
    labels: UInt8[np.ndarray, "instance x y z"]
    spacing: Float64[np.ndarray, "instance 3"]
    tumours: Int64[np.ndarray, " instance"]
    load: Float64[np.ndarray, " instance"]
    liver: Float64[np.ndarray, " instance"]
    age: Float64[np.ndarray, " instance"]
    outcome: SurvivalOutcome
    truth: PowerHazard

    def __len__(self) -> int:
        return len(self.load)

    def __getitem__(self, rows: np.ndarray) -> PhantomStudy:
        return PhantomStudy(
            self.volumes[rows],
            self.labels[rows],
            self.spacing[rows],
            self.tumours[rows],
            self.load[rows],
            self.liver[rows],
            self.age[rows],
            self.outcome[rows],
            self.truth,
        )

    @property
    def covariates(self) -> Float64[np.ndarray, "instance 2"]:
        """What the hazard depends on: log(1 + load) and age, both standardised."""
        return phantom_covariates(self.load, self.age)

    @property
    def log_hazard(self) -> Float64[np.ndarray, " instance"]:
        """True log relative hazard; under WEARS_OFF at one month."""
        return self.covariates @ np.array([LOG_HAZARD_PER_LOAD, LOG_HAZARD_PER_AGE])

    def affine(self, row: int) -> Float64[np.ndarray, "4 4"]:
        """Voxel to world matrix of one instance: millimetres, RAS+, origin in the middle of the volume."""
        return _affine(self.spacing[row], self.labels.shape[1:])


def phantom_survival(
    instances: int,
    *,
    size: int = 64,
    effect: LoadEffect = LoadEffect.CONSTANT,
    censored: float = 0.3,
    noise: float = 15.0,
    seed: int = 0,
) -> PhantomStudy:
    """Draws abdominal volumes and survival that depends on tumour load and age, and on nothing else.

    A body with fat, a spine, and a liver; the size of body and liver, the contrast, the noise, the voxel size and how
    the patient lies (shifted and turned) vary. In the liver 0 to 6 tumours, whose number, size, place and enhancement
    are drawn apart from the liver's size. With z the standardised log(1 + load in ml) and a the standardised age,
    h(t) = 0.02 t^0.2 exp(1.2 z + 0.5 a) per month where hazards are proportional, and
    0.01 t^(1 - 0.35 z) exp(1.2 z + 0.5 a) under WEARS_OFF. Follow-up ends at 60 months, and independent exponential
    censoring ends about a share `censored` before.

    Args:
        instances: Number of patients, >= 1.
        size: Voxels along each axis, >= 12. The field of view is the same, so fewer voxels are larger ones.
        effect: How the effect of load depends on time.
        censored: Share of patients whose follow-up ends before an event and before the end of the study, in [0, 1).
        noise: Standard deviation of a voxel's noise in Hounsfield units, of the mean patient; 0.6 to 1.4 times that.
        seed: Seed of all draws; each patient has draws of its own, so the first volumes of a longer cohort are the
            same.

    Raises:
        InvalidValueError: If an argument lies outside its range.
    """
    drawn = list(drawn_phantoms(instances, size=size, noise=noise, seed=seed))
    load, age = np.array([each.load for each in drawn]), np.array([each.age for each in drawn])
    return PhantomStudy(
        volumes=np.stack([each.volume for each in drawn])[:, None],
        labels=np.stack([each.labels for each in drawn]),
        spacing=np.stack([each.spacing for each in drawn]),
        tumours=np.array([each.tumours for each in drawn], dtype=np.int64),
        load=load,
        liver=np.array([each.liver for each in drawn]),
        age=age,
        outcome=phantom_outcome(load, age, effect=effect, censored=censored, seed=seed),
        truth=phantom_hazard(effect),
    )


def drawn_phantoms(instances: int, *, size: int = 64, noise: float = 15.0, seed: int = 0) -> Iterator[Phantom]:
    """The patients of `phantom_survival` one at a time, for cohorts that do not fit in memory.

    Raises:
        InvalidValueError: If an argument lies outside its range.
    """
    if instances < 1 or size < 12 or noise < 0:
        raise InvalidValueError(
            f"`instances` must be >= 1, `size` >= 12 and `noise` >= 0; got {instances}, {size} and {noise}."
        )
    children = np.random.SeedSequence(seed).spawn(instances + 1)
    return (_phantom(np.random.default_rng(child), size, noise) for child in children[1:])


def phantom_covariates(
    load: Float64[np.ndarray, " instance"], age: Float64[np.ndarray, " instance"]
) -> Float64[np.ndarray, "instance 2"]:
    """What the hazard depends on: log(1 + load in ml) and age in years, both standardised by fixed numbers."""
    return np.stack([(np.log1p(load) - LOAD_CENTRE) / LOAD_SPREAD, (age - AGE_CENTRE) / AGE_SPREAD], axis=1)


def phantom_outcome(
    load: Float64[np.ndarray, " instance"],
    age: Float64[np.ndarray, " instance"],
    *,
    effect: LoadEffect = LoadEffect.CONSTANT,
    censored: float = 0.3,
    seed: int = 0,
) -> SurvivalOutcome:
    """The simulated survival of `phantom_survival`, from the load in ml and the age in years of all its patients.

    Raises:
        InvalidValueError: If `censored` lies outside [0, 1).
    """
    check_choice("effect", effect, LoadEffect)
    generator = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    outcome = phantom_hazard(effect).draw(torch.from_numpy(phantom_covariates(load, age)), generator)
    return _censored(outcome, CensoringTarget(censored), generator)


def phantom_hazard(effect: LoadEffect = LoadEffect.CONSTANT) -> PowerHazard:
    """The hazard of phantoms, of (standardised log load, standardised age)."""
    weights = (LOG_HAZARD_PER_LOAD, LOG_HAZARD_PER_AGE)
    changes = (-0.35, 0.0) if effect is LoadEffect.WEARS_OFF else None
    power = 1.2 if effect is LoadEffect.CONSTANT else 2.0
    scale = 0.02 if effect is LoadEffect.CONSTANT else 0.01
    grid = TimeGrid.equidistant(END_OF_STUDY, 60, "months")
    return PowerHazard(scale=scale, power=power, log_risk=weights, power_weights=changes, grid=grid)


def _censored(outcome: SurvivalOutcome, target: CensoringTarget, generator: np.random.Generator) -> SurvivalOutcome:
    """Ends some follow-ups early, by exponential times whose scale is found on the sample."""
    standard = generator.exponential(size=len(outcome))
    time, event = outcome.time.numpy(), outcome.event.numpy()
    if target.share == 0:
        return outcome
    scale = float(np.quantile(time / standard, 1 - target.share))
    ends = scale * standard
    return SurvivalOutcome.from_arrays(np.minimum(time, ends), np.where(ends < time, 0, event), "months")


def _phantom(generator: np.random.Generator, size: int, noise: float) -> Phantom:
    age = float(np.clip(generator.normal(AGE_CENTRE, AGE_SPREAD), 30, 95))
    spacing = np.array(FIELD_OF_VIEW) / size * generator.uniform(0.95, 1.05, 3)
    pose, stature = generator.normal(0, 6, 3), generator.uniform(0.9, 1.1)
    liver_scale = generator.uniform(0.8, 1.2)
    contrast, enhancement = generator.uniform(90, 130), generator.uniform(-75, -45)
    centre = stature * np.array([55.0, 5.0, 5.0])
    radii = liver_scale * stature * np.array([68.0, 55.0, 62.0])
    number = int(generator.integers(0, 7))
    tumour_radii = generator.lognormal(math.log(13.0), 0.4, number).clip(6, 30)
    places = centre + radii * _in_ball(generator, number) * 0.62
    turn, grain = generator.normal(0, TURN, 3), noise * generator.uniform(0.6, 1.4)
    x, y, z = _patient_axes(size, spacing, pose, turn)
    edge = float(spacing.max()) / 2

    body = _inside((x / (150 * stature)) ** 2 + (y / (105 * stature)) ** 2, 105 * stature, edge)
    inner = _inside((x / (132 * stature)) ** 2 + (y / (88 * stature)) ** 2, 88 * stature, edge)
    spine = _inside((x / 22) ** 2 + ((y + 62 * stature) / 22) ** 2, 22.0, edge)
    away = sum(((each - middle) / radius) ** 2 for each, middle, radius in zip((x, y, z), centre, radii, strict=True))
    liver = _inside(np.asarray(away), float(radii.min()), edge)
    tumour = np.zeros_like(liver)
    near = _boxes(places, tumour_radii + 2 * edge, size, spacing, pose, turn)
    for place, radius, box in zip(places, tumour_radii, near, strict=True):
        away = sum(((each[box] - middle) / radius) ** 2 for each, middle in zip((x, y, z), place, strict=True))
        tumour[box] = np.maximum(tumour[box], _inside(np.asarray(away), float(radius), edge))

    volume = np.full_like(x, -1000.0)
    parts = ((body, -100.0), (inner, 40.0), (spine, 300.0), (liver, contrast), (tumour, contrast + enhancement))
    for share, value in parts:
        volume += share * (value - volume)
    volume += generator.normal(0, grain, volume.shape).astype(np.float32)
    labels = np.zeros(volume.shape, np.uint8)
    for share, organ in ((body, Organ.BODY), (spine, Organ.SPINE), (liver, Organ.LIVER), (tumour, Organ.TUMOUR)):
        labels[share >= 0.5] = organ.value
    millilitres = float(spacing.prod()) / 1000
    load, whole = (float(each.sum(dtype=np.float64)) * millilitres for each in (tumour, liver))
    return Phantom(volume.astype(np.float32), labels, spacing, number, load, whole, age)


def _patient_axes(size: int, spacing: np.ndarray, pose: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Place of every voxel in the patient's own axes, in millimetres; the patient lies shifted and turned."""
    steps = [(np.arange(size) - (size - 1) / 2) * step for step in spacing]
    world = np.stack(np.meshgrid(*steps, indexing="ij")) - pose[:, None, None, None]
    return np.einsum("ij,jxyz->ixyz", _turned(turn).T, world).astype(np.float32)


def _boxes(
    places: np.ndarray, reach: np.ndarray, size: int, spacing: np.ndarray, pose: np.ndarray, turn: np.ndarray
) -> list[tuple[slice, ...]]:
    """Voxels within `reach` millimetres of places in the patient's axes, and a few more."""
    middle = (places @ _turned(turn).T + pose) / spacing + (size - 1) / 2
    beside = reach[:, None] / spacing
    low, high = np.floor(middle - beside), np.ceil(middle + beside) + 1
    ends = np.stack([low, high], axis=2).clip(0, size).astype(int)
    return [tuple(slice(*pair) for pair in box) for box in ends]


def _turned(turn: np.ndarray) -> np.ndarray:
    """The rotation by three angles, each about one axis."""
    matrix = np.eye(3)
    for axis, angle in enumerate(turn):
        first, second = [each for each in range(3) if each != axis]
        about = np.eye(3)
        about[first, first] = about[second, second] = math.cos(angle)
        about[first, second], about[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ about
    return matrix


def _affine(spacing: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    return matrix


def _inside(squared: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """Share of a voxel inside a surface at `squared` = 1, falling over one voxel: (radius, edge) in millimetres."""
    distance = (np.sqrt(squared) - 1) * radius
    return np.clip(0.5 - distance / (2 * edge), 0, 1).astype(np.float32)


def _in_ball(generator: np.random.Generator, count: int) -> np.ndarray:
    """Points drawn evenly in the unit ball."""
    direction = generator.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * generator.uniform(0, 1, (count, 1)) ** (1 / 3)
