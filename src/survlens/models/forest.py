"""A random survival forest, kept as plain arrays."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from survlens.core.errors import InvalidValueError
from survlens.core.prediction import SurvivalPrediction
from survlens.models.estimator import SurvivalEstimator
from survlens.models.matrix import Covariates
from survlens.models.penalised import missing_baselines
from survlens.models.proportional import step_prediction


class RandomSurvivalForest(SurvivalEstimator):
    """Trees split by the log-rank statistic; curves are averages of the Kaplan-Meier curves of their leaves.

    scikit-survival grows the trees. They are then kept as arrays, of which a leaf is only its jumps, and every
    prediction, before and after saving, is made from these. The risk is the mortality: the cumulative hazards of the
    leaves, averaged over trees and summed over event times; the number of events expected if all training rows were
    like this one. Delayed entry, weights and strata are refused.

    Args:
        trees: Number of trees.
        min_leaf: Fewest rows of a leaf.
        seed: Seed of the forest.
        jobs: Trees grown at a time; -1 for all cores. The result does not depend on it.
        time_points: Most distinct times that trees are grown on. More are rounded up to that many quantiles of the
            event times, because every node holds two numbers per time: 7,000 rows with 5,800 times would take 8 GB.
        unit: Unit of time, for a `y` that does not know it.

    Attributes:
        times_: Knots of the curves: the event times, and the last observed time.

    Raises:
        MissingDependencyError: If scikit-survival is not installed (by `fit`).

    References:
        Ishwaran et al. 2008.
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        *("times_", "root_", "left_", "right_", "feature_", "threshold_"),
        *("mortality_", "jump_start_", "jump_time_", "jump_survival_"),
    )

    def __init__(
        self,
        *,
        trees: int = 500,
        min_leaf: int = 15,
        seed: int = 0,
        jobs: int = 1,
        time_points: int = 1000,
        unit: str = "time",
    ):
        self.trees = trees
        self.min_leaf = min_leaf
        self.seed = seed
        self.jobs = jobs
        self.time_points = time_points
        self.unit = unit

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> RandomSurvivalForest:
        """Grows the trees; `groups` is not used, and rows are drawn for a tree one by one."""
        matrix, outcome = self._training_rows(X, y)
        try:
            from sksurv.ensemble import RandomSurvivalForest as Grower
            from sksurv.util import Surv
        except ImportError:
            raise missing_baselines("RandomSurvivalForest") from None
        if min(self.trees, self.min_leaf, self.time_points) < 1:
            got = f"{self.trees}, {self.min_leaf} and {self.time_points}"
            raise InvalidValueError(f"`trees`, `min_leaf` and `time_points` must be >= 1; got {got}.")
        time, event = outcome.numpy()
        time = _rounded_up(time, event > 0, self.time_points)
        grower = Grower(
            n_estimators=self.trees, min_samples_leaf=self.min_leaf, random_state=self.seed, n_jobs=self.jobs
        )
        grower.fit(matrix.values.astype(np.float32), Surv.from_arrays(event > 0, time))
        self._keep([tree.tree_ for tree in grower.estimators_], grower.unique_times_, np.unique(time[event > 0]))
        return self

    def _keep(self, trees: list, grid: np.ndarray, event_times: np.ndarray) -> None:
        """Copies the trees into arrays; nodes of all trees are numbered through."""
        sizes = np.array([tree.node_count for tree in trees])
        self.root_ = np.cumsum(sizes) - sizes
        offset = np.repeat(self.root_, sizes)
        left = np.concatenate([tree.children_left for tree in trees]).astype(np.int64)
        right = np.concatenate([tree.children_right for tree in trees]).astype(np.int64)
        itself = np.arange(len(left))
        self.left_ = np.where(left < 0, itself, left + offset)
        self.right_ = np.where(right < 0, itself, right + offset)
        self.feature_ = np.maximum(np.concatenate([tree.feature for tree in trees]), 0)
        self.threshold_ = np.concatenate([tree.threshold for tree in trees])
        at_event = np.isin(grid, event_times)
        jumps = [_leaf_jumps(tree, at_event) for tree in trees]
        self.mortality_ = np.concatenate([mortality for mortality, _, _, _ in jumps])
        counts = np.concatenate([count for _, count, _, _ in jumps])
        self.jump_start_ = np.concatenate(([0], np.cumsum(counts)))
        self.jump_time_ = np.concatenate([where for _, _, where, _ in jumps])
        self.jump_survival_ = np.concatenate([size for _, _, _, size in jumps])
        self.times_ = event_times if event_times[-1] == grid[-1] else np.append(event_times, grid[-1])

    def _leaves(self, values: np.ndarray) -> Int64[np.ndarray, "instance tree"]:
        """Leaf of each row in each tree; splits compare in float32, as they were grown."""
        rows = values.astype(np.float32)
        node = np.tile(self.root_, (len(rows), 1))
        index = np.arange(len(rows))[:, None]
        while True:
            goes_left = rows[index, self.feature_[node]] <= self.threshold_[node]
            following = np.where(goes_left, self.left_[node], self.right_[node])
            if np.array_equal(following, node):
                return node
            node = following

    def _risk(self, values: Float64[np.ndarray, "instance feature"]) -> Float64[np.ndarray, " instance"]:
        return np.concatenate([self.mortality_[self._leaves(rows)].mean(1) for rows in _blocks(values)])

    def _curves(self, values: Float64[np.ndarray, "instance feature"]) -> SurvivalPrediction:
        survival = np.concatenate([self._survival(rows) for rows in _blocks(values)])
        with np.errstate(divide="ignore"):
            return step_prediction(self.times_, np.log(survival), self.unit_)

    def _survival(self, rows: np.ndarray) -> Float64[np.ndarray, "instance time"]:
        """One plus the running sum of the jumps of a row's leaves, over the number of trees."""
        leaves = self._leaves(rows)
        width, drop = len(self.times_), np.zeros(len(rows) * len(self.times_))
        for tree in range(leaves.shape[1]):
            first, count = self.jump_start_[leaves[:, tree]], np.diff(self.jump_start_)[leaves[:, tree]]
            before = np.repeat(np.cumsum(count) - count, count)
            jump = np.repeat(first, count) + np.arange(len(before)) - before
            cell = np.repeat(np.arange(len(rows)) * width, count) + self.jump_time_[jump]
            drop[cell] += self.jump_survival_[jump]
        survival = 1.0 - np.cumsum(drop.reshape(len(rows), width), axis=1) / leaves.shape[1]
        return np.where(survival < 1e-12, 0.0, survival)


def _rounded_up(time: np.ndarray, died: np.ndarray, points: int) -> np.ndarray:
    """Times rounded up to at most `points` quantiles of the event times; after the last event, to the last time."""
    if not died.any() or len(np.unique(time)) <= points:
        return time
    knots = np.unique(np.quantile(time[died], np.linspace(0, 1, points), method="higher"))
    return np.append(knots, time.max())[np.searchsorted(knots, time)]


def _leaf_jumps(tree: object, at_event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of every node: mortality, number of jumps, and of all jumps: index of the event time, and fall of S."""
    hazard, survival = tree.value[:, at_event, 0], tree.value[:, at_event, 1]  # type: ignore[attr-defined]
    fall = -np.diff(survival, axis=1, prepend=1.0)
    fall[tree.children_left >= 0] = 0.0  # type: ignore[attr-defined]
    node, where = np.nonzero(fall > 0)
    return hazard.sum(1), np.bincount(node, minlength=len(fall)), where, fall[node, where]


def _blocks(values: np.ndarray, rows: int = 512) -> list[np.ndarray]:
    return [values[start : start + rows] for start in range(0, max(len(values), 1), rows)]
