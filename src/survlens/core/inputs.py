"""What is missing from inputs, and how many items of a modality a row has.

Two tensors may stand beside a modality `m` of `Inputs`, both with one value per row:

- `"m.present"` (bool): whether the row has the modality. Where it is false, the values of the row in `m` are
  placeholders that nothing may read. Without it every row has the modality.
- `"m.count"` (int64): how many items (images) the row has. `m` then holds the items of all rows, one after another in
  the order of the rows, instead of one item per row. A row of no items lacks the modality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.protocols import Inputs

_PRESENT, _COUNT = ".present", ".count"


def present_key(modality: str) -> str:
    """The key under which inputs say which rows have `modality`."""
    return modality + _PRESENT


def count_key(modality: str) -> str:
    """The key under which inputs say how many items of `modality` each row has."""
    return modality + _COUNT


def modalities_of(inputs: Inputs) -> tuple[str, ...]:
    """Names of the modalities, without what stands beside them."""
    return tuple(name for name in inputs if not name.endswith((_PRESENT, _COUNT)))


def has_bags(inputs: Inputs, modality: str) -> bool:
    """Whether a row may have several items of `modality`."""
    return count_key(modality) in inputs


def rows_of_modality(inputs: Inputs, modality: str) -> int:
    """Number of rows that `modality` speaks of."""
    return int(inputs[count_key(modality) if has_bags(inputs, modality) else modality].shape[0])


def item_count(inputs: Inputs, modality: str) -> Int64[Tensor, " instance"]:
    """Number of items of each row: 1 where no count is given and 0 where the row lacks the modality."""
    counts = inputs.get(count_key(modality))
    stated = inputs.get(present_key(modality))
    if counts is None:
        tensor = inputs[modality]
        counts = torch.ones(tensor.shape[0], dtype=torch.int64, device=tensor.device)
    return counts if stated is None else counts * stated


def present(inputs: Inputs, modality: str) -> Bool[Tensor, " instance"]:
    """Whether each row has `modality`."""
    return item_count(inputs, modality) > 0


def states_missing(inputs: Inputs, modality: str) -> bool:
    """Whether `inputs` say which rows have `modality`; where they do not, all rows have it."""
    return present_key(modality) in inputs or has_bags(inputs, modality)


def row_of_item(count: Int64[Tensor, " instance"]) -> Int64[Tensor, " item"]:
    """The row of each item, where row i has `count[i]` items and they follow each other."""
    return torch.repeat_interleave(torch.arange(count.shape[0], device=count.device), count)


def items_of_rows(count: Int64[Tensor, " instance"], rows: Int64[Tensor, " chosen"]) -> Int64[Tensor, " item"]:
    """Positions of the items of `rows`, in the order of `rows`."""
    starts = count.cumsum(0) - count
    chosen = count[rows]
    before = chosen.cumsum(0) - chosen
    shift = torch.repeat_interleave(starts[rows] - before, chosen)
    return shift + torch.arange(shift.shape[0], device=count.device)


def present_values(inputs: Inputs, modality: str) -> Float[Tensor, "item ..."]:
    """The items of `modality` without placeholders."""
    if not states_missing(inputs, modality):
        return inputs[modality]
    rows = present(inputs, modality).nonzero()[:, 0]
    counts = inputs.get(count_key(modality))
    return inputs[modality][rows if counts is None else items_of_rows(counts, rows)]


def select_rows(inputs: Inputs, rows: Int64[Tensor, " chosen"]) -> dict[str, Tensor]:
    """Some rows, in the order of `rows`, with all their items and what stands beside them."""
    selected = {}
    for name, tensor in inputs.items():
        counts = inputs.get(count_key(name))
        selected[name] = tensor[rows if counts is None else items_of_rows(counts, rows)]
    return selected


def check_tensors(inputs: Inputs) -> None:
    """Refuses what is no mapping from names to tensors.

    Raises:
        InvalidTypeError: If `inputs` are no mapping, or hold anything but tensors.
    """
    if not isinstance(inputs, Mapping):
        raise InvalidTypeError(
            f"`inputs` must be a mapping from names of modalities to tensors; got {type(inputs).__name__}. "
            'Pass {"table": rows}, with the names of the model.'
        )
    for name, tensor in inputs.items():
        if not isinstance(tensor, Tensor):
            raise InvalidTypeError(
                f"`inputs[{name!r}]` must be a tensor; got {type(tensor).__name__}. Convert it: torch.as_tensor(rows)."
            )


def check_inputs(inputs: Inputs, modalities: Iterable[str]) -> int:
    """Number of rows of `inputs`, once they are known to hold `modalities` with one number of rows.

    Raises:
        InvalidValueError: If a modality is not there, numbers of rows differ, or counts do not add up to the items.
        InvalidTypeError: If `inputs` are no mapping of tensors, presence is not boolean, or counts are not int64.
    """
    check_tensors(inputs)
    modalities = tuple(modalities)
    missing = [name for name in modalities if name not in inputs]
    if missing:
        raise InvalidValueError(
            f"`inputs` must hold {', '.join(modalities)}; got {', '.join(modalities_of(inputs)) or 'nothing'}. "
            f"Add {', '.join(missing)}, with `{present_key(missing[0])}` false in the rows that lack it."
        )
    rows: dict[str, int] = {}
    for name in modalities:
        rows |= _rows_beside(inputs, name)
    first = next(iter(rows.values()), 0)
    if any(count != first for count in rows.values()):
        raise InvalidValueError(f"`inputs` must have one number of rows in every modality; got {rows}.")
    return first


def _rows_beside(inputs: Inputs, name: str) -> dict[str, int]:
    beside: Mapping[str, torch.dtype] = {present_key(name): torch.bool, count_key(name): torch.int64}
    given = {key: inputs[key] for key in beside if key in inputs}
    for key, tensor in given.items():
        if tensor.dtype != beside[key] or tensor.ndim != 1:
            raise InvalidTypeError(
                f"`{key}` must be a vector of {beside[key]}; got {tensor.dtype} of shape {tuple(tensor.shape)}."
            )
    rows = {key: tensor.shape[0] for key, tensor in given.items()}
    items = inputs[name].shape[0]
    counts = given.get(count_key(name))
    if counts is None:
        return {name: items} | rows
    if bool((counts < 0).any()) or int(counts.sum()) != items:
        raise InvalidValueError(
            f"`{count_key(name)}` must be >= 0 and add up to the {items} items of `{name}`; "
            f"got a sum of {int(counts.sum())}."
        )
    return rows
