"""Every family on two simulations whose curves are known: concordance beside the best possible, and error of S.

    .venv/bin/python benchmarks/simulations.py [--data FOLDER] [--seeds 3]

Langbein, Koenen and Wright 2025. Time-independent: h(t | x) = 0.25 t^1.5 exp(1.7 x1 - 2.4 x2), which is a proportional
hazards model and a Weibull model at once. Time-dependent: h(t | x) = 0.15 t^0.5 exp((-3 + 6 log t) x1 + 1.7 x2 - 2.4
x3): the effect of x1 changes its sign at t = e^0.5, which proportional hazards cannot say. Follow-up ends at 7.
Writes results/simulations.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from side_by_side import write
from torch import nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.evaluate.accuracy import integrated_brier_score
from survlens.evaluate.concordance import concordance_index_antolini
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.heads.weibull import Weibull
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import FitSettings, fit
from survlens.training.objectives import SurvivalObjective

HERE = Path(__file__).resolve()
DATA = HERE.parents[2] / "shared" / "data" / "simulations"
END, INTERVALS, WIDTHS = 7.0, 40, (64, 64)
TIMES = np.linspace(0.07, 6.93, 99)


def time_independent(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cumulative hazard (instance, time)."""
    return 0.1 * t**2.5 * np.exp(1.7 * x[:, :1] - 2.4 * x[:, 1:2])


def time_dependent(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    power = 6 * x[:, :1] + 1.5
    return 0.15 * t**power / power * np.exp(-3 * x[:, :1] + 1.7 * x[:, 1:2] - 2.4 * x[:, 2:3])


TRUTH = {"time_independent": time_independent, "time_dependent": time_dependent}


@dataclass(frozen=True)
class Part:
    covariates: np.ndarray
    outcome: SurvivalOutcome

    @property
    def source(self) -> TensorSource:
        return TensorSource({"table": torch.from_numpy(self.covariates.astype(np.float32))}, self.outcome)

    def __getitem__(self, rows: np.ndarray) -> Part:
        return Part(self.covariates[rows], self.outcome[rows])


def load(path: Path) -> Part:
    frame = pd.read_csv(path)
    names = [name for name in frame.columns if name.startswith("x")]
    event = frame["status" if "status" in frame else "event"].to_numpy(int)
    return Part(
        frame[names].to_numpy(float), SurvivalOutcome.from_arrays(frame["time"].to_numpy(), event, "time units")
    )


def grid(train: Part) -> TimeGrid:
    return TimeGrid.quantile(train.outcome, INTERVALS)


HEADS: dict[str, Callable[[Part], nn.Module]] = {
    "CoxPH": lambda train: CoxPH(WIDTHS[-1]),
    "CoxTime": lambda train: CoxTime(WIDTHS[0], hidden=WIDTHS[1:], time_scale=2.0),
    "LogisticHazard": lambda train: LogisticHazard(WIDTHS[-1], grid(train)),
    "PMF": lambda train: PMF(WIDTHS[-1], grid(train)),
    "MTLR": lambda train: MTLR(WIDTHS[-1], grid(train)),
    "DeepHit, likelihood only": lambda train: DeepHit(WIDTHS[-1], grid(train), alpha=1.0),
    "DeepHit, with ranking": lambda train: DeepHit(WIDTHS[-1], grid(train), alpha=0.2, sigma=0.1),
    "PCHazard": lambda train: PCHazard(WIDTHS[-1], grid(train)),
    "Weibull, one shape": lambda train: Weibull(WIDTHS[-1], grid(train)),
    "Weibull, shape of x": lambda train: Weibull(WIDTHS[-1], grid(train), shape_depends=True),
}


def trained(name: str, train: Part, seed: int) -> SurvivalModel:
    torch.manual_seed(seed)
    rows = np.random.default_rng(seed).permutation(len(train.outcome))
    kept = rows[: len(rows) // 5]
    part, validation = train[rows[len(rows) // 5 :]], train[kept]
    widths = WIDTHS[:1] if name == "CoxTime" else WIDTHS  # its second layer is in the head, where time enters
    model = SurvivalModel(MLP(train.covariates.shape[1], widths), HEADS[name](part))
    settings = FitSettings(epochs=200, batch=256, learning_rate=3e-3, patience=15, seed=seed)
    fit(model, part.source, validation.source, SurvivalObjective(), settings)
    return model


def judged(prediction: SurvivalPrediction, train: Part, test: Part, truth: np.ndarray) -> tuple[float, float, float]:
    """Concordance, integrated Brier score, mean absolute error of S."""
    held = prediction.at(np.union1d(TIMES, test.outcome.time.numpy()), extrapolate="hold")
    concordance = concordance_index_antolini(held, test.outcome).value
    brier = integrated_brier_score(held, test.outcome, training=train.outcome, times=TIMES).value
    return concordance, brier, float(np.abs(held.at(TIMES).survival.numpy() - truth).mean())


def known(hazard: Callable[[np.ndarray, np.ndarray], np.ndarray], test: Part) -> SurvivalPrediction:
    """The true curves of the test rows."""
    knots = np.union1d(TIMES, test.outcome.time.numpy())
    log_survival = torch.from_numpy(-hazard(knots, test.covariates))
    return SurvivalPrediction(torch.from_numpy(knots), log_survival, Interpolation.EXPONENTIAL, "time units")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    body = [
        f"Two hidden layers of {WIDTHS[0]}, {INTERVALS} intervals, Adam 0.003, batches of 256, stopped early on a "
        f"fifth of the training rows; mean of {options.seeds} seeds (range). C is Antolini's, on the 500 test rows; "
        "MAE is the mean over test rows and 99 times of |S - true S|.",
        "",
    ]
    for name, hazard in TRUTH.items():
        train, test = load(options.data / f"{name}_train.csv"), load(options.data / f"{name}_test.csv")
        truth = np.exp(-hazard(TIMES, test.covariates))
        best = judged(known(hazard, test), train, test, truth)
        body += [f"## {name.replace('_', '-').capitalize()}", "", "| family | C | C - best | IBS | MAE of S |"]
        body += ["|---|---|---|---|---|", f"| the truth | {best[0]:.4f} | 0 | {best[1]:.4f} | 0 |"]
        for family in options.only.split(";") if options.only else HEADS:
            start, found = time.perf_counter(), []
            for seed in range(options.seeds):
                with torch.no_grad():
                    prediction = trained_and_asked(family, train, test, seed)
                found.append(judged(prediction, train, test, truth))
            values = np.array(found)
            mean, low, high = values.mean(0), values.min(0), values.max(0)
            body.append(
                f"| {family} | {mean[0]:.4f} ({low[0]:.4f}-{high[0]:.4f}) | {mean[0] - best[0]:+.4f} | {mean[1]:.4f} | "
                f"{mean[2]:.4f} ({low[2]:.4f}-{high[2]:.4f}) |"
            )
            print(name, body[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
        body.append("")
    write("simulations", "Simulations with known curves", body)


def trained_and_asked(family: str, train: Part, test: Part, seed: int) -> SurvivalPrediction:
    with torch.enable_grad():
        model = trained(family, train, seed)
    return model.predict_survival(test.source.inputs)


if __name__ == "__main__":
    main()
