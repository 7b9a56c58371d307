"""Audit of scans: series that are no volumes, masks that do not fit, units that differ, what identifies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from survlens.core.errors import SurvlensError
from survlens.data.contours import Structure
from survlens.data.dicom import Series, SeriesFault
from survlens.data.dicom_headers import open_header
from survlens.data.findings import Finding, Severity, finding
from survlens.data.geometry import Volume
from survlens.data.itk_scans import is_scan_file
from survlens.data.nifti import is_nifti
from survlens.data.privacy import IDENTIFYING
from survlens.data.scans import HeldScan, ScanReference

SPACING = (0.02, 50.0)
"""Millimetres between voxels that a scan of a person can have."""
SIDES = (4, 4096)
"""Voxels along an axis that a scan can have."""
EXTENT = 2500.0
"""Millimetres that a scan can reach along an axis."""
_FREE_TEXTS = ("descrip", "db_name", "aux_file")  # of a NIfTI header
_FILLABLE = {SeriesFault.MISSING, SeriesFault.UNEVEN}
_ADVICE = {
    SeriesFault.DUPLICATE: "Remove the copies",
    SeriesFault.MISSING: "Export the series again, or have the slices interpolated (--resample-missing)",
    SeriesFault.UNEVEN: "Export the series again, or have it put on a regular grid (--resample-missing)",
    SeriesFault.TILT: "Export it corrected for the tilt, or leave it out",
    SeriesFault.MIXED_RESCALE: "Export the series again with one kind of values",
}


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """What a cohort is compared in.

    Attributes:
        where: What a table calls the scan.
        modality: "CT", "MR" ...
        unit: What the values mean.
        spacing: Millimetres between voxels along each axis, smallest first.
        intercepts: Of the rescaling, all that occur.
    """

    where: str
    modality: str
    unit: str
    spacing: tuple[float, ...]
    intercepts: tuple[float, ...] = ()


def series_findings(series: Series, where: str, *, fill_missing: bool = False) -> Iterator[Finding]:
    """What is wrong with a series of DICOM slices.

    Args:
        series: The slices.
        where: What the table of findings calls it.
        fill_missing: Whether slices that are missing are interpolated; then they are a warning.
    """
    for kind, words in series.found_faults().items():
        if fill_missing and kind in _FILLABLE:
            yield finding(kind.value, Severity.WARNING, f"{words}; they are interpolated.", column=where)
        else:
            yield finding(
                kind.value, Severity.ERROR, f"a series must be one regular volume; {words}. {_ADVICE[kind]}.",
                column=where,
            )  # fmt: skip
    if any(each.burned_in for each in series.slices):
        message = "the header says that text is burned into the picture; it may name the patient. Look at the scan."
        yield finding("burned-in", Severity.WARNING, message, column=where)
    intercepts = {each.intercept for each in series.slices if each.intercept is not None}
    if len(intercepts) > 1 and series.modality == "CT":
        message = (
            f"the rescale intercepts of the slices differ ({_listed(intercepts)}). Each slice is rescaled by its own; "
            "look for a step in brightness."
        )
        yield finding("intercepts-differ", Severity.WARNING, message, column=where)
    if any(each.inverted for each in series.slices):
        message = "low values are white (MONOCHROME1); they are turned round, and the unit is arbitrary."
        yield finding("inverted", Severity.WARNING, message, column=where)
    first = series.slices[0]
    yield from geometry_findings((*first.shape, len(series.slices)), (*first.spacing, series.gap), where)


def geometry_findings(shape: Sequence[int], spacing: Sequence[float], where: str) -> Iterator[Finding]:
    """Spacing and size that no scan of a person has.

    Args:
        shape: Voxels along each axis.
        spacing: Millimetres along each axis.
        where: What the table of findings calls the scan.
    """
    if min(spacing) < SPACING[0] or max(spacing) > SPACING[1]:
        shown = " x ".join(f"{each:.4g}" for each in spacing)
        message = f"the spacing must lie within {SPACING[0]} to {SPACING[1]} mm; got {shown}. Check its unit."
        yield finding("spacing-absurd", Severity.ERROR, message, column=where)
    if min(shape) < SIDES[0] or max(shape) > SIDES[1]:
        shown = " x ".join(map(str, shape))
        message = f"a scan must have {SIDES[0]} to {SIDES[1]} voxels along each axis; got {shown}. Leave it out."
        yield finding("size-absurd", Severity.ERROR, message, column=where)
    elif max(side * step for side, step in zip(shape, spacing, strict=True)) > EXTENT:
        message = f"the scan is more than {EXTENT / 1000:g} m long. Check the spacing."
        yield finding("size-absurd", Severity.ERROR, message, column=where)


def structure_findings(structures: Sequence[Structure], volume: Volume, where: str) -> Iterator[Finding]:
    """Contours that reach over the edge of the scan.

    Args:
        structures: Those that make the mask.
        volume: The scan.
        where: What the table of findings calls it.
    """
    height, width, _ = volume.values.shape
    points = [volume.voxel(contour) for each in structures for contour in each.contours]
    if not points:
        return
    places = np.concatenate(points)[:, :2]
    outside = (places < -0.5) | (places > np.array([height, width]) - 0.5)
    if outside.any():
        share = outside.any(axis=1).mean()
        message = f"{share:.0%} of the contours' points lie beside the volume, so that the mask is cut off. Look at it."
        yield finding("mask-cut-off", Severity.WARNING, message, column=where)


def mask_findings(mask: Bool[np.ndarray, "i j k"], where: str) -> Iterator[Finding]:
    """A mask that is empty or reaches the edge of the scan.

    Args:
        mask: Voxels of the structure.
        where: What the table of findings calls it.
    """
    if not mask.any():
        message = "the mask must cover voxels; it is empty. Draw it, or leave the row out."
        yield finding("mask-empty", Severity.ERROR, message, column=where)
        return
    if mask[:, :, [0, -1]].any():
        message = "the mask reaches the first or last slice: the structure may go on outside the scan."
        yield finding("mask-at-edge", Severity.WARNING, message, column=where)
    if mask.mean() > 0.5:
        message = f"the mask covers {mask.mean():.0%} of the scan. Is it turned inside out?"
        yield finding("mask-large", Severity.WARNING, message, column=where)


def cohort_findings(scans: Sequence[ScanFacts]) -> Iterator[Finding]:
    """What differs between the scans of a cohort.

    Args:
        scans: Those that can be used.
    """
    modalities = Counter(each.modality for each in scans if each.modality)
    if len(modalities) > 1:
        message = f"scans of one cohort should be of one modality; got {_counted(modalities)}. Choose one."
        yield finding("modalities-mixed", Severity.WARNING, message)
    for modality in modalities:
        units = Counter(each.unit for each in scans if each.modality == modality)
        if len(units) > 1:
            rare = min(units, key=lambda unit: units[unit])
            shown = [each.where for each in scans if (each.modality, each.unit) == (modality, rare)][:3]
            message = (
                f"the {modality} scans of one cohort must have one unit; got {_counted(units)}, such as "
                f"{', '.join(shown)}. Leave one kind out, or export it rescaled."
            )
            yield finding("units-differ", Severity.ERROR, message)
    intercepts = {value for each in scans for value in each.intercepts}
    if len(intercepts) > 1:
        message = (
            f"rescale intercepts differ within the cohort ({_listed(intercepts)}); each slice is rescaled by its own."
        )
        yield finding("intercepts-of-cohort", Severity.NOTE, message)
    steps = [max(each.spacing) for each in scans if each.spacing]
    if steps and max(steps) > 2 * min(steps):
        message = f"the largest spacing is {min(steps):.3g} to {max(steps):.3g} mm. Resample to one before training."
        yield finding("spacings-differ", Severity.ADVICE, message)


def identifier_findings(filled: Mapping[str, int]) -> Iterator[Finding]:
    """How much in the source files identifies somebody; never what.

    Args:
        filled: Number of attributes that identify and are filled, by patient.
    """
    counts = [count for count in filled.values() if count]
    if counts:
        message = (
            f"the files of {len(counts)} of {len(filled)} patients hold up to {max(counts)} filled attributes that "
            "help to identify a person. None of them is written; do not pass the source on."
        )
        yield finding("identifiers", Severity.NOTE, message)


@dataclass(frozen=True, slots=True)
class LookedScan:
    """What was seen of one scan and its mask.

    Attributes:
        findings: What is wrong with them.
        facts: What the cohort is compared in; None where the scan cannot be read.
        filled: Number of attributes of its files that identify and are filled.
    """

    findings: tuple[Finding, ...]
    facts: ScanFacts | None
    filled: int


def reference_findings(
    references: Mapping[int, ScanReference], column: str | None, mask_column: str | None
) -> Iterator[Finding]:
    """Everything that is wrong with the scans and masks that the rows of a table name.

    Args:
        references: Scan of each row, by its position from 0.
        column: Column with the paths of scans.
        mask_column: Column with the paths of masks, or None.
    """
    looked = {row: looked_at(HeldScan.of(reference)) for row, reference in references.items()}
    yield from looked_findings(looked, column, mask_column)


def looked_findings(looked: Mapping[int, LookedScan], column: str | None, mask_column: str | None) -> Iterator[Finding]:
    """What was seen of the scans of a table, by row, and what differs between them.

    Args:
        looked: What was seen of each row, by its position from 0.
        column: Column with the paths of scans.
        mask_column: Column with the paths of masks, or None.
    """
    for row, each in looked.items():
        for one in each.findings:
            of_mask = one.code.startswith("mask") and mask_column is not None
            named = mask_column if of_mask else column
            yield finding(one.code, one.severity, one.message, positions=[row], column=named)
    usable = {row: each for row, each in looked.items() if each.facts is not None}
    yield from cohort_findings([each.facts for each in usable.values() if each.facts is not None])
    yield from identifier_findings({str(row): each.filled for row, each in usable.items()})


def looked_at(reference: ScanReference) -> LookedScan:
    """Reads a scan and its mask, and says what is wrong with them.

    Args:
        reference: The scan; a `HeldScan` is read once.
    """
    try:
        found, facts, filled = _of_series(reference) if reference.scan.is_dir() else _of_file(reference)
        volume = reference.volume()
    except SurvlensError as error:
        return LookedScan((finding("scan-unreadable", Severity.ERROR, str(error)),), None, 0)
    if not np.ptp(volume.values):
        found.append(finding("scan-blank", Severity.ERROR, "the scan has one value everywhere. Export it again."))
    if reference.mask is not None:
        try:
            mask = Volume(reference.region(volume).astype(np.uint8), volume.affine).canonical().values > 0
            found += mask_findings(mask, "")
            if is_scan_file(reference.mask) and not volume.canonical().same_grid(reference.labels()):
                message = "scan and mask have different grids; the mask is brought to the scan's, by the nearest voxel."
                found.append(finding("mask-grid", Severity.WARNING, message))
        except SurvlensError as error:
            found.append(finding("mask-unusable", Severity.ERROR, str(error)))
    return LookedScan(tuple(found), replace(facts, unit=volume.unit), filled)


def _of_series(reference: ScanReference) -> tuple[list[Finding], ScanFacts, int]:
    series = reference.series()
    first = series.slices[0]
    intercepts = tuple(sorted({each.intercept for each in series.slices if each.intercept is not None}))
    spacing = tuple(sorted((*first.spacing, series.gap)))
    header = open_header(first.path)
    filled = sum(header.get(keyword) not in (None, "") for keyword in IDENTIFYING)
    facts = ScanFacts(reference.name, series.modality, "", spacing, intercepts)
    return list(series_findings(series, "")), facts, filled


def _of_file(reference: ScanReference) -> tuple[list[Finding], ScanFacts, int]:
    volume = reference.volume()
    found, filled = list(geometry_findings(volume.values.shape, volume.spacing.tolist(), "")), 0
    if is_nifti(reference.scan):
        header = _nifti_header(reference.scan)
        if volume.orthogonal:  # a qform cannot say a shear
            found += _place_findings(header)
        filled = sum(bool(bytes(header[each]).strip(b"\0 ")) for each in _FREE_TEXTS)
        if np.linalg.det(header.get_best_affine()[:3, :3]) < 0:
            message = "the axes of the file are left-handed; they are turned when it is read."
            found.append(finding("left-handed", Severity.NOTE, message))
    if not volume.orthogonal:
        message = "the axes must stand at right angles; they are sheared (a tilted gantry?). Resample the scan first."
        found.append(finding(SeriesFault.TILT.value, Severity.ERROR, message))
    return found, ScanFacts(reference.name, "", "", tuple(sorted(volume.spacing.tolist()))), filled


def _place_findings(header: Any) -> Iterator[Finding]:
    """A file whose two matrices, sform and qform, put its corners at different places."""
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return
    corners = np.array(np.meshgrid(*[(0.0, side - 1.0) for side in header.get_data_shape()[:3]], [1.0])).reshape(4, -1)
    apart = np.linalg.norm((header.get_sform() - header.get_qform())[:3] @ corners, axis=0).max()
    if apart > 0.5 * min(header.get_zooms()[:3]):
        message = (
            f"the two matrices of the file (sform and qform) put its corners up to {apart:.3g} mm apart; the sform is "
            "taken, other programs may take the qform. Find out which is right, and write the file with one."
        )
        yield finding("places-disagree", Severity.WARNING, message)


def _nifti_header(path: Path) -> Any:
    import nibabel

    return nibabel.load(path).header  # pyright: ignore[reportPrivateImportUsage]


def _listed(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values)[:6]) + (", ..." if len(values) > 6 else "")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())
