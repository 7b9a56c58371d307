"""Which patients something was fitted on, so that nobody scores it on them unawares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from survlens.core.errors import DataError, InvalidValueError


@dataclass(frozen=True, slots=True)
class FittedOn:
    """The patients that a generator, an encoder, a standardisation or a direction was fitted on.

    Names are kept as SHA-256, shortened to 16 hexadecimal digits: enough to find a patient whose name is known. It is
    no anonymity, since short names can be tried one after another; keep the record where the names may be kept.

    Attributes:
        what: What was fitted, in words.
        patients: Hashes of the patients.
    """

    what: str
    patients: frozenset[str]

    @staticmethod
    def of(what: str, patients: Iterable[object]) -> FittedOn:
        """The record of something that was fitted on the rows of `patients`.

        Raises:
            InvalidValueError: If there is no patient.
        """
        hashed = frozenset(map(_hashed, patients))
        if not hashed:
            raise InvalidValueError(f"`patients` must name those that {what} was fitted on; got none.")
        return FittedOn(what, hashed)

    def __len__(self) -> int:
        return len(self.patients)

    def seen(self, patients: Iterable[object]) -> int:
        """How many of `patients` it was fitted on."""
        return len(self.patients & frozenset(map(_hashed, patients)))

    def remark(self, held_out: Iterable[object]) -> str:
        """One sentence for a report: whether it was fitted without the patients of `held_out`, or with how many."""
        asked = frozenset(map(_hashed, held_out))
        seen = len(self.patients & asked)
        if not seen:
            return f"{self.what}: fitted on {len(self)} patients, none of them held out."
        return (
            f"{self.what}: fitted on {len(self)} patients, {seen} of the {len(asked)} held-out patients among them. "
            "What is scored on those is not out of sample."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return {"what": self.what, "patients": sorted(self.patients)}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> FittedOn:
        """The record that `to_json` gave.

        Raises:
            DataError: If something is missing.
        """
        try:
            return FittedOn(str(plain["what"]), frozenset(map(str, plain["patients"])))
        except (KeyError, TypeError) as error:
            raise DataError(f"a record of fitted patients must hold {error}; got none. Fit it again.") from error


def _hashed(patient: object) -> str:
    return hashlib.sha256(str(patient).encode()).hexdigest()[:16]
