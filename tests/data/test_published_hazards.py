"""The published hazards: formulas, likelihood and draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import RawHead
from survlens.data.simulate import (
    PowerHazard,
    SimulatedSurvival,
    time_dependent_hazard,
    time_dependent_survival,
    time_independent_hazard,
    time_independent_survival,
)


def independent_rate(time: float, x: np.ndarray) -> float:
    return 0.25 * time**1.5 * np.exp(1.7 * x[0] - 2.4 * x[1])


def dependent_rate(time: float, x: np.ndarray) -> float:
    return 0.15 * time**0.5 * np.exp((-3 + 6 * np.log(time)) * x[0] + 1.7 * x[1] - 2.4 * x[2])


both = pytest.mark.parametrize(
    ("drawn", "rate"),
    [(time_independent_survival, independent_rate), (time_dependent_survival, dependent_rate)],
    ids=["independent", "dependent"],
)
Drawn = Callable[..., SimulatedSurvival]
Rate = Callable[[float, np.ndarray], float]


@both
def test_curves_are_integrals_of_the_published_rates(drawn: Drawn, rate: Rate) -> None:
    simulated, times = drawn(6), [0.3, 1.6487, 2.0, 6.9]
    found = simulated.truth.predict(simulated.covariates, torch.tensor(times, dtype=torch.float64))
    assert found.log_hazard_rate is not None
    for row, x in enumerate(simulated.covariates.numpy()):
        for column, time in enumerate(times):
            accrued = quad(rate, 0, time, args=(x,), epsabs=1e-12, epsrel=1e-12)[0]
            assert float(found.cumulative_hazard[row, column]) == pytest.approx(accrued, rel=1e-7)
            assert float(found.log_hazard_rate[row, column]) == pytest.approx(np.log(rate(time, x)), abs=1e-12)


@both
def test_the_loss_is_the_likelihood(drawn: Drawn, rate: Rate) -> None:
    x = drawn(4).covariates
    outcome = SurvivalOutcome.from_arrays(
        [0.8, 2.0, 5.0, 2.0], [1, 0, 1, 1], "time units", entry=[0.0, 0.5, 1.0, 0.0], weight=[1.0, 2.0, 0.5, 1.0]
    )
    expected = []
    for row, (time, event) in enumerate(zip(outcome.time.tolist(), outcome.event.tolist(), strict=True)):
        entry, weight = float(outcome.entries()[row]), float(outcome.weights()[row])
        accrued = quad(rate, entry, time, args=(x[row].numpy(),), epsabs=1e-12, epsrel=1e-12)[0]
        expected.append(weight * (accrued - event * np.log(rate(time, x[row].numpy()))))
    found = drawn(4).truth.loss(x, outcome)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)


@both
def test_draws_follow_the_hazard(drawn: Drawn, rate: Rate) -> None:
    simulated = drawn(4000, seed=3)
    curves = simulated.truth.predict(simulated.covariates, simulated.outcome.time.unique())
    place = torch.searchsorted(curves.times, simulated.outcome.time)
    survived = curves.survival.gather(1, place[:, None])[:, 0]
    # S(T | x) of an event is uniform on (S(7 | x), 1).
    at_end = simulated.truth.predict(simulated.covariates, torch.tensor([7.0], dtype=torch.float64)).survival[:, 0]
    events = simulated.outcome.event > 0
    uniform = ((survived - at_end) / (1 - at_end))[events]
    assert kstest(uniform.numpy(), "uniform").pvalue > 0.01
    assert float((simulated.outcome.event == 0).double().mean()) == pytest.approx(float(at_end.mean()), abs=0.02)
    assert bool((simulated.outcome.time[~events] == 7.0).all())


@both
def test_the_same_seed_draws_the_same(drawn: Drawn, rate: Rate) -> None:
    first, again, other = drawn(50, seed=1), drawn(50, seed=1), drawn(50, seed=2)
    assert torch.equal(first.covariates, again.covariates)
    assert torch.equal(first.outcome.time, again.outcome.time)
    assert not torch.equal(first.outcome.time, other.outcome.time)
    assert len(first[np.arange(10)]) == 10


@pytest.mark.parametrize(
    ("name", "drawn"), [("time_independent", time_independent_survival), ("time_dependent", time_dependent_survival)]
)
def test_draws_are_alike_to_the_published_data(shared: Callable[..., Path], name: str, drawn: Drawn) -> None:
    frame = pd.read_csv(shared("data", "simulations", f"{name}_train.csv"))
    simulated = drawn(9500, seed=5)
    assert float(simulated.outcome.event.double().mean()) == pytest.approx(frame["status"].mean(), abs=0.02)
    for share in (0.1, 0.25, 0.5):
        ours, theirs = np.quantile(simulated.outcome.time, share), np.quantile(frame["time"], share)
        assert ours == pytest.approx(theirs, rel=0.06)
    published = frame[[name for name in frame if name.startswith("x")]].to_numpy()
    assert simulated.covariates.shape[1] == published.shape[1]
    np.testing.assert_allclose(simulated.covariates.mean(0), published.mean(0), atol=0.05)
    np.testing.assert_allclose(simulated.covariates.std(0), published.std(0), atol=0.05)


def test_a_truth_is_a_head_with_a_raw_output() -> None:
    assert isinstance(time_independent_hazard(), RawHead)
    assert time_independent_hazard().raw(torch.zeros(2, 3)).shape == (2, 1)
    assert time_dependent_hazard(noise=3).raw(torch.zeros(2, 6)).shape == (2, 2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    risk = time_independent_hazard().risk(x)
    assert torch.equal(risk.argsort(), (1.7 * x[:, 0] - 2.4 * x[:, 1]).argsort())


def test_what_is_no_hazard_is_refused() -> None:
    for wrong in ({"scale": 0.0}, {"power": -1.0}, {"log_risk": ()}, {"power_weights": (1.0,)}):
        with pytest.raises(InvalidValueError):
            PowerHazard(**{"scale": 1.0, "power": 1.0, "log_risk": (1.0, 2.0)} | wrong)
    with pytest.raises(InvalidValueError, match="noise"):
        time_dependent_hazard(noise=-1)
    with pytest.raises(InvalidValueError, match="instances"):
        time_dependent_survival(0)
    with pytest.raises(InvalidValueError, match="embedding"):
        time_dependent_hazard().raw(torch.zeros(2, 3))
    with pytest.raises(InvalidValueError, match="power"):
        time_dependent_hazard().predict(torch.tensor([[-0.3, 0.0, 0.0, 0.0]]))
