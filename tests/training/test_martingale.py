"""Cox's model from a memory of risks: exact when fresh, and usable in batches of one."""

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.evaluate.concordance import concordance_index
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.losses.cox import cox_partial_likelihood
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import fit
from survlens.training.martingale import MartingaleObjective, NumberedSource, RiskMemory
from survlens.training.objectives import SurvivalObjective, TrainingProgress
from survlens.training.settings import FitSettings


def _progress(step):
    return TrainingProgress(step, 100, 0, 1)


def _gradient(model, total):
    model.zero_grad()
    total.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def _full_gradient(model, source):
    log_risk = model.head.log_risk(model.embed(source.inputs))
    loss = cox_partial_likelihood(log_risk, source.outcome, ties=Ties.BRESLOW).sum() / len(source)
    return _gradient(model, loss)


def test_a_batch_of_all_has_the_gradient_of_the_partial_likelihood(rows, model):
    source, network = rows(80), model(dropout=0.0, batch_norm=False)
    objective = MartingaleObjective(source.outcome)
    inputs, outcome = NumberedSource(source).batch(torch.randperm(80, generator=torch.Generator().manual_seed(0)))
    ours = _gradient(network, objective(network, inputs, outcome, _progress(0)).total)
    torch.testing.assert_close(ours, _full_gradient(network, source), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_the_mean_gradient_of_batches_is_that_of_all_once_the_memory_is_fresh(rows, model, batch):
    source, network = rows(48), model(dropout=0.0, batch_norm=False)
    objective, numbered = MartingaleObjective(source.outcome), NumberedSource(source)
    objective(network, *numbered.batch(torch.arange(48)), _progress(0))
    parts = [
        _gradient(network, objective(network, *numbered.batch(picked), _progress(1)).total)
        for picked in torch.arange(48).split(batch)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(0), _full_gradient(network, source), rtol=1e-3, atol=1e-6)


def test_a_batch_of_one_without_an_event_says_that_it_survived(rows, model):
    source, network = rows(40), model(dropout=0.0, batch_norm=False)
    objective, numbered = MartingaleObjective(source.outcome), NumberedSource(source)
    objective(network, *numbered.batch(torch.arange(40)), _progress(0))
    late = (source.outcome.event == 0).nonzero()[:, 0]
    late = late[source.outcome.time[late].argmax()][None]
    assert _gradient(network, objective(network, *numbered.batch(late), _progress(1)).total).abs().sum() > 0
    plain = SurvivalObjective()(network, *source.batch(late), _progress(1)).total
    assert _gradient(network, plain).abs().sum() == 0


def test_a_memory_without_events_gives_finite_zeros(rows, model):
    source, network = rows(40), model(dropout=0.0, batch_norm=False)
    censored = SurvivalOutcome.from_arrays(source.outcome.time, torch.zeros(40).long(), "months")
    objective = MartingaleObjective(censored)
    value = objective(network, *NumberedSource(TensorSource(source.inputs, censored)).batch([3, 5]), _progress(0))
    assert float(value.total.detach()) == 0.0
    assert _gradient(network, value.total).abs().sum() == 0


def test_only_those_seen_make_the_hazard():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 0], "months")
    memory = RiskMemory(outcome)
    memory.remember(torch.tensor([1, 3]), torch.tensor([0.3, -0.2]))
    curve = memory.log_hazard()
    np.testing.assert_allclose(curve.times, [2.0])
    np.testing.assert_allclose(np.exp(curve.values), 1 / (np.exp(0.3) + np.exp(-0.2)), rtol=1e-6)
    memory.forget()
    assert len(memory.log_hazard().times) == 0


def test_the_hazard_is_made_anew_every_so_many_steps(rows, model):
    source, network = rows(30), model(dropout=0.0, batch_norm=False)
    objective, numbered = MartingaleObjective(source.outcome, refresh=3), NumberedSource(source)
    curves = []
    for step in range(7):
        objective(network, *numbered.batch([4 * step, 4 * step + 1]), _progress(step))
        curves.append(objective._log_hazard)
    assert [curves[i] is curves[i - 1] for i in range(1, 7)] == [True, True, False, True, True, False]


@pytest.mark.slow
def test_batches_of_one_reach_what_the_whole_cohort_reaches():
    """The plain loss learns nothing from batches of one."""

    def cohort(seed, count):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(count, 4, generator=generator)
        time = -torch.log(torch.rand(count, generator=generator)) * torch.exp(-1.5 * table[:, 0]) + 1e-3
        outcome = SurvivalOutcome.from_arrays(time, torch.rand(count, generator=generator) > 0.5, "months")
        return TensorSource({"table": table}, outcome)

    train, test = cohort(0, 150), cohort(1, 300)

    def reached(objective, source, batch, epochs, rate):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = SurvivalModel(MLP(4, (8,)), CoxPH(8))
        fit(network, source, None, objective, FitSettings(epochs=epochs, batch=batch, learning_rate=rate))
        with torch.no_grad():
            return concordance_index(network.risk(test.inputs), test.outcome).value

    whole = reached(SurvivalObjective(), train, 150, 60, 0.01)
    one = reached(MartingaleObjective(train.outcome, refresh=5), NumberedSource(train), 1, 8, 0.003)
    assert one > whole - 0.02


def test_the_same_seed_gives_the_same_weights(rows, model, weights):
    source, found = rows(40), []
    objective = MartingaleObjective(source.outcome, refresh=2)
    for _ in range(2):
        network = model()
        history = fit(
            network,
            NumberedSource(source),
            rows(30, seed=1),
            objective,
            FitSettings(epochs=2, batch=8, learning_rate=0.01),
        )
        found.append(weights(network))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert all(np.isfinite(row.validation["total"]) for row in history.rows)


def test_wrong_use_is_explained(rows, model):
    source = rows(20)
    objective = MartingaleObjective(source.outcome)
    with pytest.raises(InvalidValueError, match="NumberedSource"):
        objective(model(), *source.batch([0, 1]), _progress(0))
    with pytest.raises(InvalidTypeError, match="CoxPH; got LogisticHazard"):
        objective(
            SurvivalModel(MLP(4, (8,)), LogisticHazard(8, TimeGrid.equidistant(9.0, 3, "months"))),
            *NumberedSource(source).batch([0, 1]),
            _progress(0),
        )
    with pytest.raises(InvalidValueError, match="train.outcome"):
        objective(model(), *NumberedSource(rows(40)).batch([30, 31]), _progress(0))
    with pytest.raises(InvalidValueError, match="`refresh`"):
        MartingaleObjective(source.outcome, refresh=0)
    strata = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 1], "months", stratum=[0, 1])
    with pytest.raises(InvalidValueError, match="no strata"):
        MartingaleObjective(strata)
    with pytest.raises(InvalidValueError, match="called 'row'"):
        NumberedSource(TensorSource({"row": torch.zeros(20, 1)}, source.outcome)).batch([0])
