"""CoxVAE: a variational autoencoder whose latent space also has to rank survival."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Inputs
from survlens.core.ties import Ties
from survlens.encoders.mlp import MLP
from survlens.encoders.residual import ResidualCNN
from survlens.generators.decoders import DenseDecoder, ResidualDecoder
from survlens.generators.vae import Evidence, Likelihood, VariationalAutoencoder
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import check_modalities


class CoxVAE(nn.Module):
    """Encoder and decoder of images with a survival head on the latent vector (Weber et al., CoxVAE).

    Trained on `tau * mean_i(bound_i / D) + (1 - tau) * L_head`, with D the values per image, by
    `survlens.training.objectives.CoxVAEObjective`. With the linear head, one unit of latent dimension i multiplies the
    hazard by exp(weight_i), and decoding along i shows what that dimension *is*.

    Args:
        vae: The autoencoder of `inputs["image"]`.
        head: Survival head over the latent vector, followed by the clinical covariates where `covariates` > 0.
        covariates: Features of `inputs["table"]` that enter the head beside the latents.
    """

    def __init__(self, vae: VariationalAutoencoder, head: nn.Module, *, covariates: int = 0):
        super().__init__()
        self.vae, self.head, self.covariates = vae, head, covariates
        expected = vae.latent + covariates
        if getattr(head, "in_features", expected) != expected:
            raise InvalidValueError(
                f"`head` must take {vae.latent} latents + {covariates} covariates = {expected} features; "
                f"got {head.in_features}."
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the inputs that the model needs."""
        return ("image", "table") if self.covariates else ("image",)

    def latent(self, inputs: Inputs) -> Float[Tensor, "instance latent"]:
        """Latent means of the images."""
        check_modalities(inputs, self.modalities)
        return self.vae(inputs["image"])

    def embed(self, inputs: Inputs) -> Float[Tensor, "instance embedding"]:
        """What the head sees: latent means, then the covariates."""
        return self._with_covariates(self.latent(inputs), inputs)

    forward = embed

    def decode(self, latent: Float[Tensor, "instance latent"]) -> Float[Tensor, "instance channel *space"]:
        """Expected images of latent vectors."""
        return self.vae.decode(latent)

    def evidence(self, inputs: Inputs, *, generator: torch.Generator | None = None) -> Evidence:
        """Terms of the evidence bound of the images."""
        check_modalities(inputs, self.modalities)
        return self.vae.evidence(inputs["image"], generator=generator)

    def head_loss(
        self, embedding: Float[Tensor, "instance latent"], inputs: Inputs, outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """The head's loss for given latents (means or draws), one value per instance."""
        return self.head.loss(self._with_covariates(embedding, inputs), outcome)  # type: ignore[operator]

    def loss(self, inputs: Inputs, outcome: SurvivalOutcome) -> Float[Tensor, " instance"]:
        """The head's loss at the latent means, one value per instance."""
        return self.head_loss(self.latent(inputs), inputs, outcome)

    def predict_survival(self, inputs: Inputs, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves, at the head's own knots or at `times`."""
        return self.head.predict(self.embed(inputs), times)  # type: ignore[operator]

    def risk(self, inputs: Inputs) -> Float[Tensor, " instance"]:
        """The head's risk; higher is worse."""
        return self.head.risk(self.embed(inputs))  # type: ignore[operator]

    def _with_covariates(self, latent: Tensor, inputs: Inputs) -> Tensor:
        return torch.cat([latent, inputs["table"]], dim=1) if self.covariates else latent


class Architecture(Enum):
    """Networks of a CoxVAE. DENSE: fully connected, for small images. RESIDUAL: one residual block per width."""

    DENSE = "dense"
    RESIDUAL = "residual"


def cox_vae(
    image_shape: Sequence[int],
    *,
    latent: int = 8,
    architecture: Architecture = Architecture.RESIDUAL,
    widths: Sequence[int] | None = None,
    likelihood: Likelihood = Likelihood.GAUSSIAN,
    sd: float = 0.2,
    mask_channels: int = 0,
    mask_weights: Sequence[float] | None = None,
    covariates: int = 0,
    template: bool = False,
    normalised_decoder: bool = True,
    checkpointing: bool = False,
    channels_last: bool = False,
    seed: int = 0,
) -> CoxVAE:
    """A CoxVAE with a linear Cox head without bias, for images or volumes of one shape.

    The head starts with weight 1 on the first latent dimension and 0 elsewhere.

    Args:
        image_shape: (channel, height, width), or (channel, height, width, depth) for volumes.
        latent: Dimensions of the latent vector.
        architecture: Networks of encoder and decoder.
        widths: Widths of the encoder, mirrored in the decoder; (256, 256) dense and (16, 32, 64, 128) residual by
            default, fewer for images whose sides cannot be halved so often. Volumes of any sides >= 8 get all
            four; of these only as many halve the volume as leave two voxels along each side.
        likelihood: Distribution of an intensity, which must lie in [0, 1]: bring Hounsfield units through a window.
        sd: Standard deviation of an intensity.
        mask_channels: How many of the last channels are masks, each voxel of which is Bernoulli.
        mask_weights: Factor on the log-likelihood of each mask channel; see `VariationalAutoencoder`.
        covariates: Clinical features beside the latents.
        template: Whether a residual decoder adds a linear map of the latent vector; see `ResidualDecoder`.
        normalised_decoder: Whether the blocks of a residual decoder normalise their maps.
        checkpointing: Whether residual blocks are computed twice in training to save memory.
        channels_last: Whether weights lie in memory with channels last, which is faster for volumes on most processors.
        seed: Seed of the initial weights; the global source of random numbers is left as it was.
    """
    shape = tuple(int(side) for side in image_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture is Architecture.DENSE:
            hidden = tuple(widths or (256, 256))
            encoder: nn.Module = MLP(math.prod(shape), hidden)
            decoder: nn.Module = DenseDecoder(latent, shape, hidden[::-1])
        else:
            channels = tuple(widths or _fitting_widths(shape))
            resized = len(channels) if len(shape) == 3 else _resized(shape, len(channels))
            encoder = ResidualCNN(
                shape[0],
                channels,
                dimensions=len(shape) - 1,
                image_size=shape[1:],
                checkpointing=checkpointing,
                halvings=resized,
                averaged=len(shape) == 4,
            )
            decoder = ResidualDecoder(
                latent,
                shape,
                channels[::-1],
                checkpointing=checkpointing,
                template=template,
                doublings=resized,
                normalised=normalised_decoder,
            )
        vae = VariationalAutoencoder(
            encoder, decoder, likelihood=likelihood, sd=sd, mask_channels=mask_channels, mask_weights=mask_weights
        )
        model = CoxVAE(vae, _on_first_axis(CoxPH(latent + covariates, ties=Ties.EFRON)), covariates=covariates)
    if channels_last:
        model.to(memory_format=torch.channels_last if len(shape) == 3 else torch.channels_last_3d)  # type: ignore[call-overload]
    return model


# The prior of the latent space has no direction: turning the space, and the head with it, changes neither term of the
# loss. A head that starts in a random direction therefore spreads the hazard over several dimensions, none of which can
# be shown alone. Started on the first axis it loses nothing, and the hazard gathers in one dimension that can be walked
# along; every weight remains free to move.
def _on_first_axis(head: CoxPH) -> CoxPH:
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.weight[0, 0] = 1.0
    return head


def _resized(shape: tuple[int, ...], blocks: int) -> int:
    """How many blocks halve a volume without leaving fewer than two voxels along a side.

    A map of one voxel has no place left, and normalisation takes most of its values too.
    """
    smallest, count = min(shape[1:]), 0
    while count < blocks and -(-smallest // 2 ** (count + 1)) >= 2:
        count += 1
    return count


def _fitting_widths(shape: tuple[int, ...]) -> tuple[int, ...]:
    widths = (16, 32, 64, 128)
    if len(shape) == 4 and min(shape[1:]) >= 8:
        return widths
    depth = 0
    while depth < 4 and all(side % 2 ** (depth + 1) == 0 and side // 2 ** (depth + 1) >= 2 for side in shape[1:]):
        depth += 1
    if depth == 0:
        raise InvalidValueError(f"`image_shape` must have even sides of at least 4; got {shape}. Set an image size.")
    return widths[:depth]
