"""What is wrong with inputs that a network cannot take, in the words of the one who gave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.inputs import count_key, has_bags, item_count, row_of_item
from survlens.core.protocols import Inputs

_SHOWN = 5
_OF_SHAPE = ("shape", "size of tensor", "channels")


def check_finite(inputs: Inputs, modalities: Sequence[str], who: str = "inputs") -> None:
    """Refuses NaN and infinite values in rows that have the modality; placeholders of other rows may hold anything.

    Args:
        inputs: Inputs, known to be well formed.
        modalities: Names to look at.
        who: What they are called in the message.

    Raises:
        InvalidValueError: If a value is not finite; the message names the modality and the instances.
    """
    for name in modalities:
        tensor = inputs[name]
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
            continue
        bad = ~torch.isfinite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]).all(1)
        there = item_count(inputs, name) > 0
        rows = torch.arange(len(bad), device=bad.device)
        if has_bags(inputs, name):
            rows = row_of_item(inputs[count_key(name)]).to(bad.device)
        wrong = rows[bad & there.to(bad.device)[rows]].unique().tolist()
        if wrong:
            shown = ", ".join(map(str, wrong[:_SHOWN])) + (", ..." if len(wrong) > _SHOWN else "")
            raise InvalidValueError(
                f"`{who}[{name!r}]` must be finite; got NaN or infinite values in {len(wrong)} of "
                f"{len(there)} rows: {shown}. Impute them as for training."
            )


def check_raw(raw: object, rows: int) -> Any:
    """The raw output, once it is known to have one row per instance.

    Raises:
        InvalidValueError: If it has another shape.
    """
    if isinstance(raw, Tensor) and (raw.ndim != 2 or raw.shape[0] != rows):
        raise InvalidValueError(
            f"`inputs` must give the network one row of raw outputs per instance; got raw outputs of the shape "
            f"{tuple(raw.shape)} for {rows} instances. Give every modality an axis of instances first."
        )
    return raw


def is_suspect(model: Any, inputs: Inputs, modalities: Sequence[str]) -> bool:
    """Whether a network is likely to refuse its inputs, by their types and the first layers of its encoders."""
    return any(
        not inputs[name].is_floating_point() or not _row_taken(_encoder_of(model, name), inputs[name])[1]
        for name in modalities
    )


def refused_by_network(model: Any, inputs: Inputs, modalities: Sequence[str], error: Exception) -> Exception:
    """What to raise for an error of the network: a clear one where its inputs cannot be right, else the same."""
    text = str(error)
    shapes, misfit = [], False
    for name in modalities:
        due, fits = _row_taken(_encoder_of(model, name), inputs[name])
        misfit |= not fits
        shapes.append(f"rows of {name!r} of the shape {tuple(inputs[name].shape[1:])}{due and f' where {due} is due'}")
    if misfit or any(word in text for word in _OF_SHAPE):
        return InvalidValueError(
            f"`inputs` must have the shapes that the network was built for; got {'; '.join(shapes)}. Prepare them as "
            f"for training. The network says: {_first_line(text)}"
        )
    whole = [f"{name!r} of {inputs[name].dtype}" for name in modalities if not inputs[name].is_floating_point()]
    if whole:
        return InvalidTypeError(
            f"`inputs` must hold numbers of floating point where the network computes with them; got "
            f"{', '.join(whole)}. Convert them: tensor.float(). The network says: {_first_line(text)}"
        )
    return error


def _encoder_of(model: Any, name: str) -> nn.Module | None:
    encoders = getattr(model, "encoders", None)
    return encoders[name] if isinstance(encoders, nn.ModuleDict) and name in encoders else None


def _row_taken(encoder: nn.Module | None, given: Tensor) -> tuple[str, bool]:
    """The shape of a row that the first layer of an encoder takes, in words, and whether that given can be right."""
    for layer in () if encoder is None else encoder.modules():
        if isinstance(layer, nn.Linear):
            return f"({layer.in_features},)", given.ndim > 1 and given.shape[-1] == layer.in_features
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            axes = ("height", "width", "depth")[: len(layer.kernel_size)]
            fits = given.ndim == 2 + len(axes) and given.shape[1] == layer.in_channels
            return f"({layer.in_channels}, {', '.join(axes)})", fits
    return "", True


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "nothing."
