"""Objectives equal their formulas, and a validation in batches equals one in a single go."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Reduction
from survlens.heads.cox import CoxPH
from survlens.training.objectives import CoxVAEObjective, SurvivalObjective, TrainingProgress, ValidatedObjective

START = TrainingProgress(0, 100, 0, 10)


def number(tensor: torch.Tensor) -> float:
    return float(tensor.detach())


@dataclass
class Terms:
    reconstruction: torch.Tensor
    kl: torch.Tensor
    embedding_mean: torch.Tensor
    embedding_draw: torch.Tensor
    n_values: int


class TinyVAE(nn.Module):
    """A generative model in one dimension fewer than its inputs: all parts written out."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mean = nn.Parameter(torch.randn(6, 3, generator=generator))
        self.head = CoxPH(4)
        self.calls = 0

    def evidence(self, inputs, *, generator=None):
        mean = inputs["image"].flatten(1) @ self.mean
        draw = mean + torch.randn(mean.shape, generator=generator)
        kl = (mean**2) / 2
        return Terms(((draw @ self.mean.T - inputs["image"].flatten(1)) ** 2).sum(1), kl, mean, draw, 6)

    def head_loss(self, embedding, inputs, outcome):
        self.calls += 1
        return self.head.loss(torch.cat([embedding, inputs["table"]], dim=1), outcome)


def batch(count=20, seed=1):
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "image": torch.rand(count, 1, 2, 3, generator=generator),
        "table": torch.rand(count, 1, generator=generator),
    }
    time = torch.rand(count, generator=generator) + 0.1
    return inputs, SurvivalOutcome.from_arrays(time, torch.rand(count, generator=generator) > 0.4, "days")


def parts_of(inputs, outcome, *cuts):
    edges = [0, *cuts, len(outcome)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        yield {name: tensor[start:stop] for name, tensor in inputs.items()}, outcome[start:stop]


def test_the_survival_objective_is_the_loss_over_the_events(model, rows):
    network, source = model().eval(), rows()
    inputs, outcome = source.batch(torch.arange(40))
    value = SurvivalObjective()(network, inputs, outcome, START)
    assert number(value.total) == pytest.approx(number(network.loss(inputs, outcome).sum() / outcome.n_events))
    network.head.reduction = Reduction.PER_INSTANCE
    value = SurvivalObjective()(network, inputs, outcome, START)
    assert number(value.total) == pytest.approx(number(network.loss(inputs, outcome).sum() / 40))


def test_a_batch_without_events_is_zero_on_the_graph(model, rows):
    network = model()
    inputs, outcome = rows().batch(torch.arange(10))
    censored = SurvivalOutcome(outcome.time, torch.zeros_like(outcome.event), outcome.unit)
    total = SurvivalObjective()(network, inputs, censored, START).total
    total.backward()
    assert number(total) == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in network.parameters())


def test_validation_in_batches_has_the_full_risk_set(model, rows):
    network, source = model().eval(), rows(50)
    inputs, outcome = source.batch(torch.arange(50))
    whole = SurvivalObjective()(network, inputs, outcome, START).total
    pieces = SurvivalObjective().validate(network, parts_of(inputs, outcome, 13, 14, 40), START).total
    assert number(pieces) == pytest.approx(number(whole), rel=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("sample_head", [False, True])
def test_the_cox_vae_objective_is_its_formula(tau, sample_head):
    network, (inputs, outcome) = TinyVAE(), batch()
    objective = CoxVAEObjective(tau=tau, beta=2.0, sample_head=sample_head)
    progress = TrainingProgress(0, 1, 0, 1, torch.Generator().manual_seed(5))
    value = objective(network, inputs, outcome, progress)
    terms = network.evidence(inputs, generator=torch.Generator().manual_seed(5))
    bound = (terms.reconstruction + 2.0 * terms.kl.sum(1)) / 6
    latent = terms.embedding_draw if sample_head else terms.embedding_mean
    head = network.head_loss(latent, inputs, outcome).sum() / outcome.n_events
    assert number(value.total) == pytest.approx(number(tau * bound.mean() + (1 - tau) * head), rel=1e-6)
    assert not any(part.requires_grad for part in value.parts.values())


@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_overlap_of_dimensions_is_the_sum_of_squared_covariances(tau):
    network, (inputs, outcome) = TinyVAE(), batch()
    totals = []
    for weight in (0.0, 3.0):
        progress = TrainingProgress(0, 1, 0, 1, torch.Generator().manual_seed(5))
        objective = CoxVAEObjective(tau=tau, decorrelation=weight)
        totals.append(number(objective(network, inputs, outcome, progress).total))
    means = network.evidence(inputs).embedding_mean.detach().double().numpy()
    pairs = np.cov(means.T)[np.triu_indices(means.shape[1], 1)]
    expected = (1 - tau) * 3 * (pairs**2).sum()
    assert expected > 1e-3 or tau == 1
    assert totals[1] - totals[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_one_row_has_no_overlap():
    network, (inputs, outcome) = TinyVAE(), batch()
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    value = CoxVAEObjective(tau=0.5, decorrelation=1.0)(network, one, outcome[:1], START)
    assert float(value.parts["overlap"]) == 0


def test_tau_one_is_the_plain_vae():
    network, (inputs, outcome) = TinyVAE(), batch()
    value = CoxVAEObjective(tau=1.0)(network, inputs, outcome, START)
    value.total.backward()
    assert network.calls == 0
    assert network.head.linear.weight.grad is None
    assert "survival" not in value.parts


def test_the_kl_weight_warms_up():
    objective = CoxVAEObjective(tau=0.5, beta=4.0, warm_up_epochs=8)
    assert [objective.kl_weight(epoch) for epoch in (0, 2, 8, 20)] == [0.0, 1.0, 4.0, 4.0]
    assert CoxVAEObjective(tau=0.5, beta=4.0).kl_weight(0) == 4.0


def test_cox_vae_validation_in_batches_equals_one_go_and_does_not_warm_up():
    network, (inputs, outcome) = TinyVAE(), batch()

    class Silent(TinyVAE):
        def evidence(self, inputs, *, generator=None):
            terms = super().evidence(inputs)
            terms.embedding_draw = terms.embedding_mean
            terms.reconstruction = ((terms.embedding_mean @ self.mean.T - inputs["image"].flatten(1)) ** 2).sum(1)
            return terms

    network = Silent()
    objective = CoxVAEObjective(tau=0.3, warm_up_epochs=10, decorrelation=0.2)
    late = TrainingProgress(0, 1, 10, 10)
    whole = objective(network, inputs, outcome, late)
    pieces = objective.validate(network, parts_of(inputs, outcome, 1, 8), TrainingProgress(0, 1, 0, 10))
    assert number(pieces.total) == pytest.approx(number(whole.total), rel=1e-6)
    assert {name: float(part) for name, part in pieces.parts.items()} == pytest.approx(
        {name: float(part) for name, part in whole.parts.items()}, rel=1e-6
    )


def test_active_dimensions_are_counted():
    network, (inputs, outcome) = TinyVAE(), batch()
    with torch.no_grad():
        network.mean[:, 0] = 0
    assert float(CoxVAEObjective(tau=1.0)(network, inputs, outcome, START).parts["active_dimensions"]) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"tau": -0.1},
        {"tau": 1.5},
        {"tau": 0.5, "beta": -1},
        {"tau": 0.5, "warm_up_epochs": -1},
        {"tau": 0.5, "decorrelation": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InvalidValueError, match="must"):
        CoxVAEObjective(**settings)


def test_both_objectives_can_validate():
    assert isinstance(SurvivalObjective(), ValidatedObjective)
    assert isinstance(CoxVAEObjective(tau=0.5), ValidatedObjective)
