"""Laws of the autoencoder."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from survlens.core.errors import InvalidValueError
from survlens.encoders import MLP, ResidualCNN
from survlens.generators import (
    DenseDecoder,
    Likelihood,
    ResidualDecoder,
    VariationalAutoencoder,
    active_dimensions,
)

SHAPES = {"image": (1, 8, 8), "rgb with mask": (4, 8, 12), "volume": (1, 8, 8, 8)}


def build(shape, likelihood=Likelihood.GAUSSIAN, mask_channels=0, sd=0.2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ResidualCNN(shape[0], (4, 8), dimensions=len(shape) - 1, image_size=shape[1:])
        decoder = ResidualDecoder(3, shape, (8, 4))
        vae = VariationalAutoencoder(encoder, decoder, likelihood=likelihood, mask_channels=mask_channels, sd=sd)
    return vae


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_decoding_gives_the_shape_of_the_images_in_the_unit_interval(shape, generator):
    vae = build(shape)
    z = 3 * torch.randn(5, 3, generator=generator)
    image = vae.decode(z)
    assert image.shape == (5, *shape)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("likelihood", Likelihood)
def test_evidence_equals_the_bound_by_torch_distributions(likelihood, generator):
    vae = build((3, 8, 8), likelihood, mask_channels=1)
    image = torch.rand(4, 3, 8, 8, generator=generator)
    image[:, 2] = (image[:, 2] > 0.5).float()
    found = vae.evidence(image, generator=generator)
    raw = vae.decoder(found.embedding_draw)
    cut = 3 if likelihood is Likelihood.BERNOULLI else 2
    expected = -Independent(Bernoulli(logits=raw[:, cut:] if cut < 3 else raw, validate_args=False), 3).log_prob(
        image[:, cut:] if cut < 3 else image
    )
    if likelihood is not Likelihood.BERNOULLI:
        expected = expected - Independent(Normal(raw[:, :2], vae.log_sd.exp()), 3).log_prob(image[:, :2])
    torch.testing.assert_close(found.reconstruction, expected, rtol=1e-4, atol=1e-3)
    mean, log_var = vae.encode(image)
    prior = Normal(torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(found.kl, kl_divergence(Normal(mean, (0.5 * log_var).exp()), prior))
    assert found.n_values == 3 * 64


def test_posterior_draws_follow_the_generator():
    vae = build((1, 8, 8))
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    draws = [vae.evidence(image, generator=torch.Generator().manual_seed(s)).embedding_draw for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_learned_scale_gets_a_gradient_and_a_fixed_one_is_no_parameter(generator):
    image = torch.rand(2, 1, 8, 8, generator=generator)
    learned = build((1, 8, 8), Likelihood.GAUSSIAN_LEARNED)
    learned.evidence(image, generator=generator).reconstruction.sum().backward()
    assert learned.log_sd.grad.abs() > 0
    assert "log_sd" not in dict(build((1, 8, 8)).named_parameters())
    assert math.isclose(float(build((1, 8, 8), sd=0.3).log_sd.exp()), 0.3, rel_tol=1e-6)


def test_image_of_another_size_is_refused_and_named():
    with pytest.raises(InvalidValueError, match=r"\(1, 8, 8\).*got \(1, 9, 8\)"):
        build((1, 8, 8)).encode(torch.zeros(1, 1, 9, 8))


@pytest.mark.parametrize("sides", [(10, 8), (5, 7), (9, 4, 6)])
def test_decoder_draws_sides_that_are_no_multiple_of_its_doublings(sides):
    assert ResidualDecoder(2, (1, *sides), (8, 4))(torch.randn(3, 2)).shape == (3, 1, *sides)


def test_masks_must_leave_an_image():
    with pytest.raises(InvalidValueError, match="mask_channels"):
        VariationalAutoencoder(MLP(64, (8,)), DenseDecoder(2, (1, 8, 8)), mask_channels=1)


def test_active_dimensions_counts_those_above_the_threshold():
    kl = torch.tensor([[0.0, 0.04, 0.2], [0.0, 0.05, 0.4]])
    assert active_dimensions(kl) == 1
