"""Scans and masks as NRRD and MetaImage, read by SimpleITK; and one reader for every kind of scan that is one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from survlens.core.errors import CorruptFileError, DataError, MissingDependencyError
from survlens.data.dicom import MOST_VOXELS
from survlens.data.geometry import Volume
from survlens.data.nifti import MOST_BYTES, NIFTI_SUFFIXES, is_nifti, read_nifti

ITK_SUFFIXES = (".nrrd", ".mha")
"""Endings of the files that SimpleITK reads here; those whose voxels lie in a second file are not among them."""
SCAN_SUFFIXES = (*reversed(ITK_SUFFIXES), *NIFTI_SUFFIXES)
"""Endings of scans and masks that are one file; the usual ones last."""

_HEADER = 1 << 16
_ELSEWHERE = re.compile(
    rb"^[ \t]*(?:ElementDataFile[ \t]*=(?![ \t]*LOCAL\b)|data ?file:)", re.IGNORECASE | re.MULTILINE
)
"""What a header says whose voxels lie in another file."""
_TURN = np.diag([-1.0, -1.0, 1.0])
"""From the patient's left and back, as ITK counts, to the right and front."""


def is_scan_file(path: Path) -> bool:
    """Whether the name of a file says that it is a scan, or a mask of labels."""
    return path.name.lower().endswith(SCAN_SUFFIXES)


def read_scan_file(path: str | Path, *, unit: str = "arbitrary") -> Volume:
    """The volume of a file, by `read_nifti` or `read_itk` as its ending says."""
    path = Path(path)
    return read_nifti(path, unit=unit) if is_nifti(path) else read_itk(path, unit=unit)


def read_itk(
    path: str | Path, *, most_voxels: int = MOST_VOXELS, most_bytes: int = MOST_BYTES, unit: str = "arbitrary"
) -> Volume:
    """The volume of an NRRD or MetaImage file, in canonical orientation.

    Whole numbers keep their type, as masks need; all else becomes float32. ITK counts x to the patient's left and y to
    the back; they are turned. Header and voxels must be one file, so that no file outside the data root is read.

    Args:
        path: A file ending in .nrrd or .mha.
        most_voxels: A larger volume is refused before its memory is taken.
        most_bytes: So is one whose numbers take more bytes.
        unit: What the values mean, such as "HU"; the formats do not say.

    Raises:
        CorruptFileError: If the file is missing, truncated or of another kind.
        DataError: If it has no three axes, no place in the patient, too many voxels, colours, voxels in another file,
            or values that are not finite.
        MissingDependencyError: Without the extra `[itk]`.
    """
    path = Path(path)
    if not path.name.lower().endswith(ITK_SUFFIXES):
        raise DataError(f"{path.name} must end in .nrrd or .mha; it does not. Convert it to NIfTI.")
    simple_itk = _simple_itk()
    _check_header(path)
    reader = simple_itk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_size(reader, simple_itk, path.name, most_voxels, most_bytes)
        image = reader.Execute()
    except RuntimeError as error:
        raise _corrupt(path.name) from error
    values = np.ascontiguousarray(simple_itk.GetArrayFromImage(image).transpose(2, 1, 0))
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise DataError(f"{path.name} must hold finite values; some are not. Fill them, or export it again.")
    affine = np.eye(4)
    affine[:3, :3] = _TURN @ np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = _TURN @ np.array(image.GetOrigin())
    return Volume(values, affine, unit).canonical()


def _check_header(path: Path) -> None:
    """Refuses a file that has no place in the patient, or whose voxels lie elsewhere, before a library opens it."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER)
    except OSError as error:
        raise _corrupt(path.name) from error
    nrrd = path.name.lower().endswith(".nrrd")
    end = re.search(rb"\r?\n\r?\n", start) if nrrd else None
    head = start if end is None else start[: end.end()]
    if _ELSEWHERE.search(head):
        raise DataError(f"{path.name} must hold its voxels itself; its header names another file. Save it as one file.")
    if nrrd and (end is None or not head.startswith(b"NRRD")):
        raise _corrupt(path.name)
    if nrrd and not re.search(rb"^space(?: dimension)?:", head, re.IGNORECASE | re.MULTILINE):
        raise DataError(
            f"{path.name} must say how it lies in the patient (space); it does not, so left and right cannot be told "
            "apart. Write it again with the geometry of its scan."
        )


def _check_size(reader: Any, simple_itk: Any, name: str, most_voxels: int, most_bytes: int) -> None:
    sides, parts = [int(side) for side in reader.GetSize()], int(reader.GetNumberOfComponents())
    if len(sides) != 3 or parts != 1:
        shown = " x ".join(map(str, sides)) + (f" of {parts} numbers each" if parts > 1 else "")
        raise DataError(f"{name} must hold one volume of three axes; got {shown}. Name the volume that is meant.")
    voxels = int(np.prod(sides, dtype=object))
    if voxels > most_voxels:
        raise DataError(f"{name} must have at most {most_voxels:,} voxels; its header says {voxels:,}. Crop it.")
    size = 4 if "float" in simple_itk.GetPixelIDValueAsString(reader.GetPixelID()) else 8
    if voxels * size > most_bytes:
        raise DataError(
            f"{name} must take at most {most_bytes:,} bytes; its header says up to {voxels * size:,}. Crop it."
        )


def _corrupt(name: str) -> CorruptFileError:
    return CorruptFileError(f"{name} must be a whole NRRD or MetaImage file; it cannot be read. Export it again.")


def _simple_itk() -> Any:
    try:
        import SimpleITK  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            "Reading NRRD and MetaImage needs SimpleITK; it is not installed. Run: pip install survlens[itk]"
        ) from error
    return SimpleITK
