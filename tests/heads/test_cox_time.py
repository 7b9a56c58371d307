"""What only the head of time-dependent risks does: its network, its baseline, its controls, and a truth to find."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import WIDTH, example
from contracts.strategies import UNIT
from survlens.core.errors import InvalidTypeError, InvalidValueError, NotFittedError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.heads import cox_time
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.models.saving import load_model, save_model


class Joined(nn.Module):
    """A network of pairs of an embedding and a time, as a user would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH + 1, 6), nn.ReLU(), nn.Linear(6, 1, bias=False))

    def forward(self, embedding: Tensor, when: Tensor) -> Tensor:
        return self.layers(torch.cat([embedding, when[:, None]], 1))[:, 0]


def heads(hidden: tuple[int, ...] = (6,)) -> CoxTime:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return CoxTime(WIDTH, time_scale=10.0, hidden=hidden).double()


def with_joined(head: CoxTime) -> CoxTime:
    network = Joined().double()
    network.layers[0].load_state_dict(head.pair_network.first.state_dict())
    network.layers[2].load_state_dict(head.pair_network.last.state_dict())
    return CoxTime(WIDTH, time_scale=10.0, network=network)


def test_the_default_network_is_a_perceptron_on_embedding_and_time() -> None:
    case, head = example(), heads()
    other = with_joined(head)
    times = torch.tensor([0.5, 10.0, 30.0], dtype=torch.float64)
    torch.testing.assert_close(head.log_risk(case.embedding, times), other.log_risk(case.embedding, times))
    torch.testing.assert_close(head.loss(case.embedding, case.outcome), other.loss(case.embedding, case.outcome))
    for one in (head, other):
        one.fit_baseline(case.embedding, case.outcome)
    torch.testing.assert_close(head.predict(case.embedding).log_survival, other.predict(case.embedding).log_survival)


def test_compiled_and_plain_networks_agree_to_the_second_derivative() -> None:
    head, embedding = heads(), example(6).embedding.requires_grad_()
    times = torch.tensor([0.5, 10.0, 30.0, 31.0], dtype=torch.float64)
    rows, when = head.pair_network.of_instances(embedding), times[:, None].log()
    compiled = head.pair_network(rows, when)
    plain = head.pair_network(rows[None], when)  # with an axis more, the plain way is taken
    torch.testing.assert_close(compiled, plain)
    parts = [embedding, *head.pair_network.parameters()]
    slopes = [torch.autograd.grad(values.square().sum(), parts, create_graph=True) for values in (compiled, plain)]
    torch.testing.assert_close(*slopes)
    second = [
        torch.autograd.grad(sum(part.square().sum() for part in slope), parts, retain_graph=True) for slope in slopes
    ]
    torch.testing.assert_close(*second)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own forward mode
def test_forward_mode_follows() -> None:
    head, embedding = heads(), example(5).embedding
    times = torch.tensor([0.5, 10.0], dtype=torch.float64)
    _, along = torch.func.jvp(lambda z: head.log_risk(z, times), (embedding,), (torch.ones_like(embedding),))
    step = 1e-6
    change = (head.log_risk(embedding + step, times) - head.log_risk(embedding - step, times)) / (2 * step)
    torch.testing.assert_close(along, change, rtol=1e-5, atol=1e-7)


def test_broken_values_are_not_hidden_by_the_compiled_network() -> None:
    head = heads()
    embedding = torch.full((2, WIDTH), float("nan"), dtype=torch.float64)
    assert bool(head.log_risk(embedding, torch.tensor([1.0])).isnan().all())
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], UNIT)
    assert bool(head.loss(embedding, outcome)[0].isnan())


def test_risks_that_do_not_change_give_the_proportional_hazards_model() -> None:
    class Fixed(nn.Module):
        def forward(self, embedding: Tensor, when: Tensor) -> Tensor:
            return embedding[:, 0] - 0.5 * embedding[:, 2]

    case = example()
    for ties in Ties:
        changing, proportional = CoxTime(WIDTH, time_scale=1.0, ties=ties, network=Fixed()), CoxPH(WIDTH, ties=ties)
        with torch.no_grad():
            proportional.double().linear.weight.copy_(torch.tensor([[1.0, 0.0, -0.5]]))
        for head in (changing, proportional):
            head.fit_baseline(case.embedding, case.outcome)
        first, second = changing.predict(case.embedding), proportional.predict(case.embedding)
        assert torch.equal(first.times, second.times)
        torch.testing.assert_close(first.log_survival, second.log_survival)


def test_curves_in_parts_are_the_same_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    case, head = example(), heads()
    head.fit_baseline(case.embedding, case.outcome)
    embedding = case.embedding.clone().requires_grad_()
    found = []
    for at_once, kept in ((2**16, 2**20), (60, 100)):
        monkeypatch.setattr(cox_time, "PAIRS_AT_ONCE", at_once)
        monkeypatch.setattr(cox_time, "PAIRS_KEPT", kept)
        survival = head.predict(embedding, torch.tensor([3.0, 20.0], dtype=torch.float64)).survival
        found.append((survival, torch.autograd.grad(survival.sum(), embedding)[0]))
    torch.testing.assert_close(*found)


def test_controls_are_drawn_in_training_only() -> None:
    case, head = example(), CoxTime(WIDTH, time_scale=10.0, controls=2).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = head.loss(case.embedding, case.outcome)
        second = head.loss(case.embedding, case.outcome)
        torch.manual_seed(0)
        again = head.loss(case.embedding, case.outcome)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    head.eval()
    whole = head.loss(case.embedding, case.outcome)
    assert torch.equal(whole, head.loss(case.embedding, case.outcome))
    assert bool((first <= whole + 4).all())
    head.controls = None
    assert torch.equal(whole, head.train().loss(case.embedding, case.outcome))


def test_a_common_baseline_of_several_strata_is_refused() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], UNIT, stratum=[0, 1])
    with pytest.raises(InvalidValueError, match="one stratum for a common baseline; got 2"):
        heads().fit_baseline(torch.zeros(2, WIDTH).double(), outcome)


def test_a_risk_needs_the_baseline() -> None:
    with pytest.raises(NotFittedError, match="fit_baseline"):
        heads().risk(torch.zeros(2, WIDTH).double())


def test_arguments_are_checked() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], UNIT)
    for wrong, words in (
        ({"time_scale": 0.0}, "`time_scale` must be finite and > 0"),
        ({"time_scale": 1.0, "controls": 0}, "`controls` must be >= 1"),
        ({"time_scale": 1.0, "hidden": ()}, "`hidden` must name at least one layer"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            CoxTime(WIDTH, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="at least one instance"):
        heads().fit_baseline(torch.zeros(0, WIDTH).double(), outcome[:0])
    with pytest.raises(InvalidValueError, match="diverged"):
        heads().fit_baseline(torch.full((2, WIDTH), float("inf")).double(), outcome)

    class Column(nn.Module):
        def forward(self, embedding: Tensor, when: Tensor) -> Tensor:
            return embedding[:, :1]

    with pytest.raises(InvalidValueError, match=r"`network` must map \(pairs, 3\) and \(pairs,\) to \(pairs,\)"):
        CoxTime(WIDTH, time_scale=1.0, network=Column()).loss(torch.zeros(2, WIDTH), outcome)


def test_a_network_of_ones_own_is_saved_by_its_name(tmp_path: Path) -> None:
    case, head = example(), with_joined(heads())
    head.fit_baseline(case.embedding, case.outcome)
    with pytest.raises(InvalidTypeError, match="Joined"):
        save_model(head, tmp_path)
    save_model(head.float(), tmp_path, modules={"Joined": Joined})
    loaded = load_model(tmp_path, modules={"Joined": Joined}).model
    embedding = case.embedding.float()
    assert torch.equal(loaded.predict(embedding).log_survival, head.predict(embedding).log_survival)  # type: ignore[operator]


def test_the_baseline_stays_in_float64_where_the_head_is_cast() -> None:
    case, head = example(), heads()
    head.fit_baseline(case.embedding, case.outcome)
    times = head.baseline.times.clone()
    head.half()
    assert torch.equal(head.baseline.times, times)
    assert head.pair_network.first.weight.dtype == torch.float16


def test_numba_is_not_imported_before_it_is_used() -> None:
    code = "import sys, survlens.heads.cox_time; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_an_effect_that_changes_its_sign_is_found(shared: Callable[..., Path]) -> None:
    """With h = 0.15 t^0.5 exp((6 log t - 3) x1 + 1.7 x2 - 2.4 x3), x1 protects until e^0.5 and harms from then on."""
    folder = shared("data", "simulations")
    columns = ["x1", "x2", "x3", "x4"]
    train, test = (pd.read_csv(folder / f"time_dependent_{part}.csv") for part in ("train", "test"))
    outcome = SurvivalOutcome.from_arrays(train["time"].to_numpy(), train["status"].to_numpy(int), "years")
    embedding = torch.from_numpy(train[columns].to_numpy("float32"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = CoxTime(4, time_scale=float(outcome.time.median()), hidden=(64,))
        optimiser = torch.optim.Adam(head.parameters(), lr=0.01)
        for _ in range(25):
            for rows in torch.randperm(len(outcome)).split(256):
                optimiser.zero_grad()
                head.loss(embedding[rows], outcome[rows]).mean().backward()
                optimiser.step()
    head.eval()
    head.fit_baseline(embedding, outcome)
    x = torch.from_numpy(test[columns].to_numpy("float64"))
    times = torch.linspace(0.25, 0.95 * float(outcome.time.max()), 40, dtype=torch.float64)
    power = 6 * x[:, :1] + 1.5
    truth = torch.exp(-0.15 * times**power / power * torch.exp(-3 * x[:, :1] + 1.7 * x[:, 1:2] - 2.4 * x[:, 2:3]))
    found = head.predict(x.float(), times).survival.detach()
    assert float((found - truth).abs().mean()) < 0.03
    low, high = torch.tensor([[0.1, 0.0, 0.0, 0.0]]), torch.tensor([[0.9, 0.0, 0.0, 0.0]])
    effect = head.log_risk(high, torch.tensor([0.8, 3.0])) - head.log_risk(low, torch.tensor([0.8, 3.0]))
    assert float(effect.detach()[0, 0]) < 0 < float(effect.detach()[0, 1])
