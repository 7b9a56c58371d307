"""What the library says of small and of larger cohorts."""

import numpy as np
import pandas as pd
import pytest

from survlens.core.outcome import SurvivalOutcome
from survlens.data.findings import Severity
from survlens.evaluate.concordance import concordance_index
from survlens.study.advice import SPREAD_OF_C, interval_width
from survlens.study.check import check_study, check_table
from survlens.study.toml_source import read_study

STUDY = """\
[study]
name = "small"
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
numeric = ["a", "b", "c"]
[split]
kind = "folds"
folds = 5
[[model]]
name = "net"
kind = "deep_surv"
[[model]]
name = "forest"
kind = "forest"
"""


def advised(folder, n, *, text=STUDY, events=0.6):
    """Codes and messages of the advice on a cohort of `n` patients."""
    random = np.random.default_rng(n)
    frame = pd.DataFrame({name: random.normal(size=n).round(3) for name in "abc"})
    frame["time"] = random.exponential(10, n).round(3) + 0.001
    frame["event"] = (np.arange(n) < events * n).astype(int)
    frame.to_csv(folder / "t.csv", index=False)
    (folder / "study.toml").write_text(text)
    report = check_study(read_study(folder / "study.toml"))
    assert report.ok
    return {found.code: found.message for found in report.of(Severity.ADVICE)}


def test_forty_patients_are_offered_the_simpler_model_by_name(tmp_path):
    said = advised(tmp_path, 40)
    assert said["support"].startswith("24 events in 40 patients, 19 of them in each fit.")
    assert "clinical_cox 6.4 (3 parameters)" in said["support"]
    assert "net 0.013 (1,216 weights)" in said["support"]
    assert (
        'Use a ridge Cox (kind = "cox", penalty = 0.1), or choose at most 1 column beforehand' in said["simpler-model"]
    )
    assert said["simpler-than-flexible"].startswith("net, forest:")
    assert 'put a ridge Cox beside it (kind = "cox", penalty = 0.1)' in said["simpler-than-flexible"]
    assert "about 0.22 wide (0.59 to 0.81" in said["interval-of-c"]
    assert "Only large differences" in said["interval-of-c"]


def test_four_hundred_patients_support_the_clinical_cox_model(tmp_path):
    said = advised(tmp_path, 400)
    assert "simpler-model" not in said
    assert "clinical_cox 64 (3 parameters)" in said["support"]
    assert "about 0.07 wide" in said["interval-of-c"]
    assert "Only large differences" not in said["interval-of-c"]
    assert "here are 51" in said["simpler-than-flexible"]


def test_a_ridge_that_is_there_is_named_and_not_advised_against(tmp_path):
    ridge = '[[model]]\nname = "ridge"\nkind = "cox"\npenalty = 0.1\n'
    said = advised(tmp_path, 40, text=STUDY + ridge)
    assert "ridge" not in said["simpler-model"].split(" has ")[0]
    assert "judge it by ridge" in said["simpler-than-flexible"]


def test_advice_never_stops_a_study_and_a_bare_table_gets_it_too(tmp_path):
    advised(tmp_path, 40)
    report = check_table(tmp_path / "t.csv", time="time", event="event", unit="months")
    codes = {found.code for found in report.of(Severity.ADVICE)}
    assert report.ok
    assert {"support", "simpler-model", "interval-of-c"} <= codes


def test_a_table_with_errors_gets_no_advice(tmp_path):
    pd.DataFrame({"time": [1.0, -2.0, 3.0], "event": [1, 0, 1]}).to_csv(tmp_path / "t.csv", index=False)
    assert not check_table(tmp_path / "t.csv", time="time", event="event").of(Severity.ADVICE)


@pytest.mark.parametrize(("patients", "censoring"), [(40, None), (60, 1.0), (150, 0.5), (200, None)])
def test_the_spread_of_c_is_what_a_simulation_gives(patients, censoring):
    """Exponential times whose log hazard is normal, so that C is about 0.7."""
    random = np.random.default_rng(patients)
    values, events = [], []
    for _ in range(250):
        risk = random.normal(scale=0.9, size=patients)
        time = random.exponential(np.exp(-risk))
        end = np.full(patients, np.inf) if censoring is None else random.exponential(censoring, patients)
        seen = time <= end
        outcome = SurvivalOutcome.from_arrays(np.minimum(time, end) + 1e-9, seen.astype(int), "years")
        values.append(concordance_index(risk, outcome).value)
        events.append(seen.sum())
    spread = np.std(values) * np.sqrt(np.mean(events))
    assert spread == pytest.approx(SPREAD_OF_C, abs=0.05)
    assert interval_width(float(np.mean(events))) == pytest.approx(2 * 1.96 * np.std(values), rel=0.2)
