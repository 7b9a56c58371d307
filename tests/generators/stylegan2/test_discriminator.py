"""The discriminator against loops in float64, and its laws."""

import numpy as np
import pytest
import torch

from generators.stylegan2 import stylegan2_oracle as oracle
from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2.discriminator import Discriminator, minibatch_deviation
from survlens.generators.stylegan2.shape import StyleGAN2Shape

SHAPE = StyleGAN2Shape(16, channel_base=64, channel_max=8, minibatch_group=2)


def trained(shape: StyleGAN2Shape = SHAPE, seed: int = 0) -> Discriminator:
    """A discriminator none of whose tensors is at its start value."""
    network, source = Discriminator(shape, seed=seed), torch.Generator().manual_seed(seed + 100)
    for name, tensor in network.state_dict().items():
        if not name.endswith("resample_filter"):
            tensor += 0.2 * torch.randn(tensor.shape, generator=source)
    return network


def _arrays(network: Discriminator) -> oracle.Tensors:
    return {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}


def _pictures(instances: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(instances, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("limit", [None, 1.0])
def test_logits_and_features_equal_the_oracle(limit: float | None) -> None:
    network = trained(StyleGAN2Shape(**{**SHAPE.to_json(), "conv_clamp": limit}))  # type: ignore[arg-type]
    pictures, tensors = _pictures(), _arrays(network)
    expected = oracle.logits(tensors, pictures.double().numpy(), 2, limit=limit)
    with torch.no_grad():
        assert np.abs(network(pictures).numpy() - expected).max() < 1e-5
        given = network.features(pictures)
    assert [tuple(maps.shape) for maps in given] == [(4, 8, 8, 8), (4, 8, 4, 4)]
    for ours, theirs in zip(given, oracle.features(tensors, pictures[0].double().numpy(), limit=limit), strict=True):
        assert np.abs(ours[0].numpy() - theirs).max() < 1e-5


def test_names_are_those_of_published_checkpoints() -> None:
    expected = {f"b16.fromrgb.{part}" for part in ("weight", "bias", "resample_filter")}
    for side in (8, 16):
        expected |= {f"b{side}.{name}.{part}" for name in ("conv0", "conv1") for part in ("weight", "bias")}
        expected |= {f"b{side}.{name}.resample_filter" for name in ("conv0", "conv1", "skip")}
        expected |= {f"b{side}.skip.weight", f"b{side}.resample_filter"}
    expected |= {f"b4.{name}.{part}" for name in ("conv", "fc", "out") for part in ("weight", "bias")}
    expected |= {"b4.conv.resample_filter"}
    assert set(Discriminator(SHAPE, seed=0).state_dict()) == expected


@pytest.mark.parametrize(("instances", "group"), [(1, 4), (2, 4), (4, 4), (8, 4), (6, 2), (6, 3), (3, 1)])
def test_the_deviation_of_a_group_equals_a_loop(instances: int, group: int) -> None:
    maps = torch.randn(instances, 3, 4, 4, generator=torch.Generator().manual_seed(instances)).double()
    given = minibatch_deviation(maps, group)
    assert given.shape == (instances, 1, 4, 4)
    np.testing.assert_allclose(given[:, 0, 0, 0].numpy(), oracle.deviation(maps.numpy(), group), atol=1e-12)
    assert torch.equal(given, given[:, :, :1, :1].expand_as(given))


def test_groups_are_strided() -> None:
    """Four pictures in groups of two: 0 with 2 and 1 with 3. Groups of alike pictures show no deviation."""
    one, other = _pictures(2)
    alike = minibatch_deviation(torch.stack([one, other, one, other]), 2)
    assert alike.max().item() == pytest.approx(1e-4, rel=1e-3)
    assert minibatch_deviation(torch.stack([one, one, other, other]), 2).min() > 0.1


def test_a_batch_that_forms_no_groups_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="a multiple of 2 instances"):
        trained()(_pictures(3))


def test_features_of_a_picture_do_not_depend_on_the_others_but_logits_do() -> None:
    network, pictures = trained(), _pictures(4)
    together, alone = network.features(pictures), network.features(pictures[:1])
    for maps, own in zip(together, alone, strict=True):
        torch.testing.assert_close(maps[:1], own, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(pictures)[:1], network(pictures[:1]), atol=1e-3)


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"\(3, 16, 16\); got \(3, 32, 32\)"):
        trained()(torch.zeros(2, 3, 32, 32))


def test_the_same_seed_makes_the_same_network() -> None:
    one, same, other = (Discriminator(SHAPE, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["b4.fc.weight"], other["b4.fc.weight"])


def test_the_gradient_penalty_can_be_differentiated() -> None:
    network = trained(StyleGAN2Shape(16, channel_base=32, channel_max=4, minibatch_group=2)).double()
    pictures = _pictures(2).double()
    weight = network.b8.conv1.weight

    def penalty() -> torch.Tensor:
        shown = pictures.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(shown).sum(), shown, create_graph=True)
        return slope.square().sum()

    (given,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weight += step * direction
        values.append(penalty().item())
        with torch.no_grad():
            weight -= step * direction
    assert (given * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_identical_pictures_have_finite_penalties() -> None:
    pictures = _pictures(1).expand(2, -1, -1, -1).clone().requires_grad_()
    network = trained()
    (slope,) = torch.autograd.grad(network(pictures).sum(), pictures, create_graph=True)
    slope.square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())
