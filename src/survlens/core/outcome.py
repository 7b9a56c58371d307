"""What was observed of each instance: how long, and what ended it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
        entry: Time at which observation began (delayed entry, left truncation), 0 <= entry < `time`; an instance is at
            risk in (entry, time]. None where everybody was followed from the origin.
        weight: How often each instance counts, finite and > 0; None where everybody counts once.
        stratum: Number >= 0 of the stratum of each instance: risk sets stay within a stratum. None where there is one.

    Raises:
        InvalidValueError: If times are not finite and positive, events are negative, an entry does not come before its
            time, a weight is not positive, or the lengths differ.
        InvalidTypeError: If `time` is not float64 or `event` is not int64; `from_arrays` converts.
    """

    time: Float64[Tensor, " instance"]
    event: Int64[Tensor, " instance"]
    unit: str
    entry: Float64[Tensor, " instance"] | None = None
    weight: Float64[Tensor, " instance"] | None = None
    stratum: Int64[Tensor, " instance"] | None = None

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
        self._check_optional()

    def _check_optional(self) -> None:
        for name, values, dtype in (
            ("entry", self.entry, torch.float64),
            ("weight", self.weight, torch.float64),
            ("stratum", self.stratum, torch.int64),
        ):
            if values is not None and (values.dtype != dtype or values.shape != self.time.shape):
                raise InvalidTypeError(
                    f"`{name}` must be {dtype} with one value per instance; got {values.dtype} of shape "
                    f"{tuple(values.shape)} for {len(self)}. Use SurvivalOutcome.from_arrays to convert."
                )
        if self.entry is not None:
            fits = torch.isfinite(self.entry) & (self.entry >= 0) & (self.entry < self.time)
            _refuse(~fits, "`entry` must be >= 0 and before `time`", self.entry, "Who entered later was never at risk.")
        if self.weight is not None:
            fits = torch.isfinite(self.weight) & (self.weight > 0)
            _refuse(~fits, "`weight` must be finite and > 0", self.weight, "Remove rows that count nothing.")
        if self.stratum is not None:
            _refuse(self.stratum < 0, "`stratum` must be >= 0", self.stratum, "Number the strata 0, 1, 2 ...")

    @staticmethod
    def from_arrays(
        time: Column,
        event: Column,
        unit: str,
        *,
        entry: Column | None = None,
        weight: Column | None = None,
        stratum: Column | None = None,
    ) -> SurvivalOutcome:
        """Builds an outcome from arrays, lists or tensors.

        Booleans become 0 and 1. Floating-point events are refused, because 0.5 or NaN has no meaning.

        Args:
            time: Observed times.
            event: 0 or False where censored, k >= 1 or True where an event was seen.
            unit: Unit of `time`.
            entry: Times at which observation began, for delayed entry.
            weight: How often each instance counts.
            stratum: Whole number of the stratum of each instance.

        Raises:
            InvalidTypeError: If `event` or `stratum` holds floating-point numbers or another column is not numeric.
        """
        return SurvivalOutcome(
            _numbers("time", time),
            _whole_numbers("event", event),
            unit,
            None if entry is None else _numbers("entry", entry),
            None if weight is None else _numbers("weight", weight),
            None if stratum is None else _whole_numbers("stratum", stratum),
        )

    @staticmethod
    def concatenate(parts: Iterable[SurvivalOutcome]) -> SurvivalOutcome:
        """The instances of several outcomes in one, in order.

        A part without entries, weights or strata counts as followed from 0, with weight 1, in stratum 0, where another
        part has them.

        Raises:
            InvalidValueError: If there are no parts, or their units differ.
        """
        outcomes = list(parts)
        units = sorted({part.unit for part in outcomes})
        if len(units) != 1:
            raise InvalidValueError(f"`parts` must be outcomes in one unit; got {units or 'no parts'}.")

        def joined(
            own: Callable[[SurvivalOutcome], Tensor | None], filled: Callable[[SurvivalOutcome], Tensor]
        ) -> Tensor | None:
            absent = all(own(part) is None for part in outcomes)
            return None if absent else torch.cat([filled(part) for part in outcomes])

        return SurvivalOutcome(
            torch.cat([part.time for part in outcomes]),
            torch.cat([part.event for part in outcomes]),
            units[0],
            joined(lambda part: part.entry, SurvivalOutcome.entries),
            joined(lambda part: part.weight, SurvivalOutcome.weights),
            joined(lambda part: part.stratum, SurvivalOutcome.strata),
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
        return self._each(lambda column: column[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> SurvivalOutcome:
        """Rows of a valid outcome are valid: nothing but the shape is checked again."""
        made = object.__new__(SurvivalOutcome)
        for name in ("time", "event", "entry", "weight", "stratum"):
            column = getattr(self, name)
            object.__setattr__(made, name, None if column is None else change(column))
        object.__setattr__(made, "unit", self.unit)
        if made.time.ndim != 1:
            raise InvalidValueError("rows of an outcome must be asked for by a slice or several positions; got one.")
        return made

    @property
    def n_events(self) -> int:
        """Number of instances that had an event of any cause."""
        return int((self.event > 0).sum())

    @property
    def n_causes(self) -> int:
        """Largest cause that was seen; 0 where everybody was censored."""
        return int(self.event.max()) if len(self) else 0

    @property
    def plain(self) -> bool:
        """Whether there are no entries, weights or strata."""
        return self.entry is None and self.weight is None and self.stratum is None

    def weights(self) -> Float64[Tensor, " instance"]:
        """`weight`, or ones."""
        return torch.ones_like(self.time) if self.weight is None else self.weight

    def entries(self) -> Float64[Tensor, " instance"]:
        """`entry`, or zeros."""
        return torch.zeros_like(self.time) if self.entry is None else self.entry

    def strata(self) -> Int64[Tensor, " instance"]:
        """`stratum`, or zeros."""
        return torch.zeros_like(self.event) if self.stratum is None else self.stratum

    def of_cause(self, cause: int) -> SurvivalOutcome:
        """The outcome of one cause: its events become 1, and who had another is censored there.

        Raises:
            InvalidValueError: If `cause` < 1.
        """
        if cause < 1:
            raise InvalidValueError(f"`cause` must be >= 1; got {cause}.")
        event = (self.event == cause).to(torch.int64)
        return SurvivalOutcome(self.time, event, self.unit, self.entry, self.weight, self.stratum)

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (float64) and events (int64) as arrays."""
        return self.time.detach().cpu().numpy(), self.event.detach().cpu().numpy()

    def to(self, device: torch.device | str) -> SurvivalOutcome:
        """The same outcome on another device; itself where it is there already."""
        if self.time.device == torch.device(device):
            return self
        return self._each(lambda column: column.to(device))


Column = Sequence[float] | Sequence[int] | np.ndarray | Tensor


def _array(values: Column) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _numbers(name: str, values: Column) -> Tensor:
    array = _array(values)
    if array.dtype.kind not in "iuf":
        raise InvalidTypeError(f"`{name}` must be numeric; got {array.dtype}.")
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _whole_numbers(name: str, values: Column) -> Tensor:
    array = _array(values)
    if array.dtype.kind not in "iub":
        raise InvalidTypeError(
            f"`{name}` must be whole numbers or booleans; got {array.dtype}. "
            f"Convert it yourself ({name}.astype(int)) once you know that no value is missing."
        )
    return torch.from_numpy(np.array(array, dtype=np.int64))


def _refuse(wrong: Tensor, rule: str, values: Tensor, next_step: str) -> None:
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0, 0])
        raise InvalidValueError(
            f"{rule}; got {float(values[first]):g} at position {first} ({int(wrong.sum())} such values). {next_step}"
        )


def row_index(index: slice | Tensor | np.ndarray | Sequence[int]) -> slice | Tensor:
    """What torch takes as an index of rows: also from an empty list, a reversed array or one that is read-only."""
    if isinstance(index, slice | Tensor):
        return index
    rows = np.asarray(index)
    return torch.from_numpy(np.array(rows if rows.size else rows.astype(np.int64)))
