"""What may leave a hospital's files: a whitelist of attributes, salted names, and words that are looked at first.

Everything that is not listed in `KEPT` stays where it is. A salted name is an HMAC-SHA256 of the original, cut to
twelve hexadecimal digits: whoever lacks the salt can neither undo it nor try out names.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from survlens.core.errors import UsageError

KEPT = (
    "Modality", "PixelSpacing", "SliceThickness", "ImageOrientationPatient", "Rows", "Columns", "RescaleSlope",
    "RescaleIntercept", "KVP", "ConvolutionKernel", "Manufacturer", "BurnedInAnnotation", "GantryDetectorTilt",
)  # fmt: skip
"""Attributes whose values, or what is worked out from them, may stand in a written file."""

IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "IssuerOfPatientID", "PatientBirthDate",
    "PatientBirthTime", "PatientBirthName", "PatientMotherBirthName", "PatientSex", "PatientAge", "PatientSize",
    "PatientWeight", "PatientAddress", "PatientTelephoneNumbers", "PatientComments", "EthnicGroup", "Occupation",
    "MedicalRecordLocator", "MilitaryRank", "CountryOfResidence", "RegionOfResidence", "PatientReligiousPreference",
    "AdditionalPatientHistory", "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "SeriesDate", "SeriesTime",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentDate", "ContentTime", "InstanceCreationDate",
    "InstanceCreationTime", "StructureSetDate", "StructureSetTime", "StudyDescription", "SeriesDescription",
    "ProtocolName", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName",
    "DeviceSerialNumber", "ReferringPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord", "OperatorsName", "RequestingPhysician", "RequestedProcedureDescription",
    "PerformedProcedureStepDescription", "ImageComments", "AdmissionID", "AdmittingDiagnosesDescription",
    "StructureSetLabel", "StructureSetName", "ReviewerName", "FillerOrderNumberImagingServiceRequest",
    "PlacerOrderNumberImagingServiceRequest", "SourceApplicationEntityTitle",
)  # fmt: skip
"""Attributes that tell, or help to tell, who somebody is; where they are filled is counted, never written."""

SALT_VARIABLE = "SURVLENS_SALT"
SALT_FILE = "DO_NOT_SHARE_salt.txt"
WITHHELD = "(withheld)"
_SHORTEST_SALT = 16
_PLAIN = re.compile(
    r"(?:(?:dicom|dcm|images?|ims?|img|ct|mr|mri|pt|pet|seg|rt|rtss|rtst|rtstruct|series?|ser|se|study|studies|stu|st"
    r"|patients?|pat|pa|p|data|export|scans?|slices?|files?|masks?|i|s|e|a)[ _.-]?\d{0,5}|(?:\d{1,2}-)?\d{1,4})"
    r"(?:\.(?:dcm|ima|nii|gz|txt|pdf|xml|json|csv|zip|png|jpe?g|html?|exe|inf))*",
    re.IGNORECASE,
)
_FREE = re.compile(r"[\w .,+*/()\[\]-]{1,40}")


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """Salted names.

    Attributes:
        salt: The secret.

    Raises:
        UsageError: If the salt is shorter than 16 bytes.
    """

    salt: bytes

    def __post_init__(self) -> None:
        if len(self.salt) < _SHORTEST_SALT:
            raise UsageError(
                f"the salt must have at least {_SHORTEST_SALT} characters; got {len(self.salt)}. "
                "Write a long random line into its file."
            )

    def of(self, original: str, kind: str = "patient") -> str:
        """Twelve hexadecimal digits for a name; the same for the same name, kind and salt."""
        return hmac.new(self.salt, f"{kind}\0{original}".encode(), "sha256").hexdigest()[:12]


@dataclass(slots=True, repr=False)
class KnownIdentifiers:
    """Values of identifying attributes that were seen, so that free text holding one of them is held back.

    Attributes:
        names: Salted names, for parts of paths that are held back.
    """

    names: Pseudonyms
    _seen: set[str] = field(default_factory=set)
    _years: set[str] = field(default_factory=set)

    def add(self, header: Any) -> int:
        """Remembers what identifies in a header; returns how many attributes of it are filled."""
        filled = 0
        for keyword in IDENTIFYING:
            value = header.get(keyword)
            words = _words(value)
            filled += bool(words)
            whole = keyword.endswith(("Description", "Comments", "Name", "Label", "History"))
            for word in words:
                parts = [word] if whole and "Physician" not in keyword and "Patient" not in keyword else _parts(word)
                if keyword.endswith(("Date", "DateTime")):
                    self._years.add(word[:4])
                self._seen.update(each.lower() for each in [word, *parts] if len(each) >= 3)
        return filled

    def inside(self, text: str) -> bool:
        """Whether a value that was seen stands in a text."""
        low = text.lower()
        return any(word in low for word in self._seen)

    def _plain(self, part: str) -> bool:
        """Whether a part of a path tells nothing: neither what was seen, nor the year of a date that was seen."""
        years = self._years.intersection(re.findall(r"(?<!\d)\d{4}(?!\d)", part))
        return bool(_PLAIN.fullmatch(part)) and not self.inside(part) and not years

    def free_text(self, text: str) -> str:
        """A whitelisted free text (a kernel, a structure's name), held back where it holds what was seen."""
        plain = " ".join(text.split())
        if not plain:
            return ""
        return plain if _FREE.fullmatch(plain) and not self.inside(plain) else WITHHELD

    def path(self, relative: PurePath) -> str:
        """A path as messages may show it: parts such as CT/IM0007 as they are, all others by a salted name."""
        shown = [part if self._plain(part) else f"~{self.names.of(part, 'path')[:6]}" for part in relative.parts]
        return "/".join(shown)


def read_salt(folder: Path, given: Path | None = None) -> Pseudonyms:
    """The salt: of a file, of the environment, or a random one that is kept in `folder`.

    Args:
        folder: Where a random salt lies, readable by its owner alone, once it was made.
        given: File with the salt.

    Raises:
        UsageError: If the file cannot be read or the salt is too short.
    """
    if given is not None:
        try:
            return Pseudonyms(given.read_bytes().strip())
        except OSError as err:
            raise UsageError(f"`--salt-file` must be a file that can be read; got {err.strerror}.") from None
    if SALT_VARIABLE in os.environ:
        return Pseudonyms(os.environ[SALT_VARIABLE].strip().encode())
    place = folder / SALT_FILE
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    return Pseudonyms(place.read_bytes().strip())


def write_private(path: Path, lines: Iterable[str]) -> None:
    """Writes a file that its owner alone may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _words(value: Any) -> list[str]:
    if value is None:
        return []
    several = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    return [text for each in several if (text := str(each).strip())]


def _parts(word: str) -> list[str]:
    return [part for part in re.split(r"[\^=,\s]+", word) if part]
