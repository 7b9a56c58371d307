"""From the reference prediction to the prediction at one time, one step per feature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import COLUMN, axes_or_new
from survlens.report.figures.attribution_words import names_of, nearest, one_row, prediction_label, signed_text, when
from survlens.report.figures.canvas import light_grid, shorten, styled
from survlens.report.palette import BLACK, DIVERGING, GREY
from survlens.report.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UP, _DOWN = DIVERGING[5], DIVERGING[1]
_NAME = 34
_SEEN = 0.005


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    size: float
    error: float = math.nan
    plain: bool = False


@styled
def draw_attribution_force(
    attribution: Attribution,
    row: int = 0,
    time: float | None = None,
    *,
    feature_values: Sequence[object] | None = None,
    top: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """Steps from the mean prediction of the references to the prediction of one instance, the largest first.

    Each step is an arrow, to the right where the feature raises the target; its size stands right of it, with the
    standard error over references (SE) where it is known. What the given features leave open is a step of its own:
    "other inputs", and the completeness gap where it can be seen. Without stored predictions the steps start at 0.

    Args:
        attribution: Additive attributions of features in a list.
        row: Position of the instance.
        time: The stored time nearest to it is drawn; the last by default.
        feature_values: What the instance has for each feature, written beside its name.
        top: How many features have a step of their own, > 0; the others share one.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If contributions do not add up, there is no such instance, the features are a picture, or
            `feature_values` are not one per feature.
    """
    if not attribution.additive:
        raise InvalidValueError(
            f"`attribution` must be of a method whose contributions add up; got {attribution.method}. "
            "Draw draw_attribution_curves."
        )
    if top < 1:
        raise InvalidValueError(f"`top` must be > 0; got {top}. Draw at least one feature.")
    column = nearest(attribution, time)
    start, steps, end = _steps(attribution, row, column, feature_values, top)
    axes = axes_or_new(ax, COLUMN, 0.27 * (len(steps) + 2) + 0.9)
    _draw(axes, start, steps, end)
    known = attribution.reference_prediction is not None and attribution.prediction is not None
    _ticks(axes, start, steps, end, known=known)
    axes.set_xlabel(prediction_label(attribution) if known else f"Change of {prediction_label(attribution).lower()}")
    axes.set_title(when(attribution, column).capitalize())
    return axes


def _steps(
    attribution: Attribution, row: int, column: int, given: Sequence[object] | None, top: int
) -> tuple[float, list[_Step], float]:
    """Start, steps in the order in which they are drawn, and end."""
    values = np.nan_to_num(one_row(attribution, row)[:, column])
    names = _named(names_of(attribution), given)
    error = attribution.sampling_error if attribution.rows is None else None
    doubts = np.full(len(values), np.nan) if error is None else error[row, :, column].detach().cpu().numpy()
    order = np.argsort(-np.abs(values), kind="stable")
    steps = [_Step(names[f], float(values[f]), float(doubts[f])) for f in order[:top]]
    if len(order) > top:
        left = order[top:]
        steps.append(_Step(f"{len(left)} other features", float(values[left].sum()), plain=True))
    start = 0.0
    end = float(sum(step.size for step in steps))
    if attribution.reference_prediction is not None and attribution.prediction is not None:
        start = float(attribution.reference_prediction[row, column])
        end = float(attribution.prediction[row, column])
        open_ = end - start - float(values.sum())
        gap = 0.0 if attribution.completeness_gap is None else float(attribution.completeness_gap[row, column])
        scale = max(float(np.abs(np.cumsum([step.size for step in steps])).max()), abs(open_), 1e-300)
        if attribution.completeness_gap is None:
            steps += [_Step("not accounted for", open_, plain=True)] if abs(open_) > _SEEN * scale else []
        else:
            other = open_ - gap
            steps += [_Step("other inputs", other, plain=True)] if abs(other) > _SEEN * scale else []
            steps += [_Step("completeness gap", gap, plain=True)] if abs(gap) > _SEEN * scale else []
    return start, steps, end


def _named(names: list[str], given: Sequence[object] | None) -> list[str]:
    if given is None:
        return [shorten(name, _NAME) for name in names]
    if len(given) != len(names):
        raise InvalidValueError(
            f"`feature_values` must hold one value per feature, {len(names)}; got {len(given)}. "
            "Give None for features without a value."
        )
    return [
        shorten(name, _NAME) if value is None else f"{shorten(name, 22)} = {_said(value)}"
        for name, value in zip(names, given, strict=True)
    ]


def _said(value: object) -> str:
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        number = float(value)
        return "missing" if math.isnan(number) else compact(number)
    return shorten(str(value), 16)


def _draw(axes: Axes, start: float, steps: list[_Step], end: float) -> None:
    from matplotlib.patches import Polygon

    at = np.cumsum([start, *(step.size for step in steps)])
    reach = float(np.ptp([*at, end])) or max(abs(start), 1.0) * 0.1
    axes.set_xlim(min(at.min(), end) - 0.06 * reach, max(at.max(), end) + 0.06 * reach)
    axes.set_ylim(len(steps) + 1.6, -0.6)
    tip = 0.012 * reach
    for place, step in enumerate(steps, start=1):
        left, right = at[place - 1], at[place]
        point = min(tip, abs(step.size)) * np.sign(step.size)
        half = 0.36
        corners = [
            (left, place - half), (right - point, place - half), (right, place),
            (right - point, place + half), (left, place + half),
        ]  # fmt: skip
        colour = GREY if step.plain else _UP if step.size > 0 else _DOWN
        axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor=colour, linewidth=0.8))
    for place, value in enumerate(at):
        axes.vlines(value, place + (0.0 if place == 0 else -0.36), place + 1, color=GREY, linewidth=0.7, zorder=0.9)
    for place, value, filled in ((0, start, False), (len(steps) + 1, end, True)):
        axes.plot(
            value, place, marker="D", color=BLACK, markersize=6, markerfacecolor=BLACK if filled else "white", zorder=3
        )
    light_grid(axes, "x")


def _ticks(axes: Axes, start: float, steps: list[_Step], end: float, *, known: bool) -> None:
    """Names on the left, numbers on the right, one line each."""
    scale = max([abs(step.size) for step in steps] or [1.0])
    ends = ("reference", "prediction") if known else ("start", "sum")
    rows = range(len(steps) + 2)
    axes.set_yticks(rows, [ends[0], *(step.name for step in steps), ends[1]])
    right = axes.secondary_yaxis("right")
    digits = 2 if not scale > 0 else min(max(2 - math.floor(math.log10(scale)), 0), 8)
    plain = [f"{value:.{digits}f}".replace("-", "−") for value in (start, end)]
    right.set_yticks(rows, [plain[0], *(_number(step, scale, digits) for step in steps), plain[1]])
    for one in (axes, right):
        one.tick_params(axis="y", length=0)
        for place in (0, len(steps) + 1):
            one.get_yticklabels()[place].set_fontweight("bold")
    right.spines["right"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)


def _number(step: _Step, scale: float, digits: int) -> str:
    said = signed_text(step.size, scale)
    return said if math.isnan(step.error) else f"{said} (SE {step.error:.{digits}f})"
