"""Cox partial likelihood, forward and backward, beside the peers. Run: .venv-peers/bin/python benchmarks/cox_loss.py"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from peers import load_pycox
from side_by_side import HEAD, Work, available, interleave, rows, write

from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.losses.cox import cox_partial_likelihood, partial_likelihood_in_torch

Step = Callable[[], float]
SIZES = (1_000, 10_000, 100_000, 1_000_000)


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
    works = [Work("survlens", survlens(*case, ties)), Work("survlens, its torch path (GPU)", plain_torch(*case, ties))]
    works += available("torchsurv", lambda: torchsurv(*case, ties), skipped)
    works += available("pycox" + (" (knows no ties)" if tied else ""), lambda: pycox(*case, ties), skipped)
    return works


def main() -> None:
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
        for n in SIZES:
            works = works_of(n, tied=tied, ties=ties, skipped=skipped)
            interleave(works, repeats=11 if n < 10**6 else 7, budget=15)
            body += rows(f"n = {n:,}", works)
    body += ["", *dict.fromkeys(skipped)] if skipped else []
    write("cox_loss", "Cox partial likelihood", body)


if __name__ == "__main__":
    main()
