"""Scans as rows of a cohort: from paths in a table, or from a folder whose names are those of the patients."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from survlens.core.errors import DataError, SurvlensError
from survlens.data.columns import as_text, column_of, is_none, row_text
from survlens.data.findings import Finding, Severity, finding
from survlens.data.frames import is_file, resolve
from survlens.data.itk_scans import SCAN_SUFFIXES, is_scan_file
from survlens.data.scan_cache import ScanCache
from survlens.data.scan_checks import LookedScan, looked_at, looked_findings
from survlens.data.scans import HeldScan, PreparedScan, ScanReference, ScanSettings, prepared
from survlens.data.schema import CohortSchema

_NAMES = re.compile(r"'[^']*'|\S*[./]\S*|[\d,]+")
"""What differs between messages of one fault: quoted texts, names of files, and counts."""
_MASK_ENDINGS = ("_mask", "_seg")
_MASK_NAMES = (*(f"mask{suffix}" for suffix in reversed(SCAN_SUFFIXES)), "mask.dcm")


@dataclass(frozen=True, slots=True)
class ScanImage:
    """A scan as it is prepared for a row of a cohort, read when it is needed.

    Attributes:
        reference: The scan.
        settings: How it is prepared.
        rank: Of slices, which one, by falling area of the region.
        cache: Where prepared scans are kept; None for nowhere.
    """

    reference: ScanReference
    settings: ScanSettings
    rank: int = 0
    cache: ScanCache | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.reference.name

    @property
    def identity(self) -> str:
        """Hash of the content of its files and of how it is prepared."""
        return hashlib.sha256(f"{self.reference.identity}\0{self.settings.key}\0{self.rank}".encode()).hexdigest()

    def prepared(self) -> PreparedScan:
        """Its values and their place.

        Raises:
            SurvlensError: As `survlens.data.scans.prepared` does; the message names the scan.
        """
        if self.cache is None:
            return prepared(self.reference, self.settings, rank=self.rank)
        return self.cache.prepared(self.reference, self.settings, rank=self.rank)

    def shape(self) -> tuple[int, ...]:
        """Channels and sides."""
        return self.prepared().values.shape

    def read(self) -> Float32[np.ndarray, "channel *space"]:
        """Its values."""
        return self.prepared().values

    def affine(self) -> Float64[np.ndarray, "4 4"]:
        """Voxel to world matrix of its values."""
        return self.prepared().affine


@dataclass(frozen=True, slots=True)
class ScanEncoding:
    """What all scans of a model have in common; their values stay as they were prepared.

    Attributes:
        channels: Channels, the mask among them.
        sides: Voxels along each axis.
        mask_channel: Whether the last channel is the mask.
    """

    channels: int
    sides: tuple[int, ...]
    mask_channel: bool = False

    @staticmethod
    def fit(images: Sequence[ScanImage]) -> ScanEncoding:
        """The shape of the first training scan, which all others must have."""
        channels, *sides = images[0].shape()
        return ScanEncoding(channels, tuple(sides), images[0].settings.mask_channel)

    def encode(self, values: np.ndarray, name: str = "scan") -> Float32[Tensor, "channel *space"]:
        """One prepared scan as a tensor of its own.

        Raises:
            DataError: If it has another shape than those of training.
        """
        if values.shape != (self.channels, *self.sides):
            shown = [" x ".join(map(str, each)) for each in ((self.channels, *self.sides), values.shape)]
            raise DataError(
                f"{name} must have the shape of the first training scan, {shown[0]}; got {shown[1]}. Set size."
            )
        return torch.from_numpy(np.array(values, dtype=np.float32))


def scan_rows(
    frame: pd.DataFrame, schema: CohortSchema, rows: np.ndarray, root: str | Path | None
) -> tuple[np.ndarray, tuple[ScanImage, ...]]:
    """The scans of the rows of a table, and the row of each; several slices of a scan stand one after another.

    Args:
        frame: The table.
        schema: What its columns are, and how scans are prepared.
        rows: Positions of the rows in the file, for messages.
        root: Folder that paths start from and may not leave.

    Raises:
        DataError: If a path does not exist or leaves `root`; where rows are slices, if a scan cannot be prepared.
    """
    found, trouble = _references(frame, schema, root)
    if trouble:
        places = row_text(rows[row] for row, _, _ in trouble)
        raise DataError(f"every row must name a scan that can be found; got {trouble[0][2]} ({places}).")
    settings = schema.scans or ScanSettings()
    cache = _cache(schema, root)
    images = [ScanImage(found[row], settings, 0, cache) for row in range(len(frame))]
    if settings.slices == 1:
        return np.arange(len(frame)), tuple(images)
    counts = [min(settings.slices, each.prepared().covered) for each in images]
    spread = [ScanImage(each.reference, settings, rank, cache) for each, n in zip(images, counts, strict=True)
              for rank in range(n)]  # fmt: skip
    return np.repeat(np.arange(len(frame)), counts), tuple(spread)


def scan_findings(
    frame: pd.DataFrame,
    schema: CohortSchema,
    patient: np.ndarray,
    *,
    root: str | Path | None,
    quality: bool = False,
) -> Iterator[Finding]:
    """What keeps the scans of a table from being prepared, and scans that stand under two patients.

    Every scan is read once; with a cache, a later run finds it prepared.

    Args:
        frame: The table.
        schema: What its columns are.
        patient: Patient of each row.
        root: Folder that paths start from.
        quality: Whether to say also what is doubtful in scans and masks that can be read; then the files are read even
            where the cache holds them prepared.
    """
    if root is None:
        yield finding("no-root", Severity.ERROR, "paths must start from a folder; none was given. Pass root.")
        return
    column = schema.scan or schema.patient
    try:
        found, trouble = _references(frame, schema, root)
    except SurvlensError as error:
        yield finding("scan-folder", Severity.ERROR, str(error))
        return
    shapes: dict[int, tuple[int, ...]] = {}
    owners: dict[str, set[int]] = defaultdict(set)
    looked: dict[int, LookedScan] = {}
    for row, named in found.items():
        reference = HeldScan.of(named) if quality else named
        try:
            image = ScanImage(reference, schema.scans or ScanSettings(), 0, _cache(schema, root))
            shapes[row] = image.shape()
            owners[reference.identity].add(row)
            if quality:
                looked[row] = looked_at(reference)
        except SurvlensError as error:
            trouble.append((row, "scan-unreadable", str(error).rstrip(".")))
    alike: dict[tuple[str, str], Trouble] = defaultdict(list)
    for row, code, said in trouble:
        alike[code, _NAMES.sub("", said)].append((row, code, said))
    for (code, _), group in alike.items():
        more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
        message = f"{group[0][2]}{more}."
        yield finding(code, Severity.ERROR, message, positions=[row for row, _, _ in group], column=column)
    kinds = list(shapes.values())
    if len(set(kinds)) > 1:
        usual = max(set(kinds), key=kinds.count)
        message = f"prepared scans have {len(set(kinds))} shapes, mostly {usual}. Set size in [data.scans]."
        odd = [row for row, shape in shapes.items() if shape != usual]
        yield finding("several-scan-shapes", Severity.ERROR, message, positions=odd, column=column)
    across = sorted(row for rows in owners.values() if len({patient[row] for row in rows}) > 1 for row in rows)
    if across:
        message = "one scan stands under two patients. Find out whose it is, and remove the other rows."
        yield finding("duplicate-across-patients", Severity.ERROR, message, positions=across, column=column)
    if quality:
        yield from looked_findings(looked, column, schema.mask)


def scan_identities(frame: pd.DataFrame, schema: CohortSchema, root: str | Path) -> dict[int, str]:
    """Hash of the content of each scan that can be found and read, by row."""
    found: dict[int, str] = {}
    for row, reference in _references(frame, schema, root)[0].items():
        try:
            found[row] = reference.identity
        except SurvlensError:
            continue
    return found


def folder_scans(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Scans of a folder by the name of their patient, each with its mask or None.

    A scan is a file `ID.nii.gz` (or .nii), whose mask is `ID_mask.nii.gz` or `ID_seg.nii.gz`; or a sub-folder `ID` with
    one NIfTI file or the slices of a DICOM series, whose mask is `mask.nii.gz` or `mask.dcm` in it.

    Raises:
        DataError: If a name stands twice, or a sub-folder has several NIfTI files beside the mask.
    """
    found: dict[str, tuple[Path, Path | None]] = {}
    entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    files = {each.name: each for each in entries if is_scan_file(each)}
    for entry in entries:
        name, mask = entry.name, None
        if entry.is_dir():
            scan, mask = _of_folder(entry)
        elif entry.name in files:
            scan, name = entry, _stem(entry)
            if any(name.endswith(ending) and _sibling(files, name.removesuffix(ending)) for ending in _MASK_ENDINGS):
                continue
            mask = next((each for ending in _MASK_ENDINGS if (each := _sibling(files, name + ending))), None)
        else:
            continue
        if name in found:
            raise DataError(
                f"a folder of scans must have each patient once; got {name!r} twice. Remove one of the two."
            )
        found[name] = scan, mask
    return found


def _of_folder(folder: Path) -> tuple[Path, Path | None]:
    mask = next((folder / each for each in _MASK_NAMES if is_file(folder / each)), None)
    files = sorted(each for each in folder.iterdir() if is_scan_file(each) and each != mask and each.name[0] != ".")
    if len(files) > 1:
        listed = ", ".join(each.name for each in files[:4])
        raise DataError(f"the folder of {folder.name!r} must have one scan beside its mask; got {listed}. Leave one.")
    return (files[0] if files else folder), mask


def _sibling(files: Mapping[str, Path], stem: str) -> Path | None:
    return next((files[stem + suffix] for suffix in reversed(SCAN_SUFFIXES) if stem + suffix in files), None)


def _stem(path: Path) -> str:
    name = path.name
    longest = max((suffix for suffix in SCAN_SUFFIXES if name.lower().endswith(suffix)), key=len)
    return name[: -len(longest)]


def _cache(schema: CohortSchema, root: str | Path | None) -> ScanCache | None:
    if not schema.scan_cache or root is None:
        return None
    return ScanCache(resolve(schema.scan_cache, root))


Trouble = list[tuple[int, str, str]]
"""Row, code and words of what is wrong with it."""


def _references(
    frame: pd.DataFrame, schema: CohortSchema, root: str | Path | None
) -> tuple[dict[int, ScanReference], Trouble]:
    """The scan of each row that has one, and what is wrong with the others."""
    if root is None:
        raise DataError("`root` must be given with scans; got None. Pass the folder that their paths start from.")
    if schema.scan_folder is not None:
        return _from_folder(frame, schema, Path(root))
    found: dict[int, ScanReference] = {}
    trouble: Trouble = []
    scans, masks, structures = (_words(frame, name) for name in (schema.scan, schema.mask, schema.structure))
    for row, path in enumerate(scans):
        if path is None:
            trouble.append((row, "scan-missing", "each row must name a scan; got an empty cell"))
            continue
        drawn = masks[row]
        try:
            scan = resolve(path, root)
            mask = None if drawn is None else resolve(drawn, root)
        except DataError as error:
            trouble.append((row, "scan-outside-root", str(error).rstrip(".")))
            continue
        wrong = None if scan.is_dir() or (is_file(scan) and is_scan_file(scan)) else path
        wrong = drawn if wrong is None and mask is not None and not is_file(mask) else wrong
        if wrong is not None:
            said = "a scan must be a .nii, .nii.gz, .nrrd or .mha file or a folder of DICOM slices, and a mask a file"
            trouble.append((row, "scan-not-found", f"{said}; got {wrong!r}, which is not. Check the path"))
            continue
        found[row] = ScanReference(scan, mask, structures[row], path)
    return found, trouble


def _from_folder(frame: pd.DataFrame, schema: CohortSchema, root: Path) -> tuple[dict[int, ScanReference], Trouble]:
    folder = resolve(schema.scan_folder or ".", root)
    if not folder.is_dir():
        raise DataError(f"`scan_folder` must be a folder below the data root; got {schema.scan_folder!r}.")
    known = folder_scans(folder)
    found: dict[int, ScanReference] = {}
    trouble: Trouble = []
    structures = _words(frame, schema.structure)
    for row, name in enumerate(_words(frame, schema.patient)):
        if name is None or name not in known:
            said = f"{name!r} must have a scan in the folder {schema.scan_folder!r}; it has none. Remove the row"
            trouble.append((row, "scan-not-found", said))
            continue
        scan, mask = known[name]
        try:  # links of the folder may not lead out of it
            scan = resolve(str(scan.relative_to(folder)), folder)
            mask = None if mask is None else resolve(str(mask.relative_to(folder)), folder)
        except DataError as error:
            trouble.append((row, "scan-outside-root", str(error).rstrip(".")))
            continue
        found[row] = ScanReference(scan, mask, structures[row], name)
    return found, trouble


def _words(frame: pd.DataFrame, column: str | None) -> list[str | None]:
    """A column as text, None in empty cells and where there is no column."""
    if column is None or column not in frame:
        return [None] * len(frame)
    words = as_text(column_of(frame, column))
    return [None if empty else str(word) for word, empty in zip(words, is_none(words), strict=True)]
