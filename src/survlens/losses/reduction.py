"""From one loss per instance to one number."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Reduction


def reduce(loss: Float[Tensor, " instance"], outcome: SurvivalOutcome, reduction: Reduction) -> Float[Tensor, ""]:
    """The sum of `loss`, divided by the number of events or of instances; with weights, by their sum.

    A partial likelihood has one term per event, so dividing by the events keeps its scale whatever share is censored.
    Without events it is 0, on the graph. The losses of survlens are weighted already: `loss` is w_i times the term of
    instance i.

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
    counted = outcome.event > (0 if reduction is Reduction.PER_EVENT else -1)
    count = int(counted.sum()) if outcome.weight is None else float(outcome.weight[counted].sum())
    return loss.sum() / (count or 1)
