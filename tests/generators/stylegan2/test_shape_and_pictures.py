"""Sizes of the networks, and the two ranges of pictures."""

import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.pictures import to_network, to_pictures
from survlens.generators.stylegan2.shape import StyleGAN2Shape


@pytest.mark.parametrize(
    ("resolution", "slots", "base", "finest"), [(64, 10, 16384, 256), (256, 14, 16384, 64), (1024, 18, 32768, 32)]
)
def test_slots_and_channels_of_published_networks(resolution: int, slots: int, base: int, finest: int) -> None:
    shape = StyleGAN2Shape(resolution, channel_base=base)
    assert shape.slots == slots
    assert (shape.channels(4), shape.channels(resolution)) == (512, finest)
    assert shape.sides == tuple(4 * 2**step for step in range(slots // 2))


def test_a_shape_survives_json() -> None:
    shape = StyleGAN2Shape(32, latent=16, conv_clamp=256.0, minibatch_group=2)
    assert StyleGAN2Shape.from_json(shape.to_json()) == shape


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resolution": 8}, "power of two"),
        ({"resolution": 48}, "power of two"),
        ({"resolution": 2048}, "power of two"),
        ({"latent": 0}, "`latent`"),
        ({"mapping_layers": 0}, "`mapping_layers`"),
        ({"channel_base": 8}, "`channel_base`"),
        ({"conv_clamp": 0.0}, "`conv_clamp`"),
        ({"conv_clamp": float("nan")}, "`conv_clamp`"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        StyleGAN2Shape(**{"resolution": 16, **change})


def test_unknown_and_missing_sizes_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="an unknown depth"):
        StyleGAN2Shape.from_json({"resolution": 16, "depth": 3})
    with pytest.raises(InvalidValueError, match="no resolution"):
        StyleGAN2Shape.from_json({"latent": 3})


@pytest.mark.parametrize("resolution", [16, 32, 128])
def test_every_side_draws_pictures_of_its_size(resolution: int) -> None:
    shape = StyleGAN2Shape(resolution, latent=8, width=8, mapping_layers=1, channel_base=128, channel_max=8)
    assert Generator(shape, seed=0)(torch.randn(1, 8)).shape == (1, 3, resolution, resolution)


def test_pictures_go_to_the_networks_and_back(generator: torch.Generator) -> None:
    pictures = torch.rand(2, 3, 4, 4, generator=generator)
    network = to_network(pictures)
    assert to_network(torch.tensor([0.0, 0.5, 1.0]).expand(1, 1, 1, 3)).flatten().tolist() == [-1.0, 0.0, 1.0]
    torch.testing.assert_close(to_pictures(network), pictures, rtol=0, atol=1e-6)
    assert to_pictures(torch.tensor([-3.0, 3.0]).expand(1, 1, 1, 2)).flatten().tolist() == [0.0, 1.0]
