"""A training step of CoxVAE on volumes: time, memory and counted operations. Run: python benchmarks/volume_steps.py

Every setting runs in a process of its own, so that its peak memory is its own. With sides behind it (16 32), those
alone are run and the page is printed but not kept. With --short, 32 and 64 are run with one step on one volume, to see
that everything works, and nothing is kept. With --gpu it measures a CUDA device instead, at 64 voxels and batch
16, and then makes 16,000 updates (or as many as the number behind it says) in bf16 with channels last.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import write
from torch.utils.flop_counter import FlopCounterMode

from survlens.core.outcome import SurvivalOutcome
from survlens.models.cox_vae import cox_vae
from survlens.training.objectives import CoxVAEObjective, TrainingProgress

BATCH = {16: 16, 32: 16, 64: 4}
STEPS = {16: 9, 32: 5, 64: 3}
"""Timed steps, of which the median counts."""
SETTINGS = {
    "fp32": {},
    "fp32, channels last": {"channels_last": True},
    "bf16, channels last": {"channels_last": True, "mixed": True},
    "fp32, channels last, blocks twice": {"channels_last": True, "checkpointing": True},
}


def stepper(side: int, setting: str, device: str = "cpu") -> tuple[torch.nn.Module, Callable[[int], None]]:
    """An untrained model, and a function that makes one step on so many random volumes."""
    options = dict(SETTINGS[setting])
    mixed = options.pop("mixed", False)
    shape = (2, side, side, side)
    model = cox_vae(shape, mask_channels=1, template=True, **options).train().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    objective = CoxVAEObjective(tau=0.99)

    def step(rows: int) -> None:
        volumes = torch.rand(rows, *shape, device=device)
        outcome = SurvivalOutcome.from_arrays(range(1, rows + 1), [1] * rows, "months").to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            value = objective(model, {"image": volumes}, outcome, TrainingProgress(0, 1, 0, 1))
        value.total.backward()
        optimiser.step()
        optimiser.zero_grad()

    return model, step


def on_gpu(updates: int, *, side: int = 64, batch: int = 16, timed: int = 20) -> list[str]:
    """Seconds per step and memory of each setting on a CUDA device, and the time that `updates` take."""
    lines = ["| setting | s per step | memory (GiB) |", "|---|---|---|"]
    for setting in SETTINGS:
        seconds = _gpu_seconds(setting, side, batch, timed)
        lines.append(f"| {setting} | {seconds / timed:.4f} | {torch.cuda.max_memory_allocated() / 2**30:.2f} |")
    seconds = _gpu_seconds("bf16, channels last", side, batch, updates)
    name = torch.cuda.get_device_name()
    return [f"{name}, {side} voxels, batch {batch}:", "", *lines, "", f"{updates:,} updates: {seconds:.0f} s."]


def _gpu_seconds(setting: str, side: int, batch: int, steps: int) -> float:
    torch.cuda.empty_cache()
    _, step = stepper(side, setting, "cuda")
    for _ in range(3):
        step(batch)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    clock = time.perf_counter()
    for _ in range(steps):
        step(batch)
    torch.cuda.synchronize()
    return time.perf_counter() - clock


def measured(side: int, setting: str, rows: int, steps: int) -> dict[str, float]:
    """Median step after a warm-up: seconds by the clock and of the processor, peak memory, counted operations."""
    model, step = stepper(side, setting)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(rows)
    seconds, busy = [], []
    for _ in range(steps):
        clock, processor = time.perf_counter(), time.process_time()
        step(rows)
        seconds.append(time.perf_counter() - clock)
        busy.append(time.process_time() - processor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FlopCounterMode(display=False) as counter:
        step(1)
    return {
        "seconds": statistics.median(seconds),
        "processor": statistics.median(busy),
        "memory": (peak - before) / 2**20,
        "flop": counter.get_total_flops(),
        "weights": sum(weight.numel() for weight in model.parameters()),
    }


def main(sides: tuple[int, ...], *, short: bool = False) -> list[str]:
    """The rows of the page."""
    lines = [
        "| side | batch | setting | s per step | processor s per step | memory above start (GiB) | GFLOP per volume | "
        "GFLOP per s | weights |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for side in sides:
        rows, steps = (1, 1) if short else (BATCH[side], STEPS[side])
        for setting in SETTINGS:
            command = [sys.executable, str(Path(__file__)), "--one", str(side), setting, str(rows), str(steps)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            lines.append(
                f"| {side} | {rows} | {setting} | {found['seconds']:.2f} | {found['processor']:.2f} | "
                f"{found['memory']:.2f} | {found['flop'] / 1e9:.1f} | "
                f"{rows * found['flop'] / found['seconds'] / 1e9:.0f} | {found['weights']:,} |"
            )
    return lines


if __name__ == "__main__":
    torch.manual_seed(0)
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
    elif sys.argv[1:2] == ["--gpu"]:
        print("\n".join(on_gpu(int(sys.argv[2]) if sys.argv[2:] else 16_000)))
    elif sys.argv[1:2] == ["--short"]:
        print("\n".join(main((32, 64), short=True)))
    elif sys.argv[1:]:
        print("\n".join(main(tuple(map(int, sys.argv[1:])))))
    else:
        text = (
            "One step (forward, backward, Adam) of CoxVAE: four residual blocks (16, 32, 64, 128 channels), latent 8, "
            f"intensities and one mask, {torch.get_num_threads()} thread(s). GFLOP are counted over forward and "
            "backward of one volume, multiplications and additions apart. Median of a few steps. Processor seconds "
            "grow little when other programs share the machine; seconds by the clock do. 'Blocks twice' is gradient "
            "checkpointing."
        )
        write("volume_steps", "Training steps on volumes", [text, "", *main((32, 64))])
