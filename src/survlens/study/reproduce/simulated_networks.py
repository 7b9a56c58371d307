"""The networks that the experiments on explanations explain: three families on the two published simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.data.loaders import TensorSource
from survlens.data.simulate.published_hazards import (
    END_OF_STUDY,
    UNIT,
    PowerHazard,
    SimulatedSurvival,
    time_dependent_hazard,
    time_dependent_survival,
    time_independent_hazard,
    time_independent_survival,
)
from survlens.encoders.mlp import MLP
from survlens.explain.path_rules.path_integral import PathRule
from survlens.explain.path_rules.segments import RefinedSegments
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import fit
from survlens.training.objectives import SurvivalObjective
from survlens.training.settings import FitSettings

WIDTH = 32
INTERVALS = 30
KNOTS = 70
"""Knots of the baseline of CoxTime, at equal distances to the end of the study."""
SIGN_CHANGE = float(np.exp(0.5))
"""Time at which the effect of x1 changes its sign in the time-dependent simulation."""


class Simulation(Enum):
    """A published simulation; the value is the start of its files' names."""

    TIME_INDEPENDENT = "time_independent"
    TIME_DEPENDENT = "time_dependent"

    def hazard(self, noise: int = 1) -> PowerHazard:
        """The true hazard."""
        return _HAZARDS[self](noise)

    def draw(self, instances: int, *, noise: int = 1, seed: int = 0) -> SimulatedSurvival:
        """Covariates and outcomes of so many instances."""
        return _DRAWS[self](instances, noise=noise, seed=seed)


_HAZARDS: Mapping[Simulation, Callable[[int], PowerHazard]] = {
    Simulation.TIME_INDEPENDENT: time_independent_hazard,
    Simulation.TIME_DEPENDENT: time_dependent_hazard,
}
_DRAWS: Mapping[Simulation, Callable[..., SimulatedSurvival]] = {
    Simulation.TIME_INDEPENDENT: time_independent_survival,
    Simulation.TIME_DEPENDENT: time_dependent_survival,
}


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedParts:
    """Rows to fit to and rows to explain, with the truth of both.

    Attributes:
        simulation: Which one.
        train: Rows to fit to.
        test: Rows to explain.
    """

    simulation: Simulation
    train: SimulatedSurvival
    test: SimulatedSurvival

    @property
    def truth(self) -> SurvivalModel:
        """The true hazard as a model."""
        return SurvivalModel(nn.Identity(), self.train.truth).eval()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(f"x{number}" for number in range(1, self.train.truth.in_features + 1))


def simulated_parts(
    simulation: Simulation,
    *,
    train: int,
    test: int = 500,
    noise: int = 1,
    folder: Path | None = None,
    seed: int = 0,
) -> SimulatedParts:
    """Draws both parts anew, or reads the published files and takes some of their training rows.

    Args:
        simulation: Which one.
        train: Number of training rows.
        test: Number of rows to explain.
        noise: Number of features without effect; the published files have one.
        folder: Folder with `time_independent_train.csv` and its kin; drawn where None.
        seed: Seed of the draws, or of the choice of training rows.

    Raises:
        InvalidValueError: If the files have fewer rows or other columns.
    """
    if folder is None:
        whole = simulation.draw(train + test, noise=noise, seed=seed)
        return SimulatedParts(simulation, whole[np.arange(train)], whole[np.arange(train, train + test)])
    hazard = simulation.hazard(1)
    learnt = _read(folder / f"{simulation.value}_train.csv", hazard, train)
    explained = _read(folder / f"{simulation.value}_test.csv", hazard, test)
    rows = np.random.default_rng(seed).permutation(len(learnt))[:train]
    return SimulatedParts(simulation, learnt[rows], explained[np.arange(test)])


def _read(path: Path, hazard: PowerHazard, rows: int) -> SimulatedSurvival:
    import pandas as pd

    frame = pd.read_csv(path)
    names = [f"x{number}" for number in range(1, hazard.in_features + 1)]
    lacking = [name for name in ("time", "status", *names) if name not in frame]
    if lacking or len(frame) < rows:
        raise InvalidValueError(
            f"{path.name} must have {rows} rows with time, status and {', '.join(names)}; got {len(frame)} rows"
            f"{' without ' + ', '.join(lacking) if lacking else ''}. Ask for fewer rows, or leave out the folder."
        )
    outcome = SurvivalOutcome.from_arrays(frame["time"].to_numpy(), frame["status"].to_numpy(int), UNIT)
    return SimulatedSurvival(torch.from_numpy(frame[names].to_numpy(float)), outcome, hazard)


def _deepsurv(features: int, outcome: SurvivalOutcome) -> SurvivalModel:
    return SurvivalModel(MLP(features, (WIDTH, WIDTH)), CoxPH(WIDTH))


def _cox_time(features: int, outcome: SurvivalOutcome) -> SurvivalModel:
    # Its second layer is in the head, where time enters.
    scale = float(outcome.time.median())
    return SurvivalModel(MLP(features, (WIDTH,)), CoxTime(WIDTH, hidden=(WIDTH,), time_scale=scale))


def _deephit(features: int, outcome: SurvivalOutcome) -> SurvivalModel:
    grid = TimeGrid.quantile(outcome, INTERVALS)
    return SurvivalModel(MLP(features, (WIDTH, WIDTH)), DeepHit(WIDTH, grid, alpha=0.2, sigma=0.1))


NETWORKS: Mapping[str, Callable[[int, SurvivalOutcome], SurvivalModel]] = {
    "DeepSurv": _deepsurv,
    "CoxTime": _cox_time,
    "DeepHit": _deephit,
}
"""The families of the paper, two hidden layers each: (features, training outcome) -> untrained model."""


RULES: Mapping[str, PathRule] = {"CoxTime": RefinedSegments(1e-2, budget=24)}
"""How path integrals are taken where the rule chosen by default would cost minutes; the error is stated."""


def fitted_network(name: str, train: SimulatedSurvival, *, seed: int = 0, epochs: int = 200) -> SurvivalModel:
    """Fits a network with early stopping on a fifth of the rows; float64 in eval mode afterwards.

    The baseline of CoxTime, which has as many knots as the rows that it is estimated on have event times, is estimated
    on times rounded to `KNOTS` places: an explanation costs one derivative per knot.

    Args:
        name: One of `NETWORKS`.
        train: Rows to fit to.
        seed: Seed of the weights, the division and the batches.
        epochs: Most epochs.
    """
    rows = np.random.default_rng(seed).permutation(len(train))
    kept, learnt = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NETWORKS[name](train.truth.in_features, train[learnt].outcome)
    settings = FitSettings(epochs=epochs, batch=256, learning_rate=5e-3, patience=12, seed=seed)
    fit(model, _source(train[learnt]), _source(train[kept]), SurvivalObjective(), settings)
    model = model.double().eval()
    if isinstance(model.head, CoxTime):
        with torch.no_grad():
            model.head.fit_baseline(model.embed({"table": train[learnt].covariates}), _rounded(train[learnt].outcome))
    return model


def _rounded(outcome: SurvivalOutcome) -> SurvivalOutcome:
    width = END_OF_STUDY / KNOTS
    return replace(outcome, time=(outcome.time / width).round().clamp(min=1) * width)


def _source(part: SimulatedSurvival) -> TensorSource:
    return TensorSource({"table": part.covariates.float()}, part.outcome)


def common_times(models: Sequence[SurvivalModel], features: int, count: int) -> Tensor:
    """So many times at equal distances within the range of every model's curves.

    Args:
        models: Fitted networks.
        features: Number of columns of their tables.
        count: How many times.
    """
    row = torch.zeros((1, features), dtype=torch.float64)
    with torch.no_grad():
        ends = [float(model.predict_survival({"table": row}).times[-1]) for model in models]
    return torch.linspace(0.03, 0.99, count, dtype=torch.float64) * min(ends)
