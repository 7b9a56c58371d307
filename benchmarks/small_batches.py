"""Cox's model in small batches: the gradient of a batch beside that of everybody, and what training makes of it.

    .venv/bin/python benchmarks/small_batches.py [--seeds 5] [--batches 2000]

Gradients: a linear log-risk of ten covariates, halfway to the truth, 1,000 patients. For each way and batch size the
mean gradient over many batches is compared with the gradient of the full partial likelihood. Training: a small network
on 300 patients with a hazard that is not linear, scored on 2,000 others. Writes results/small_batches.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from side_by_side import write
from torch import Tensor

from survlens.core.nonparametric import StepCurve, log_breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.evaluate.concordance import concordance_index
from survlens.heads.cox import CoxPH
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.cox_martingale import cox_martingale_loss
from survlens.models.survival_model import SurvivalModel
from survlens.training.batches import event_balanced_batches, shuffled_batches
from survlens.training.fit import fit
from survlens.training.martingale import MartingaleObjective, NumberedSource
from survlens.training.objectives import SurvivalObjective
from survlens.training.settings import FitSettings

SIZES = (1, 2, 4, 8, 16, 32, 64)
TRAINED = (1, 4, 16, 64)
CENSORED = (0.2, 0.8)
FEATURES, ROWS = 10, 1000
TRUTH = torch.linspace(0.8, -0.6, FEATURES, dtype=torch.float64)
STALE = 0.8
"""What the memory of log-risks is multiplied by where it is stale."""

Deal = Callable[[torch.Generator, int], list[Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


def cohort(rows: int, censored: float, seed: int, *, curved: bool = False) -> tuple[Tensor, SurvivalOutcome]:
    """Covariates and exponential survival; with `curved` the log-hazard has a square and a product."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, FEATURES, generator=generator, dtype=torch.float64)
    log_hazard = x[:, 0] + 0.8 * x[:, 1] ** 2 - 0.8 + x[:, 2] * x[:, 3] if curved else x @ TRUTH
    time = torch.empty(rows, dtype=torch.float64).exponential_(generator=generator) * torch.exp(-log_hazard)
    ends = torch.empty(rows, dtype=torch.float64).exponential_(generator=generator)
    ends = ends * float(np.quantile((time / ends).numpy(), 1 - censored))
    return x, SurvivalOutcome.from_arrays(torch.minimum(time, ends) + 1e-9, time <= ends, "months")


def ways(log_risk: Tensor, outcome: SurvivalOutcome) -> dict[str, tuple[Deal, Loss]]:
    """How batches are dealt, and the loss of one from its log-risks and rows, on the scale of one event."""
    events = outcome.event > 0
    scale = len(outcome) / float(events.sum())

    def shuffled(generator: torch.Generator, batch: int) -> list[Tensor]:
        return shuffled_batches(len(outcome), batch, generator=generator)

    def balanced(generator: torch.Generator, batch: int) -> list[Tensor]:
        return event_balanced_batches(outcome.event, batch, generator=generator)

    def plain(risk: Tensor, rows: Tensor) -> Tensor:
        loss = cox_partial_likelihood(risk, outcome[rows], ties=Ties.BRESLOW)
        return loss.sum() / max(int(events[rows].sum()), 1)

    def memory(risk: Tensor, rows: Tensor) -> Tensor:
        """The batch's own log-risks and everybody else's, detached, in the denominators."""
        everybody = log_risk.detach().clone()
        everybody[rows] = risk
        later = outcome.time[None, :] >= outcome.time[rows][:, None]
        pooled = torch.logsumexp(torch.where(later, everybody[None, :], -torch.inf), dim=1)
        return ((pooled - risk) * events[rows]).sum() / max(int(events[rows].sum()), 1)

    def martingale(curve: StepCurve) -> Loss:
        return lambda risk, rows: cox_martingale_loss(risk, outcome[rows], curve).mean() * scale

    fresh = log_breslow_baseline(log_risk, outcome, ties=Ties.BRESLOW)
    stale = log_breslow_baseline(log_risk * STALE, outcome, ties=Ties.BRESLOW)
    return {
        "batch alone": (shuffled, plain),
        "batch alone, events balanced": (balanced, plain),
        "memory in the denominators": (shuffled, memory),
        "martingale, fresh memory": (shuffled, martingale(fresh)),
        "martingale, memory 20 % behind": (shuffled, martingale(stale)),
    }


def gradients(censored: float, batches: int) -> list[dict[str, object]]:
    """Length and direction of the mean gradient, and noise, each against the full gradient."""
    x, outcome = cohort(ROWS, censored, seed=0)
    beta = TRUTH / 2

    def gradient(loss: Loss, rows: Tensor) -> Tensor:
        weights = beta.clone().requires_grad_()
        return torch.autograd.grad(loss(x[rows] @ weights, rows), weights)[0]

    table = ways(x @ beta, outcome)
    full = gradient(table["batch alone"][1], torch.arange(ROWS))
    rows = []
    for name, (deal, loss) in table.items():
        for batch in SIZES:
            generator, found = torch.Generator().manual_seed(1), []
            while len(found) < batches:
                found += [gradient(loss, picked) for picked in deal(generator, batch)]
            values = torch.stack(found[:batches])
            mean = values.mean(0)
            rows.append(
                {
                    "way": name,
                    "batch": batch,
                    "length": float(mean.norm() / full.norm()),
                    "cosine": float(mean @ full / (mean.norm() * full.norm()).clamp(min=1e-12)),
                    "noise": float((values - mean).square().sum(1).mean().sqrt() / full.norm()),
                    "without a gradient": float((values.abs().sum(1) < 1e-12).double().mean()),
                }
            )
    return rows


def trained(censored: float, seeds: int) -> list[dict[str, object]]:
    """C on new patients after training, over seeds."""
    rows = []
    for way in ("batch alone", "batch alone, events balanced", "martingale"):
        for batch in TRAINED:
            values, start = [], time.perf_counter()
            for seed in range(seeds):
                x, outcome = cohort(300, censored, 10 + seed, curved=True)
                source = TensorSource({"table": x.float()}, outcome)
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    model = SurvivalModel(MLP(FEATURES, (32,)), CoxPH(32))
                epochs = max(6, 600 * batch // 300)
                settings = FitSettings(
                    epochs=epochs, batch=batch, learning_rate=3e-3, seed=seed, event_balanced="balanced" in way
                )
                if way == "martingale":
                    fit(model, NumberedSource(source), None, MartingaleObjective(outcome, refresh=10), settings)
                else:
                    fit(model, source, None, SurvivalObjective(), settings)
                test, seen = cohort(2000, 0.2, 1000 + seed, curved=True)
                with torch.no_grad():
                    values.append(concordance_index(model.risk({"table": test.float()}), seen).value)
            rows.append(
                {
                    "way": way,
                    "batch": batch,
                    "mean": float(np.mean(values)),
                    "sd": float(np.std(values, ddof=1)),
                    "worst": float(np.min(values)),
                    "seconds": (time.perf_counter() - start) / seeds,
                }
            )
    return rows


def oracle() -> float:
    """C of the true log-hazard of the training task."""
    test, seen = cohort(20000, 0.2, 999, curved=True)
    return concordance_index(test[:, 0] + 0.8 * test[:, 1] ** 2 + test[:, 2] * test[:, 3], seen).value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=2000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []
    for censored in CENSORED:
        lines += [
            f"## Gradients, {censored:.0%} censored",
            "",
            "Length of the mean gradient over batches as a share of the full one, cosine between the two; in brackets "
            "the standard deviation of a batch's gradient as a multiple of the full one, and the share of batches that "
            "have none.",
            "",
            "| way | " + " | ".join(f"batch {batch}" for batch in SIZES) + " |",
            "|---|" + "---|" * len(SIZES),
        ]
        rows = gradients(censored, asked.batches)
        for name in dict.fromkeys(row["way"] for row in rows):
            cells = [
                f"{row['length']:.2f}, {row['cosine']:.3f} ({row['noise']:.1f}; {row['without a gradient']:.0%})"
                for row in rows
                if row["way"] == name
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    for censored in CENSORED:
        lines += [
            f"## Training, {censored:.0%} censored",
            "",
            f"C on 2,000 new patients: mean ± SD over {asked.seeds} seeds (worst; seconds of a training). At least 600 "
            f"steps and 6 epochs each, Adam at 0.003, no early stopping. The true hazard has {oracle():.3f}.",
            "",
            "| way | " + " | ".join(f"batch {batch}" for batch in TRAINED) + " |",
            "|---|" + "---|" * len(TRAINED),
        ]
        rows = trained(censored, asked.seeds)
        for name in dict.fromkeys(row["way"] for row in rows):
            cells = [
                f"{row['mean']:.3f} ± {row['sd']:.3f} ({row['worst']:.3f}; {row['seconds']:.1f} s)"
                for row in rows
                if row["way"] == name
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    write("small_batches", "Cox's model in small batches", lines)


if __name__ == "__main__":
    main()
