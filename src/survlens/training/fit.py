"""The fit loop."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from survlens.core.errors import FitError, InvalidValueError, UsageError
from survlens.core.grid import TimeGrid
from survlens.core.inputs import modalities_of, present_values
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import BaselineHead, Inputs
from survlens.data.loaders import ItemSource, Source
from survlens.training.accelerators import Accelerator, accelerator_for
from survlens.training.batches import event_balanced_batches, shuffled_batches
from survlens.training.checkpoints import Checkpoints, FitState
from survlens.training.freezing import frozen_parts, train_mode
from survlens.training.history import EpochRow as EpochRow
from survlens.training.history import FitHistory as FitHistory
from survlens.training.objectives import Objective, ObjectiveValue, TrainingProgress, ValidatedObjective
from survlens.training.reading import read_batches, read_in_order
from survlens.training.repeatability import (
    Interrupted as Interrupted,
)
from survlens.training.repeatability import (
    InterruptRequest,
    deferred_interrupts,
    deterministic_kernels,
    epoch_generator,
    random_states,
    restore_random_states,
    seeded,
)
from survlens.training.settings import FitSettings as FitSettings
from survlens.training.settings import Precision

_LOSS_CHECK = 25
"""On a device, the loss is looked at every so many steps, because looking makes the device wait."""


def fit(
    model: nn.Module,
    train: Source,
    validation: Source | None,
    objective: Objective,
    settings: FitSettings,
    *,
    folder: Path | str | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochRow], object] | None = None,
) -> FitHistory:
    """Trains a model in place; afterwards it has its best weights, its baseline if it needs one, and is in eval mode.

    Every epoch takes one step per batch of `train`, then the value of the objective on all of `validation` together.
    With a folder, checkpoints are written to `folder/checkpoints`, and a training that was killed goes on from there;
    on the CPU it ends with the same bits as one that was not.

    Args:
        model: Such as `SurvivalModel` or `CoxVAE`.
        train: Training rows.
        validation: Rows of other training patients, on which the best epoch is chosen and training is stopped early;
            never rows that are scored later. None: the last epoch counts.
        objective: What is minimised.
        settings: How.
        folder: Folder for checkpoints; None for none.
        resume: Go on from the checkpoint in `folder`, if there is one.
        on_epoch: Called with the row of every epoch.

    Raises:
        InvalidValueError: If early stopping is asked for without validation rows, or there are no rows.
        UsageError: If the folder holds a checkpoint and `resume` is not set, or that of another training.
        FitError: If the loss is no longer a finite number.
        WriteError: If a checkpoint cannot be written.
        Interrupted: If the user pressed Ctrl-C; with a folder, a checkpoint was written.
    """
    _check(model, train, validation, settings)
    grid = getattr(getattr(model, "head", None), "grid", None)
    if isinstance(grid, TimeGrid):
        grid.warn_if_empty(train.outcome)
    accelerator = accelerator_for(settings)
    home = next(model.parameters()).device
    checkpoints = None if folder is None else Checkpoints(folder, _identity(settings, objective, train, validation))
    if checkpoints is not None and checkpoints.exist() and not resume:
        raise UsageError(
            f"`folder` must hold no checkpoint of an earlier training; got {checkpoints.folder}. "
            "Pass resume=True to go on from it, or another folder."
        )
    with (
        seeded(accelerator.device, settings.seed + accelerator.rank),
        deterministic_kernels(accelerator.device, settings.deterministic),
        deferred_interrupts() as request,
        frozen_parts(model, settings.frozen),
    ):
        training = _Training(model, (train, validation), objective, settings, accelerator, checkpoints)
        try:
            return training.run(request, on_epoch)
        except KeyboardInterrupt:
            raise Interrupted(training.interruption()) from None
        finally:
            model.eval()
            model.to(home)


class _Training:
    def __init__(
        self,
        model: nn.Module,
        sources: tuple[Source, Source | None],
        objective: Objective,
        settings: FitSettings,
        accelerator: Accelerator,
        checkpoints: Checkpoints | None,
    ):
        self.model: Any = model
        self.train, self.validation = sources
        self.objective, self.settings, self.accelerator = objective, settings, accelerator
        self.checkpoints = checkpoints if accelerator.rank == 0 or (checkpoints and checkpoints.exist()) else None
        self.optimiser = _optimiser(model, settings, accelerator.device)
        accelerator.prepare(model, self.optimiser)
        self.noise = torch.Generator(accelerator.device).manual_seed(settings.seed + accelerator.rank)
        self.state = FitState()
        self.best_weights: dict[str, Tensor] | None = None
        self.best_is_written, self.between_steps = True, True
        if self.checkpoints is not None and self.checkpoints.exist():
            self._restore(self.checkpoints)

    def run(self, request: InterruptRequest, on_epoch: Callable[[EpochRow], object] | None) -> FitHistory:
        while not self._finished():
            self._epoch(request)
            if on_epoch is not None:
                on_epoch(self.state.rows[-1])
            if request.asked:
                raise KeyboardInterrupt
        self._save()
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        self.model.eval()
        self._fit_baseline()
        if request.asked:
            raise KeyboardInterrupt
        state = self.state
        return FitHistory(tuple(state.rows), state.best_epoch or state.epoch, state.epoch < self.settings.epochs)

    def interruption(self) -> str:
        """Keeps what can be kept, and says what that is."""
        where = f"after {self.state.epoch} of {self.settings.epochs} epochs"
        if self.checkpoints is None:
            return f"Training was interrupted {where}; without a folder nothing was kept."
        if self.between_steps:
            self._save()
        if not self.checkpoints.exist():
            return f"Training was interrupted {where}, before the first checkpoint."
        return (
            f"Training was interrupted {where}; {self.checkpoints.folder} holds a checkpoint. Resume to go on from it."
        )

    def _epoch(self, request: InterruptRequest) -> None:
        state, settings = self.state, self.settings
        generator = epoch_generator(settings.seed, state.epoch)
        train = self.train.for_epoch(generator) if isinstance(self.train, ItemSource) else self.train
        if settings.event_balanced:
            batches = event_balanced_batches(self.train.outcome.event, settings.batch, generator=generator)
        else:
            batches = shuffled_batches(len(self.train), settings.batch, generator=generator)
        mine = [rows[self.accelerator.rank :: self.accelerator.ranks] for rows in batches[state.step :]]
        train_mode(self.model, settings.frozen)
        clock = time.perf_counter()
        for inputs, outcome in read_batches(train, mine, self.accelerator.place) if mine else ():
            self.between_steps = False
            self._step(inputs, outcome, self._progress(len(batches)))
            state.step += 1
            now = time.perf_counter()
            state.seconds, clock = state.seconds + now - clock, now
            self.between_steps = True
            if request.asked:
                raise KeyboardInterrupt
        self._end_epoch(self._validated(len(batches)), clock)
        if self.checkpoints is not None and self.checkpoints.due():
            self._save()

    def _progress(self, steps: int) -> TrainingProgress:
        state, epochs = self.state, self.settings.epochs
        return TrainingProgress(state.epoch * steps + state.step, epochs * steps, state.epoch, epochs, self.noise)

    def _step(self, inputs: Inputs, outcome: SurvivalOutcome, progress: TrainingProgress) -> None:
        value = self._value(lambda: self.objective(self.model, inputs, outcome, progress))
        on_cpu = self.accelerator.device.type == "cpu"
        if (on_cpu or self.state.step % _LOSS_CHECK == 0) and not math.isfinite(float(value.total.detach())):
            self._fail(inputs)
        self.accelerator.backward(value.total)
        self.accelerator.update(self.settings.clip_gradient)
        sums, rows = self.state.sums, len(outcome)
        for name, part in {"total": value.total, **value.parts}.items():
            seen = part.detach() if isinstance(part, Tensor) else part
            number = float(seen) if on_cpu or not isinstance(seen, Tensor) else seen.double()
            sums[name] = sums.get(name, 0.0) + rows * number
        self.state.rows_seen += rows

    def _value(self, function: Callable[[], ObjectiveValue]) -> ObjectiveValue:
        kept: list[ObjectiveValue] = []

        def total() -> Tensor:
            kept.append(function())
            return kept[0].total

        return ObjectiveValue(self.accelerator.compute(total), kept[0].parts)

    @torch.no_grad()
    def _validated(self, steps: int) -> dict[str, float] | None:
        source = self.validation
        if source is None:
            return None
        self.model.eval()
        noise = torch.Generator(self.accelerator.device).manual_seed(self.settings.seed)
        epochs = self.settings.epochs
        progress = TrainingProgress((self.state.epoch + 1) * steps, epochs * steps, self.state.epoch + 1, epochs, noise)
        if isinstance(self.objective, ValidatedObjective):
            whole = self.objective
            value = self._value(lambda: whole.validate(self.model, self._in_order(source), progress))
        else:
            inputs, outcome = self.accelerator.place(*source.batch(torch.arange(len(source))))
            value = self._value(lambda: self.objective(self.model, inputs, outcome, progress))
        return {name: float(part) for name, part in {"total": value.total, **value.parts}.items()}

    def _end_epoch(self, validation: dict[str, float] | None, clock: float) -> None:
        state = self.state
        train = {name: float(value) / max(state.rows_seen, 1) for name, value in state.sums.items()}
        if not math.isfinite(train["total"]) or not math.isfinite((validation or train)["total"]):
            self._fail(None)
        self.between_steps = False
        seconds = state.seconds + time.perf_counter() - clock
        state.rows.append(EpochRow(state.epoch + 1, train, validation, seconds))
        state.epoch, state.step, state.sums, state.rows_seen, state.seconds = state.epoch + 1, 0, {}, 0, 0.0
        if validation is not None and validation["total"] < state.best_value:
            state.best_value, state.best_epoch = validation["total"], state.epoch
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.best_is_written = False
        self.between_steps = True

    def _finished(self) -> bool:
        state, patience = self.state, self.settings.patience
        waited_enough = patience is not None and state.epoch - state.best_epoch >= patience
        return state.epoch >= self.settings.epochs or (waited_enough and state.epoch > 0)

    def _save(self) -> None:
        if self.checkpoints is None or self.accelerator.rank != 0:
            return
        if self.validation is None:
            self.checkpoints.write_best(self.model.state_dict(), self.state.epoch)
        elif self.best_weights is not None and not self.best_is_written:
            # The best weights first: a kill between the two files leaves the newer best with the older last, and the
            # resumed training comes by that epoch again.
            self.checkpoints.write_best(self.best_weights, self.state.best_epoch)
            self.best_is_written = True
        random = random_states(self.accelerator.device, self.noise)
        self.checkpoints.write(self.state, self.model, self.optimiser, random)

    def _restore(self, checkpoints: Checkpoints) -> None:
        self.state, random = checkpoints.read(self.model, self.optimiser)
        restore_random_states(self.accelerator.device, self.noise, random)
        if self.state.best_epoch:
            self.best_weights = checkpoints.read_best(self.model)

    @torch.no_grad()
    def _fit_baseline(self) -> None:
        head = getattr(self.model, "head", None)
        if isinstance(head, BaselineHead):
            seen = [(self.model.embed(inputs), outcome) for inputs, outcome in self._in_order(self.train)]
            head.fit_baseline(torch.cat([embedding for embedding, _ in seen]), self.train.outcome.to(seen[0][0].device))

    def _in_order(self, source: Source) -> Iterator[tuple[Inputs, SurvivalOutcome]]:
        return read_in_order(source, 4 * self.settings.batch, self.accelerator.place)

    def _fail(self, inputs: Inputs | None) -> NoReturn:
        given = {} if inputs is None else {name: present_values(inputs, name) for name in modalities_of(inputs)}
        broken = [name for name, tensor in given.items() if not bool(torch.isfinite(tensor).all())]
        cause = "The likely cause is a learning rate that is too high: try a tenth of it, or clip_gradient=1.0."
        if broken:
            cause = f"The cause is values in {', '.join(broken)} that are not finite: impute or remove them."
        kept = ""
        if self.checkpoints is not None and self.checkpoints.exist():
            kept = f" The last good checkpoint is kept in {self.checkpoints.folder}."
        raise FitError(f"The loss must stay finite; got NaN or infinity in epoch {self.state.epoch + 1}. {cause}{kept}")


def _optimiser(model: nn.Module, settings: FitSettings, device: torch.device) -> Optimizer:
    head = list(model.head.parameters()) if isinstance(getattr(model, "head", None), nn.Module) else []  # type: ignore[union-attr]
    own = {id(weight) for weight in head} if settings.head_learning_rate is not None else set()
    groups = [{"params": [w for w in model.parameters() if w.requires_grad and id(w) not in own]}]
    if own:
        kept = [weight for weight in head if weight.requires_grad]
        groups.append({"params": kept, "lr": settings.head_learning_rate})  # type: ignore[dict-item]
    groups = [group for group in groups if group["params"]]
    # The fused kernel takes one call a step; under 16-bit gradient scaling it cannot be clipped.
    fused = settings.optimiser in (Adam, AdamW, SGD) and settings.precision != Precision.HALF_MIXED
    extra: dict[str, Any] = {"fused": True} if fused and device.type in ("cpu", "cuda") else {}
    return settings.optimiser(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, **extra)  # type: ignore[call-arg]


def _check(model: nn.Module, train: Source, validation: Source | None, settings: FitSettings) -> None:
    if len(train) == 0:
        raise InvalidValueError("`train` must hold at least one row; got none.")
    if validation is not None and len(validation) == 0:
        raise InvalidValueError("`validation` must hold at least one row; got none. Pass None to train without.")
    if settings.patience is not None and validation is None:
        raise InvalidValueError(
            f"`validation` must be given to stop early (patience={settings.patience}); got None. "
            "Split off some training patients, or set patience=None."
        )
    with frozen_parts(model, settings.frozen):
        if not any(weight.requires_grad for weight in model.parameters()):
            raise InvalidValueError("`model` must have weights that can be trained; got none. Unfreeze some.")
    if settings.head_learning_rate is not None and not isinstance(getattr(model, "head", None), nn.Module):
        raise InvalidValueError("`model` must have a `head` module for head_learning_rate; got none.")


def _identity(settings: FitSettings, objective: Objective, train: Source, validation: Source | None) -> dict[str, str]:
    shown = repr(objective)
    named = type(objective).__name__ if " at 0x" in shown else shown
    data = {"train": _fingerprint(train), "validation": "none" if validation is None else _fingerprint(validation)}
    return settings.fingerprint() | {"objective": named} | data


def _fingerprint(source: Source) -> str:
    time_, event = source.outcome.numpy()
    digest = hashlib.sha256(time_.tobytes() + event.tobytes()).hexdigest()[:16]
    return f"{len(source)} rows {digest}"
