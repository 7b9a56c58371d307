"""Names beside the ends of lines and bands, placed so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 8.0
GAP = 1.32 * SIZE
"""Points from one name to the next."""

_AWAY = 16.0
_DARKER = 0.78
_POINTS = 72.0


def spread(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Places nearest to `wanted` in squares that keep their order, a distance of `gap`, and the room.

    With y_i the i-th smallest place, y_i - i gap must not fall: an isotonic regression, solved by pooling neighbours
    that break the order; clipping its solution gives the solution within bounds.

    Args:
        wanted: Places asked for.
        gap: Least distance between two.
        low: Least place.
        high: Largest place; exceeded upwards and downwards alike where the room is too small.
    """
    count = len(wanted)
    if count == 0:
        return np.zeros(0)
    need = (count - 1) * gap
    if need > high - low:
        middle = (low + high) / 2
        low, high = middle - need / 2, middle + need / 2
    order = np.argsort(wanted, kind="stable")
    shifted = np.asarray(wanted, dtype=np.float64)[order] - gap * np.arange(count)
    pools: list[tuple[float, int]] = []
    for value in shifted:
        mean, size = float(value), 1
        while pools and pools[-1][0] >= mean:
            before, members = pools.pop()
            mean, size = (mean * size + before * members) / (size + members), size + members
        pools.append((mean, size))
    pooled = np.repeat([mean for mean, _ in pools], [size for _, size in pools])
    places = np.empty(count)
    places[order] = np.clip(pooled, low, high - need) + gap * np.arange(count)
    return places


def room(axes: Axes) -> int:
    """How many names fit beside `axes` as it is laid out now."""
    return max(int(_height(axes) / GAP) + 1, 1)


def name_ends(axes: Axes, ends: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str]) -> None:
    """Writes names in a column right of `axes`, each tied by a thin line to its end.

    Distances between names are in points from one anchor, so they hold at any later size of the axes.

    Args:
        axes: Where lines end; its limits must be final.
        ends: Time and value at which each ends.
        names: What to write.
        colours: Colour of each name.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.text import OffsetFrom

    height = _height(axes)
    low, high = axes.get_ylim()
    wanted = np.array([(y - low) / (high - low) - 0.5 for _, y in ends]) * height
    places = spread(wanted, GAP, -height / 2, height / 2)
    anchor = OffsetFrom(axes.bbox, (1.0, 0.5), unit="points")  # type: ignore[arg-type]
    for end, name, colour, place in zip(ends, names, colours, places, strict=True):
        tie = {"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0.0, 0.5)}
        axes.annotate(
            name,
            xy=end,
            xytext=(_AWAY, float(place)),
            textcoords=anchor,
            ha="left",
            va="center",
            fontsize=SIZE,
            color=tuple(_DARKER * part for part in to_rgb(colour)),
            arrowprops=tie,
            annotation_clip=False,
        )


def _height(axes: Axes) -> float:
    """Height of the axes in points, after the layout."""
    figure = axes.get_figure(root=True)
    if figure is not None and figure.get_layout_engine() is not None:
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    return float(axes.bbox.height / axes.figure.dpi * _POINTS)
