"""Reconstruction against concordance along a path of τ, and the τ that was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import light_grid, new_figure, styled
from survlens.report.palette import BLACK, BLUE, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class TauPoint:
    """What one τ reached on validation patients.

    Attributes:
        tau: Weight of the evidence bound.
        error: Reconstruction error.
        concordance: Concordance; NaN where no survival model was trained.
    """

    tau: float
    error: float
    concordance: float


@styled
def tau_path_figure(
    points: Sequence[TauPoint], *, chosen: float, limit: float, error_label: str, oracle: float | None = None
) -> Figure:
    """Two panels over τ: reconstruction error with the largest allowed one, and concordance with that of the truth.

    Values of τ stand at equal distances in rising order; those whose error is allowed are filled, and a vertical line
    marks the chosen one.

    Args:
        points: The path, in any order.
        chosen: The τ that was chosen.
        limit: Largest error allowed.
        error_label: Axis label of the error, with its unit.
        oracle: Concordance of the true hazard.
    """
    path = sorted(points, key=lambda point: point.tau)
    figure = new_figure(5.4, 4.6)
    top, bottom = figure.subplots(2, 1, sharex=True)
    allowed = np.array([point.error <= limit for point in path])
    _line(top, np.array([point.error for point in path]), allowed, BLUE, "o")
    _line(bottom, np.array([point.concordance for point in path]), allowed, VERMILION, "s")
    top.axhline(limit, color=GREY, linewidth=1, linestyle=(0, (5, 2)))
    top.annotate("largest error allowed", (len(path) - 1, limit), (0, 3), textcoords="offset points", **_SMALL)
    top.set_ylabel(error_label)
    if oracle is not None:
        bottom.axhline(oracle, color=GREY, linewidth=1, linestyle=(0, (1.2, 1.6)))
        bottom.annotate("true hazard", (len(path) - 1, oracle), (0, 3), textcoords="offset points", **_SMALL)
    bottom.set_ylabel("Concordance")
    bottom.set_xlabel("τ, weight of the evidence bound; 1 is a plain autoencoder\n(validation patients)")
    place = [point.tau for point in path].index(chosen)
    for axes in (top, bottom):
        axes.axvline(place, color=BLACK, linewidth=0.8)
        axes.margins(x=0.06, y=0.16)
        light_grid(axes)
    reason = "the smallest whose error is allowed (filled)" if allowed[place] else "the largest below 1, as none is"
    top.set_title(f"chosen: τ = {chosen:g}, {reason}", fontsize=9)
    bottom.set_xticks(range(len(path)), [f"{point.tau:g}" for point in path])
    return figure


_SMALL = {"ha": "right", "va": "bottom", "fontsize": 7.5, "color": GREY}


def _line(axes: Axes, values: np.ndarray, filled: np.ndarray, colour: str, marker: str) -> None:
    axes.plot(values, color=colour, linewidth=1.4)
    faces = np.where(filled, colour, "white")
    axes.scatter(range(len(values)), values, c=list(faces), edgecolors=colour, marker=marker, s=34, zorder=3)
