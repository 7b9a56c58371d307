"""The two hazards of Langbein, Koenen and Wright (2025) in closed form: the truth as a head, and data drawn from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.protocols import Reduction

END_OF_STUDY = 7.0
"""Time at which follow-up ends in the published simulations."""
UNIT = "time units"


class PowerHazard(nn.Module):
    """h(t | x) = scale t^(a(x) - 1) exp(b(x)) with a and b affine in x: a hazard known in closed form, as a head.

    The cumulative hazard is H(t | x) = scale t^a(x) exp(b(x)) / a(x). Where a does not depend on x, hazards are
    proportional and the raw output is b alone; else it is (a, b). Put behind `nn.Identity()` in a `SurvivalModel`, it
    is a model that is right, whose explanations can be compared with formulas. Its weights are fixed, in float64.

    Args:
        scale: Factor of the hazard, > 0.
        power: Constant part of a, > 0.
        log_risk: Weight of each feature in b; 0 for a feature without effect.
        power_weights: Weight of each feature in a, where a depends on x.
        grid: Knots of curves that are asked for without times, and the unit of time; 70 intervals to 7 where None.

    Raises:
        InvalidValueError: If `scale` or `power` is not > 0, there is no feature, or numbers of weights differ.

    References:
        Langbein et al. 2025.
    """

    reduction = Reduction.PER_INSTANCE

    def __init__(
        self,
        *,
        scale: float,
        power: float,
        log_risk: Sequence[float],
        power_weights: Sequence[float] | None = None,
        grid: TimeGrid | None = None,
    ):
        super().__init__()
        if not (0 < scale < math.inf and 0 < power < math.inf):
            raise InvalidValueError(f"`scale` and `power` must be finite and > 0; got {scale} and {power}.")
        if not log_risk or len(power_weights or log_risk) != len(log_risk):
            raise InvalidValueError(
                f"`log_risk` and `power_weights` must have one weight per feature; got {len(log_risk)} and "
                f"{len(power_weights or ())}."
            )
        self.scale, self.power, self.in_features = float(scale), float(power), len(log_risk)
        self.grid = TimeGrid.equidistant(END_OF_STUDY, 70, UNIT) if grid is None else grid
        weights = [log_risk] if power_weights is None else [power_weights, log_risk]
        bias = [0.0] if power_weights is None else [self.power, 0.0]
        self.network = nn.Linear(self.in_features, len(weights), dtype=torch.float64)
        self.network.requires_grad_(False)
        with torch.no_grad():
            self.network.weight.copy_(torch.tensor(weights, dtype=torch.float64))
            self.network.bias.copy_(torch.tensor(bias, dtype=torch.float64))

    def raw(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance raw"]:
        """b(x), or (a(x), b(x)) where a depends on x.

        Raises:
            InvalidValueError: If the number of features is another.
        """
        if embedding.ndim != 2 or embedding.shape[1] != self.in_features:
            raise InvalidValueError(
                f"`embedding` must have the shape (instances, {self.in_features}); got {tuple(embedding.shape)}."
            )
        return self.network(embedding.to(self.network.weight.dtype))

    def predict_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """What `predict` makes of the `raw` output.

        Raises:
            InvalidValueError: If a(x) is not > 0, where H is infinite.
        """
        power, log_risk = self._power_and_log_risk(raw)
        edges = self.grid.edges.to(raw.device)
        knots = edges[1:] if times is None else torch.as_tensor(times).to(edges)
        log_rate = math.log(self.scale) + (power - 1) * knots.log() + log_risk
        log_survival = -(log_rate + knots.log() - power.log()).exp()
        return SurvivalPrediction(knots, log_survival, Interpolation.EXPONENTIAL, self.grid.unit, log_rate)

    def predict(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """The true survival curves and hazard rates, in float64, at the knots of the grid or at any `times` > 0."""
        return self.predict_from_raw(self.raw(embedding), times)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean of the curve up to the last knot: higher is worse."""
        return -self.predict(embedding).restricted_mean(float(self.grid.edges[-1]))

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log-likelihood, one value per instance: H(time) - H(entry) - log h(time) at an event."""
        power, log_risk = (column[:, 0] for column in self._power_and_log_risk(self.raw(embedding)))
        time, entry = outcome.time.to(power), outcome.entries().to(power)
        log_rate = math.log(self.scale) + (power - 1) * time.log() + log_risk
        accrued = self.scale * (time**power - entry**power) / power * log_risk.exp()
        return (accrued - log_rate * (outcome.event > 0).to(power)) * outcome.weights().to(power)

    def draw(self, covariates: Float[Tensor, "instance feature"], generator: np.random.Generator) -> SurvivalOutcome:
        """Outcomes with this hazard, by T = H^-1(E) with E ~ Exponential(1); follow-up ends at the last knot.

        Args:
            covariates: One row per instance.
            generator: Source of the draws.
        """
        with torch.no_grad():
            power, log_risk = self._power_and_log_risk(self.raw(covariates))
        exposure = torch.from_numpy(generator.exponential(size=len(covariates))).to(power)
        log_time = (exposure.log() + power[:, 0].log() - math.log(self.scale) - log_risk[:, 0]) / power[:, 0]
        end = float(self.grid.edges[-1])
        time = log_time.exp()
        event = (time <= end).to(torch.int64)
        return SurvivalOutcome(time.clamp(max=end), event, self.grid.unit)

    def extra_repr(self) -> str:
        """Settings, for print."""
        return f"scale={self.scale:g}, power={self.power:g}, in_features={self.in_features}"

    def _power_and_log_risk(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The values of a and b, each as one column in float64."""
        raw = raw.double()
        if raw.shape[1] == 1:
            return raw.new_full((1, 1), self.power).expand(raw.shape[0], 1), raw
        power = raw[:, :1]
        if bool((power <= 0).any()):
            raise InvalidValueError(
                f"`raw` must have a power a(x) > 0, or the cumulative hazard is infinite; got {float(power.min()):g}. "
                "Keep the features within the range of the simulation."
            )
        return power, raw[:, 1:]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedSurvival:
    """Drawn covariates and outcomes with the hazard behind them.

    Attributes:
        covariates: One row per instance, float64.
        outcome: Simulated survival.
        truth: The hazard that the outcomes were drawn from.
    """

    covariates: Float[Tensor, "instance feature"]
    outcome: SurvivalOutcome
    truth: PowerHazard

    def __len__(self) -> int:
        return int(self.covariates.shape[0])

    def __getitem__(self, rows: np.ndarray) -> SimulatedSurvival:
        return SimulatedSurvival(self.covariates[torch.as_tensor(rows)], self.outcome[rows], self.truth)


def time_independent_hazard(noise: int = 1) -> PowerHazard:
    """h(t | x) = 0.25 t^1.5 exp(1.7 x1 - 2.4 x2): proportional hazards; the features after x2 have no effect.

    Args:
        noise: Number of features without effect, >= 0.

    References:
        Langbein et al. 2025.
    """
    return PowerHazard(scale=0.25, power=2.5, log_risk=(1.7, -2.4, *_zeros(noise)))


def time_dependent_hazard(noise: int = 1) -> PowerHazard:
    """h(t | x) = 0.15 t^0.5 exp((-3 + 6 log t) x1 + 1.7 x2 - 2.4 x3): the effect of x1 changes its sign at e^0.5.

    Args:
        noise: Number of features without effect, after x3, >= 0.

    References:
        Langbein et al. 2025.
    """
    zeros = _zeros(noise)
    return PowerHazard(scale=0.15, power=1.5, log_risk=(-3.0, 1.7, -2.4, *zeros), power_weights=(6.0, 0.0, 0.0, *zeros))


def time_independent_survival(instances: int, *, noise: int = 1, seed: int = 0) -> SimulatedSurvival:
    """Draws x1 ~ N(0, 1), x2 ~ U(0, 1), noise ~ U(-1, 1), and survival with `time_independent_hazard`.

    Args:
        instances: Number of rows, >= 1.
        noise: Number of features without effect.
        seed: Seed of all draws.
    """
    return _drawn(instances, time_independent_hazard(noise), (_normal, _unit), seed)


def time_dependent_survival(instances: int, *, noise: int = 1, seed: int = 0) -> SimulatedSurvival:
    """Draws x1 ~ U(0, 1), x2 and x3 ~ N(0, 1), noise ~ U(-1, 1), and survival with `time_dependent_hazard`.

    Args:
        instances: Number of rows, >= 1.
        noise: Number of features without effect.
        seed: Seed of all draws.
    """
    return _drawn(instances, time_dependent_hazard(noise), (_unit, _normal, _normal), seed)


Draw = Callable[[np.random.Generator, int], np.ndarray]


def _drawn(instances: int, truth: PowerHazard, columns: Sequence[Draw], seed: int) -> SimulatedSurvival:
    if instances < 1:
        raise InvalidValueError(f"`instances` must be >= 1; got {instances}.")
    generator = np.random.default_rng(seed)
    drawn = [column(generator, instances) for column in columns]
    drawn += [generator.uniform(-1, 1, instances) for _ in range(truth.in_features - len(columns))]
    covariates = torch.from_numpy(np.stack(drawn, axis=1))
    return SimulatedSurvival(covariates, truth.draw(covariates, generator), truth)


def _normal(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.standard_normal(count)


def _unit(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.uniform(0, 1, count)


def _zeros(noise: int) -> tuple[float, ...]:
    if noise < 0:
        raise InvalidValueError(f"`noise` must be >= 0; got {noise}.")
    return (0.0,) * noise
