"""Explanations of the true hazards of the published simulations, against formulas derived by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from explain.published_truth import DEPENDENT, INDEPENDENT, Part, Truth
from survlens.core.targets import cumulative_hazard, density, log_hazard_rate, survival
from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.references import References
from survlens.explain.shapley import ExactSHAP
from survlens.study.reproduce.explained_simulations import change_interval, sign_change
from survlens.study.reproduce.simulated_networks import (
    RULES,
    Simulation,
    common_times,
    fitted_network,
    simulated_parts,
)

TIMES = torch.linspace(0.15, 6.95, 41, dtype=torch.float64)
SIGN_CHANGE = float(np.exp(0.5))
both = pytest.mark.parametrize("truth", [INDEPENDENT, DEPENDENT], ids=lambda truth: truth.name)
Shared = Callable[..., Path]


def part(shared: Shared, truth: Truth, which: str) -> Part:
    return Part.read(shared("data", "simulations", f"{truth.name}_{which}.csv"))


def same(found: Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Within `tolerance` of the largest value."""
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance * float(np.abs(expected).max()))


@both
def test_gradients_of_all_test_instances_are_the_formulas(shared: Shared, truth: Truth) -> None:
    x = part(shared, truth, "test").covariates
    by_hand, times = x.numpy(), TIMES.numpy()
    found = {
        target.name: Gradient()(truth.model, {"table": x}, TIMES, target)["table"].values
        for target in (survival, cumulative_hazard, log_hazard_rate, density)
    }
    assert len(x) == 500
    same(found["survival"], truth.survival_gradients(by_hand, times), 1e-14)
    hazard = truth.hazard_gradients(by_hand, times)
    same(found["cumulative_hazard"] / hazard.max(), hazard / hazard.max(), 1e-14)
    log_rate = np.broadcast_to(truth.log_rate_slopes(times)[None], found["log_hazard_rate"].shape)
    same(found["log_hazard_rate"], log_rate, 1e-14)
    rate = -_time_slope(truth, by_hand, times)
    expected = rate[:, None] * log_rate + _rate(truth, by_hand, times)[:, None] * truth.survival_gradients(
        by_hand, times
    )
    same(found["density"], expected, 1e-12)


def _rate(truth: Truth, x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """h = a(x) H / t, since H is proportional to t^a."""
    power = np.full((len(x), 1), 2.5) if truth is INDEPENDENT else 6 * x[:, :1] + 1.5
    return power * truth.cumulative_hazard(x, times) / times


def _time_slope(truth: Truth, x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """dS/dt = -h S."""
    return -_rate(truth, x, times) * truth.survival(x, times)


def test_the_effect_of_x1_changes_its_sign_where_it_should(shared: Shared) -> None:
    x = part(shared, DEPENDENT, "test").covariates
    around = torch.tensor([SIGN_CHANGE - 1e-9, SIGN_CHANGE, SIGN_CHANGE + 1e-9], dtype=torch.float64)
    found = Gradient()(DEPENDENT.model, {"table": x}, around, log_hazard_rate)["table"].values[:, 0]
    assert bool((found[:, 0] < 0).all())
    assert float(found[:, 1].abs().max()) < 1e-14
    assert bool((found[:, 2] > 0).all())


@both
def test_noise_gets_nothing(shared: Shared, truth: Truth) -> None:
    x = part(shared, truth, "test").covariates[:20]
    start = References.sample({"table": part(shared, truth, "train").covariates}, 3)
    for explainer in (Gradient(), IntegratedGradients(start), GradSHAP(start), ExactSHAP(start)):
        found = explainer(truth.model, {"table": x}, TIMES)["table"].values
        assert float(found[:, -1].abs().max()) <= 1e-15


@both
def test_exact_shap_is_enumeration_of_the_formula(shared: Shared, truth: Truth) -> None:
    x = part(shared, truth, "test").covariates[:25]
    start = References.sample({"table": part(shared, truth, "train").covariates}, 4)
    found = ExactSHAP(start)(truth.model, {"table": x}, TIMES)["table"]
    expected = truth.shapley(x.numpy(), start.inputs["table"].numpy(), TIMES.numpy())
    same(found.values, expected, 1e-13)
    before = truth.survival(start.inputs["table"].numpy(), TIMES.numpy()).mean(0)
    np.testing.assert_allclose(found.total, truth.survival(x.numpy(), TIMES.numpy()) - before, rtol=0, atol=1e-13)


@both
def test_integrated_gradients_of_all_test_instances_are_integrals_of_the_formulas(shared: Shared, truth: Truth) -> None:
    x = part(shared, truth, "test").covariates
    start = References.mean({"table": part(shared, truth, "train").covariates})
    found = IntegratedGradients(start, tolerance=1e-12)(truth.model, {"table": x}, TIMES)["table"]
    expected = truth.integrated(x.numpy(), start.inputs["table"].numpy(), TIMES.numpy())
    same(found.values, expected, 1e-12)
    assert found.completeness_gap is not None
    assert float(found.completeness_gap.abs().max()) < 1e-12


def test_integrated_gradients_of_proportional_hazards_are_shares_of_the_log_risk(shared: Shared) -> None:
    x = part(shared, INDEPENDENT, "test").covariates
    start = References.mean({"table": part(shared, INDEPENDENT, "train").covariates})
    found = IntegratedGradients(start)(INDEPENDENT.model, {"table": x}, TIMES)["table"]
    before, weights, times = start.inputs["table"].numpy(), np.array([1.7, -2.4, 0.0]), TIMES.numpy()
    moved = weights * (x.numpy() - before)
    rise = INDEPENDENT.survival(x.numpy(), times) - INDEPENDENT.survival(before, times)
    same(found.values, (moved / moved.sum(1, keepdims=True))[..., None] * rise[:, None], 1e-11)


@both
def test_gradshap_is_the_mean_over_references(shared: Shared, truth: Truth) -> None:
    x = part(shared, truth, "test").covariates[:40]
    start = References.sample({"table": part(shared, truth, "train").covariates}, 5)
    found = GradSHAP(start, tolerance=1e-12)(truth.model, {"table": x}, TIMES)["table"]
    each = [truth.integrated(x.numpy(), row[None], TIMES.numpy()) for row in start.inputs["table"].numpy()]
    same(found.values, np.mean(each, axis=0), 1e-12)
    assert found.sampling_error is not None
    same(found.sampling_error, np.std(each, axis=0, ddof=1) / np.sqrt(5), 1e-8)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("simulation", "truth", "network", "limits"),
    [
        (Simulation.TIME_INDEPENDENT, INDEPENDENT, "DeepSurv", (0.02, 0.2, 0.1)),
        (Simulation.TIME_DEPENDENT, DEPENDENT, "CoxTime", (0.04, 0.5, 0.25)),
    ],
    ids=["time_independent", "time_dependent"],
)
def test_a_fitted_network_is_explained_nearly_as_the_truth(
    shared: Shared, simulation: Simulation, truth: Truth, network: str, limits: tuple[float, float, float]
) -> None:
    parts = simulated_parts(simulation, train=4000, test=500, folder=shared("data", "simulations"))
    model = fitted_network(network, parts.train, seed=1)
    times = common_times([model], len(parts.features), 30)
    inputs, start = {"table": parts.test.covariates}, References.mean({"table": parts.train.covariates})
    x, before, asked = parts.test.covariates.numpy(), start.inputs["table"].numpy(), times.numpy()
    slopes = Gradient()(model, inputs, times)["table"]
    integrated = IntegratedGradients(start, RULES.get(network))(model, inputs, times)["table"]
    assert slopes.prediction is not None
    errors = (
        float(np.abs(slopes.prediction.numpy() - truth.survival(x, asked)).mean()),
        relative(slopes.numpy(), truth.survival_gradients(x, asked)),
        relative(integrated.numpy(), truth.integrated(x, before, asked)),
    )
    assert all(error < limit for error, limit in zip(errors, limits, strict=True)), errors
    # The order of the features by mean absolute contribution, noise last.
    size = np.abs(integrated.numpy()).mean((0, 2))
    expected = np.abs(truth.integrated(x, before, asked)).mean((0, 2))
    assert size.argsort().tolist() == expected.argsort().tolist()


@pytest.mark.slow
def test_the_time_of_the_sign_change_is_covered_by_its_interval_over_refits(shared: Shared) -> None:
    covariates = part(shared, DEPENDENT, "test").covariates[:200]
    changes = []
    for seed in range(4):
        model = fitted_network("CoxTime", Simulation.TIME_DEPENDENT.draw(5000, seed=100 + seed), seed=seed)
        changes.append(sign_change(model, covariates))
    low, high = change_interval(changes)
    assert low <= SIGN_CHANGE <= high, (changes, low, high)
    assert high / low < 1.5
