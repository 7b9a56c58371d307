"""Same seed, same result, without touching the caller's global state; and Ctrl-C between two steps, not inside one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
import torch
import torch.utils.deterministic as memory
from torch import Tensor


class Interrupted(KeyboardInterrupt):
    """A training was interrupted by the user; the message says where it goes on."""


@dataclass(slots=True)
class InterruptRequest:
    """Whether the user asked to stop."""

    asked: bool = False


@contextmanager
def deferred_interrupts() -> Iterator[InterruptRequest]:
    """The first Ctrl-C only sets a flag, so that the step in hand is finished; the second raises at once.

    Outside the main thread, or where the program handles Ctrl-C itself, nothing is changed.
    """
    request = InterruptRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.asked:
            signal.default_int_handler(number, frame)
        request.asked = True

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield request
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seeds the global source that dropout draws from, and puts it back as it was afterwards."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.default_generators[devices[0]].manual_seed(seed)
        yield


@contextmanager
def deterministic_kernels(device: torch.device, wanted: bool) -> Iterator[None]:
    """Repeatable kernels while a training runs; the caller's choice comes back afterwards."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark  # type: ignore[attr-defined]
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The source of random numbers that deals the rows of one epoch; a resumed epoch deals the same."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(mixed >> 1)


def random_states(device: torch.device, noise: torch.Generator) -> dict[str, Tensor]:
    """States of all sources of random numbers of a training."""
    states = {"cpu": torch.get_rng_state(), "noise": noise.get_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_states(device: torch.device, noise: torch.Generator, states: Mapping[str, Tensor]) -> None:
    """Puts the states that `random_states` gave back in place, as far as they fit the device."""
    torch.set_rng_state(states["cpu"])
    if states["noise"].shape == noise.get_state().shape:
        noise.set_state(states["noise"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
