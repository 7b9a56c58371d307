"""Attributions of volumes: three slices at right angles through one voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import signed_colours
from survlens.report.figures.attribution_maps import overlay, signed_bar
from survlens.report.figures.attribution_pictures import grey, map_axes, maps_of, symmetric_limit
from survlens.report.figures.attribution_words import nearest, value_label, when
from survlens.report.figures.canvas import new_figure, styled
from survlens.report.palette import BLACK, GREEN, GREY
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 7.4
_PLANES = (("axial", 2), ("coronal", 1), ("sagittal", 0))
_ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
_AXES = ("height", "width", "depth")
_OBLIQUE = 0.85
_PALE = 0.92


@dataclass(frozen=True, slots=True)
class _View:
    """How one slice is shown: the axis it lies across, the axes down and across the page, and their ends."""

    name: str
    across: int
    down: int
    right: int
    flips: tuple[bool, bool] = (False, False)
    letters: tuple[str, str, str, str] | None = None

    def slice(self, volume: np.ndarray, at: int) -> np.ndarray:
        """The slice as it lies on the page."""
        taken = volume.take(at, axis=self.across)
        taken = taken if self.down < self.right else taken.T
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return taken[rows, columns]

    def place(self, at: Sequence[int], shape: tuple[int, ...]) -> tuple[int, int]:
        """Row and column of a voxel on the page."""
        row = shape[self.down] - 1 - at[self.down] if self.flips[0] else at[self.down]
        column = shape[self.right] - 1 - at[self.right] if self.flips[1] else at[self.right]
        return row, column


@styled
def draw_attribution_slices(
    attribution: Attribution,
    item: int = 0,
    time: float | None = None,
    *,
    volume: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    voxel: Sequence[int] | None = None,
    smooth: float = 0.0,
    limit: float | None = None,
    axes: Sequence[Axes] | None = None,
) -> tuple[Axes, Axes, Axes]:
    """Three slices through a voxel, with cross-hairs, in the proportions of the scan.

    With an affine (in world axes that point right, anterior, superior) the slices are axial, coronal and sagittal and
    lie as radiologists read them: the patient's right on the left of the page, anterior or superior on top, letters at
    the edges. Scans oblique to the world by more than about 30 degrees are said to be; their letters name the nearest
    direction. Without an affine slices are shown as stored: first axis down, second across.

    Args:
        attribution: Attributions of volumes, (channel, height, width, depth).
        item: Position of the volume.
        time: The stored time nearest to it is drawn; the last by default.
        volume: The scan (channel, height, width, depth) or (height, width, depth) in [0, 1].
        mask: Region to outline, (height, width, depth).
        voxel: Where the slices meet; the voxel of the largest |attribution| by default.
        smooth: Standard deviation of a Gaussian in voxels; 0 draws the raw map.
        limit: Value of the darkest colours, > 0; by default the 99.5 % quantile of |map|.
        axes: Three axes to draw in; new ones by default.

    Returns:
        The three axes: axial, coronal and sagittal, or slices across depth, width and height without an affine.

    Raises:
        InvalidValueError: If the attribution is not of volumes, or an argument does not fit it.
    """
    if len(map_axes(attribution)) != 3 or not 0 <= item < len(attribution):
        raise InvalidValueError(
            f"`attribution` must be of volumes, and `item` the position of one of {len(attribution)}; got the axes "
            f"{', '.join(attribution.dims)} and {item}."
        )
    column = nearest(attribution, time)
    values = maps_of(attribution, smooth)[item, ..., column]
    base = _scan(volume, values.shape)
    outline = None if mask is None else _fitting("mask", np.asarray(mask, dtype=np.float64), values.shape)
    at = _voxel(values, voxel)
    affine = _affine(attribution, item)
    spacing = np.ones(3) if affine is None else np.linalg.norm(affine[:3, :3], axis=0)
    views, oblique = _views(affine)
    panels = _panels(
        axes, [(values.shape[v.down] * spacing[v.down], values.shape[v.right] * spacing[v.right]) for v in views]
    )
    bound, tone = symmetric_limit(values, limit), signed_colours()
    for one, view in zip(panels, views, strict=True):
        overlay(one, view.slice(base, at[view.across]), view.slice(values, at[view.across]), bound=bound, tone=tone)
        if outline is not None:
            _contour(one, view.slice(outline, at[view.across]))
        _cross(one, *view.place(at, values.shape))
        one.set_aspect(spacing[view.down] / spacing[view.right])
        one.set_title(
            f"{view.name}{' (oblique)' if oblique else ''}, slice {at[view.across]}", loc="center", fontsize=8.5
        )
        _mark(one, view.letters)
    figure = panels[0].get_figure(root=True)
    brightness = float(np.clip(base.mean(), 0.25, 1))
    signed_bar(figure, list(panels), tone, bound=bound, values=values, label=value_label(attribution), under=brightness)  # type: ignore[arg-type]
    if axes is None:
        how = "raw" if smooth == 0 else f"smoothed by a Gaussian, σ = {compact(float(smooth))} voxels"
        figure.suptitle(f"{attribution.method} {when(attribution, column)}, {how}", fontsize=9.5, x=0.01, ha="left")  # type: ignore[union-attr]
    return panels


def _scan(volume: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if volume is None:
        return np.full(shape, _PALE)
    given = np.asarray(volume, dtype=np.float64)
    return _fitting("volume", grey(given) if given.ndim == 4 else np.clip(np.nan_to_num(given), 0, 1), shape)


def _fitting(name: str, given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if given.shape != shape:
        raise InvalidValueError(
            f"`{name}` must have the voxels of the attribution, {shape}; got {given.shape}. "
            "Pass it as the model saw it, resampled alike."
        )
    return given


def _voxel(values: np.ndarray, voxel: Sequence[int] | None) -> tuple[int, int, int]:
    if voxel is None:
        place = np.unravel_index(int(np.argmax(np.abs(np.nan_to_num(values)))), values.shape)
        return int(place[0]), int(place[1]), int(place[2])
    if len(voxel) != 3 or any(not 0 <= at < size for at, size in zip(voxel, values.shape, strict=True)):
        raise InvalidValueError(
            f"`voxel` must be three positions within {values.shape}, counted from 0; got {tuple(voxel)}."
        )
    return int(voxel[0]), int(voxel[1]), int(voxel[2])


def _affine(attribution: Attribution, item: int) -> np.ndarray | None:
    if attribution.affine is None:
        return None
    if attribution.affine.ndim == 2:
        return np.asarray(attribution.affine, dtype=np.float64)
    row = item if attribution.rows is None else int(attribution.rows[item])
    return np.asarray(attribution.affine[row], dtype=np.float64)


def _views(affine: np.ndarray | None) -> tuple[list[_View], bool]:
    """The three views, and whether the scan is oblique to the world."""
    if affine is None:
        stored = ((2, 0, 1), (1, 0, 2), (0, 1, 2))
        return [_View(_AXES[across], across, down, right) for across, down, right in stored], False
    from scipy.optimize import linear_sum_assignment

    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    worlds, voxels = linear_sum_assignment(-np.abs(direction))
    axis = dict(zip(worlds.tolist(), voxels.tolist(), strict=True))
    rises = [bool(direction[world, axis[world]] > 0) for world in range(3)]
    views = []
    for name, world in _PLANES:
        right, down = (each for each in range(3) if each != world)
        # On the page the world axis up is A or S at the top; across it is R (or A, sagittal) on the left.
        letters = (_ENDS[right][1], _ENDS[right][0], _ENDS[down][1], _ENDS[down][0])
        views.append(_View(name, axis[world], axis[down], axis[right], (rises[down], rises[right]), letters))
    return views, bool(np.abs(direction[worlds, voxels]).min() < _OBLIQUE)


def _panels(axes: Sequence[Axes] | None, sizes: list[tuple[float, float]]) -> tuple[Axes, Axes, Axes]:
    if axes is not None:
        if len(axes) != 3:
            raise InvalidValueError(f"`axes` must be three; got {len(axes)}.")
        return axes[0], axes[1], axes[2]
    widths = [width for _, width in sizes]
    scale = (_WIDTH - 1.6) / sum(widths)
    figure = new_figure(_WIDTH, min(max(height for height, _ in sizes) * scale, 4.5) + 1.1)
    first, second, third = figure.subplots(1, 3, width_ratios=widths)
    return first, second, third


def _cross(axes: Axes, down: int, right: int) -> None:
    """Cross-hairs with a gap at the voxel, dark on a light edge so that they are seen on any tissue."""
    from matplotlib.patheffects import Normal, Stroke

    (left, end), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    gap = (max(0.04 * abs(end - left), 1.0), max(0.04 * abs(bottom - top), 1.0))
    lines = (
        ((left, right - gap[0]), (down, down)), ((right + gap[0], end), (down, down)),
        ((right, right), (top, down - gap[1])), ((right, right), (down + gap[1], bottom)),
    )  # fmt: skip
    for (x0, x1), (y0, y1) in lines:
        if x1 >= x0 and y1 >= y0:
            (line,) = axes.plot((x0, x1), (y0, y1), color=BLACK, linewidth=0.7)
            line.set_path_effects([Stroke(linewidth=1.5, foreground="white"), Normal()])
    axes.set_xlim(left, end)
    axes.set_ylim(bottom, top)


def _contour(axes: Axes, region: np.ndarray) -> None:
    if min(region.shape) > 1 and region.min() < 0.5 < region.max():
        axes.contour(region, levels=[0.5], colors=[GREEN], linewidths=1.1)


def _mark(axes: Axes, letters: tuple[str, str, str, str] | None) -> None:
    """Letters of the directions just outside the slice: left, right, top, bottom."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=GREY, linewidth=0.4)
    if letters is None:
        return
    left, right, top, bottom = letters
    axes.set_title(f"{axes.get_title('center')}\n{top}", loc="center", fontsize=8.5)
    for xy, away, letter, side, level in (
        ((0.0, 0.5), (-3, 0), left, "right", "center"),
        ((1.0, 0.5), (3, 0), right, "left", "center"),
        ((0.5, 0.0), (0, -3), bottom, "center", "top"),
    ):
        axes.annotate(
            letter, xy, away, "axes fraction", "offset points", ha=side, va=level, fontsize=8.5, annotation_clip=False
        )
