"""Figures of an experiment on slices: accuracy over time, two patients, and what the network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import light_grid, new_figure, styled
from survlens.report.palette import BLACK, GREY, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LOWEST = -1.0
"""Least IPA that is drawn: twice the error of Kaplan-Meier. Below, the rest could no longer be told apart."""


@styled
def ipa_figure(
    times: np.ndarray, values: Mapping[str, np.ndarray], truth: np.ndarray, *, horizon: float, unit: str
) -> Figure:
    """Mean IPA over time of each model, with the interval of the mean over repetitions at the horizon.

    Args:
        times: Where it was computed.
        values: Array (repetition, time) by model; NaN where it is not known. Below a time that not all repetitions
            know, the number of those that do is written.
        truth: The same of the true hazard.
        horizon: Time that is marked.
        unit: Unit of time.
    """
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linestyle=(0, (2, 2)), linewidth=1.2)
    axes.axvline(horizon, color=GREY, linewidth=0.8)
    axes.plot(times, _mean_and_error(truth)[0], color=BLACK, linewidth=1.0, label="True hazard")
    for position, (name, table) in enumerate(values.items()):
        colour, dashes, marker = series(position)
        mean, error = _mean_and_error(table)
        axes.plot(times, mean, color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=name)
        shift = (position - (len(values) - 1) / 2) * 0.012 * float(times[-1])
        here = times == horizon
        axes.errorbar(
            horizon + shift, mean[here], 2 * error[here], color=colour, marker=marker, markersize=5, linewidth=1.4
        )
    known = np.isfinite(truth).sum(0)
    axes.set_xticks(times, [_tick(*each, len(truth)) for each in zip(times, known, strict=True)])
    axes.set_xlim(0, float(times[-1]) * 1.02)
    axes.set_xlabel(f"Time ({unit})")
    axes.set_ylabel("IPA (share of the Brier score removed)")
    if axes.get_ylim()[0] < _LOWEST:
        axes.set_ylim(bottom=_LOWEST)
        axes.annotate(
            "what is worse lies below", (0, 0), (4, 4), "axes fraction", "offset points", fontsize=7.5, color=GREY
        )
    axes.set_title(f"Gain over Kaplan-Meier, mean over repetitions; bars at {horizon:g} {unit}: two standard errors")
    light_grid(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


def _mean_and_error(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the repetitions that know a value, and its standard error."""
    known = np.isfinite(table)
    count = known.sum(0)
    mean = np.where(known, table, 0.0).sum(0) / np.where(count, count, np.nan)
    squares = np.where(known, (table - mean) ** 2, 0.0).sum(0)
    return mean, np.sqrt(squares / np.where(count > 1, (count - 1) * count, np.nan))


def _tick(time: float, known: int, repetitions: int) -> str:
    return f"{time:g}" if known == repetitions else f"{time:g}\n{known} of {repetitions}"


def _mark(axes: Axes, horizon: float, unit: str) -> None:
    """A line at the horizon, named above the panel."""
    axes.axvline(horizon, color=GREY, linewidth=0.8)
    axes.annotate(
        f"{horizon:g} {unit}", (horizon, 1), (0, 4), ("data", "axes fraction"), "offset points",
        ha="center", fontsize=8, color=GREY,
    )  # fmt: skip


@styled
def two_patients_figure(
    times: np.ndarray,
    curves: Mapping[str, np.ndarray],
    observed: Sequence[tuple[float, bool]],
    truth: np.ndarray,
    *,
    horizon: float,
    unit: str,
) -> Figure:
    """Survival curves that models predict for two patients, beside what happened to them.

    Args:
        times: Where the curves were computed.
        curves: Array (patient, time) by model.
        observed: Time of each patient, and whether it ended in an event.
        truth: True survival, (patient, time).
        horizon: Time that is marked.
        unit: Unit of time.
    """
    figure = new_figure(7.2, 3.7)
    panels = figure.subplots(1, len(observed), sharey=True)
    for patient, (axes, (time, event)) in enumerate(zip(panels, observed, strict=True)):
        at = np.append(0.0, times)
        axes.plot(at, np.append(1.0, truth[patient]), color=BLACK, linewidth=1.0, label="True hazard")
        for position, (name, table) in enumerate(curves.items()):
            colour, dashes, _ = series(position)
            axes.plot(at, np.append(1.0, table[patient]), color=colour, linestyle=dashes, label=name)
        _mark(axes, horizon, unit)
        axes.plot(
            min(time, float(times[-1])), 0.03, marker="x" if event else "o", color=BLACK, markersize=7, clip_on=False
        )
        what = "× died" if event else "● last seen alive"
        axes.set_title(f"{what} at {time:.1f} {unit}", pad=16)
        axes.set_xlim(0, float(times[-1]))
        axes.set_xticks(np.arange(0, times[-1] + 1, 12))
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"Time ({unit})")
        light_grid(axes)
    panels[0].set_ylabel("Survival probability")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


@styled
def slice_montage(rows: Mapping[str, tuple[np.ndarray, np.ndarray]], *, caption: str) -> Figure:
    """Slices of each cohort from the smallest region to the largest, on one grey scale, seen from the feet.

    Args:
        rows: Pictures (slice, x, y) in [0, 1], x to the patient's right and y to the front, and voxels of tumour in
            each, by cohort.
        caption: What the pictures are.
    """
    columns = max(len(pictures) for pictures, _ in rows.values())
    figure = new_figure(0.66 * columns, 1.1 * len(rows) + 0.45)
    figure.suptitle(caption, x=0.005, ha="left", fontsize=9)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, (pictures, voxels)) in zip(parts, rows.items(), strict=True):
        part.suptitle(name, x=0.005, ha="left", fontsize=9)
        for place, axes in enumerate(part.subplots(1, columns, squeeze=False)[0]):
            axes.set_axis_off()
            if place < len(pictures):
                seen = pictures[place][::-1].T  # as radiologists look: the patient's right on the left, front above
                axes.imshow(seen, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest")
                axes.set_title(f"{voxels[place]:,}", fontsize=8, loc="center")
    return figure
