"""Edited portraits beside each other, and what edits along several directions do to illness and to age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.score import Score
from survlens.report.figures.canvas import light_grid, new_figure, shorten, styled
from survlens.report.palette import GREY, MARKERS, SERIES
from survlens.report.portrait_records import EditRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_FORECAST = "Synthetic pictures, no forecast of anybody"
"""What stands on every grid of edits."""
_TILE = 96


@styled
def edit_grid_figure(rows: Sequence[EditRow], *, steps: Sequence[float], unit: str, remark: str = "") -> Figure:
    """A row per person and direction, a column per step; the photograph stands first where it is given.

    Args:
        rows: Rows, in order.
        steps: Step of each column.
        unit: What a step of 1 is.
        remark: A sentence above the grid, such as how far the direction can be trusted.

    Raises:
        InvalidValueError: If there is no row, or a row has another number of pictures than there are steps.
    """
    if not rows or any(len(row.pictures) != len(steps) for row in rows):
        raise InvalidValueError(
            f"`rows` must be at least one, each with {len(steps)} pictures; got {[len(row.pictures) for row in rows]}."
        )
    first = any(row.photograph is not None for row in rows)
    columns = len(steps) + int(first)
    height, width = rows[0].pictures.shape[-2:]
    tile = min(5.6 / columns, 1.2)
    figure = new_figure(1.7 + columns * tile, 0.95 + len(rows) * tile * height / width)
    axes = figure.subplots()
    axes.imshow(_mosaic(rows, columns, first), extent=(0, columns, len(rows), 0), interpolation="nearest")
    axes.set_aspect("equal" if height == width else height / width)
    names = [*(["photograph"] if first else []), *(f"{step:+g}" if step else "0" for step in steps)]
    axes.set_xticks(np.arange(columns) + 0.5, names)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [shorten(row.label, 34) for row in rows])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(f"Step ({unit})\n{NO_FORECAST}")
    if remark:
        axes.set_title(_wrapped(remark, 96), fontsize=7.5, loc="left")
    return figure


def _mosaic(rows: Sequence[EditRow], columns: int, first: bool) -> np.ndarray:
    height, width = rows[0].pictures.shape[-2:]
    scale = max(1, -(-_TILE // width))
    gap = max(1, scale * width // 48)
    canvas = np.ones((len(rows) * height * scale, columns * width * scale, 3))
    for i, row in enumerate(rows):
        shown = [*([row.photograph] if first else []), *row.pictures]
        for j, picture in enumerate(shown):
            if picture is None:
                continue
            colours = np.broadcast_to(np.moveaxis(picture, 0, -1), (height, width, 3)).clip(0, 1)
            large = colours.repeat(scale, axis=0).repeat(scale, axis=1)
            top, left = i * height * scale, j * width * scale
            inside = large[gap:-gap, gap:-gap] if min(large.shape[:2]) > 4 * gap else large
            inset = (large.shape[0] - inside.shape[0]) // 2
            canvas[top + inset : top + inset + len(inside), left + inset : left + inset + inside.shape[1]] = inside
    return canvas


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """What an edit along one direction does to two readings, per step.

    Attributes:
        label: The direction.
        along: Slope of the reading that it is meant to change, with its interval.
        aside: Slope of the one that it is not meant to change.
        control: Whether it is a direction that ought to do nothing.
    """

    label: str
    along: Score
    aside: Score
    control: bool = False


@styled
def edit_front_figure(points: Sequence[FrontPoint], *, along: str, aside: str) -> Figure:
    """Slopes of two readings against each other: the best edit lies to the right and at height 0.

    Args:
        points: Directions; controls are drawn small and grey.
        along: Axis label of the reading that edits are meant to change.
        aside: Axis label of the one that they are not.
    """
    figure = new_figure(5.6, 4.0)
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    controls = [point for point in points if point.control]
    shown = [point for point in points if not point.control]
    if controls:
        places = ([point.along.value for point in controls], [point.aside.value for point in controls])
        axes.plot(*places, linestyle="none", marker="x", color=GREY, markersize=5, label=f"{len(controls)} controls")
    for k, point in enumerate(shown):
        _cross(axes, point, SERIES[k % len(SERIES)], MARKERS[k % len(MARKERS)])
    axes.set_xlabel(along)
    axes.set_ylabel(aside)
    light_grid(axes, "both")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _cross(axes: Axes, point: FrontPoint, colour: str, marker: str) -> None:
    x, y = point.along.value, point.aside.value
    if point.along.interval is not None:
        axes.hlines(y, point.along.interval.lower, point.along.interval.upper, color=colour, linewidth=1.2)
    if point.aside.interval is not None:
        axes.vlines(x, point.aside.interval.lower, point.aside.interval.upper, color=colour, linewidth=1.2)
    axes.plot(x, y, marker=marker, color=colour, linestyle="none", markersize=6, label=shorten(point.label, 40))


@styled
def restart_figure(agreement: Sequence[float], *, space: str) -> Figure:
    """Histogram of the restart agreement of every photograph: 1 where two descents found the same vector.

    Args:
        agreement: Cosine between what two starts found, of each photograph.
        space: Name of the latent space.
    """
    values = np.asarray(agreement, dtype=np.float64)
    values = values[np.isfinite(values)]
    figure = new_figure(5.4, 2.4)
    axes = figure.subplots()
    low = min(0.0, float(np.floor(values.min() * 10) / 10)) if values.size else 0.0
    axes.hist(values, bins=np.linspace(low, 1, 26).tolist(), color=SERIES[0])
    if values.size:
        axes.axvline(values.mean(), color=SERIES[1], linewidth=1.4)
        axes.set_title(f"mean {float(values.mean()):.2f} over {values.size} photographs", fontsize=9)
    axes.set_xlabel(f"Restart agreement in {space} (cosine)")
    axes.set_ylabel("Photographs")
    return figure


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
