"""Adds the column part to a table of photographs: 70 % of the patients train, stratified by event.

python part.py faces/cohort.csv writes faces/photos.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from survlens.core.outcome import SurvivalOutcome
from survlens.data.dealing import part_of

if __name__ == "__main__":
    path = Path(sys.argv[1])
    table = pd.read_csv(path)
    outcome = SurvivalOutcome.from_arrays(table["time"].to_numpy(), table["event"].to_numpy(), "months")
    rows = np.arange(len(table))
    _, test = part_of(table["patient"].to_numpy(), outcome, rows, fraction=0.3, seed=0, what="test_fraction")
    table["part"] = np.where(np.isin(rows, test), "test", "train")
    table.to_csv(path.with_name("photos.csv"), index=False)
