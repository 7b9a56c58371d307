"""Formulas between survival, hazard and mass."""

from __future__ import annotations

import decimal

import pytest
import torch

from survlens.core import surfaces


@pytest.fixture
def hazard(generator: torch.Generator) -> torch.Tensor:
    return torch.rand((6, 9), generator=generator, dtype=torch.float64) * 0.9


def test_hazard_to_survival_and_back(hazard: torch.Tensor) -> None:
    log_survival = surfaces.log_survival_from_hazard(hazard)
    torch.testing.assert_close(log_survival.exp(), (1 - hazard).cumprod(1))
    torch.testing.assert_close(surfaces.hazard_from_log_survival(log_survival), hazard, rtol=1e-12, atol=1e-14)


def test_mass_to_survival_and_back(hazard: torch.Tensor) -> None:
    log_survival = surfaces.log_survival_from_hazard(hazard)
    mass = surfaces.pmf_from_log_survival(log_survival)
    by_difference = -torch.diff(torch.nn.functional.pad(log_survival.exp(), (1, 0), value=1.0), dim=1)
    torch.testing.assert_close(mass, by_difference, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(surfaces.log_survival_from_pmf(mass), log_survival, rtol=1e-8, atol=1e-12)


def test_logits_give_the_survival_of_their_hazards(generator: torch.Generator) -> None:
    logits = torch.randn((5, 7), generator=generator, dtype=torch.float64) * 3
    expected = surfaces.log_survival_from_hazard(logits.sigmoid())
    torch.testing.assert_close(surfaces.log_survival_from_hazard_logits(logits), expected, rtol=1e-9, atol=1e-12)


def test_survival_from_logits_stays_at_or_below_1_and_keeps_its_tail_in_float32() -> None:
    logits = torch.tensor([[-40.0, -200.0, 40.0, 200.0]])
    log_survival = surfaces.log_survival_from_hazard_logits(logits)
    assert bool((log_survival <= 0).all())
    assert log_survival[0, 2:].tolist() == [-40.0, -240.0]


def test_a_dead_curve_has_hazard_1_and_mass_0_afterwards() -> None:
    log_survival = torch.tensor([[-1.0, -torch.inf, -torch.inf]], dtype=torch.float64)
    assert surfaces.hazard_from_log_survival(log_survival)[0, 1:].tolist() == [1.0, 1.0]
    mass = surfaces.pmf_from_log_survival(log_survival)[0]
    assert float(mass[2]) == 0.0
    assert float(mass.sum()) == pytest.approx(1.0)


def test_small_masses_keep_their_digits() -> None:
    log_survival = torch.log1p(-torch.tensor([[1e-13, 3e-13]], dtype=torch.float64))
    mass = surfaces.pmf_from_log_survival(log_survival)[0]
    assert mass.tolist() == pytest.approx([1e-13, 2e-13], rel=1e-9)


@pytest.mark.parametrize(
    "formula",
    [surfaces.hazard_from_log_survival, surfaces.pmf_from_log_survival],
)
def test_formulas_keep_the_graph(formula, hazard: torch.Tensor) -> None:
    log_survival = surfaces.log_survival_from_hazard(hazard[:2, :4]).requires_grad_()
    assert torch.autograd.gradcheck(formula, log_survival)


@pytest.mark.parametrize("spread", [1.0, 30.0, 200.0, 5000.0], ids=lambda spread: f"spread {spread:g}")
def test_masses_give_the_curve_and_the_hazards_that_long_decimals_give(
    spread: float, generator: torch.Generator
) -> None:
    """Narrow rows are summed as exponentials, wide ones as logarithms."""
    logits = torch.randn((12, 7), generator=generator, dtype=torch.float64) * spread
    fast = surfaces.survival_and_hazard_of_masses(logits)
    assert torch.equal(fast[0], surfaces.log_survival_from_pmf_logits(logits))
    torch.testing.assert_close(fast[1], logits - _later_one_by_one(logits), rtol=1e-13, atol=1e-13)
    with decimal.localcontext(prec=700, Emin=-(10**6), Emax=10**6):
        for row, curve in zip(logits.tolist(), fast[0].tolist(), strict=True):
            masses = [decimal.Decimal(value).exp() for value in row] + [decimal.Decimal(1)]
            for j, found in enumerate(curve):
                exact = float((sum(masses[j + 1 :]) / sum(masses)).ln())
                assert found == pytest.approx(exact, rel=2e-12, abs=1e-300)


def test_gradients_of_both_ways_to_sum_masses_agree(generator: torch.Generator) -> None:
    logits = torch.randn((5, 6), generator=generator, dtype=torch.float64) * 3
    wide = torch.tensor([[900.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = []
    for rows in (logits, torch.cat([logits, wide])):  # one wide row sends all to the logarithms
        moved = rows.clone().requires_grad_(True)
        values = surfaces.log_survival_from_pmf_logits(moved)[:5].sin().sum()
        (first,) = torch.autograd.grad(values, moved, create_graph=True)
        found.append(torch.stack([first[:5], torch.autograd.grad(first.square().sum(), moved)[0][:5]]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-13)


def _later_one_by_one(logits: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(logits, (0, 1))
    return torch.stack([padded[:, j + 1 :].logsumexp(1) for j in range(logits.shape[1])], dim=1)
