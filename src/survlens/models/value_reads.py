"""Tracing a model whose code looks at values, such as the checks of a prediction.

`torch.export` traces with tensors that have shapes and no values, so `if bool((times <= 0).any()): raise` stops it. The
answers to such questions are recorded in a run on real tensors and given again while the graph is traced. What is
recorded twice, on two batches, must be the same: code that takes another way for other inputs cannot be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from survlens.core.errors import InvalidTypeError

Value = bool | int | float
_READS: frozenset[Callable[..., Any]] = frozenset(
    {Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.item}
)


class RecordedReads(TorchFunctionMode):
    """While active, keeps every value that code reads out of a tensor.

    Attributes:
        values: What was read, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Value] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _READS:
            self.values.append(found)
        elif func is Tensor.tolist:
            self.values.extend(_leaves(found))  # a tensor without values is asked for one item after the other
        return found


class ReplayedReads(TorchFunctionMode):
    """While active, answers every question about a value as it was answered in a `RecordedReads`.

    `torch.searchsorted`, which ONNX lacks, becomes a count of smaller values.

    Args:
        values: What was recorded.
    """

    def __init__(self, values: list[Value]) -> None:
        super().__init__()
        self._left = iter(values)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            return self._next()
        if func is torch.searchsorted:
            return _position(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _next(self) -> Value:
        for value in self._left:
            return value
        raise InvalidTypeError("`model` must read as many values while it is traced as in a run; it reads more.")


def recorded(run: Callable[[], object], again: Callable[[], object]) -> list[Value]:
    """Values read by `run`, which must be those read by `again`, the same computation on another batch.

    Raises:
        InvalidTypeError: If they differ.
    """
    found = []
    for each in (run, again):
        with RecordedReads() as reads, torch.no_grad():
            each()
        found.append(reads.values)
    if found[0] != found[1]:
        raise InvalidTypeError(
            "`model` must take the same way through its code for every batch to become a graph; it reads values that "
            "depend on the inputs. Write the choice as `torch.where`."
        )
    return found[0]


def _position(sorted_sequence: Tensor, values: Tensor, *, right: bool = False) -> Tensor:
    edges, asked = sorted_sequence[..., None, :], values[..., None]
    return (edges <= asked if right else edges < asked).sum(-1)


def _leaves(values: Any) -> Iterator[Value]:
    if isinstance(values, list):
        for value in values:
            yield from _leaves(value)
    else:
        yield values
