"""How pairs of features act together at one time, as a square map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import axes_or_new, signed_colours
from survlens.report.figures.attribution_words import signed_text
from survlens.report.figures.canvas import shorten, styled
from survlens.report.palette import BLACK, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WRITTEN = 9
_NAME = 22


@styled
def draw_interactions(
    values: np.ndarray,
    features: Sequence[str],
    *,
    label: str,
    title: str = "",
    limit: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A square of signed interactions; white is zero, and the limits lie alike on both sides of it.

    Up to nine features have their numbers written; with more, falls are marked by a minus.

    Args:
        values: Interactions (feature, feature) of one instance at one time.
        features: Name of each feature.
        label: What the colours show, with its unit.
        title: Title, such as the time.
        limit: Value of the darkest colours, > 0, to share it among maps; the largest |value| by default.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If the map is not square with a name per feature, or `limit` is not > 0.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(features)
    if values.shape != (count, count) or (limit is not None and not limit > 0):
        raise InvalidValueError(
            f"`values` must be a square with a row and a column for each of {count} features, and `limit` > 0; "
            f"got the shape {values.shape} and {limit}."
        )
    size = min(max(0.42 * count, 1.6), 5.4)
    axes = axes_or_new(ax, size + 2.6, size + 1.3)
    bound = limit or float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    image = axes.imshow(values, cmap=signed_colours(), vmin=-bound, vmax=bound, interpolation="nearest")
    names = [shorten(str(name), _NAME) for name in features]
    axes.set_xticks(range(count), names, rotation=90)
    axes.set_yticks(range(count), names)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color=GREY, linewidth=0.3)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    _numbers(axes, values, bound)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label(label)
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    if title:
        axes.set_title(title)
    return axes


def _numbers(axes: Axes, values: np.ndarray, bound: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        written = signed_text(float(value), bound) if len(values) <= _WRITTEN else "−" if value < -0.05 * bound else ""
        if written:
            colour = "white" if abs(value) > 0.55 * bound else BLACK
            axes.text(column, row, written, ha="center", va="center", fontsize=6.5, color=colour)
