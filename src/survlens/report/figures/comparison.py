"""Scores with their intervals, one row per model or subgroup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from survlens.core.score import Score
from survlens.report.figures.canvas import light_grid, new_figure, shorten, styled
from survlens.report.palette import BLACK, BLUE, GREEN, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = {
    "image": ("image", BLUE, "o"),
    "table": ("clinical table", VERMILION, "s"),
    "both": ("image and table", GREEN, "D"),
    "none": ("neither", GREY, "x"),
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of a comparison: its scores (one per row), its axis label and the value that means "no skill"."""

    scores: Sequence[Score | None]
    label: str
    neutral: float
    best: float | None = None


@styled
def comparison_figure(
    labels: Sequence[str], panels: Sequence[Panel], *, inputs: Sequence[tuple[str, ...]], strong: int | None = None
) -> Figure:
    """Dots with intervals; a dashed line marks no skill and a dotted one the best that the simulation allows.

    Args:
        labels: Name of each row.
        panels: Columns side by side, sharing the rows.
        inputs: What each row's model sees, which sets its marker.
        strong: Row whose name is printed bold.
    """
    figure = new_figure(7.2 if len(panels) > 1 else 6.4, 0.27 * len(labels) + 1.3)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    kinds = [_kind(members) for members in inputs]
    for one, panel in zip(axes, panels, strict=True):
        _draw(one, panel, kinds)
    axes[0].set_ylim(len(labels) - 0.4, -0.6)
    axes[0].set_yticks(range(len(labels)), [shorten(label, 44) for label in labels])
    if strong is not None:
        axes[0].get_yticklabels()[strong].set_fontweight("bold")
    if len(set(kinds)) > 1:
        _legend(figure, kinds)
    return figure


def _kind(inputs: tuple[str, ...]) -> str:
    image, table = "image" in inputs, "table" in inputs
    return "both" if image and table else "image" if image else "table" if table else "none"


def _draw(axes: Axes, panel: Panel, kinds: Sequence[str]) -> None:
    axes.axvline(panel.neutral, color=GREY, linestyle=(0, (4, 2)), linewidth=1.0)
    if panel.best is not None and math.isfinite(panel.best):
        axes.axvline(panel.best, color=BLACK, linestyle=(0, (1, 1.5)), linewidth=1.0)
    for row, (score, kind) in enumerate(zip(panel.scores, kinds, strict=True)):
        if score is None or math.isnan(score.value):
            continue
        _, colour, marker = _KINDS[kind]
        if score.interval is not None:
            axes.hlines(row, score.interval.lower, score.interval.upper, color=colour, linewidth=1.4)
        axes.plot(score.value, row, marker=marker, color=colour, markersize=5, linestyle="none")
    axes.set_xlabel(shorten(panel.label))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    light_grid(axes, "x")


def _legend(figure: Figure, kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    shown = [key for key in _KINDS if key in kinds]
    handles = [
        Line2D([], [], color=_KINDS[key][1], marker=_KINDS[key][2], linewidth=1.4, markersize=5, label=_KINDS[key][0])
        for key in shown
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(shown), title="The model sees", alignment="left")
