"""Explanations of volumes beside the truth: one slice, what two methods say of it, and how that changes in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.attribution_axes import signed_colours
from survlens.report.figures.attribution_pictures import symmetric_limit
from survlens.report.figures.canvas import light_grid, new_figure, styled
from survlens.report.palette import BLACK, GREY, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedSlice:
    """A slice through a tumour, and what methods say of it.

    Attributes:
        given: What the network was given.
        picture: Grey values in [0, 1], (x, y).
        tumour: Where the tumour is, (x, y).
        maps: Contributions (x, y, time) by method.
        times: The times, of which the first and the last are drawn.
        unit: Unit of time.
        label: What contributions are of, with their unit.
    """

    given: str
    picture: np.ndarray
    tumour: np.ndarray
    maps: Mapping[str, np.ndarray]
    times: Sequence[float]
    unit: str
    label: str


@styled
def explained_slices_figure(rows: Sequence[ExplainedSlice]) -> Figure:
    """A row per network: the slice, and the maps of each method at the first time and the last, on one scale each.

    The first axis runs to the right of the page, the second upwards. Outlines follow the edges of the tumour's voxels.

    Args:
        rows: The slices; all with the same methods.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    methods = tuple(rows[0].maps)
    figure = new_figure(1.55 * (1 + 2 * len(methods)) + 0.7, 1.85 * len(rows) + 0.2)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    tone = signed_colours()
    for part, row in zip(parts, rows, strict=True):
        axes = part.subplots(1, 1 + 2 * len(methods), squeeze=False)[0]
        part.suptitle(f"given: {row.given}; colours: {row.label}", x=0.01, ha="left", fontsize=9)
        axes[0].imshow(row.picture.T, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest")
        axes[0].set_title("slice", loc="center", fontsize=8)
        for place, method in enumerate(methods):
            ends = row.maps[method][..., [0, -1]].astype(np.float64)
            bound = symmetric_limit(ends, None)
            scale = Normalize(-bound, bound)
            two = axes[1 + 2 * place : 3 + 2 * place]
            for one, values, time in zip(two, np.moveaxis(ends, -1, 0), (row.times[0], row.times[-1]), strict=True):
                one.imshow(values.T, cmap=tone, norm=scale, origin="lower", interpolation="nearest")
                one.set_title(f"{method},\n{time:g} {row.unit}", loc="center", fontsize=8)
            beyond = "both" if np.nanmax(np.abs(ends)) > bound else "neither"
            part.colorbar(
                ScalarMappable(scale, tone), ax=list(two), extend=beyond, fraction=0.035, pad=0.015, aspect=18
            )
        for one in axes:
            _outlined(one, row.tumour)
    return figure


def _outlined(axes: Axes, inside: np.ndarray) -> None:
    """Draws the edges between voxels inside and outside."""
    from matplotlib.collections import LineCollection

    padded = np.pad(inside, 1)
    across = [((x - 0.5, y - 0.5), (x - 0.5, y + 0.5)) for x, y in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])]
    along = [((x - 0.5, y - 0.5), (x + 0.5, y - 0.5)) for x, y in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])]
    axes.add_collection(LineCollection(across + along, colors=BLACK, linewidths=1.0))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=GREY, linewidth=0.4)


@styled
def located_over_time_figure(
    times: np.ndarray,
    panels: Mapping[str, Mapping[str, np.ndarray]],
    truth: Mapping[str, np.ndarray],
    *,
    unit: str,
) -> Figure:
    """How scores of location change in time: a panel per score, a line per network and method.

    Args:
        times: The times.
        panels: Values at the times by series, by score.
        truth: What a score would be of the truth, by the name of the score, where it is known.
        unit: Unit of time.
    """
    figure = new_figure(2.5 * len(panels) + 0.4, 3.4)
    for axes, (score, lines) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        if score in truth:
            axes.plot(times, truth[score], color=BLACK, linewidth=1.0, label="truth")
        for position, (name, values) in enumerate(lines.items()):
            colour, dashes, marker = series(position)
            axes.plot(times, values, color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=name)
        axes.set_title(score)
        axes.set_xticks(times)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlabel(f"Time ({unit})")
        light_grid(axes)
    handles = {
        label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=2)
    return figure
