"""What a training looked like, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        train: Mean over the training rows of the total and the parts of the objective, by name.
        validation: The same on the validation rows with the full risk set; None without validation rows.
        seconds: Time that the epoch took, validation included.
    """

    epoch: int
    train: Mapping[str, float]
    validation: Mapping[str, float] | None
    seconds: float


@dataclass(frozen=True, slots=True)
class FitHistory:
    """All epochs of a fit.

    Attributes:
        rows: One row per epoch.
        best_epoch: Epoch whose weights the model has now.
        stopped_early: Whether training ended because validation got no better.
    """

    rows: tuple[EpochRow, ...]
    best_epoch: int
    stopped_early: bool

    def to_frame(self) -> pd.DataFrame:
        """A table with the columns epoch, train_total, train_..., validation_total, validation_..., seconds."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.rows])


def row_to_json(row: EpochRow) -> dict[str, Any]:
    """The row as json holds it."""
    return asdict(row)


def row_from_json(content: Mapping[str, Any]) -> EpochRow:
    """The row that `row_to_json` wrote."""
    return EpochRow(**{name: content[name] for name in ("epoch", "train", "validation", "seconds")})


def _flat(row: EpochRow) -> dict[str, float]:
    train = {f"train_{name}": value for name, value in row.train.items()}
    validation = {f"validation_{name}": value for name, value in (row.validation or {}).items()}
    return {"epoch": row.epoch, **train, **validation, "seconds": row.seconds}
