"""Whether an explanation finds what the prediction rests on: removal in its order against random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import COLUMN, axes_or_new, write_label
from survlens.report.figures.canvas import light_grid, styled
from survlens.report.palette import BLUE, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class RemovalLine:
    """What is left, or changed, after a share of the features is removed or put back.

    Attributes:
        share: Shares removed, from 0 to 1, increasing.
        value: Value at each share.
        lower: Lower limits; None without.
        upper: Upper limits; None without.
    """

    share: np.ndarray
    value: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None

    def __post_init__(self) -> None:
        given = [each for each in (self.value, self.lower, self.upper) if each is not None]
        if any(np.shape(each) != np.shape(self.share) for each in given):
            raise InvalidValueError(
                f"`value` and its limits must have one number per share ({len(self.share)}); "
                f"got {[np.shape(each) for each in given]}."
            )


@styled
def draw_removal(explained: RemovalLine, random: RemovalLine | None, *, label: str, ax: Axes | None = None) -> Axes:
    """The curve in the order of the explanation, against random order, each with its interval.

    Args:
        explained: In the order of the explanation.
        random: In random order, or None.
        label: What is measured, with its unit.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.
    """
    axes = axes_or_new(ax, 0.75 * COLUMN, 2.7)
    lines: list[tuple[RemovalLine, str, str, object]] = [(explained, "order of the explanation", BLUE, "-")]
    if random is not None:
        lines.append((random, "random order", GREY, (0, (5, 2))))
    for line, name, colour, dashes in lines:
        share = 100 * np.asarray(line.share, dtype=np.float64)
        if line.lower is not None and line.upper is not None:
            axes.fill_between(share, line.lower, line.upper, color=colour, alpha=0.18, linewidth=0)
        axes.plot(share, line.value, color=colour, linestyle=dashes, label=name)  # type: ignore[arg-type]
    axes.set_xlim(0, 100)
    axes.set_xlabel("Share of the features removed (%)")
    write_label(axes, label)
    light_grid(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return axes
