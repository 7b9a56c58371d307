"""What only the head of masses by cause does."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation
from survlens.core.protocols import CompetingRisksHead
from survlens.heads.deephit import DeepHit
from survlens.heads.pmf import PMF
from survlens.losses.discrete import competing_pmf_loss
from survlens.losses.ranking import ranking_loss

GRID = TimeGrid(torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64), "months")
OUTCOME = SurvivalOutcome.from_arrays(
    [0.5, 2.0, 6.0, 9.0, 2.2, 4.0],
    [1, 2, 0, 1, 0, 2],
    "months",
    entry=[0, 1.5, 2, 0, 0, 0],
    weight=[1, 2, 1, 1, 3, 0.5],
)
EMBEDDING = torch.randn((6, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def head(n_causes: int = 2, alpha: float = 0.2, seed: int = 0) -> DeepHit:
    torch.manual_seed(seed)
    return DeepHit(2, GRID, n_causes=n_causes, alpha=alpha).double()


def test_one_cause_without_ranking_is_the_head_of_masses() -> None:
    one = head(n_causes=1, alpha=1)
    masses = PMF(2, GRID).double()
    masses.load_state_dict(one.state_dict())
    outcome = replace(OUTCOME, event=OUTCOME.event.clamp(max=1))
    assert torch.equal(one.loss(EMBEDDING, outcome), masses.loss(EMBEDDING, outcome))
    assert torch.equal(one.predict(EMBEDDING).log_survival, masses.predict(EMBEDDING).log_survival)
    assert torch.equal(one.risk(EMBEDDING), masses.risk(EMBEDDING))
    incidence = one.predict_incidence(EMBEDDING).incidence(1)
    torch.testing.assert_close(incidence, 1 - masses.predict(EMBEDDING).survival)
    lost = one.cause_risk(EMBEDDING, 1)
    torch.testing.assert_close(lost, 7 + masses.risk(EMBEDDING))


def test_masses_of_all_causes_and_the_tail_sum_to_1() -> None:
    prediction = head().predict_incidence(EMBEDDING)
    total = prediction.pmf.sum((0, 2)) + prediction.overall().survival[:, -1]
    torch.testing.assert_close(total, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-14)


def test_permuting_the_causes_permutes_the_incidences() -> None:
    first = head(n_causes=3)
    second, order = copy.deepcopy(first), torch.tensor([2, 0, 1])
    with torch.no_grad():
        for weight in (second.linear.weight, second.linear.bias):
            weight.copy_(weight.clone().unflatten(0, (3, len(GRID)))[order].flatten(0, 1))
    before, after = first.predict_incidence(EMBEDDING), second.predict_incidence(EMBEDDING)
    torch.testing.assert_close(after.cumulative_incidence, before.cumulative_incidence[order])
    torch.testing.assert_close(second.risk(EMBEDDING), first.risk(EMBEDDING))
    torch.testing.assert_close(second.cause_risk(EMBEDDING, 1), first.cause_risk(EMBEDDING, 3))
    renamed = replace(OUTCOME, event=torch.cat([torch.zeros(1).long(), order.argsort() + 1])[OUTCOME.event])
    torch.testing.assert_close(second.loss(EMBEDDING, renamed), first.loss(EMBEDDING, OUTCOME))


def test_alpha_mixes_the_two_losses() -> None:
    likelihood = competing_pmf_loss(head().logits(EMBEDDING), OUTCOME, GRID)
    incidence = head().predict_incidence(EMBEDDING).cumulative_incidence.transpose(0, 1)
    ranking = ranking_loss(incidence, OUTCOME, GRID, sigma=0.1)
    for alpha in (0.0, 0.2, 1.0):
        mixed = alpha * likelihood + (1 - alpha) * ranking
        torch.testing.assert_close(head(alpha=alpha).loss(EMBEDDING, OUTCOME), mixed)


def test_the_causes_of_a_network_stand_one_after_the_other() -> None:
    network = nn.Linear(2, 6).double()
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([5.0, 5.0, 5.0, -5.0, -5.0, -5.0]))
    prediction = DeepHit(2, GRID, n_causes=2, network=network).predict_incidence(EMBEDDING)
    assert bool((prediction.incidence(1) > 0.3).all())
    assert bool((prediction.incidence(2) < 0.001).all())


def test_time_lost_to_the_causes_and_the_mean_fill_the_grid() -> None:
    lost = head().cause_risk(EMBEDDING, 1) + head().cause_risk(EMBEDDING, 2)
    torch.testing.assert_close(lost - head().risk(EMBEDDING), torch.full((6,), 7.0).double())


def test_between_edges_the_density_of_each_cause_is_constant() -> None:
    prediction = head().predict_incidence(EMBEDDING, torch.tensor([1.0, 1.5, 2.0, 3.0], dtype=torch.float64))
    assert prediction.interpolation is Interpolation.LINEAR
    steps = prediction.cumulative_incidence.diff(dim=2)
    torch.testing.assert_close(steps[:, :, 0], steps[:, :, 1])
    torch.testing.assert_close(steps[:, :, 2], 2 * steps[:, :, 0])


def test_it_tells_causes_apart_by_protocol() -> None:
    assert isinstance(head(), CompetingRisksHead)


def test_two_causes_learn_their_own_covariate() -> None:
    generator = torch.Generator().manual_seed(3)
    embedding = torch.randn((400, 2), generator=generator, dtype=torch.float64)
    waits = (
        torch.empty((400, 2), dtype=torch.float64).exponential_(0.15, generator=generator) / embedding.mul(1.5).exp()
    )
    first = waits.min(1)
    outcome = SurvivalOutcome(first.values.clamp(0.01, 7.0), (first.values < 7) * (first.indices + 1), "months")
    fitted = head()
    optimiser = torch.optim.Adam(fitted.parameters(), lr=0.1)
    for _ in range(80):
        optimiser.zero_grad()
        fitted.loss(embedding, outcome).mean().backward()
        optimiser.step()
    for cause in (1, 2):
        risk = fitted.cause_risk(embedding, cause).detach()
        agreement = [float(torch.corrcoef(torch.stack([risk, column]))[0, 1]) for column in embedding.T]
        assert agreement[cause - 1] > 0.6
        assert agreement[2 - cause] < 0.2


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="`n_causes` must be >= 1; got 0"):
        DeepHit(2, GRID, n_causes=0)
    with pytest.raises(InvalidValueError, match=r"`alpha` must lie in \[0, 1\]; got 1.5"):
        DeepHit(2, GRID, alpha=1.5)
    with pytest.raises(InvalidValueError, match="`sigma` must be finite"):
        DeepHit(2, GRID, sigma=0.0)
    with pytest.raises(InvalidValueError, match=r"1 .. 1; got cause 2 at position 1.* n_causes=2"):
        head(n_causes=1).loss(EMBEDDING, OUTCOME)
    with pytest.raises(InvalidValueError, match=r"\(instances, 6\); got \(6, 3\)"):
        DeepHit(2, GRID, n_causes=2, network=nn.Linear(2, 3).double()).predict(EMBEDDING)
    with pytest.raises(InvalidValueError, match="`cause` must lie in 1 .. 2; got 3"):
        head().cause_risk(EMBEDDING, 3)


def test_settings_show_when_printed() -> None:
    assert "in_features=2, intervals=3, last=7, n_causes=2, alpha=0.2, sigma=0.1" in repr(head())
