"""Path integrals by refined segments: against a very fine rule, and against Gauss-Legendre at equal gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.core.targets import cumulative_hazard, restricted_mean, survival
from survlens.encoders.pooling import AttentionPooling, MultipleInstance
from survlens.explain.held import held_still
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.path_integral import PathIntegral
from survlens.explain.path_rules.secants import Seen, Straightened
from survlens.explain.path_rules.segments import RefinedSegments
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel

GRID = TimeGrid.equidistant(10.0, 5, "months")
TIMES = torch.tensor([2.0, 4.0, 8.5], dtype=torch.float64)
SIDE = (12, 15)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def strided() -> nn.Module:
    """2,500 units with a kink."""
    return nn.Sequential(
        *(nn.Conv2d(1, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(inplace=True)),
        *(nn.Conv2d(10, 12, 3, stride=2, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(12, 12, 3, stride=2, padding=1)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU()),
    )


def pooled() -> nn.Module:
    """1,800 units with a kink, and 900 windows."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 8), nn.ReLU()),
    )


def model_of(encoder: nn.Module, head: nn.Module, seed: int = 0) -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SurvivalModel({"image": encoder}, head).double().eval()
        for name, parameter in model.named_parameters():
            size = parameter[0].numel() if parameter.ndim > 1 else 12
            nn.init.normal_(parameter, 0, (1.0 if name.startswith("head") else 1.4) / size**0.5)
    if isinstance(head, CoxPH):
        time = torch.linspace(0.5, 10, 30, dtype=torch.float64)
        outcome = SurvivalOutcome(time, torch.ones(30, dtype=torch.int64), "months")
        head.fit_baseline(draw(30, 8, seed=8), outcome)
    return model


def integrated(model: SurvivalModel, outer: OuterMap, start: Inputs, end: Inputs, **settings: float) -> PathIntegral:
    with held_still(model) as held:
        (found,) = RefinedSegments(**settings).integrate(  # type: ignore[arg-type]
            held, [outer], held.ready(start), held.ready(end), ("image",)
        )
        return found


def by_points(model: SurvivalModel, start: Tensor, end: Tensor, rule: Callable, count: int) -> Tensor:
    """The integral of S by gradients at points, for a head with one raw output; S differentiated by autograd."""
    nodes, weights = (torch.as_tensor(each) for each in rule(count))
    total = end.new_zeros((*end.shape, len(TIMES)))
    for row in range(len(end)):
        for part in torch.arange(count).split(1000):
            places = nodes[part].reshape(-1, 1, 1, 1)
            points = (start[row] + places * (end[row] - start[row])).requires_grad_(True)
            raw = model.head.raw(model.embed({"image": points}))
            (slope,) = torch.autograd.grad(raw.sum(), points)
            leaf = raw.detach().requires_grad_(True)
            curves = model.head.predict_from_raw(leaf, TIMES).survival
            columns = [torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in curves.T]
            shares = torch.cat(columns, dim=1) * weights[part][:, None]
            total[row] += torch.einsum("n...,nt->...t", slope, shares) * (end[row] - start[row])[..., None]
    return total


def midpoints(count: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)


def gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def largest(values: Tensor) -> Tensor:
    return values.abs().flatten(1, -2).amax(1)


@pytest.fixture(scope="module", params=[strided, pooled], ids=["strided", "max pooling"])
def case(request: pytest.FixtureRequest) -> tuple:
    model = model_of(request.param(), CoxPH(8), seed=2)
    start, end = 0.1 * draw(2, 1, *SIDE, seed=1), draw(2, 1, *SIDE, seed=2)
    return model, start, end, by_points(model, start, end, midpoints, 8_000)


@pytest.mark.parametrize("budget", [24, 64])
def test_at_most_half_the_error_of_gauss_legendre_at_equal_gradients(case: tuple, budget: int) -> None:
    model, start, end, truth = case
    outer = OuterMap(model.head, survival, TIMES)
    found = integrated(model, outer, {"image": start}, {"image": end}, tolerance=0, budget=budget)
    of_points = by_points(model, start, end, gauss_legendre, budget)
    error, other = (found.values["image"] - truth).norm(), (of_points - truth).norm()
    assert error < 0.5 * other


def test_the_estimated_error_is_within_a_factor_of_three(case: tuple) -> None:
    model, start, end, truth = case
    outer = OuterMap(model.head, survival, TIMES)
    found = integrated(model, outer, {"image": start}, {"image": end}, tolerance=0, budget=64)
    ratio = found.error / largest(found.values["image"] - truth)
    assert bool(((ratio > 1 / 3) & (ratio < 3)).all()), ratio


def test_the_tolerance_is_reached_or_it_is_said(case: tuple) -> None:
    model, start, end, truth = case
    outer = OuterMap(model.head, survival, TIMES)
    easy = integrated(model, outer, {"image": start}, {"image": end}, tolerance=0.05, budget=200)
    assert easy.notes == ()
    assert bool((largest(easy.values["image"] - truth) < 3 * 0.05 * largest(truth)).all())
    assert bool((easy.error <= 0.05 * largest(easy.values["image"])).all())
    hard = integrated(model, outer, {"image": start}, {"image": end}, tolerance=1e-6, budget=24)
    assert "was not reached on 2 of 2 paths" in hard.notes[0]


def test_paths_stop_one_by_one_and_a_batch_equals_its_members(case: tuple) -> None:
    model, start, end, _ = case
    outer = OuterMap(model.head, restricted_mean(8.0), TIMES)
    near = torch.cat([start[:1], end[1:]])
    start = torch.cat([start[:1] + 1e-3 * draw(1, 1, *SIDE), start[1:]])  # the first path is short, and easy
    settings = {"tolerance": 0.02, "budget": 64}
    both = integrated(model, outer, {"image": start}, {"image": near}, **settings)
    for row in range(2):
        one = integrated(model, outer, {"image": start[row][None]}, {"image": near[row][None]}, **settings)
        assert torch.allclose(one.values["image"][0], both.values["image"][row], atol=1e-11)
    small = integrated(model, outer, {"image": start}, {"image": near}, **settings, memory=1)
    assert torch.allclose(small.values["image"], both.values["image"], atol=1e-11)


def test_paths_of_every_difficulty_are_cut_as_fine_as_each_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one or together, never over the budget, and the finer the tolerance the more is spent."""
    model = model_of(strided(), CoxPH(8), seed=2)
    start, end = 0.1 * draw(6, 1, *SIDE, seed=1), draw(6, 1, *SIDE, seed=2)
    end = start + torch.logspace(-2, 0, 6).double().reshape(-1, 1, 1, 1) * (end - start)
    outer, spent = OuterMap(model.head, survival, TIMES), [0]
    cut = RefinedSegments._cut

    def counted(self: RefinedSegments, *args: Any) -> Any:
        where = args[-1]
        spent[-1] += where.shape[0] * (where.shape[1] - 1)
        return cut(self, *args)

    monkeypatch.setattr(RefinedSegments, "_cut", counted)
    for tolerance in (0.1, 3e-3, 1e-4):
        together = integrated(model, outer, {"image": start}, {"image": end}, tolerance=tolerance, budget=128)
        spent.append(0)
        for row in range(6):
            one = integrated(
                model, outer, {"image": start[row][None]}, {"image": end[row][None]}, tolerance=tolerance, budget=128
            )
            assert torch.allclose(one.values["image"][0], together.values["image"][row], atol=1e-11)
            assert spent[-1] <= 128
            spent[-1] = 0
        spent[-1:] = [0]
    assert spent[0] < spent[1] < spent[2] <= 6 * 128


@pytest.mark.parametrize("kind", ["many outputs", "more outputs than the embedding has"])
def test_contributions_sum_to_the_difference(kind: str) -> None:
    grid = TimeGrid.equidistant(10.0, 5 if kind == "many outputs" else 12, "months")
    model = model_of(strided(), LogisticHazard(8, grid))
    start, end = draw(2, 1, *SIDE, seed=1), draw(2, 1, *SIDE, seed=2)
    outer = OuterMap(model.head, cumulative_hazard, TIMES)
    found = integrated(model, outer, {"image": start}, {"image": end}, budget=12)
    with torch.no_grad():
        ends = [outer.values(model.head.raw(model.embed({"image": each}))) for each in (start, end)]
    assert torch.allclose(found.values["image"].flatten(1, -2).sum(1), ends[1] - ends[0], atol=1e-9)


def test_items_of_bags_and_rows_that_lack_a_picture() -> None:
    encoder = strided()
    encoder.out_features = 8  # type: ignore[assignment]
    model = model_of(MultipleInstance(encoder, AttentionPooling(8)), LogisticHazard(8, GRID))
    outer = OuterMap(model.head, survival, TIMES)
    start = {"image": draw(5, 1, *SIDE, seed=1), "image.count": torch.tensor([2, 3])}
    end = {"image": draw(5, 1, *SIDE, seed=2), "image.count": torch.tensor([2, 3])}
    both = integrated(model, outer, start, end, tolerance=0, budget=40)
    assert both.values["image"].shape == (5, 1, *SIDE, len(TIMES))
    one = integrated(
        model,
        outer,
        {"image": start["image"][2:], "image.count": torch.tensor([3])},
        {"image": end["image"][2:], "image.count": torch.tensor([3])},
        tolerance=0,
        budget=40,
    )
    assert torch.allclose(one.values["image"], both.values["image"][2:], atol=1e-11)
    with torch.no_grad():
        ends = [outer.values(model.head.raw(model.embed(each))) for each in (start, end)]
    per_row = both.values["image"].flatten(1, -2).sum(1)
    sums = torch.stack([per_row[:2].sum(0), per_row[2:].sum(0)])
    assert torch.allclose(sums, ends[1] - ends[0], atol=1e-3)  # attention is curved, so nothing forces the sum


def test_float32_agrees() -> None:
    model = model_of(strided(), CoxPH(8))
    start, end = 0.1 * draw(2, 1, *SIDE, seed=1), draw(2, 1, *SIDE, seed=2)
    outer = OuterMap(model.head, survival, TIMES)
    exact = integrated(model, outer, {"image": start}, {"image": end}, tolerance=0, budget=24)
    model.encoders.float()
    model.head.float()
    single = integrated(
        model, OuterMap(model.head, survival, TIMES), {"image": start}, {"image": end}, tolerance=0, budget=24
    )
    assert single.values["image"].dtype == torch.float64
    gap = (single.values["image"] - exact.values["image"]).norm() / exact.values["image"].norm()
    assert float(gap) < 2e-3  # kinks that rounding moves change the slopes and where segments end


@pytest.mark.parametrize(
    "unit",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2),
        nn.PReLU(),
        nn.ReLU6(),
        nn.Hardtanh(),
        nn.Threshold(0.1, 0.1),
    ],
    ids=lambda unit: str(unit),
)
def test_the_slope_of_a_unit_is_the_mean_along_the_line(unit: nn.Module) -> None:
    unit = unit.double()
    a, b = 3 * draw(200), 3 * draw(200, seed=1)
    places = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    line = (a[:, None] + places * (b - a)[:, None]).requires_grad_(True)
    (slopes,) = torch.autograd.grad(unit(line * 1.0).sum(), line)
    start, end = Seen(), Seen()
    with start:
        unit(a * 1.0)
    with end:
        unit(b * 1.0)
    middle = ((a + b) / 2).requires_grad_(True)
    with Straightened(start, end):
        answer = unit(middle * 1.0)
    (found,) = torch.autograd.grad(answer.sum(), middle)
    assert torch.allclose(found, slopes.mean(1), atol=1e-3)
    assert torch.allclose(answer, (unit(a * 1.0) + unit(b * 1.0)) / 2)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InvalidValueError, match="`tolerance` must be >= 0 and `budget` >= 12"):
        RefinedSegments(budget=5)
    for budget in range(12, 300):
        first, *rest = RefinedSegments(budget=budget).cuts()
        assert first >= 1
        assert first + sum(each + each // 3 for each in rest) == budget
