"""Writes the report of a run: one html file that needs nothing else, and its figures."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from survlens.report.blocks import Plot, Section
from survlens.report.content import read_content
from survlens.report.figures.canvas import save_figure
from survlens.report.records import RunContent
from survlens.report.sections import latent, over_time, overview, performance, portraits, provenance, risk
from survlens.report.verdict import verdict

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
_LARGEST_SVG = 600_000
_SECTIONS: tuple[Callable[[RunContent], Section | None], ...] = (
    overview.about,
    overview.cohort,
    performance.comparison,
    risk.calibration,
    risk.risk_groups,
    risk.subgroups,
    latent.embedding,
    latent.dimensions,
    latent.reliability,
    latent.training,
    over_time.explanations_over_time,
    portraits.portraits,
    provenance.limits,
    provenance.reproducibility,
)


def write_report(run_folder: Path, *, title: str | None = None) -> Path:
    """Draws `report.html` and `figures/` in a run folder, from what stands there alone.

    The page holds its images and styles itself, forbids itself any other source by a content-security policy, and runs
    no script. The same folder gives the same bytes.

    Args:
        run_folder: Folder of a finished run; `metrics.json` must be there, all else may be missing.
        title: Title of the page; by default the name of the study.

    Returns:
        Path of the page.

    Raises:
        DataError: If the folder or its `metrics.json` is missing.
        CorruptFileError: If a file cannot be read, or lacks a key that it must have.
    """
    run_folder = Path(run_folder)
    content = read_content(run_folder)
    figures = run_folder / "figures"
    figures.mkdir(exist_ok=True)
    images: dict[str, str] = {}
    sections = [section for build in _SECTIONS if (section := build(content)) is not None]
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Plot):
                images[block.name] = _image(block, figures)
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=title or content.metrics.study.name,
            study=content.metrics.study,
            verdict=verdict(content.metrics),
            sections=sections,
            images=images,
            version=content.environment.get("survlens", ""),
        )
    )
    return _write(run_folder / "report.html", page)


def _write(path: Path, page: str) -> Path:
    """Replaces the page in one step, so that a full disk leaves the old one whole."""
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_text(page, encoding="utf-8", newline="\n")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _image(plot: Plot, folder: Path) -> str:
    """Saves a figure and returns it as a data address: svg, or png where the svg is large."""
    svg, png = save_figure(plot.figure, folder, file_name(plot.name))
    kind, data = ("svg+xml", svg) if len(svg) <= _LARGEST_SVG else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def file_name(name: str) -> str:
    """A name as a file name: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "figure"


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    return environment


def typeset(text: str) -> str:
    """Keeps a percent sign, and a name such as "τ = 1", on one line."""
    return re.sub(r" (?=%)|(?<=\w) (?== ?[\d.]+\))|(?<= =) (?=[\d.]+\))", "\u00a0", text)
