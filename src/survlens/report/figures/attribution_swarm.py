"""Attributions of all instances at one time, one cloud of points per feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import COLUMN, axes_or_new, zero_line
from survlens.report.figures.attribution_words import listed, names_of, nearest, value_label, when
from survlens.report.figures.canvas import light_grid, shorten, styled
from survlens.report.palette import BLUE, GREY, SEQUENTIAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.34
_REACH = 0.38
_BINS = 70
_RASTER_FROM = 2000


@styled
def draw_attribution_swarm(
    attribution: Attribution,
    time: float | None = None,
    *,
    feature_values: np.ndarray | None = None,
    top: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """One point per instance and feature: across, its attribution; colour, the value of the feature.

    Points of about the same attribution are stacked around the line of their feature, so a thick place holds many.
    Colours go by the rank of the value within its feature; instances without a value are grey.

    Args:
        attribution: Attributions of features in a list.
        time: The stored time nearest to it is drawn; the last by default.
        feature_values: Values (instance, feature), NaN where missing; one colour without.
        top: How many features are drawn, the largest by mean |attribution| first, > 0.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If the features are a picture, or `feature_values` do not fit.
    """
    column = nearest(attribution, time)
    values, names = listed(attribution)[:, :, column], names_of(attribution)
    if top < 1 or (feature_values is not None and np.shape(feature_values) != values.shape):
        raise InvalidValueError(
            f"`feature_values` must have the shape {values.shape}, instance by feature, and `top` must be > 0; "
            f"got {None if feature_values is None else np.shape(feature_values)} and {top}."
        )
    order = np.argsort(-np.nan_to_num(np.abs(values)).mean(axis=0), kind="stable")[:top]
    axes = axes_or_new(ax, COLUMN, _ROW * len(order) + 1.3)
    reach = float(np.nanmax(np.abs(values[:, order]), initial=0.0)) or 1.0
    low, high = (float(np.nan_to_num(edge)) for edge in (values[:, order].min(), values[:, order].max()))
    low, high = min(low, 0.0) - 0.06 * reach, max(high, 0.0) + 0.06 * reach
    size = float(np.clip(1500 / max(len(values), 1), 4, 16))
    zero_line(axes, vertical=True)
    for place, feature in enumerate(order):
        _cloud(
            axes, values[:, feature], None if feature_values is None else feature_values[:, feature],
            place=place, limits=(low, high), size=size,
        )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(len(order) - 0.45, -0.55)
    axes.set_yticks(range(len(order)), [shorten(names[feature], 34) for feature in order])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(value_label(attribution))
    axes.set_title(f"{when(attribution, column).capitalize()}, {len(values)} instances")
    light_grid(axes, "x")
    if feature_values is not None:
        _bar(axes)
    return axes


def _cloud(
    axes: Axes,
    values: np.ndarray,
    colours: np.ndarray | None,
    *,
    place: int,
    limits: tuple[float, float],
    size: float,
) -> None:
    finite = np.isfinite(values)
    across, up = values[finite], place + offsets(values[finite], limits)
    look = {"s": size, "linewidths": 0, "rasterized": len(values) > _RASTER_FROM, "zorder": 2}
    if colours is None:
        axes.scatter(across, up, color=BLUE, **look)  # type: ignore[arg-type]
        return
    ranks = rank_shares(np.asarray(colours, dtype=np.float64)[finite])
    known = np.isfinite(ranks)
    axes.scatter(across[~known], up[~known], color=GREY, **look)  # type: ignore[arg-type]
    axes.scatter(across[known], up[known], c=ranks[known], cmap=SEQUENTIAL, vmin=0, vmax=1, **look)  # type: ignore[arg-type]


def offsets(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Distances from the line, at most 0.38: values of one bin are stacked to both sides, the densest bin the widest.

    Args:
        values: Attributions of one feature.
        limits: Ends of the axis, which is cut into bins.
    """
    bins = np.clip(((values - limits[0]) / (limits[1] - limits[0]) * _BINS).astype(int), 0, _BINS - 1)
    order = np.argsort(bins, kind="stable")
    starts = np.searchsorted(bins[order], bins[order], side="left")
    within = np.empty(len(values), dtype=int)
    within[order] = np.arange(len(values)) - starts
    signed = (within + 1) // 2 * np.where(within % 2, 1, -1)
    most = max(int(np.abs(signed).max(initial=0)), 6)
    return signed / most * _REACH


def rank_shares(values: np.ndarray) -> np.ndarray:
    """Mid-ranks between 0 and 1, equal values alike; 0.5 where all are equal; NaN stays."""
    ranks = np.full(len(values), np.nan)
    known = np.isfinite(values)
    kinds, places, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    if len(kinds) == 1:
        ranks[known] = 0.5
    elif len(kinds) > 1:
        middle = np.cumsum(counts) - (counts + 1) / 2
        ranks[known] = ((middle - middle[0]) / (middle[-1] - middle[0]))[places]
    return ranks


def _bar(axes: Axes) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = axes.figure.colorbar(ScalarMappable(Normalize(0, 1), SEQUENTIAL), ax=axes, fraction=0.04, pad=0.03)
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.set_label("Value of the feature (rank)")
    bar.outline.set_visible(False)  # type: ignore[operator]
