"""Attributions over time, one line per feature, under the prediction that they explain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import (
    COLUMN,
    axes_or_new,
    places,
    style_places,
    time_axis,
    write_label,
    zero_line,
)
from survlens.report.figures.attribution_labels import GAP, name_ends, room
from survlens.report.figures.attribution_words import (
    PROBABILITY,
    check_row,
    names_of,
    one_row,
    prediction_label,
    target_unit,
    value_label,
)
from survlens.report.figures.canvas import light_grid, new_figure, shorten, styled
from survlens.report.palette import BLACK, DASHES, GREY, LIGHT, MARKERS, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NORMAL = 1.959964
_NAME = 28


@styled
def draw_attribution_curves(
    attribution: Attribution, row: int = 0, *, top: int = 8, order: Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Attribution of each feature of one instance over time.

    The `top` features by mean |attribution| over the times have their names at the ends of their lines; the others
    are thin and grey. A band is the 95 % interval over the drawn references, 1.96 standard errors to either side.

    Args:
        attribution: Attributions of features in a list.
        row: Position of the instance.
        top: How many features are named, > 0; fewer where given axes are too low for them.
        order: Names of features in the order of their colours, to keep these alike among figures; by size without.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If there is no such instance, the features are a picture, or `top` < 1.
    """
    values, names = one_row(attribution, row), names_of(attribution)
    named = _largest(values, top)
    styles = style_places([names[feature] for feature in named], order)
    axes = axes_or_new(ax, COLUMN, max(3.0, len(named) * GAP / 72 + 1.0))
    _lines(axes, attribution, row, values, named, styles)
    time_axis(axes, attribution)
    write_label(axes, value_label(attribution))
    axes.set_title(_remarks(attribution, len(named), len(names)), fontsize=8.5)
    _name(axes, attribution, values, named, names, styles)
    return axes


@styled
def draw_prediction(attribution: Attribution, row: int = 0, *, ax: Axes | None = None) -> Axes:
    """Prediction of one instance over time, and the mean prediction of its references.

    Args:
        attribution: Attributions that hold a prediction.
        row: Position of the instance.
        ax: Axes to draw in; new ones by default.

    Returns:
        The axes.

    Raises:
        InvalidValueError: If there is no such instance, or no prediction.
    """
    check_row(attribution, row)
    if attribution.prediction is None:
        raise InvalidValueError(
            "`attribution` must hold the prediction that it explains; got none. "
            "Draw draw_attribution_curves alone, or explain with a method that keeps it."
        )
    axes = axes_or_new(ax, COLUMN, 2.2)
    times = places(attribution)
    drawn: list[tuple[Tensor, str, str, object, str]] = [(attribution.prediction, "prediction", BLACK, "-", "o")]
    if attribution.reference_prediction is not None:
        drawn.append((attribution.reference_prediction, "reference", GREY, (0, (5, 2)), "s"))
    ends = []
    for values, _, colour, dashes, marker in drawn:
        line = values[row].detach().cpu().numpy()
        single = {"marker": marker, "markersize": 5} if len(times) == 1 else {}
        axes.plot(times, line, color=colour, linestyle=dashes, clip_on=len(times) > 1, **single)  # type: ignore[arg-type]
        ends.append((float(times[-1]), float(line[-1])))
    time_axis(axes, attribution)
    if target_unit(attribution.target, attribution.unit) == PROBABILITY:
        axes.set_ylim(0, 1.02)
    write_label(axes, prediction_label(attribution))
    light_grid(axes)
    name_ends(axes, ends, [name for _, name, *_ in drawn], [colour for _, _, colour, *_ in drawn])
    return axes


@styled
def draw_explained_prediction(
    attribution: Attribution,
    row: int = 0,
    *,
    top: int = 8,
    order: Sequence[str] = (),
    axes: tuple[Axes, Axes] | None = None,
) -> tuple[Axes, Axes]:
    """The prediction above, the attributions below, on one time axis.

    Args:
        attribution: Attributions of features in a list, with the prediction.
        row: Position of the instance.
        top: How many features are named, > 0.
        order: Names of features in the order of their colours; by size without.
        axes: Upper and lower axes to draw in; new ones by default.

    Returns:
        Upper and lower axes.

    Raises:
        InvalidValueError: As `draw_prediction` and `draw_attribution_curves`.
    """
    if axes is None:
        lower_height = max(2.6, min(top, attribution.values.shape[1]) * GAP / 72 + 0.4)
        figure = new_figure(COLUMN, 1.9 + lower_height)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, lower_height])
    else:
        upper, lower = axes
    draw_prediction(attribution, row, ax=upper)
    draw_attribution_curves(attribution, row, top=top, order=order, ax=lower)
    upper.set_xlabel("")
    upper.tick_params(labelbottom=False)
    return upper, lower


def _largest(values: np.ndarray, top: int) -> list[int]:
    """Positions of the largest features by mean |attribution|, largest first."""
    if top < 1:
        raise InvalidValueError(f"`top` must be > 0; got {top}. Name at least one feature.")
    size = np.nan_to_num(np.abs(values)).mean(axis=1)
    return [int(place) for place in np.argsort(-size, kind="stable")[:top]]


def _style(place: int) -> tuple[str, object, str]:
    """Colour, dashes and marker; the pairs of the first 36 differ."""
    turn = place // len(SERIES)
    return SERIES[place % len(SERIES)], DASHES[(place + turn) % len(DASHES)], MARKERS[(place + turn) % len(MARKERS)]


def _lines(
    axes: Axes, attribution: Attribution, row: int, values: np.ndarray, named: list[int], styles: list[int]
) -> None:
    times = places(attribution)
    zero_line(axes)
    dots = {"marker": "o", "markersize": 4} if len(times) == 1 else {}
    for feature in sorted(set(range(len(values))) - set(named)):
        axes.plot(times, values[feature], color=LIGHT, linewidth=0.8, zorder=1.6, **dots)  # type: ignore[arg-type]
    error = attribution.sampling_error if attribution.rows is None else None
    for place, feature in reversed(list(zip(styles, named, strict=True))):
        colour, dashes, marker = _style(place)
        if error is not None:
            half = _NORMAL * error[row, feature].detach().cpu().numpy()
            low, high = values[feature] - half, values[feature] + half
            if len(times) == 1:
                axes.vlines(times, low, high, color=colour, linewidth=1.2)
            else:
                axes.fill_between(times, low, high, color=colour, alpha=min(0.15, 1.2 / len(named)), linewidth=0)
        if len(times) == 1:
            axes.plot(times, values[feature], color=colour, marker=marker, markersize=5, linestyle="none")
        else:
            axes.plot(times, values[feature], color=colour, linestyle=dashes)  # type: ignore[arg-type]
    light_grid(axes)


def _name(
    axes: Axes, attribution: Attribution, values: np.ndarray, named: list[int], names: list[str], styles: list[int]
) -> None:
    shown = list(zip(styles, named, strict=True))[: room(axes)]
    end = float(places(attribution)[-1])
    name_ends(
        axes,
        [(end, float(np.nan_to_num(values[feature, -1]))) for _, feature in shown],
        [shorten(names[feature], _NAME) for _, feature in shown],
        [_style(place)[0] for place, _ in shown],
    )


def _remarks(attribution: Attribution, named: int, count: int) -> str:
    said = [] if named == count else [f"the largest {named} of {count} are named"]
    mark = "bands" if len(attribution.times) > 1 else "bars"
    if attribution.sampling_error is not None and attribution.rows is None:
        said.append(f"{mark}: 95 % interval over references")
    told = "; ".join(said)
    return told[:1].upper() + told[1:]
