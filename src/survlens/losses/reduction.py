"""From one loss per instance to one number."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Reduction


def reduce(loss: Float[Tensor, " instance"], outcome: SurvivalOutcome, reduction: Reduction) -> Float[Tensor, ""]:
    """The sum of `loss`, divided by the number of events or of instances.

    A partial likelihood has one term per event, so dividing by the events keeps its scale whatever share is censored.
    Without events it is 0, on the graph.

    Args:
        loss: One value per instance.
        outcome: What was observed of the same instances.
        reduction: What to divide by; a head says it in its `reduction`.

    Raises:
        InvalidValueError: If `loss` is not one value per instance.
    """
    if loss.shape != outcome.time.shape:
        raise InvalidValueError(
            f"`loss` must have one value per instance; got shape {tuple(loss.shape)} for {len(outcome)} outcomes."
        )
    count = {Reduction.PER_EVENT: outcome.n_events, Reduction.PER_INSTANCE: len(outcome)}[reduction]
    return loss.sum() / max(count, 1)
