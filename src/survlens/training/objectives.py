"""Objectives: how the unreduced losses of a batch become the one number that is minimised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Head, Inputs
from survlens.losses.reduction import reduce
from survlens.training.risk_set import gather_outcome, gather_rows, gathered_loss, mean_over_ranks, ranks

ACTIVE_KL = 0.05
"""A latent dimension is active where its mean KL divergence from the prior is larger than this (nats)."""


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far the training is.

    Attributes:
        step: Steps taken so far, over all epochs.
        steps: Steps of the whole training.
        epoch: Epochs completed so far.
        epochs: Epochs of the whole training.
        generator: Source of the random numbers that the objective draws; None for the global one.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class ObjectiveValue:
    """What an objective says of a batch.

    Attributes:
        total: The number to minimise, on the graph.
        parts: Named scalars for the history, detached; they stay on the device so that a step need not wait for them.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""] | float]


class TrainableModel(Protocol):
    """What a model must offer to be trained: `survlens.models.survival_model.SurvivalModel` and `CoxVAE` do."""

    head: Head

    def embed(self, inputs: Inputs) -> Float[Tensor, "instance embedding"]:
        """What the head sees."""
        ...

    def loss(self, inputs: Inputs, outcome: SurvivalOutcome) -> Float[Tensor, " instance"]:
        """The head's loss, unreduced."""
        ...


class EvidenceTerms(Protocol):
    """The terms of an evidence bound; see `survlens.generators.vae.Evidence`."""

    @property
    def reconstruction(self) -> Float[Tensor, " instance"]:
        """Negative log-likelihood of each image."""
        ...

    @property
    def kl(self) -> Float[Tensor, "instance latent"]:
        """KL divergence of each latent dimension."""
        ...

    @property
    def embedding_mean(self) -> Float[Tensor, "instance latent"]:
        """Latent means."""
        ...

    @property
    def embedding_draw(self) -> Float[Tensor, "instance latent"]:
        """Draws from the posterior."""
        ...

    @property
    def n_values(self) -> int:
        """Values per image."""
        ...


class EvidenceModel(Protocol):
    """A generative model with a survival head on its latent space."""

    head: Head

    def evidence(self, inputs: Inputs, *, generator: torch.Generator | None = None) -> EvidenceTerms:
        """Terms of the evidence bound, unreduced."""
        ...

    def head_loss(
        self, embedding: Float[Tensor, "instance latent"], inputs: Inputs, outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """The head's loss for given latents, unreduced."""
        ...


class Objective(Protocol):
    """From the rows of one batch to the number that is minimised."""

    def __call__(
        self, model: Any, inputs: Inputs, outcome: SurvivalOutcome, progress: TrainingProgress
    ) -> ObjectiveValue:
        """Value on the rows of one batch."""
        ...


@runtime_checkable
class ValidatedObjective(Protocol):
    """An objective that can be taken over many batches as if they were one, so that nobody is missing in a risk set."""

    def validate(
        self, model: Any, batches: Iterable[tuple[Inputs, SurvivalOutcome]], progress: TrainingProgress
    ) -> ObjectiveValue:
        """Value on the rows of all batches together."""
        ...


@dataclass(frozen=True, slots=True)
class SurvivalObjective:
    """The head's loss: the sum of `model.loss` over the number of events or of instances, as the head says."""

    def __call__(
        self, model: TrainableModel, inputs: Inputs, outcome: SurvivalOutcome, progress: TrainingProgress
    ) -> ObjectiveValue:
        """Value on one batch; where several processes train, on their batches together."""
        if ranks() == 1:
            losses = model.loss(inputs, outcome)
        else:
            losses, outcome = gathered_loss(model.head.loss, model.embed(inputs), outcome)
        return _survival(reduce(losses, outcome, model.head.reduction))

    def validate(
        self, model: TrainableModel, batches: Iterable[tuple[Inputs, SurvivalOutcome]], progress: TrainingProgress
    ) -> ObjectiveValue:
        """Value on all rows with the full risk set."""
        embeddings, outcomes = zip(*((model.embed(inputs), outcome) for inputs, outcome in batches), strict=True)
        outcome = SurvivalOutcome.concatenate(outcomes)
        return _survival(reduce(model.head.loss(torch.cat(embeddings), outcome), outcome, model.head.reduction))


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxVAEObjective:
    """tau * mean_i(bound_i / D) + (1 - tau) * (L_head + decorrelation * C) (Weber et al., CoxVAE; C is not theirs).

    bound_i = reconstruction_i + beta_e * sum of kl_i over the latent dimensions, D the values per image, and
    beta_e = `beta` * min(1, e / `warm_up_epochs`) after e epochs. C is the sum over pairs of latent dimensions of the
    squared covariance of their means in the batch (Kumar et al. 2018). At tau = 1 it is the plain VAE; the head learns
    nothing.

    Attributes:
        tau: Weight of the evidence bound, in [0, 1].
        beta: Weight of the KL divergence once warmed up.
        warm_up_epochs: Epochs over which that weight rises from zero.
        sample_head: Whether the head is trained on draws from the posterior; on latent means otherwise.
        decorrelation: Weight of C. Where several dimensions say what one says, the picture of that one moved alone is
            not what patients show.

    Raises:
        InvalidValueError: If a setting lies outside its range.
    """

    tau: float
    beta: float = 1.0
    warm_up_epochs: int = 0
    sample_head: bool = False
    decorrelation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 1:
            raise InvalidValueError(f"`tau` must lie in [0, 1]; got {self.tau}.")
        if self.beta < 0 or self.warm_up_epochs < 0 or self.decorrelation < 0:
            raise InvalidValueError(
                f"`beta`, `warm_up_epochs` and `decorrelation` must be >= 0; got {self.beta}, {self.warm_up_epochs} "
                f"and {self.decorrelation}."
            )

    def kl_weight(self, epoch: int) -> float:
        """Weight of the KL divergence after `epoch` completed epochs."""
        return self.beta * min(1.0, epoch / self.warm_up_epochs) if self.warm_up_epochs else self.beta

    def __call__(
        self, model: EvidenceModel, inputs: Inputs, outcome: SurvivalOutcome, progress: TrainingProgress
    ) -> ObjectiveValue:
        """Value on one batch; where several processes train, on their batches together."""
        evidence = model.evidence(inputs, generator=progress.generator)
        bound = _bound_parts(evidence)
        survival, means = None, None
        if self.tau < 1:
            means = gather_rows(evidence.embedding_mean) if self.decorrelation else None
            latent = gather_rows(evidence.embedding_draw if self.sample_head else evidence.embedding_mean)
            if ranks() > 1:
                inputs = {name: gather_rows(table) for name, table in tables_of(inputs).items()}
                outcome = gather_outcome(outcome)
            survival = reduce(model.head_loss(latent, inputs, outcome), outcome, model.head.reduction)
        return self._mix(bound, survival, means, self.kl_weight(progress.epoch))

    def validate(
        self, model: EvidenceModel, batches: Iterable[tuple[Inputs, SurvivalOutcome]], progress: TrainingProgress
    ) -> ObjectiveValue:
        """Value on all rows with the full risk set, latent means for the head and the KL weight of the end.

        The weight of the end, because under a rising weight the first epoch would look best.
        """
        seen = [
            (model.evidence(inputs, generator=progress.generator), tables_of(inputs), outcome)
            for inputs, outcome in batches
        ]
        bound = _bound_parts(*(evidence for evidence, _, _ in seen))
        survival, means = None, None
        if self.tau < 1:
            means = latent = torch.cat([evidence.embedding_mean for evidence, _, _ in seen])
            tables = {name: torch.cat([tables[name] for _, tables, _ in seen]) for name in seen[0][1]}
            outcome = SurvivalOutcome.concatenate([outcome for _, _, outcome in seen])
            survival = reduce(model.head_loss(latent, tables, outcome), outcome, model.head.reduction)
        return self._mix(bound, survival, means, self.beta)

    def _mix(
        self, bound: Mapping[str, Tensor], survival: Tensor | None, means: Tensor | None, kl_weight: float
    ) -> ObjectiveValue:
        parts = {name: part.detach() for name, part in bound.items()}
        total = self.tau * (bound["reconstruction"] + kl_weight * bound["kl"])
        if survival is not None:
            total = total + (1 - self.tau) * survival
            parts["survival"] = survival.detach()
        if self.decorrelation and means is not None:
            overlap = _squared_covariances(means)
            total = total + (1 - self.tau) * self.decorrelation * overlap
            parts["overlap"] = overlap.detach()
        return ObjectiveValue(total, parts)


def _squared_covariances(means: Float[Tensor, "instance latent"]) -> Float[Tensor, ""]:
    """Sum over pairs of latent dimensions of their squared covariance; 0 for one row."""
    away = means - means.mean(dim=0)
    covariance = away.T @ away / max(len(means) - 1, 1)
    return covariance.triu(diagonal=1).square().sum()


def tables_of(inputs: Inputs) -> dict[str, Tensor]:
    """The modalities that are tables (one vector per instance): all that a head may want beside an embedding."""
    return {name: tensor for name, tensor in inputs.items() if tensor.ndim == 2}


def _survival(total: Tensor) -> ObjectiveValue:
    return ObjectiveValue(total, {"survival": total.detach()})


def _bound_parts(*evidence: EvidenceTerms) -> dict[str, Tensor]:
    reconstruction = torch.cat([part.reconstruction for part in evidence]) / evidence[0].n_values
    kl = torch.cat([part.kl for part in evidence])
    return {
        "reconstruction": mean_over_ranks(reconstruction),
        "kl": mean_over_ranks(kl.sum(dim=1) / evidence[0].n_values),
        "active_dimensions": (kl.detach().mean(dim=0) > ACTIVE_KL).sum().to(kl.dtype),
    }
