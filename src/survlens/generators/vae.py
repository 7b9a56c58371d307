"""A variational autoencoder with a stated likelihood."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.losses.evidence import bernoulli_reconstruction, gaussian_reconstruction, kl_to_standard_normal

_START_IMAGES = 1000
"""Images that an untrained autoencoder is started at."""


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
        mask_weights: Factor on the log-likelihood of each mask channel, > 0; 1 by default. Tumours fill a hundredth of
            the voxels, so without one a latent vector of a few numbers is spent on the outline of the body. Every voxel
            of a channel gets the same factor, so decoded chances stay chances.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        likelihood: Likelihood = Likelihood.GAUSSIAN,
        sd: float = 0.2,
        mask_channels: int = 0,
        mask_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        if sd <= 0:
            raise InvalidValueError(f"`sd` must be > 0; got {sd}.")
        self.encoder, self.decoder = encoder, decoder
        self.likelihood, self.sd = likelihood, sd
        self.mask_channels = mask_channels
        self.mask_weights = (1.0,) * mask_channels if mask_weights is None else tuple(map(float, mask_weights))
        if len(self.mask_weights) != mask_channels or any(weight <= 0 for weight in self.mask_weights):
            raise InvalidValueError(
                f"`mask_weights` must be {mask_channels} numbers > 0, one per mask channel; got {self.mask_weights}."
            )
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
        # In mixed precision the network ends in 16 bits, too few for exponents of variances and sums over a volume.
        mean, log_var = _in_full(self.posterior(self.encoder(image))).chunk(2, dim=1)
        return mean, log_var.clamp(-12.0, 6.0)

    def forward(self, image: Float[Tensor, "instance channel *space"]) -> Float[Tensor, "instance latent"]:
        """The embedding: the posterior mean."""
        return self.encode(image)[0]

    def decode(self, z: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Expected image, in [0, 1] for Bernoulli channels and clamped to it for Gaussian ones."""
        raw = _in_full(self.decoder(z))
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
            self._reconstruction(_in_full(self.decoder(draw)), image),
            kl_to_standard_normal(mean, log_var),
            mean,
            draw,
            self.n_values,
        )

    @torch.no_grad()
    def start_at(self, images: Float[Tensor, "instance channel *space"]) -> None:
        """Lets an untrained autoencoder draw about the mean image, so that training need not find it first.

        A decoder with one bias per channel starts at the mean of each channel. A `ResidualDecoder` with a template
        starts as principal component analysis: the mean image, and the images that vary most, in units of the
        channels' likelihoods; the encoder's last layer starts at the ridge regression of their scores on what its
        random blocks give, with posterior standard deviations of 1/7. The first latent dimension, where the survival
        head looks, starts empty. Training goes on from there. Matters for rare masks, which take hundreds of
        steps from 1/2 in every voxel to 1/100, and for all pictures where steps are few.

        Args:
            images: Training images, more than latent dimensions. Of more than 1,000 the first 1,000 are used.

        Raises:
            InvalidValueError: If they have another shape, are too few, or a mask is empty or full in all of them.
        """
        images = images[:_START_IMAGES]
        if tuple(images.shape[1:]) != self.image_shape or len(images) <= self.latent:
            raise InvalidValueError(
                f"`images` must be more than {self.latent} of the shape {self.image_shape}; got {tuple(images.shape)}."
            )
        masks = self.image_shape[0] if self.likelihood is Likelihood.BERNOULLI else self.mask_channels
        cut = self.image_shape[0] - masks
        mean = images.mean(0)
        chance = mean[cut:].flatten(1)
        share = chance.mean(dim=1, keepdim=True)
        if bool(((share <= 0) | (share >= 1)).any()):
            raise InvalidValueError(
                f"`images` must have masks that are neither empty nor full; got shares {share.flatten().tolist()}. "
                "Leave out masks that say nothing."
            )
        # A voxel that was never part of a mask may be one day: one part in a hundred of the mask's share everywhere.
        raw = torch.cat([mean[:cut].flatten(1), (0.99 * chance + 0.01 * share).logit()])
        bias: Tensor = self.decoder.output_bias  # type: ignore[assignment]
        if len(bias) == len(raw):
            bias.copy_(torch.cat([mean[:cut].flatten(1).mean(1), share.flatten().logit()]))
            return
        bias.copy_(raw.flatten())
        if getattr(self.decoder, "template", False):
            self._start_at_components(images, mean, cut)

    def _start_at_components(self, images: Tensor, mean: Tensor, cut: int) -> None:
        scale = torch.full((self.image_shape[0], 1), 1 / self.sd)
        scale[cut:] = 2.0
        away = ((images - mean).flatten(2) * scale).flatten(1)
        _, vectors = torch.linalg.eigh((away @ away.T).double())
        scores = math.sqrt(len(images)) * vectors[:, len(images) - self.latent + 1 :].to(away.dtype)
        components = (scores.T @ away / len(images)).unflatten(1, (self.image_shape[0], -1)) / scale
        # The slope of the logistic function turns changes of a chance into changes of its logit.
        chance = mean[cut:].flatten(1)
        components[:, cut:] /= (chance * (1 - chance)).clamp_min(0.1)
        self.decoder.linear.weight[:, 1:] = components.flatten(1).T  # type: ignore[union-attr]

        features = torch.cat([self.encoder(part) for part in images.split(64)])
        centre = features.mean(0)
        kernel = (features - centre) @ (features - centre).T
        ridge = 0.3 * kernel.diagonal().mean() * torch.eye(len(images))
        weight = torch.linalg.solve(kernel + ridge, scores).T @ (features - centre)
        self.posterior.weight[1 : self.latent] = weight
        self.posterior.bias[1 : self.latent] = -weight @ centre
        self.posterior.weight[0] = 0.0
        self.posterior.weight[self.latent :] *= 0.1
        self.posterior.bias[self.latent :] = -4.0

    def _reconstruction(self, raw: Tensor, image: Tensor) -> Tensor:
        cut = raw.shape[1] - self.mask_channels
        if self.likelihood is Likelihood.BERNOULLI:
            return bernoulli_reconstruction(raw, image)
        pixels = gaussian_reconstruction(raw[:, :cut], image[:, :cut], self.log_sd)
        if not self.mask_channels:
            return pixels
        masks = zip(raw[:, cut:].split(1, dim=1), image[:, cut:].split(1, dim=1), self.mask_weights, strict=True)
        return pixels + sum(weight * bernoulli_reconstruction(*pair) for *pair, weight in masks)


def _in_full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _device_of(generator: torch.Generator | None, like: Tensor) -> torch.device:
    return like.device if generator is None else generator.device


ACTIVE_KL = 0.05
"""Mean KL above which a latent dimension counts as active (in nats)."""


def active_dimensions(kl: Float[Tensor, "instance latent"]) -> int:
    """Number of latent dimensions whose mean KL from the prior exceeds 0.05 nats.

    Zero means that the latent has collapsed: the decoder ignores it.
    """
    return int((kl.detach().mean(0) > ACTIVE_KL).sum())


def warn_if_collapsed(kl: Float[Tensor, "instance latent"]) -> None:
    """Warns where no latent dimension is active.

    Args:
        kl: KL divergence of each latent dimension over many instances, better all training instances.

    Warns:
        UserWarning: If the latent has collapsed.
    """
    if active_dimensions(kl) == 0:
        warnings.warn(
            f"No latent dimension is active: mean KL {kl.detach().mean(0).max():.3g} nats at most, "
            f"{ACTIVE_KL:g} are needed. The decoder ignores the latent vector. "
            "Use a smaller `sd` (0.2 for intensities in [0, 1]) or a smaller weight of the KL divergence.",
            stacklevel=2,
        )
