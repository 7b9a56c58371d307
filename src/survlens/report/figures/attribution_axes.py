"""Axes for pictures of attributions: new or given, and their time axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_words import time_label
from survlens.report.figures.canvas import new_figure
from survlens.report.palette import GREY
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

COLUMN = 6.4
"""Width of a picture in inches: a text column, or two columns of a journal."""

_PER_INCH = 12.5


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """The given axes, or those of a new figure of that size in inches."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def figure_of(axes: Axes) -> Figure:
    """The figure that holds the axes."""
    figure = axes.get_figure(root=True)
    if figure is None:
        raise InvalidValueError("`axes` must stand in a figure; got axes that were taken out of theirs.")
    return figure


def style_places(names: Sequence[str], order: Sequence[str]) -> list[int]:
    """Number of the style of each name: its place in `order`, or the next free number."""
    known = {name: place for place, name in enumerate(order)}
    free = iter(range(len(known), len(known) + len(names)))
    return [known[name] if name in known else next(free) for name in names]


def places(attribution: Attribution) -> np.ndarray:
    """Where the columns stand on a time axis; at 0 where there is one column only."""
    times = attribution.times.detach().cpu().numpy().astype(np.float64)
    return times if len(times) > 1 else np.zeros(1)


def time_axis(axes: Axes, attribution: Attribution, *, label: bool = True) -> None:
    """Limits, ticks and label of the time axis; one column is named, not drawn as if time passed."""
    times = places(attribution)
    words = time_label(attribution.unit)
    if len(times) > 1:
        axes.set_xlim(min(float(times[0]), 0.0), float(times[-1]))
    else:
        time = float(attribution.times[0])
        axes.set_xlim(-0.5, 0.5)
        axes.set_xticks([] if math.isnan(time) else [0.0], [] if math.isnan(time) else [compact(time)])
        words = "One value for the whole curve" if math.isnan(time) else words
    axes.set_xlabel(words if label else "")


def zero_line(axes: Axes, *, vertical: bool = False) -> None:
    """A thin line at zero."""
    draw = axes.axvline if vertical else axes.axhline
    draw(0.0, color=GREY, linewidth=0.8, zorder=1.5)


def signed_colours() -> Colormap:
    """Colours from below to above zero; zero is white."""
    from matplotlib.colors import LinearSegmentedColormap

    from survlens.report.palette import DIVERGING

    return LinearSegmentedColormap.from_list("signed", list(DIVERGING), N=257)  # odd: zero is white


def write_label(axes: Axes, label: str) -> None:
    """The label of the vertical axis, broken into lines where the axes are lower than it is long."""
    import textwrap

    height = axes.get_position().height * figure_of(axes).get_figheight()
    lines = textwrap.wrap(label, max(int(height * _PER_INCH), 12), break_long_words=False)
    axes.set_ylabel("\n".join(lines))
