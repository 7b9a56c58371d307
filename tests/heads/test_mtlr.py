"""What only multi-task logistic regression does."""

from __future__ import annotations

import math

import torch

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.heads.mtlr import MTLR
from survlens.heads.pmf import PMF

GRID = TimeGrid(torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64), "months")


def heads() -> tuple[MTLR, PMF]:
    """A chain of classifiers, and the masses that its weights add up to."""
    torch.manual_seed(0)
    chain, masses = MTLR(2, GRID).double(), PMF(2, GRID).double()
    with torch.no_grad():
        masses.linear.weight.copy_(chain.linear.weight.flip(0).cumsum(0).flip(0))
        masses.linear.bias.copy_(chain.linear.bias.flip(0).cumsum(0).flip(0))
    return chain, masses


def test_it_is_the_head_of_masses_with_summed_weights() -> None:
    chain, masses = heads()
    embedding = torch.randn((5, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outcome = SurvivalOutcome.from_arrays([0.5, 2.0, 6.0, 9.0, 2.2], [1, 1, 0, 1, 0], "months", entry=[0, 1.5, 2, 0, 0])
    torch.testing.assert_close(chain.loss(embedding, outcome), masses.loss(embedding, outcome))
    torch.testing.assert_close(chain.predict(embedding).log_survival, masses.predict(embedding).log_survival)


def test_probabilities_of_event_sequences_by_enumeration() -> None:
    chain, _ = heads()
    embedding = torch.tensor([[0.4, -1.3]], dtype=torch.float64)
    psi = chain.logits(embedding)[0].tolist()
    # (y_1, y_2, y_3): has the event happened by the end of the interval? Once it has, it has for good.
    sequences = [(1, 1, 1), (0, 1, 1), (0, 0, 1), (0, 0, 0)]
    weights = [math.exp(sum(y * p for y, p in zip(sequence, psi, strict=True))) for sequence in sequences]
    expected = torch.tensor(weights[:3], dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(chain.predict(embedding).pmf[0], expected)


def test_huge_chains_stay_finite_in_float32() -> None:
    chain = MTLR(1, GRID)
    with torch.no_grad():
        chain.linear.weight.zero_()
        chain.linear.bias.copy_(torch.tensor([1000.0, -1000.0, 1000.0]))
    losses = chain.loss(torch.zeros(3, 1), SurvivalOutcome.from_arrays([0.5, 2.0, 7.0], [1, 1, 0], "months"))
    torch.testing.assert_close(losses, math.log(2) + torch.tensor([0.0, 1000.0, 1000.0]))
    losses.sum().backward()
    assert chain.linear.bias.grad is not None
    assert bool(torch.isfinite(chain.linear.bias.grad).all())


def test_settings_show_when_printed() -> None:
    assert "in_features=2, intervals=3, last=7" in repr(MTLR(2, GRID))
