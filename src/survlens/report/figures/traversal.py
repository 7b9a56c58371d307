"""What the decoder draws along each latent dimension, and what changes from one end to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import new_figure, styled
from survlens.report.palette import BLACK, DIVERGING, GREY, ORANGE
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR_CHANNELS = 3
_GAP = 0.02
_OUTLINED = 0.4
_TILE_PIXELS = 96


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """One dimension: its name, pictures (step, channel, height, width) and signed difference without the step."""

    label: str
    images: np.ndarray
    difference: np.ndarray


@styled
def traversal_figure(
    strips: Sequence[Strip], *, steps: Sequence[float], step_unit: str, trusted: float | None = None
) -> Figure:
    """One row per dimension in the given order; the last column shows last step minus first, zero white.

    One scale serves every difference, so that a weak dimension looks weak. Dashed outlines stand around the strongest
    falls and solid ones around the strongest rises. Rows are tiles of one picture: eighty axes would take a minute.

    Args:
        strips: Dimensions, the most important first.
        steps: Position of each column.
        step_unit: What a step of 1 is.
        trusted: Steps farther from 0 are marked as extrapolated; none by default.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    height, width = strips[0].images.shape[-2:]
    tile = 5.5 / (len(steps) + 1.2)
    figure = new_figure(7.4, len(strips) * max(tile * height / width + 0.04, 0.42) + 0.75)
    left, right = figure.subplots(1, 2, width_ratios=[len(steps), 1])
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)  # type: ignore[union-attr]
    changes = [_signed(strip) for strip in strips]
    bound = max(float(np.abs(change).max()) for change in changes) or 1.0
    colours = LinearSegmentedColormap.from_list("signed", list(DIVERGING), N=257)  # odd: zero is white
    pictures = np.stack([np.stack([_colours(image) for image in strip.images]) for strip in strips])
    signed = colours(Normalize(-bound, bound)(np.stack(changes)))[:, None, :, :, :3]
    _mosaic(left, pictures)
    _mosaic(right, signed)
    for row, (strip, change) in enumerate(zip(strips, changes, strict=True)):
        _masks(left, strip.images, row=row)
        _signs(right, change, row=row, bound=bound)
    _mark_steps(left, steps, trusted)
    left.set_yticks(np.arange(len(strips)) + 0.5, [strip.label for strip in strips])
    right.set_xticks([0.5], ["change"])
    left.set_xlabel(f"Position along the dimension ({step_unit})")
    shrink = min(1.0, 2.4 / len(strips))
    bar = figure.colorbar(ScalarMappable(Normalize(-bound, bound), colours), ax=right, shrink=shrink, fraction=0.3)
    bar.set_label("Change (pixel value)")
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    return figure


def _mark_steps(axes: Axes, steps: Sequence[float], trusted: float | None) -> None:
    """Positions above the columns; lighter and named where no training image has been."""
    beyond = [trusted is not None and abs(step) > trusted for step in steps]
    texts = [("extrapolated\n" if far else "") + compact(float(s)) for s, far in zip(steps, beyond, strict=True)]
    axes.set_xticks(np.arange(len(steps)) + 0.5, texts)
    for label, far in zip(axes.get_xticklabels(), beyond, strict=True):
        if far:
            label.set(color=GREY, fontsize=6)


def _signed(strip: Strip) -> np.ndarray:
    """Mean signed change over the picture channels, (height, width)."""
    channels = strip.difference[: _picture_channels(strip.difference.shape[0])]
    return channels.mean(axis=0)


def _picture_channels(channels: int) -> int:
    """How many channels are the picture; a channel after them is a mask."""
    return _COLOUR_CHANNELS if channels >= _COLOUR_CHANNELS else 1


def _colours(image: np.ndarray) -> np.ndarray:
    """A grey or colour picture as (height, width, 3)."""
    shown = image[: _picture_channels(image.shape[0])]
    return np.clip(np.moveaxis(np.broadcast_to(shown, (_COLOUR_CHANNELS, *shown.shape[1:])), 0, -1), 0, 1)


def _mosaic(axes: Axes, tiles: np.ndarray) -> None:
    """Tiles (row, column, height, width, 3) in unit cells, row 0 on top, with white gaps."""
    rows, columns, height, width, _ = tiles.shape
    scale = -(-_TILE_PIXELS // width)
    large = tiles.repeat(scale, axis=2).repeat(scale, axis=3)
    gap = max(round(_GAP * width * scale), 1)
    padded = np.pad(large, ((0, 0), (0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=1.0)
    whole = padded.swapaxes(1, 2).reshape(rows * padded.shape[2], columns * padded.shape[3], 3)
    axes.imshow(whole, extent=(0, columns, rows, 0), interpolation="nearest")
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_aspect(height / width)
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("bottom")
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _masks(axes: Axes, images: np.ndarray, *, row: int) -> None:
    """Outlines of the mask channel, where there is one."""
    count = _picture_channels(images.shape[1])
    if images.shape[1] > count:
        for column, image in enumerate(images):
            _outline(axes, image[count], 0.5, _cell(column, row), colour=ORANGE, dashes="solid")


def _signs(axes: Axes, change: np.ndarray, *, row: int, bound: float) -> None:
    """Outlines that tell falls from rises without colour, and a thin frame."""
    from matplotlib.patches import Rectangle

    for level, dashes in ((-_OUTLINED * bound, "dashed"), (_OUTLINED * bound, "solid")):
        _outline(axes, change, level, _cell(0, row), colour=BLACK, dashes=dashes)
    corner = (_GAP, row + _GAP)
    axes.add_patch(Rectangle(corner, 1 - 2 * _GAP, 1 - 2 * _GAP, fill=False, edgecolor=GREY, linewidth=0.5))


def _cell(column: int, row: int) -> tuple[float, float, float, float]:
    """Extent of a tile inside its cell: left, right, bottom, top."""
    return column + _GAP, column + 1 - _GAP, row + 1 - _GAP, row + _GAP


def _outline(
    axes: Axes,
    picture: np.ndarray,
    level: float,
    extent: tuple[float, float, float, float],
    *,
    colour: str,
    dashes: str,
) -> None:
    """A contour through the pixel centres of a tile, where the level is crossed."""
    if not picture.min() < level < picture.max() or min(picture.shape) < 2:
        return
    left, right, bottom, top = extent
    across = left + (np.arange(picture.shape[1]) + 0.5) / picture.shape[1] * (right - left)
    down = top + (np.arange(picture.shape[0]) + 0.5) / picture.shape[0] * (bottom - top)
    axes.contour(across, down, picture, levels=[level], colors=[colour], linewidths=0.8, linestyles=[dashes])
