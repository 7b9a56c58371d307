"""The chain of portraits on real photographs: the hundred small faces that come with scikit-image."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.concordance import concordance_index
from survlens.generators.stylegan2 import Discriminator, Generator, StyleGAN2Shape
from survlens.models.penalised import RidgeCox
from survlens.training import (
    AdversarialSettings,
    EncoderSettings,
    InversionSettings,
    PyramidDistance,
    Start,
    embed,
    finetune,
    fit_encoder,
)
from survlens.training.adversarial_settings import TrainingStart

SHAPE = StyleGAN2Shape(16, latent=32, width=32, mapping_layers=2, channel_base=256, channel_max=32)
TRAINED = 70


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    grey = torch.from_numpy(data.lfw_subset()[:100]).float()[:, None]
    small = interpolate(grey, size=(16, 16), mode="bilinear", antialias=True).clamp(0, 1)
    return small.expand(-1, 3, -1, -1).contiguous()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The mean colour of generated")
def test_what_real_faces_show_of_the_hazard_is_found_in_their_latents(faces, tmp_path):
    generator, discriminator = Generator(SHAPE, seed=0), Discriminator(SHAPE, seed=1)
    settings = AdversarialSettings(steps=400, batch=16, start=TrainingStart.SCRATCH)
    finetune(generator, discriminator, faces[:TRAINED], settings, folder=tmp_path / "gan")
    generator.eval()
    distance = PyramidDistance()
    encoder = fit_encoder(generator, faces[:TRAINED], EncoderSettings(steps=150, batch=16), distance)
    found = embed(
        generator, faces, InversionSettings(start=Start.WARM, steps=40, restarts=0), distance, encoder=encoder
    )
    mean = faces[:TRAINED].mean(0, keepdim=True).expand_as(faces)
    unseen = slice(TRAINED, None)
    assert found.distance[unseen].mean() < 0.6 * distance(mean[unseen], faces[unseen]).mean()

    light = faces.mean((1, 2, 3)).numpy()
    hazard = np.exp(1.5 * (light - light.mean()) / light.std())
    time = np.random.default_rng(0).exponential(1 / hazard)
    outcome = SurvivalOutcome.from_arrays(time, np.ones(100, dtype=int), "years")
    latents = found.latents.double().numpy()
    risk = RidgeCox().fit(latents[:TRAINED], outcome[:TRAINED]).predict(latents[unseen])
    oracle = concordance_index(light[unseen], outcome[unseen]).value
    assert concordance_index(risk, outcome[unseen]).value > oracle - 0.1
