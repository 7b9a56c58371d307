"""One patient of an export: the series that is meant, its volume, its mask, and everything that was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from survlens.core.errors import DataError, SurvlensError
from survlens.data.contours import Structure, read_segmentation, read_structures, segment_labels, structure_mask
from survlens.data.dicom import Series, grouped, read_volume
from survlens.data.findings import Finding, Severity, finding
from survlens.data.geometry import Volume
from survlens.data.nifti import write_nifti
from survlens.data.privacy import WITHHELD, KnownIdentifiers
from survlens.data.scan_checks import ScanFacts, mask_findings, series_findings, structure_findings
from survlens.study.import_walk import Drawing, Export, PatientFiles

FEWEST_SLICES = 4
"""A series of fewer slices is taken for a scout picture where there is a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """What an import takes, and what it makes of it.

    Attributes:
        structures: Names of structures whose union is the mask, without regard to case; the only one where empty.
        series: The series that is meant where a patient has several: its number, or words of its description, modality
            or kernel.
        largest: Takes the series with most slices where several are left.
        keep_dicom: Leaves the scans where they are, and writes their folders into the table.
        fill_missing: Interpolates slices that are missing.
    """

    structures: tuple[str, ...] = ()
    series: str | None = None
    largest: bool = False
    keep_dicom: bool = False
    fill_missing: bool = False


@dataclass(frozen=True, slots=True)
class PatientResult:
    """What became of a patient.

    Attributes:
        row: The row of the table, or None where no scan could be taken.
        facts: What the cohort is compared in, or None.
        findings: Everything that was found.
        structures: Names of structures that were drawn on the scan, as they may be shown.
        texts: Every free text of the files that may stand in the row, the findings or the structures.
    """

    row: dict[str, Any] | None
    facts: ScanFacts | None
    findings: tuple[Finding, ...]
    structures: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A structure set or segmentation that was opened."""

    drawing: Drawing
    structures: tuple[Structure, ...]
    labels: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.labels or tuple(each.name.strip() for each in self.structures)


def import_patient(
    patient: PatientFiles, export: Export, settings: ImportSettings, *, out: Path, root: Path
) -> PatientResult:
    """Takes one patient's scan and mask out of an export; what is wrong becomes a finding, never an exception.

    Args:
        patient: The files.
        export: Where they are from.
        settings: What is taken.
        out: Folder of the results.
        root: Folder that paths of the table start from.
    """
    result = _imported(patient, export, settings, out, root)
    own = {text for each in patient.slices for text in (each.kernel, each.manufacturer)}
    shown = {export.known.free_text(text) for text in (*own, *settings.structures)} | set(result.structures)
    return replace(result, texts=tuple(sorted(shown - {"", WITHHELD})))


def _imported(patient: PatientFiles, export: Export, settings: ImportSettings, out: Path, root: Path) -> PatientResult:
    where, found = f"patient {patient.name}", list(_file_findings(patient, export))
    series = _chosen(patient, export.known, settings, where, found)
    if series is None:
        return PatientResult(None, None, tuple(found))
    found += series_findings(series, where, fill_missing=settings.fill_missing)
    found += _whole(patient, series, export, where)
    if any(
        each.severity is Severity.ERROR and each.column == where for each in found if each.code != "file-unreadable"
    ):
        return PatientResult(None, None, tuple(found))
    try:
        volume = read_volume(series, fill_missing=settings.fill_missing)
        place = _place(series, export, root) if settings.keep_dicom else out / "scans" / f"{patient.name}.nii.gz"
        if not np.ptp(volume.values):
            raise DataError("the scan must show something; it has one value everywhere. Export it again.")
    except SurvlensError as error:
        return PatientResult(None, None, (*found, finding("scan-unreadable", Severity.ERROR, str(error), column=where)))
    if not settings.keep_dicom:
        write_nifti(replace(volume, values=_compact(volume.values)).canonical(), place)
    mask, structure, names = _mask(patient, series, volume, export.known, settings, where, found)
    mask_path = out / "masks" / f"{patient.name}.nii.gz"
    if mask is not None:
        write_nifti(Volume(mask.astype(np.uint8), volume.affine).canonical(), mask_path)
    row = _row(patient, series, volume.canonical(), export.known) | {
        "scan": place.relative_to(root).as_posix(),
        "mask": "" if mask is None else mask_path.relative_to(root).as_posix(),
        "structure": structure,
        "mask_voxels": "" if mask is None else int(mask.sum()),
        "mask_ml": "" if mask is None else round(float(mask.sum() * volume.voxel_millilitres), 3),
    }
    intercepts = tuple(sorted({each.intercept for each in series.slices if each.intercept is not None}))
    facts = ScanFacts(where, series.modality, volume.unit, tuple(sorted(volume.spacing.tolist())), intercepts)
    return PatientResult(row, facts, tuple(found), names)


def _file_findings(patient: PatientFiles, export: Export) -> Iterator[Finding]:
    where = f"patient {patient.name}"
    if patient.broken:
        more = f" (and {len(patient.broken) - 1} more files)" if len(patient.broken) > 1 else ""
        message = export.message(patient.broken[0]) + more
        yield finding("file-unreadable", Severity.ERROR, message, column=where)
    if len(patient.persons) > 1:
        message = (
            f"one patient identifier should mean one person; its files have {len(patient.persons)} pairs of name and "
            "birth date. Check whether it is shared."
        )
        yield finding("patient-shared", Severity.WARNING, message, column=where)
    if patient.unnamed:
        message = "the files have no patient identifier; they are taken for one patient by their study."
        yield finding("patient-nameless", Severity.WARNING, message, column=where)


def _chosen(
    patient: PatientFiles, known: KnownIdentifiers, settings: ImportSettings, where: str, found: list[Finding]
) -> Series | None:
    """The one series that is meant, or None and a finding that says why."""
    every = grouped(patient.slices)
    sizes = Counter(each.slices[0].series for each in every)
    if any(count > 1 for count in sizes.values()):
        message = (
            "slices of one series have several sizes, spacings or orientations; each kind is a series of its own. "
            "Look whether some do not belong to it."
        )
        found.append(finding("series-mixed", Severity.WARNING, message, column=where))
    long = [each for each in every if len(each.slices) >= FEWEST_SLICES] or [
        each for each in every if len(each.slices) > 1
    ]
    if not long:
        message = (
            f"a patient must have a series of at least two slices; got {len(every)} of one slice. Check the export."
        )
        found.append(finding("series-none", Severity.ERROR, message, column=where))
        return None
    fitting = [each for each in long if settings.series is None or _meant(each, settings.series)]
    if settings.largest and fitting:
        most = len(fitting[0].slices)
        fitting = [each for each in fitting if len(each.slices) == most]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(_description(each, patient.drawings, known) for each in fitting or long)
    if fitting:
        message = f"one series must be meant; got {len(fitting)}: {listed}. {_choice(fitting, settings)}"
        found.append(finding("series-several", Severity.ERROR, message, column=where))
    else:
        message = f"--series must fit one series; it fits none of {listed}. Give a number or words that fit."
        found.append(finding("series-none", Severity.ERROR, message, column=where))
    return None


def _choice(fitting: Sequence[Series], settings: ImportSettings) -> str:
    """How one of several series can be chosen."""
    firsts = [each.slices[0] for each in fitting]
    counts = Counter(each.number for each in firsts if each.number is not None)
    twice = sorted(number for number, count in counts.items() if count > 1)
    if not twice:
        return "Choose by --series NUMBER|WORDS or --largest."
    named = ", ".join(map(str, twice))
    said = f"Number {named} stands for several of them, so that it chooses none. "
    if len({(each.description, each.modality, each.kernel) for each in firsts}) == len(firsts):
        return said + "Choose by --series WORDS of the description, the modality or the kernel, or by --largest."
    if settings.largest or len({len(each.slices) for each in fitting}) == 1:
        return said + "Their words and lengths do not tell them apart either: leave only one of them in the export."
    return said + "Their words do not tell them apart either: choose by --largest, or leave only one in the export."


def _meant(series: Series, rule: str) -> bool:
    first, words = series.slices[0], rule.strip().casefold()
    if words.isdigit():
        return first.number == int(words)
    return any(words in text.casefold() for text in (first.description, first.modality, first.kernel))


def _description(series: Series, drawings: Sequence[Drawing], known: KnownIdentifiers) -> str:
    first = series.slices[0]
    number = "no number" if first.number is None else f"number {first.number}"
    kernel = f", kernel {known.free_text(first.kernel)}" if first.kernel else ""
    drawn = ", drawn on" if any(each.references.meets(first.series, first.frame) for each in drawings) else ""
    rows, columns = first.shape
    return (
        f"{number}: {first.modality}, {len(series.slices)} slices of {rows} x {columns}, spacing "
        f"{first.spacing[0]:.3g} x {first.spacing[1]:.3g} x {series.gap:.3g} mm{kernel}{drawn}"
    )


def _whole(patient: PatientFiles, series: Series, export: Export, where: str) -> Iterator[Finding]:
    """A finding where files that cannot be read may be slices of the series."""
    own = series.slices[0].series
    homes = {each.path.parent.relative_to(export.folder) for each in series.slices}
    lost = [
        each for each in patient.broken if each.series == own or (not each.series and each.relative.parent in homes)
    ]
    if lost:
        message = (
            f"all slices of the series must be readable; {len(lost)} files beside them are not, so slices may be "
            "missing. Export them again, or remove what is no slice."
        )
        yield finding("scan-incomplete", Severity.ERROR, message, column=where)


def _place(series: Series, export: Export, root: Path) -> Path:
    folders = {each.path.parent for each in series.slices}
    if len(folders) > 1:
        raise DataError("the slices must lie in one folder to be kept as DICOM; they do not. Leave --keep-dicom out.")
    folder = folders.pop()
    own = {each.path for each in series.slices}
    beside = [each for other in export.patients.values() for each in other.slices if each.path.parent == folder]
    if any(each.path not in own for each in beside):
        raise DataError(
            "the folder of the slices must hold no other series to be kept as DICOM. Leave --keep-dicom out."
        )
    return root / folder.resolve().relative_to(root)


def _compact(values: np.ndarray) -> np.ndarray:
    """Whole numbers that fit 16 bits, as CT has them, in 16 bits."""
    if values.min() >= -32768 and values.max() <= 32767 and bool((values == np.rint(values)).all()):
        return values.astype(np.int16)
    return values


def _mask(
    patient: PatientFiles,
    series: Series,
    volume: Volume,
    known: KnownIdentifiers,
    settings: ImportSettings,
    where: str,
    found: list[Finding],
) -> tuple[np.ndarray | None, str, tuple[str, ...]]:
    """The mask, the structures it is of, and all that were drawn on the scan."""
    first = series.slices[0]
    own = [each for each in patient.drawings if each.references.meets(first.series, first.frame)]
    if len(own) < len(patient.drawings):
        message = (
            f"{len(patient.drawings) - len(own)} structure sets or segmentations belong to another scan or to none."
        )
        found.append(finding("mask-of-other-scan", Severity.WARNING, message, column=where))
    opened, names = [], []
    for each in own:
        try:
            opened.append(_opened(each))
            names += [known.free_text(name) for name in opened[-1].names]
        except SurvlensError as error:
            found.append(finding("mask-unreadable", Severity.ERROR, str(error), column=where))
    shown = tuple(sorted(set(names)))
    wanted = settings.structures or _only(opened)
    if not wanted:
        return None, "", shown
    mask, taken, marks = np.zeros(volume.values.shape, bool), [], []
    for name in dict.fromkeys(each.strip() for each in wanted):
        try:
            holder = _holder(opened, name)
            mask |= _drawn_mask(holder, name, volume)
        except SurvlensError as error:
            there = f" The scan has {', '.join(shown)}." if shown else " Nothing is drawn on the scan."
            message = _without_names(str(error), [name, *(own for each in opened for own in each.names)], known) + there
            found.append(finding("mask-unusable", Severity.ERROR, message, column=where))
            return None, "", shown
        marks += [each for each in holder.structures if _same(each.name, name)]
        taken += [each for each in holder.names if _same(each, name)]
    found += structure_findings(marks, volume, where)
    found += mask_findings(mask, where)
    return mask, " + ".join(known.free_text(each) for each in sorted(set(taken))), shown


def _without_names(message: str, names: Sequence[str], known: KnownIdentifiers) -> str:
    """A message in which names of structures that may identify somebody are held back, plain or quoted."""
    for name in sorted({each.strip() for each in names}, key=len, reverse=True):
        if name and known.free_text(name) == WITHHELD:
            message = message.replace(repr(name)[1:-1], WITHHELD).replace(name, WITHHELD)
    return message


def _opened(drawing: Drawing) -> _Drawn:
    if drawing.stored:
        return _Drawn(drawing, (), segment_labels(drawing.path, drawing.name))
    return _Drawn(drawing, read_structures(drawing.path, drawing.name), ())


def _only(opened: Sequence[_Drawn]) -> tuple[str, ...]:
    """The one name that all structures have, or none."""
    names = {name.strip().casefold(): name for each in opened for name in each.names}
    return tuple(names.values()) if len(names) == 1 else ()


def _holder(opened: Sequence[_Drawn], name: str) -> _Drawn:
    """What holds a structure; contours before stored masks."""
    holding = [each for each in opened if any(_same(own, name) for own in each.names)]
    chosen = [each for each in holding if not each.drawing.stored] or holding
    if not chosen:
        raise DataError(f"the structure {name} must be drawn on the scan; it is not. Name another with --structure.")
    if len(chosen) > 1:
        raise DataError(
            f"one file must hold the structure {name}; got {len(chosen)}. Remove the versions that are not meant."
        )
    return chosen[0]


def _drawn_mask(drawn: _Drawn, name: str, volume: Volume) -> np.ndarray:
    if drawn.drawing.stored:
        return read_segmentation(drawn.drawing.path, name, volume, drawn.drawing.name)
    return structure_mask(drawn.structures, name, volume)


def _same(name: str, other: str) -> bool:
    return name.strip().casefold() == other.strip().casefold()


def _row(patient: PatientFiles, series: Series, volume: Volume, known: KnownIdentifiers) -> dict[str, Any]:
    first = series.slices[0]
    return {
        "patient": patient.name,
        "modality": series.modality,
        "unit": volume.unit,
        "spacing": " x ".join(f"{each:.6g}" for each in volume.spacing),
        "size": " x ".join(map(str, volume.values.shape)),
        "slices": len(series.slices),
        "thickness": "" if first.thickness is None else first.thickness,
        "kernel": known.free_text(first.kernel),
        "manufacturer": known.free_text(first.manufacturer),
        "kvp": "" if first.kvp is None else first.kvp,
    }
