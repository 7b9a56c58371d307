"""Integrated gradients over time: laws, known truth, and what the attribution says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, example, fitted
from explain.kinked_networks import model, network, table
from survlens.core.errors import InvalidTypeError
from survlens.core.inputs import select_rows
from survlens.core.targets import cumulative_hazard, density, restricted_mean, survival
from survlens.encoders.cnn import CNN
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.path_rules.exact_pieces import ExactPieces
from survlens.explain.references import Blurred, References
from survlens.models.survival_model import SurvivalModel

TIMES = torch.tensor([4.3, 7.7, 12.5, 18.0, 33.4], dtype=torch.float64)
TRAINING = table(20, 40)
MEAN = References.mean(TRAINING)


def linear_cox(weights: Tensor) -> SurvivalModel:
    head: Any = fitted(HEADS["CoxPH"], example())
    head.in_features, head.linear = len(weights), nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        head.linear.weight.copy_(weights[None])
    return SurvivalModel(nn.Identity(), head).eval()


def test_a_linear_log_risk_has_its_closed_form() -> None:
    weights = torch.tensor([0.8, -0.5, 0.0, 1.1], dtype=torch.float64)
    subject, inputs = linear_cox(weights), table(4, 3)
    found = IntegratedGradients(MEAN)(subject, inputs, TIMES)["table"]
    moved = weights * (inputs["table"] - MEAN.inputs["table"])
    now, before = (subject.predict_survival(each, TIMES).survival for each in (inputs, MEAN.inputs))
    expected = (moved / moved.sum(1, keepdim=True))[..., None] * (now - before)[:, None]
    torch.testing.assert_close(found.values, expected.detach(), rtol=0, atol=1e-13)


def test_the_attribution_says_how_good_it_is() -> None:
    subject, inputs = model(network(["ReLU", "ReLU"], 2)), table(3, 3)
    found = IntegratedGradients(MEAN)(subject, inputs, TIMES)["table"]
    assert found.additive
    assert found.sampling_error is None
    assert found.completeness_gap is not None
    assert found.quadrature_error is not None
    assert float(found.completeness_gap.abs().max()) < 1e-12
    assert float(found.quadrature_error.max()) < 1e-12
    assert found.prediction is not None
    assert found.reference_prediction is not None
    torch.testing.assert_close(found.total, found.prediction - found.reference_prediction, rtol=0, atol=1e-12)
    now = subject.predict_survival(inputs, TIMES).survival
    torch.testing.assert_close(found.prediction, now.detach(), rtol=0, atol=1e-12)
    assert found.reference == "mean of the training rows"
    assert found.method == "IntGrad"


def test_at_the_reference_there_is_nothing_to_explain() -> None:
    found = IntegratedGradients(MEAN)(model(network(["ReLU"], 2)), MEAN.inputs, TIMES)["table"]
    assert float(found.values.abs().max()) == 0


def test_one_time_is_many_and_a_batch_is_its_members() -> None:
    subject, inputs = model(network(["ReLU", "absolute"], 2), "LogisticHazard"), table(4, 3)
    explainer = IntegratedGradients(MEAN)
    whole = explainer(subject, inputs, TIMES)["table"]
    alone = explainer(subject, inputs, TIMES[2:3])["table"]
    torch.testing.assert_close(alone.values[..., 0], whole.values[..., 2], rtol=0, atol=1e-12)
    member = explainer(subject, select_rows(inputs, torch.tensor([2])), TIMES)["table"]
    torch.testing.assert_close(member.values[0], whole.values[2], rtol=0, atol=1e-12)


def test_several_targets_share_the_network_and_are_each_of_them() -> None:
    subject, inputs = model(network(["ReLU", "absolute"], 2), "PCHazard"), table(3, 3)
    targets = [survival, cumulative_hazard, density, restricted_mean(25.0)]
    together = IntegratedGradients(MEAN).of_targets(subject, inputs, TIMES, targets)
    for target, found in zip(targets, together, strict=True):
        alone = IntegratedGradients(MEAN)(subject, inputs, TIMES, target)["table"]
        assert found["table"].target == target.name
        torch.testing.assert_close(found["table"].values, alone.values, rtol=0, atol=1e-13)
        gap = found["table"].completeness_gap
        assert gap is not None
        assert float(gap.abs().max()) < 1e-10


def test_the_mean_over_two_references_is_the_mean_of_both() -> None:
    subject, inputs = model(network(["ReLU", "absolute"], 2)), table(3, 3)
    rows = References(select_rows(TRAINING, torch.tensor([1, 4])), "two", torch.tensor([0.25, 0.75]))
    both = IntegratedGradients(rows)(subject, inputs, TIMES)["table"].values
    single = [
        IntegratedGradients(References(select_rows(TRAINING, torch.tensor([row])), "one"))(subject, inputs, TIMES)
        for row in (1, 4)
    ]
    expected = 0.25 * single[0]["table"].values + 0.75 * single[1]["table"].values
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-13)


def test_a_picture_against_its_own_blurred_self() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3))
    subject = SurvivalModel({"image": encoder}, fitted(HEADS["CoxPH"], example())).double().eval()
    inputs = {"image": torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.float64)}
    found = IntegratedGradients(Blurred(1.5))(subject, inputs, TIMES)["image"]
    assert found.dims == ("channel", "height", "width")
    assert found.completeness_gap is not None
    assert float(found.completeness_gap.abs().max()) < 1e-12
    assert "blurred by 1.5 pixels" in found.reference


def test_a_larger_picture_gets_segments_with_an_error_estimate() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CNN(1, channels=(4, 8))
    head = fitted(HEADS["CoxPH"], example())
    head.in_features, head.linear = encoder.out_features, nn.Linear(encoder.out_features, 1, bias=False)
    subject = SurvivalModel({"image": encoder}, head).double().eval()
    inputs = {"image": torch.rand((1, 1, 48, 48), generator=torch.Generator().manual_seed(1), dtype=torch.float64)}
    found = IntegratedGradients(Blurred(2.0), tolerance=1e-2)(subject, inputs, TIMES)["image"]
    assert found.quadrature_error is not None
    assert float(found.quadrature_error.max()) <= 1e-2 * float(found.values.abs().max())


def test_the_rule_can_be_chosen_and_modalities_restricted() -> None:
    subject = SurvivalModel({"a": nn.Linear(2, 2), "b": nn.Linear(2, 1)}, fitted(HEADS["CoxPH"], example())).double()
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn((5, 2), generator=generator).double() for name in "ab"}
    references = References.mean(inputs)
    both = IntegratedGradients(references, ExactPieces())(subject, inputs, TIMES)
    only = IntegratedGradients(references, modalities=("b",))(subject, inputs, TIMES)
    assert set(only) == {"b"}
    assert only["b"].completeness_gap is None
    torch.testing.assert_close(only["b"].values, both["b"].values, rtol=0, atol=1e-13)
    total = both["a"].total + both["b"].total
    prediction, reference = both["a"].prediction, both["a"].reference_prediction
    assert prediction is not None
    assert reference is not None
    torch.testing.assert_close(total, prediction - reference, rtol=0, atol=1e-12)


def test_references_are_never_made_up() -> None:
    with pytest.raises(TypeError):
        IntegratedGradients()  # type: ignore[call-arg]
    with pytest.raises(InvalidTypeError, match="`references` must say what to compare with"):
        IntegratedGradients(table(3, 0))(model(network(["ReLU"], 2)), table(3, 0), TIMES)  # type: ignore[arg-type]
