"""Prediction error over time: the Brier score against Kaplan-Meier, and the gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import light_grid, new_figure, shorten, styled
from survlens.report.palette import GREY, series
from survlens.report.records import BrierCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def error_figure(curves: Sequence[tuple[str, BrierCurve]], *, unit: str) -> Figure:
    """Brier score and index of prediction accuracy of each model over time.

    Args:
        curves: Name and curve of each model; the null curve is drawn once.
        unit: Unit of time, for the axes.
    """
    figure = new_figure(7.2, 3.2)
    left, right = figure.subplots(1, 2)
    null = curves[0][1]
    left.plot(*_thinned(null.times, null.null), color=GREY, linestyle=(0, (2, 2)), linewidth=1.2, label="Kaplan-Meier")
    for position, (label, curve) in enumerate(curves):
        colour, dashes, _ = series(position)
        left.plot(*_thinned(curve.times, curve.brier), color=colour, linestyle=dashes, label=shorten(label, 30))
        right.plot(*_thinned(curve.times, curve.ipa), color=colour, linestyle=dashes, label=label)
    right.axhline(0, color=GREY, linestyle=(0, (2, 2)), linewidth=1.2)
    left.set_ylim(bottom=0)
    left.set_ylabel("Brier score (squared probability)")
    right.set_ylabel("IPA (share of error removed)")
    left.set_title("Error: lower is better")
    right.set_title("Gain over Kaplan-Meier: higher is better")
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.set_xlabel(f"Time ({shorten(unit, 16)})")
        light_grid(axes)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


def _thinned(times: Sequence[float], values: Sequence[float], most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.unique(np.linspace(0, len(times) - 1, min(most, len(times))).round().astype(int))
    return np.asarray(times)[chosen], np.asarray(values)[chosen]
