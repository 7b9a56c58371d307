"""Models of every kind that the model-agnostic explainers are tested on, and rows for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.heads.cox import CoxPH
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.classical import CoxRegression
from survlens.models.forest import RandomSurvivalForest
from survlens.models.survival_model import SurvivalModel

WIDTH = 4
TIMES = torch.tensor([1.5, 4.0, 7.25], dtype=torch.float64)


def rows(count: int, width: int = WIDTH, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"table": torch.randn((count, width), generator=generator, dtype=torch.float64)}


def outcome_of(inputs: Mapping[str, Tensor], seed: int = 1) -> SurvivalOutcome:
    """Exponential lives with a log hazard that falls with the first column and rises with the second."""
    generator = torch.Generator().manual_seed(seed)
    table = inputs["table"]
    draws = torch.rand(len(table), generator=generator, dtype=torch.float64).clamp(min=1e-6)
    life = -4 * draws.log() * (table[:, 0] - 0.5 * table[:, 1]).exp()
    return SurvivalOutcome(life.clamp(0.01, 9.5), (life < 9.5).long(), "months")


@dataclass(frozen=True)
class Formula:
    """A model that is no network: S(t) = exp(-t exp(f(x)) / 8), with any f."""

    log_risk: Callable[[Tensor], Tensor]

    def predict_survival(self, inputs: Mapping[str, Tensor], times: Tensor | None = None) -> SurvivalPrediction:
        knots = torch.arange(1.0, 11.0, dtype=torch.float64) if times is None else times
        hazard = self.log_risk(inputs["table"]).exp()[:, None] * knots / 8
        return SurvivalPrediction(knots, -hazard, Interpolation.EXPONENTIAL, "months")

    def risk(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.log_risk(inputs["table"])


def network(head: nn.Module, width: int = WIDTH, seed: int = 0) -> SurvivalModel:
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(width, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    model = SurvivalModel(trunk, head).double()
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(2.0)
    if isinstance(head, CoxPH):
        inputs = rows(60, width)
        head.fit_baseline(model.eval().embed(inputs), outcome_of(inputs))
    return model.train()


def cox_network() -> SurvivalModel:
    torch.manual_seed(3)
    return network(CoxPH(3))


def two_causes() -> SurvivalModel:
    torch.manual_seed(4)
    return network(DeepHit(3, GRID, n_causes=2))


GRID = TimeGrid.equidistant(10.0, 5, "months")


def logistic() -> SurvivalModel:
    torch.manual_seed(5)
    return network(LogisticHazard(3, GRID))


def cox_regression() -> CoxRegression:
    inputs = rows(120, seed=8)
    return CoxRegression(unit="months").fit(inputs, outcome_of(inputs))


def forest() -> RandomSurvivalForest:
    inputs = rows(80, seed=9)
    return RandomSurvivalForest(trees=8, min_leaf=5, unit="months").fit(inputs, outcome_of(inputs))


MODELS: dict[str, Callable[[], Any]] = {
    "Cox network": cox_network,
    "LogisticHazard network": logistic,
    "DeepHit network": two_causes,
    "Cox regression": cox_regression,
    "forest": forest,
    "formula": lambda: Formula(lambda x: x[:, 0] * x[:, 1].tanh() - x[:, 2].relu()),
}
