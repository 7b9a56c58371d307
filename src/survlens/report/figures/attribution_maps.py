"""Attributions of pictures over time, laid over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import signed_colours, write_label
from survlens.report.figures.attribution_pictures import (
    colours,
    grey,
    map_axes,
    maps_of,
    symmetric_limit,
    top_mask,
)
from survlens.report.figures.attribution_words import nearest, time_label, value_label
from survlens.report.figures.canvas import new_figure, shorten, styled
from survlens.report.palette import BLACK, GREY
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

_WIDTH = 7.4
_MOST_TIMES = 5
_OPAQUE = 0.9
_FADE = 0.6
_OUTLINED = 0.4
_PALE, _DARK = 0.92, 0.25
_DIMMEST, _BRIGHTEST = 0.25, 0.9


@styled
def draw_attribution_maps(
    attribution: Attribution,
    pictures: np.ndarray | None = None,
    *,
    items: Sequence[int] | None = None,
    times: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    smooth: float = 0.0,
    top_share: float = 0.1,
    limit: float | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """One row per picture: the picture, its map at each time over the picture in grey, and the picture masked.

    Channels of the map are added up. The map is transparent at zero, blue below and orange above it; one limit, alike
    on both sides, serves all pictures and times, and what lies beyond is drawn in the darkest colour. Dashed outlines
    stand around strong falls and solid ones around strong rises, so the sign can be read in greyscale. The last column
    shows the picture only where the mean |map| over the drawn times is in its largest `top_share`.

    Args:
        attribution: Attributions of pictures.
        pictures: Pictures (item, channel, height, width) in [0, 1] as they are to be shown, of all items of
            `attribution`; a plain background without.
        items: Positions of the items drawn, in order; all by default.
        times: The stored times nearest to them are drawn; up to five spread over all by default.
        names: Name of each row.
        smooth: Standard deviation of a Gaussian in pixels; 0 draws the raw map.
        top_share: Share of the pixels that stay in the masked view, in (0, 1].
        limit: Value of the darkest colours, > 0; by default the 99.5 % quantile of |map|.
        axes: Axes (row, column) to draw in, with two columns more than times; new ones by default.

    Returns:
        The axes, (row, column).

    Raises:
        InvalidValueError: If the attribution is not of pictures, or an argument does not fit it.
    """
    if len(map_axes(attribution)) != 2:
        raise InvalidValueError(
            f"`attribution` must be of pictures; got the axes {', '.join(attribution.dims)}. "
            "Draw volumes by draw_attribution_slices."
        )
    chosen = list(range(len(attribution))) if items is None else [int(item) for item in items]
    _check(attribution, pictures, chosen, names)
    columns = _columns(attribution, times)
    maps = maps_of(attribution, smooth)[chosen][..., columns]
    bound = symmetric_limit(maps, limit)
    panels = _panels(axes, len(chosen), len(columns), maps.shape[1:3])
    tone = signed_colours()
    for row, item in enumerate(chosen):
        under = None if pictures is None else np.asarray(pictures[item], dtype=np.float64)
        _row(panels[row], under, maps[row], bound=bound, share=top_share, tone=tone)
    _titles(panels, attribution, columns, top_share)
    labels = _row_names(attribution, chosen) if names is None else [str(name) for name in names]
    for row, label in enumerate(labels):
        write_label(panels[row, 0], shorten(label, 40))
    figure = panels[0, 0].get_figure(root=True)
    _bar(figure, panels, tone, bound=bound, maps=maps, label=value_label(attribution), under=pictures)
    how = "raw" if smooth == 0 else f"smoothed by a Gaussian, σ = {compact(float(smooth))} px"
    if axes is None:
        figure.suptitle(f"{attribution.method} maps, {how}", fontsize=9.5, x=0.01, ha="left")
    else:
        panels[0, 0].set_title(f"Picture ({how})", fontsize=8.5)
    return panels


def _check(
    attribution: Attribution, pictures: np.ndarray | None, items: list[int], names: Sequence[str] | None
) -> None:
    height, width = (attribution.values.shape[1 + attribution.dims.index(name)] for name in ("height", "width"))
    if pictures is not None and (
        np.ndim(pictures) != 4 or len(pictures) != len(attribution) or np.shape(pictures)[2:] != (height, width)
    ):
        raise InvalidValueError(
            f"`pictures` must be (item, channel, height, width) with {len(attribution)} items of {height} by {width} "
            f"pixels; got {np.shape(pictures)}. Pass the pictures as the model saw them, in the same order."
        )
    if not items or any(not 0 <= item < len(attribution) for item in items):
        raise InvalidValueError(
            f"`items` must be positions of items, 0 to {len(attribution) - 1}; got {items[:8]}. Count from 0."
        )
    if names is not None and len(names) != len(items):
        raise InvalidValueError(f"`names` must hold one name per row, {len(items)}; got {len(names)}.")


def _columns(attribution: Attribution, times: Sequence[float] | None) -> list[int]:
    if times is not None:
        return list(dict.fromkeys(nearest(attribution, float(time)) for time in times))
    count = len(attribution.times)
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, _MOST_TIMES))})


def _panels(axes: np.ndarray | None, rows: int, times: int, shape: tuple[int, ...]) -> np.ndarray:
    if axes is not None:
        given = np.asarray(axes, dtype=object)
        if given.shape != (rows, times + 2):
            raise InvalidValueError(
                f"`axes` must have a row per picture and two columns more than times, {(rows, times + 2)}; "
                f"got {given.shape}."
            )
        return given
    width = min(_WIDTH, 1.15 * (times + 2) + 1.3)
    tile = (width - 1.3) / (times + 2)
    figure = new_figure(width, rows * (tile * shape[0] / shape[1] + 0.06) + 0.85)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.02, wspace=0.0, hspace=0.0)  # type: ignore[union-attr]
    return figure.subplots(rows, times + 2, squeeze=False)


def _row(
    axes: np.ndarray, picture: np.ndarray | None, maps: np.ndarray, *, bound: float, share: float, tone: Colormap
) -> None:
    """Picture, maps over it, masked picture."""
    shape = maps.shape[:2]
    base = np.full(shape, _PALE) if picture is None else grey(picture)
    shown = np.full((*shape, 3), _PALE) if picture is None else colours(picture)
    axes[0].imshow(shown, interpolation="nearest")
    for one, values in zip(axes[1:-1], np.moveaxis(maps, -1, 0), strict=True):
        overlay(one, base, values, bound=bound, tone=tone)
    kept = top_mask(np.abs(np.nan_to_num(maps)).mean(axis=-1), share)
    left = np.full_like(shown, 0.35) if picture is None else shown
    axes[-1].imshow(np.where(kept[..., None], left, 1.0), interpolation="nearest")
    for one in axes:
        one.set_xticks([])
        one.set_yticks([])
        one.spines[:].set(visible=True, color=GREY, linewidth=0.4)


def overlay(axes: Axes, base: np.ndarray, values: np.ndarray, *, bound: float, tone: Colormap) -> None:
    """A map over a grey picture (row, column), both with row 0 on top, with outlines that show the sign.

    The picture is drawn with less contrast, so that faint colours are seen on its black and its white.
    """
    axes.imshow(_muted(base), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.imshow(painted(values, bound, tone), interpolation="nearest")
    for level, dashes in ((-_OUTLINED * bound, "dashed"), (_OUTLINED * bound, "solid")):
        filled = np.nan_to_num(values)
        if min(filled.shape) > 1 and filled.min() < level < filled.max() and _is_smooth(filled, level):
            axes.contour(filled, levels=[level], colors=[BLACK], linewidths=0.5, linestyles=[dashes])


def _muted(brightness: np.ndarray | float) -> np.ndarray | float:
    return _DIMMEST + (_BRIGHTEST - _DIMMEST) * brightness


def _is_smooth(values: np.ndarray, level: float) -> bool:
    """Whether an outline has few enough turns to be read: it is left out around scattered single pixels."""
    inside = values > level if level > 0 else values < level
    edges = np.count_nonzero(inside[1:] != inside[:-1]) + np.count_nonzero(inside[:, 1:] != inside[:, :-1])
    return bool(edges < 1.6 * np.count_nonzero(inside) and edges < 12 * sum(values.shape))


def painted(values: np.ndarray, bound: float, tone: Colormap) -> np.ndarray:
    """Colours with transparency: none at zero, nearly opaque at the limit; not finite is transparent."""
    scaled = np.clip(np.nan_to_num(values) / bound, -1, 1)
    painted = np.array(tone(0.5 + 0.5 * scaled))
    painted[..., 3] = _OPAQUE * np.abs(scaled) ** _FADE
    return painted


def _titles(panels: np.ndarray, attribution: Attribution, columns: list[int], share: float) -> None:
    times = attribution.times.detach().cpu().numpy()[columns]
    heads = ["whole curve" if np.isnan(time) else compact(float(time)) for time in times]
    panels[0, 0].set_title("picture", loc="center", fontsize=8.5)
    panels[0, -1].set_title(f"largest {100 * share:.3g} %", loc="center", fontsize=8.5)
    for one, head in zip(panels[0, 1:-1], heads, strict=True):
        one.set_title(head, loc="center", fontsize=8.5)
    if np.isfinite(times).any():
        panels[-1, 1 + (len(columns) - 1) // 2].set_xlabel(time_label(attribution.unit) + ", above each column")


def _row_names(attribution: Attribution, items: list[int]) -> list[str]:
    if attribution.rows is None:
        return [f"instance {item + 1}" for item in items]
    rows = attribution.rows.cpu().numpy()
    return [f"instance {rows[i] + 1}, item {int((rows[:i] == rows[i]).sum()) + 1}" for i in items]


def _bar(
    figure: Figure,
    panels: np.ndarray,
    tone: Colormap,
    *,
    bound: float,
    maps: np.ndarray,
    label: str,
    under: np.ndarray | None,
) -> None:
    """A colour bar that shows the colours as they look over the mean grey of the pictures."""
    mean = _PALE if under is None else float(np.clip(np.mean([grey(picture).mean() for picture in under]), _DARK, 1))
    signed_bar(figure, list(panels.ravel()), tone, bound=bound, values=maps, label=label, under=mean)


def signed_bar(
    figure: Figure, panels: list[Axes], tone: Colormap, *, bound: float, values: np.ndarray, label: str, under: float
) -> None:
    """A colour bar beside `panels`, with the colours of an overlay on a grey of brightness `under`.

    Pointed ends say that some of `values` lie beyond the limits.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    steps = np.linspace(-bound, bound, 257)
    over = painted(steps, bound, tone)
    seen = ListedColormap(over[:, :3] * over[:, 3:] + _muted(under) * (1 - over[:, 3:]))
    finite = values[np.isfinite(values)]
    above, below = bool((finite > bound).any()), bool((finite < -bound).any())
    extend = "both" if above and below else "max" if above else "min" if below else "neither"
    height = panels[0].get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    bar = figure.colorbar(
        ScalarMappable(Normalize(-bound, bound), seen), ax=panels, extend=extend, fraction=0.035, pad=0.015, aspect=18
    )
    bar.set_label(_wrapped(label, height))
    bar.locator = _few()
    bar.update_ticks()
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]


def _few() -> MaxNLocator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, symmetric=True)


def _wrapped(label: str, height: float) -> str:
    """A label broken into lines that a bar of that height in inches holds."""
    import textwrap

    return "\n".join(textwrap.wrap(label, max(int(height * 11), 14)))
