"""The generator against loops in float64, and its laws."""

import numpy as np
import pytest
import torch

from generators.stylegan2 import stylegan2_oracle as oracle
from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.shape import StyleGAN2Shape
from survlens.generators.stylegan2.synthesis import NoiseKind

SHAPE = StyleGAN2Shape(16, latent=12, width=10, mapping_layers=3, channel_base=96, channel_max=16)


def trained(shape: StyleGAN2Shape = SHAPE, seed: int = 0) -> Generator:
    """A generator none of whose tensors is at its start value."""
    network, source = Generator(shape, seed=seed), torch.Generator().manual_seed(seed + 100)
    for name, tensor in network.state_dict().items():
        if not name.endswith("resample_filter"):
            tensor += 0.2 * torch.randn(tensor.shape, generator=source)
    return network.eval()


def _arrays(network: Generator) -> oracle.Tensors:
    return {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}


def _z(instances: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(instances, SHAPE.latent, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("limit", [None, 1.0])
@pytest.mark.parametrize("noisy", [True, False])
def test_pictures_equal_the_oracle(limit: float | None, noisy: bool) -> None:
    shape = StyleGAN2Shape(**{**SHAPE.to_json(), "conv_clamp": limit})  # type: ignore[arg-type]
    network, z = trained(shape), _z(2)
    tensors, kind = _arrays(network), NoiseKind.CONSTANT if noisy else NoiseKind.NONE
    with torch.no_grad():
        pictures = network(z, truncation=0.6, noise=kind)
    for place, one in enumerate(z.double().numpy()):
        average = tensors["mapping.w_avg"]
        w = average + 0.6 * (oracle.mapping(tensors, one, 3) - average)
        expected = oracle.synthesis(tensors, np.tile(w, (SHAPE.slots, 1)), 16, noisy=noisy, limit=limit)
        assert np.abs(pictures[place].numpy() - expected).max() < 1e-5


def test_each_slot_reaches_its_layers() -> None:
    network = trained()
    ws = torch.randn(1, SHAPE.slots, SHAPE.width, generator=torch.Generator().manual_seed(2))
    expected = oracle.synthesis(_arrays(network), ws[0].double().numpy(), 16)
    with torch.no_grad():
        assert np.abs(network.synthesis(ws)[0].numpy() - expected).max() < 1e-5


def test_names_are_those_of_published_checkpoints() -> None:
    names = set(Generator(SHAPE, seed=0).state_dict())
    layer = ("weight", "bias", "noise_strength", "noise_const", "affine.weight", "affine.bias", "resample_filter")
    colours = ("weight", "bias", "affine.weight", "affine.bias")
    expected = {"mapping.w_avg", "synthesis.b4.const"}
    expected |= {f"mapping.fc{i}.{part}" for i in range(3) for part in ("weight", "bias")}
    expected |= {f"synthesis.b{side}.conv1.{part}" for side in (4, 8, 16) for part in layer}
    expected |= {f"synthesis.b{side}.conv0.{part}" for side in (8, 16) for part in layer}
    expected |= {f"synthesis.b{side}.torgb.{part}" for side in (4, 8, 16) for part in colours}
    expected |= {f"synthesis.b{side}.resample_filter" for side in (4, 8, 16)}
    assert names == expected


def test_the_mapping_sees_the_direction_of_z_only() -> None:
    mapping, z = trained().mapping, _z()
    torch.testing.assert_close(mapping.w(5 * z), mapping.w(z), rtol=1e-4, atol=1e-5)


def test_truncation_draws_towards_the_mean() -> None:
    mapping, z = trained().mapping, _z()
    ws = mapping(z)
    assert torch.equal(ws, mapping.w(z)[:, None].expand(-1, SHAPE.slots, -1))
    torch.testing.assert_close(mapping(z, truncation=0.0), mapping.w_avg.expand_as(ws))
    torch.testing.assert_close(mapping(z, truncation=0.3), mapping.w_avg + 0.3 * (ws - mapping.w_avg))
    part = mapping(z, truncation=0.3, truncated_slots=2)
    torch.testing.assert_close(part[:, :2], mapping(z, truncation=0.3)[:, :2])
    assert torch.equal(part[:, 2:], ws[:, 2:])
    with pytest.raises(InvalidValueError, match="`truncated_slots`"):
        mapping(z, truncated_slots=7)


def test_the_mean_w_follows_training_and_nothing_else() -> None:
    mapping, z = trained().mapping, _z()
    start = mapping.w_avg.clone()
    mapping(z)
    mapping.train()
    mapping(z, follow=False)
    assert torch.equal(mapping.w_avg, start)
    mapping(z)
    torch.testing.assert_close(mapping.w_avg, 0.995 * start + 0.005 * mapping.w(z).mean(0))


def test_the_same_seed_makes_the_same_network() -> None:
    one, same, other = (Generator(SHAPE, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["synthesis.b4.const"], other["synthesis.b4.const"])


def test_random_noise_follows_its_generator_and_constant_noise_stays() -> None:
    network, z = trained(), _z()

    def drawn(kind: NoiseKind, seed: int) -> torch.Tensor:
        with torch.no_grad():
            return network(z, noise=kind, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(NoiseKind.RANDOM, 1), drawn(NoiseKind.RANDOM, 1))
    assert not torch.equal(drawn(NoiseKind.RANDOM, 1), drawn(NoiseKind.RANDOM, 2))
    assert torch.equal(drawn(NoiseKind.CONSTANT, 1), drawn(NoiseKind.CONSTANT, 2))
    same = network(z[:1].expand(2, -1), noise=NoiseKind.RANDOM, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(same[0], same[1])


def test_noise_of_no_strength_is_no_noise() -> None:
    network, z = Generator(SHAPE, seed=0).eval(), _z()
    plain = network(z, noise=NoiseKind.NONE)
    for kind in (NoiseKind.CONSTANT, NoiseKind.RANDOM):
        assert torch.equal(network(z, noise=kind), plain)


def test_decoded_pictures_lie_in_the_unit_range() -> None:
    network, z = trained(), 3 * _z(8)
    w = network.mapping.w(z)
    pictures = network.decode(w)
    assert pictures.shape == (8, 3, 16, 16)
    assert (pictures.min(), pictures.max()) == (0.0, 1.0)
    raw = network(z)
    assert raw.abs().max() > 1
    torch.testing.assert_close(pictures, (raw / 2 + 0.5).clamp(0, 1))
    assert torch.equal(network.decode(w[:, None].expand(-1, SHAPE.slots, -1)), pictures)


def test_a_batch_equals_its_members() -> None:
    network, z = trained(), _z()
    together = network(z)
    torch.testing.assert_close(together, torch.cat([network(one[None]) for one in z]), rtol=1e-4, atol=1e-5)


def test_a_wrong_number_of_slots_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="6 slots"):
        trained().synthesis(torch.zeros(1, 5, SHAPE.width))


def test_path_lengths_can_be_differentiated() -> None:
    """The gradient of |d picture / d w|^2 in a weight agrees with finite differences."""
    network = trained(StyleGAN2Shape(16, 4, 4, 1, 32, 4)).double()
    ws = network.mapping(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()).detach()
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    weight = network.synthesis.b8.conv0.weight

    def length() -> torch.Tensor:
        slots = ws.clone().requires_grad_()
        (slope,) = torch.autograd.grad((network.synthesis(slots) * noise).sum(), slots, create_graph=True)
        return slope.square().sum()

    (given,) = torch.autograd.grad(length(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weight += step * direction
        values.append(length().item())
        with torch.no_grad():
            weight -= step * direction
    assert (given * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_the_order_of_memory_does_not_matter() -> None:
    network, z = trained(), _z()
    expected = network(z)
    other = trained().to(memory_format=torch.channels_last)
    torch.testing.assert_close(other(z), expected, rtol=1e-4, atol=1e-5)
