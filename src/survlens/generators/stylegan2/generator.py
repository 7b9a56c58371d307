"""The generator of StyleGAN2."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.generators.stylegan2.mapping import Mapping
from survlens.generators.stylegan2.pictures import to_pictures
from survlens.generators.stylegan2.shape import StyleGAN2Shape
from survlens.generators.stylegan2.synthesis import NoiseKind, Synthesis


class Generator(nn.Module):
    """Latent vectors to pictures (Karras et al. 2020), in plain operations that can be differentiated twice.

    Parameters and buffers have the names of the published checkpoints, so that these load strictly.

    Args:
        shape: Sizes of the network.
        seed: Seed of the start weights and of the stored noise.

    References:
        Karras et al. 2020 (StyleGAN2).
    """

    def __init__(self, shape: StyleGAN2Shape, *, seed: int):
        super().__init__()
        self.shape = shape
        source = torch.Generator().manual_seed(seed)
        self.synthesis = Synthesis(shape, generator=source)
        self.mapping = Mapping(shape, generator=source)

    def forward(
        self,
        z: Float[Tensor, "instance latent"],
        *,
        truncation: float = 1.0,
        noise: NoiseKind = NoiseKind.CONSTANT,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "instance channel height width"]:
        """Pictures in [-1, 1], not clamped, of latent vectors z.

        Args:
            z: Latent vectors; only their direction matters.
            truncation: 1 for none, 0 for the picture of the mean w.
            noise: Kind of noise.
            generator: Source of random noise; without one the global source is used.
        """
        return self.synthesis(self.mapping(z, truncation=truncation), noise=noise, generator=generator)

    def decode(self, w: Float[Tensor, "instance *slot latent"]) -> Float[Tensor, "instance channel height width"]:
        """Pictures in [0, 1], with the stored noise, of one w per instance or of one per instance and slot."""
        ws = w[:, None].expand(-1, self.shape.slots, -1) if w.ndim == 2 else w
        return to_pictures(self.synthesis(ws))
