"""The four losses of a step: of the generator and its path lengths, of the discriminator and its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.synthesis import NoiseKind
from survlens.losses.adversarial import generated_loss, path_length_penalty, path_lengths, photograph_loss, r1_penalty
from survlens.training.adversarial_settings import AdversarialSettings

PATH_MEMORY = 0.99
"""Share of the running mean of path lengths that a step keeps."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Sources of random numbers of one step in one process.

    Attributes:
        host: For latent vectors and changes, on the CPU, so that devices agree.
        device: For noise, where the networks are.
    """

    host: torch.Generator
    device: torch.Generator

    @staticmethod
    def of_step(seed: int, step: int, rank: int, device: torch.device) -> Draws:
        """Sources that depend on nothing but these numbers."""
        first, second = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint64).tolist()
        return Draws(torch.Generator().manual_seed(first >> 1), torch.Generator(device).manual_seed(second >> 1))


@dataclass(slots=True)
class Phases:
    """What each phase of a step computes; nothing here changes a weight, but for the mean w of the mapping network.

    Attributes:
        generator: In training mode.
        discriminator: In training mode.
        settings: How both are trained.
        r1: Weight of the penalty on the gradient.
        p: Probability of changes.
        draws: Sources of random numbers of the step.
    """

    generator: Generator
    discriminator: Discriminator
    settings: AdversarialSettings
    r1: float
    p: float
    draws: Draws

    def latents(self, instances: int, *, follow: bool = False) -> Float[Tensor, "instance slot latent"]:
        """Latent vectors, of which a share has a second vector from a random slot on."""
        device = self.generator.mapping.w_avg.device
        mixing, slots, host = self.settings.style_mixing, self.generator.shape.slots, self.draws.host
        vectors = 2 * instances if mixing else instances
        z = torch.randn(vectors, self.generator.shape.latent, generator=host).to(device)
        ws = self.generator.mapping(z, follow=follow)
        if not mixing:
            return ws
        crossover = torch.randint(1, slots, (instances,), generator=host)
        mixed = torch.rand(instances, generator=host) < mixing
        last = torch.where(mixed, crossover, slots)
        from_first = torch.arange(slots) < last[:, None]
        return torch.where(from_first[:, :, None].to(device), ws[:instances], ws[instances:])

    def pictures(self, ws: Float[Tensor, "instance slot latent"]) -> Float[Tensor, "instance channel height width"]:
        """Generated pictures in [-1, 1] with random noise."""
        return self.generator.synthesis(ws, noise=NoiseKind.RANDOM, generator=self.draws.device)

    def logits(self, pictures: Float[Tensor, "instance channel height width"]) -> Float[Tensor, " instance"]:
        """What the discriminator says to pictures after random changes."""
        changed = self.settings.augmentation(pictures, self.p, self.draws.host)
        if self.settings.channels_last:
            changed = changed.contiguous(memory_format=torch.channels_last)
        return self.discriminator(changed).float()

    def generate(self, instances: int) -> tuple[Tensor, Tensor]:
        """Loss of the generator, and the pictures that it is of, without their graph."""
        pictures = self.pictures(self.latents(instances, follow=True))
        return photograph_loss(self.logits(pictures)).mean(), pictures.detach()

    def lengths(self, instances: int, usual: float | None) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted penalty on path lengths, their mean, and their running mean after it, which starts with the first.

        The penalty stands for `path_length_interval` steps.
        """
        settings = self.settings
        ws = self.latents(instances)
        pictures = self.pictures(ws).float()
        noise = torch.randn(
            pictures.shape, generator=self.draws.device, device=self.draws.device.device, dtype=pictures.dtype
        )
        lengths = path_lengths(pictures, ws, noise)
        mean = lengths.detach().mean()
        after = mean if usual is None else PATH_MEMORY * usual + (1 - PATH_MEMORY) * mean
        penalty = path_length_penalty(lengths, after).mean()
        return settings.path_length * settings.path_length_interval * penalty, mean, after

    def discriminate(self, photographs: Tensor, generated: Tensor | None) -> tuple[Tensor, Tensor]:
        """Loss of the discriminator, and the sum of the signs of its logits of photographs."""
        if generated is None:
            with torch.no_grad():
                generated = self.pictures(self.latents(len(photographs)))
        real, fake = self.logits(photographs), self.logits(generated)
        loss = photograph_loss(real).mean() + generated_loss(fake).mean()
        return loss, real.detach().sign().sum()

    def steepness(self, photographs: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted penalty on the discriminator's gradient, and the mean squared gradient.

        The penalty stands for `r1_interval` steps.
        """
        photographs = photographs.detach().requires_grad_()
        squared = r1_penalty(photographs, self.logits(photographs)).mean()
        return self.r1 / 2 * self.settings.r1_interval * squared, squared.detach()
