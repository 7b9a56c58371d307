"""Training some parts of a model while others stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.loaders import Source, TensorSource
from survlens.training.reading import embeddings_of

EMBEDDING = "embedding"
"""Modality under which cached embeddings stand."""


@contextmanager
def frozen_parts(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within it the named parts get no gradient; afterwards every weight takes part in training as before.

    Args:
        model: Any module.
        names: Names of modules in it, such as "encoders" or "encoders.image.stages".

    Raises:
        InvalidValueError: If the model has no module of that name.
    """
    weights = [weight for part in _parts(model, names) for weight in part.parameters()]
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, asked in zip(weights, before, strict=True):
            weight.requires_grad_(asked)


def train_mode(model: nn.Module, frozen: Sequence[str]) -> None:
    """Training mode for the model and eval mode for its frozen parts: batch norm keeps its statistics, no dropout."""
    model.train()
    for part in _parts(model, frozen):
        part.eval()


class HeadOnly(nn.Module):
    """The head of a model on embeddings that were computed before; its weights are those of the model.

    Args:
        model: A model with a `head` module.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        head = getattr(model, "head", None)
        if not isinstance(head, nn.Module):
            raise InvalidTypeError(f"`model` must have a `head` module; got {type(model).__name__}.")
        self.head: Any = head

    def embed(self, inputs: Inputs) -> Float[Tensor, "instance embedding"]:
        """The embedding that stands in `inputs`."""
        return inputs[EMBEDDING]

    def loss(self, inputs: Inputs, outcome: SurvivalOutcome) -> Float[Tensor, " instance"]:
        """The head's loss, one value per instance."""
        return self.head.loss(self.embed(inputs), outcome)


def cached_embeddings(model: nn.Module, source: Source, *, batch: int = 256) -> TensorSource:
    """The embeddings of all rows of a source, computed once in eval mode, as a source for `HeadOnly(model)`.

    With everything but the head frozen an epoch then costs what the head costs:
    `fit(HeadOnly(model), cached_embeddings(model, train), None, objective, settings)` trains the head of `model` in
    place, to the same weights as `fit(model, train, ...)` with `frozen` naming all other parts.

    Args:
        model: Such as `SurvivalModel`.
        source: The rows.
        batch: Rows read at once.
    """
    return TensorSource({EMBEDDING: embeddings_of(model, source, batch=batch)}, source.outcome)


def _parts(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    known = dict(model.named_modules())
    for name in names:
        if name not in known or not name:
            some = ", ".join(list(known)[1:7])
            raise InvalidValueError(
                f"`frozen` must name modules of the model; got {name!r}. Its modules are {some}, ...; "
                "see named_modules()."
            )
    return [known[name] for name in names]
