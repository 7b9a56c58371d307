"""Predictions as data frames: where they leave torch for a table, a file or a plot."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
import pandas as pd

from survlens.core.choices import check_choice
from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.prediction import SurvivalPrediction


class FrameLayout(Enum):
    """What is a row of the frame.

    INSTANCES: one row per instance, one column per time. TIMES: one row per time, one column per instance, as lifelines
    has it. LONG: one row per instance and time, with the value in a column of its own.
    """

    INSTANCES = "instances"
    TIMES = "times"
    LONG = "long"


def prediction_frame(
    prediction: SurvivalPrediction | CompetingRisksPrediction,
    index: pd.Index | pd.Series | np.ndarray | Sequence | None = None,
    *,
    layout: FrameLayout = FrameLayout.INSTANCES,
) -> pd.DataFrame:
    """Survival probabilities, or cumulative incidences of each cause, at the knots of a prediction.

    Ask for other times first: `prediction_frame(prediction.at([12, 24]), patients)`. The axis of times is named after
    the unit, such as "time [months]". Of a competing-risks prediction a row, a column or a line is of one instance and
    cause, under the names "instance" and "cause". S(0) = 1 is not a knot and has no entry.

    Args:
        prediction: What was predicted.
        index: What each instance is called, in order; a named index or series also names the axis. 0, 1, 2 ... and
            "instance" by default.
        layout: What is a row.

    Returns:
        float64 values. In LONG the last column holds them, "survival" or "incidence".

    Raises:
        InvalidValueError: If `index` has another length than the prediction.
    """
    check_choice("layout", layout, FrameLayout)
    instances = _instances(index, len(prediction))
    causes = isinstance(prediction, CompetingRisksPrediction)
    values = prediction.cumulative_incidence.transpose(0, 1) if causes else prediction.survival
    matrix = values.detach().cpu().double().numpy()
    rows: pd.Index = instances
    if causes:
        numbers = pd.RangeIndex(1, prediction.n_causes + 1)
        rows = pd.MultiIndex.from_product([instances, numbers], names=[instances.name, "cause"])
    columns = pd.Index(prediction.times.detach().cpu().double().numpy(), name=f"time [{prediction.unit}]")
    wide = pd.DataFrame(matrix.reshape(-1, len(columns)), index=rows, columns=columns)
    if layout is FrameLayout.INSTANCES:
        return wide
    if layout is FrameLayout.TIMES:
        return wide.T
    repeated = rows.repeat(len(columns)).to_frame(index=False)
    repeated[columns.name] = np.tile(columns.to_numpy(), len(rows))
    return repeated.assign(**{"incidence" if causes else "survival": wide.to_numpy().reshape(-1)})


def _instances(index: pd.Index | pd.Series | np.ndarray | Sequence | None, count: int) -> pd.Index:
    found = pd.RangeIndex(count) if index is None else pd.Index(index)
    if len(found) != count:
        raise InvalidValueError(f"`index` must name every instance; got {len(found)} names for {count} instances.")
    return found.rename("instance") if found.name is None else found
