"""Losses of two networks that play against each other: a generator, and a discriminator that tells its pictures apart.

The discriminator gives one logit per picture, high where it takes the picture for a photograph.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from survlens.core.errors import InvalidValueError


def photograph_loss(logits: Float[Tensor, " instance"]) -> Float[Tensor, " instance"]:
    """What it costs that pictures are not taken for photographs: -log sigmoid(`logits`) = softplus(-`logits`).

    The discriminator pays it for photographs, and the generator for its own pictures. That is the non-saturating loss:
    its gradient is largest where the discriminator is surest.

    Args:
        logits: Output of the discriminator.

    References:
        Goodfellow et al. 2014.
    """
    return softplus(-logits)


def generated_loss(logits: Float[Tensor, " instance"]) -> Float[Tensor, " instance"]:
    """What it costs that pictures are taken for photographs: -log(1 - sigmoid(`logits`)) = softplus(`logits`).

    The discriminator pays it for generated pictures.

    Args:
        logits: Output of the discriminator.

    References:
        Goodfellow et al. 2014.
    """
    return softplus(logits)


def r1_penalty(
    pictures: Float[Tensor, "instance channel height width"], logits: Float[Tensor, " instance"]
) -> Float[Tensor, " instance"]:
    """Squared length of the discriminator's gradient with respect to each photograph, on the graph.

        r_i = || d D(x_i) / d x_i ||^2,

    of which the loss is gamma / 2 times the mean. It keeps a discriminator from growing ever steeper.

    Args:
        pictures: The photographs x, on whose graph `logits` stand. Where they were augmented, x is before that.
        logits: D(x).

    Raises:
        InvalidValueError: If `pictures` do not ask for a gradient, or the sizes differ.

    References:
        Mescheder et al. 2018.
    """
    if not pictures.requires_grad:
        raise InvalidValueError(
            "`pictures` must ask for a gradient before the discriminator sees them; got requires_grad=False."
        )
    if len(pictures) != len(logits):
        raise InvalidValueError(f"`logits` must be one per picture; got {len(logits)} for {len(pictures)} pictures.")
    (gradient,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
    return gradient.float().square().sum((1, 2, 3))


def path_lengths(
    pictures: Float[Tensor, "instance channel height width"],
    ws: Float[Tensor, "instance slot latent"],
    noise: Float[Tensor, "instance channel height width"],
) -> Float[Tensor, " instance"]:
    """How far each picture moves along a random direction for a small step of its latent vectors, on the graph.

        J_i = sqrt( mean over slots s of || d (G(w_i) . n_i) / d w_is ||^2 ),   n = `noise` / sqrt(height width)

    Args:
        pictures: G(w), on the graph of `ws`.
        ws: The latent vectors w, one per slot.
        noise: Standard normal draws.

    References:
        Karras et al. 2020 (StyleGAN2).
    """
    scale = 1 / math.sqrt(pictures.shape[2] * pictures.shape[3])
    (gradient,) = torch.autograd.grad((pictures * noise).sum() * scale, ws, create_graph=True)
    # A length of exactly 0 has no derivative; the smallest normal number under the root gives it the derivative 0.
    squared = gradient.float().square().sum(2).mean(1)
    return squared.clamp_min(torch.finfo(torch.float32).tiny).sqrt()


def path_length_penalty(lengths: Float[Tensor, " instance"], usual: Float[Tensor, ""]) -> Float[Tensor, " instance"]:
    """Squared distance of path lengths J from what they usually are: (J - a)^2.

    It makes steps of equal length in the latent space equal in the picture, whatever the place and the direction, which
    is what an embedding by descent and an edit rely on.

    Args:
        lengths: J, from `path_lengths`.
        usual: Their running mean a, a <- a + 0.01 (mean J - a), without a gradient.

    References:
        Karras et al. 2020 (StyleGAN2).
    """
    return (lengths - usual.detach()).square()
