"""Scans on disk as the arrays a network sees, with their place in the patient.

Axes, everywhere: a prepared volume is (channel, x, y, z), with x rising to the patient's right, y to the front and z to
the head, the axes of a canonical NIfTI file; where a scan lies oblique, the directions nearest to these. Explanations
call the three height, width and depth. A slice is (channel, x, y) at one z. The `affine` of a prepared scan takes the
voxel (x, y, z) of the prepared array, z being 0 for a slice, to the world in millimetres, so an attribution of that
array is written into the frame of the scan by `Attribution.to_nifti`.

Channels: the scan in [0, 1], or three neighbouring slices of it from below to above; then the mask, where asked for.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from survlens.core.choices import check_choice
from survlens.core.errors import CorruptFileError, DataError, InvalidValueError, MissingDependencyError
from survlens.data.contours import read_segmentation, read_structures, structure_mask
from survlens.data.dicom import Series, dicom_files, one_series, read_volume
from survlens.data.geometry import Volume, box_of
from survlens.data.itk_scans import is_scan_file, read_scan_file
from survlens.data.nifti import label_mask

PREPARATION = 1
"""Number of the way scans are prepared; what another one made is not taken from a cache."""

_BLUR = 4
"""Voxels of the coarser grid beyond which smoothing hardly reaches."""


class ScanView(Enum):
    """What a network sees of a scan.

    VOLUME: all of it. SLICE: one slice across z. THREE_SLICES: a slice with its two neighbours as channels (2.5-D).
    Slices are those where the region covers most.
    """

    VOLUME = "volume"
    SLICE = "slice"
    THREE_SLICES = "three_slices"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """How a scan becomes an array.

    In this order: canonical orientation, resampling, choice of the slice, crop to the region, size, window.

    Attributes:
        window: Values that become 0 and 1, low < high, what lies beyond is cut; None takes the 1st and 99th percentile
            of each scan, for values of no fixed meaning such as MR.
        spacing: Millimetres between voxels along x, y and z that scans are resampled to; None keeps their own.
        size: Voxels along each axis of the result (two for slices). With `spacing`, the box is filled up or cut around
            its middle; without, it is stretched, so that the size of what is in it is no longer seen.
        crop: Whether to cut to the region of the mask; of slices, to the region in the slice.
        margin: Millimetres around the region that stay, >= 0.
        mask_channel: Whether the mask is the last channel.
        view: What is seen of the scan.
        slices: How many slices of a scan are rows of a cohort; fewer where the region covers fewer.

    Raises:
        InvalidValueError: If a number lies outside its range, or `size` has another number of sides than the view.
    """

    window: tuple[float, float] | None = None
    spacing: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    crop: bool = False
    margin: float = 10.0
    mask_channel: bool = False
    view: ScanView = ScanView.VOLUME
    slices: int = 1

    def __post_init__(self) -> None:
        check_choice("view", self.view, ScanView)
        if self.window is not None and not (
            len(self.window) == 2 and -np.inf < self.window[0] < self.window[1] < np.inf
        ):
            raise InvalidValueError(f"`window` must be a low and a higher value, both finite; got {self.window}.")
        if self.spacing is not None and not (
            len(self.spacing) == 3 and all(0 < each < np.inf for each in self.spacing)
        ):
            raise InvalidValueError(f"`spacing` must be three lengths > 0 in millimetres; got {self.spacing}.")
        sides = 3 if self.view is ScanView.VOLUME else 2
        if self.size is not None and (len(self.size) != sides or min(self.size) < 1):
            raise InvalidValueError(
                f"`size` must be {sides} numbers of voxels >= 1 for the view {self.view.value!r}; got {self.size}."
            )
        if not 0 <= self.margin < np.inf or self.slices < 1 or (self.slices > 1 and sides == 3):
            raise InvalidValueError(
                f"`margin` must be >= 0 and `slices` >= 1, and 1 for the view 'volume'; got {self.margin} and "
                f"{self.slices}."
            )

    @property
    def needs_mask(self) -> bool:
        """Whether a scan without a mask cannot be prepared so."""
        return self.crop or self.mask_channel or self.view is not ScanView.VOLUME

    @property
    def channels(self) -> int:
        """Channels of a prepared scan."""
        return (3 if self.view is ScanView.THREE_SLICES else 1) + int(self.mask_channel)

    @property
    def key(self) -> str:
        """All that a prepared scan depends on beside the scan itself, as text."""
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "slices"}
        return json.dumps({**said, "view": self.view.value, "preparation": PREPARATION}, sort_keys=True)


@dataclass(frozen=True, slots=True)
class ScanReference:
    """A scan on disk with its mask, read when it is needed.

    Attributes:
        scan: A NIfTI, NRRD or MetaImage file, or a folder with one DICOM series of several slices.
        mask: A file of labels in one of these formats, an RTSTRUCT or a DICOM-SEG file; None for none.
        structure: Which region of the mask: the name of a structure or segment, without regard to case, or labels of a
            NIfTI mask such as "1" or "1, 3"; None where it has one region, or every label of a NIfTI mask is meant.
        name: What messages call it.
    """

    scan: Path
    mask: Path | None = None
    structure: str | None = None
    name: str = field(default="scan")

    @property
    def identity(self) -> str:
        """SHA-256 of the content of the files and the name of the structure, whatever the files are called."""
        parts = [_content(self.scan, self.name), "" if self.mask is None else _content(self.mask, self.name)]
        return hashlib.sha256("\0".join([*parts, self.structure or ""]).encode()).hexdigest()

    def volume(self) -> Volume:
        """The scan as it is stored.

        Raises:
            CorruptFileError: If a file is missing, broken or of another kind.
            DataError: If it is no regular volume.
        """
        return read_volume(self.series()) if self.scan.is_dir() else read_scan_file(self.scan)

    def series(self) -> Series:
        """The slices of a scan that is a folder, by their headers.

        Raises:
            CorruptFileError: If a file is broken.
            DataError: If the folder does not hold one series.
        """
        return one_series(dicom_files(self.scan))

    def labels(self) -> Volume:
        """The mask, where it is a file of labels, as it is stored.

        Raises:
            CorruptFileError: If the file is missing, broken or of another kind.
        """
        return read_scan_file(self.mask or self.scan)

    def region(self, volume: Volume) -> Bool[np.ndarray, "i j k"]:
        """Voxels of `volume` inside the region of the mask.

        Raises:
            CorruptFileError: If the file is missing, broken or of another kind.
            DataError: If there is no mask, no such structure, or it covers no voxel of the volume.
        """
        if self.mask is None:
            raise DataError(f"{self.name} must have a mask to be prepared so; it has none. Add its path to the table.")
        if is_scan_file(self.mask):
            labels = self.labels()
            inside = Volume(label_mask(labels, _labels(self.structure), self.mask.name).astype(np.uint8), labels.affine)
            mask = (inside if inside.same_grid(volume) else inside.on_grid_of(volume)).values > 0
        elif _modality(self.mask) == "SEG":
            mask = read_segmentation(self.mask, self.structure, volume)
        else:
            structures = read_structures(self.mask)
            if self.structure is None and len({each.name.lower() for each in structures}) > 1:
                listed = ", ".join(sorted(each.name for each in structures))
                raise DataError(f"`structure` must name one of {listed} of {self.name}; got none. Add it to the table.")
            mask = structure_mask(structures, self.structure or structures[0].name, volume)
        if not mask.any():
            raise DataError(
                f"the mask of {self.name} must cover voxels of its scan; it covers none. Check that they belong "
                "together."
            )
        return mask


@dataclass(frozen=True, slots=True)
class HeldScan(ScanReference):
    """A scan whose files are read once and held, for all that look at it one after another."""

    _held: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @staticmethod
    def of(reference: ScanReference) -> HeldScan:
        """The same scan, held."""
        return HeldScan(reference.scan, reference.mask, reference.structure, reference.name)

    def volume(self) -> Volume:
        """See `ScanReference`."""
        return self._once("volume", lambda: ScanReference.volume(self))

    def series(self) -> Series:
        """See `ScanReference`."""
        return self._once("series", lambda: ScanReference.series(self))

    def labels(self) -> Volume:
        """See `ScanReference`."""
        return self._once("labels", lambda: ScanReference.labels(self))

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        if name not in self._held:
            self._held[name] = read()
        return self._held[name]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedScan:
    """A scan as a network sees it.

    Attributes:
        values: Channels and sides, as the head of this module says.
        affine: Voxel (x, y, z) of `values` to world, RAS+.
        covered: Slices that the region covers, of which one was chosen; 0 for a whole volume.
    """

    values: Float32[np.ndarray, "channel *space"]
    affine: Float64[np.ndarray, "4 4"]
    covered: int = 0


def prepared(reference: ScanReference, settings: ScanSettings, *, rank: int = 0) -> PreparedScan:
    """Reads a scan and prepares it.

    Args:
        reference: The scan.
        settings: How.
        rank: Of slices, which one: 0 is the one where the region covers most, 1 the next.

    Raises:
        CorruptFileError: If a file is missing, broken or of another kind.
        DataError: If the scan is no regular volume, or has no mask where one is needed.
        InvalidValueError: If the region covers no more than `rank` slices.
    """
    stored = reference.volume()
    if not settings.needs_mask:
        region = None
    else:
        region = Volume(reference.region(stored).astype(np.float32), stored.affine).canonical()
    scan = Volume(stored.values.astype(np.float32, copy=False), stored.affine, stored.unit).canonical()
    low, high = _window(scan, settings, reference.name)
    if settings.crop and region is not None:
        scan, region = _near(scan, region, settings)
    if settings.spacing is not None:
        scan = _resampled(scan, settings.spacing, None)
        region = None if region is None else _resampled_region(region, settings.spacing, None)
    covered, depth = 0, scan.values.shape[2]
    if settings.view is not ScanView.VOLUME and region is not None:
        chosen = _slices_by_area(region)
        covered = len(chosen)
        if rank >= covered:
            raise InvalidValueError(f"`rank` must be below {covered}, the slices that the region covers; got {rank}.")
        at, reach = int(chosen[rank]), int(settings.view is ScanView.THREE_SLICES)
        across = scan.values.shape[:2]
        scan = scan.cropped((0, 0, at - reach), (*across, at + reach + 1), fill=low)
        region = region.cropped((0, 0, at), (*across, at + 1))
        depth = 1 + 2 * reach
    scan, region = _framed(scan, region, depth, settings, low)
    values = ((np.clip(scan.values, low, high) - low) / (high - low)).astype(np.float32)
    return PreparedScan(_channels(values, region, settings), _middle(scan, settings).affine, covered)


def _window(scan: Volume, settings: ScanSettings, name: str) -> tuple[float, float]:
    if settings.window is not None:
        return settings.window
    low, high = (float(each) for each in np.percentile(scan.values, (1, 99)))
    if not high > low:
        raise DataError(
            f"{name} must show something; most of it has one value, {low:g}. Set a window, or leave it out."
        )
    return low, high


def _near(scan: Volume, region: Volume, settings: ScanSettings) -> tuple[Volume, Volume]:
    """Both without what lies too far from the region to matter: less to resample."""
    coarse = scan.spacing if settings.spacing is None else np.maximum(scan.spacing, settings.spacing)
    sides = np.array([*(settings.size or ()), 0])[:3] if settings.spacing is not None else np.zeros(3)
    reach = settings.margin + coarse * (_BLUR + sides)
    box = box_of(region.values > 0, np.ceil(reach / scan.spacing).astype(int).tolist())
    start, stop = np.maximum(box[0], 0).tolist(), np.minimum(box[1], scan.values.shape).tolist()
    return scan.cropped(start, stop), region.cropped(start, stop)


def _framed(
    scan: Volume, region: Volume | None, depth: int, settings: ScanSettings, low: float
) -> tuple[Volume, Volume | None]:
    """Both cut to the region and brought to the size; of slices along x and y only."""
    start, stop = np.zeros(3, dtype=np.int64), np.array(scan.values.shape)
    free = 3 if settings.view is ScanView.VOLUME else 2
    if settings.crop and region is not None:
        box = box_of(region.values > 0, np.ceil(settings.margin / scan.spacing).astype(int).tolist())
        start[:free], stop[:free] = box[0, :free], box[1, :free]
    if settings.size is not None and settings.spacing is not None:
        start[:free] += (stop[:free] - start[:free] - np.array(settings.size)) // 2
        stop[:free] = start[:free] + np.array(settings.size)
    scan = scan.cropped(start.tolist(), stop.tolist(), fill=low)
    if region is not None:
        start[2], stop[2] = (start[2], stop[2]) if free == 3 else (0, 1)
        region = region.cropped(start.tolist(), stop.tolist())
    if settings.size is None or settings.spacing is not None:
        return scan, region
    shape = (*settings.size, depth)[:3]
    spacing = scan.spacing * np.array(scan.values.shape) / np.array(shape)
    if region is not None:
        region = _resampled_region(region, spacing, (*settings.size, 1)[:3])
    return _resampled(scan, spacing, shape), region


def _resampled(volume: Volume, spacing: Sequence[float] | np.ndarray, shape: Sequence[int] | None) -> Volume:
    """On another grid; where that is coarser, smoothed first, so that what lies between its points is not lost."""
    from scipy.ndimage import gaussian_filter

    target = np.asarray(spacing, dtype=np.float64)
    if shape is None:
        shape = np.maximum(np.rint(volume.values.shape * volume.spacing / target), 1).astype(int).tolist()
    values, blur = volume.values, np.maximum(target / volume.spacing - 1, 0) / 2
    if blur.max() > 0.01:
        values = gaussian_filter(values, blur, mode="nearest")
    # The outermost voxels reach half a voxel beyond their centres: a rim of their values keeps the edge from darkening.
    affine = volume.affine.copy()
    affine[:3, 3] = volume.world(np.full((1, 3), -1.0))[0]
    return Volume(np.pad(values, 1, mode="edge"), affine, volume.unit).resampled(target.tolist(), shape=shape)


def _resampled_region(region: Volume, spacing: Sequence[float] | np.ndarray, shape: Sequence[int] | None) -> Volume:
    """Voxels of which at least half lies inside; of a region smaller than any voxel, those that hold most of it."""
    share = _resampled(region, spacing, shape)
    inside = share.values >= min(0.5, max(float(share.values.max()), 1e-6))
    return Volume(inside.astype(np.float32), share.affine)


def _slices_by_area(region: Volume) -> np.ndarray:
    """Slices across z that the region covers, by falling area; of equal ones the lower first."""
    areas = (region.values > 0).sum((0, 1))
    order = np.argsort(-areas, kind="stable")
    return order[areas[order] > 0]


def _channels(values: np.ndarray, region: Volume | None, settings: ScanSettings) -> np.ndarray:
    volume = settings.view is ScanView.VOLUME
    parts = values[None] if volume else np.moveaxis(values, 2, 0)
    if settings.mask_channel and region is not None:
        inside = (region.values > 0).astype(np.float32)
        parts = np.concatenate([parts, inside[None] if volume else np.moveaxis(inside, 2, 0)])
    return np.ascontiguousarray(parts, dtype=np.float32)


def _middle(scan: Volume, settings: ScanSettings) -> Volume:
    """The volume whose voxels the result has: of three slices the middle one."""
    if settings.view is not ScanView.THREE_SLICES:
        return scan
    return scan.cropped((0, 0, 1), (*scan.values.shape[:2], 2))


def _labels(structure: str | None) -> tuple[int, ...] | None:
    """Labels that a cell names, such as "1" or "1, 3"."""
    if structure is None:
        return None
    words = [each for each in re.split(r"[\s,;+]+", structure.strip()) if each]
    if not words or not all(re.fullmatch(r"\d+(\.0+)?", each) for each in words):
        raise DataError(f"`structure` must be labels of a NIfTI mask, such as 1 or 1, 3; got {structure!r}.")
    return tuple(int(float(each)) for each in words)


def _modality(path: Path) -> str:
    try:
        import pydicom
    except ImportError as error:
        raise MissingDependencyError(
            "Reading DICOM needs pydicom; it is not installed. Run: pip install survlens[imaging]"
        ) from error
    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality", ""))
    except Exception as error:
        raise CorruptFileError(
            f"{path.name} must be a mask as NIfTI, RTSTRUCT or DICOM-SEG; it cannot be read. Export it again."
        ) from error


def _content(path: Path, name: str) -> str:
    """SHA-256 of a file, or of all DICOM files of a folder, in no particular order."""
    try:
        files = dicom_files(path) if path.is_dir() else [path]
        stamps = [(each, each.stat()) for each in files]
        found = sorted(_digest(str(each), stamp.st_size, stamp.st_mtime_ns) for each, stamp in stamps)
    except OSError as error:
        raise CorruptFileError(
            f"{name} must be readable; got {error.strerror or 'an error'}. Check its path."
        ) from error
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


@functools.lru_cache(maxsize=1 << 17)
def _digest(path: str, size: int, changed: int) -> str:
    """SHA-256 of a file, computed once as long as its size and time of change stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
