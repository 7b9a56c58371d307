"""Small networks with kinks of every kind, drawn by seed, and models of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, WIDTH, example, fitted
from survlens.models.survival_model import SurvivalModel

FEATURES = 4


class Absolute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class Larger(nn.Module):
    """The larger of neighbouring columns, and the smaller."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.maximum(x[:, ::2], x[:, 1::2]), torch.minimum(x[:, ::2], x[:, 1::2])], dim=1)


class Pooled(nn.Module):
    """The largest of overlapping windows of columns."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool1d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x[:, None]).flatten(1)


class LargestOfAll(nn.Module):
    """Every column minus the largest."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.amax(dim=1, keepdim=True)


class Clipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-0.4, 0.6)


class Skip(nn.Module):
    """x beside what a layer makes of it, and their sum."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


KINKS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "PReLU": nn.PReLU,
    "ReLU6": nn.ReLU6,
    "Hardtanh": nn.Hardtanh,
    "Hardsigmoid": nn.Hardsigmoid,
    "Softshrink": lambda: nn.Softshrink(0.3),
    "Threshold": lambda: nn.Threshold(0.2, 0.2),
    "absolute": Absolute,
    "maximum": Larger,
    "max pool": Pooled,
    "amax": LargestOfAll,
    "clamp": Clipped,
}


def network(kinks: list[str], seed: int, *, skip: bool = False, width: int = 6) -> nn.Module:
    """Linear layers, each followed by a kink function of that name and by batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Linear(FEATURES, width)]
        for number, name in enumerate(kinks):
            norm = nn.BatchNorm1d(width)
            norm.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            block = nn.Sequential(KINKS[name](), norm, nn.Dropout(0.5), nn.Linear(width, width))
            layers.append(Skip(block) if skip and number else block)
        layers.append(nn.Linear(width, WIDTH))
        return nn.Sequential(*layers).double().eval()


def model(encoder: nn.Module, head: str = "CoxPH") -> SurvivalModel:
    return SurvivalModel(encoder.double(), fitted(HEADS[head], example())).eval()


def table(rows: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"table": 1.5 * torch.randn((rows, FEATURES), generator=generator, dtype=torch.float64)}


def scanned(function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, points: int = 20_001) -> Any:
    """Positions at which the slope of a function changes along a line, by dense scanning."""
    where = torch.linspace(0, 1, points, dtype=torch.float64)
    with torch.no_grad():
        values = function(start + where[:, None] * (end - start))
    bends = values.diff(n=2, dim=0).abs().amax(1)
    return where[1:-1][bends > 1e-9 * values.abs().max()]
