"""Writes patients.csv: 300 simulated patients with proportional hazards; the same file every time."""

from pathlib import Path

import numpy as np
import pandas as pd

N = 300


def main() -> None:
    """Draws the patients and writes their table beside this file."""
    random = np.random.default_rng(20240607)
    age = random.normal(63, 9, N).round().clip(30, 88)
    stage = random.choice(["I", "II", "III", "IV"], N, p=[0.3, 0.3, 0.25, 0.15])
    treatment = random.choice(["surgery", "radiotherapy", "both"], N, p=[0.5, 0.2, 0.3])
    marker = np.where(random.random(N) < 0.08, np.nan, random.lognormal(1.0, 0.6, N).round(2))
    hospital = random.choice(["north", "south", "west"], N, p=[0.5, 0.3, 0.2])
    rank = pd.Series(stage).map({"I": 0, "II": 1, "III": 2, "IV": 3}).to_numpy()
    log_hazard = -4.1 + 0.035 * (age - 63) + 0.55 * rank + np.where(treatment == "both", -0.4, 0.0)
    log_hazard = log_hazard + 0.15 * np.nan_to_num(marker, nan=3.0)
    survival = random.exponential(np.exp(-log_hazard))
    censoring = np.minimum(random.exponential(90, N), 84)
    months = np.maximum(np.minimum(survival, censoring), 0.1).round(1)
    table = pd.DataFrame({
        "patient": [f"P{number:03d}" for number in range(1, N + 1)],
        "months": months,
        "died": (survival <= censoring).astype(int),
        "age": age.astype(int),
        "stage": stage,
        "treatment": treatment,
        "marker": marker,
        "hospital": hospital,
    })  # fmt: skip
    table.to_csv(Path(__file__).parent / "patients.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
