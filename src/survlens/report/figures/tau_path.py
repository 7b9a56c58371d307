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
    """Reconstruction error and concordance over τ, and one against the other.

    Values of τ stand at equal distances in rising order; those whose error is allowed are filled, and a line and a ring
    mark the chosen one. The plain autoencoder, which has no concordance, stands as a mark on the axis of errors.

    Args:
        points: The path, in any order.
        chosen: The τ that was chosen.
        limit: Largest error allowed.
        error_label: What the error is, with its unit.
        oracle: Concordance of the true hazard.
    """
    path = sorted(points, key=lambda point: point.tau)
    figure = new_figure(8.4, 4.4)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.0, 1.25))
    top = figure.add_subplot(grid[0, 0])
    bottom, against = figure.add_subplot(grid[1, 0], sharex=top), figure.add_subplot(grid[:, 1])
    allowed = np.array([point.error <= limit for point in path])
    _line(top, np.array([point.error for point in path]), allowed, BLUE, "o")
    _line(bottom, np.array([point.concordance for point in path]), allowed, VERMILION, "s")
    top.axhline(limit, color=GREY, linewidth=1, linestyle=(0, (5, 2)))
    top.annotate("largest allowed", (len(path) - 1, limit), (0, 3), textcoords="offset points", **_SMALL)
    top.set_ylabel("Error")
    top.tick_params(labelbottom=False)
    bottom.set_ylabel("Concordance")
    bottom.set_xlabel("τ, weight of the evidence bound\n(1 is a plain autoencoder)")
    place = [point.tau for point in path].index(chosen)
    for axes in (top, bottom):
        axes.axvline(place, color=BLACK, linewidth=0.8)
        axes.margins(x=0.08, y=0.18)
    bottom.set_xticks(range(len(path)), [f"{point.tau:g}" for point in path])
    _against(against, path, chosen, limit, error_label)
    for axes in (bottom, against):
        if oracle is not None:
            axes.axhline(oracle, color=GREY, linewidth=1, linestyle=(0, (1.2, 1.6)))
            right = axes.get_xlim()[1]
            axes.annotate("true hazard", (right, oracle), (-3, -3), textcoords="offset points", **_BELOW)
    for axes in (top, bottom, against):
        light_grid(axes)
    reason = (
        "the smallest whose error is allowed (filled)" if allowed[place] else "the largest below 1; none is allowed"
    )
    figure.suptitle(f"chosen on validation patients: τ = {chosen:g}, {reason}", fontsize=9)
    return figure


_SMALL = {"ha": "right", "va": "bottom", "fontsize": 7.5, "color": GREY}
_BELOW = {**_SMALL, "va": "top"}


def _against(axes: Axes, path: Sequence[TauPoint], chosen: float, limit: float, error_label: str) -> None:
    """Concordance over error, each point with its τ; the shaded side is allowed."""
    scored = [point for point in path if np.isfinite(point.concordance)]
    errors, found = ([getattr(point, name) for point in scored] for name in ("error", "concordance"))
    axes.plot(errors, found, color=GREY, linewidth=1, zorder=1)
    for point in scored:
        face = BLUE if point.error <= limit else "white"
        axes.scatter(point.error, point.concordance, s=40, c=face, edgecolors=BLUE, zorder=3)
        if point.tau == chosen:
            axes.scatter(point.error, point.concordance, s=130, facecolors="none", edgecolors=BLACK, zorder=4)
        axes.annotate(
            f"τ = {point.tau:g}", (point.error, point.concordance), (9, -12), textcoords="offset points", fontsize=8.5,
            bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
    axes.margins(x=0.22, y=0.22)
    plain = [point.error for point in path if not np.isfinite(point.concordance)]
    low, high = axes.get_xlim()
    low, high = min([low, limit, *plain]), max([high, limit, *plain])
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    axes.axvspan(low, limit, color=BLUE, alpha=0.07, linewidth=0)
    axes.axvline(limit, color=GREY, linewidth=1, linestyle=(0, (5, 2)))
    axes.annotate(
        "allowed ", (limit, 1), (-2, -4), xycoords=("data", "axes fraction"), textcoords="offset points", **_BELOW
    )
    for error in plain:
        axes.plot([error], [0], marker="^", color=BLACK, transform=axes.get_xaxis_transform(), clip_on=False, zorder=5)
        axes.annotate(
            "plain", (error, 0), (0, 8), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7.5,
            ha="center",
        )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_xlabel(f"Error: {error_label}")
    axes.set_ylabel("Concordance")


def _line(axes: Axes, values: np.ndarray, filled: np.ndarray, colour: str, marker: str) -> None:
    axes.plot(values, color=colour, linewidth=1.4)
    faces = np.where(filled, colour, "white")
    axes.scatter(range(len(values)), values, c=list(faces), edgecolors=colour, marker=marker, s=34, zorder=3)
