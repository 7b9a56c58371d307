"""Small models whose explanations are known, for the tests of scores of attributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.inputs import count_key, item_count, row_of_item
from survlens.explain.references import References

TIMES = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attribution(values: Tensor, times: Tensor = TIMES, **settings: Any) -> Attribution:
    known = {1: ("feature",), 3: ("channel", "height", "width")}
    dims = settings.pop("dims", known.get(values.ndim - 2))
    return Attribution(values, times[: values.shape[-1]], "months", "survival", "toy", dims, **settings)


class Additive:
    """F(t | x) = sum over features of slope_j(t) x_j, which every additive method explains alike."""

    def __init__(self, features: int = 6, seed: int = 3):
        self.slopes = drawn(features, len(TIMES), seed=seed)
        self.reference = drawn(1, features, seed=seed + 1)

    @property
    def filling(self) -> References:
        return References({"table": self.reference}, "the reference")

    def predict(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return inputs["table"] @ self.slopes

    def explained(self, table: Tensor) -> dict[str, Attribution]:
        values = (table - self.reference)[..., None] * self.slopes
        prediction, start = table @ self.slopes, (self.reference @ self.slopes).expand(len(table), -1)
        return {
            "table": attribution(values, additive=True, prediction=prediction, reference_prediction=start),
        }

    def gradients(self, table: Tensor) -> dict[str, Attribution]:
        return {"table": attribution(self.slopes.expand(len(table), *self.slopes.shape).clone())}


def multiplied(explained: Mapping[str, Attribution], change: Callable[[Tensor], Tensor]) -> dict[str, Attribution]:
    return {
        name: attribution(change(part.values), part.times, dims=part.dims, additive=part.additive, rows=part.rows)
        for name, part in explained.items()
    }


def bag_inputs(counts: list[int], side: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Bags of tiles beside a table of two columns."""
    return {
        "image": drawn(sum(counts), 1, side, side, seed=seed),
        count_key("image"): torch.tensor(counts),
        "table": drawn(len(counts), 2, seed=seed + 1),
    }


def bag_prediction(inputs: Mapping[str, Tensor]) -> Tensor:
    """The sum of the first row of pixels of all tiles, and twice the first column of the table, at two times."""
    count = item_count(inputs, "image")
    tops = inputs["image"][:, :, 0].sum((1, 2))
    total = tops.new_zeros(len(count)).index_add(0, row_of_item(count), tops) + 2 * inputs["table"][:, 0]
    return torch.stack([total, 3 * total], 1)


class Network(nn.Module):
    """Eight features, of which a trained network would use some: a toy for random weights."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, len(TIMES)))

    def forward(self, table: Tensor) -> Tensor:
        return self.layers(table)
