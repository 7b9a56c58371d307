"""Prepared scans on disk: one file per scan and settings, named by a hash of both; never a pickle.

A file is written under a temporary name and renamed, so that several processes may prepare the same cohort at once and
a run that was stopped goes on where it was. Files hold voxels of patients: keep the folder where the scans are kept.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from survlens.data.scans import PreparedScan, ScanReference, ScanSettings, prepared

_LARGEST_HEADER = 1 << 16


@dataclass(frozen=True, slots=True)
class ScanCache:
    """A folder of prepared scans, bounded by the disk alone; it may be removed at any time.

    Attributes:
        folder: Made when the first scan is written.
    """

    folder: Path

    def prepared(self, reference: ScanReference, settings: ScanSettings, *, rank: int = 0) -> PreparedScan:
        """What `survlens.data.scans.prepared` gives, bit for bit, from the disk where it was asked for before.

        The values are mapped into memory, not read; they cannot be written to. A file that is damaged is made again. On
        a full or read-only disk scans are prepared without being kept, and a warning says so.

        Args:
            reference: The scan.
            settings: How it is prepared.
            rank: Of slices, which one, as in `prepared`.

        Raises:
            SurvlensError: As `prepared` does.
        """
        path = self.folder / f"{_key(reference, settings, rank)}.safetensors"
        found = _read(path)
        if found is not None:
            return found
        made = prepared(reference, settings, rank=rank)
        try:
            _write(path, made)
        except OSError as error:
            why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
            warnings.warn(
                f"the cache of scans must be writable; {why}. Scans are prepared anew each time: free some space, or "
                "name another folder.",
                stacklevel=2,
            )
        return made


def _key(reference: ScanReference, settings: ScanSettings, rank: int) -> str:
    return hashlib.sha256(f"{reference.identity}\0{settings.key}\0{rank}".encode()).hexdigest()


def _write(path: Path, scan: PreparedScan) -> None:
    from safetensors.numpy import save

    values = np.ascontiguousarray(scan.values)
    said = json.dumps({"covered": scan.covered, "crc": _sum(values)})
    content = save({"affine": np.ascontiguousarray(scan.affine), "values": values}, metadata={"scan": said})
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _read(path: Path) -> PreparedScan | None:
    """The scan of a file; None where there is no file, or not a whole one."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _LARGEST_HEADER:
                return None
            header = json.loads(file.read(length))
        said = json.loads(header["__metadata__"]["scan"])
        affine, values = _mapped(path, 8 + length, header["affine"]), _mapped(path, 8 + length, header["values"])
        if _sum(values) != int(said["crc"]):
            return None
        return PreparedScan(_volume(values), _matrix(affine), int(said["covered"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).data)


_TYPES = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def _mapped(path: Path, start: int, about: dict[str, object]) -> np.ndarray:
    """A tensor of a safetensors file, mapped into memory."""
    kind, shape, offsets = _TYPES[str(about["dtype"])], about["shape"], about["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise ValueError("not a header of tensors")
    return np.memmap(path, kind, mode="r", offset=start + int(offsets[0]), shape=tuple(int(side) for side in shape))


def _volume(values: np.ndarray) -> Float32[np.ndarray, "channel *space"]:
    if values.dtype != np.float32 or values.ndim not in (3, 4):
        raise ValueError("not the values of a scan")
    return values


def _matrix(affine: np.ndarray) -> Float64[np.ndarray, "4 4"]:
    if affine.dtype != np.float64 or affine.shape != (4, 4):
        raise ValueError("not a matrix")
    return np.array(affine)
