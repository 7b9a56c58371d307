"""GradSHAP over time: the exact mean over references, with the error of drawing them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from contracts.head_rows import HEADS, example, fitted
from explain.kinked_networks import model, network, table
from survlens.core.inputs import count_key, select_rows
from survlens.core.targets import cumulative_hazard, survival
from survlens.encoders.pooling import MeanPooling, MultipleInstance
from survlens.explain.expected import GradSHAP
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.references import References
from survlens.models.survival_model import SurvivalModel

TIMES = torch.tensor([4.3, 7.7, 12.5, 18.0, 33.4], dtype=torch.float64)
TRAINING = table(60, 40)


def test_one_reference_is_integrated_gradients() -> None:
    subject, inputs, one = model(network(["ReLU", "ReLU"], 3)), table(3, 1), References.sample(TRAINING, 1)
    found = GradSHAP(one)(subject, inputs, TIMES)["table"]
    expected = IntegratedGradients(one)(subject, inputs, TIMES)["table"]
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=0)
    assert found.sampling_error is None
    assert (found.method, expected.method) == ("GradSHAP", "IntGrad")


SEVERAL = References.sample(TRAINING, 5)


@pytest.fixture(scope="module")
def single() -> torch.Tensor:
    """Contributions against each of the references alone."""
    alone = [References(select_rows(SEVERAL.inputs, torch.tensor([row])), "one") for row in range(len(SEVERAL))]
    subject = model(network(["ReLU", "ReLU"], 3))
    return torch.stack([IntegratedGradients(each)(subject, table(2, 1), TIMES)["table"].values for each in alone])


@pytest.mark.parametrize("memory", [1, 10_000, 2**29])
def test_the_mean_and_its_standard_error_are_those_over_single_references(memory: int, single: torch.Tensor) -> None:
    subject, inputs = model(network(["ReLU", "ReLU"], 3)), table(2, 1)
    found = GradSHAP(SEVERAL, memory=memory)(subject, inputs, TIMES)["table"]
    torch.testing.assert_close(found.values, single.mean(0), rtol=0, atol=1e-13)
    assert found.sampling_error is not None
    torch.testing.assert_close(found.sampling_error, single.std(0) / 5**0.5, rtol=1e-9, atol=1e-14)
    gap = found.completeness_gap
    assert gap is not None
    assert float(gap.abs().max()) < 1e-12


def test_the_standard_error_covers_what_more_references_would_say() -> None:
    subject, inputs = model(network(["ReLU", "ReLU"], 3)), table(2, 1)
    large = table(3000, 50)
    truth = GradSHAP(References.all(large))(subject, inputs, TIMES)["table"].values
    ratios = []
    for seed in range(12):
        found = GradSHAP(References.sample(large, 25, seed=seed))(subject, inputs, TIMES)["table"]
        assert found.sampling_error is not None
        ratios.append((found.values - truth) / found.sampling_error.clamp(min=1e-12))
    spread = torch.stack(ratios).square().mean().sqrt()
    assert 0.6 < float(spread) < 1.5


def test_weights_of_references_count() -> None:
    subject, inputs = model(network(["ReLU"], 3)), table(2, 1)
    centres = References.k_means(TRAINING, 5)
    repeated = (centres.weights * 60).round().long()
    rows = References(select_rows(centres.inputs, torch.arange(5).repeat_interleave(repeated)), "repeated")
    found, expected = (GradSHAP(each)(subject, inputs, TIMES)["table"] for each in (centres, rows))
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-13)
    assert found.sampling_error is None


def test_the_same_seed_gives_the_same_and_permuted_references_too() -> None:
    subject, inputs, several = model(network(["ReLU"], 3)), table(2, 1), References.sample(TRAINING, 6, seed=5)
    found, again = (GradSHAP(each)(subject, inputs, TIMES)["table"].values for each in (several, several))
    assert torch.equal(found, again)
    backwards = replace(several, inputs=select_rows(several.inputs, torch.arange(5, -1, -1)))
    other = GradSHAP(backwards)(subject, inputs, TIMES)["table"].values
    torch.testing.assert_close(other, found, rtol=0, atol=1e-14)


def test_survival_and_cumulative_hazard_agree_where_little_changes() -> None:
    subject, inputs = model(network(["ReLU"], 3)), table(2, 1)
    near = References({"table": inputs["table"][:1] + 1e-6}, "nearby")
    of_survival, of_hazard = GradSHAP(near).of_targets(
        subject, select_rows(inputs, torch.tensor([0])), TIMES, [survival, cumulative_hazard]
    )
    survived = of_survival["table"].prediction
    assert survived is not None
    expected = -survived[:, None] * of_hazard["table"].values
    torch.testing.assert_close(of_survival["table"].values, expected, rtol=1e-4, atol=1e-14)


def test_items_of_a_bag_get_their_mean_and_error() -> None:
    class Tile(nn.Module):
        out_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.flatten(1)).tanh()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = MultipleInstance(Tile(), MeanPooling())
    subject = SurvivalModel({"image": encoder}, fitted(HEADS["CoxPH"], example())).double()
    generator = torch.Generator().manual_seed(1)

    def bags(counts: list[int]) -> dict[str, torch.Tensor]:
        images = torch.rand((sum(counts), 1, 2, 2), generator=generator).double()
        return {"image": images, count_key("image"): torch.tensor(counts)}

    inputs, references = bags([2, 3]), References.all(bags([1, 2, 3]))
    found = GradSHAP(references, tolerance=1e-10)(subject, inputs, TIMES)["image"]
    little = GradSHAP(references, tolerance=1e-10, memory=1)(subject, inputs, TIMES)["image"]
    assert found.rows is not None
    assert found.rows.tolist() == [0, 0, 1, 1, 1]
    assert found.completeness_gap is not None
    assert found.sampling_error is not None
    assert little.sampling_error is not None
    assert float(found.completeness_gap.abs().max()) < 1e-9
    torch.testing.assert_close(little.values, found.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(little.sampling_error, found.sampling_error, rtol=1e-9, atol=1e-13)
