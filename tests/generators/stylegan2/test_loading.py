"""Networks to weights and back, strictly."""

from pathlib import Path

import pytest
import torch

from survlens.artifacts.stylegan2_checkpoint import StyleGAN2Weights, load_weights, save_weights
from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.loading import discriminator_from, generator_from, weights_from
from survlens.generators.stylegan2.shape import StyleGAN2Shape

SHAPE = StyleGAN2Shape(16, latent=8, width=8, mapping_layers=2, channel_base=64, conv_clamp=256.0, minibatch_group=2)


def test_saved_networks_come_back_bit_by_bit(tmp_path: Path) -> None:
    average, last, judge = Generator(SHAPE, seed=0), Generator(SHAPE, seed=1), Discriminator(SHAPE, seed=2)
    save_weights(tmp_path / "gan.safetensors", weights_from(average, generator=last, discriminator=judge))
    weights = load_weights(tmp_path / "gan.safetensors")
    pairs = [(average, generator_from(weights)), (last, generator_from(weights, average=False))]
    for network, read in [*pairs, (judge, discriminator_from(weights))]:
        assert read.shape == SHAPE
        assert not read.training
        expected, given = network.state_dict(), read.state_dict()
        assert expected.keys() == given.keys()
        assert all(torch.equal(expected[name], given[name]) for name in expected)


def test_networks_that_were_not_kept_are_asked_for_in_vain(tmp_path: Path) -> None:
    weights = weights_from(Generator(SHAPE, seed=0))
    with pytest.raises(InvalidValueError, match="must hold a discriminator"):
        discriminator_from(weights)
    with pytest.raises(InvalidValueError, match="must hold a generator"):
        generator_from(weights, average=False)


@pytest.mark.parametrize("change", ["left out", "left over", "of another shape"])
def test_tensors_that_do_not_fit_are_refused(change: str) -> None:
    weights = weights_from(Generator(SHAPE, seed=0))
    tensors = dict(weights.generator_ema)
    value = tensors.pop("mapping.w_avg")
    changed = {"left out": {}, "left over": {"mapping.w_avg": value, "x": value}}
    changed["of another shape"] = {"mapping.w_avg": value[:-1]}
    broken = StyleGAN2Weights({}, {}, {**tensors, **changed[change]}, weights.settings)
    with pytest.raises(CorruptFileError, match="every tensor of a StyleGAN2 generator and no other"):
        generator_from(broken)
