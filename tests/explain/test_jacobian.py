"""Derivatives of the raw output: every strategy gives the same, forward and reverse agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, Row, example, fitted
from survlens.core.errors import InvalidValueError
from survlens.core.protocols import Inputs
from survlens.encoders.pooling import MeanPooling, MultipleInstance
from survlens.explain.held import HeldModel, held_still
from survlens.explain.jacobian import Strategy, pushforward, raw_pullback, raw_slopes
from survlens.heads.cox_time import CoxTime
from survlens.models.survival_model import SurvivalModel

CASE = example()
FEATURES = 5

every_row = pytest.mark.parametrize("row", HEADS.values(), ids=HEADS.keys())


def model_of(row: Row) -> SurvivalModel:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        encoder = nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, WIDTH)).double()
    return SurvivalModel({"table": encoder}, fitted(row, CASE))


def table(rows: int = 6, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"table": torch.randn((rows, FEATURES), generator=generator, dtype=torch.float64)}


def by_loop(held: HeldModel, inputs: Inputs, name: str = "table") -> Tensor:
    """du/dx one raw output after another, by plain autograd."""
    leaf = inputs[name].clone().requires_grad_(True)
    raw = held.raw({**inputs, name: leaf})
    columns = [torch.autograd.grad(raw[:, each].sum(), leaf, retain_graph=True)[0] for each in range(raw.shape[1])]
    return torch.stack(columns, dim=1)


@every_row
def test_every_strategy_gives_the_same(row: Row) -> None:
    model = model_of(row)
    with held_still(model) as held:
        expected = by_loop(held, table())
        fitting = [None, Strategy.REVERSE, Strategy.FORWARD]
        fitting += [Strategy.TRUNK] if isinstance(held.head, CoxTime) else [Strategy.BATCHED, Strategy.HIDDEN]
        for strategy in fitting:
            raw, slopes = raw_slopes(held, table(), ("table",), strategy=strategy)
            assert torch.allclose(slopes["table"], expected, rtol=1e-10, atol=1e-13)
            assert torch.allclose(raw, held.raw(table()), rtol=1e-12)


@every_row
def test_pullback_and_pushforward_are_products_with_the_slopes(row: Row) -> None:
    with held_still(model_of(row)) as held:
        slopes = by_loop(held, table())
        cotangent = torch.randn((6, slopes.shape[1]), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        _, pulled = raw_pullback(held, table(), cotangent, ("table",))
        _, again = raw_pullback(held, table(), lambda raw: cotangent, ("table",))
        direction = table(seed=3)["table"]
        _, pushed = pushforward(held.raw, table(), {"table": direction})
    assert torch.allclose(pulled["table"], torch.einsum("nm,nmp->np", cotangent, slopes), rtol=1e-10, atol=1e-13)
    assert torch.equal(again["table"], pulled["table"])
    assert torch.allclose(pushed, torch.einsum("nmp,np->nm", slopes, direction), rtol=1e-10, atol=1e-13)


@every_row
def test_slopes_equal_central_differences(row: Row) -> None:
    inputs, step = table(2), 1e-6
    with held_still(model_of(row)) as held:
        _, slopes = raw_slopes(held, inputs, ("table",))
        for feature in range(FEATURES):
            shift = torch.zeros(FEATURES, dtype=torch.float64)
            shift[feature] = step
            up, down = (held.raw({"table": inputs["table"] + sign * shift}) for sign in (1, -1))
            assert torch.allclose(slopes["table"][..., feature], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


class OnlyReverse(torch.autograd.Function):
    """Squares, without a forward derivative."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)  # type: ignore[attr-defined]
        return values**2

    @staticmethod
    def backward(ctx: object, cotangent: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2 * values * cotangent


class Squares(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return OnlyReverse.apply(values)


def test_layers_without_a_forward_derivative_go_by_reverse() -> None:
    head = fitted(HEADS["PMF network"], CASE)
    model = SurvivalModel(nn.Sequential(nn.Linear(2, WIDTH), Squares()).double(), head)
    inputs = {"table": table()["table"][:, :2]}
    with held_still(model) as held:
        expected = by_loop(held, inputs)
        _, slopes = raw_slopes(held, inputs, ("table",))
        _, moved = pushforward(held.raw, inputs, {"table": torch.ones_like(inputs["table"])})
    assert torch.allclose(slopes["table"], expected, rtol=1e-10)
    assert torch.allclose(moved, expected.sum(2), rtol=1e-10)


@pytest.mark.parametrize("name", ["CoxPH network", "LogisticHazard network", "CoxTime"])
def test_items_of_a_row_have_slopes_of_their_own(name: str) -> None:
    picture = nn.Sequential(nn.Flatten(), nn.Linear(4, WIDTH), nn.Tanh())
    picture.out_features = WIDTH
    encoder = MultipleInstance(picture, MeanPooling()).double()
    model = SurvivalModel({"image": encoder}, fitted(HEADS[name], CASE))
    images = torch.randn((5, 1, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = {"image": images, "image.count": torch.tensor([2, 3])}
    with held_still(model) as held:
        leaf = images.clone().requires_grad_(True)
        raw = held.raw({**inputs, "image": leaf})
        expected = [torch.autograd.grad(raw[:, each].sum(), leaf, retain_graph=True)[0] for each in range(raw.shape[1])]
        _, slopes = raw_slopes(held, inputs, ("image",))
    assert torch.allclose(slopes["image"], torch.stack(expected, dim=1), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("strategy", [Strategy.TRUNK, Strategy.HIDDEN, Strategy.FORWARD])
def test_a_strategy_that_does_not_fit_is_refused(strategy: Strategy) -> None:
    head = fitted(HEADS["CoxTime" if strategy is Strategy.HIDDEN else "CoxPH"], CASE)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, WIDTH)).double()
    inputs = {"image": torch.zeros((2, 1, 2, 2), dtype=torch.float64)}
    with (
        held_still(SurvivalModel({"image": encoder}, head)) as held,
        pytest.raises(InvalidValueError, match="strategy"),
    ):
        raw_slopes(held, inputs, ("image",), strategy=strategy)
