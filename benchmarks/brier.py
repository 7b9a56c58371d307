"""Brier score beside the peers, in speed and in truth. Run: .venv-peers/bin/python benchmarks/brier.py"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from peers import SHIMS, load_pycox
from side_by_side import HEAD, Work, available, interleave, rows, write

from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.accuracy import brier_score


def cohort(n: int, *, whole_months: bool, seed: int = 0):
    """Log-risks, uncensored lives, observed times and events; about half censored."""
    rng = np.random.default_rng(seed)
    log_risk = 0.7 * rng.normal(size=n)
    life, cut = rng.exponential(8 * np.exp(-log_risk)), rng.exponential(10, n)
    if whole_months:
        life, cut = np.ceil(life), np.ceil(cut)
    return log_risk, life, np.minimum(life, cut), (life <= cut).astype(int)


def curves_of(log_risk: np.ndarray, times: np.ndarray) -> SurvivalPrediction:
    hazard = torch.outer(torch.from_numpy(np.exp(log_risk) / 8), torch.from_numpy(times))
    return SurvivalPrediction(torch.from_numpy(times), -hazard, Interpolation.STEP, "months")


def scikit_survival(time, event, survival, times) -> Callable[[], np.ndarray]:
    from sksurv.metrics import brier_score as theirs

    records = np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", bool), ("time", float)])
    return lambda: theirs(records, records, survival, times)[1]


def scikit_survival_from_functions(time, event, survival, times) -> Callable[[], np.ndarray]:
    """From the step functions that its models predict, which have to be asked first."""
    from sksurv.functions import StepFunction
    from sksurv.metrics import brier_score as theirs

    records = np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", bool), ("time", float)])
    functions = [StepFunction(times, row) for row in survival]
    return lambda: theirs(records, records, np.vstack([function(times) for function in functions]), times)[1]


def torchsurv(time, event, survival, times) -> Callable[[], np.ndarray]:
    from torchsurv.metrics.brier_score import BrierScore
    from torchsurv.stats.ipcw import get_ipcw

    observed, died, at = torch.from_numpy(time), torch.from_numpy(event).bool(), torch.from_numpy(times)
    estimate = torch.from_numpy(survival)

    def run() -> np.ndarray:
        weight, weight_at = get_ipcw(died, observed, observed), get_ipcw(died, observed, at)
        return BrierScore()(estimate, died, observed, at, weight, weight_at).numpy()

    return run


def pycox(time, event, survival, times) -> Callable[[], np.ndarray]:
    import pandas as pd

    evaluation = load_pycox("pycox.evaluation")
    frame = pd.DataFrame(survival.T, times)
    return lambda: evaluation.EvalSurv(frame, time, event, censor_surv="km").brier_score(times).to_numpy()


PEERS = {
    "scikit-survival": scikit_survival,
    "scikit-survival, from step functions": scikit_survival_from_functions,
    "torchsurv": torchsurv,
    "pycox": pycox,
}


def main() -> None:
    skipped: list[str] = []
    body = ["## Speed: Brier score at 100 times; the value is the mean over them", "", *HEAD]
    for n in (1_000, 10_000, 50_000):
        log_risk, _, time, event = cohort(n, whole_months=False)
        times = np.linspace(0.2, float(np.quantile(time, 0.95)), 100)
        prediction, outcome = curves_of(log_risk, times), SurvivalOutcome.from_arrays(time, event, "months")
        survival = prediction.survival.numpy()
        works = [Work("survlens", lambda p=prediction, o=outcome, t=times: brier_score(p, o, t, training=o).values)]
        for name, build in PEERS.items():
            if n < 50_000 or name.startswith("scikit-survival"):
                works += available(name, lambda b=build, a=(time, event, survival, times): b(*a), skipped)
        interleave(works, budget=20)
        for work in works:
            work.value = float(np.mean(work.value))
        body += rows(f"n = {n:,}", works)
    body += ["", "## Truth: times in whole months, so that events and censorings tie", ""]
    body += ["| library | Brier score at 4 months | off the truth |", "|---|---|---|"]
    log_risk, life, time, event = cohort(20_000, whole_months=True)
    at = np.array([4.0])
    prediction = curves_of(log_risk, at)
    survival = prediction.survival.numpy()
    truth = float(np.mean((survival[:, 0] - (life > 4)) ** 2))
    body.append(f"| every life seen to its end | {truth:.5f} | 0 |")
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    found = {"survlens": float(brier_score(prediction, outcome, at, training=outcome).values[0])}
    for name, build in PEERS.items():
        for work in available(name, lambda b=build: b(time, event, survival, at), skipped):
            found[name] = float(np.ravel(work.run())[0])
    body += [f"| {name} | {value:.5f} | {100 * (value / truth - 1):+.1f} % |" for name, value in found.items()]
    body += [
        "",
        "survlens asks its prediction (log-survival curves) and exponentiates inside; the peers get the finished",
        "S matrix, except in the line that asks the step functions which scikit-survival's own models return.",
        "Values differ between libraries by their weights: 1/G(T-) for events here and in R, 1/G(T) in the peers.",
        SHIMS,
        *sorted(set(skipped)),
    ]
    write("brier", "Brier score side by side", body)


if __name__ == "__main__":
    main()
