"""Training of a StyleGAN2 on photographs: a generator and a discriminator against each other."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from survlens.artifacts.run_folder import write_json, write_table
from survlens.artifacts.stylegan2_checkpoint import StyleGAN2Weights, save_weights
from survlens.core.errors import FitError, InvalidValueError, UsageError
from survlens.data.loaders import Source
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.loading import weights_from
from survlens.generators.stylegan2.pictures import to_network
from survlens.training.accelerators import Accelerator, accelerator_for
from survlens.training.adaptive_augmentation import AugmentationControl
from survlens.training.adversarial_history import AdversarialHistory, AdversarialRow, frame_of
from survlens.training.adversarial_looks import Looks, warn_of_drift
from survlens.training.adversarial_phases import Draws, Phases
from survlens.training.adversarial_player import Player, summed
from survlens.training.adversarial_settings import AdversarialSettings
from survlens.training.adversarial_state import AdversarialCheckpoint, AdversarialState
from survlens.training.moving_average import follow, memory
from survlens.training.repeatability import Interrupted, InterruptRequest, deferred_interrupts, deterministic_kernels
from survlens.training.settings import Precision
from survlens.training.thread_count import threads_for_side
from survlens.training.training_photographs import Photographs, Survey, TrainingRecord, dealt_rows


def finetune(
    generator: Generator,
    discriminator: Discriminator,
    photographs: Tensor | Source,
    settings: AdversarialSettings,
    *,
    folder: Path | str | None = None,
    patients: Sequence[object] | None = None,
    resume: bool = False,
    beginning: str | None = None,
    on_row: Callable[[AdversarialRow], object] | None = None,
) -> AdversarialHistory:
    """Trains both networks in place; afterwards the generator is its own moving average, and both are in eval mode.

    A step is a batch for the generator, a batch for the discriminator, and every few steps the two penalties, each with
    a step of Adam of its own. Adam is set so that the penalties of period k change nothing else: learning rate times
    k / (k + 1), moments to the power k / (k + 1).

    The folder gets `generator.safetensors` (the moving average) and `discriminator.safetensors` with their sizes,
    `shape.json`, `settings.json`, `history.csv`, `fitted_on.json` (hashes of the photographs and patients), `grids/`
    with generated pictures, and `checkpoints/`. A training that was killed or whose time was up goes on from there; on
    the CPU it ends with the same bits as one that was not. Generated pictures may resemble patients: keep the folder
    where the photographs may be kept.

    Args:
        generator: From a checkpoint, or new with `TrainingStart.SCRATCH`.
        discriminator: Of the same shape.
        photographs: Aligned photographs of training patients, in [0, 1] or as bytes; or a source with "image".
        settings: How.
        folder: Folder of the result; None for none.
        patients: Patient of each photograph, to be kept as hashes.
        resume: Go on from the checkpoint in `folder`, if there is one.
        beginning: What tells the networks to start from apart from others, such as a hash of their weights; where it is
            given, a training that began with others is not gone on with.
        on_row: Called with every row of the history.

    Returns:
        The history.

    Raises:
        InvalidValueError: If networks, photographs and settings do not fit each other.
        UsageError: If the folder holds a checkpoint and `resume` is not set, or that of another training.
        FitError: If a loss is no longer a finite number.
        WriteError: If a file cannot be written.
        Interrupted: If the user pressed Ctrl-C; with a folder, a checkpoint was written.

    References:
        Karras et al. 2020 (StyleGAN2); Karras et al. 2020 (ADA); Mo et al. 2020.
    """
    accelerator = accelerator_for(settings.fit_settings())
    _check(generator, discriminator, len(photographs), settings, accelerator.ranks, patients)
    home = generator.mapping.w_avg.device
    source = Photographs(photographs)
    survey = source.survey(generator)
    asked = [weight.requires_grad for weight in _weights(generator, discriminator)]
    with (
        threads_for_side(generator.shape.resolution, accelerator.device),
        deterministic_kernels(accelerator.device, settings.deterministic),
        deferred_interrupts() as request,
    ):
        try:
            training = _Training((generator, discriminator), (source, survey), settings, accelerator, folder, beginning)
            if training.checkpoint is not None and training.checkpoint.exists() and not resume:
                raise UsageError(
                    f"`folder` must hold no checkpoint of an earlier training; got {training.checkpoint.path}. "
                    "Pass resume=True to go on from it, or another folder."
                )
            return training.run(request, on_row, patients)
        finally:
            for weight, before in zip(_weights(generator, discriminator), asked, strict=True):
                weight.requires_grad_(before)
            for module in (generator, discriminator):
                module.to(home, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
                module.eval()


class _Training:
    def __init__(
        self,
        networks: tuple[Generator, Discriminator],
        data: tuple[Photographs, Survey],
        settings: AdversarialSettings,
        accelerator: Accelerator,
        folder: Path | str | None,
        beginning: str | None,
    ):
        self.generator, self.discriminator = networks
        self.photographs, self.survey = data
        self.settings, self.accelerator = settings, accelerator
        self.folder = None if folder is None else Path(folder)
        self.resolved = settings.resolved(self.generator.shape, len(self.photographs))
        self.device = accelerator.device
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        for network in networks:
            network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
            network.train().requires_grad_(True)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        _freeze(self.discriminator, settings.frozen_blocks)
        self.players = tuple(
            Player(network, self.resolved.learning_rate, interval if weight else None)
            for network, weight, interval in (
                (self.generator, settings.path_length, settings.path_length_interval),
                (self.discriminator, self.resolved.r1, settings.r1_interval),
            )
        )
        self.state = AdversarialState(
            AugmentationControl(
                target=settings.target,
                images=self.resolved.adapted_images,
                largest=settings.largest_p,
                p=settings.first_p,
            )
        )
        self.looks = Looks(self.average, self.survey.colours, seed=settings.seed, batch=settings.batch)
        self.checkpoint = None if self.folder is None else self._checkpoint(self.folder, beginning)
        self.saved = 0

    def run(
        self,
        request: InterruptRequest,
        on_row: Callable[[AdversarialRow], object] | None,
        patients: Sequence[object] | None,
    ) -> AdversarialHistory:
        if self.checkpoint is not None and self.checkpoint.exists():
            self.state = self.checkpoint.read()
        self.saved = self.state.step
        if self.folder is not None and self._first:
            write_json(self.folder / "shape.json", self.generator.shape.to_json())
            write_json(self.folder / "settings.json", {"settings": self.settings, "resolved": self.resolved})
            TrainingRecord.of(self.survey.hashes, patients).write(self.folder)
        start = clock = time.perf_counter()
        state, settings = self.state, self.settings
        while state.step < settings.steps:
            self._step()
            now = time.perf_counter()
            state.seconds, clock = state.seconds + now - clock, now
            if state.step % settings.log_interval == 0 or state.step == settings.steps:
                self._log()
                if on_row is not None:
                    on_row(state.rows[-1])
            if settings.grid_interval and state.step % settings.grid_interval == 0:
                self._grid()
            if request.asked:
                raise self._interrupted()
            if self.checkpoint is not None and self.checkpoint.due():
                self._save()
            if self._time_is_up(start):
                break
        self._save()
        return self._finished()

    @property
    def _first(self) -> bool:
        return self.accelerator.rank == 0

    def _step(self) -> None:
        state, settings = self.state, self.settings
        rank, ranks = self.accelerator.rank, self.accelerator.ranks
        draws = Draws.of_step(settings.seed, state.step, rank, self.device)
        phases = Phases(self.generator, self.discriminator, settings, self.resolved.r1, state.control.p, draws)
        photographs = self._batch(draws)
        count = len(photographs)
        generated = self._play_generator(phases, count)
        signs = self._play_discriminator(phases, photographs, generated if settings.reuse_generated else None)
        state.step += 1
        images = state.step * settings.batch
        kept = memory(settings.batch, self.resolved.average_images, seen=images, ramp=self.resolved.average_ramp)
        follow(self.average, self.generator, kept)
        if settings.adapted:
            state.control.see(float(summed(signs, ranks)), count * ranks)
            if state.step % settings.adapted_interval == 0:
                state.overfitting = state.control.adapt()

    def _batch(self, draws: Draws) -> Tensor:
        settings, rank, ranks = self.settings, self.accelerator.rank, self.accelerator.ranks
        rows = dealt_rows(len(self.photographs), settings.batch, self.state.step, seed=settings.seed)[rank::ranks]
        photographs = to_network(self.photographs.read(rows).to(self.device))
        if settings.mirror:
            mirrored = torch.rand(len(rows), generator=draws.host) < 0.5
            photographs = torch.where(mirrored[:, None, None, None].to(self.device), photographs.flip(3), photographs)
        return photographs

    def _play_generator(self, phases: Phases, count: int) -> Tensor:
        """The generator's phases; the discriminator gets no gradient meanwhile."""
        player, state = self.players[0], self.state
        with self.players[1].resting():
            with self._arithmetic():
                loss, generated = phases.generate(count)
            player.learn(loss, self.accelerator.ranks, state)
            self._note("loss_generator", loss)
            if player.interval and state.step % player.interval == 0:
                with self._arithmetic():
                    penalty, mean, usual = phases.lengths(max(count // 2, 1), state.usual_length)
                player.learn(penalty, self.accelerator.ranks, state)
                state.usual_length = float(summed(usual, self.accelerator.ranks)) / self.accelerator.ranks
                self._note("path_length", mean)
        if self.accelerator.ranks > 1:
            average = self.generator.mapping.w_avg
            average.copy_(summed(average, self.accelerator.ranks) / self.accelerator.ranks)
        return generated

    def _play_discriminator(self, phases: Phases, photographs: Tensor, generated: Tensor | None) -> Tensor:
        player, state = self.players[1], self.state
        with self._arithmetic():
            loss, signs = phases.discriminate(photographs, generated)
        player.learn(loss, self.accelerator.ranks, state)
        self._note("loss_discriminator", loss)
        if player.interval and state.step % player.interval == 0:
            with self._arithmetic():
                penalty, squared = phases.steepness(photographs)
            player.learn(penalty, self.accelerator.ranks, state)
            self._note("r1", squared)
        return signs

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.settings.precision is Precision.BFLOAT_MIXED:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _note(self, name: str, value: Tensor) -> None:
        so_far = self.state.sums.setdefault(name, [0.0, 0.0])
        number = value.detach().double()
        # On a device a number is not looked at before it is logged, because looking makes the device wait.
        so_far[0] = so_far[0] + (float(number) if self.device.type == "cpu" else cast(Any, number))
        so_far[1] += 1

    def _log(self) -> None:
        state, ranks = self.state, self.accelerator.ranks
        values = {
            name: float(summed(torch.as_tensor(total, device=self.device).double(), ranks)) / (count * ranks)
            for name, (total, count) in state.sums.items()
        }
        if not all(math.isfinite(value) for value in values.values()):
            kept = "" if self.checkpoint is None else f" The last good checkpoint is {self.checkpoint.path}."
            raise FitError(
                f"The losses must stay finite; got NaN or infinity before step {state.step}. The likely cause is a "
                f"learning rate that is too high, or too small a weight r1: try a half and the double.{kept}"
            )
        drift = self.looks.drift()
        looks = {
            "p": state.control.p,
            "overfitting": state.overfitting,
            "broken": float(state.broken),
            "lightness": drift.lightness,
            "redness": drift.redness,
            "yellowness": drift.yellowness,
            "drift": drift.distance,
            "drift_by_chance": drift.chance,
        }
        state.rows.append(AdversarialRow(state.step, state.step * self.settings.batch, values | looks, state.seconds))
        state.sums = {}
        if self.folder is not None and self._first:
            write_table(self.folder / "history.csv", frame_of(state.rows))

    def _grid(self) -> None:
        if self.folder is not None and self._first:
            self.looks.save(self.folder / "grids" / f"step-{self.state.step:07d}.png")

    def _time_is_up(self, start: float) -> bool:
        limit = self.settings.seconds
        late = float(limit is not None and time.perf_counter() - start >= limit)
        # All processes stop together, or the others would wait for ever.
        return limit is not None and float(summed(torch.tensor(late, device=self.device), self.accelerator.ranks)) > 0

    def _save(self) -> None:
        if self.checkpoint is not None and self._first and self.saved != self.state.step:
            state = self.state
            for sums in state.sums.values():
                sums[0] = float(sums[0])
            self.checkpoint.write(state)
            self.saved = state.step

    def _interrupted(self) -> Interrupted:
        self._save()
        where = f"after {self.state.step} of {self.settings.steps} steps"
        if self.checkpoint is None:
            return Interrupted(f"Training was interrupted {where}; without a folder nothing was kept.")
        return Interrupted(
            f"Training was interrupted {where}; {self.checkpoint.path} holds it. Resume to go on from it."
        )

    def _finished(self) -> AdversarialHistory:
        self.generator.load_state_dict(self.average.state_dict())
        if self.folder is not None and self._first:
            save_weights(self.folder / "generator.safetensors", weights_from(self.average))
            alone = StyleGAN2Weights({}, self.discriminator.state_dict(), {}, self.discriminator.shape.to_json())
            save_weights(self.folder / "discriminator.safetensors", alone)
            self._grid()
        rows = tuple(self.state.rows)
        finished = self.state.step >= self.settings.steps
        if finished and rows:
            warn_of_drift(rows[-1].values)
        return AdversarialHistory(rows, finished, self.resolved)

    def _checkpoint(self, folder: Path, beginning: str | None) -> AdversarialCheckpoint:
        shape = {"shape": str(self.generator.shape.to_json()), "photographs": self.survey.fingerprint}
        modules = {"generator": self.generator, "average": self.average, "discriminator": self.discriminator}
        optimisers = {"optimiser_g": self.players[0].optimiser, "optimiser_d": self.players[1].optimiser}
        identity = self.settings.fingerprint() | shape | {"processes": str(self.accelerator.ranks)}
        start = {} if beginning is None else {"beginning": beginning}
        return AdversarialCheckpoint(folder, identity | start, modules, optimisers)


def _weights(*networks: nn.Module) -> Iterable[nn.Parameter]:
    return [weight for network in networks for weight in network.parameters()]


def _freeze(discriminator: Discriminator, blocks: int) -> None:
    for side in discriminator.sides[:blocks]:
        discriminator.get_submodule(f"b{side}").requires_grad_(False)


def _check(
    generator: Generator,
    discriminator: Discriminator,
    photographs: int,
    settings: AdversarialSettings,
    ranks: int,
    patients: Sequence[object] | None,
) -> None:
    if generator.shape.resolution != discriminator.shape.resolution:
        raise InvalidValueError(
            f"`discriminator` must take the pictures of the generator, {generator.shape.resolution} pixels wide; got "
            f"one for {discriminator.shape.resolution} pixels. Load both from one checkpoint."
        )
    mine, rest = divmod(settings.batch, ranks)
    group = min(discriminator.shape.minibatch_group, max(mine, 1))
    if rest or not mine or mine % group:
        raise InvalidValueError(
            f"`batch` must be a multiple of {ranks} processes times groups of {group} pictures; got {settings.batch}."
        )
    if settings.frozen_blocks > len(discriminator.sides):
        raise InvalidValueError(
            f"`frozen_blocks` must leave the last layers to be trained, so at most {len(discriminator.sides)}; "
            f"got {settings.frozen_blocks}."
        )
    if patients is not None and len(patients) != photographs:
        raise InvalidValueError(
            f"`patients` must name one per photograph; got {len(patients)} for {photographs} photographs."
        )
