"""What an audit found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from survlens.data.columns import row_text


class Severity(Enum):
    """How grave a finding is; only an error stops a study."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: Short name of the check ("time-negative").
        severity: How grave it is.
        message: What is wrong and what to do.
        rows: Rows as the user sees them in the file, where the header is row 1.
        column: Column it was found in, or "".
    """

    code: str
    severity: Severity
    message: str
    rows: tuple[int, ...] = ()
    column: str = ""

    @property
    def where(self) -> str:
        """Column and rows, for a table."""
        rows = row_text(row - 2 for row in self.rows) if self.rows else ""
        return ", ".join(part for part in (self.column, rows) if part)


def finding(
    code: str, severity: Severity, message: str, *, positions: Iterable[int] = (), column: str | None = None
) -> Finding:
    """A finding whose rows are given as positions from 0."""
    return Finding(code, severity, message, tuple(int(position) + 2 for position in positions), column or "")


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Everything an audit found, gravest first.

    Attributes:
        findings: What was found.
        counts: Instances, patients and events of the rows that can be used.
    """

    findings: tuple[Finding, ...]
    counts: Mapping[str, int]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.of(Severity.ERROR)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Findings of one severity."""
        return tuple(found for found in self.findings if found.severity is severity)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Severity, code, place and message of each finding, for a table."""
        return [(found.severity.value, found.code, found.where, found.message) for found in self.findings]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return {
            "ok": self.ok,
            "counts": dict(self.counts),
            "findings": [
                {
                    "code": found.code,
                    "severity": found.severity.value,
                    "message": found.message,
                    "rows": list(found.rows),
                    "column": found.column,
                }
                for found in self.findings
            ],
        }
