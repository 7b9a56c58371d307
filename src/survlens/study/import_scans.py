"""Imports the export of a hospital: a table of scans and masks without identifiers, and a report of what was found."""

from __future__ import annotations

import dataclasses
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from survlens.artifacts.atomic import write_text
from survlens.artifacts.run_folder import write_json
from survlens.core.errors import UsageError
from survlens.data.findings import AuditReport, Finding, Severity, finding
from survlens.data.privacy import SALT_FILE, KnownIdentifiers, Pseudonyms, read_salt, write_private
from survlens.data.scan_checks import ScanFacts, cohort_findings, identifier_findings
from survlens.study.import_patient import ImportSettings as ImportSettings
from survlens.study.import_patient import PatientResult, import_patient
from survlens.study.import_walk import Export, PatientFiles, walk

COLUMNS = (
    "patient", "scan", "mask", "structure", "modality", "unit", "spacing", "size", "slices", "thickness", "kernel",
    "manufacturer", "kvp", "mask_voxels", "mask_ml",
)  # fmt: skip
TABLE, REPORT = "scans.csv", "import_report"
_VERSION = 2  # of the records of patients: a change makes every patient be imported again
_LISTED = 50


@dataclass(frozen=True, slots=True)
class ImportedScans:
    """What an import left.

    Attributes:
        report: What was found, and how many files, patients and scans there are.
        rows: The rows of the table.
        structures: Number of patients by name of a structure that was drawn.
        skipped: Files that are no DICOM files, as they may be shown.
        reused: Number of patients that an earlier run had finished.
    """

    report: AuditReport
    rows: tuple[Mapping[str, Any], ...]
    structures: Mapping[str, int]
    skipped: tuple[str, ...]
    reused: int


def import_dicom(
    folder: Path,
    out: Path,
    settings: ImportSettings,
    *,
    root: Path | None = None,
    salt_file: Path | None = None,
    link: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> ImportedScans:
    """Writes scans as NIfTI, masks, a table and a report into a folder; what identifies a person stays behind.

    A patient whose files have not changed since an earlier run is not read again. A fault in one patient is a finding
    and leaves the others alone.

    Args:
        folder: The export: any nesting, any names of files.
        out: Folder of the results.
        settings: What is taken.
        root: Folder that paths of the table start from; `out` by default.
        salt_file: File with the salt of the names; see `survlens.data.privacy.read_salt`.
        link: File outside `out` that shall say which salted name stands for which patient and path.
        tell: Is told what happens.

    Raises:
        UsageError: If folders or files do not fit together, or the salt is another one than that of the earlier run.
    """
    base = out.resolve() if root is None else root.resolve()
    _check_folders(folder, out, base, settings, link)
    names = read_salt(out, salt_file)
    _check_salt(out, names)
    export = walk(folder, names, out)
    if not export.patients and not export.lost:
        raise UsageError(
            f"FOLDER must hold DICOM files; got {export.files} files and none of them. Name another folder."
        )
    results, reused = {}, 0
    for number, (name, patient) in enumerate(sorted(export.patients.items()), 1):
        key = _key(patient, names, settings, base)
        kept = _kept(out, name, key, base, export.known)
        reused += kept is not None
        if kept is None:
            for part in ("scans", "masks"):  # of other settings
                (out / part / f"{name}.nii.gz").unlink(missing_ok=True)
        results[name] = kept or import_patient(patient, export, settings, out=out.resolve(), root=base)
        if kept is None:
            _keep(out, name, key, results[name])
        if tell is not None:
            tell(f"{number} of {len(export.patients)}: patient {name}" + (" (done before)" if kept else ""))
    imported = _summary(export, results, reused)
    _write(out, imported, names)
    if link is not None:
        write_private(link, _link_lines(export))
    return imported


def _check_folders(folder: Path, out: Path, base: Path, settings: ImportSettings, link: Path | None) -> None:
    if not folder.is_dir():
        raise UsageError("FOLDER must be a folder with DICOM files; it is none. Name the export.")
    if out.exists() and not out.is_dir():
        raise UsageError("--out must be a folder; it is a file. Choose another one.")
    if out.resolve() == folder.resolve():
        raise UsageError("--out must be another folder than that of the export; it is the same. Choose another one.")
    own = (TABLE, f"{REPORT}.json", "patients", SALT_FILE)
    if out.is_dir() and any(out.iterdir()) and not any((out / each).exists() for each in own):
        raise UsageError("--out must be empty or hold an earlier import; it holds other files. Choose another one.")
    if link is not None and link.resolve().is_relative_to(out.resolve()):
        raise UsageError("--link must lie outside --out, which may be passed on; it lies inside. Choose another place.")
    if not out.resolve().is_relative_to(base):
        raise UsageError("--root must be a folder that --out lies in; it does not. Choose a folder above both.")
    if settings.keep_dicom and not folder.resolve().is_relative_to(base):
        raise UsageError("--root must be a folder that FOLDER lies in, with --keep-dicom; it does not. Set --root.")


def _check_salt(out: Path, names: Pseudonyms) -> None:
    place = out / f"{REPORT}.json"
    if place.exists():
        try:
            before = json.loads(place.read_text(encoding="utf-8")).get("salt")
        except (ValueError, AttributeError):
            return
        if before not in (None, names.of("check", "salt")):
            raise UsageError(
                "the salt must be that of the import that stands in --out; it is another one, so names would change. "
                "Give the same --salt-file, or choose another --out."
            )


def _key(patient: PatientFiles, names: Pseudonyms, settings: ImportSettings, base: Path) -> str:
    broken = sorted(each.relative.as_posix() for each in patient.broken)
    state = [_VERSION, sorted(patient.listed), broken, dataclasses.asdict(settings), str(base)]
    return hmac.new(names.salt, json.dumps(state).encode(), "sha256").hexdigest()


def _keep(out: Path, name: str, key: str, result: PatientResult) -> None:
    record = {
        "key": key,
        "row": result.row,
        "facts": None if result.facts is None else dataclasses.asdict(result.facts),
        "findings": AuditReport(result.findings, {}).to_json()["findings"],
        "structures": list(result.structures),
        "texts": list(result.texts),
    }
    write_json(out / "patients" / f"{name}.json", record)


def _kept(out: Path, name: str, key: str, base: Path, known: KnownIdentifiers) -> PatientResult | None:
    """What an earlier run made of the same files with the same settings, if all of it is still there.

    Not where it shows a text that holds what only the files of patients who came later tell to be a name.
    """
    try:
        record = json.loads((out / "patients" / f"{name}.json").read_text(encoding="utf-8"))
        row, facts = record["row"], record["facts"]
        texts = tuple(record["texts"])
        if record["key"] != key or any(known.free_text(text) != text for text in texts):
            return None
        if row is not None and not all((base / row[part]).exists() for part in ("scan", "mask") if row[part]):
            return None
        findings = tuple(
            Finding(one["code"], Severity(one["severity"]), one["message"], tuple(one["rows"]), one["column"])
            for one in record["findings"]
        )
        compared = facts and ScanFacts(
            facts["where"], facts["modality"], facts["unit"], tuple(facts["spacing"]), tuple(facts["intercepts"])
        )
        return PatientResult(row, compared or None, findings, tuple(record["structures"]), texts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _summary(export: Export, results: Mapping[str, PatientResult], reused: int) -> ImportedScans:
    found = [each for result in results.values() for each in result.findings]
    found += [finding("file-unreadable", Severity.ERROR, export.message(each)) for each in export.lost]
    found += _shared_persons(export)
    found += cohort_findings([result.facts for result in results.values() if result.facts is not None])
    found += identifier_findings({name: patient.filled for name, patient in export.patients.items()})
    rows = tuple(result.row for result in results.values() if result.row is not None)
    if not rows:
        found.append(finding("no-scans", Severity.ERROR, "no scan could be imported; see the other findings."))
    others = sum((patient.others for patient in export.patients.values()), Counter())
    if others:
        shown = ", ".join(f"{count} {modality}" for modality, count in others.most_common(8))
        found.append(
            finding("files-of-no-use", Severity.NOTE, f"DICOM files that are no scans were left out: {shown}.")
        )
    structures = Counter(name for result in results.values() for name in set(result.structures))
    if structures and not any(row["mask"] for row in rows):
        message = f"no mask was taken. Choose what is meant with --structure: {_structures_text(structures)}."
        found.append(finding("structures-to-choose", Severity.ADVICE, message))
    order = list(Severity)
    counts = {
        "files": export.files,
        "skipped": len(export.skipped),
        "patients": len(export.patients),
        "scans": len(rows),
        "masks": sum(bool(row["mask"]) for row in rows),
    }
    report = AuditReport(tuple(sorted(found, key=lambda one: order.index(one.severity))), counts)
    skipped = tuple(export.known.path(each) for each in export.skipped)
    return ImportedScans(report, rows, dict(structures.most_common()), skipped, reused)


def _shared_persons(export: Export) -> Iterator[Finding]:
    """Persons by name and birth date that stand under several identifiers, and so would be on both sides of a split."""
    owners: dict[str, list[str]] = {}
    for name, patient in sorted(export.patients.items()):
        for person in patient.recognised:
            owners.setdefault(person, []).append(name)
    for names in sorted({tuple(each) for each in owners.values() if len(each) > 1}):
        message = (
            f"the patients {', '.join(names[:6])}{', ...' if len(names) > 6 else ''} have one name and birth date. If "
            "they are one person, give them one patient in your table, or the person lands on both sides of a split."
        )
        yield finding("person-twice", Severity.WARNING, message)


def _structures_text(structures: Counter[str]) -> str:
    shown = [f"{name} ({count} patients)" for name, count in structures.most_common(20)]
    return ", ".join(shown) + (", ..." if len(structures) > 20 else "")


def _write(out: Path, imported: ImportedScans, names: Pseudonyms) -> None:
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in imported.rows], columns=pd.Index(COLUMNS))
    write_text(out / TABLE, frame.to_csv(index=False, lineterminator="\n"))
    report = imported.report.to_json() | {
        "salt": names.of("check", "salt"),
        "scans": [dict(row) for row in imported.rows],
        "structures": dict(imported.structures),
        "skipped": list(imported.skipped),
    }
    write_json(out / f"{REPORT}.json", report)
    write_text(out / f"{REPORT}.md", _page(imported))


def _page(imported: ImportedScans) -> str:
    counts = imported.report.counts
    shown = ("patient", "modality", "unit", "size", "spacing", "kernel", "kvp", "structure", "mask_ml")
    lines = ["# Import of scans", "", *_table(tuple(counts), [counts.values()])]
    lines += ["", "## Findings", "", *_table(("severity", "finding", "where", "what"), imported.report.rows())]
    lines += ["", "## Scans", "", *_table(shown, [[row[each] for each in shown] for row in imported.rows])]
    if imported.structures:
        lines += ["", "## Structures", "", *_table(("structure", "patients"), imported.structures.items())]
    if imported.skipped:
        more = len(imported.skipped) - _LISTED
        lines += ["", "## Files that are no DICOM files", "", *(f"- {each}" for each in imported.skipped[:_LISTED])]
        lines += [f"- and {more} more"] if more > 0 else []
    lines += ["", f"Names are salted. `{SALT_FILE}`, if it lies here, must not be passed on: it would undo them.", ""]
    return "\n".join(lines)


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    heads = list(columns)
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [" | ".join(row) for row in [heads, ["---"] * len(heads), *cells]]
    return [f"| {line} |" for line in lines]


def _link_lines(export: Export) -> list[str]:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = ["kind,original,shown"]
    lines += [f"{kind},{cell(own)},{salted}" for salted, (kind, own) in sorted(export.originals.items())]
    every = [each for patient in export.patients.values() for each in patient.broken] + export.lost
    files = [each.relative for each in every] + export.skipped
    files += [drawing.path.relative_to(export.folder) for each in export.patients.values() for drawing in each.drawings]
    files += [one.path.relative_to(export.folder) for each in export.patients.values() for one in each.slices]
    lines += [f"file,{cell(each.as_posix())},{cell(export.known.path(each))}" for each in sorted(set(files))]
    return lines
