"""Walks the export of a hospital: which files are slices, structure sets and segmentations, and whose they are."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from survlens.core.errors import CorruptFileError
from survlens.data.contours import References
from survlens.data.dicom import may_be_dicom
from survlens.data.dicom_headers import Slice, open_header, slice_of
from survlens.data.privacy import KnownIdentifiers, Pseudonyms

_NAMELESS = "\0file\0"  # stands for a file's name until every identifier is known
_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A structure set or segmentation.

    Attributes:
        path: Where the file is.
        name: What messages call it.
        stored: Whether it is a DICOM-SEG file, and no RTSTRUCT.
        references: What it was drawn on.
    """

    path: Path
    name: str
    stored: bool
    references: References


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be used.

    Attributes:
        relative: Its path within the export.
        message: What is wrong.
        series: Identifier of its series, or "" where not even that can be read.
    """

    relative: PurePath
    message: str
    series: str = ""


@dataclass(slots=True, repr=False)
class PatientFiles:
    """The files of one patient.

    Attributes:
        name: Salted name.
        slices: Slices of all series.
        drawings: Structure sets and segmentations.
        others: Number of further DICOM files, by modality.
        broken: Files that cannot be used.
        listed: Path, size and time of change of every file.
        filled: Largest number of filled attributes that identify, in one file.
        persons: Salted names and birth dates in the files: more than one means that an identifier is shared.
        recognised: Those of them that have both a name and a birth date.
        unnamed: Whether the files lack a patient's identifier.
    """

    name: str
    slices: list[Slice] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    listed: list[tuple[str, int, int]] = field(default_factory=list)
    filled: int = 0
    persons: set[str] = field(default_factory=set)
    recognised: set[str] = field(default_factory=set)
    unnamed: bool = False


@dataclass(slots=True, repr=False)
class Export:
    """What an export holds.

    Attributes:
        folder: The export.
        known: Values of identifying attributes that were seen.
        patients: By salted name.
        originals: What stands behind each salted name, for the link table alone: "patient" and the identifier, or where
            the files have none, "study" and its identifier or "folder" and its path.
        skipped: Files that are no DICOM files.
        lost: Broken files of which nobody knows whose they are.
        files: How many files there are.
    """

    folder: Path
    known: KnownIdentifiers
    patients: dict[str, PatientFiles] = field(default_factory=dict)
    originals: dict[str, tuple[str, str]] = field(default_factory=dict)
    skipped: list[PurePath] = field(default_factory=list)
    lost: list[Broken] = field(default_factory=list)
    files: int = 0

    def message(self, broken: Broken) -> str:
        """What is wrong with a file, which is named as it may be shown."""
        return broken.message.replace(_NAMELESS, self.known.path(broken.relative))


def walk(folder: Path, names: Pseudonyms, leave_out: Path) -> Export:
    """Reads the header of every file of an export; links that lead out of it are not followed.

    Args:
        folder: The export.
        names: Makes salted names.
        leave_out: Folder that is not looked into: that of the results.
    """
    export = Export(folder, KnownIdentifiers(names))
    homes: dict[PurePath, set[str]] = defaultdict(set)
    lost: list[Broken] = []
    for path in _files(folder, leave_out):
        relative = path.relative_to(folder)
        export.files += 1
        try:
            if path.name.upper() == "DICOMDIR" or not may_be_dicom(path):
                export.skipped.append(relative)
                continue
            header = open_header(path, _NAMELESS)
        except CorruptFileError as error:
            lost.append(Broken(relative, str(error)))
            continue
        except OSError as error:
            lost.append(Broken(relative, f"{_NAMELESS} must be readable; {error.strerror}. Check its permissions."))
            continue
        if str(header.file_meta.get("MediaStorageSOPClassUID") or "") == _DIRECTORY:
            export.skipped.append(relative)
            continue
        patient = _patient(export, header, relative)
        homes[relative.parent].add(patient.name)
        _take(export, patient, header, path, relative)
    for each in lost:
        owners = homes.get(each.relative.parent, set())
        holder = export.patients[next(iter(owners))].broken if len(owners) == 1 else export.lost
        holder.append(each)
    return export


def _files(folder: Path, leave_out: Path) -> Iterator[Path]:
    inside, out = folder.resolve(), leave_out.resolve()
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if (Path(place) / each).resolve() != out)
        for name in sorted(files):
            path = Path(place) / name
            if path.is_file() and (not path.is_symlink() or path.resolve().is_relative_to(inside)):
                yield path


def _patient(export: Export, header: Any, relative: PurePath) -> PatientFiles:
    own = str(header.get("PatientID") or "").strip()
    study = str(header.get("StudyInstanceUID") or "").strip()
    kind = "patient" if own else "study" if study else "folder"
    key = own or study or relative.parent.as_posix()
    salted = export.known.names.of(key)
    export.originals[salted] = kind, key
    patient = export.patients.setdefault(salted, PatientFiles(salted, unnamed=not own))
    patient.filled = max(patient.filled, export.known.add(header))
    named, born = (str(header.get(keyword) or "").strip().lower() for keyword in ("PatientName", "PatientBirthDate"))
    if named or born:
        person = export.known.names.of(f"{named.rstrip('^ ')}\0{born}", "person")
        patient.persons.add(person)
        if named and born:
            patient.recognised.add(person)
    return patient


def _take(export: Export, patient: PatientFiles, header: Any, path: Path, relative: PurePath) -> None:
    about = path.stat()
    patient.listed.append((relative.as_posix(), about.st_size, about.st_mtime_ns))
    name, modality = export.known.path(relative), str(header.get("Modality") or "")
    try:
        found = slice_of(header, path, _NAMELESS)
    except CorruptFileError as error:
        patient.broken.append(Broken(relative, str(error), str(header.get("SeriesInstanceUID") or "")))
        return
    if found is not None:
        patient.slices.append(replace(found, name=name))
    elif modality in ("RTSTRUCT", "SEG"):
        patient.drawings.append(Drawing(path, name, modality == "SEG", References.of(header)))
    elif modality.isalpha() and modality.isupper() and len(modality) <= 16:
        patient.others[modality] += 1
    else:
        message = f"{_NAMELESS} must say what made it (Modality); it does not. Export it again, or remove it."
        patient.broken.append(Broken(relative, message, str(header.get("SeriesInstanceUID") or "")))
