"""Losses per epoch in training and validation patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from survlens.report.figures.canvas import light_grid, new_figure, shorten, styled
from survlens.report.palette import GREY, series
from survlens.report.records import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def training_figure(histories: Sequence[History]) -> Figure:
    """One panel per model: the total loss over epochs; a dotted line marks the lowest validation loss.

    Args:
        histories: Losses of each model.
    """
    columns = min(len(histories), 3)
    rows = -(-len(histories) // columns)
    figure = new_figure({1: 4.6, 2: 6.6, 3: 7.2}[columns], 2.3 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False)
    for position, axes in enumerate(panels.flat):
        if position >= len(histories):
            axes.set_visible(False)
            continue
        history = histories[position]
        for line, (label, losses) in enumerate((("training", history.training), ("validation", history.validation))):
            if np.isfinite(losses).any():
                colour, dashes, _ = series(line)
                axes.plot(history.epoch, losses, color=colour, linestyle=dashes, label=label)
        if history.best_epoch is not None:
            axes.axvline(history.best_epoch, color=GREY, linestyle=(0, (1, 1.5)), linewidth=1.0)
        axes.set_title(shorten(history.label, 30))
        axes.set_xlabel("Epoch (passes over the data)")
        axes.set_ylabel("Loss (nats)" if position % columns == 0 else "")
        axes.locator_params(nbins=4)
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[attr-defined]
        light_grid(axes)
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure
