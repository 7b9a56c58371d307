"""How an experiment writes its results: tables as csv, json and one Markdown page, and figures beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survlens.artifacts.atomic import write_text
from survlens.artifacts.run_folder import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Rows under one heading.

    Attributes:
        name: Name of its csv file.
        title: What it shows, with units.
        rows: One mapping per row; the columns are those of the first.
    """

    name: str
    title: str
    rows: Sequence[Record]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.rows[0]) if self.rows else ()

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as short text."""
        return [tuple(shown(row[name]) for name in self.columns) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Findings:
    """What an experiment found.

    Attributes:
        name: Start of the names of its files.
        title: Its name for readers.
        tables: The tables.
        remarks: What a reader should know to read them, and why numbers differ from those published.
        figures: Drawing functions by the name of the file.
    """

    name: str
    title: str
    tables: Sequence[ResultTable]
    remarks: Sequence[str] = ()
    figures: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)


def shown(value: object) -> str:
    """A cell: three significant digits, a dash for what is not known."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.1e}"
    return str(value)


def write_findings(folder: Path, findings: Findings) -> Path:
    """Writes NAME.md, NAME.json, a csv per table and the figures, and returns the Markdown file.

    Args:
        folder: Where to; made where it is missing.
        findings: What to write.
    """
    import pandas as pd

    from survlens.report.figures.canvas import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {findings.title}", ""]
    for table in findings.tables:
        pd.DataFrame(list(table.rows)).to_csv(folder / f"{findings.name}_{table.name}.csv", index=False)
        head = [f"| {' | '.join(table.columns)} |", "|" + "---|" * len(table.columns)]
        lines += [table.title, "", *head, *(f"| {' | '.join(row)} |" for row in table.cells()), ""]
    lines += [f"- {remark}" for remark in findings.remarks]
    for name, draw in findings.figures.items():
        save_figure(draw(), folder, name)
        lines += ["", f"![{name}]({name}.png)"]
    write_json(
        folder / f"{findings.name}.json",
        {"tables": {table.name: list(table.rows) for table in findings.tables}, "remarks": list(findings.remarks)},
    )
    path = folder / f"{findings.name}.md"
    write_text(path, "\n".join(lines) + "\n")
    return path
