"""What the training of a generator against a discriminator looked like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from survlens.training.adversarial_settings import ResolvedSettings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class AdversarialRow:
    """Some steps together.

    Attributes:
        step: Number of the last of them, from 1.
        images: Photographs seen so far.
        values: Means over these steps, by name: loss_generator, loss_discriminator, and, where they were taken, r1 (the
            squared gradient) and path_length (J). At the end of them: p, the probability of changes, and overfitting, r
            as p was adapted last; broken, steps with a gradient that was not finite; and of the moving average
            lightness, redness, yellowness (differences of mean L*, a*, b* from the photographs), drift (their length)
            and drift_by_chance.
        seconds: Time of the training so far.
    """

    step: int
    images: int
    values: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class AdversarialHistory:
    """All rows of a training.

    Attributes:
        rows: One row per `log_interval` steps.
        finished: Whether all steps were taken; else the time was up.
        resolved: Numbers that stood for None in the settings.
    """

    rows: tuple[AdversarialRow, ...]
    finished: bool
    resolved: ResolvedSettings

    def to_frame(self) -> pd.DataFrame:
        """A table with the columns step, images, seconds and the values by name."""
        return frame_of(self.rows)


def frame_of(rows: tuple[AdversarialRow, ...] | list[AdversarialRow]) -> pd.DataFrame:
    """A table with the columns step, images, seconds and the values by name."""
    import pandas as pd

    return pd.DataFrame(
        [{"step": row.step, "images": row.images, "seconds": row.seconds, **row.values} for row in rows]
    )
