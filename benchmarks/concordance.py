"""Concordance beside the peers. Run: .venv-peers/bin/python benchmarks/concordance.py"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from peers import load_pycox
from side_by_side import HEAD, Work, available, interleave, rows, write

from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.evaluate.concordance import concordance_index, concordance_index_antolini, concordance_index_ipcw


def cohort(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in tenths of a month (many ties), about half events, risks with ties."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=n), 3)
    life, cut = rng.exponential(60 * np.exp(-0.7 * risk)), rng.exponential(80, n)
    return np.ceil(10 * np.minimum(life, cut)) / 10, (life <= cut).astype(int), risk


def harrell_scikit_survival(time, event, risk) -> Callable[[], float]:
    from sksurv.metrics import concordance_index_censored

    return lambda: float(concordance_index_censored(event.astype(bool), time, risk)[0])


def harrell_lifelines(time, event, risk) -> Callable[[], float]:
    from lifelines.utils import concordance_index as theirs

    return lambda: float(theirs(time, -risk, event))


def harrell_torchsurv(time, event, risk) -> Callable[[], float]:
    from torchsurv.metrics.cindex import ConcordanceIndex

    arguments = torch.from_numpy(risk), torch.from_numpy(event).bool(), torch.from_numpy(time)
    return lambda: float(ConcordanceIndex()(*arguments))


def uno_scikit_survival(time, event, risk, horizon) -> Callable[[], float]:
    from sksurv.metrics import concordance_index_ipcw as theirs

    records = np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", bool), ("time", float)])
    return lambda: float(theirs(records, records, risk, tau=horizon)[0])


def antolini_pycox(time, event, curves) -> Callable[[], float]:
    import pandas as pd

    evaluation = load_pycox("pycox.evaluation")
    frame = pd.DataFrame(curves.survival.numpy().T, curves.times.numpy())
    return lambda: float(evaluation.EvalSurv(frame, time, event).concordance_td("adj_antolini"))


def curves_of(risk: np.ndarray, last: float, knots: int = 100) -> SurvivalPrediction:
    times = torch.linspace(0.1, last, knots, dtype=torch.float64)  # no event comes before the first knot
    hazard = torch.outer(torch.from_numpy(np.exp(0.7 * risk) / 60), times)
    return SurvivalPrediction(times, -hazard, Interpolation.STEP, "months")


def main() -> None:
    skipped: list[str] = []
    body = ["## Harrell", "", *HEAD]
    for n in (1_000, 10_000, 50_000, 100_000):
        time, event, risk = cohort(n)
        outcome = SurvivalOutcome.from_arrays(time, event, "months")
        works = [Work("survlens", lambda r=risk, o=outcome: concordance_index(r, o).value)]
        if n < 100_000:
            works += available(
                "scikit-survival", lambda t=time, e=event, r=risk: harrell_scikit_survival(t, e, r), skipped
            )
        works += available("lifelines", lambda t=time, e=event, r=risk: harrell_lifelines(t, e, r), skipped)
        if n <= 1_000:
            works += available("torchsurv", lambda t=time, e=event, r=risk: harrell_torchsurv(t, e, r), skipped)
        interleave(works)
        body += rows(f"n = {n:,}", works)
        with_error = Work(
            "survlens, with standard error", lambda r=risk, o=outcome: concordance_index(r, o, confidence=0.95).value
        )
        interleave([with_error])
        body += rows(f"n = {n:,}", [with_error])
    body += ["", "## Uno, horizon at the 80th percentile", "", *HEAD]
    for n in (1_000, 10_000, 50_000):
        time, event, risk = cohort(n)
        outcome, horizon = SurvivalOutcome.from_arrays(time, event, "months"), float(np.quantile(time, 0.8))
        works = [
            Work("survlens", lambda r=risk, o=outcome, h=horizon: concordance_index_ipcw(r, o, o, horizon=h).value)
        ]
        works += available(
            "scikit-survival", lambda t=time, e=event, r=risk, h=horizon: uno_scikit_survival(t, e, r, h), skipped
        )
        interleave(works)
        body += rows(f"n = {n:,}", works)
    body += ["", "## Antolini, curves with 100 knots", "", *HEAD]
    for n in (1_000, 10_000, 50_000):
        time, event, risk = cohort(n)
        outcome, curves = SurvivalOutcome.from_arrays(time, event, "months"), curves_of(risk, float(time.max()))
        works = [Work("survlens", lambda p=curves, o=outcome: concordance_index_antolini(p, o).value)]
        if n < 50_000:
            works += available("pycox", lambda t=time, e=event, p=curves: antolini_pycox(t, e, p), skipped)
        interleave(works)
        body += rows(f"n = {n:,}", works)
    body += [
        "",
        "scikit-survival's Uno weights an event at T by 1/G(T), ours and R's by 1/G(T-), and its horizon leaves out",
        "its own end, so the two differ where events and censorings tie. lifelines and pycox have their own rules for",
        "tied times; torchsurv is measured at n = 1,000 only, because its time grows with the square of n or faster.",
        "scikit-survival at 100,000 and pycox at 50,000 are left out: minutes per run.",
        *sorted(set(skipped)),
    ]
    write("concordance", "Concordance side by side", body)


if __name__ == "__main__":
    main()
