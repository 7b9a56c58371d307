"""Seconds per epoch of a 32-32 DeepSurv on METABRIC, survlens and pycox side by side and in turn.

    .venv-peers/bin/python benchmarks/metabric_epoch.py [--data metabric.csv] [--epochs 100] [--repeats 7]

Both train the same network on the same rows in batches of 256 with Adam on the Cox loss, in one process, one after the
other, so that a busy machine slows both. Without pycox only survlens is timed. Writes results/metabric_epoch.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from survlens.core.outcome import SurvivalOutcome
from survlens.core.pair_counts import pair_counts
from survlens.core.ties import Ties
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import FitSettings, fit
from survlens.training.objectives import SurvivalObjective

HERE = Path(__file__).resolve()
DATA = HERE.parents[2] / "shared" / "data" / "benchmarks" / "metabric.csv"
BATCH, RATE = 256, 1e-3


@dataclass(frozen=True)
class Part:
    table: np.ndarray
    outcome: SurvivalOutcome

    @property
    def source(self) -> TensorSource:
        return TensorSource({"table": torch.from_numpy(self.table)}, self.outcome)


@dataclass(frozen=True)
class Timing:
    wall: float
    processor: float
    concordance: float


def load(path: Path) -> tuple[Part, Part, Part]:
    """Training, validation and test rows; features scaled by the training rows."""
    frame = pd.read_csv(path).sample(frac=1.0, random_state=0)
    frame["time"] = frame.time.clip(lower=0.1)  # one patient has 0 months of follow-up
    features = [name for name in frame.columns if name.startswith("x")]
    first, second = int(0.64 * len(frame)), int(0.8 * len(frame))
    cuts = [frame[:first], frame[first:second], frame[second:]]
    mean, sd = cuts[0][features].mean(), cuts[0][features].std()
    tables = [((cut[features] - mean) / sd).to_numpy(np.float32) for cut in cuts]
    outcomes = [SurvivalOutcome.from_arrays(cut.time.to_numpy(), cut.event.to_numpy(int), "months") for cut in cuts]
    train, validation, test = (Part(*pair) for pair in zip(tables, outcomes, strict=True))
    return train, validation, test


def with_survlens(train: Part, validation: Part | None, test: Part, *, epochs: int, ties: Ties) -> Callable[[], Timing]:
    def run() -> Timing:
        torch.manual_seed(0)
        model = SurvivalModel(MLP(train.table.shape[1], (32, 32)), CoxPH(32, ties=ties))
        held_out = None if validation is None else validation.source
        settings = FitSettings(epochs=epochs, batch=BATCH, learning_rate=RATE)
        wall, processor = time.perf_counter(), time.process_time()
        history = fit(model, train.source, held_out, SurvivalObjective(), settings)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        assert len(history.rows) == epochs
        risk = model.risk(test.source.inputs).detach().numpy()
        return Timing(wall, processor, pair_counts(risk, test.outcome).concordance)

    return run


def with_pycox(train: Part, validation: Part | None, test: Part, *, epochs: int) -> Callable[[], Timing]:
    from peers import load_pycox

    models, torchtuples = load_pycox("pycox.models"), load_pycox("torchtuples")

    def run() -> Timing:
        torch.manual_seed(0)
        layers = (nn.Linear(train.table.shape[1], 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        model = models.CoxPH(nn.Sequential(*layers, nn.Linear(32, 1, bias=False)), torchtuples.optim.Adam(RATE))
        held_out = None if validation is None else (validation.table, _target(validation))
        wall, processor = time.perf_counter(), time.process_time()
        model.fit(train.table, _target(train), BATCH, epochs, verbose=False, val_data=held_out)
        model.compute_baseline_hazards()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        risk = model.predict(test.table)[:, 0]
        return Timing(wall, processor, pair_counts(risk, test.outcome).concordance)

    return run


def _target(part: Part) -> tuple[np.ndarray, np.ndarray]:
    time_, event = part.outcome.numpy()
    return time_.astype(np.float32), event.astype(np.float32)


def in_turn(runs: dict[str, Callable[[], Timing]], repeats: int) -> dict[str, list[Timing]]:
    """Timings of each run, taken in turn after one warm-up each."""
    for run in runs.values():
        run()
    timings: dict[str, list[Timing]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            timings[name].append(run())
    return timings


def table(title: str, timings: dict[str, list[Timing]], epochs: int) -> list[str]:
    lines = [
        f"### {title}",
        "",
        "| | wall ms per epoch | processor ms per epoch | × pycox, wall | test C |",
        "|---|---|---|---|---|",
    ]
    for name, found in timings.items():
        wall, processor = ([getattr(one, kind) for one in found] for kind in ("wall", "processor"))
        peer = timings.get("pycox")
        ratio = (
            "–"
            if peer is None
            else f"{statistics.median(a.wall / b.wall for a, b in zip(found, peer, strict=True)):.2f}"
        )
        lines.append(
            f"| {name} | {1e3 * statistics.median(wall) / epochs:.2f} ({1e3 * min(wall) / epochs:.2f}–"
            f"{1e3 * max(wall) / epochs:.2f}) | {1e3 * statistics.median(processor) / epochs:.2f} | {ratio} | "
            f"{found[0].concordance:.3f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "metabric_epoch.md")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, validation, test = load(options.data)
    lines = [
        "# METABRIC: one epoch of DeepSurv 32-32",
        "",
        f"{len(train.outcome)} training rows, 9 features, batch {BATCH}, Adam, {options.epochs} epochs with baseline; "
        f"median of {options.repeats} runs taken in turn (smallest–largest), one thread, torch {torch.__version__}. "
        "The ratio is the median over pairs of neighbouring runs. pycox knows no ties; survlens has both rules.",
        "",
    ]
    for title, held_out in (("Training alone", None), ("With a validation loss each epoch", validation)):
        runs = {
            "survlens, Efron": with_survlens(train, held_out, test, epochs=options.epochs, ties=Ties.EFRON),
            "survlens, Breslow": with_survlens(train, held_out, test, epochs=options.epochs, ties=Ties.BRESLOW),
        }
        try:
            runs["pycox"] = with_pycox(train, held_out, test, epochs=options.epochs)
        except ImportError as error:
            print(f"pycox is missing ({error}); timing survlens alone")
        lines += table(title, in_turn(runs, options.repeats), options.epochs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
