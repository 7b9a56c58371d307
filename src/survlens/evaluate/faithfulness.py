"""Does the model change as the explanation says? Deletion and insertion curves, infidelity, local accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.protocols import Inputs
from survlens.core.score import Score
from survlens.evaluate.attribution_values import Explained, Part, Predict, parts_of, time_weights, times_of
from survlens.evaluate.removal import Filling, Question, Removable, answered, removable_instances, words_of
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime, score_over_time, statistic_over_time
from survlens.evaluate.squared_errors import trapezoid_weights


class Focus(Enum):
    """Which times decide the order in which features are removed.

    ALL_TIMES: the contributions averaged over time, one order. EACH_TIME: every time has its own order, and only the
    target at that time is read from it, at the price of as many orders as times.
    """

    ALL_TIMES = "averaged over times"
    EACH_TIME = "each time by itself"


@dataclass(frozen=True, slots=True)
class Removal:
    """How features are removed one after another.

    Attributes:
        filling: What stands in their place, such as `References.mean(training)`.
        patch: Side in pixels of the squares of an image that are removed as a whole.
        steps: Number of steps from nothing to everything.
        part: Which contributions come first: the largest in size, the most raising, or the most lowering ones.
        focus: Which times decide the order.
        horizon: One of the times, which then decides the order alone.
        random_orders: Number of random orders per instance to compare with.
        batch: Rows that the model is asked about at once.
        seed: Decides the random orders and the order among ties.

    Raises:
        InvalidValueError: If a number is out of range, or both `horizon` and Focus.EACH_TIME are asked for.
    """

    filling: Filling
    patch: int = 1
    steps: int = 20
    part: Part = Part.ABSOLUTE
    focus: Focus = Focus.ALL_TIMES
    horizon: float | None = None
    random_orders: int = 10
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("part", self.part, Part)
        check_choice("focus", self.focus, Focus)
        if min(self.patch, self.steps, self.random_orders, self.batch) < 1:
            raise InvalidValueError(
                "`patch`, `steps`, `random_orders` and `batch` must be >= 1; "
                f"got {self.patch}, {self.steps}, {self.random_orders} and {self.batch}."
            )
        if self.horizon is not None and self.focus is Focus.EACH_TIME:
            raise InvalidValueError("`horizon` must be None where each time has its own order; got both.")

    def orders(self, removable: Removable, times: np.ndarray) -> np.ndarray:
        """Rank of each unit in every order: those of the explanation, then the random ones."""
        generator, values = removable.generator(self.seed), removable.part(self.part)
        if self.horizon is not None:
            values = values[:, [_column(times, self.horizon)]]
        elif self.focus is Focus.ALL_TIMES:
            values = (values @ time_weights(times))[:, None]
        orders = [np.lexsort((generator.random(removable.units), -column)) for column in values.T]
        orders += [generator.permutation(removable.units) for _ in range(self.random_orders)]
        return np.argsort(np.stack(orders), axis=1)

    def counts(self, units: int) -> np.ndarray:
        """Numbers of units removed at each step, from none to all."""
        return np.unique(np.round(np.linspace(0, units, self.steps + 1)).astype(np.int64))

    def words(self) -> dict[str, float | int | str]:
        """What a reader needs to do it again."""
        return {
            "part": self.part.value,
            "focus": self.focus.value if self.horizon is None else f"at {self.horizon:g}",
            "filling": words_of(self.filling),
            "patch": self.patch,
            "steps": self.steps,
            "random_orders": self.random_orders,
        }


@dataclass(frozen=True, slots=True, eq=False)
class RemovalCurve:
    """How a prediction moves as features are removed, or put back, one after another.

    `change` is |F(x) - F(x_A)|, or F(x) - F(x_A) where raising contributions come first and its negative where
    lowering ones do. All curves are means over instances.

    Attributes:
        area: Area between the two curves of `change`, with an interval; 0 is chance, higher is better.
        shares: Share of the features removed, or put back, from 0 to 1.
        change: Change in the order of the explanation: (share, time).
        random_change: Change in random order.
        prediction: The target in the order of the explanation.
        random_prediction: The target in random order.
    """

    area: ScoreOverTime
    shares: np.ndarray = field(repr=False)
    change: np.ndarray = field(repr=False)
    random_change: np.ndarray = field(repr=False)
    prediction: np.ndarray = field(repr=False)
    random_prediction: np.ndarray = field(repr=False)

    @property
    def score(self) -> Score:
        """The area averaged over times."""
        return self.area.score

    def to_json(self, *, random: bool = False) -> dict[str, list[float]]:
        """The curve of the change, averaged over times: "share" and "value"."""
        change = self.random_change if random else self.change
        return {"share": self.shares.tolist(), "value": (change @ time_weights(self.area.times)).tolist()}


def deletion_curve(
    predict: Predict, inputs: Inputs, explained: Explained, removal: Removal, *, intervals: Intervals | None = None
) -> RemovalCurve:
    """Removes features in the order of the explanation and in random orders, and compares how fast F(t) moves.

    area(t) = integral over the share q of removed features of c(q, t), less the mean of the same over random orders,
    with c the change of the target, averaged over instances and, for the score, over times (trapezoidal mean).

    Args:
        predict: From inputs to the target (row, time) at the times of the attribution; all times in one call.
        inputs: The rows explained.
        explained: Attributions keyed by modality; only these modalities are removed, together.
        removal: How features are removed.
        intervals: How the interval is made.

    Raises:
        InvalidValueError: If shapes or times do not fit together.

    References:
        Samek et al. 2017; Petsiuk et al. 2018.
    """
    return _curve("deletion_area", False, (predict, inputs, explained), removal, intervals or Intervals())


def insertion_curve(
    predict: Predict, inputs: Inputs, explained: Explained, removal: Removal, *, intervals: Intervals | None = None
) -> RemovalCurve:
    """Starts from the filling, puts features back in the order of the explanation, and compares how fast F(t) returns.

    The arguments are those of `deletion_curve`. The change is what is left to F(x), so the area is that of the random
    orders less that of the explanation, and higher is better here too.

    Raises:
        InvalidValueError: If shapes or times do not fit together.

    References:
        Petsiuk et al. 2018.
    """
    return _curve("insertion_area", True, (predict, inputs, explained), removal, intervals or Intervals())


def local_accuracy(explained: Explained, *, intervals: Intervals | None = None) -> ScoreOverTime:
    """How far contributions miss what they should sum to: sqrt(E (F - mean F(x') - sum phi)^2 / E F^2).

    E is the mean over instances; the score is the plain mean over times, as published. It mixes the error of
    integration with that of drawing references, which an `Attribution` tells apart, and it cannot rank methods: some
    force it to 0 whatever else is wrong.

    Args:
        explained: Additive attributions of all modalities of the model, with their predictions.
        intervals: How the interval is made.

    Raises:
        InvalidValueError: If contributions are not additive, or their predictions were not kept.

    References:
        Krzyzinski et al. 2023.
    """
    parts = list(parts_of(explained).values())
    first, times = parts[0], times_of(explained)
    if not all(part.additive for part in parts) or first.prediction is None:
        raise InvalidValueError(
            "`explained` must hold additive contributions with their `prediction` for a local accuracy; got "
            f"{first.method}. Use IntegratedGradients, GradSHAP or a SurvSHAP."
        )
    if first.completeness_gap is not None:
        gap = first.completeness_gap
    elif first.reference_prediction is not None:
        gap = first.prediction - first.reference_prediction - sum(part.total for part in parts)
    else:
        raise InvalidValueError("`explained` must keep its `completeness_gap` or `reference_prediction`; got neither.")
    missed, size = (each.detach().cpu().double().numpy() for each in (gap, first.prediction))

    def share(means: np.ndarray) -> np.ndarray:
        found = np.sqrt(means[:, : len(times)] / np.maximum(means[:, len(times) :], np.finfo(np.float64).tiny))
        return np.column_stack([found, found.mean(1)])

    return statistic_over_time(
        "local_accuracy",
        np.column_stack([missed**2, size**2]),
        np.abs(missed),
        times,
        intervals or Intervals(),
        statistic=share,
        settings={"over_times": "mean"},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """One instance with more and more removed in several orders; with `inserting`, with less and less."""

    removable: Removable
    ranks: np.ndarray
    counts: np.ndarray
    inserting: bool

    @property
    def rows(self) -> int:
        return len(self.ranks) * len(self.counts) if self.removable.units else 0

    def questions(self, batch: int) -> Iterator[Question]:
        step = max(1, batch // len(self.removable.weights))
        for start in range(0, self.rows, step):
            order, count = np.divmod(np.arange(start, min(start + step, self.rows)), len(self.counts))
            first = self.ranks[order] < self.counts[count, None]
            yield self.removable.without(~first if self.inserting else first)


def _curve(
    name: str,
    inserting: bool,
    asked: tuple[Predict, Inputs, Explained],
    removal: Removal,
    intervals: Intervals,
) -> RemovalCurve:
    predict, inputs, explained = asked
    times = times_of(explained)
    shares = np.linspace(0.0, 1.0, removal.steps + 1)
    sums, areas = np.zeros((4, len(shares), len(times))), []
    plans = (
        _Steps(each, removal.orders(each, times), removal.counts(each.units), inserting)
        for each in removable_instances(inputs, explained, removal.filling, removal.patch)
    )
    for plan, found in answered(predict, plans, removal.batch, len(times)):
        if not plan.rows:
            areas.append(np.full(len(times), np.nan))
            continue
        found = found.reshape(len(plan.ranks), len(plan.counts), len(times))
        full = found[:, -1:] if inserting else found[:, :1]
        change, own = removal.part.of(full - found), len(plan.ranks) - removal.random_orders
        curves = [_of_explanation(change, own), change[own:].mean(0), _of_explanation(found, own), found[own:].mean(0)]
        at = plan.counts / plan.counts[-1]
        sums += np.stack([[np.interp(shares, at, column) for column in curve.T] for curve in curves]).swapaxes(1, 2)
        area = trapezoid_weights(at) @ (curves[0] - curves[1])
        areas.append(-area if inserting else area)
    per_instance = np.asarray(areas)
    area = score_over_time(name, per_instance, times, intervals, settings=removal.words())
    return RemovalCurve(area, shares, *(sums / max(1, int(np.isfinite(per_instance).all(1).sum()))))


def _of_explanation(values: np.ndarray, own: int) -> np.ndarray:
    """(step, time) of the explained order; with an order per time, each time of its own."""
    return values[0] if own == 1 else np.einsum("tct->ct", values[:own])


def _column(times: np.ndarray, horizon: float) -> int:
    near = np.flatnonzero(np.isclose(times, horizon))
    if not len(near):
        shown = ", ".join(f"{time:g}" for time in times[:8])
        raise InvalidValueError(f"`horizon` must be one of the times explained, {shown}; got {horizon:g}.")
    return int(near[0])
