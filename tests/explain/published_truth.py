"""Formulas of the two published simulations, derived by hand in numpy: what explanations of the truth must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from survlens.core.outcome import SurvivalOutcome
from survlens.data.simulate import PowerHazard, time_dependent_hazard, time_independent_hazard
from survlens.models.survival_model import SurvivalModel

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]


def hazard_independent(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """H(t | x) = 0.1 t^2.5 exp(1.7 x1 - 2.4 x2)."""
    return 0.1 * times**2.5 * np.exp(1.7 * x[:, :1] - 2.4 * x[:, 1:2])


def hazard_dependent(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """H(t | x) = 0.15 t^a / a exp(-3 x1 + 1.7 x2 - 2.4 x3) with a = 6 x1 + 1.5."""
    power = 6 * x[:, :1] + 1.5
    return 0.15 * times**power / power * np.exp(-3 * x[:, :1] + 1.7 * x[:, 1:2] - 2.4 * x[:, 2:3])


def slopes_independent(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """d log H/dx, (instance, feature, time)."""
    weights = np.array([1.7, -2.4, 0.0])
    return np.broadcast_to(weights[None, :, None], (len(x), 3, len(times)))


def slopes_dependent(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """d log H/dx: of x1, 6 log t - 6/a - 3."""
    first = 6 * np.log(times) - 6 / (6 * x[:, :1] + 1.5) - 3
    others = [np.full_like(first, weight) for weight in (1.7, -2.4, 0.0)]
    return np.stack([first, *others], axis=1)


@dataclass(frozen=True)
class Truth:
    """One simulation: its name, the head, and by hand H and d log H/dx, and d log h/dx."""

    name: str
    head: Callable[[], PowerHazard]
    cumulative_hazard: Values
    slopes: Values
    log_rate_slopes: Callable[[np.ndarray], np.ndarray]

    @property
    def model(self) -> SurvivalModel:
        return SurvivalModel(nn.Identity(), self.head())

    def survival(self, x: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.exp(-self.cumulative_hazard(x, times))

    def hazard_gradients(self, x: np.ndarray, times: np.ndarray) -> np.ndarray:
        return self.cumulative_hazard(x, times)[:, None] * self.slopes(x, times)

    def survival_gradients(self, x: np.ndarray, times: np.ndarray) -> np.ndarray:
        return -self.survival(x, times)[:, None] * self.hazard_gradients(x, times)

    def integrated(self, x: np.ndarray, start: np.ndarray, times: np.ndarray, nodes: int = 120) -> np.ndarray:
        """Integrated gradients of S along x' + α (x - x'): Gauss-Legendre on the formula of the gradient."""
        places, weights = np.polynomial.legendre.leggauss(nodes)
        total = np.zeros((*x.shape, len(times)))
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            total += weight * self.survival_gradients(start + place * (x - start), times)
        return (x - start)[..., None] * total

    def shapley(self, x: np.ndarray, references: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Shapley values of S, all coalitions one by one, the absent features taken from every reference."""
        features = x.shape[1]

        def worth(members: tuple[int, ...]) -> np.ndarray:
            absent = [each for each in range(features) if each not in members]
            found = []
            for reference in references:
                mixed = x.copy()
                mixed[:, absent] = reference[absent]
                found.append(self.survival(mixed, times))
            return np.mean(found, axis=0)

        values = np.zeros((*x.shape, len(times)))
        for feature in range(features):
            others = [each for each in range(features) if each != feature]
            for size in range(features):
                for chosen in combinations(others, size):
                    share = 1 / (features * comb(features - 1, size))
                    values[:, feature] += share * (worth((*chosen, feature)) - worth(chosen))
        return values


INDEPENDENT = Truth(
    "time_independent",
    time_independent_hazard,
    hazard_independent,
    slopes_independent,
    lambda times: np.stack([np.full_like(times, 1.7), np.full_like(times, -2.4), np.zeros_like(times)]),
)
DEPENDENT = Truth(
    "time_dependent",
    time_dependent_hazard,
    hazard_dependent,
    slopes_dependent,
    lambda times: np.stack(
        [6 * np.log(times) - 3, np.full_like(times, 1.7), np.full_like(times, -2.4), np.zeros_like(times)]
    ),
)


@dataclass(frozen=True)
class Part:
    """Rows of a simulated table."""

    covariates: Tensor
    outcome: SurvivalOutcome

    @staticmethod
    def read(path: Path) -> Part:
        frame = pd.read_csv(path)
        names = [name for name in frame if str(name).startswith("x")]
        outcome = SurvivalOutcome.from_arrays(frame["time"].to_numpy(), frame["status"].to_numpy(int), "time units")
        return Part(torch.from_numpy(frame[names].to_numpy(float)), outcome)
