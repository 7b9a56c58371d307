"""The published experiment on global rankings: do methods put the features in the true order?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.references import References
from survlens.explain.shapley import ExactSHAP
from survlens.models.survival_model import SurvivalModel
from survlens.study.reproduce.simulated_networks import (
    NETWORKS,
    RULES,
    SimulatedParts,
    Simulation,
    common_times,
    fitted_network,
    simulated_parts,
)
from survlens.study.reproduce.tables import Findings, ResultTable


@dataclass(frozen=True, slots=True)
class RankingPlan:
    """Sizes of the experiment.

    Attributes:
        train: Training rows.
        test: Rows explained.
        references: Training rows to compare with.
        times: Number of times.
        draws: Bootstrap draws of the rows.
        epochs: Most epochs of a fit.
        folder: Folder with the published files; data are drawn anew where None.
        seed: Seed of everything.
    """

    train: int = 2000
    test: int = 60
    references: int = 8
    times: int = 30
    draws: int = 500
    epochs: int = 200
    folder: Path | None = None
    seed: int = 0


def ranking_of_features(plan: RankingPlan, tell: Callable[[str], object] | None = None) -> Findings:
    """How often the features stand in the true order, over times and over instances.

    The true order at a time is that of the mean absolute attribution of the true hazard, explained by the same method
    with the same references; in a row, that of its own absolute attributions.

    Args:
        plan: Sizes.
        tell: Told of every fit.
    """
    rows: list[dict[str, Any]] = []
    for simulation in Simulation:
        parts = simulated_parts(simulation, train=plan.train, test=plan.test, folder=plan.folder, seed=plan.seed)
        models = {}
        for name in NETWORKS:
            models[name] = fitted_network(name, parts.train, seed=plan.seed, epochs=plan.epochs)
            if tell is not None:
                tell(f"{simulation.value}: fitted {name}")
        times = common_times(list(models.values()), len(parts.features), plan.times)
        start = References.sample({"table": parts.train.covariates}, plan.references, seed=plan.seed)
        truth = _sizes("truth", parts.truth, parts, start, times)
        for name, model in models.items():
            found = _sizes(name, model, parts, start, times)
            rows += [
                {"simulation": simulation.value, "model": name, "method": method}
                | order_kept(found[method], truth[method], draws=plan.draws, seed=plan.seed)
                for method in truth
            ]
    return Findings(
        "explanations_ranking", "Global ranking of features", [ResultTable("ranking", _TITLE, rows)], _REMARKS
    )


_TITLE = (
    "Share of times at which the ranking by mean |attribution| is the true one (95 % interval over bootstrap draws of "
    "the rows), share of rows and times at which the row's own ranking is the true one, share of rows and times at "
    "which the noise feature is last."
)
_REMARKS = (
    "Published: rankings are drawn for real data, where no true order is known; no number can stand beside ours.",
    "Ranking by the size of gradients depends on the units of the features, that by contributions does not: x1 of the "
    "time-dependent simulation lies in (0, 1), and its gradient is large where its contribution is not.",
    "Both networks and truth are ranked anew in every bootstrap draw.",
    "Times where two features are nearly equally important in truth count against every method, as their order is a "
    "matter of chance there.",
)


def order_kept(found: np.ndarray, truth: np.ndarray, *, draws: int, seed: int) -> dict[str, float]:
    """Shares of times, and of rows and times, at which features stand in the true order.

    Args:
        found: Absolute attributions of a network, (instance, feature, time).
        truth: The same of the truth; the last feature is noise.
        draws: Bootstrap draws of the rows.
        seed: Seed of the draws.
    """
    generator = np.random.default_rng(seed)
    shares = []
    for _ in range(draws):
        rows = generator.integers(0, len(found), len(found))
        shares.append(_same_order(found[rows].mean(0), truth[rows].mean(0)).mean())
    low, high = np.quantile(shares, [0.025, 0.975]) if draws else (np.nan, np.nan)
    return {
        "global order": float(_same_order(found.mean(0), truth.mean(0)).mean()),
        "low": float(low),
        "high": float(high),
        "row's order": float(_same_order(found, truth).mean()),
        "noise last": float((found.argmin(axis=1) == found.shape[1] - 1).mean()),
    }


def _same_order(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether the features, the axis before the last, are sorted alike."""
    return (np.argsort(-found, axis=-2, kind="stable") == np.argsort(-truth, axis=-2, kind="stable")).all(axis=-2)


def _sizes(
    name: str, model: SurvivalModel, parts: SimulatedParts, start: References, times: Tensor
) -> Mapping[str, np.ndarray]:
    """Absolute attributions of S(t) by method."""
    inputs, rule = {"table": parts.test.covariates}, RULES.get(name)
    mean = References.mean({"table": parts.train.covariates})
    explainers = {
        "Grad": Gradient(),
        "IntGrad": IntegratedGradients(mean, rule),
        "GradSHAP": GradSHAP(start, rule),
        "SHAP, exact": ExactSHAP(start),
    }
    return {name: np.abs(each(model, inputs, times)["table"].numpy()) for name, each in explainers.items()}
