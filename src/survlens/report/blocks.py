"""What a page is built of: paragraphs, lists, tables and figures, without any markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from survlens.core.score import Score
from survlens.report.wording import MISSING, decimal, range_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Estimate:
    """A table cell with a number and, below it, its interval."""

    value: str
    interval: str = ""


Cell = str | Estimate


@dataclass(frozen=True, slots=True)
class Column:
    """A table column; numeric ones are aligned at their last decimal."""

    title: str
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table; `folded` ones open on a click.

    Attributes:
        caption: What it shows.
        columns: Heads.
        rows: Cells, one per column.
        strong: Positions of rows in bold.
        folded: Whether it starts closed.
        note: Small print below it.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    strong: frozenset[int] = frozenset()
    folded: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    kind: ClassVar[str] = "paragraph"
    text: str
    small: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """A figure with everything that must stand beside it.

    Attributes:
        name: File name without ending; unique on the page.
        figure: What is drawn.
        caption: What it shows, for everyone.
        alt: What it shows, for those who cannot see it.
        table: The data behind it.
        wide: Whether it is scrolled, not shrunk, on a phone.
    """

    kind: ClassVar[str] = "plot"
    name: str
    figure: Figure
    caption: str
    alt: str
    table: Table
    wide: bool = False


Block = Paragraph | Bullets | Table | Plot


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A titled part of the page."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def left_out(key: str, title: str, missing: str) -> Section:
    """A section whose data are absent, with one line that says so."""
    return Section(key, title, (Paragraph(f"Left out: {missing}.", small=True),))


def score_cell(score: Score | None, digits: int = 3) -> Cell:
    """A score with its interval as a table cell."""
    if score is None or score.value != score.value:
        return MISSING
    interval = score.interval
    return Estimate(
        decimal(score.value, digits), "" if interval is None else range_text(interval.lower, interval.upper, digits)
    )


def thinned(count: int, most: int) -> list[int]:
    """At most `most` positions spread over `count`, both ends included."""
    if count <= most:
        return list(range(count))
    return sorted({round(position * (count - 1) / (most - 1)) for position in range(most)})
