"""The published experiment on local accuracy: what contributions miss of the prediction, and where it is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.explain.expected import GradSHAP
from survlens.explain.references import References
from survlens.explain.survshap import PermutationSurvSHAP
from survlens.models.survival_model import SurvivalModel
from survlens.study.reproduce.simulated_networks import (
    NETWORKS,
    Simulation,
    common_times,
    fitted_network,
    simulated_parts,
)
from survlens.study.reproduce.tables import Findings, ResultTable

PUBLISHED: Mapping[str, Mapping[int, float]] = {
    "DeepSurv": {5: 0.035, 25: 0.017, 50: 0.018},
    "CoxTime": {5: 0.027, 25: 0.012, 50: 0.013},
    "DeepHit": {5: 0.012, 25: 0.011, 50: 0.004},
}
"""Mean local accuracy of GradSHAP(t) in Langbein et al. 2025, by number of draws."""
PUBLISHED_SURVSHAP: Mapping[str, float] = {"DeepSurv": 0.003, "CoxTime": 0.0085, "DeepHit": 0.008}
"""Mean local accuracy of SurvSHAP(t) in the same paper."""


@dataclass(frozen=True, slots=True)
class AccuracyPlan:
    """Sizes of the experiment; published are p = 20, 100 instances and 99 references.

    Attributes:
        train: Training rows.
        features: Number of features, of which three have an effect.
        instances: Rows explained.
        references: Training rows that E F(x') is the mean over.
        draws: Numbers of references that GradSHAP(t) and SurvSHAP(t) use of these.
        times: Number of times.
        epochs: Most epochs of a fit.
        seed: Seed of everything.
    """

    train: int = 1000
    features: int = 20
    instances: int = 20
    references: int = 99
    draws: tuple[int, ...] = (5, 25, 50)
    times: int = 43
    epochs: int = 100
    seed: int = 0


def local_accuracy(missed: Tensor, prediction: Tensor) -> float:
    """Mean over times of sqrt(mean of missed^2 / mean of F^2), the means over instances.

    Args:
        missed: F(x) - E F(x') - (sum of contributions), or a part of it, (instance, time).
        prediction: F(x), (instance, time).
    """
    return float((missed.square().mean(0) / prediction.square().mean(0)).sqrt().mean())


def accuracy_of_networks(plan: AccuracyPlan, tell: Callable[[str], object] | None = None) -> Findings:
    """Local accuracy of GradSHAP(t) and SurvSHAP(t) for the three families, split by where it is lost.

    Args:
        plan: Sizes.
        tell: Told of every fit.
    """
    noise = plan.features - 3
    parts = simulated_parts(
        Simulation.TIME_DEPENDENT, train=plan.train, test=plan.instances, noise=noise, seed=plan.seed
    )
    rows: list[dict[str, Any]] = []
    for name in NETWORKS:
        model = fitted_network(name, parts.train, seed=plan.seed, epochs=plan.epochs)
        if tell is not None:
            tell(f"fitted {name}")
        times = common_times([model], plan.features, plan.times)
        every = References.sample({"table": parts.train.covariates}, plan.references, seed=plan.seed)
        wanted = _mean_survival(model, every, times)
        for count in plan.draws:
            some = References({"table": every.inputs["table"][:count]}, f"{count} training rows", drawn=True)
            for method, explainer, printed in (
                ("GradSHAP", GradSHAP(some), PUBLISHED[name].get(count)),
                ("SurvSHAP, permutations", PermutationSurvSHAP(some, pairs=5, seed=plan.seed), None),
            ):
                found = explainer(model, {"table": parts.test.covariates}, times)["table"]
                rows.append({"model": name, "method": method, "references": count, **_split(found, wanted)})
                rows[-1]["published"] = printed if method == "GradSHAP" else PUBLISHED_SURVSHAP[name]
    return Findings(
        "explanations_local_accuracy",
        f"Local accuracy of {plan.features} features, {plan.instances} instances",
        [ResultTable("accuracy", _TITLE, rows)],
        _REMARKS,
    )


_TITLE = (
    "Mean local accuracy of S(t), 0 is best: all of it against the mean over all references; the part of numerical "
    "integration (or of sampled coalitions); the part of using fewer references."
)
_REMARKS = (
    "Published numbers count draws of a reference and a point on the path together, 5, 25 or 50 per instance; here "
    "each reference has its whole path, integrated exactly. What is left is the part of using fewer references, and "
    "none with all of them.",
    "CoxTime bends in other places at each of its 70 knots, so its paths are not cut into exact pieces but integrated "
    "with 24 gradients each: its quadrature part is not 0.",
    "With 5 references the part of using fewer is larger here than all of the published number, so that number can "
    "hardly be taken against a mean over 99; it is then the quadrature part that compares with it.",
    "Published: other networks and another simulation with 20 features, whose details the tables do not give; so the "
    "size of the published error can be compared, not its digits.",
    "Local accuracy cannot rank methods: permutations make contributions add up whatever else is wrong with them, and "
    "so does any rule that forces completeness. Errors against each method's own estimand say more.",
    "The number published for SurvSHAP(t) is that of its own settings, repeated in every row of the model.",
)


def _mean_survival(model: SurvivalModel, references: References, times: Tensor) -> Tensor:
    with torch.no_grad():
        return model.predict_survival(references.inputs, times).survival.double().mean(0)


def _split(found: Attribution, wanted: Tensor) -> dict[str, float]:
    prediction, before = found.prediction, found.reference_prediction
    if prediction is None or before is None:
        return dict.fromkeys(("local accuracy", "quadrature part", "reference part"), np.nan)
    return {
        "local accuracy": local_accuracy(prediction - wanted - found.total, prediction),
        "quadrature part": local_accuracy(prediction - before - found.total, prediction),
        "reference part": local_accuracy(before - wanted, prediction),
    }
