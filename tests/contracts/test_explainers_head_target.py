"""Every explainer, every head and every target against derivatives of the whole predicted curve."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from contracts.explainer_rows import (
    EXPLAINERS,
    HEADS_TO_EXPLAIN,
    SMOOTH_COX_TIME,
    TIMES,
    Oracle,
    Question,
    Row,
    model_with,
    references,
    rows_where,
    table,
)
from survlens.core import targets
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.prediction import Interpolation
from survlens.core.protocols import CompetingRisksHead
from survlens.core.targets import Target

TARGETS = {
    "survival": targets.survival,
    "cumulative hazard": targets.cumulative_hazard,
    "hazard rate": targets.hazard_rate,
    "log hazard rate": targets.log_hazard_rate,
    "density": targets.density,
    "restricted mean": targets.restricted_mean(23.7),
    "risk": targets.risk_at(17.9),
    "median": targets.survival_quantile(0.2),
    "incidence": targets.incidence_of(1),
    "time lost": targets.time_lost_to(1, 23.7),
}
OF_A_CAUSE = ("incidence", "time lost")
OF_A_RATE_OR_SLOPE = ("median",)

every_head = pytest.mark.parametrize("head", HEADS_TO_EXPLAIN)
every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


def defined(question: Question) -> bool:
    """Whether the head has the target; where not, explainers refuse it as the head does."""
    name = next(name for name, target in TARGETS.items() if target is question.target)
    head = question.model.head
    if name in OF_A_CAUSE:
        return isinstance(head, CompetingRisksHead)
    return name not in OF_A_RATE_OR_SLOPE or (
        question.model.predict_survival({"table": question.x}).interpolation is not Interpolation.STEP
    )


def asked_of(head: str, target: Target, activation: type[nn.Module] = nn.Tanh) -> Question:
    return Question(model_with(head, activation), target, table(2), references(2))


@cache
def by_definition(exact: Oracle, head: str, target: Target) -> torch.Tensor:
    """What explainers of one definition must give."""
    return exact(asked_of(head, target)).detach()


def compare(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(scale, 1e-12))


@every_target
@every_head
def test_gradients_are_those_of_the_whole_curve_and_central_differences(head: str, target: Target) -> None:
    asked, row = asked_of(head, target), EXPLAINERS["Gradient"]
    explainer = row.build(asked.references)
    if not defined(asked):
        with pytest.raises((InvalidTypeError, InvalidValueError)):
            explainer(asked.model, {"table": asked.x}, asked.times, target)
        return
    found = explainer(asked.model, {"table": asked.x}, asked.times, target)["table"]
    by_autograd = asked.gradients(asked.x)
    assert bool(by_autograd.any()) or target.scope is targets.Scope.WHOLE
    compare(found.values, by_autograd, 1e-10)
    compare(found.values, asked.differences(asked.x), 1e-6)
    assert found.times.shape == (found.values.shape[-1],)


@every_target
@pytest.mark.parametrize("head", ["CoxPH network", "DeepHit network", "PCHazard", SMOOTH_COX_TIME])
@rows_where(lambda row: row.exact is not None)
def test_every_explainer_is_its_own_definition(row: Row, head: str, target: Target) -> None:
    asked = asked_of(head, target)
    explainer = row.build(asked.references)
    if not defined(asked):
        with pytest.raises((InvalidTypeError, InvalidValueError)):
            explainer(asked.model, {"table": asked.x}, asked.times, target)
        return
    assert row.exact is not None
    (found,) = explainer(asked.model, {"table": asked.x}, asked.times, target).values()
    compare(found.values, by_definition(row.exact, head, target), row.tolerance)


def test_times_lie_between_the_knots_of_the_heads() -> None:
    knots = model_with("DeepHit").head.grid.edges
    between = [bool((knots - time).abs().min() > 0.1) for time in TIMES]
    assert sum(between) == len(TIMES)
