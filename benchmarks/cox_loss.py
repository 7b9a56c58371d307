"""Cox partial likelihood, forward and backward, beside the peers. Run: .venv-peers/bin/python benchmarks/cox_loss.py

With a number behind it, no more rows than that are taken, and the page is printed but not kept. With --whole the page
on weights, strata, delayed entry and memory is made.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peers import load_pycox
from side_by_side import HEAD, Work, available, interleave, rows, write

from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.cox_torch import partial_likelihood_in_torch

Step = Callable[[], float]
SIZES = (1_000, 10_000, 100_000, 1_000_000)
PARTS = {
    "plain": (),
    "weights": ("weight",),
    "10 strata": ("few strata",),
    "n / 10 strata": ("many strata",),
    "delayed entry": ("entry",),
    "delayed entry, weights, 10 strata": ("entry", "weight", "few strata"),
}


def cohort(n: int, *, tied: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-risks, times and events of unsorted rows, 30 % censored; tied: about 300 distinct times."""
    random = np.random.default_rng(seed)
    time = random.exponential(size=n)
    return random.normal(size=n), np.ceil(time * 30) if tied else time, random.random(n) < 0.7


def step_of(loss: Callable[[torch.Tensor], torch.Tensor], log_risk: np.ndarray, events: int) -> Step:
    """One training step's worth: loss of float32 log-risks and its gradient; gives the loss per event."""
    leaf = torch.from_numpy(log_risk).float().requires_grad_()

    def run() -> float:
        leaf.grad = None
        total = loss(leaf)
        total.backward()
        return float(total.detach()) / events

    return run


def survlens(log_risk: np.ndarray, time: np.ndarray, event: np.ndarray, ties: Ties) -> Step:
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    return step_of(lambda z: cox_partial_likelihood(z, outcome, ties=ties).sum(), log_risk, outcome.n_events)


def plain_torch(log_risk: np.ndarray, time: np.ndarray, event: np.ndarray, ties: Ties) -> Step:
    outcome = SurvivalOutcome.from_arrays(time, event, "months")
    return step_of(lambda z: partial_likelihood_in_torch(z, outcome, ties).sum(), log_risk, outcome.n_events)


def torchsurv(log_risk: np.ndarray, time: np.ndarray, event: np.ndarray, ties: Ties) -> Step:
    from torchsurv.loss.cox import neg_partial_log_likelihood  # pyright: ignore[reportMissingImports]

    observed, died = torch.from_numpy(time), torch.from_numpy(event)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return neg_partial_log_likelihood(z, died, observed, ties_method=ties.value, reduction="sum")

    return step_of(loss, log_risk, int(event.sum()))


def pycox(log_risk: np.ndarray, time: np.ndarray, event: np.ndarray, ties: Ties) -> Step:
    theirs = load_pycox("pycox.models.loss").cox_ph_loss
    observed, died = torch.from_numpy(time).float(), torch.from_numpy(event).float()
    return step_of(lambda z: theirs(z, observed, died), log_risk, 1)


def works_of(n: int, *, tied: bool, ties: Ties, skipped: list[str]) -> list[Work]:
    case = cohort(n, tied=tied)
    works = [
        Work("survlens", survlens(*case, ties)),
        Work("survlens, its torch path, on the processor", plain_torch(*case, ties)),
    ]
    works += available("torchsurv", lambda: torchsurv(*case, ties), skipped)
    works += available("pycox" + (" (knows no ties)" if tied else ""), lambda: pycox(*case, ties), skipped)
    return works


def whole_outcome(n: int, parts: tuple[str, ...]) -> SurvivalOutcome:
    """Rows of `cohort`, half of them entering late, with weights from 0.5 to 1.5 and strata of equal probability."""
    _, time, event = cohort(n, tied=False)
    random = np.random.default_rng(1)
    columns = {
        "entry": ("entry", time * random.random(n) * (random.random(n) < 0.5)),
        "weight": ("weight", random.random(n) + 0.5),
        "few strata": ("stratum", random.integers(0, 10, n)),
        "many strata": ("stratum", random.integers(0, n // 10, n)),
    }
    return SurvivalOutcome.from_arrays(time, event, "months", **dict(columns[part] for part in parts))


def whole_works(n: int, parts: tuple[str, ...], skipped: list[str]) -> list[Work]:
    """Ours by both routes; torchsurv, the only peer with strata, where it has all that is asked for."""
    outcome, log_risk = whole_outcome(n, parts), cohort(n, tied=False)[0]

    def ours(loss: Callable[..., torch.Tensor]) -> Step:
        return step_of(lambda z: loss(z, outcome, ties=Ties.EFRON).sum(), log_risk, outcome.n_events)

    works = [
        Work("survlens", ours(cox_partial_likelihood)),
        Work("survlens, its torch path, on the processor", ours(partial_likelihood_in_torch)),
    ]
    if parts == ("few strata",) or (parts == ("many strata",) and n <= 10_000):
        works += available("torchsurv", lambda: torchsurv_strata(outcome, log_risk), skipped)
    return works


def torchsurv_strata(outcome: SurvivalOutcome, log_risk: np.ndarray) -> Step:
    from torchsurv.loss.cox import neg_partial_log_likelihood  # pyright: ignore[reportMissingImports]

    def loss(z: torch.Tensor) -> torch.Tensor:
        return neg_partial_log_likelihood(
            z, outcome.event > 0, outcome.time, ties_method="efron", reduction="sum", strata=outcome.stratum
        )

    return step_of(loss, log_risk, outcome.n_events)


def peak_megabytes(n: int, name: str, route: str) -> float:
    """Memory that forward and backward add, at most, to a fresh process that holds data and compiled code already."""
    command = [sys.executable, __file__, "--peak", str(n), name, route]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report_peak(n: int, name: str, route: str) -> None:
    place = {"compiled": 0, "torch": 1}[route]
    whole_works(1_000, PARTS[name], [])[place].run()  # compiles
    step = whole_works(n, PARTS[name], [])[place].run
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - resident)


def memory_body(n: int) -> list[str]:
    """Taken first of all: a process starts with the peak of the one that started it."""
    body = ["", f"## Memory of forward and backward, n = {n:,}", ""]
    body += [
        "Peak resident size of a fresh process less what it held before (the data, and one run on 1,000 rows).",
        "",
    ]
    body += ["| work | compiled | torch path |", "|---|---|---|"]
    for name in PARTS:
        compiled, plain = (peak_megabytes(n, name, route) for route in ("compiled", "torch"))
        body += [f"| {name} | {compiled:.0f} MB | {plain:.0f} MB |"]
    return body


def whole_body(sizes: tuple[int, ...], skipped: list[str]) -> list[str]:
    memory = memory_body(sizes[-1])
    body = ["", "## Weights, strata, delayed entry (without ties, Efron)", ""]
    body += [
        "No peer takes weights or delayed entry, and of the peers only torchsurv takes strata: it visits them one by"
    ]
    body += ["one, so it is left out where there are more than 1,000.", "", *HEAD]
    for name, parts in PARTS.items():
        for n in sizes[1:]:
            works = whole_works(n, parts, skipped)
            interleave(works, repeats=5, budget=5)
            body += rows(f"{name}, n = {n:,}", works)
    body += memory
    return body


def main(sizes: tuple[int, ...], *, keep: bool) -> None:
    warnings.filterwarnings("ignore", message="Ties in `time` detected")
    skipped: list[str] = []
    body = [
        "Forward and backward of the sum (pycox: its mean) from unsorted rows of float32 log-risks, 70 % events.",
        "The value is the loss per event; pycox takes tied rows one after another, so its value is another one.",
    ]
    for title, tied, ties in (
        ("Without ties", False, Ties.EFRON),
        ("Heavy ties (about 300 distinct times), Efron", True, Ties.EFRON),
        ("Heavy ties, Breslow", True, Ties.BRESLOW),
    ):
        body += ["", f"## {title}", "", *HEAD]
        for n in sizes:
            works = works_of(n, tied=tied, ties=ties, skipped=skipped)
            interleave(works, repeats=11 if n < 10**6 else 7, budget=15)
            body += rows(f"n = {n:,}", works)
    body += ["", *dict.fromkeys(skipped)] if skipped else []
    if keep:
        write("cox_loss", "Cox partial likelihood", body)
    else:
        print("\n".join(body))


def whole(sizes: tuple[int, ...]) -> None:
    """Weights, strata and delayed entry, and the memory that all of it takes; on a page of its own."""
    skipped: list[str] = []
    body = whole_body(sizes, skipped)[2:]
    body += ["", *dict.fromkeys(skipped)]
    title = "Cox partial likelihood with weights, strata and delayed entry"
    write("cox_risk_sets", title, body, command="cox_loss.py --whole")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        report_peak(int(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1:2] == ["--whole"]:
        whole((SIZES[0], SIZES[1], SIZES[-1]))
    else:
        largest = int(sys.argv[1]) if sys.argv[1:] else SIZES[-1]
        main(tuple(n for n in SIZES if n <= largest), keep=not sys.argv[1:])
