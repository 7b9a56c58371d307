"""Decoded volumes along a latent dimension: slices with organ outlines, and the sizes that were measured on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import light_grid, new_figure, styled
from survlens.report.palette import BLACK, GREY, ORANGE, SKY, series
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_SCALE_BAR = 100.0
"""Length of the scale bar in millimetres."""
_FULL = 0.5
"""Share of tumour that is drawn in full colour."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeWalk:
    """Decoded volumes along one dimension, towards higher hazard.

    Attributes:
        label: What was walked along, in lines of at most about 12 characters.
        intensity: (step, x, y, z) in [0, 1], axes towards the patient's right, front and head.
        liver: Share of each voxel that is liver or tumour, (step, x, y, z).
        tumour: Share of each voxel that is tumour, (step, x, y, z).
        spacing: Millimetres between voxels along x, y and z.
        tumour_volume: Millilitres of tumour at each step.
    """

    label: str
    intensity: np.ndarray
    liver: np.ndarray
    tumour: np.ndarray
    spacing: Sequence[float]
    tumour_volume: np.ndarray


@dataclass(frozen=True, slots=True)
class _View:
    """A plane: its name, the axis it cuts, and the letters at the left and the top."""

    name: str
    cut: int
    letters: tuple[str, str]

    def slice(self, volume: np.ndarray, at: int) -> np.ndarray:
        """(down, right) as radiologists read it: the patient's right on the left, front or head on top."""
        return np.take(volume, at, axis=self.cut)[::-1, ::-1].T


_VIEWS = (_View("axial", 2, ("R", "A")), _View("coronal", 1, ("R", "H")))


@styled
def volume_traversal_figure(walks: Sequence[VolumeWalk], *, steps: Sequence[float], window: str) -> Figure:
    """An axial and a coronal row per walk, and a column per step, through the voxel most likely to be tumour.

    The share of tumour is laid over the slice, full at one half; dashed outlines stand around the liver. Below each
    column stands the decoded tumour volume.

    Args:
        walks: Walks of equal shape.
        steps: Positions, in standard deviations of the training latents.
        window: What black and white mean, with unit.
    """
    rows = [(walk, view) for walk in walks for view in _VIEWS]
    extents = [_extent(walk, view) for walk, view in rows]
    heights = [down / right for right, down in extents]
    tile = 7.4 / (len(steps) + 0.9)
    figure = new_figure(7.6, sum(heights) * tile + 0.30 * len(walks) + 0.75)
    grid = figure.subplots(len(rows), len(steps), height_ratios=heights, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.012, h_pad=0.012, wspace=0.0, hspace=0.0)  # type: ignore[union-attr]
    for line, (walk, view) in enumerate(rows):
        at = np.unravel_index(int(walk.tumour.mean(axis=0).argmax()), walk.tumour.shape[1:])[view.cut]
        for column in range(len(steps)):
            _tile(grid[line, column], walk, view, (column, int(at)), extents[line])
        first = grid[line, 0]
        above = walk.label if view is _VIEWS[0] else "\n" * walk.label.count("\n")
        first.set_ylabel(f"{above}\n{view.name}", fontsize=7.5)
        _letters(first, view.letters)
        if view is _VIEWS[-1]:
            for column, size in enumerate(walk.tumour_volume):
                grid[line, column].set_xlabel(f"{size:.0f} ml", fontsize=7.5, labelpad=2)
    for column, step in enumerate(steps):
        grid[0, column].set_title(compact(float(step)), loc="center", fontsize=8)
    _scale(grid[0, -1], extents[0])
    _legend(figure, window)
    return figure


@styled
def walked_sizes_figure(steps: Sequence[float], sizes: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Measured volume of tumour and of liver along the walks of several models.

    Args:
        steps: Positions, in standard deviations of the training latents.
        sizes: Millilitres of tumour and of liver (tumours included) at each step, by the name of the model.
    """
    figure = new_figure(7.2, 3.1)
    panels = figure.subplots(1, 2)
    for position, (name, pair) in enumerate(sizes.items()):
        colour, dashes, marker = series(position)
        for axes, values in zip(panels, pair, strict=True):
            axes.plot(steps, values, color=colour, linestyle=dashes, marker=marker, markersize=4, label=name)
    for axes, organ in zip(panels, ("tumour", "liver, tumours included"), strict=True):
        axes.set_title(organ)
        axes.set_ylim(bottom=0)
        axes.margins(y=0.1)
        axes.set_xlabel("Step towards higher hazard (SD)")
        light_grid(axes)
    panels[0].set_ylabel("Decoded volume (ml)")
    panels[0].legend()
    return figure


def _extent(walk: VolumeWalk, view: _View) -> tuple[float, float]:
    """Millimetres across and down."""
    sides = [count * step for count, step in zip(walk.intensity.shape[1:], walk.spacing, strict=True)]
    del sides[view.cut]
    return sides[0], sides[1]


def _tile(axes: Axes, walk: VolumeWalk, view: _View, place: tuple[int, int], extent: tuple[float, float]) -> None:
    step, at = place
    box = (0.0, extent[0], extent[1], 0.0)
    picture = view.slice(walk.intensity[step], at)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=box, interpolation="bilinear")
    _outline(axes, view.slice(walk.liver[step], at), extent, SKY, (0, (3, 1.5)), 0.7)
    share = (view.slice(walk.tumour[step], at) / _FULL).clip(0, 1)
    axes.imshow(np.ones_like(share), cmap=_tint(), alpha=0.9 * share, extent=box, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _tint() -> Colormap:
    from matplotlib.colors import ListedColormap

    return ListedColormap([ORANGE])


def _outline(
    axes: Axes, chance: np.ndarray, extent: tuple[float, float], colour: str, dashes: object, width: float
) -> None:
    if not chance.min() < 0.5 < chance.max():
        return
    down, across = chance.shape
    x, y = (np.arange(across) + 0.5) / across * extent[0], (np.arange(down) + 0.5) / down * extent[1]
    axes.contour(x, y, chance, levels=[0.5], colors=[colour], linewidths=width, linestyles=[dashes])


def _letters(axes: Axes, letters: tuple[str, str]) -> None:
    style = {"color": "white", "fontsize": 6.5, "transform": axes.transAxes}
    axes.text(0.03, 0.5, letters[0], ha="left", va="center", **style)
    axes.text(0.5, 0.97, letters[1], ha="center", va="top", **style)


def _scale(axes: Axes, extent: tuple[float, float]) -> None:
    right, down = extent[0] * 0.95, extent[1] * 0.94
    axes.plot([right - _SCALE_BAR, right], [down, down], color="white", linewidth=1.6, solid_capstyle="butt")
    axes.text(right, down * 0.97, "100 mm", color="white", fontsize=6, ha="right", va="bottom")


def _legend(figure: Figure, window: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [
        Patch(color=ORANGE, label="share of tumour (full at ½)"),
        Line2D([], [], color=SKY, linewidth=1.2, linestyle=(0, (3, 1.5)), label="liver"),
        Line2D([], [], linestyle="none", label=f"grey: {window}"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize=7.5, labelcolor=BLACK)
    title = "Steps towards higher hazard, in SD of the training latents; below: decoded tumour volume"
    figure.suptitle(title, fontsize=8.5, x=0.01, ha="left", color=GREY)
