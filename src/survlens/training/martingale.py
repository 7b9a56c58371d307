"""Cox's model in batches of any size: a memory of everybody's log-risk instead of the risk set of the batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.inputs import modalities_of, rows_of_modality
from survlens.core.nonparametric import StepCurve, log_breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.core.ties import Ties
from survlens.data.loaders import Indices, ItemSource, Source, as_rows
from survlens.losses.cox_martingale import cox_martingale_loss
from survlens.losses.reduction import reduce
from survlens.training.objectives import ObjectiveValue, TrainingProgress
from survlens.training.risk_set import ranks

ROW = "row"
"""Key under which the inputs of a `NumberedSource` say which row of the source each row of a batch is."""


class NumberedSource:
    """A source whose batches say which of its rows they hold, under the key "row".

    Args:
        source: Training rows, in which nothing is called "row".
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.outcome = source.outcome

    def __len__(self) -> int:
        return len(self.outcome)

    def batch(self, indices: Indices) -> tuple[Inputs, SurvivalOutcome]:
        """Inputs, with the numbers of the rows, and outcome of some rows."""
        rows = as_rows(indices)
        inputs, outcome = self.source.batch(rows)
        if ROW in inputs:
            raise InvalidValueError(f"`source` must not hold a modality called {ROW!r}; got one. Rename it.")
        return {**inputs, ROW: torch.where(rows < 0, rows + len(self), rows)}, outcome

    @property
    def items(self) -> Int64[Tensor, " instance"]:
        """Number of items of each row; 1 where the source has no rows of several."""
        if isinstance(self.source, ItemSource):
            return self.source.items
        return torch.ones(len(self), dtype=torch.int64)

    def for_epoch(self, generator: torch.Generator) -> NumberedSource:
        """The same rows with the items that one epoch of training reads."""
        return NumberedSource(self.source.for_epoch(generator)) if isinstance(self.source, ItemSource) else self


class RiskMemory:
    """The latest log-risk of every training instance, and the cumulative hazard that follows from them.

    Instances not yet seen take no part: the hazard is then Breslow's estimate from those seen.

    Args:
        outcome: Outcome of the training rows, in the order of their numbers; without strata.
    """

    def __init__(self, outcome: SurvivalOutcome) -> None:
        if outcome.stratum is not None:
            raise InvalidValueError(
                "`outcome` must have no strata for a memory of risks; got some. Use SurvivalObjective."
            )
        self.outcome = outcome.to("cpu")
        self.log_risk = np.full(len(outcome), np.nan)

    def forget(self) -> None:
        """Forgets all log-risks."""
        self.log_risk[:] = np.nan

    def remember(self, rows: Int64[Tensor, " _"], log_risk: Float[Tensor, " _"]) -> None:
        """Keeps the log-risks of some rows; they get no gradient through the memory."""
        self.log_risk[rows.detach().cpu().numpy()] = log_risk.detach().double().cpu().numpy()

    def log_hazard(self) -> StepCurve:
        """Logarithm of Breslow's cumulative baseline hazard of the instances remembered."""
        seen = np.flatnonzero(np.isfinite(self.log_risk))
        return log_breslow_baseline(self.log_risk[seen], self.outcome[seen], ties=Ties.BRESLOW)


class MartingaleObjective:
    """-mean over the batch of [event * r - L(time) exp(r)], with L from a memory of the latest r of all training rows.

    For heads of proportional hazards (`CoxPH`), in batches of any size, down to one. The plain loss of a batch compares
    its instances with each other only; in small batches its gradient is short and noisy, and zero in a batch of one.
    Here L is detached and is made anew every `refresh` steps from the log-risks that each instance had when it was last
    in a batch (those of the present batch included). Give `fit` the training rows as `NumberedSource(train)`.

    Validation takes the head's own loss over all rows with the full risk set. The memory starts empty at step 0 of a
    training, and also where a training goes on from a checkpoint: that does not repeat the bits of one that was not
    interrupted. On one process only.

    Args:
        outcome: Outcome of the training rows.
        refresh: Steps between two estimates of L, >= 1; each costs n log n.
        most: Expected events of an instance from which its loss is linear; see `cox_martingale_loss`.

    References:
        Cox 1972; Breslow 1972; Therneau, Grambsch and Fleming 1990.
    """

    def __init__(self, outcome: SurvivalOutcome, *, refresh: int = 1, most: float = 1000.0) -> None:
        if refresh < 1 or not 0 < most < float("inf"):
            raise InvalidValueError(f"`refresh` must be >= 1 and `most` finite and > 0; got {refresh} and {most}.")
        self.refresh, self.most, self.memory = refresh, most, RiskMemory(outcome)
        self._log_hazard: StepCurve | None = None

    def __repr__(self) -> str:
        return f"MartingaleObjective(refresh={self.refresh}, most={self.most:g})"

    def __call__(
        self, model: Any, inputs: Inputs, outcome: SurvivalOutcome, progress: TrainingProgress
    ) -> ObjectiveValue:
        """Value on one batch, which must say which rows it holds."""
        if ROW not in inputs:
            raise InvalidValueError(
                f"`inputs` must say under {ROW!r} which training rows they are; "
                f"got {', '.join(modalities_of(inputs))}. Give fit the training rows as NumberedSource(train)."
            )
        if ranks() > 1:
            raise InvalidValueError(
                f"MartingaleObjective must run in one process; got {ranks()}. Use SurvivalObjective."
            )
        rows = inputs[ROW]
        log_risk = _log_risk(model, inputs)
        if rows_of_modality(inputs, ROW) != len(outcome) or int(rows.max()) >= len(self.memory.outcome):
            raise InvalidValueError(
                f"`outcome` must be that of the training rows; got {len(self.memory.outcome)} rows in the memory and a "
                f"row numbered {int(rows.max())}. Build the objective with train.outcome."
            )
        if progress.step == 0:
            self.memory.forget()
            self._log_hazard = None
        self.memory.remember(rows, log_risk)
        if self._log_hazard is None or progress.step % self.refresh == 0:
            self._log_hazard = self.memory.log_hazard()
        loss = cox_martingale_loss(log_risk, outcome, self._log_hazard, most=self.most)
        counted = float(len(outcome)) if outcome.weight is None else float(outcome.weight.sum())
        total = loss.sum() / counted
        return ObjectiveValue(total, {"survival": total.detach()})

    def validate(
        self, model: Any, batches: Iterable[tuple[Inputs, SurvivalOutcome]], progress: TrainingProgress
    ) -> ObjectiveValue:
        """The head's loss on all rows with the full risk set."""
        embeddings, outcomes = zip(*((model.embed(inputs), outcome) for inputs, outcome in batches), strict=True)
        outcome = SurvivalOutcome.concatenate(outcomes)
        total = reduce(model.head.loss(torch.cat(embeddings), outcome), outcome, model.head.reduction)
        return ObjectiveValue(total, {"survival": total.detach()})


def _log_risk(model: Any, inputs: Inputs) -> Float[Tensor, " instance"]:
    asked = getattr(model.head, "log_risk", None)
    if asked is None:
        raise InvalidTypeError(
            f"`model` must have a head with one log-risk per instance, such as CoxPH; got {type(model.head).__name__}."
        )
    return asked(model.embed({name: tensor for name, tensor in inputs.items() if name != ROW}))
