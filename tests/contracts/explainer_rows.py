"""The table of explainers: how to build each, and what it shall give by a slow second route.

A new explainer is one row of `EXPLAINERS`. The second route knows the model only as a function from inputs to the value
of a target, through the whole curve: no raw output, no outer map, no path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, example, fitted
from contracts.head_rows import Row as HeadRow
from survlens.core.competing import CompetingRisksPrediction
from survlens.core.prediction import SurvivalPrediction
from survlens.core.targets import Target, cumulative_hazard, survival
from survlens.explain.cam import GradCAM
from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.groups import Group, GroupedContributions
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.interactions import IntegratedHessians
from survlens.explain.occlusion import Occlusion
from survlens.explain.references import References
from survlens.explain.shapley import ExactSHAP
from survlens.explain.smooth import SmoothGrad
from survlens.explain.superpixels import GridSegments, SuperpixelOcclusion
from survlens.explain.survlime import SurvLIME
from survlens.explain.survshap import KernelSurvSHAP, PermutationSurvSHAP
from survlens.heads.cox_time import CoxTime
from survlens.models.survival_model import SurvivalModel

FEATURES = 4
UNUSED = 2
"""Column of the table that no model reads."""
TIMES = (4.3, 7.7, 12.5, 18.0, 33.4)
"""Between the knots of every head, but for one that lies on a knot."""


class Reader(nn.Module):
    """A table to an embedding, smooth or with kinks; the weights of one column are 0."""

    def __init__(self, activation: type[nn.Module], seed: int = 5):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(FEATURES, 5), activation(), nn.BatchNorm1d(5), nn.Linear(5, WIDTH), activation()
            )
            norm = self.layers[2]
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
        with torch.no_grad():
            self.layers[0].weight[:, UNUSED] = 0
        self.out_features = WIDTH

    def forward(self, table: Tensor) -> Tensor:
        return self.layers(table)


class Looker(nn.Module):
    """A picture to an embedding by smooth convolutions."""

    def __init__(self, seed: int = 5):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, WIDTH, 3, padding=1), nn.Tanh()
            )
        self.out_features = WIDTH

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image).mean((2, 3))


class TwoInputs(nn.Module):
    """A model that gets the columns of its table as two inputs, and is no SurvivalModel."""

    modalities = ("first", "second")

    def __init__(self, model: SurvivalModel):
        super().__init__()
        self.model, self.head = model, model.head

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.model.embed({"table": torch.cat([inputs[name] for name in self.modalities], dim=1)})

    def predict_survival(self, inputs: Mapping[str, Tensor], times: Tensor | None = None) -> SurvivalPrediction:
        return self.head.predict(self.embed(inputs), times)

    def risk(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.head.risk(self.embed(inputs))


def in_two(rows: Tensor, first: int = 1) -> dict[str, Tensor]:
    return {"first": rows[:, :first], "second": rows[:, first:]}


class SmoothPairs(nn.Module):
    """A log-risk of an embedding and a time without kinks."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH + 1, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, embedding: Tensor, when: Tensor) -> Tensor:
        return self.layers(torch.cat([embedding, when[:, None]], dim=1))[:, 0]


SMOOTH_COX_TIME = "CoxTime smooth"
HEADS_TO_EXPLAIN = HEADS | {
    SMOOTH_COX_TIME: HeadRow(
        lambda grid: CoxTime(WIDTH, time_scale=10.0, network=SmoothPairs()), HEADS["CoxTime"].terms
    )
}
"""The heads, and one whose own network is smooth where the default has kinks."""


def model_with(head: str, activation: type[nn.Module] = nn.Tanh) -> SurvivalModel:
    """A network in float64 with the head of that row, fitted where it has a baseline."""
    return SurvivalModel(Reader(activation).double(), fitted(HEADS_TO_EXPLAIN[head], example())).eval()


def linear_model(weights: Tensor) -> SurvivalModel:
    """Cox with the log-risk weights · x on the table itself."""
    head = fitted(HEADS["CoxPH"], example())
    head.in_features, head.linear = len(weights), nn.Linear(len(weights), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.linear.weight.copy_(weights[None])
    return SurvivalModel(nn.Identity(), head).eval()


def table(rows: int = 3, seed: int = 11) -> Tensor:
    return torch.randn((rows, FEATURES), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(rows: int = 3, seed: int = 11) -> Tensor:
    return torch.randn((rows, 1, 6, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def references(rows: int = 2, seed: int = 23, *, image: bool = False) -> References:
    drawn = {"image": pictures(rows, seed)} if image else {"table": table(rows, seed)}
    return References(drawn, "rows of made-up training data")


@dataclass(frozen=True)
class PredictedCurves:
    """What a target asks, answered by the whole model."""

    model: Any
    inputs: Mapping[str, Tensor]

    def survival(self, times: Tensor | None = None) -> SurvivalPrediction:
        return self.model.predict_survival(self.inputs, times)

    def incidence(self, times: Tensor | None = None) -> CompetingRisksPrediction:
        return self.model.predict_incidence(self.inputs, times)


@dataclass(frozen=True)
class Question:
    """What is explained, as a function of a table."""

    model: Any
    target: Target
    x: Tensor
    references: References
    times: Tensor = torch.tensor(TIMES, dtype=torch.float64)

    def values(self, rows: Tensor) -> Tensor:
        """F(t | x) of each row, (row, time)."""
        return self.target(PredictedCurves(self.model, {"table": rows}), self.times)

    def gradients(self, rows: Tensor) -> Tensor:
        """dF(t | x)/dx by autograd through the whole curve, (row, feature, time)."""
        rows = rows.detach().requires_grad_(True)
        values = self.values(rows)
        columns = [torch.autograd.grad(column.sum(), rows, retain_graph=True)[0] for column in values.unbind(1)]
        return torch.stack(columns, dim=2)

    def differences(self, rows: Tensor, step: float = 1e-5) -> Tensor:
        """dF(t | x)/dx by central differences, (row, feature, time)."""
        with torch.no_grad():
            moves = step * torch.eye(rows.shape[1], dtype=rows.dtype)
            slopes = [(self.values(rows + move) - self.values(rows - move)) / (2 * step) for move in moves]
        return torch.stack(slopes, dim=1)

    @property
    def starts(self) -> Tensor:
        return self.references.inputs["table"]


Oracle = Callable[[Question], Tensor]


def slope_of_each(question: Question) -> Tensor:
    return question.gradients(question.x)


def path_integrals(question: Question, nodes: int = 24) -> Tensor:
    """Integrated gradients from each start, averaged: Gauss-Legendre on autograd through the whole curve."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    total, starts = torch.zeros(()), question.starts
    for start in starts:
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            along = start + place * (question.x - start)
            total = total + weight / len(starts) * (question.x - start)[..., None] * question.gradients(along)
    return total


def shapley(question: Question) -> Tensor:
    """Shapley values with absent features from the references: all coalitions, one by one."""
    x, features = question.x, question.x.shape[1]

    def worth(members: tuple[int, ...]) -> Tensor:
        mixed = question.starts[None].expand(len(x), -1, -1).clone()
        for each in members:
            mixed[:, :, each] = x[:, None, each]
        return question.values(mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2]).mean(1).detach()

    found = []
    for feature in range(features):
        others = [each for each in range(features) if each != feature]
        gains = [
            (worth((*chosen, feature)) - worth(chosen)) / (features * comb(features - 1, size))
            for size in range(features)
            for chosen in combinations(others, size)
        ]
        found.append(torch.stack(gains).sum(0))
    return torch.stack(found, dim=1)


def covered(question: Question) -> Tensor:
    """F(x) less its mean with one feature at a time from the references."""
    own, effects = question.values(question.x).detach(), []
    for feature in range(question.x.shape[1]):
        total = torch.zeros_like(own)
        for start in question.starts:
            moved = question.x.clone()
            moved[:, feature] = start[feature]
            total = total + question.values(moved).detach() / len(question.starts)
        effects.append(own - total)
    return torch.stack(effects, dim=1)


@dataclass(frozen=True)
class Row:
    """An explainer under test.

    `exact` gives what it must equal, within `tolerance` of the largest value. `additive` says that contributions add up
    to F(x) - E F(x'), `compares` that it has references, `slopes` that it gives a slope of each feature and no
    contribution, `path` that it integrates along straight lines, and `exact_at_kinks` that it does so exactly where the
    network has kinks, `networks_only` that it needs a gradient, `by_modality` that it answers for each modality by its
    name. `target` is what it explains best, and `any_target` whether it explains all; `over_time` that it gives a value
    at each time, `predicts` that it tells the prediction, `by_feature` that it gives each column of a table one value,
    `image` that it explains pictures. `seeded` builds it with a seed, `restricted` for some modalities. `nothing` is
    the share of the largest value that a feature without effect may get, `single` the tolerance of float32, `of_stated`
    how many times its stated error the true error may be on few lines with kinks. `heads` are those it is tried on.
    """

    build: Callable[[References], Any]
    exact: Oracle | None = None
    additive: bool = False
    compares: bool = False
    slopes: bool = False
    path: bool = False
    exact_at_kinks: bool = True
    networks_only: bool = True
    by_modality: bool = True
    target: Target = survival
    any_target: bool = True
    over_time: bool = True
    predicts: bool = True
    by_feature: bool = True
    image: bool = False
    heads: tuple[str, ...] = ("CoxPH network", "DeepHit network")
    tolerance: float = 1e-9
    nothing: float = 1e-14
    of_stated: float = 1.0
    single: float = 1e-4
    seeded: Callable[[References, int], Any] | None = None
    restricted: Callable[[References, tuple[str, ...]], Any] | None = None


def spread(start: References) -> dict[str, Tensor]:
    return {name: torch.ones(values.shape[1:], dtype=torch.float64) for name, values in start.inputs.items()}


def each_column(start: References) -> tuple[Group, ...]:
    """Every column of every table as a group of its own."""
    return tuple(
        Group(f"{name} {column}", name, torch.arange(values.shape[1]) == column)
        for name, values in start.inputs.items()
        for column in range(values.shape[1])
    )


EXPLAINERS = {
    "Gradient": Row(
        lambda start: Gradient(),
        slope_of_each,
        slopes=True,
        restricted=lambda start, names: Gradient(names),
    ),
    "Gradient x Input": Row(
        lambda start: Gradient(times_input=True),
        lambda asked: asked.x[..., None] * asked.gradients(asked.x),
        restricted=lambda start, names: Gradient(names, times_input=True),
    ),
    "SmoothGrad": Row(
        lambda start: SmoothGrad(Gradient(), spread(start), draws=3),
        slopes=True,
        seeded=lambda start, seed: SmoothGrad(Gradient(), spread(start), draws=3, seed=seed),
    ),
    "SmoothGrad without noise": Row(
        lambda start: SmoothGrad(Gradient(), spread(start), share=0.0, draws=2),
        slope_of_each,
        slopes=True,
    ),
    "IntegratedGradients": Row(
        IntegratedGradients,
        path_integrals,
        additive=True,
        compares=True,
        path=True,
        tolerance=1e-6,
        nothing=1e-12,
        restricted=lambda start, names: IntegratedGradients(start, modalities=names),
    ),
    "GradSHAP": Row(
        GradSHAP,
        path_integrals,
        additive=True,
        compares=True,
        path=True,
        tolerance=1e-6,
        nothing=1e-12,
        restricted=lambda start, names: GradSHAP(start, modalities=names),
    ),
    "GroupedContributions": Row(
        lambda start: GroupedContributions(each_column(start), start, most_nodes=64, tolerance=1e-10),
        path_integrals,
        additive=True,
        compares=True,
        path=True,
        exact_at_kinks=False,
        of_stated=10.0,
        by_modality=False,
        tolerance=1e-8,
    ),
    "ExactSHAP": Row(
        ExactSHAP, shapley, additive=True, compares=True, networks_only=False, tolerance=1e-11, nothing=1e-12
    ),
    "KernelSurvSHAP": Row(
        KernelSurvSHAP, shapley, additive=True, compares=True, networks_only=False, tolerance=1e-9, nothing=1e-9
    ),
    "Occlusion": Row(
        Occlusion,
        covered,
        compares=True,
        networks_only=False,
        tolerance=1e-11,
        nothing=1e-12,
        restricted=lambda start, names: Occlusion(start, modalities=names),
    ),
    "PermutationSurvSHAP": Row(
        lambda start: PermutationSurvSHAP(start, pairs=2),
        additive=True,
        compares=True,
        networks_only=False,
        nothing=1e-12,
        seeded=lambda start, seed: PermutationSurvSHAP(start, pairs=2, seed=seed),
    ),
    "SuperpixelOcclusion": Row(
        lambda start: SuperpixelOcclusion(start, GridSegments(2)),
        compares=True,
        networks_only=False,
        by_feature=False,
        image=True,
    ),
    "GradCAM": Row(lambda start: GradCAM(), by_feature=False, image=True),
    "IntegratedHessians": Row(
        lambda start: IntegratedHessians(start, nodes=4),
        additive=True,
        compares=True,
        by_feature=False,
        heads=("CoxPH network",),
    ),
    "SurvLIME": Row(
        lambda start: SurvLIME(start, neighbours=60),
        compares=True,
        slopes=True,
        networks_only=False,
        target=cumulative_hazard,
        any_target=False,
        over_time=False,
        predicts=False,
        nothing=1.0,
        seeded=lambda start, seed: SurvLIME(start, neighbours=60, seed=seed),
    ),
}

every_explainer = pytest.mark.parametrize("row", EXPLAINERS.values(), ids=EXPLAINERS.keys())


def rows_where(rule: Callable[[Row], bool]) -> pytest.MarkDecorator:
    chosen = {name: row for name, row in EXPLAINERS.items() if rule(row)}
    return pytest.mark.parametrize("row", chosen.values(), ids=chosen.keys())


def pairs_where(rule: Callable[[Row], bool]) -> pytest.MarkDecorator:
    """Rows with each of their heads."""
    chosen = {f"{name}-{head}": (row, head) for name, row in EXPLAINERS.items() if rule(row) for head in row.heads}
    return pytest.mark.parametrize(("row", "head"), chosen.values(), ids=chosen.keys())


def some_model(row: Row, head: str) -> SurvivalModel:
    """A smooth model of what the explainer of that row explains."""
    if row.image:
        return SurvivalModel({"image": Looker().double()}, fitted(HEADS[head], example())).eval()
    return model_with(head)


def some_input(row: Row, rows: int = 3) -> Tensor:
    return pictures(rows) if row.image else table(rows)
