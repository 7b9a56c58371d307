"""Phantoms as the files that a hospital would give: NIfTI volumes with label masks, or DICOM series with structures."""

from __future__ import annotations

import os
import shutil
from enum import Enum
from pathlib import Path

import numpy as np

from survlens.data.geometry import Volume
from survlens.data.nifti import write_nifti
from survlens.data.simulate.dicom_files import (
    Person,
    Plane,
    Rescale,
    SeriesStyle,
    SliceOrder,
    turned,
    write_segmentation,
    write_series,
    write_structures,
)
from survlens.data.simulate.phantom import Organ, Phantom

LOWEST, HIGHEST = -1024, 3071
"""Values that a CT scanner stores, in Hounsfield units; what lies beyond is cut."""
RESCALES = (Rescale(1.0, -1024.0), Rescale(1.0, 0.0, signed=True), Rescale(0.5, -1024.0))
"""How simulated scanners store values; the intercepts differ within a cohort, as they do in real ones."""

_FAMILIES = ("Quillfeather", "Brackenmoor", "Thistlewick", "Umberlane", "Nettlespoon", "Glimmerhurst", "Wobblethorpe")
_GIVEN = ("Zephyrine", "Isembard", "Philomena", "Thaddeusz", "Ottiliana", "Barnabasso", "Wilhelmique")
_HOSPITALS = ("Saint Nowhere Infirmary", "Imaginary General Hospital", "Cloudcuckoo University Clinic")
_STREETS = ("1 Unmapped Road, Nowhereville", "12 Dreamt Lane, Atlantis", "7 Vanishing Crescent, Erewhon")
_MAKERS = ("Simulated A", "Simulated B", "Simulated C")


class PhantomFormat(Enum):
    """Kinds of files."""

    NIFTI = "nifti"
    DICOM = "dicom"


def phantom_volume(phantom: Phantom) -> Volume:
    """The scan in whole Hounsfield units within a scanner's range, as both kinds of files hold it."""
    return Volume(np.clip(np.rint(phantom.volume), LOWEST, HIGHEST).astype(np.int16), phantom.affine, "HU")


def phantom_labels(phantom: Phantom) -> Volume:
    """The labels of `Organ` on the grid of the scan."""
    return Volume(phantom.labels, phantom.affine)


def write_phantom_nifti(folder: Path, name: str, phantom: Phantom) -> tuple[str, str]:
    """Writes scans/NAME.nii.gz and masks/NAME.nii.gz, and returns their paths below `folder`; whole files are kept.

    Args:
        folder: Folder of the cohort.
        name: Name of the patient.
        phantom: What is written.
    """
    scan, mask = f"scans/{name}.nii.gz", f"masks/{name}.nii.gz"
    if not (folder / scan).exists():
        write_nifti(phantom_volume(phantom), folder / scan)
    if not (folder / mask).exists():
        write_nifti(phantom_labels(phantom), folder / mask)
    return scan, mask


def write_phantom_dicom(folder: Path, name: str, phantom: Phantom, *, seed: int) -> tuple[str, str, Person]:
    """Writes dicom/NAME with a CT series, its structure set and its segmentation; a whole folder is kept.

    Plane, directions, order of slices and names, rescaling and maker are drawn. Both files of masks hold "Liver",
    tumours included, and "Tumour" where there is one.

    Args:
        folder: Folder of the cohort.
        name: Name of the patient's folder.
        phantom: What is written.
        seed: Seed of how it is written, and of the person whom the files name; of each patient another one.

    Returns:
        Paths of the series and of the segmentation below `folder`, and the made-up person.
    """
    rng = np.random.default_rng([seed, 2])
    person = made_up_person(rng, phantom.age)
    plane = list(Plane)[int(rng.integers(3))]
    flips = tuple(bool(each) for each in rng.integers(0, 2, 3))
    numbers, names = (list(SliceOrder)[int(rng.integers(3))] for _ in range(2))
    style = SeriesStyle(numbers, names, RESCALES[int(rng.integers(3))], _MAKERS[int(rng.integers(3))])
    home = folder / "dicom" / name
    if not home.exists():
        draft = home.with_name(f".{name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        volume = turned(phantom_volume(phantom), plane, flips)
        labels = turned(phantom_labels(phantom), plane, flips).values
        masks = {"Liver": labels >= Organ.LIVER.value, "Tumour": labels == Organ.TUMOUR.value}
        masks = {each: mask for each, mask in masks.items() if mask.any()}
        slices = write_series(draft / "CT", volume, person, style, seed=seed)
        write_structures(draft / "structures.dcm", slices, volume, masks)
        write_segmentation(draft / "segmentation.dcm", slices, masks)
        os.replace(draft, home)
    return f"dicom/{name}/CT", f"dicom/{name}/segmentation.dcm", person


def made_up_person(rng: np.random.Generator, age: float) -> Person:
    """A person who does not exist, with names that no other text has by chance.

    Args:
        rng: Source of the draws.
        age: Age in years on the day of the scan.
    """
    family, given, doctor = (str(rng.choice(words)) for words in (_FAMILIES, _GIVEN, _FAMILIES))
    place = int(rng.integers(len(_HOSPITALS)))
    year, month, day = int(rng.integers(2005, 2020)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    return Person(
        name=f"{family}^{given}",
        number=f"MRN-{int(rng.integers(10**8, 10**9))}",
        birth=f"{year - int(age)}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}",
        sex=str(rng.choice(["F", "M"])),
        institution=_HOSPITALS[place],
        address=_STREETS[place],
        physician=f"{doctor}^Referrer",
        accession=f"ACC-{int(rng.integers(10**8, 10**9))}",
        date=f"{year}{month:02d}{day:02d}",
    )
