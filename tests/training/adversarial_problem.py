"""Small networks and coloured blobs, for the tests of adversarial training."""

import torch

from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.shape import StyleGAN2Shape
from survlens.training.adversarial_settings import AdversarialSettings, TrainingStart

SHAPE = StyleGAN2Shape(16, latent=8, width=8, mapping_layers=1, channel_base=64)
COLOURS = torch.tensor([[0.8, 0.5, 0.35], [0.2, 0.3, 0.6]])  # of the blob and of what is behind it


def networks() -> tuple[Generator, Discriminator]:
    return Generator(SHAPE, seed=0), Discriminator(SHAPE, seed=1)


def blobs(count: int = 40, seed: int = 0, size: int = 16) -> torch.Tensor:
    """A blob of one colour, give or take, somewhere near the middle of another colour."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, size)
    middle = torch.rand(count, 2, 1, 1, generator=generator) * 0.6 - 0.3
    distance = (axis[:, None] - middle[:, 0]) ** 2 + (axis - middle[:, 1]) ** 2
    blob = torch.exp(-distance / 0.3)[:, None]
    tint = COLOURS[0] + 0.05 * torch.randn(count, 3, generator=generator)
    return (blob * tint[:, :, None, None] + (1 - blob) * COLOURS[1][:, None, None]).clamp(0, 1)


def settings(**changes) -> AdversarialSettings:
    """Every phase within a few steps."""
    usual = {
        "steps": 6, "batch": 4, "start": TrainingStart.SCRATCH, "r1_interval": 3, "path_length_interval": 2,
        "first_p": 0.3, "adapted_interval": 2, "adapted_images": 100.0, "log_interval": 4, "mirror": True,
    }  # fmt: skip
    return AdversarialSettings(**(usual | changes))
