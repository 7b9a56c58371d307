"""The first two principal components of embeddings, coloured by survival time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import new_figure, shorten, styled
from survlens.report.palette import GREY, SEQUENTIAL
from survlens.report.records import EmbeddingPoints
from survlens.report.wording import share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_RASTER_FROM = 600
_UNEVEN = 15.0


@styled
def embedding_figure(embeddings: Sequence[EmbeddingPoints], *, unit: str) -> Figure:
    """One panel per model: events filled and coloured by their time, censored patients hollow.

    Args:
        embeddings: Points of each model; the colour scale is shared.
        unit: Unit of time, for the colour bar.
    """
    from matplotlib.cm import ScalarMappable

    columns = {1: 1, 2: 2, 4: 2}.get(len(embeddings), 3)
    rows = -(-len(embeddings) // columns)
    figure = new_figure({1: 5.2, 2: 7.2, 3: 7.4}[columns], {1: 3.9, 2: 3.2, 3: 2.5}[columns] * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False)
    scale = _scale(embeddings)
    for position, axes in enumerate(panels.flat):
        if position >= len(embeddings):
            axes.set_visible(False)
            continue
        _panel(axes, embeddings[position], scale)
    bar = figure.colorbar(
        ScalarMappable(scale, SEQUENTIAL), ax=panels, extend="both", shrink=min(1.0, 1.3 / rows), pad=0.02
    )
    bar.ax.yaxis.set_major_formatter("{x:,.4g}")
    bar.ax.yaxis.set_minor_formatter("")
    bar.set_label(f"Time to event ({shorten(unit, 16)})")
    bar.outline.set_visible(False)  # type: ignore[operator]
    _legend(figure)
    return figure


def _scale(embeddings: Sequence[EmbeddingPoints]) -> Normalize:
    """A colour scale over event times that long survivors cannot stretch; logarithmic where times are uneven."""
    from matplotlib.colors import LogNorm, Normalize

    times = np.concatenate([e.time[e.event] for e in embeddings])
    if times.size == 0:
        return Normalize(0.0, 1.0)
    low, quarter, high = np.quantile(times, [0.05, 0.25, 0.95])
    if not high > low:
        return Normalize(low, low + 1.0)
    return LogNorm(low, high) if high > _UNEVEN * quarter else Normalize(low, high)


def _panel(axes: Axes, embedding: EmbeddingPoints, scale: Normalize) -> None:
    raster = len(embedding) > _RASTER_FROM
    size = float(np.clip(3000 / len(embedding), 5, 22))
    happened, censored = embedding.event, ~embedding.event
    x, y = embedding.pc1, embedding.pc2
    axes.scatter(
        x[censored], y[censored], s=size, facecolors="none", edgecolors=GREY, linewidths=0.6, rasterized=raster
    )
    filled = axes.scatter(x[happened], y[happened], s=size, c=embedding.time[happened], cmap=SEQUENTIAL, norm=scale)
    filled.set(linewidths=0.3, edgecolors=GREY, rasterized=raster)
    axes.set_title(shorten(embedding.label, 32))
    axes.set_xlabel(_axis_label(embedding, 0))
    axes.set_ylabel(_axis_label(embedding, 1))
    axes.locator_params(nbins=4)


def _axis_label(embedding: EmbeddingPoints, component: int) -> str:
    name = f"PC {component + 1}"
    if component >= len(embedding.explained):
        return f"{name} (latent units)"
    return f"{name} ({share_text(embedding.explained[component])} of the variance)"


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", linestyle="none", color="#4f5b6e", markersize=5, label="had the event"),
        Line2D(
            [], [], marker="o", linestyle="none", color=GREY, markerfacecolor="none", markersize=5, label="censored"
        ),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
