"""Cohorts of phantoms as CNN-Survival sees scans: slices of tumours cut out by their contour, chosen by size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.geometry import Volume
from survlens.data.simulate.phantom import Organ, Phantom, drawn_phantoms, phantom_covariates, phantom_outcome

WINDOW = (-100.0, 200.0)
"""Hounsfield units that become 0 and 1; what lies outside the contour is 0."""
_SOFT_TISSUE = 40.0


@dataclass(frozen=True, slots=True)
class Scanner:
    """How a hospital's scans look.

    Attributes:
        noise: Standard deviation of a voxel's noise in Hounsfield units, before the contrast.
        contrast: Factor on the distance of every value from 40 Hounsfield units.
    """

    noise: float
    contrast: float

    def seen(self, phantom: Phantom) -> Float32[np.ndarray, "x y z"]:
        """The values that the scanner gives."""
        return np.asarray(_SOFT_TISSUE + self.contrast * (phantom.volume - _SOFT_TISSUE), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ScannedPatients:
    """Patients with a tumour, their scans and their survival.

    Attributes:
        scans: Scan and tumour mask of each patient.
        age: Years.
        size: Volume of the mask in ml.
        truth: What the hazard depends on: standardised log load and age.
        outcome: Simulated survival, in months.
        without_tumour: How many were drawn that had none, and were not enrolled.
    """

    scans: tuple[tuple[Volume, Bool[np.ndarray, "x y z"]], ...]
    age: Float64[np.ndarray, " instance"]
    size: Float64[np.ndarray, " instance"]
    truth: Float64[np.ndarray, "instance 2"]
    outcome: SurvivalOutcome
    without_tumour: int

    def __len__(self) -> int:
        return len(self.age)

    def first(self, count: int) -> ScannedPatients:
        """The first patients."""
        part = slice(0, count)
        rows = np.arange(count)
        return ScannedPatients(
            self.scans[part], self.age[part], self.size[part], self.truth[part], self.outcome[rows], self.without_tumour
        )


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """Slices through tumours.

    Attributes:
        images: Cut out by the contour and centred on it, (slice, 1, side, side).
        patient: Whose slice it is, counted from 0 in the cohort.
        voxels: Voxels of tumour in it.
        available: How many slices of the cohort have tumour.
        dropped: Patients of whom no slice was chosen.
    """

    images: Float32[Tensor, "slice 1 side side"]
    patient: Int64[np.ndarray, " slice"]
    voxels: Int64[np.ndarray, " slice"]
    available: int
    dropped: Int64[np.ndarray, " patient"]

    def __len__(self) -> int:
        return len(self.patient)


def scanned_patients(count: int, scanner: Scanner, *, size: int, seed: int) -> ScannedPatients:
    """Draws phantoms until `count` of them have a voxel that is mostly tumour.

    Args:
        count: Patients, >= 1.
        scanner: How their scans look.
        size: Voxels along each axis of a scan.
        seed: Seed of all draws.
    """
    kept: list[Phantom] = []
    drawn = 0
    for phantom in drawn_phantoms(3 * count + 60, size=size, noise=scanner.noise, seed=seed):
        drawn += 1
        if (phantom.labels == Organ.TUMOUR.value).any():
            kept.append(phantom)
        if len(kept) == count:
            break
    if len(kept) < count:
        raise InvalidValueError(f"`size` must let tumours be seen; got {size}, where few are. Take larger scans.")
    masks = [phantom.labels == Organ.TUMOUR.value for phantom in kept]
    load, age = np.array([each.load for each in kept]), np.array([each.age for each in kept])
    millilitres = np.array([mask.sum() * each.spacing.prod() / 1000 for mask, each in zip(masks, kept, strict=True)])
    scans = tuple((Volume(scanner.seen(each), each.affine, "HU"), mask) for mask, each in zip(masks, kept, strict=True))
    outcome = phantom_outcome(load, age, seed=seed)
    return ScannedPatients(scans, age, millilitres, phantom_covariates(load, age), outcome, drawn - count)


def largest_of_cohort(patients: ScannedPatients, count: int, side: int) -> Slices:
    """The `count` slices of the whole cohort with most tumour, as in the paper: small tumours drop out.

    Args:
        patients: The cohort.
        count: Slices wanted; all, where there are fewer.
        side: Side of the pictures, in voxels.
    """
    patient, place, voxels = _all_slices(patients)
    return _cut_out(patients, np.sort(np.argsort(-voxels, kind="stable")[:count]), (patient, place, voxels), side)


def largest_of_patient(patients: ScannedPatients, count: int, side: int) -> Slices:
    """The `count` slices of each patient with most tumour; nobody is dropped.

    Args:
        patients: The cohort.
        count: Slices per patient; all of them, where a patient has fewer.
        side: Side of the pictures, in voxels.
    """
    patient, place, voxels = _all_slices(patients)
    order = np.lexsort((-voxels, patient))
    starts = np.searchsorted(patient[order], patient[order])
    return _cut_out(patients, np.sort(order[np.arange(len(order)) - starts < count]), (patient, place, voxels), side)


def dropped_by(patients: ScannedPatients, smallest: int) -> int:
    """How many patients have no slice with at least `smallest` voxels of tumour."""
    patient, _, voxels = _all_slices(patients)
    return len(patients) - len(np.unique(patient[voxels >= smallest]))


def _all_slices(patients: ScannedPatients) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient, position and tumour voxels of every slice with tumour."""
    areas = [mask.sum((0, 1)) for _, mask in patients.scans]
    places = [np.flatnonzero(area) for area in areas]
    patient = np.repeat(np.arange(len(patients)), [len(each) for each in places])
    voxels = np.concatenate([area[each] for area, each in zip(areas, places, strict=True)])
    return patient, np.concatenate(places), voxels


def _cut_out(
    patients: ScannedPatients, chosen: np.ndarray, slices: tuple[np.ndarray, np.ndarray, np.ndarray], side: int
) -> Slices:
    patient, place, voxels = slices
    images = np.stack([_picture(*patients.scans[patient[row]], int(place[row]), side) for row in chosen])
    dropped = np.setdiff1d(np.arange(len(patients)), patient[chosen])
    return Slices(torch.from_numpy(images)[:, None], patient[chosen], voxels[chosen], len(patient), dropped)


def _picture(scan: Volume, mask: np.ndarray, place: int, side: int) -> Float32[np.ndarray, "side side"]:
    """One slice, windowed, 0 outside the contour, with the middle of the region in the middle."""
    low, high = WINDOW
    inside = mask[:, :, place]
    values = np.where(inside, np.clip((scan.values[:, :, place] - low) / (high - low), 0, 1), 0).astype(np.float32)
    middle = np.round(np.argwhere(inside).mean(0)).astype(int)
    padded = np.pad(values, side)
    start = middle + side - side // 2
    return padded[start[0] : start[0] + side, start[1] : start[1] + side]


def patients_in_order(patients: ScannedPatients) -> Iterator[tuple[str, Volume, Bool[np.ndarray, "x y z"]]]:
    """Name, scan and mask of each patient, as `radiomics_table` takes them."""
    for number, (scan, mask) in enumerate(patients.scans):
        yield str(number), scan, mask
