"""Kaplan-Meier curves of risk groups with the numbers at risk below them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from survlens.report.figures.canvas import light_grid, new_figure, shorten, steps, styled
from survlens.report.palette import series
from survlens.report.records import RiskGroups
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def risk_group_figure(risk_groups: RiskGroups, *, unit: str) -> Figure:
    """Survival of each risk group over time, with pointwise limits and numbers at risk.

    Args:
        risk_groups: Curves and counts.
        unit: Unit of time, for the axis.
    """
    rows = len(risk_groups.groups) if risk_groups.at_risk else 0
    figure = new_figure(6.6, 3.5 + 0.2 * rows + (0.25 if rows else 0))
    grid = figure.add_gridspec(2 if rows else 1, 1, height_ratios=[3.5, 0.2 * rows + 0.1] if rows else [1])
    upper = figure.add_subplot(grid[0])
    for position, group in enumerate(risk_groups.groups):
        colour, dashes, _ = series(position)
        curve = steps(group.times, group.survival)
        label = f"{shorten(group.label, 30)} ({group.n_events} of {group.n} had the event)"
        upper.step(curve[:, 0], curve[:, 1], where="post", color=colour, linestyle=dashes, label=label)
        low, high = steps(group.times, group.lower), steps(group.times, group.upper)
        _band(upper, low, high, colour)
    upper.set_ylim(0, 1.02)
    upper.set_xlim(left=0)
    upper.set_xlabel(f"Time ({shorten(unit, 16)})")
    upper.set_ylabel("Survival (proportion)")
    light_grid(upper)
    if risk_groups.groups:
        upper.legend(loc="best")
    if rows:
        upper.set_xticks(risk_groups.at_risk_times, [compact(time) for time in risk_groups.at_risk_times])
        upper.set_xlim(0, max(upper.get_xlim()[1], risk_groups.at_risk_times[-1]))
        _at_risk(figure.add_subplot(grid[1]), upper, risk_groups)
    return figure


def _band(axes: Axes, low, high, colour: str) -> None:  # noqa: ANN001
    import numpy as np

    times = np.unique(np.concatenate([low[:, 0], high[:, 0]]))

    def at(curve: np.ndarray) -> np.ndarray:
        return curve[np.searchsorted(curve[:, 0], times, side="right") - 1, 1]

    axes.fill_between(times, at(low), at(high), step="post", color=colour, alpha=0.13, linewidth=0)


def _at_risk(axes: Axes, upper: Axes, risk_groups: RiskGroups) -> None:
    """Counts in a strip that shares the time axis."""
    axes.set_xlim(upper.get_xlim())
    axes.set_ylim(len(risk_groups.groups) - 0.5, -0.5)
    axes.set_title("Number at risk (patients)", fontsize=8.5)
    axes.set_yticks(range(len(risk_groups.groups)), [shorten(group.label, 18) for group in risk_groups.groups])
    axes.set_xticks([])
    axes.tick_params(length=0, pad=16)
    axes.spines[["left", "bottom"]].set_visible(False)
    for position, counts in enumerate(risk_groups.at_risk):
        axes.get_yticklabels()[position].set_color(series(position)[0])
        for time, count in zip(risk_groups.at_risk_times, counts, strict=True):
            axes.text(time, position, f"{count:,}", ha="center", va="center", fontsize=8.5)
