"""Explanations averaged over noise in the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import check_tensors, modalities_of, present_values
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, survival

Explainer = Callable[[Any, Inputs, Tensor, Target], dict[str, Attribution]]


@dataclass(frozen=True, slots=True, eq=False)
class SmoothGrad:
    """The mean of an explanation over normal noise in the inputs.

    phi(t | x) = 1/n sum over draws of phi_explainer(t | x + e), e_j ~ Normal(0, (`share` `spread`_j)^2). Around
    `Gradient` it is SmoothGrad, around integrated gradients its smoothed form. The draws are the same for every row, so
    what is said of an instance does not depend on the others. As `share` goes to 0 it becomes the explainer itself.

    Attributes:
        explainer: What is averaged.
        spread: How far each feature spreads, by modality, in a shape that broadcasts to one row: `feature_ranges` or
            `feature_deviations` of the training inputs. Modalities without one stay as they are.
        share: Standard deviation of the noise as a share of `spread`, >= 0.
        draws: Number of draws, >= 2.
        seed: The same seed gives the same result.

    Raises:
        InvalidValueError: If a setting is out of range.

    References:
        Smilkov et al. 2017; Langbein et al. 2025.
    """

    explainer: Explainer
    spread: Mapping[str, Tensor]
    share: float = 0.1
    draws: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share < float("inf"):
            raise InvalidValueError(f"`share` must be finite and >= 0; got {self.share}.")
        if self.draws < 2:
            raise InvalidValueError(f"`draws` must be >= 2, or there is no error to state; got {self.draws}.")
        if not self.spread:
            raise InvalidValueError(
                "`spread` must hold a modality; got none. Give feature_ranges(training_inputs) or a scale of your own."
            )

    def __call__(
        self, model: Any, inputs: Inputs, times: Float[Tensor, " time"], target: Target = survival
    ) -> dict[str, Attribution]:
        """The mean over draws, by modality, with its standard error.

        Raises:
            InvalidValueError: If `inputs` lack a modality of `spread`.
        """
        check_tensors(inputs)
        unknown = [name for name in self.spread if name not in modalities_of(inputs)]
        if unknown:
            raise InvalidValueError(
                f"`spread` must speak of the modalities of `inputs`, {', '.join(modalities_of(inputs))}; "
                f"got {', '.join(unknown)}."
            )
        plain = self.explainer(model, inputs, times, target)
        generator = torch.Generator().manual_seed(self.seed)
        means = {name: torch.zeros_like(each.values) for name, each in plain.items()}
        squares = {name: torch.zeros_like(each.values) for name, each in plain.items()}
        own = {name: torch.zeros_like(each.values) for name, each in plain.items()}
        for draw in range(1, self.draws + 1):
            found = self.explainer(model, self._noisy(inputs, generator), times, target)
            for name, each in found.items():
                change = each.values - means[name]
                means[name] += change / draw
                squares[name] += change * (each.values - means[name])
                if each.sampling_error is not None:
                    own[name] += each.sampling_error**2 / self.draws
        return {name: self._smoothed(plain[name], means[name], squares[name], own[name]) for name in plain}

    def _noisy(self, inputs: Inputs, generator: torch.Generator) -> dict[str, Tensor]:
        moved = dict(inputs)
        for name, spread in self.spread.items():
            tensor = inputs[name]
            noise = torch.randn(tensor.shape[1:], generator=generator, dtype=torch.float64)
            moved[name] = tensor + (self.share * spread.cpu() * noise).to(tensor)
        return moved

    def _smoothed(self, plain: Attribution, mean: Tensor, squares: Tensor, own: Tensor) -> Attribution:
        error = (squares / (self.draws - 1) / self.draws + own).sqrt()
        words = f"Mean over {self.draws} draws of noise with {self.share:g} of each feature's spread."
        return replace(
            plain,
            values=mean,
            method=f"SmoothGrad of {plain.method}",
            paper="Smilkov et al. 2017",
            additive=False,
            completeness_gap=None,
            sampling_error=error,
            notes=(*plain.notes, words),
        )


def feature_ranges(inputs: Inputs) -> dict[str, Float[Tensor, "*feature"]]:
    """Largest minus smallest value of each feature of a table; of a modality of images, of all its values.

    Args:
        inputs: Training inputs; rows that lack a modality do not count.

    Raises:
        InvalidValueError: If no row has a modality.
    """
    return {name: values.amax(0) - values.amin(0) for name, values in _by_feature(inputs).items()}


def feature_deviations(inputs: Inputs) -> dict[str, Float[Tensor, "*feature"]]:
    """Standard deviation of each feature of a table; of a modality of images, of all its values.

    Args:
        inputs: Training inputs; rows that lack a modality do not count.

    Raises:
        InvalidValueError: If no row has a modality.
    """
    return {name: values.std(0, correction=0) for name, values in _by_feature(inputs).items()}


def _by_feature(inputs: Inputs) -> dict[str, Tensor]:
    found = {}
    for name in modalities_of(inputs):
        values = present_values(inputs, name).detach().double()
        if not len(values):
            raise InvalidValueError(f"`inputs` must have rows with {name!r} to know its spread; got none.")
        found[name] = values if values.ndim == 2 else values.flatten()
    return found
