"""Loops that turn slopes of raw outputs into sums over points of slopes of a curve's levels, in one sweep.

Each point's slopes are read once, its level slopes stay in the fastest memory, and every time takes its two levels from
there. Importing this module imports numba (0.5 s), so `survlens.explain.outer.level_sums` does it on first use.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np

from survlens.losses.cox_scan import compiled


@compiled
def _add(found: Any, rises: Any, weight: float, right: Any, at_right: Any, at_left: Any) -> None:
    """Adds what one point's level slopes give at every time to (time, feature)."""
    if weight == 0.0:
        return
    features = rises.shape[1]
    for time in range(len(right)):
        knot, last = right[time], weight * at_right[time]
        into, here = found[time], rises[knot]
        if knot > 0:
            before, there = weight * at_left[time], rises[knot - 1]
            for feature in range(features):
                into[feature] += last * here[feature] + before * there[feature]
        else:
            for feature in range(features):
                into[feature] += last * here[feature]


@compiled
def _run(rises: Any, shares: Any, slopes: Any) -> None:
    """Puts - sum over l <= k of shares_l slopes_l into row k of `rises`."""
    knots, features = rises.shape
    for feature in range(features):
        rises[0, feature] = -shares[0] * slopes[0, feature]
    for knot in range(1, knots):
        share, into, before, slope = shares[knot], rises[knot], rises[knot - 1], slopes[knot]
        for feature in range(features):
            into[feature] = before[feature] - share * slope[feature]


@compiled
def by_running_sums(slopes: Any, shares: Any, rules: Any, right: Any, at_right: Any, at_left: Any, found: Any) -> None:
    """Level slopes - sum over l <= k of shares_l g_l of each point, summed over a group by every rule.

    Args:
        slopes: g, (group, point, raw, feature).
        shares: (group, point, raw).
        rules: Weights of the points of a group, (rule, point).
        right: Knot at or after each time.
        at_right: Derivative of the target by the level there, (group, point, time).
        at_left: By the level before it.
        found: Taken up into, (rule, group, time, feature), float64.
    """
    groups, points, knots, features = slopes.shape
    rises = np.empty((knots, features))
    for group in range(groups):
        for point in range(points):
            _run(rises, shares[group, point], slopes[group, point])
            for rule in range(len(rules)):
                weight = rules[rule, point]
                _add(found[rule, group], rises, weight, right, at_right[group, point], at_left[group, point])


@compiled
def by_masses(
    slopes: Any, mass: Any, hazard: Any, rules: Any, right: Any, at_right: Any, at_left: Any, found: Any
) -> None:
    """Level slopes F_k E_k - sum over l <= k of q_l g_l of each point, summed over a group by every rule.

    Args:
        slopes: g, (group, point, raw, feature).
        mass: q, (group, point, raw); F is its running sum.
        hazard: h in E_(k-1) = h_k g_k + (1 - h_k) E_k, (group, point, raw).
        rules: Weights of the points of a group, (rule, point).
        right: Knot at or after each time.
        at_right: Derivative of the target by the level there, (group, point, time).
        at_left: By the level before it.
        found: Taken up into, (rule, group, time, feature), float64.
    """
    groups, points, knots, features = slopes.shape
    rises, later = np.empty((knots, features)), np.empty(features)
    for group in range(groups):
        for point in range(points):
            _run(rises, mass[group, point], slopes[group, point])
            sums = mass[group, point].cumsum()
            later[:] = 0.0
            for back in range(knots):
                knot = knots - 1 - back
                part, into, slope = hazard[group, point, knot], rises[knot], slopes[group, point, knot]
                for feature in range(features):
                    into[feature] += sums[knot] * later[feature]
                    later[feature] += part * (slope[feature] - later[feature])
            for rule in range(len(rules)):
                weight = rules[rule, point]
                _add(found[rule, group], rises, weight, right, at_right[group, point], at_left[group, point])
