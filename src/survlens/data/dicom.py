"""DICOM series as volumes: sorted by place, rescaled slice by slice, with the faults of real exports found and named.

Nothing that identifies a person is kept: of a header only what a volume needs is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from survlens.core.errors import CorruptFileError, DataError
from survlens.data.dicom_headers import Slice, pydicom_module, quiet, read_header
from survlens.data.geometry import Volume
from survlens.data.pet import UptakeFacts, uptake_factor

MOST_VOXELS = 1_500_000_000
"""A series of more voxels is refused before anything is decoded."""
_UNEVEN = 0.01  # share by which the distance of slices may differ
_TILT = 1e-3  # shear, as a share of the distance of slices
_AT_ONE_PLACE = 1e-3  # millimetres
_ALIKE = 1e-3  # by which direction cosines, and shares of the spacing, differ within a series
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class SeriesFault(Enum):
    """Why slices do not make a regular volume."""

    DUPLICATE = "slices-duplicate"
    MISSING = "slices-missing"
    UNEVEN = "slices-uneven"
    TILT = "gantry-tilt"
    MIXED_RESCALE = "units-mixed"


@dataclass(frozen=True, slots=True)
class Series:
    """Slices of one series, orientation and size, in the order of their place along the normal."""

    slices: tuple[Slice, ...]

    @property
    def modality(self) -> str:
        """What took the pictures."""
        return self.slices[0].modality

    @property
    def places(self) -> np.ndarray:
        """Place of each slice along the normal, in millimetres."""
        return np.array([np.dot(each.position, self.slices[0].normal) for each in self.slices])

    @property
    def gap(self) -> float:
        """The usual distance of neighbouring slices in millimetres; 0 where there is none."""
        gaps = np.diff(self.places)
        gaps = gaps[gaps >= _AT_ONE_PLACE]
        return float(np.median(gaps)) if len(gaps) else 0.0

    @property
    def affine(self) -> np.ndarray:
        """Voxel (row, column, slice) to world, RAS+.

        Raises:
            DataError: If there is one slice only.
        """
        return self.on_grid(len(self.slices))

    def on_grid(self, depth: int) -> np.ndarray:
        """Voxel to world where `depth` slices stand from the first place to the last.

        Raises:
            DataError: If there is one slice only.
        """
        first, last = self.slices[0], self.slices[-1]
        if depth < 2:
            raise DataError(f"{first.name} must have neighbours to be a volume; got a series of one slice.")
        matrix = np.eye(4)
        matrix[:3, 0] = np.array(first.rows) * first.spacing[0]
        matrix[:3, 1] = np.array(first.columns) * first.spacing[1]
        matrix[:3, 2] = (np.array(last.position) - np.array(first.position)) / (depth - 1)
        matrix[:3, 3] = first.position
        return LPS_TO_RAS @ matrix

    def faults(self) -> tuple[str, ...]:
        """What is wrong with the series as a volume, in words; empty where nothing is."""
        return tuple(self.found_faults().values())

    def found_faults(self) -> dict[SeriesFault, str]:
        """What is wrong with the series as a volume: kind and words."""
        found, first = {}, self.slices[0]
        gaps, usual = np.diff(self.places), self.gap
        same = gaps < _AT_ONE_PLACE
        if same.any():
            found[SeriesFault.DUPLICATE] = f"{int(same.sum())} slices stand at a place that another has"
        gaps = gaps[~same]
        if len(gaps) and np.abs(gaps - usual).max() > _UNEVEN * usual:
            missing = int(np.maximum(np.rint(gaps / usual) - 1, 0).sum())
            if missing:
                found[SeriesFault.MISSING] = f"{missing} slices of {usual:g} mm are missing"
            else:
                found[SeriesFault.UNEVEN] = f"slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart"
        away = np.array([each.position for each in self.slices]) - np.array(first.position)
        sideways = away - np.outer(away @ first.normal, first.normal)
        reach = max(float(np.ptp(self.places)), 1e-9)
        if abs(first.tilt) > 0.1 or np.linalg.norm(sideways, axis=1).max() > max(_TILT * reach, 0.01):
            found[SeriesFault.TILT] = f"the gantry is tilted (header: {first.tilt:g} degrees)"
        unlike = {(each.rescaled, each.inverted) for each in self.slices}
        if len(unlike) > 1:
            found[SeriesFault.MIXED_RESCALE] = "some slices are rescaled or inverted and others are not"
        return found


def series_of(paths: Iterable[Path]) -> tuple[Series, ...]:
    """The series among files: grouped by identifier, orientation, spacing and size; the longest first.

    Raises:
        CorruptFileError: If a file cannot be read.
    """
    return grouped(each for path in sorted(paths) if (each := read_header(path)) is not None)


def grouped(slices: Iterable[Slice]) -> tuple[Series, ...]:
    """Slices by identifier, orientation, spacing and size, each group in the order of place; the longest first.

    Orientations and spacings are alike up to a thousandth, since scanners round them differently from slice to slice.
    """
    groups: dict[tuple, list[list[Slice]]] = {}
    for each in slices:
        kinds = groups.setdefault((each.series, each.shape), [])
        alike = next((kind for kind in kinds if _alike(each, kind[0])), None)
        if alike is None:
            kinds.append([each])
        else:
            alike.append(each)
    found = []
    for members in (kind for kinds in groups.values() for kind in kinds):
        normal = members[0].normal
        found.append(Series(tuple(sorted(members, key=lambda each: float(np.dot(each.position, normal))))))
    return tuple(sorted(found, key=lambda each: -len(each.slices)))


def _alike(one: Slice, other: Slice) -> bool:
    turned = np.abs(np.array(one.rows + one.columns) - np.array(other.rows + other.columns)).max()
    stretched = np.abs(np.array(one.spacing) / np.array(other.spacing) - 1).max()
    return bool(turned <= _ALIKE and stretched <= _ALIKE)


def one_series(paths: Iterable[Path], series: str | None = None) -> Series:
    """The series of `paths`, which must be one unless it is named.

    Args:
        paths: Files of a folder.
        series: Identifier of the series to take, or the modality where it is the only one of it.

    Raises:
        DataError: If there is none, or several to choose from.
    """
    found = series_of(paths)
    if series is not None:
        found = tuple(each for each in found if series in (each.slices[0].series, each.modality))
    if len(found) == 1:
        return found[0]
    counts = Counter(f"{each.modality} of {len(each.slices)} slices" for each in found)
    listed = ", ".join(f"{count} x {words}" if count > 1 else words for words, count in counts.items())
    raise DataError(
        f"`series` must name one series; the folder has {listed or 'none'}. "
        + ("Name its identifier or modality." if found else "Point to the folder with the slices.")
    )


def read_volume(series: Series, *, fill_missing: bool = False) -> Volume:
    """The voxels of a series in the order of their place, each slice by its own rescale slope and intercept.

    CT is in Hounsfield units and PET in standardised uptake values; where a file has no rescaling, as MR, values are as
    stored and the unit is "arbitrary". MONOCHROME1, where white is low, is turned round after the rescaling, within the
    range of the series; its unit is "arbitrary" too.

    Args:
        series: The slices.
        fill_missing: Puts slices that are missing or unevenly placed on a regular grid, by linear interpolation between
            neighbours, instead of refusing the series.

    Raises:
        DataError: If the series has faults (slices missing, doubled or tilted), or PET lacks what uptake values need.
        CorruptFileError: If the pixels of a file cannot be read.
    """
    faults = series.found_faults()
    if fill_missing:
        faults = {kind: words for kind, words in faults.items() if kind not in _FILLED}
    if faults:
        raise DataError(f"the {series.modality} series must be a regular volume; {'; '.join(faults.values())}.")
    places = series.places
    depth = int(np.rint(np.ptp(places) / series.gap)) + 1 if fill_missing and series.gap else len(places)
    if depth > 2 * len(places):
        raise DataError(f"{depth - len(places)} slices of {depth} are missing, too many to fill. Export it again.")
    shape = (*series.slices[0].shape, depth)
    if int(np.prod(shape, dtype=np.int64)) > MOST_VOXELS:
        raise DataError(f"a volume must have at most {MOST_VOXELS:,} voxels; got {shape}. Crop or resample it first.")
    affine = series.on_grid(depth)
    first, facts = _pixels(series.slices[0])
    values, uptake = np.empty((*first.shape, len(places)), np.float32), [facts]
    values[:, :, 0] = first
    for place, each in enumerate(series.slices[1:], 1):
        values[:, :, place], facts = _pixels(each)
        uptake.append(facts)
    if depth != len(places) or (fill_missing and SeriesFault.UNEVEN in series.found_faults()):
        values = _filled(values, places, depth)
    unit = "HU" if series.slices[0].rescaled and series.modality == "CT" else "arbitrary"
    if series.modality == "PT":
        values *= np.float32(uptake_factor(uptake, "the PET series"))
        unit = "SUV"
    if series.slices[0].inverted:
        values, unit = values.max() + values.min() - values, "arbitrary"
    return Volume(values, affine, unit)


_FILLED = {SeriesFault.MISSING, SeriesFault.UNEVEN}


def _filled(values: np.ndarray, places: np.ndarray, depth: int) -> np.ndarray:
    wanted = np.linspace(places[0], places[-1], depth)
    after = np.clip(np.searchsorted(places, wanted), 1, len(places) - 1)
    share = ((wanted - places[after - 1]) / (places[after] - places[after - 1])).astype(np.float32)
    return values[:, :, after - 1] * (1 - share) + values[:, :, after] * share


def _pixels(each: Slice) -> tuple[np.ndarray, UptakeFacts]:
    pydicom = pydicom_module()
    try:
        with quiet():
            whole = pydicom.dcmread(each.path)
            facts = UptakeFacts.of(whole)
            stored = whole.pixel_array
    except Exception as err:
        raise CorruptFileError(
            f"{each.name} must hold readable pixels; they cannot be decoded ({type(err).__name__}). Export it again, "
            "uncompressed."
        ) from None
    if stored.shape != each.shape:
        raise CorruptFileError(f"{each.name} must hold one grey slice of {each.shape}; got {stored.shape}.")
    values = stored.astype(np.float64)
    if each.slope is not None and each.intercept is not None:
        values = values * each.slope + each.intercept
    if not np.isfinite(values).all():
        raise CorruptFileError(f"{each.name} must hold finite pixels; some are not. Export it again.")
    return values.astype(np.float32), facts


def dicom_files(folder: Path) -> Sequence[Path]:
    """Files of a folder and its subfolders that may be DICOM files, by their preamble or name."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and may_be_dicom(path)]


def may_be_dicom(path: Path) -> bool:
    """Whether name or first bytes say that a file is a DICOM file, sound or broken."""
    with path.open("rb") as file:
        start = file.read(132)
    if path.suffix.lower() in {".dcm", ".ima"} or start[128:] == b"DICM":
        return True
    return not path.suffix and start[:2] in (b"\x08\0", b"\0\x08", b"\x02\0") and start[4:6].isalpha()
