"""Terms of the evidence bound of a variational autoencoder."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError


def bernoulli_reconstruction(
    logits: Float[Tensor, "instance channel *space"], target: Float[Tensor, "instance channel *space"]
) -> Float[Tensor, " instance"]:
    """Negative log-likelihood of `target` under Bernoulli(sigmoid(`logits`)), summed over channels and space.

    Per value x and logit a: -x log sigmoid(a) - (1 - x) log sigmoid(-a). For masks and other targets in [0, 1]; for
    grey values strictly between 0 and 1 it is a cross-entropy and no density.

    Raises:
        InvalidValueError: If the shapes differ.
    """
    _same_shape("logits", logits, target)
    terms = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return terms.flatten(1).sum(1)


def gaussian_reconstruction(
    mean: Float[Tensor, "instance channel *space"],
    target: Float[Tensor, "instance channel *space"],
    log_sd: Float[Tensor, "..."],
) -> Float[Tensor, " instance"]:
    """Negative log-density of `target` under a normal distribution, summed over channels and space, constants included.

    Per value x: ((x - m) / s)^2 / 2 + log s + log(2 pi) / 2, with m the `mean` and log s the `log_sd`. With a learned
    scale the best s is the root mean squared error; s fixed at 1 on intensities in [0, 1] silently collapses the latent
    dimensions.

    Args:
        mean: Reconstruction.
        target: What was to be reconstructed.
        log_sd: Natural logarithm of the standard deviation; any shape that broadcasts to `mean`.

    Raises:
        InvalidValueError: If the shapes differ.
    """
    _same_shape("mean", mean, target)
    scaled = (target - mean) * torch.exp(-log_sd)
    terms = scaled.square() / 2 + log_sd + math.log(2 * math.pi) / 2
    return terms.flatten(1).sum(1)


def kl_to_standard_normal(
    mean: Float[Tensor, "instance latent"], log_var: Float[Tensor, "instance latent"]
) -> Float[Tensor, "instance latent"]:
    """Kullback-Leibler divergence of N(`mean`, exp(`log_var`)) from N(0, 1), per latent dimension.

    (exp(v) + m^2 - 1 - v) / 2 with m the `mean` and v the `log_var`. Its mean over instances, dimension by dimension,
    counts the active dimensions.

    Raises:
        InvalidValueError: If the shapes differ.
    """
    _same_shape("mean", mean, log_var, "log_var")
    # expm1(v) - v keeps the digits near v = 0, where an idle dimension sits.
    return (torch.expm1(log_var) - log_var + mean.square()) / 2


def evidence_bound(
    reconstruction: Float[Tensor, " instance"],
    divergence: Float[Tensor, "instance latent"],
    *,
    values: int,
    beta: float = 1.0,
) -> Float[Tensor, " instance"]:
    """Negative evidence bound per reconstructed value: (`reconstruction` + `beta` * sum of `divergence`) / `values`.

    The whole bound is divided, not the reconstruction alone, so that the share of the divergence does not change with
    the size of the image and a mixing weight against a survival loss means the same at 16x16 and at 64x64x64.

    Args:
        reconstruction: Negative log-likelihood, summed over channels and space.
        divergence: Kullback-Leibler terms per latent dimension.
        values: Number of reconstructed values per instance (channels x pixels).
        beta: Weight of the divergence; 1 is the variational autoencoder.

    Raises:
        InvalidValueError: If `values` < 1 or `beta` < 0.

    References:
        Kingma and Welling 2014; Higgins et al. 2017.
    """
    if values < 1:
        raise InvalidValueError(f"`values` must be >= 1; got {values}. Count channels times pixels.")
    if not beta >= 0:
        raise InvalidValueError(f"`beta` must be >= 0; got {beta}.")
    return (reconstruction + beta * divergence.sum(1)) / values


def _same_shape(name: str, first: Tensor, second: Tensor, second_name: str = "target") -> None:
    if first.shape != second.shape:
        raise InvalidValueError(
            f"`{name}` and `{second_name}` must have one shape; got {tuple(first.shape)} and {tuple(second.shape)}."
        )
