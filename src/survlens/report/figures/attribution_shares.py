"""Attributions over time as stacked bands: signed contributions, and shares of their absolute size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import (
    COLUMN,
    axes_or_new,
    places,
    style_places,
    time_axis,
    write_label,
    zero_line,
)
from survlens.report.figures.attribution_labels import name_ends, room
from survlens.report.figures.attribution_words import listed, names_of, one_row, target_words, value_label
from survlens.report.figures.canvas import shorten, styled
from survlens.report.palette import BLACK, LIGHT, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR = 0.36
_NAME = 28
_THINNEST = 0.004
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----")


@styled
def draw_attribution_stack(
    attribution: Attribution, row: int = 0, *, top: int = 6, order: Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Contributions of one instance, those above zero stacked upwards and those below zero downwards.

    The black line is their sum: the prediction less the mean prediction of the references, but for the completeness
    gap. Bands beyond the `top` largest are added up, signs included.

    Args:
        attribution: Additive attributions of features in a list.
        row: Position of the instance.
        top: How many features have a band of their own, > 0.
        order: Names of features in the order of their colours, to keep these alike among figures; by size without.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If contributions do not add up, there is no such instance, or the features are a picture.
    """
    if not attribution.additive:
        raise InvalidValueError(
            f"`attribution` must be of a method whose contributions add up; got {attribution.method}. "
            "Draw draw_attribution_shares or draw_attribution_curves."
        )
    times = places(attribution)
    values, names = _bands(np.nan_to_num(one_row(attribution, row)), names_of(attribution), top)
    styles = style_places(names, order)
    axes = axes_or_new(ax, COLUMN, 3.2)
    fine = _with_crossings(times, values)
    at = np.stack([np.interp(fine, times, band) for band in values])
    ends, above, below = [], np.zeros_like(fine), np.zeros_like(fine)
    for place, band in enumerate(at):
        up, down = above + np.maximum(band, 0), below + np.minimum(band, 0)
        _band(axes, fine, above, up, styles[place], other=_is_other(names, place))
        _band(axes, fine, below, down, styles[place], other=_is_other(names, place))
        ends.append(float((above + up)[-1] / 2 if band[-1] >= 0 else (below + down)[-1] / 2))
        above, below = up, down
    total = at.sum(0)
    if len(times) > 1:
        axes.plot(fine, total, color="white", linewidth=3.0)
        axes.plot(fine, total, color=BLACK, linewidth=1.4)
    else:
        axes.hlines(total[:1], -_BAR, _BAR, color=BLACK, linewidth=2.0)
    zero_line(axes)
    time_axis(axes, attribution)
    axes.margins(y=0.06)
    write_label(axes, value_label(attribution))
    _write(axes, [*ends, float(total[-1])], [*names, "sum"], times, at[:, -1], styles)
    return axes


@styled
def draw_attribution_shares(
    attribution: Attribution,
    row: int | None = 0,
    *,
    top: int = 6,
    order: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Share of each feature in the absolute contributions over time; the bands of a time sum to 100 %.

    Times at which every contribution is 0 stay empty.

    Args:
        attribution: Attributions of features in a list.
        row: Position of the instance; None for the mean absolute contribution over all instances.
        top: How many features have a band of their own, > 0; the others share one.
        order: Names of features in the order of their colours, to keep these alike among figures; by size without.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If there is no such instance, or the features are a picture.
    """
    chosen = listed(attribution) if row is None else one_row(attribution, row)[None]
    size = np.abs(np.nan_to_num(chosen)).mean(axis=0)
    whole = size.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(whole > 0, 100 * size / whole, np.nan)
    values, names = _bands(share, names_of(attribution), top)
    times = places(attribution)
    styles = style_places(names, order)
    axes = axes_or_new(ax, COLUMN, 3.2)
    ends, base = [], np.zeros_like(times)
    for place, band in enumerate(values):
        _band(axes, times, base, base + band, styles[place], other=_is_other(names, place))
        last = (base + band / 2)[np.isfinite(band)]
        ends.append(float(last[-1]) if len(last) else 50.0)
        base = base + band
    time_axis(axes, attribution)
    axes.set_ylim(0, 100)
    whom = "" if row is not None else f", mean over {attribution.instances} instances"
    axes.set_title(f"Attribution to {target_words(attribution.target)}{whom}")
    write_label(axes, "Share of absolute attribution (%)")
    _write(axes, ends, names, times, np.nan_to_num(values[:, -1]), styles)
    return axes


def _bands(values: np.ndarray, names: list[str], top: int) -> tuple[np.ndarray, list[str]]:
    """The largest features by mean absolute value, largest first, and the others in one band."""
    if top < 1:
        raise InvalidValueError(f"`top` must be > 0; got {top}. Draw at least one feature.")
    order = np.argsort(-np.nan_to_num(np.abs(values)).mean(axis=1), kind="stable")
    most = len(SERIES)
    kept = order if len(order) <= min(top, most) else order[: min(top, most)]
    left = order[len(kept) :]
    bands, named = [values[kept]], [names[feature] for feature in kept]
    if len(left):
        bands.append(values[left].sum(axis=0, keepdims=True))
        named.append(f"{len(left)} others")
    return np.concatenate(bands), named


def _is_other(names: list[str], place: int) -> bool:
    return place == len(names) - 1 and names[place].endswith(" others")


def _with_crossings(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Times, and those between them at which a straight line between two values crosses zero."""
    if len(times) < 2:
        return times
    first, last = values[:, :-1], values[:, 1:]
    crosses = first * last < 0
    along = np.where(crosses, first / np.where(crosses, first - last, 1.0), 0.0)
    between = (times[:-1] + along * np.diff(times))[crosses]
    return np.union1d(times, between)


def _colour(place: int, *, other: bool) -> str:
    return LIGHT if other else SERIES[place % len(SERIES)]


def _band(axes: Axes, times: np.ndarray, low: np.ndarray, high: np.ndarray, place: int, *, other: bool) -> None:
    """One band, told from its neighbours by colour, by hatching in greyscale, and by a white edge."""
    if np.array_equal(low, high):
        return
    colour, hatch = (
        _colour(place, other=other),
        "" if other else _HATCHES[(place + place // len(_HATCHES)) % len(_HATCHES)],
    )
    look = {"facecolor": colour, "hatch": hatch, "edgecolor": "#ffffff70", "linewidth": 0.0}
    if len(times) == 1:
        axes.bar(times, high - low, width=2 * _BAR, bottom=low, **look)  # type: ignore[arg-type]
    else:
        axes.fill_between(times, low, high, **look)  # type: ignore[arg-type]
        axes.plot(times, high, color="white", linewidth=0.7)


def _write(
    axes: Axes, ends: list[float], names: list[str], times: np.ndarray, thickness: np.ndarray, styles: list[int]
) -> None:
    """Names of bands where they end; a band too thin to be seen there is said to be."""
    end = float(times[-1]) if len(times) > 1 else _BAR
    low, high = axes.get_ylim()
    said, colours, bands = [], [], len(styles)
    for place, name in enumerate(names):
        thin = place < bands and abs(thickness[place]) < _THINNEST * (high - low)
        said.append(shorten(name, _NAME) + (" (thin at the end)" if thin and len(times) > 1 else ""))
        plain = place >= bands or _is_other(names[:bands], place)
        colours.append(BLACK if plain else _colour(styles[place], other=False))
    shown = range(min(len(names), room(axes)))
    name_ends(axes, [(end, ends[p]) for p in shown], [said[p] for p in shown], [colours[p] for p in shown])
