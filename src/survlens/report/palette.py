"""Colours, line styles and markers that stay apart for colour-blind readers and in greyscale."""

from __future__ import annotations

from collections.abc import Mapping

BLACK = "#1a1a1a"
GREY = "#767676"
LIGHT = "#d9d9d9"
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
ORANGE = "#E69F00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"

SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
"""Okabe and Ito 2008, without yellow (too light on white)."""

DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)), (0, (9, 3)), (0, (3, 1.5, 1, 1.5, 1, 1.5)))
"""Line styles in the order of `SERIES`."""

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Markers in the order of `SERIES`."""

SEQUENTIAL = "viridis"
"""From low to high; its lightness rises evenly, so it survives greyscale."""

DIVERGING = ("#08306b", "#2f78b5", "#a6cbe3", "#ffffff", "#f7bd8b", "#dd6a12", "#7f2704")
"""Signed values from below to above zero; zero is white, and figures add dashed (below) and solid (above) outlines."""

STYLE: Mapping[str, object] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": BLACK,
    "axes.labelcolor": BLACK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "path.simplify": True,
}
"""Settings of every figure; figures are made and saved inside `matplotlib.rc_context(STYLE)`."""


def series(position: int) -> tuple[str, object, str]:
    """Colour, line style and marker of the series at `position`."""
    return SERIES[position % len(SERIES)], DASHES[position % len(DASHES)], MARKERS[position % len(MARKERS)]
