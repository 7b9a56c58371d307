"""The encoder puts photographs near where they belong, and says which it was fitted on."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from survlens.core.errors import CorruptFileError, FitError, InvalidValueError, UsageError
from survlens.generators.stylegan2 import Generator, StyleGAN2Shape
from survlens.training import (
    EncoderSettings,
    EncoderShape,
    InversionSettings,
    LatentEncoder,
    LatentSpace,
    PyramidDistance,
    Start,
    embed,
    fit_encoder,
)
from survlens.training.latent_spaces import latent_points

SHAPE = StyleGAN2Shape(16, latent=8, width=8, mapping_layers=2, channel_base=64, channel_max=16)
SETTINGS = EncoderSettings(steps=30, batch=8, passes=2, channels=8, channel_max=16, mean_draws=100, learning_rate=1e-2)
WARM = InversionSettings(start=Start.WARM, steps=0, restarts=0, mean_draws=100)


@pytest.fixture(scope="module")
def network():
    return Generator(SHAPE, seed=0).eval()


def pictures_of(network, count, seed):
    with torch.no_grad():
        return network.decode(network.mapping.w(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))))


@pytest.fixture(scope="module")
def encoder(network):
    return fit_encoder(network, pictures_of(network, 20, seed=1), SETTINGS, PyramidDistance())


def test_new_pictures_start_closer_than_at_the_mean(network, encoder):
    pictures = pictures_of(network, 12, seed=2)
    warm = embed(network, pictures, WARM, PyramidDistance(), encoder=encoder)
    cold = embed(network, pictures, dataclasses.replace(WARM, start=Start.COLD), PyramidDistance())
    assert warm.distance.mean() < 0.5 * cold.distance.mean()
    with torch.no_grad():
        w = network.mapping.w(torch.randn(12, 8, generator=torch.Generator().manual_seed(2)))
    assert torch.cosine_similarity(warm.latents - warm.mean, w - warm.mean, dim=1).mean() > 0.6
    assert warm.evaluations.tolist() == [2] * 12
    assert warm.steps.tolist() == [0] * 12


def test_a_second_look_comes_closer_than_the_first(network, encoder):
    points, pictures = latent_points(network, LatentSpace.W, draws=100, seed=0), pictures_of(network, 12, seed=3)
    with torch.no_grad():
        first, second = (
            PyramidDistance()(points.pictures(one), pictures).mean() for one in encoder.looks(points, pictures)
        )
    assert second < first


@pytest.mark.slow
def test_photographs_that_are_unlike_generated_ones_are_learnt_by_reconstruction(network, encoder):
    pictures = pictures_of(network, 6, seed=4).flip(2)
    fitted = fit_encoder(network, pictures, SETTINGS, PyramidDistance())
    near, far = (embed(network, pictures, WARM, PyramidDistance(), encoder=each) for each in (fitted, encoder))
    assert near.distance.mean() < far.distance.mean()


def test_it_is_told_which_photographs_the_encoder_has_seen(network, encoder):
    pictures = torch.cat([pictures_of(network, 20, seed=1)[3:5], pictures_of(network, 2, seed=2)])
    found = embed(network, pictures, WARM, PyramidDistance(), encoder=encoder)
    assert found.seen.tolist() == [True, True, False, False]
    assert found.summary()["photographs that the encoder was fitted on"] == 2


def test_the_same_seed_gives_the_same_encoder(network):
    short = dataclasses.replace(SETTINGS, steps=2)
    pictures = pictures_of(network, 4, seed=1)
    global_state = torch.get_rng_state()
    first, second = (fit_encoder(network, pictures, short, PyramidDistance()).state_dict() for _ in range(2))
    assert torch.equal(global_state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = fit_encoder(network, pictures, dataclasses.replace(short, seed=1), PyramidDistance()).state_dict()
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_an_encoder_of_z_answers_on_the_sphere(network):
    settings = dataclasses.replace(SETTINGS, space=LatentSpace.Z, steps=3)
    encoder = fit_encoder(network, pictures_of(network, 4, seed=1), settings, PyramidDistance())
    asked = dataclasses.replace(WARM, space=LatentSpace.Z, steps=2)
    found = embed(network, pictures_of(network, 3, seed=2), asked, PyramidDistance(), encoder=encoder)
    assert torch.allclose(found.latents.norm(dim=1), torch.tensor(8.0**0.5), atol=1e-5)


def test_a_batch_is_the_same_as_its_members(network, encoder):
    points, pictures = latent_points(network, LatentSpace.W, draws=100, seed=0), pictures_of(network, 4, seed=5)
    together = encoder.encode(points, pictures)
    alone = torch.cat([encoder.encode(points, one[None]) for one in pictures])
    assert torch.allclose(together, alone, atol=1e-5)


def test_an_encoder_is_read_as_it_was_written(network, encoder, tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder.save(path)
    read = LatentEncoder.load(path)
    points, pictures = latent_points(network, LatentSpace.W, draws=100, seed=0), pictures_of(network, 2, seed=5)
    assert torch.equal(read.encode(points, pictures), encoder.encode(points, pictures))
    assert (read.shape, read.fitted_on) == (encoder.shape, encoder.fitted_on)
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CorruptFileError, match="encoder"):
        LatentEncoder.load(tmp_path / "other.safetensors")


def test_another_encoder_does_not_go_on_with_the_same_folder(network, encoder, tmp_path):
    pictures = pictures_of(network, 2, seed=2)
    embed(network, pictures, WARM, PyramidDistance(), encoder=encoder, folder=tmp_path)
    other = LatentEncoder(encoder.shape, seed=9)
    with pytest.raises(UsageError, match="`encoder`"):
        embed(network, pictures, WARM, PyramidDistance(), encoder=other, folder=tmp_path, resume=True)


def test_what_does_not_fit_is_refused(network, encoder):
    pictures = pictures_of(network, 2, seed=2)
    with pytest.raises(InvalidValueError, match=r"\(z, 16, 8\)"):
        embed(network, pictures, dataclasses.replace(WARM, space=LatentSpace.Z), PyramidDistance(), encoder=encoder)
    with pytest.raises(InvalidValueError, match="start=Start.WARM"):
        embed(network, pictures, dataclasses.replace(WARM, start=None), PyramidDistance(), encoder=encoder)
    with pytest.raises(InvalidValueError, match="in row 0"):
        fit_encoder(network, pictures * 2 + 0.5, SETTINGS, PyramidDistance())
    points = latent_points(network, LatentSpace.W, draws=100, seed=0)
    with pytest.raises(InvalidValueError, match=r"\(3, 16, 16\)"):
        encoder.encode(points, torch.rand(1, 3, 32, 32))
    with pytest.raises(InvalidValueError, match="power of two"):
        EncoderShape(resolution=20, width=8)
    with pytest.raises(InvalidValueError, match="`passes`"):
        EncoderShape(resolution=16, width=8, passes=0)
    for changes in ({"steps": 0}, {"batch": 1}, {"learning_rate": float("nan")}):
        with pytest.raises(InvalidValueError, match=f"`{next(iter(changes))}`"):
            EncoderSettings(**changes)


def test_a_loss_that_is_not_finite_is_an_error():
    broken = Generator(SHAPE, seed=0)
    with torch.no_grad():
        broken.get_parameter("synthesis.b16.conv1.weight").fill_(torch.nan)
    with pytest.raises(FitError, match="step 0"):
        fit_encoder(broken, torch.rand(2, 3, 16, 16), SETTINGS, PyramidDistance())
