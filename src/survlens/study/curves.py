"""Curves of one model for the report: Brier score over time, calibration, risk groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from survlens.core.score import Score
from survlens.evaluate.calibration import (
    calibration_curve,
    calibration_slope,
    grouped_calibration,
    observed_expected_ratio,
)
from survlens.evaluate.groups import group_curves, log_rank_test, risk_groups
from survlens.study.resampling import brier_by_fold
from survlens.study.scoring import Scored

_POINTS = 60
"""Points of a drawn curve."""


def brier_curve(scored: Scored) -> dict[str, Any]:
    """Brier score of the model and of Kaplan-Meier over time."""
    times = scored.times[scored.times <= scored.scored_until()]
    times = times[np.unique(np.linspace(0, len(times) - 1, _POINTS).round().astype(int))]
    curve = brier_by_fold(scored, times)
    return {"times": curve.times, "brier": curve.values, "null": curve.null_values, "ipa": curve.ipa}


def calibration(scored: Scored, horizon: float) -> dict[str, Any]:
    """Predicted against observed risk at a horizon."""
    prediction, outcome = scored.prediction, scored.outcome
    curve = calibration_curve(prediction, outcome, horizon)
    order = np.argsort(curve.predicted)
    shown = (
        order[np.unique(np.linspace(0, len(order) - 1, _POINTS).round().astype(int))]
        if curve.observed.size
        else order[:0]
    )
    groups = grouped_calibration(prediction, outcome, horizon, groups=max(2, min(10, len(outcome) // 30)))
    return {
        "horizon": horizon,
        "observed_expected": _value(observed_expected_ratio(prediction, outcome, horizon)),
        "slope": _value(calibration_slope(prediction, outcome, horizon)),
        "ici": _value(curve.ici()),
        "e50": _value(curve.quantile(0.5)),
        "e90": _value(curve.quantile(0.9)),
        "groups": [
            {
                "predicted": group.predicted,
                "observed": group.observed,
                "lower": group.lower,
                "upper": group.upper,
                "n": group.n,
            }
            for group in groups
        ],
        "curve": {
            "predicted": curve.predicted[shown],
            "observed": curve.observed[shown] if curve.observed.size else [],
        },
    }


def _value(score: Score) -> float | None:
    return None if np.isnan(score.value) else score.value


def risk_group_curves(scored: Scored, groups: int) -> dict[str, Any] | None:
    """Kaplan-Meier curves of risk groups, cut at the quantiles of each fold's own training patients.

    None where all patients have one risk.
    """
    shares = tuple((at + 1) / groups for at in range(groups - 1))
    label = np.zeros(len(scored.risk), dtype=int)
    cutpoints: list[float] = []
    for rows in scored.rows_of_folds():
        cuts = risk_groups(scored.training_risk[int(scored.fold[rows[0]])], shares)
        if len(cuts.cutpoints) < groups - 1:
            return None
        label[rows] = cuts.assign(scored.risk[rows])
        cutpoints = cuts.cutpoints.tolist()
    if len(set(label)) < 2:
        return None
    times = round_times(float(scored.outcome.time.max()))
    curves = group_curves(label, scored.outcome, times)
    test = log_rank_test(label, scored.outcome)
    return {
        "cutpoints": cutpoints if len(scored.rows_of_folds()) == 1 else [],
        "groups": [
            {
                "label": group_name(int(each.group), groups),  # type: ignore[call-overload]
                "n": each.n,
                "n_events": each.n_events,
                "times": each.curve.times,
                "survival": each.curve.survival,
                "lower": each.curve.lower,
                "upper": each.curve.upper,
            }
            for each in curves
        ],
        "at_risk": {"times": times, "counts": [each.at_risk for each in curves]},
        "logrank": {"chi2": test.chi2, "df": test.df, "p": test.p_value},
    }


def round_times(last: float) -> np.ndarray:
    """From 0 up to `last` in equal steps of 1, 2 or 5 times a power of ten: times that people count in."""
    rough = last / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(each for each in (1, 2, 5, 10) if each * power >= rough * 0.8)
    return np.arange(0, last + 1e-9 * last, step)


def group_name(group: int, groups: int) -> str:
    """Name of a risk group, from the lowest."""
    if groups == 2:
        return ("low risk", "high risk")[group]
    if groups == 3:
        return ("low risk", "middle risk", "high risk")[group]
    return f"risk group {group + 1} of {groups}"
