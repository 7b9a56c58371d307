"""How explanations are laid out: names of axes, items of an instance, unit of time."""

from __future__ import annotations

import torch
from torch import Tensor

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.inputs import count_key, has_bags, row_of_item
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel, out_of_inference_mode

_DIMS = {0: (), 1: ("feature",), 3: ("channel", "height", "width"), 4: ("channel", "height", "width", "depth")}


def axis_names(axes: int) -> tuple[str, ...]:
    """Names of the axes of one row of a modality, by how many there are."""
    return _DIMS.get(axes) or tuple(f"axis{number}" for number in range(axes))


def items_of(inputs: Inputs, modality: str) -> Tensor | None:
    """Row of each item of `modality`, or None where each row has one."""
    return row_of_item(inputs[count_key(modality)]) if has_bags(inputs, modality) else None


def chosen_modalities(held: HeldModel, asked: tuple[str, ...] | None) -> tuple[str, ...]:
    """The modalities to explain: those asked for, or all.

    Raises:
        InvalidValueError: If the model has no such modality.
    """
    unknown = [name for name in asked or () if name not in held.modalities]
    if unknown or asked == ():
        raise InvalidValueError(
            f"`modalities` must be among those of the model, {', '.join(held.modalities)}; "
            f"got {', '.join(unknown) or 'none'}."
        )
    return asked or held.modalities


def unit_of(held: HeldModel, raw: Tensor) -> str:
    """Unit of time of the head's curves."""
    return held.head.predict_from_raw(raw[:1].double()).unit


def checked_times(times: object) -> Tensor:
    """Times as a vector in float64.

    Raises:
        InvalidTypeError: If they are no numbers.
        InvalidValueError: If they are no vector, or not finite, > 0 and increasing.
    """
    with out_of_inference_mode():
        try:
            asked = torch.as_tensor(times, dtype=torch.float64).detach().clone()  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidTypeError(
                f"`times` must be a vector of numbers in the unit of the model; got {times!r:.80}. "
                "Pass a tensor or a list such as [6.0, 12.0, 24.0]."
            ) from error
    if asked.ndim > 1:
        raise InvalidValueError(
            f"`times` must be a vector, the same times for every instance; got the shape {tuple(asked.shape)}. "
            "Explain instances with other times in a call of their own."
        )
    asked = asked.reshape(-1).contiguous()
    if not len(asked) or not bool((torch.isfinite(asked) & (asked > 0)).all()) or bool((asked.diff() <= 0).any()):
        raise InvalidValueError(
            f"`times` must be finite, > 0 and strictly increasing; got {asked.tolist()[:8]}. "
            "Sort them, drop duplicates."
        )
    return asked
