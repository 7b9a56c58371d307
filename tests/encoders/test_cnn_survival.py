"""The network of CNN-Survival has the published numbers of weights, and its pieces are what they say."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.encoders.cnn_survival import CNNSurvivalEncoder, left_of
from survlens.models.cnn_survival import cnn_survival, half_life_grid


def test_the_published_network_has_the_published_numbers_of_weights():
    model = cnn_survival(half_life_grid(60.0, "months"))
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    moving = sum(value.numel() for name, value in model.named_buffers() if "running" in name)
    assert (trainable, moving, trainable + moving) == (73_203, 384, 73_587)
    encoder = model.encoders["image"]
    assert [sum(w.numel() for w in layer.parameters()) for layer in encoder.dense] == [0, 25_632, 0]
    assert sum(weight.numel() for weight in model.head.parameters()) == 627
    kinds = [type(layer).__name__ for layer in encoder.stages]
    assert kinds == (["Conv2d", "ReLU", "BatchNorm2d"] * 2 + ["MaxPool2d", "Dropout"]) * 3


def test_features_and_interval_outputs_are_32_and_19():
    model = cnn_survival(half_life_grid(60.0, "months")).eval()
    slices = {"image": torch.rand(2, 1, 140, 140, generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():
        assert model.embed(slices).shape == (2, 32)
        assert model.head.raw(model.embed(slices)).shape == (2, 19)


def test_forward_equals_the_layers_written_out():
    encoder = CNNSurvivalEncoder(1, (20, 22), channels=3, features=4, pools=(2, 2, 2), padded=True).eval()
    weights = encoder.state_dict()
    x = y = torch.rand(3, 1, 20, 22, generator=torch.Generator().manual_seed(1))
    convolutions = [name for name in weights if name.startswith("stages") and weights[name].ndim == 4]
    for place, name in enumerate(convolutions):
        at = int(name.split(".")[1])
        y = F.relu(F.conv2d(F.pad(y, (1, 1, 1, 1)), weights[name], weights[f"stages.{at}.bias"]))
        mean, spread = (weights[f"stages.{at + 2}.running_{word}"][:, None, None] for word in ("mean", "var"))
        scale, shift = (weights[f"stages.{at + 2}.{word}"][:, None, None] for word in ("weight", "bias"))
        y = (y - mean) / torch.sqrt(spread + 1e-5) * scale + shift
        y = F.max_pool2d(y, 2) if place % 2 else y
    y = F.relu(y.flatten(1) @ weights["dense.1.weight"].T + weights["dense.1.bias"])
    torch.testing.assert_close(encoder(x), y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("side", "left"), [(140, 5), (54, 1), (53, 0)])
def test_what_is_left_of_a_side(side, left):
    assert left_of(side, (2, 3, 3), padded=False) == left
    if left:
        assert CNNSurvivalEncoder(1, (side, side), channels=2, features=2).dense[1].in_features == 2 * left**2


def test_slices_that_vanish_are_refused_with_the_way_out():
    with pytest.raises(InvalidValueError, match="padded=True"):
        CNNSurvivalEncoder(1, (32, 32))
    assert CNNSurvivalEncoder(1, (32, 32), padded=True).dense[1].in_features == 32
    with pytest.raises(InvalidValueError, match=r"got \(1, 20, 20\)"):
        CNNSurvivalEncoder(1, (32, 32), padded=True)(torch.zeros(1, 1, 20, 20))


def test_intervals_hold_equal_shares_of_an_exponential_time():
    grid = half_life_grid(60.0, "months")
    half_life = 60.0 / math.log2(20)
    survival = torch.exp(-grid.edges * math.log(2) / half_life)
    torch.testing.assert_close(-survival.diff(), torch.full((19,), 0.05, dtype=torch.float64))
    assert len(grid) == 19
    assert float(grid.edges[-1]) == 60.0


def test_survival_at_18_months_lies_within_its_interval_on_a_line_in_log_survival():
    model = cnn_survival(half_life_grid(60.0, "months"), (8, 8), channels=2, padded=True, pools=(2, 2, 2)).eval()
    slices = {"image": torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
    edges = model.head.grid.edges
    with torch.no_grad():
        curve, asked = model.predict_survival(slices), model.predict_survival(slices, torch.tensor([18.0]).double())
    right = int(torch.searchsorted(edges, 18.0))
    share = (18.0 - edges[right - 1]) / (edges[right] - edges[right - 1])
    assert 0 < float(share) < 1
    before, after = curve.log_survival[:, right - 2], curve.log_survival[:, right - 1]
    torch.testing.assert_close(asked.log_survival[:, 0], before + share * (after - before))


def test_likelihood_is_that_of_the_paper():
    """Survived: event at or past the upper edge, censored at or past the midpoint; late events are censored."""
    model = cnn_survival(half_life_grid(60.0, "months"), (8, 8), channels=2, padded=True, pools=(2, 2, 2)).eval()
    edges = model.head.grid.edges.tolist()
    middle = (edges[3] + edges[4]) / 2
    times = [edges[3] + 1e-6, edges[4], middle, middle - 1e-6, 61.0, 61.0, edges[1]]
    events = [1, 1, 0, 0, 1, 0, 0]
    logits = torch.randn(7, 19, generator=torch.Generator().manual_seed(2))
    expected = []
    for time, event, row in zip(times, events, logits.double(), strict=True):
        total = 0.0
        for j in range(19):
            lower, upper = edges[j], edges[j + 1]
            died = event == 1 and lower < time <= upper
            survived = time > upper if event else time >= (lower + upper) / 2
            total += float(died * F.softplus(-row[j]) + survived * F.softplus(row[j]))
        expected.append(total)
    head = model.head
    head.network = nn.Identity()
    head.in_features = 19
    loss = head.loss(logits, SurvivalOutcome.from_arrays(times, events, "months"))
    torch.testing.assert_close(loss.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_weights():
    one, other, third = (
        cnn_survival(half_life_grid(9.0, "months"), (8, 8), padded=True, pools=(2, 2, 2), seed=s) for s in (3, 3, 4)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(third.parameters()))
