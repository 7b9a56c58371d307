"""What was observed of each instance: how long, and what ended it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from survlens.core.errors import InvalidTypeError, InvalidValueError


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalOutcome:
    """Observed times and events of a set of instances.

    Attributes:
        time: Time from the origin to the event or to the end of follow-up, in `unit`; finite and > 0.
        event: 0 where the instance was censored, k >= 1 where cause k ended it.
        unit: Unit of `time` ("days", "months", "years"); it travels to every axis label and is never converted.

    Raises:
        InvalidValueError: If times are not finite and positive, events are negative, or the lengths differ.
        InvalidTypeError: If `time` is not float64 or `event` is not int64; `from_arrays` converts.
    """

    time: Float64[Tensor, " instance"]
    event: Int64[Tensor, " instance"]
    unit: str

    def __post_init__(self) -> None:
        if self.time.dtype != torch.float64 or self.event.dtype != torch.int64:
            raise InvalidTypeError(
                "`time` must be float64 and `event` int64; "
                f"got {self.time.dtype} and {self.event.dtype}. Use SurvivalOutcome.from_arrays to convert."
            )
        if self.time.ndim != 1 or self.time.shape != self.event.shape:
            raise InvalidValueError(
                "`time` and `event` must be one-dimensional and of one length; "
                f"got shapes {tuple(self.time.shape)} and {tuple(self.event.shape)}."
            )
        if not isinstance(self.unit, str) or not self.unit:
            raise InvalidValueError(f"`unit` must name the unit of time; got {self.unit!r}. Say for example 'months'.")
        wrong = ~(torch.isfinite(self.time) & (self.time > 0))
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0, 0])
            raise InvalidValueError(
                f"`time` must be finite and > 0; got {float(self.time[first])} at position {first} "
                f"({int(wrong.sum())} such values). Remove the rows, or add the smallest unit of follow-up to all."
            )
        if bool((self.event < 0).any()):
            first = int((self.event < 0).nonzero()[0, 0])
            raise InvalidValueError(
                f"`event` must be 0 (censored) or a cause k >= 1; got {int(self.event[first])} at position {first}."
            )

    @staticmethod
    def from_arrays(
        time: Sequence[float] | np.ndarray | Tensor, event: Sequence[int] | np.ndarray | Tensor, unit: str
    ) -> SurvivalOutcome:
        """Builds an outcome from arrays, lists or tensors.

        Booleans become 0 and 1. Floating-point events are refused, because 0.5 or NaN has no meaning.

        Args:
            time: Observed times.
            event: 0 or False where censored, k >= 1 or True where an event was seen.
            unit: Unit of `time`.

        Raises:
            InvalidTypeError: If `event` holds floating-point numbers or `time` is not numeric.
        """
        time_array = time.detach().cpu().numpy() if isinstance(time, Tensor) else np.asarray(time)
        event_array = event.detach().cpu().numpy() if isinstance(event, Tensor) else np.asarray(event)
        if time_array.dtype.kind not in "iuf":
            raise InvalidTypeError(f"`time` must be numeric; got {time_array.dtype}.")
        if event_array.dtype.kind not in "iub":
            raise InvalidTypeError(
                f"`event` must be whole numbers or booleans; got {event_array.dtype}. "
                "Convert it yourself (event.astype(int)) once you know that no value is missing."
            )
        return SurvivalOutcome(
            torch.from_numpy(np.array(time_array, dtype=np.float64)),
            torch.from_numpy(np.array(event_array, dtype=np.int64)),
            unit,
        )

    def __len__(self) -> int:
        return int(self.time.shape[0])

    @property
    def shape(self) -> tuple[int]:
        """One axis of instances; with it, scikit-learn's splitters take an outcome as `y`."""
        return (len(self),)

    def __getitem__(
        self, index: slice | Tensor | np.ndarray | Sequence[int] | tuple[object, EllipsisType]
    ) -> SurvivalOutcome:
        rows = row_index(index[0] if isinstance(index, tuple) else index)  # type: ignore[arg-type]
        return SurvivalOutcome(self.time[rows], self.event[rows], self.unit)

    @property
    def n_events(self) -> int:
        """Number of instances that had an event of any cause."""
        return int((self.event > 0).sum())

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (float64) and events (int64) as arrays."""
        return self.time.detach().cpu().numpy(), self.event.detach().cpu().numpy()

    def to(self, device: torch.device | str) -> SurvivalOutcome:
        """The same outcome on another device."""
        return SurvivalOutcome(self.time.to(device), self.event.to(device), self.unit)


def row_index(index: slice | Tensor | np.ndarray | Sequence[int]) -> slice | Tensor:
    """What torch takes as an index of rows: also from an empty list, a reversed array or one that is read-only."""
    if isinstance(index, slice | Tensor):
        return index
    rows = np.asarray(index)
    return torch.from_numpy(np.array(rows if rows.size else rows.astype(np.int64)))
