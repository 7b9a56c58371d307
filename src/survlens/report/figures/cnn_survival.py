"""Figures of an experiment on slices: accuracy over time, two patients, and what the network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import light_grid, new_figure, styled
from survlens.report.palette import BLACK, GREY, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def ipa_figure(times: np.ndarray, values: Mapping[str, np.ndarray], *, horizon: float, unit: str) -> Figure:
    """Mean IPA over time of each model, with the interval of the mean over repetitions at the horizon.

    Args:
        times: Where it was computed.
        values: Array (repetition, time) by model; NaN where it is not known.
        horizon: Time that is marked.
        unit: Unit of time.
    """
    figure = new_figure(7.2, 3.9)
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linestyle=(0, (2, 2)), linewidth=1.2)
    axes.axvline(horizon, color=GREY, linewidth=0.8)
    for position, (name, table) in enumerate(values.items()):
        colour, dashes, marker = series(position)
        known = np.isfinite(table)
        count = known.sum(0)
        mean = np.where(known, table, 0.0).sum(0) / np.where(count, count, np.nan)
        squares = np.where(known, (table - mean) ** 2, 0.0).sum(0)
        error = np.sqrt(squares / np.where(count > 1, (count - 1) * count, np.nan))
        axes.plot(times, mean, color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=name)
        shift = (position - (len(values) - 1) / 2) * 0.012 * float(times[-1])
        here = times == horizon
        axes.errorbar(
            horizon + shift, mean[here], 2 * error[here], color=colour, marker=marker, markersize=5, linewidth=1.4
        )
    axes.set_xlim(0, float(times[-1]) * 1.02)
    axes.set_xlabel(f"Time ({unit})")
    axes.set_ylabel("IPA (share of error removed)")
    axes.set_title("Gain over Kaplan-Meier: higher is better; bars are two standard errors")
    light_grid(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


@styled
def two_patients_figure(
    times: np.ndarray,
    curves: Mapping[str, np.ndarray],
    observed: Sequence[tuple[float, bool]],
    *,
    horizon: float,
    unit: str,
) -> Figure:
    """Survival curves that models predict for two patients, beside what happened to them.

    Args:
        times: Where the curves were computed.
        curves: Array (patient, time) by model.
        observed: Time of each patient, and whether it ended in an event.
        horizon: Time that is marked.
        unit: Unit of time.
    """
    figure = new_figure(7.2, 3.5)
    panels = figure.subplots(1, len(observed), sharey=True)
    for patient, (axes, (time, event)) in enumerate(zip(panels, observed, strict=True)):
        for position, (name, table) in enumerate(curves.items()):
            colour, dashes, _ = series(position)
            axes.plot(np.append(0.0, times), np.append(1.0, table[patient]), color=colour, linestyle=dashes, label=name)
        axes.axvline(horizon, color=GREY, linewidth=0.8)
        axes.plot(
            min(time, float(times[-1])), 0.03, marker="x" if event else "o", color=BLACK, markersize=7, clip_on=False
        )
        what = "died" if event else "last seen alive"
        axes.set_title(f"{what} at {time:.1f} {unit}")
        axes.set_xlim(0, float(times[-1]))
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"Time ({unit})")
        light_grid(axes)
    panels[0].set_ylabel("Survival")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


@styled
def slice_montage(rows: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Slices of each cohort from the smallest region to the largest, on one grey scale.

    Args:
        rows: Pictures (slice, x, y) in [0, 1] and voxels of tumour in each, by cohort.
    """
    columns = max(len(pictures) for pictures, _ in rows.values())
    figure = new_figure(0.66 * columns, 1.1 * len(rows))
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, (pictures, voxels)) in zip(parts, rows.items(), strict=True):
        part.suptitle(f"{name}: voxels of tumour", x=0.005, ha="left", fontsize=9)
        for place, axes in enumerate(part.subplots(1, columns, squeeze=False)[0]):
            axes.set_axis_off()
            if place < len(pictures):
                axes.imshow(pictures[place].T, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest")
                axes.set_title(f"{voxels[place]:,}", fontsize=8, loc="center")
    return figure
