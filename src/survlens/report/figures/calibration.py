"""Predicted against observed risk at each horizon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import light_grid, new_figure, shorten, styled
from survlens.report.palette import BLACK, GREY, series
from survlens.report.records import Calibration
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def calibration_figure(models: Sequence[tuple[str, Sequence[Calibration]]], *, unit: str) -> Figure:
    """Groups of patients with limits, the smooth curve, and the diagonal of perfect calibration.

    Args:
        models: Name of each model (a row of panels) and its calibration at each horizon (a column).
        unit: Unit of time, for the titles.
    """
    columns = max(len(calibrations) for _, calibrations in models)
    figure = new_figure(min(7.2, 2.6 * columns + 0.6), 2.7 * len(models) + 0.3)
    panels = figure.subplots(len(models), columns, squeeze=False, sharex=True, sharey=True)
    for row, (label, calibrations) in enumerate(models):
        for column in range(columns):
            axes = panels[row, column]
            if column >= len(calibrations):
                axes.set_visible(False)
                continue
            _panel(axes, calibrations[column], position=row)
            axes.set_title(f"{shorten(label, 24)}\nby {compact(calibrations[column].horizon)} {shorten(unit, 16)}")
            if column == 0:
                axes.set_ylabel("Observed risk (proportion)")
            if row == len(models) - 1:
                axes.set_xlabel("Predicted risk (proportion)")
    return figure


def _panel(axes: Axes, calibration: Calibration, *, position: int) -> None:
    colour, _, marker = series(position)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (2, 2)), linewidth=1.0)
    if calibration.curve_predicted:
        axes.plot(calibration.curve_predicted, calibration.curve_observed, color=colour, linewidth=1.4)
    if calibration.groups:
        predicted = np.array([group.predicted for group in calibration.groups])
        observed = np.array([group.observed for group in calibration.groups])
        limits = np.array([(group.lower, group.upper) for group in calibration.groups])
        limits = np.where(np.isfinite(limits), limits, observed[:, None])
        axes.vlines(predicted, limits[:, 0], limits[:, 1], color=BLACK, linewidth=0.9)
        axes.plot(
            predicted, observed, linestyle="none", marker=marker, color=BLACK, markerfacecolor="white", markersize=5
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    light_grid(axes, "both")
