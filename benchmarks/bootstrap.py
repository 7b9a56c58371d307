"""A 1,000-fold bootstrap of Harrell's C on 13,503 patients. Run: .venv-peers/bin/python benchmarks/bootstrap.py

13,503 patients, 57.3 % censored, are the portrait study's; times and risks like them are simulated here. The peers have
no bootstrap by patient, so a user would resample rows in a loop: two draws are timed and multiplied by 500.
"""

from __future__ import annotations

import numpy as np
from concordance import harrell_lifelines, harrell_scikit_survival
from side_by_side import HEAD, Work, available, interleave, rows, spell, write

from survlens.core.outcome import SurvivalOutcome
from survlens.evaluate.concordance import concordance_index
from survlens.evaluate.uncertainty import bootstrap, paired_difference

N, DRAWS = 13_503, 1000


def cohort(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in days, 57 % censored, risks with a concordance near 0.7."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=N)
    life, cut = rng.exponential(1500 * np.exp(-0.8 * risk)), rng.exponential(1000, N)
    return np.ceil(np.minimum(life, cut)), (life <= cut).astype(int), risk


def two_draws(build, time: np.ndarray, event: np.ndarray, risk: np.ndarray):
    """The loop that a user of a peer would write, over two draws."""
    build(time, event, risk)

    def run() -> str:
        rng = np.random.default_rng(0)
        for _ in range(2):
            drawn = rng.integers(0, N, N)
            build(time[drawn], event[drawn], risk[drawn])()
        return "two draws"

    return run


def main() -> None:
    time, event, risk = cohort()
    outcome = SurvivalOutcome.from_arrays(time, event, "days")
    patient = np.random.default_rng(1).integers(0, N // 2, N)
    skipped: list[str] = []
    whole = Work("survlens", lambda: str(bootstrap(concordance_index, risk, outcome, draws=DRAWS).score))
    clustered = Work(
        "survlens, rows of one patient drawn together",
        lambda: str(bootstrap(concordance_index, risk, outcome, patient=patient, draws=DRAWS).score),
    )
    loops = available("scikit-survival", lambda: two_draws(harrell_scikit_survival, time, event, risk), skipped)
    loops += available("lifelines", lambda: two_draws(harrell_lifelines, time, event, risk), skipped)
    works = [whole, clustered, *loops]
    interleave(works, repeats=5, budget=20)
    for loop in loops:
        loop.seconds = [DRAWS / 2 * second for second in loop.seconds]
        loop.value = f"two draws timed, times {DRAWS // 2}"
    noisy = risk + np.random.default_rng(2).normal(scale=0.3, size=N)
    first, second = (bootstrap(concordance_index, values, outcome, draws=DRAWS) for values in (risk, noisy))
    difference = paired_difference(first, second).score
    body = [
        *HEAD,
        *rows(f"{DRAWS:,} draws, n = {N:,}, {100 * (1 - event.mean()):.1f} % censored", works),
        "",
        f"First call with compilation or its cache: {whole.note.removeprefix('first call ')}. Target: 20 s.",
        f"Paired difference of two models on the same draws, from draws already made: {difference}; median run of the",
        f"whole bootstrap {spell(whole.median)}.",
        *skipped,
    ]
    write("bootstrap", "Bootstrap of Harrell's C side by side", body)


if __name__ == "__main__":
    main()
