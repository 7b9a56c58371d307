"""A variational autoencoder with a stated likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.losses.evidence import bernoulli_reconstruction, gaussian_reconstruction, kl_to_standard_normal


class Likelihood(Enum):
    """Distribution of a pixel given the latent vector.

    GAUSSIAN: normal with a fixed standard deviation. GAUSSIAN_LEARNED: with one learned standard deviation.
    BERNOULLI: for masks and for images that are nearly black and white.
    """

    GAUSSIAN = "gaussian"
    GAUSSIAN_LEARNED = "gaussian_learned"
    BERNOULLI = "bernoulli"


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The two terms of the evidence bound of a batch, unreduced, and the latents they came from.

    Attributes:
        reconstruction: Negative log-likelihood of each image, summed over its values (channels and pixels).
        kl: KL divergence of each latent dimension from the standard normal prior.
        embedding_mean: Latent means.
        embedding_draw: Draws from the posterior, which were decoded.
        n_values: Values per image; the whole bound is divided by it before it is mixed with a survival loss.
    """

    reconstruction: Float[Tensor, " instance"]
    kl: Float[Tensor, "instance latent"]
    embedding_mean: Float[Tensor, "instance latent"]
    embedding_draw: Float[Tensor, "instance latent"]
    n_values: int


class VariationalAutoencoder(nn.Module):
    """Encoder to a normal posterior, decoder to a distribution of images (Kingma & Welling 2014; Higgins et al. 2017).

    q(z | x) = N(mean(x), exp(log_var(x))), p(z) = N(0, 1). The bound of image x is
    E_q[-log p(x | z)] + beta * KL(q || p); the expectation is one draw. The first `image` channels follow `likelihood`;
    the last `mask_channels` channels are masks and always Bernoulli.

    Args:
        encoder: Image to features; has `out_features`.
        decoder: Latent vector to raw image; has `latent` and `image_shape`.
        likelihood: Distribution of the intensities, which must lie in [0, 1].
        sd: Standard deviation of a pixel (start value where learned). With 1 the latent collapses silently.
        mask_channels: How many of the last channels are masks.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        likelihood: Likelihood = Likelihood.GAUSSIAN,
        sd: float = 0.2,
        mask_channels: int = 0,
    ):
        super().__init__()
        if sd <= 0:
            raise InvalidValueError(f"`sd` must be > 0; got {sd}.")
        self.encoder, self.decoder = encoder, decoder
        self.likelihood, self.sd, self.mask_channels = likelihood, sd, mask_channels
        self.latent: int = decoder.latent  # type: ignore[assignment]
        self.image_shape: tuple[int, ...] = decoder.image_shape  # type: ignore[assignment]
        if not 0 <= mask_channels < self.image_shape[0]:
            raise InvalidValueError(
                f"`mask_channels` must leave at least one of {self.image_shape[0]} channels; got {mask_channels}."
            )
        self.posterior = nn.Linear(encoder.out_features, 2 * self.latent)  # type: ignore[arg-type]
        log_sd = torch.tensor(math.log(sd))
        if likelihood is Likelihood.GAUSSIAN_LEARNED:
            self.log_sd = nn.Parameter(log_sd)
        else:
            self.register_buffer("log_sd", log_sd)

    @property
    def n_values(self) -> int:
        """Values per image: channels times pixels."""
        return math.prod(self.image_shape)

    def encode(
        self, image: Float[Tensor, "instance channel *space"]
    ) -> tuple[Float[Tensor, "instance latent"], Float[Tensor, "instance latent"]]:
        """Mean and log-variance of the posterior of each image."""
        if tuple(image.shape[1:]) != self.image_shape:
            raise InvalidValueError(
                f"`image` must have the shape {self.image_shape} of the training images; got {tuple(image.shape[1:])}. "
                "Resize it with the preprocessing that was saved with the model."
            )
        mean, log_var = self.posterior(self.encoder(image)).chunk(2, dim=1)
        return mean, log_var.clamp(-12.0, 6.0)

    def forward(self, image: Float[Tensor, "instance channel *space"]) -> Float[Tensor, "instance latent"]:
        """The embedding: the posterior mean."""
        return self.encode(image)[0]

    def decode(self, z: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Expected image, in [0, 1] for Bernoulli channels and clamped to it for Gaussian ones."""
        raw = self.decoder(z)
        cut = raw.shape[1] - self.mask_channels
        if self.likelihood is Likelihood.BERNOULLI:
            return raw.sigmoid()
        return torch.cat([raw[:, :cut].clamp(0.0, 1.0), raw[:, cut:].sigmoid()], dim=1)

    def evidence(
        self, image: Float[Tensor, "instance channel *space"], *, generator: torch.Generator | None = None
    ) -> Evidence:
        """Both terms of the bound for a batch.

        Args:
            image: Images (and masks as last channels), values in [0, 1].
            generator: Source of the posterior draw; without one the global source is used.
        """
        mean, log_var = self.encode(image)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=_device_of(generator, mean))
        draw = mean + (0.5 * log_var).exp() * noise.to(mean.device)
        return Evidence(
            self._reconstruction(self.decoder(draw), image),
            kl_to_standard_normal(mean, log_var),
            mean,
            draw,
            self.n_values,
        )

    def _reconstruction(self, raw: Tensor, image: Tensor) -> Tensor:
        cut = raw.shape[1] - self.mask_channels
        if self.likelihood is Likelihood.BERNOULLI:
            return bernoulli_reconstruction(raw, image)
        pixels = gaussian_reconstruction(raw[:, :cut], image[:, :cut], self.log_sd)
        return pixels + bernoulli_reconstruction(raw[:, cut:], image[:, cut:]) if self.mask_channels else pixels


def _device_of(generator: torch.Generator | None, like: Tensor) -> torch.device:
    return like.device if generator is None else generator.device


ACTIVE_KL = 0.05
"""Mean KL above which a latent dimension counts as active (in nats)."""


def active_dimensions(kl: Float[Tensor, "instance latent"]) -> int:
    """Number of latent dimensions whose mean KL from the prior exceeds 0.05 nats.

    Zero means that the latent has collapsed: the decoder ignores it.
    """
    return int((kl.detach().mean(0) > ACTIVE_KL).sum())
