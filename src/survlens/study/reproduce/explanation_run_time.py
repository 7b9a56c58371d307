"""The published experiment on run time: seconds of each method by number of features and of times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from survlens.core.targets import survival
from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.path_rules.path_integral import PathRule
from survlens.explain.references import References
from survlens.explain.survshap import PermutationSurvSHAP
from survlens.models.survival_model import SurvivalModel
from survlens.study.reproduce.simulated_networks import (
    NETWORKS,
    RULES,
    Simulation,
    common_times,
    fitted_network,
    simulated_parts,
)
from survlens.study.reproduce.tables import Findings, ResultTable


@dataclass(frozen=True, slots=True)
class RunTimePlan:
    """Sizes of the experiment.

    Attributes:
        train: Training rows.
        features: Numbers of features, each at least 3.
        times: Numbers of times.
        instances: Rows explained.
        references: Training rows to compare with.
        repeats: Runs of each; the median is told.
        epochs: Epochs of a fit; weights hardly matter for run time.
        seed: Seed of everything.
    """

    train: int = 400
    features: tuple[int, ...] = (20, 160)
    times: tuple[int, ...] = (43, 1000)
    instances: int = 20
    references: int = 5
    repeats: int = 2
    epochs: int = 4
    seed: int = 0


def run_time_of_methods(plan: RunTimePlan, tell: Callable[[str], object] | None = None) -> Findings:
    """Median seconds of each method on each family, beside a loop of reverse passes over times.

    Args:
        plan: Sizes.
        tell: Told of every network.
    """
    rows: list[dict[str, Any]] = []
    for features in plan.features:
        parts = simulated_parts(
            Simulation.TIME_DEPENDENT, train=plan.train, test=plan.instances, noise=features - 3, seed=plan.seed
        )
        for name in NETWORKS:
            model = fitted_network(name, parts.train, seed=plan.seed, epochs=plan.epochs).float()
            start = References.sample({"table": parts.train.covariates.float()}, plan.references, seed=plan.seed)
            x = parts.test.covariates.float()
            for count in plan.times:
                times = common_times([model.double()], features, count)
                model.float()
                seconds = _seconds(model, x, start, times, RULES.get(name), plan.repeats)
                rows.append({"model": name, "features": features, "times": count, **seconds})
            if tell is not None:
                tell(f"timed {name} with {features} features")
    title = (
        f"Median seconds of {plan.repeats} runs in float32 for {plan.instances} instances and {plan.references} "
        f"references on {torch.get_num_threads()} threads."
    )
    return Findings(
        "explanations_run_time", "Run time by features and times", [ResultTable("seconds", title, rows)], _REMARKS
    )


_REMARKS = (
    "Looped Grad: one reverse pass through the whole curve per time, by plain automatic differentiation; timed on at "
    "most 50 times and scaled to all.",
    "Published: only drawn, not printed, for these sizes; so no number stands beside ours. For one instance of 3,076 "
    "inputs of two kinds the paper prints 0.48 to 10.3 s for GradSHAP(t) and 393 to 571 s for SurvSHAP(t) on its own "
    "machine. Its methods take one reverse pass per output, and keep a table of (draw, feature, time).",
    "GradSHAP(t) here takes as many references as stated and integrates each path exactly, but that of CoxTime with "
    "24 gradients; SurvSHAP(t) takes 5 pairs of permutations.",
)


def _seconds(
    model: SurvivalModel, x: Tensor, start: References, times: Tensor, rule: PathRule | None, repeats: int
) -> dict[str, float]:
    mean = References({"table": start.inputs["table"].mean(0, keepdim=True)}, "mean")
    inputs = {"table": x}
    looped = times[:: max(1, -(-len(times) // 50))]
    runs: dict[str, Callable[[], object]] = {
        "Grad": lambda: Gradient()(model, inputs, times),
        "IntGrad": lambda: IntegratedGradients(mean, rule)(model, inputs, times),
        "GradSHAP": lambda: GradSHAP(start, rule)(model, inputs, times),
        "SurvSHAP": lambda: PermutationSurvSHAP(start, pairs=5)(model, {"table": x[:1]}, times),
        "looped Grad": lambda: _looped(model, x, looped),
    }
    found = {name: _median(run, repeats) for name, run in runs.items()}
    found["looped Grad"] *= len(times) / len(looped)
    found["SurvSHAP, 1 instance"] = found.pop("SurvSHAP")
    return found


def _looped(model: SurvivalModel, x: Tensor, times: Tensor) -> Tensor:
    slopes = []
    for each in times:
        moving = x.detach().requires_grad_(True)
        value = survival(_Curves(model, moving), each.reshape(1))
        slopes.append(torch.autograd.grad(value.sum(), moving)[0])
    return torch.stack(slopes, dim=2)


@dataclass(frozen=True, slots=True)
class _Curves:
    model: SurvivalModel
    table: Tensor

    def survival(self, times: Tensor | None = None) -> Any:
        return self.model.predict_survival({"table": self.table}, times)

    def incidence(self, times: Tensor | None = None) -> Any:
        return self.model.predict_incidence({"table": self.table}, times)


def _median(run: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))
