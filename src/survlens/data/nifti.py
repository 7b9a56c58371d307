"""NIfTI files as volumes, and back: canonical RAS+, refused before memory is taken where they are broken or too large.

NIfTI counts x to the patient's right, y to the front and z to the head, as `Volume` does. What `read_nifti` gives has
its axes in that order and direction, whatever the order and handedness of the file.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Bool

from survlens.core.errors import (
    CorruptFileError,
    DataError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
)
from survlens.data.dicom import MOST_VOXELS
from survlens.data.geometry import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""Endings of the files that are read."""

MOST_BYTES = 4 << 30
"""A volume whose numbers take more is refused before its memory is taken."""
_SMALL, _LARGE = 348, 540
"""Bytes of the two kinds of header."""
_FARTHEST = 1 << 24
"""Bytes before the voxels, at most: headers and their extensions."""
_CHUNK = 1 << 24
_REST, _PIECE = 1 << 20, 1 << 16
"""Bytes behind the voxels that are looked through, at most, and at once."""
_TO_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""By the header's code of the unit of length: unknown, metre, millimetre, micrometre."""
_BROKEN = (OSError, EOFError, zlib.error, struct.error, ValueError, KeyError, OverflowError)


def is_nifti(path: Path) -> bool:
    """Whether the name of a file says that it is a NIfTI file."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_nifti(
    path: str | Path, *, most_voxels: int = MOST_VOXELS, most_bytes: int = MOST_BYTES, unit: str = "arbitrary"
) -> Volume:
    """The volume of a NIfTI-1 or NIfTI-2 file, in canonical orientation.

    Whole numbers that the header does not rescale keep their type, as masks need; all else becomes float32. The place
    comes from the sform, or from the qform where there is none; metres and micrometres become millimetres. Nothing is
    decompressed beyond what the header says, and nothing at all where that is too much.

    Args:
        path: A file ending in .nii or .nii.gz.
        most_voxels: A larger volume is refused before its memory is taken.
        most_bytes: So is one whose numbers take more bytes, as they are stored or as float32 where they become that.
        unit: What the values mean, such as "HU"; the format does not say.

    Raises:
        CorruptFileError: If the file is missing, truncated or no NIfTI file.
        DataError: If it has several volumes, no place in the world, too many voxels, too many bytes, or values that
            are not finite.
        MissingDependencyError: Without the extra `[imaging]`.
    """
    path = Path(path)
    if not is_nifti(path):
        raise DataError(f"{path.name} must end in .nii or .nii.gz; it does not. Convert it to NIfTI.")
    try:
        with path.open("rb") as file:
            start = file.read(2)
        opened: Any = gzip.open(path, "rb") if start == b"\x1f\x8b" else path.open("rb")
        with opened as stream:
            header, order = _header(stream, path.name)
            values = _values(stream, header, order, path.name, (most_voxels, most_bytes))
    except (DataError, CorruptFileError):
        raise
    except _BROKEN as error:
        raise _corrupt(path.name, "a file that is damaged or cut short") from error
    return Volume(values, _affine(header, path.name), unit).canonical()


def write_nifti(volume: Volume, path: str | Path) -> Path:
    """Writes a volume as NIfTI-1, in one step; equal volumes give equal files.

    Args:
        volume: In any orientation; booleans become 0 and 1, and whole numbers of 64 bits those of 32.
        path: File to write, ending in .nii or .nii.gz.

    Raises:
        InvalidValueError: If the ending is another one, or an axis has more than 32,767 voxels.
        InvalidTypeError: If the values are no real numbers.
        MissingDependencyError: Without the extra `[imaging]`.
    """
    nibabel, path = _nibabel(), Path(path)
    values = volume.values
    if not is_nifti(path) or max(values.shape) > 32_767:
        raise InvalidValueError(
            f"`path` must end in .nii or .nii.gz, and the sides of `volume` be at most 32,767; got {path.name} and "
            f"{values.shape}."
        )
    if values.dtype.kind not in "biuf":
        raise InvalidTypeError(f"`volume` must hold real numbers; got {values.dtype}.")
    image = nibabel.Nifti1Image(values.astype(_stored_type(values)), np.asarray(volume.affine, dtype=np.float64))
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=4, mtime=0)
    draft = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def label_mask(volume: Volume, labels: Sequence[int] | None = None, name: str = "mask") -> Bool[np.ndarray, "i j k"]:
    """Voxels of a label volume, as nnU-Net and TotalSegmentator write them, that carry one of some labels.

    Args:
        volume: Whole numbers; 0 is background.
        labels: Labels that are united; every label but 0 where None.
        name: What messages call it.

    Raises:
        DataError: If values are no whole numbers, or none of the labels is there.
    """
    values = volume.values
    if values.dtype.kind == "f" and not bool((values == np.rint(values)).all()):
        raise DataError(
            f"{name} must hold whole numbers, the labels of regions; got others. Cut the probabilities at a threshold."
        )
    if labels is None:
        return values != 0
    mask = np.isin(values, np.asarray(labels, dtype=np.int64))
    if not mask.any():
        there = np.unique(values)
        listed = ", ".join(f"{each:g}" for each in there[:10]) + (", ..." if len(there) > 10 else "")
        raise DataError(f"{name} must hold one of the labels {', '.join(map(str, labels))}; it holds {listed}.")
    return mask


def _header(stream: BinaryIO, name: str) -> tuple[Any, Literal["<", ">"]]:
    """The header of a stream, and its order of bytes; the stream stands behind it."""
    nibabel = _nibabel()
    start = stream.read(_SMALL)
    if len(start) < _SMALL:
        raise _corrupt(name, f"{len(start)} bytes, less than a header")
    orders: tuple[Literal["<"], Literal[">"]] = ("<", ">")
    for order in orders:
        (size,) = struct.unpack(f"{order}i", start[:4])
        if size == _SMALL and start[344:347] == b"n+1":
            return nibabel.Nifti1Header.from_fileobj(io.BytesIO(start), endianness=order, check=False), order
        if size == _LARGE and start[4:7] == b"n+2":
            start += stream.read(_LARGE - _SMALL)
            if len(start) < _LARGE:
                raise _corrupt(name, f"{len(start)} bytes, less than a header")
            return nibabel.Nifti2Header.from_fileobj(io.BytesIO(start), endianness=order, check=False), order
    raise _corrupt(name, "other content")


def _values(stream: BinaryIO, header: Any, order: Literal["<", ">"], name: str, most: tuple[int, int]) -> np.ndarray:
    """The voxels, once the header has shown that they are one bearable volume of numbers."""
    shape = _shape(header, name)
    voxels = int(np.prod([int(side) for side in shape], dtype=object))
    if voxels > most[0]:
        raise DataError(
            f"{name} must have at most {most[0]:,} voxels; its header says {voxels:,}. Crop or resample it."
        )
    kind = _number_type(header, order, name)
    taken = voxels * max(kind.itemsize, 4 if kind.kind == "f" or _rescaled(header) else 1)
    if taken > most[1]:
        raise DataError(
            f"{name} must take at most {most[1]:,} bytes; its header says {taken:,}. Crop or resample it, or store it "
            "as whole numbers of 16 bits."
        )
    offset = float(header["vox_offset"])
    before = int(offset) - int(header["sizeof_hdr"]) if np.isfinite(offset) and 0 <= offset < _FARTHEST else -1
    if before < 0:
        raise _corrupt(name, f"voxels that start at byte {offset:g}")
    stream.read(before)
    content = _read(stream, voxels * kind.itemsize, name)
    for _ in range(_REST // _PIECE):  # the end of a compressed file checks the sum over all its bytes
        if not stream.read(_PIECE):
            break
    values = np.frombuffer(content, dtype=kind).reshape(shape, order="F").astype(kind.newbyteorder("="), copy=False)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    shift = intercept if np.isfinite(intercept) else 0.0
    with np.errstate(over="ignore"):  # what overflows is found below
        if _rescaled(header):
            values = (values.astype(np.float64) * slope + shift).astype(np.float32)
        elif values.dtype.kind == "f":
            values = values.astype(np.float32, copy=False)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise DataError(f"{name} must hold finite values; {wrong:,} voxels are not. Fill them, or export it again.")
    return values


def _rescaled(header: Any) -> bool:
    """Whether the header gives the numbers another scale."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    return bool(np.isfinite(slope)) and slope != 0 and (slope, intercept) != (1.0, 0.0)


def _shape(header: Any, name: str) -> tuple[int, ...]:
    dimensions = np.asarray(header["dim"], dtype=np.int64)
    count = int(dimensions[0])
    if not 1 <= count <= 7 or (dimensions[1 : count + 1] < 1).any():
        raise _corrupt(name, f"the sides {dimensions[1:].tolist()}")
    sides = [int(side) for side in dimensions[1 : count + 1]]
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) != 3:
        shown = " x ".join(map(str, sides))
        step = "Split it, and name the volume that is meant" if len(sides) > 3 else "Export the whole volume"
        raise DataError(f"{name} must hold one volume of three axes; got {shown}. {step}.")
    return tuple(sides)


def _number_type(header: Any, order: Literal["<", ">"], name: str) -> np.dtype:
    nibabel = _nibabel()
    code = int(header["datatype"])
    try:
        kind = np.dtype(nibabel.nifti1.data_type_codes.dtype[code])
    except KeyError as error:
        raise _corrupt(name, f"numbers of the unknown type {code}") from error
    if kind.kind not in "iuf" or kind.itemsize > 8:
        label = nibabel.nifti1.data_type_codes.label[code]
        raise DataError(f"{name} must hold real numbers of at most 64 bits; got {label}. Convert it to grey values.")
    return kind.newbyteorder(order)


def _read(stream: BinaryIO, count: int, name: str) -> bytearray:
    """Exactly `count` bytes, piece by piece: memory grows with what is there, not with what a header claims."""
    content = bytearray()
    while len(content) < count:
        piece = stream.read(min(_CHUNK, count - len(content)))
        if not piece:
            raise _corrupt(name, f"{len(content):,} of {count:,} bytes of voxels")
        content += piece
    return content


def _affine(header: Any, name: str) -> np.ndarray:
    codes = int(header["sform_code"]), int(header["qform_code"])
    if codes[0] <= 0 and codes[1] <= 0:
        raise DataError(
            f"{name} must say how it lies in the patient (sform or qform); it does not, so left and right cannot be "
            "told apart. Write it again with the geometry of its scan."
        )
    try:
        matrix = np.asarray(header.get_sform() if codes[0] > 0 else header.get_qform(), dtype=np.float64).copy()
    except Exception as error:
        raise _corrupt(name, "an orientation that is no rotation") from error
    if not np.isfinite(matrix).all():
        raise DataError(f"{name} must have a finite voxel to world matrix; got {matrix.tolist()}. Export it again.")
    matrix[:3] *= _TO_MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    matrix[3] = (0, 0, 0, 1)
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise DataError(f"{name} must have voxels of some volume; its matrix is {matrix.tolist()}. Export it again.")
    return matrix


def _stored_type(values: np.ndarray) -> np.dtype:
    if values.dtype.kind == "b":
        return np.dtype(np.uint8)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        low, high = int(values.min()), int(values.max())
        if low < -(2**31) or high >= 2**31:
            raise InvalidValueError(f"`volume` must hold whole numbers of 32 bits to be written; got {low} to {high}.")
        return np.dtype(np.int32)
    return np.dtype(np.float32) if values.dtype == np.float16 else values.dtype


def _corrupt(name: str, got: str) -> CorruptFileError:
    return CorruptFileError(f"{name} must be a whole NIfTI file; got {got}. Copy or export it again.")


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError(
            "Reading NIfTI needs nibabel; it is not installed. Run: pip install survlens[imaging]"
        ) from error
    return nibabel
