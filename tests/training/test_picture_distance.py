"""Distances of pictures, by slow second routes."""

import hashlib
import math

import pytest
import torch

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.generators.stylegan2 import Discriminator, StyleGAN2Shape, to_network
from survlens.training import DiscriminatorDistance, PyramidDistance, VGGDistance, weights_hash

SHAPE = StyleGAN2Shape(16, latent=8, width=8, mapping_layers=1, channel_base=64, channel_max=16)
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@pytest.fixture(scope="module")
def vgg_weights():
    source, before, weights = torch.Generator().manual_seed(0), 3, {}
    for place, width in zip(CONVOLUTIONS, WIDTHS, strict=True):
        weights[f"features.{place}.weight"] = torch.randn(width, before, 3, 3, generator=source) / (before * 4.5) ** 0.5
        weights[f"features.{place}.bias"] = torch.randn(width, generator=source) * 0.1
        before = width
    return weights | {"classifier.0.weight": torch.zeros(2, 2)}


@pytest.fixture(scope="module")
def vgg_file(vgg_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(vgg_weights, path)
    return path


@pytest.fixture(scope="module")
def vgg(vgg_file):
    return VGGDistance(vgg_file)


@pytest.fixture
def discriminator():
    return Discriminator(SHAPE, seed=3)


@pytest.fixture
def pair(generator):
    return torch.rand(3, 3, 16, 16, generator=generator), torch.rand(3, 3, 16, 16, generator=generator)


@pytest.mark.parametrize("kind", ["pyramid", "discriminator", "vgg"])
def test_it_is_a_symmetric_distance_and_a_batch_is_its_members(kind, pair, discriminator, vgg):
    distance = {
        "pyramid": PyramidDistance,
        "discriminator": lambda: DiscriminatorDistance(discriminator),
        "vgg": lambda: vgg,
    }[kind]()
    left, right = pair
    found = distance(left, right)
    assert (found > 1e-3).all()
    assert torch.allclose(distance(left, left), torch.zeros(3), atol=1e-9)
    assert torch.allclose(found, distance(right, left))
    alone = torch.cat([distance(left[row : row + 1], right[row : row + 1]) for row in range(3)])
    assert torch.allclose(found, alone, rtol=1e-4)


def test_the_pyramid_is_the_mean_error_of_its_levels(pair):
    left, right = (each.double().numpy() for each in pair)
    errors = []
    for size in (1, 2, 4):
        shape = (3, 3, 16 // size, size, 16 // size, size)
        small = left.reshape(shape).mean((3, 5)) - right.reshape(shape).mean((3, 5))
        errors.append((small**2).mean((1, 2, 3)))
    assert PyramidDistance()(*pair).tolist() == pytest.approx((sum(errors) / 3).tolist(), rel=1e-5)


def test_the_discriminator_counts_each_block_by_its_own_size(pair, discriminator):
    left, right = pair
    total = 10 * PyramidDistance()(left, right)
    maps = [discriminator.features(to_network(each)) for each in pair]
    for row in range(3):
        for one, other in zip(*maps, strict=True):
            a, b = one[row].detach() / one[row].detach().norm(), other[row].detach() / other[row].detach().norm()
            total[row] += 2 * (1 - float((a * b).sum())) / len(maps[0])
    assert torch.allclose(DiscriminatorDistance(discriminator)(left, right), total, rtol=1e-4)


def test_the_discriminator_is_copied_and_named(pair, discriminator):
    distance = DiscriminatorDistance(discriminator, pixels=0.0)
    before = distance(*pair)
    with torch.no_grad():
        discriminator.get_parameter("b16.conv0.weight").zero_()
    assert torch.equal(distance(*pair), before)
    assert distance.fingerprint != DiscriminatorDistance(discriminator, pixels=0.0).fingerprint
    assert "discriminator" in distance.name


def test_vgg_compares_unit_vectors_at_five_depths(pair, vgg_weights, vgg):
    def slow(pictures):
        mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = ((pictures.permute(0, 2, 3, 1) - mean) / spread).permute(0, 3, 1, 2)
        for place in CONVOLUTIONS:
            if place in (5, 10, 17, 24):
                x = torch.nn.functional.max_pool2d(x, 2)
            weight, bias = vgg_weights[f"features.{place}.weight"], vgg_weights[f"features.{place}.bias"]
            x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=1))
            if place in (2, 7, 14, 21, 28):
                yield x / x.norm(dim=1, keepdim=True)

    layers = zip(*(slow(each) for each in pair), strict=True)
    expected = sum((a - b).square().sum(1).mean((1, 2)) for a, b in layers) / 5
    assert torch.allclose(vgg(*pair), expected, rtol=1e-4)


def test_vgg_tells_the_hash_of_its_file_and_refuses_others(vgg, vgg_file, vgg_weights, tmp_path):
    distance = vgg
    assert distance.digest == hashlib.sha256(vgg_file.read_bytes()).hexdigest()
    assert distance.digest[:12] in distance.name
    torch.save({"features.0.weight": vgg_weights["features.0.weight"]}, tmp_path / "short.pth")
    for name in ("short.pth", "none.pth"):
        with pytest.raises(CorruptFileError):
            VGGDistance(tmp_path / name)
    torch.save({"features.0.weight": math.sqrt}, tmp_path / "code.pth")
    with pytest.raises(CorruptFileError):
        VGGDistance(tmp_path / "code.pth")
    with pytest.raises(InvalidValueError, match="16"):
        distance.features(torch.rand(1, 3, 8, 8))


@pytest.mark.slow
def test_large_pictures_are_reduced_for_vgg(vgg, generator):
    small = torch.rand(1, 3, 256, 256, generator=generator)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    distance = vgg
    with torch.no_grad():
        assert float((distance.features(large) - distance.features(small)).abs().max()) < 1e-4


def test_the_hash_of_weights_sees_every_value(discriminator):
    before = weights_hash(discriminator)
    assert before == weights_hash(Discriminator(SHAPE, seed=3))
    with torch.no_grad():
        discriminator.get_parameter("b4.out.bias").add_(1e-6)
    assert before != weights_hash(discriminator)


def test_arguments_outside_their_range_are_refused(discriminator):
    with pytest.raises(InvalidValueError, match="levels"):
        PyramidDistance(0)
    with pytest.raises(InvalidValueError, match="pixels"):
        DiscriminatorDistance(discriminator, pixels=-1.0)
