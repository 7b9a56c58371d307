"""SurvSHAP(t) beside the survshap package: exact with 10 features, drawn with 20.

Run: OMP_NUM_THREADS=1 .venv-peers/bin/python benchmarks/shapley.py
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np
import torch
from side_by_side import HEAD, Work, available, interleave, rows, spell, write
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.explain import shapley
from survlens.explain.references import References
from survlens.explain.shapley import ExactSHAP
from survlens.explain.survshap import KernelSurvSHAP, PermutationSurvSHAP
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.pmf import PMF
from survlens.models.survival_model import SurvivalModel

REFERENCES, COLUMNS = 100, 50


def network(features: int, head: Callable[[], nn.Module], *, seed: int = 0) -> tuple[SurvivalModel, Tensor]:
    """A perceptron of two hidden layers, steep enough for features to interact, and rows to explain."""
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    model = SurvivalModel(trunk, head())
    with torch.no_grad():
        for layer in (trunk[0], trunk[2]):
            layer.weight *= 2
    inputs = torch.randn(500, features)
    if isinstance(model.head, CoxPH):
        time = torch.rand(500).double() * 10 + 0.01
        outcome = SurvivalOutcome(time, (torch.rand(500) < 0.7).long(), "months")
        with torch.no_grad():
            model.head.fit_baseline(model.embed({"table": inputs}), outcome)
    return model.eval(), inputs


HEADS = {
    "Cox": lambda: CoxPH(32),
    "PMF, 20 bins": lambda: PMF(32, TimeGrid.equidistant(10.0, 20, "months")),
    "LogisticHazard, 20 bins": lambda: LogisticHazard(32, TimeGrid.equidistant(10.0, 20, "months")),
}


def peer(
    model: SurvivalModel, background: Tensor, row: Tensor, times: Tensor, *, steps: bool = False, **settings: object
) -> Callable:
    """survshap, with one forward per call; curves are step functions, or only look up their values."""
    import pandas as pd
    from sksurv.functions import StepFunction
    from survshap import PredictSurvSHAP, SurvivalModelExplainer

    knots = times.numpy()
    names = [f"x{number}" for number in range(background.shape[1])]

    def curves(asked_model: SurvivalModel, frame: pd.DataFrame) -> list[Callable[[np.ndarray], np.ndarray]]:
        with torch.no_grad():
            table = torch.from_numpy(frame.to_numpy(dtype=np.float32))
            found = asked_model.predict_survival({"table": table}, times).survival.numpy()
        if steps:
            return [StepFunction(knots, values) for values in found]
        return [lambda _, values=values: values for values in found]

    outcome = np.array([(True, 1.0)] * len(background), dtype=[("event", bool), ("time", float)])
    frame = pd.DataFrame(background.numpy(), columns=names)
    explainer = SurvivalModelExplainer(model, frame, outcome, predict_survival_function=curves)
    observation = pd.DataFrame(row.numpy(), columns=names)

    def run() -> np.ndarray:
        explanation = PredictSurvSHAP(random_state=0, **settings)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            explanation.fit(explainer, observation, timestamps=times.numpy())
        table = explanation.result[explanation.result["B"] == 0].set_index("variable_name").loc[names]
        return table[[column for column in table.columns if column.startswith("t = ")]].to_numpy(dtype=float)

    return run


def apart(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def enumerated(skipped: list[str]) -> list[str]:
    """10 features: all coalitions in both, the same estimand."""
    body = [
        f"## Exact: 1 row, 10 features, {REFERENCES} references, {COLUMNS} times; all 1,024 coalitions",
        "",
        *HEAD,
    ]
    times = torch.linspace(0.2, 9.5, COLUMNS, dtype=torch.float64)
    lines = []
    for name, head in HEADS.items():
        model, inputs = network(10, head)
        references, row = References({"table": inputs[:REFERENCES]}, "rows"), inputs[200:201]
        explain = ExactSHAP(references)
        own = Work("survlens", lambda e=explain, m=model, r=row: e(m, {"table": r}, times)["table"])
        theirs = []
        for label, steps in (("step functions", True), ("looked-up values", False)):
            theirs += available(
                f"survshap, kernel, {label}",
                lambda m=model, i=inputs, r=row, s=steps: peer(m, i[:REFERENCES], r, times, steps=s),
                skipped,
            )
        works = [own, *theirs]
        interleave(works, repeats=7, budget=25)
        truth = own.value.values[0].numpy()
        off = [apart(work.value, truth) for work in theirs]
        gap = float(own.value.completeness_gap.abs().max())
        own.value = "-"
        for work, distance in zip(theirs, off, strict=True):
            work.value = f"{distance:.1e} off survlens"
        body += rows(name, works)
        double = explain(model.double(), {"table": row.double()}, times)["table"]
        exact = float(double.completeness_gap.abs().max())
        lines.append(f"{name}: completeness gap {gap:.0e} in float32, {exact:.0e} in float64.")
    return [*body, "", *lines, ""]


def drawn(skipped: list[str]) -> list[str]:
    """20 features: error against all 1,048,576 coalitions, and the time it took."""
    references = 25
    model, inputs = network(20, HEADS["Cox"], seed=1)
    times = torch.linspace(0.2, 9.5, COLUMNS, dtype=torch.float64)
    source, row = References({"table": inputs[:references]}, "rows"), inputs[200:201]
    limit, shapley.MOST_PLAYERS = shapley.MOST_PLAYERS, 20
    truth = ExactSHAP(source)(model, {"table": row}, times)["table"].values[0].numpy()
    shapley.MOST_PLAYERS = limit
    works = [
        Work(
            f"survlens, permutation, {pairs} pairs",
            lambda p=pairs: (
                PermutationSurvSHAP(source, pairs=p)(model, {"table": row}, times)["table"].values[0].numpy()
            ),
        )
        for pairs in (2, 10, 50, 250)
    ]
    works += [
        Work(
            f"survlens, kernel, {count:,} coalitions",
            lambda c=count: (
                KernelSurvSHAP(source, coalitions=c)(model, {"table": row}, times)["table"].values[0].numpy()
            ),
        )
        for count in (64, 512, 2048, 8192)
    ]
    for paths in (1, 25, 100):
        settings = {"calculation_method": "sampling", "B": paths}
        works += available(
            f"survshap, sampling, B = {paths}",
            lambda s=settings: peer(model, inputs[:references], row, times, **s),
            skipped,
        )
    interleave(works, repeats=5, budget=10)
    body = [
        f"## Drawn: 1 row, 20 features, {references} references, {COLUMNS} times; Cox head",
        "",
        "Error: relative L2 distance from the exact values (all 1,048,576 coalitions), features and times together.",
        "",
        "| library and setting | median | error |",
        "|---|---|---|",
    ]
    return (
        body + [f"| {work.library} | {spell(work.median)} | {apart(work.value, truth):.2%} |" for work in works] + [""]
    )


def main() -> None:
    skipped: list[str] = []
    body = [*enumerated(skipped), *drawn(skipped)]
    body += [
        "Both ask the same float32 network in eval mode, one thread; survshap one coalition at a time, survlens many",
        "in a batch. survshap takes a list of functions: step functions, as scikit-survival's models give it, or the",
        "lightest there can be, which look up their values and ignore their argument (so in the lower table).",
        *sorted(set(skipped)),
    ]
    write("survshap", "SurvSHAP(t) side by side", body, command="shapley.py")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
