"""Making and saving figures: one style, no global state, the same bytes every time."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from survlens.report.palette import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

_PAGE_FONTS = "'Helvetica Neue', Helvetica, 'Liberation Sans', Arial, sans-serif"
_PNG_DPI = 160


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Runs a drawing function with the style of the report, whatever the user's matplotlib settings are."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, not known to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@styled
def save_figure(figure: Figure, folder: Path, name: str) -> tuple[bytes, bytes]:
    """Writes `name`.svg and `name`.png and returns their bytes.

    Neither holds a date, and ids are salted with `name`, so the same figure gives the same bytes.

    Args:
        figure: What to save.
        folder: Existing folder.
        name: File name without its ending.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    matplotlib.rcParams["svg.hashsalt"] = name
    svg, png = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing")  # a script that the font lacks shows as boxes
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # crowded, but drawn
        # Laid out once, then printed by the canvases themselves: `savefig` would draw every file twice.
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
        figure.set_layout_engine("none")
        figure.set_dpi(_PNG_DPI)
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(svg, metadata=no_metadata)  # type: ignore[call-arg]
        figure.set_dpi(_PNG_DPI)  # the svg canvas sets its own
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    text = svg.getvalue().decode("utf-8").replace("'DejaVu Sans', sans-serif", _PAGE_FONTS)
    text = text.replace("'DejaVu Sans'", _PAGE_FONTS)
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    (folder / f"{name}.png").write_bytes(png.getvalue())
    return text.encode("utf-8"), png.getvalue()


def steps(
    times: Sequence[float], values: Sequence[float], *, initial: float = 1.0, smallest: float = 0.0015
) -> np.ndarray:
    """Corners of a step curve from time 0, without the steps too small to be seen: rows of (time, value)."""
    kept: list[tuple[float, float]] = [(0.0, initial)]
    for time, value in zip(times, values, strict=True):
        if np.isfinite(value) and abs(value - kept[-1][1]) >= smallest:
            kept.append((float(time), float(value)))
    if len(times):
        kept.append((float(times[-1]), kept[-1][1]))
    return np.array(kept)


def shorten(text: str, most: int = 40) -> str:
    """A name cut to what fits beside a figure; the tables keep it whole."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Faint grid lines behind the data."""
    axes.grid(visible=True, axis=axis, color="#e6e6e6", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
