"""Scores, curves and baselines against R; the comparisons are those of benchmarks/golden_table.py."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "golden_table.py"


@pytest.fixture(scope="module")
def golden_table():
    specification = importlib.util.spec_from_file_location("golden_table", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["golden_table"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["golden_table"]


@pytest.mark.parametrize("data", ["lung", "veteran", "gbsg"])
def test_every_golden_value_is_met(golden_table, shared, data):
    rows = list(golden_table.comparisons(data, shared("golden")))
    assert len(rows) >= 30
    far = {row.what: row.deviation for row in rows if not row.deviation < 1e-8}
    assert far == {}


def test_golden_curves_come_from_the_breslow_fit(golden_table, shared):
    """The golden file does not say which fit its log-risks are of; they are not Efron's."""
    golden = json.loads(shared("golden", "veteran.json").read_text())
    ties = golden_table.Ties
    frame = golden_table.pd.read_csv(shared("golden", "veteran.csv"))
    design = frame[golden["covariates"]].to_numpy(float)
    distance = {t: np.abs(design @ golden_table.coefficients(golden, t) - golden["log_risk"]).max() for t in ties}
    assert distance[ties.BRESLOW] < 1e-9 < 1e-3 < distance[ties.EFRON]
