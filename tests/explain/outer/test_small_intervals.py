"""Rates of intervals of small mass, and their derivatives, against closed forms that lose no digits."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.targets import Scope, Target, density, hazard_rate, log_hazard_rate
from survlens.explain.outer.outer_maps import OuterMap
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF

GRID = TimeGrid.equidistant(20.0, 5, "months")
LOW = (-20.0, -30.0, -40.0, -60.0)
TIME, KNOT = 10.5, 2  # in the interval of small mass
TIMES = torch.tensor([3.0, TIME, 12.0], dtype=torch.float64)
TARGETS = (log_hazard_rate, hazard_rate, density)


def scores_of(low: float, seed: int = 0) -> Tensor:
    scores = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores[KNOT] = low
    return scores


def heads(low: float) -> dict[str, tuple[Any, Tensor, Any]]:
    """Heads, raw outputs that put a small mass into one interval, and their survival and rate in long decimals."""
    scores = scores_of(low)
    sequences = scores - torch.nn.functional.pad(scores[1:], (0, 1))
    causes = torch.cat([scores_of(low - 1, 1), scores])
    return {
        "LogisticHazard": (LogisticHazard(2, GRID), scores, hazards),
        "PCHazard": (PCHazard(2, GRID), scores, hazards),
        "PMF": (PMF(2, GRID), scores, masses),
        "MTLR": (MTLR(2, GRID), sequences, lambda raw: masses([sum(raw[k:]) for k in range(5)])),
        "DeepHit": (DeepHit(2, GRID), scores, masses),
        "DeepHit of two causes": (
            DeepHit(2, GRID, n_causes=2),
            causes,
            lambda raw: masses([(raw[k].exp() + raw[k + 5].exp()).ln() for k in range(5)]),
        ),
    }


def hazards(raw: list[Any]) -> tuple[Any, Any]:
    """Survival to the start of the interval and to `TIME`, and the hazard rate there: straight in log S."""
    rises = [(1 + z.exp()).ln() for z in raw]
    before = (-sum(rises[:KNOT], Decimal(0))).exp()
    share = (Decimal(TIME) - 8) / 4
    return before * (-share * rises[KNOT]).exp(), rises[KNOT] / 4


def masses(scores: list[Any]) -> tuple[Any, Any]:
    """The same, straight in S."""
    sizes = [z.exp() for z in scores]
    total = 1 + sum(sizes)
    share = (Decimal(TIME) - 8) / 4
    there = (total - sum(sizes[:KNOT]) - share * sizes[KNOT]) / total
    return there, sizes[KNOT] / total / 4 / there


def wanted(form: Any, raw: Tensor, target: Target) -> tuple[float, list[float]]:
    """The target at `TIME`, and its derivatives by central differences of long decimals."""

    def value(each: list[Any]) -> Any:
        there, rate = form(each)
        return {"log_hazard_rate": rate.ln(), "hazard_rate": rate, "density": rate * there}[target.name]

    with localcontext() as context:
        context.prec = 110
        at, step, slopes = [Decimal(z) for z in raw.tolist()], Decimal(10) ** -30, []
        for place in range(len(at)):
            up, down = ([z + sign * step * (k == place) for k, z in enumerate(at)] for sign in (1, -1))
            slopes.append(float((value(up) - value(down)) / (2 * step)))
        return float(value(at)), slopes


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("name", heads(-20.0))
def test_small_masses_keep_their_digits(name: str, low: float) -> None:
    head, raw, form = heads(low)[name]
    head.requires_grad_(False)
    for target in TARGETS:
        value, slopes = wanted(form, raw, target)
        outer = OuterMap(head, target, TIMES)
        scale = max(abs(slope) for slope in slopes)
        assert float(outer.values(raw[None])[0, 1]) == pytest.approx(value, rel=1e-12, abs=0)
        eye = torch.eye(len(raw), dtype=torch.float64)
        by_levels = outer.accumulate(raw[None, None], eye[None, None])[0, :, 1]
        by_pieces = outer.accumulate_pieces(raw[None, None], raw[None, None], eye[None, None])[0, :, 1]
        by_autograd = torch.autograd.functional.jacobian(lambda u, each=outer: each.values(u[None])[0, 1], raw)
        for found in (by_levels, by_pieces, by_autograd):
            assert found.tolist() == pytest.approx(slopes, rel=1e-11, abs=1e-12 * scale), (target.name, low)
        alone = OuterMap(head, target, TIMES[1:2]).accumulate(raw[None, None], eye[None, None])[0, :, 0]
        assert torch.allclose(alone, by_levels, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", heads(-20.0))
def test_pieces_through_small_masses_add_up(name: str) -> None:
    head, raw, _ = heads(-50.0)[name]
    _, end, _ = heads(-20.0)[name]
    raw, change = raw[None, None], (end - raw)[None, None]
    for target in TARGETS:
        outer = OuterMap(head, target, TIMES)
        found = outer.accumulate_pieces(raw, raw + change, change[..., None])[0, 0]
        moved = outer.values(raw[0] + change[0]) - outer.values(raw[0])
        rounding = 1e-14 * float(outer.values(raw[0]).abs().max() + outer.values(raw[0] + change[0]).abs().max())
        assert torch.allclose(found, moved[0], rtol=1e-9, atol=rounding)


def test_small_jumps_of_a_step_curve_keep_their_digits() -> None:
    head = CoxTime(2, time_scale=10.0, hidden=(3,))
    jumps = torch.log(torch.tensor([0.1, 0.2, 1e-25, 0.3], dtype=torch.float64))
    head.baseline.times, head.baseline.log_jumps = TIMES.new_tensor([3.0, 6.0, 12.0, 20.0]), jumps
    head.baseline.unit_code = torch.tensor(list(b"months"), dtype=torch.uint8)
    raw = scores_of(-9.0)[None, None, :4]
    eye = torch.eye(4, dtype=torch.float64)[None, None]
    found = OuterMap(head, log_hazard_rate, TIMES).accumulate(raw, eye)[0, :, 1]
    assert found.tolist() == pytest.approx([0, 0, 1, 0], abs=1e-15)
    rate = OuterMap(head, hazard_rate, TIMES).values(raw[0])[0, 1]
    assert float(rate) == pytest.approx(float((raw[0, 0, 2] + jumps[2]).exp() / 6), rel=1e-13)


def test_a_derivative_that_is_not_finite_is_refused() -> None:
    def rise(curves: Any, times: Tensor) -> Tensor:
        first = curves.survival().survival[:, :1]
        return (first - first.detach()).sqrt()  # 0, of infinite slope

    root = Target("root", rise, Scope.WHOLE)
    outer = OuterMap(LogisticHazard(2, GRID), root, TIMES)
    with pytest.raises(InvalidValueError, match="root has none"):
        outer.accumulate(torch.zeros(1, 1, 5), torch.ones(1, 1, 5, 1))
