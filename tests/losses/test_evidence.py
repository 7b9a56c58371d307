"""The terms of the evidence bound against torch.distributions and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from survlens.core.errors import InvalidValueError
from survlens.losses.evidence import (
    bernoulli_reconstruction,
    evidence_bound,
    gaussian_reconstruction,
    kl_to_standard_normal,
)


@pytest.mark.parametrize("shape", [(4, 1, 5, 6), (3, 2, 4, 4, 4), (5, 7)])
def test_bernoulli_term_is_the_negative_log_likelihood(shape: tuple[int, ...], generator: torch.Generator) -> None:
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 4
    target = torch.randint(0, 2, shape, generator=generator).double()
    truth = -Bernoulli(logits=logits).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_reconstruction(logits, target), truth)


@pytest.mark.parametrize("log_sd_shape", [(), (2, 1, 1), (3, 2, 4, 4)])
def test_gaussian_term_is_the_negative_log_density_with_its_constants(
    log_sd_shape: tuple[int, ...], generator: torch.Generator
) -> None:
    mean, target = torch.randn((2, 3, 2, 4, 4), generator=generator, dtype=torch.float64)
    log_sd = torch.randn(log_sd_shape, generator=generator, dtype=torch.float64)
    truth = -Normal(mean, log_sd.exp().expand_as(mean)).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_reconstruction(mean, target, log_sd), truth)


def test_the_best_scale_is_the_root_mean_squared_error(generator: torch.Generator) -> None:
    mean, target = torch.randn((2, 6, 1, 4, 4), generator=generator, dtype=torch.float64)
    log_sd = ((mean - target).square().mean().sqrt().log()).requires_grad_()
    gaussian_reconstruction(mean, target, log_sd).sum().backward()
    assert log_sd.grad is not None
    assert float(log_sd.grad) == pytest.approx(0, abs=1e-10)


def test_divergence_equals_that_of_torch_distributions(generator: torch.Generator) -> None:
    mean, log_var = torch.randn((2, 5, 3), generator=generator, dtype=torch.float64)
    truth = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(kl_to_standard_normal(mean, log_var), truth)


def test_divergence_of_an_idle_dimension_is_zero_and_never_negative() -> None:
    near = torch.tensor([[0.0, 1e-4, -1e-4, 1e-6]])
    found = kl_to_standard_normal(torch.zeros(1, 4), near)
    assert float(found[0, 0]) == 0.0
    assert bool((found >= 0).all())
    assert float(found[0, 1]) == pytest.approx(2.5e-9, rel=0.1)


def test_the_whole_bound_is_divided_by_the_values() -> None:
    bound = evidence_bound(torch.tensor([6.0, 2.0]), torch.tensor([[1.0, 2.0], [0.0, 4.0]]), values=4, beta=0.5)
    assert bound.tolist() == [(6 + 1.5) / 4, (2 + 2) / 4]


def test_the_bound_lies_above_the_negative_log_evidence() -> None:
    # x | z ~ N(z, 1), z ~ N(0, 1): the evidence is N(0, 2); the true posterior N(x/2, 1/2) makes the bound exact.
    x = torch.tensor([[1.5]], dtype=torch.float64)
    exact = 0.5 * math.log(2 * math.pi * 2) + 1.5**2 / 4

    def bound(mean: float, variance: float) -> float:
        # E over z of the Gaussian term adds variance / 2 to its value at the mean.
        kl = kl_to_standard_normal(torch.tensor([[mean]]).double(), torch.tensor([[variance]]).double().log())
        term = gaussian_reconstruction(torch.full((1, 1), mean).double(), x, torch.zeros(()).double()) + variance / 2
        return float(evidence_bound(term, kl, values=1))

    assert bound(0.75, 0.5) == pytest.approx(exact, rel=1e-12)
    assert bound(0.6, 0.5) > exact
    assert bound(0.75, 0.9) > exact


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="one shape"):
        bernoulli_reconstruction(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5))
    with pytest.raises(InvalidValueError, match="`log_var`"):
        kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InvalidValueError, match="`values`"):
        evidence_bound(torch.zeros(2), torch.zeros(2, 3), values=0)
    with pytest.raises(InvalidValueError, match="`beta`"):
        evidence_bound(torch.zeros(2), torch.zeros(2, 3), values=4, beta=float("nan"))
