"""Random weights and random outcomes must change an explanation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evaluate.attribution_toys import TIMES, Network, attribution, drawn
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.evaluate.randomisation import Cascade, label_randomisation, randomised_copy, weight_randomisation
from survlens.evaluate.score_over_time import Intervals

FEW = Intervals(draws=200)
TABLE = drawn(40, 8, seed=9).float()


def gradients(model: nn.Module):
    table = TABLE.clone().requires_grad_(True)
    output = model(table)
    slopes = [torch.autograd.grad(output[:, k].sum(), table, retain_graph=True)[0] for k in range(len(TIMES))]
    return attribution(torch.stack(slopes, -1).double())


def trained(seed: int, effect: torch.Tensor) -> nn.Module:
    """A network that was fitted to a linear effect of unequal slopes."""
    model = Network(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    table = drawn(400, 8, seed=3).float()
    for _ in range(150):
        loss = ((model(table) - (table @ effect)[:, None]) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


EFFECT = torch.tensor([3.0, -2.0, 1.4, -1.0, 0.7, 0.3, 0.1, 0.0])
LEARNT = trained(0, EFFECT)
AGAIN = [gradients(trained(seed, EFFECT)) for seed in (1, 2)]


def test_random_weights_destroy_what_was_learnt_and_refits_do_not():
    found = weight_randomisation(LEARNT, gradients, refits=AGAIN, intervals=FEW)
    assert found.passed
    assert found.similarity.score.interval.upper < 0.4
    assert found.control.score.interval.lower > 0.8
    assert found.steps == ("layers.3", "layers.0")
    assert found.similarities[-1] is found.similarity
    assert found.similarity.score.settings["randomised"] == "layers.3, layers.0, layers.1"
    assert [score.name for score in found.scores] == ["weight_randomisation", "refit_similarity"]


def test_an_explanation_that_ignores_the_model_fails():
    blind = weight_randomisation(LEARNT, lambda model: attribution(drawn(40, 8, 3)), intervals=FEW)
    assert blind.similarity.score.value == 1
    assert not blind.passed
    loose = weight_randomisation(
        LEARNT, lambda model: attribution(drawn(40, 8, 3)), threshold=2.0, refits=AGAIN, intervals=FEW
    )
    assert not loose.passed


def test_single_layers_are_judged_by_the_most_similar():
    found = weight_randomisation(LEARNT, gradients, cascade=Cascade.ONE_LAYER, copies=2, intervals=FEW)
    values = [each.score.value for each in found.similarities]
    assert found.similarity.score.value == max(values)
    assert found.similarities[0].score.settings["randomised"] == "layers.3"
    assert found.similarities[1].score.settings["randomised"] == "layers.0, layers.1"


def test_a_copy_is_random_where_asked_and_the_model_stays():
    before = {name: value.clone() for name, value in LEARNT.state_dict().items()}
    state = torch.get_rng_state()
    copied, same, other = (randomised_copy(LEARNT, ["layers.3"], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weight_randomisation(LEARNT, gradients, copies=1, intervals=FEW)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in LEARNT.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(copied.state_dict()[name], same.state_dict()[name])
        assert torch.equal(copied.state_dict()[name], value) is not name.startswith("layers.3")
    assert not torch.equal(copied.state_dict()["layers.3.weight"], other.state_dict()["layers.3.weight"])


def test_parameters_without_a_rule_keep_their_mean_and_spread():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(5 + 2 * drawn(4000).float())

    model = Own()
    copied = randomised_copy(model, [""], seed=0)
    assert not torch.equal(copied.weight, model.weight)
    assert float(copied.weight.detach().mean()) == pytest.approx(float(model.weight.detach().mean()), abs=0.15)
    assert float(copied.weight.detach().std()) == pytest.approx(float(model.weight.detach().std()), rel=0.1)


def test_random_outcomes_destroy_what_was_learnt():
    generator = torch.Generator().manual_seed(0)
    permuted = [gradients(trained(seed, EFFECT[torch.randperm(8, generator=generator)])) for seed in (3, 4, 5)]
    found = label_randomisation(gradients(LEARNT), permuted, refits=AGAIN, intervals=FEW)
    assert found.passed
    assert found.steps == ("outcomes",)
    kept = label_randomisation(gradients(LEARNT), AGAIN, intervals=FEW)
    assert not kept.passed
    with pytest.raises(InvalidValueError, match="`permuted`"):
        label_randomisation(gradients(LEARNT), [])


def test_seeds_decide():
    one, same, other = (
        weight_randomisation(LEARNT, gradients, copies=1, seed=seed, intervals=FEW).similarity.per_instance
        for seed in (0, 0, 7)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_a_dead_network_has_a_similarity():
    found = weight_randomisation(
        *(
            LEARNT,
            lambda model: attribution(torch.zeros(40, 8, 3).double() if model is not LEARNT else drawn(40, 8, 3)),
        ),
        intervals=FEW,
    )
    assert found.similarity.score.value == 0
    assert found.passed


def test_layers_can_be_named_and_must_exist():
    found = weight_randomisation(LEARNT, gradients, layers=["layers.0"], copies=1, intervals=FEW)
    assert found.steps == ("layers.0",)
    with pytest.raises(InvalidValueError, match="`layers` must name modules"):
        weight_randomisation(LEARNT, gradients, layers=["nowhere"])
    with pytest.raises(InvalidValueError, match="`layers` must name modules"):
        weight_randomisation(nn.Identity(), gradients)
    with pytest.raises(InvalidTypeError, match="`cascade` must be a Cascade"):
        weight_randomisation(LEARNT, gradients, cascade="down")  # type: ignore[arg-type]
