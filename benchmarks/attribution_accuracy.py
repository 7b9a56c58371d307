"""GradSHAP(t): error against its exact estimand, and time, of several rules along the path.

    .venv-peers/bin/python benchmarks/attribution_accuracy.py [--rows 5] [--only CoxPH]

Networks of two hidden layers of 32 with ReLU and batch norm (and the same with SiLU; CoxTime's own network has no batch
norm) on 20 covariates, fitted to simulated outcomes; 99 references, 43 times. The estimand is the mean over these
references of the path integrals. Its oracle knows nothing of kinks: the midpoint rule with 16,000 points per path in
float64. That rule itself is off by about one point's share of every kink, so the last line says how its distance to
survlens shrinks as it gets more points. Errors are relative L2 distances over features and times, to the oracle of the
first instance and to survlens of all. CPU seconds of one thread, the least of three. Every rule is run by the same
engine; captum, where it is installed, by a loop over times. Writes results/attribution_accuracy.md.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.core.inputs import select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.core.targets import survival
from survlens.encoders.mlp import MLP
from survlens.explain.held import HeldModel, held_still
from survlens.explain.memory import spans
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.chosen_rule import ChosenRule
from survlens.explain.path_rules.paths import weighted_nodes
from survlens.explain.references import References
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.models.survival_model import SurvivalModel

RESULTS = Path(__file__).resolve().parent / "results" / "attribution_accuracy.md"
FEATURES, REFERENCES, TIMES, TRAINING = 20, 99, 43, 1000
ORACLE, AT_ONCE, STEPS = 16_000, 40_000, 30
FINEST = {"CoxPH": 256_000, "DeepHit": 16_000, "CoxTime": 16_000}


@dataclass(frozen=True)
class Rule:
    """Points on (0, 1) and their weights."""

    name: str
    where: np.ndarray
    weights: np.ndarray


def midpoint(points: int) -> Rule:
    return Rule(f"midpoint, {points:,}", (np.arange(points) + 0.5) / points, np.full(points, 1 / points))


def right_riemann(points: int) -> Rule:
    return Rule(f"right Riemann, {points}", (np.arange(points) + 1) / points, np.full(points, 1 / points))


def gauss_legendre(points: int) -> Rule:
    where, weights = np.polynomial.legendre.leggauss(points)
    return Rule(f"Gauss-Legendre, {points}", (1 + where) / 2, weights / 2)


RULES = [
    *(gauss_legendre(points) for points in (5, 16, 50)),
    *(right_riemann(points) for points in (16, 50)),
    *(midpoint(points) for points in (16, 50)),
]


def outcomes(table: Tensor, generator: torch.Generator) -> SurvivalOutcome:
    """Exponential times with a log-hazard of main effects, a threshold and a product."""
    risk = table[:, 0] - 0.7 * table[:, 1] + (table[:, 2] > 0) * table[:, 3] + 0.5 * table[:, 4] * table[:, 5]
    time = 5 * torch.empty_like(risk).exponential_(generator=generator) * torch.exp(-0.7 * risk)
    censoring = 12 * torch.rand(len(table), generator=generator, dtype=torch.float64)
    return SurvivalOutcome(torch.minimum(time, censoring).clamp(min=0.01), (time <= censoring).long(), "month")


def heads() -> dict[str, Callable[[type[nn.Module]], SurvivalModel]]:
    grid = TimeGrid.equidistant(10.0, 20, "month")
    # CoxTime: covariates and time enter the network together; its baseline has the event times of 100 rows.
    return {
        "CoxPH": lambda unit: SurvivalModel(mlp(unit), CoxPH(32)),
        "DeepHit": lambda unit: SurvivalModel(mlp(unit), DeepHit(32, grid)),
        "CoxTime": lambda unit: SurvivalModel(nn.Identity(), CoxTime(FEATURES, time_scale=4.0, hidden=(32, 32))),
    }


def mlp(unit: type[nn.Module]) -> MLP:
    return MLP(FEATURES, (32, 32), batch_norm=True, activation=unit)


def fitted(build: Callable[[type[nn.Module]], SurvivalModel], unit: type[nn.Module], seed: int = 0) -> Any:
    """A model in float64, trained for so few steps that log-risks stay in the range of the true ones, and the table."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn((TRAINING, FEATURES), generator=generator, dtype=torch.float64)
    outcome = outcomes(table, generator)
    model = build(unit).double().train()
    few = torch.arange(200) if isinstance(model.head, CoxTime) else torch.arange(TRAINING)
    part = SurvivalOutcome(outcome.time[few], outcome.event[few], outcome.unit)
    optimiser = torch.optim.Adam(model.parameters(), 0.01, weight_decay=1e-4)
    for _ in range(STEPS):
        optimiser.zero_grad()
        model.loss({"table": table[few]}, part).mean().backward()
        optimiser.step()
    model.eval()
    if hasattr(model.head, "fit_baseline"):
        with torch.no_grad():
            model.head.fit_baseline(model.embed({"table": table[few]}), part)
    return model, table


def pairs(table: Tensor, rows: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Start and end of every path: references by rows that are no references."""
    references = References.sample({"table": table[:-200]}, REFERENCES)
    inputs = {"table": table[-rows:]}
    line = torch.arange(rows * REFERENCES)
    row, number = line // REFERENCES, line % REFERENCES
    return references.starts(inputs, row, number), select_rows(inputs, row)


def by_rule(held: HeldModel, outer: OuterMap, start: Any, end: Any, rule: Rule) -> Tensor:
    """Mean over references by a fixed rule, in blocks of paths, and of points where there are many."""
    paths, points = len(end["table"]), len(rule.where)
    total = torch.zeros((paths // REFERENCES, FEATURES, len(outer.columns)), dtype=torch.float64)
    for path in spans(paths, max(1, AT_ONCE // points)):
        begin, stop = ({"table": each["table"][path].to(held.dtype)} for each in (start, end))
        row = torch.arange(path.start, path.stop) // REFERENCES
        for span in spans(points, AT_ONCE):
            where, weights = torch.as_tensor(rule.where[span]), torch.as_tensor(rule.weights[span])
            (found,) = weighted_nodes(held, [outer], begin, stop, ["table"], where, weights)
            total.index_add_(0, row, found.values["table"] / REFERENCES)
    return total


def by_pieces(held: HeldModel, outer: OuterMap, start: Any, end: Any) -> Tensor:
    first, last = ({"table": each["table"].to(held.dtype)} for each in (start, end))
    (found,) = ChosenRule().integrate(held, [outer], first, last, ["table"])
    return found.values["table"].unflatten(0, (-1, REFERENCES)).mean(1)


def captum_seconds(held: HeldModel, times: Tensor, start: Any, end: Any) -> tuple[float, Tensor]:
    """Captum's integrated gradients with 50 Gauss-Legendre nodes, time by time."""
    from captum.attr import IntegratedGradients

    begun, columns = time.process_time(), []
    for column in range(len(times)):

        def forward(x: Tensor, column: int = column) -> Tensor:
            return held.model.predict_survival({"table": x}, times).survival[:, column]

        columns.append(IntegratedGradients(forward).attribute(end["table"], start["table"], n_steps=50))
    seconds = time.process_time() - begun
    return seconds, torch.stack(columns, 2).double().unflatten(0, (-1, REFERENCES)).mean(1)


def least_seconds(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    found, seconds = work(), []
    for _ in range(3):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds), found


def distance(found: Tensor, truth: Tensor) -> str:
    return f"{float((found[: len(truth)] - truth).norm() / truth.norm()):.1e}"


def table_of(head: str, unit: type[nn.Module], rows: int) -> list[str]:
    model, table = fitted(heads()[head], unit)
    start, end = pairs(table, rows)
    first, last = ({"table": each["table"][:REFERENCES]} for each in (start, end))
    times = torch.linspace(0.2, float(min(9.0, table_end(model))), TIMES, dtype=torch.float64)
    exact_single = copy.deepcopy(model).float()
    lines = []
    with held_still(model) as held, held_still(exact_single) as single:
        outer, outer_single = (OuterMap(each.head, survival, times) for each in (held, single))
        growing = dict(finer(held, outer, first, last, head))
        oracle = growing[ORACLE]
        seconds, exact = least_seconds(lambda: by_pieces(held, outer, start, end))
        note = type(ChosenRule().of(held, end)[0]).__name__
        results = [(f"**survlens** ({note})", seconds, exact)]
        seconds, found = least_seconds(lambda: by_pieces(single, outer_single, start, end))
        results.append((f"**survlens** ({note}), float32", seconds, found))
        for rule in RULES:
            results.append((rule.name, *least_seconds(lambda rule=rule: by_rule(held, outer, start, end, rule))))
        fifty = gauss_legendre(50)
        results.append(
            (
                f"{fifty.name}, float32",
                *least_seconds(lambda: by_rule(single, outer_single, start, end, fifty)),
            )
        )
        base = next(seconds for name, seconds, _ in results if name == fifty.name)
        if importlib.util.find_spec("captum"):
            seconds, found = captum_seconds(held, times, first, last)
            results.append(("captum, 50 nodes, time by time", seconds * rows, found))
        for name, seconds, found in results:
            truth = oracle[: len(found)]
            to_exact = distance(found, exact[: len(truth)]) if found is not exact else "–"
            cost = f"{1e3 * seconds / rows:.1f} | {seconds / base:.2f}"
            lines.append(f"| {name} | {cost} | {distance(found, truth)} | {to_exact} |")
        shrinking = [f"{points:,}: {distance(found, exact[:1])}" for points, found in growing.items()]
        gap = completeness(held, outer, start, end, exact)
    name = f"{head}, {unit.__name__}"
    return [
        f"## {name}",
        "",
        f"| rule | ms per instance | × 50 nodes | distance to the {ORACLE:,}-point oracle | to survlens |",
        "|---|---|---|---|---|",
        *lines,
        "",
        f"Distance of the midpoint oracle to survlens by its points, one instance: {'; '.join(shrinking)}. Largest "
        f"completeness gap of survlens: {gap:.0e}.",
        "",
    ]


def finer(held: HeldModel, outer: OuterMap, start: Any, end: Any, head: str) -> Iterator[tuple[int, Tensor]]:
    """The midpoint oracle of one instance with more and more points."""
    for points in (250, 1_000, 4_000, 16_000, 64_000, 256_000):
        if points <= FINEST[head]:
            yield points, by_rule(held, outer, start, end, midpoint(points))


def table_end(model: Any) -> float:
    head = model.head
    return float(head.baseline.times[-1]) if isinstance(head, CoxTime) else 9.0


def completeness(held: HeldModel, outer: OuterMap, start: Any, end: Any, found: Tensor) -> float:
    with torch.no_grad():
        rise = outer.values(held.raw(end)) - outer.values(held.raw(start))
    return float((rise.unflatten(0, (-1, REFERENCES)).mean(1) - found.sum(1)).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5)
    parser.add_argument("--only", default="CoxPH;DeepHit;CoxTime")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Accuracy at cost of GradSHAP(t)",
        "",
        f"{platform.machine()}, one thread, Python {platform.python_version()}, torch {torch.__version__}; "
        f"{settings.rows} instances × {REFERENCES} references × {TIMES} times, {FEATURES} covariates. "
        "Made by `python benchmarks/attribution_accuracy.py`.",
        "",
        *(__doc__.split("\n\n")[2].replace("\n", " ").strip(), ""),
    ]
    for unit in (nn.ReLU, nn.SiLU):
        for head in settings.only.split(";"):
            if head == "CoxTime" and unit is nn.SiLU:
                continue  # its network is made with ReLU
            lines += table_of(head, unit, settings.rows)
            print("\n".join(lines[-24:]), flush=True)
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
