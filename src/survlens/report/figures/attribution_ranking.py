"""Which features matter over all instances: importances with intervals, for all or by subgroup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import COLUMN, axes_or_new
from survlens.report.figures.canvas import light_grid, shorten, styled
from survlens.report.palette import series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.2
_NAME = 34


@dataclass(frozen=True, slots=True, eq=False)
class Importances:
    """Importance of every feature in one set of instances.

    Attributes:
        label: The set of instances, such as "all" or "grade G3".
        importance: Mean absolute attribution of each feature, averaged over times.
        lower: Lower limits; NaN where there is none.
        upper: Upper limits; NaN where there is none.
    """

    label: str
    importance: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def __post_init__(self) -> None:
        shapes = {np.shape(each) for each in (self.importance, self.lower, self.upper)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise InvalidValueError(
                f"`importance`, `lower` and `upper` must have one number per feature; got the shapes {shapes}. "
                "Put NaN where there is no limit."
            )


@styled
def draw_attribution_ranking(
    features: Sequence[str], sets: Sequence[Importances], *, label: str, top: int = 15, ax: Axes | None = None
) -> Axes:
    """Dots with intervals, the most important feature of the first set on top.

    Args:
        features: Name of each feature.
        sets: Importances of all instances, or of each subgroup; they share the rows.
        label: What the axis shows, with its unit.
        top: How many features are drawn, > 0.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If there is no set, or a set does not have one importance per feature.
    """
    if not sets or top < 1 or any(len(one.importance) != len(features) for one in sets):
        raise InvalidValueError(
            f"`sets` must be one or more with an importance for each of {len(features)} features, and `top` > 0; "
            f"got {[len(one.importance) for one in sets]} and {top}."
        )
    order = np.argsort(-np.nan_to_num(np.asarray(sets[0].importance, dtype=np.float64)), kind="stable")[:top]
    axes = axes_or_new(ax, COLUMN, _ROW * len(order) * max(1.0, 0.7 * len(sets)) + 1.1 + 0.2 * (len(sets) > 1))
    away = np.zeros(1) if len(sets) == 1 else np.linspace(-0.28, 0.28, len(sets))
    for place, (one, shift) in enumerate(zip(sets, away, strict=True)):
        colour, _, marker = series(place)
        rows = np.arange(len(order)) + shift
        low, high = (np.asarray(limits, dtype=np.float64)[order] for limits in (one.lower, one.upper))
        known = np.isfinite(low) & np.isfinite(high)
        axes.hlines(rows[known], low[known], high[known], color=colour, linewidth=1.3)
        dots = np.asarray(one.importance, dtype=np.float64)[order]
        axes.plot(
            dots, rows, marker=marker, color=colour, markersize=4.5, linestyle="none", label=shorten(one.label),
            clip_on=False,
        )  # fmt: skip
    axes.set_yticks(range(len(order)), [shorten(str(features[feature]), _NAME) for feature in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.margins(x=0.05)
    axes.set_xlabel(label)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    light_grid(axes, "x")
    if len(order) < len(features):
        axes.set_title(f"The largest {len(order)} of {len(features)} features", fontsize=8.5)
    if len(sets) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return axes
