"""Pair counts against R and against a slow count of all pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.strategies import whole_outcomes
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.pair_counts import PairCounts, pair_counts


@st.composite
def cases(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 3, 10, 1000]))
    time = rng.integers(1, 1 + draw(st.sampled_from([1, 4, 1000])), size).astype(float)
    event = rng.integers(0, draw(st.sampled_from([1, 2, 3])), size)
    return rng.integers(0, levels, size) / 7 - 3, time, event


def slow_counts(risk: np.ndarray, outcome: SurvivalOutcome) -> PairCounts:
    time, event = outcome.numpy()
    counts = dict.fromkeys(("concordant", "discordant", "tied_risk", "tied_time", "tied_both"), 0)
    for i in range(len(time)):
        for j in range(len(time)):
            if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
                kind = "tied_risk" if risk[i] == risk[j] else "concordant" if risk[i] > risk[j] else "discordant"
                counts[kind] += 1
            elif i < j and event[i] and event[j] and time[i] == time[j]:
                counts["tied_both" if risk[i] == risk[j] else "tied_time"] += 1
    return PairCounts(**counts)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_counts_are_those_of_all_pairs(case):
    outcome = SurvivalOutcome.from_arrays(case[1], case[2], "days")
    assert pair_counts(case[0], outcome) == slow_counts(case[0], outcome)


@settings(max_examples=10, deadline=None)
@given(cases())
def test_reversed_risks_swap_concordant_and_discordant(case):
    risk, outcome = case[0], SurvivalOutcome.from_arrays(case[1], case[2], "days")
    forward, backward = pair_counts(risk, outcome), pair_counts(-risk, outcome)
    assert (forward.concordant, forward.discordant) == (backward.discordant, backward.concordant)
    assert (forward.tied_risk, forward.tied_both) == (backward.tied_risk, backward.tied_both)


@pytest.mark.parametrize("name", ["lung", "veteran", "gbsg"])
@pytest.mark.parametrize("key", ["harrell_c", "harrell_c_rounded_scores"])
def test_counts_are_those_of_r(shared: Callable[..., Path], name: str, key: str):
    golden = json.loads(shared("golden", f"{name}.json").read_text())
    table = pd.read_csv(shared("golden", f"{name}.csv"))
    risk = np.array(golden["log_risk"])
    if "round_digits" in golden[key]:
        risk = np.round(risk, golden[key]["round_digits"])
    found = pair_counts(
        torch.from_numpy(risk), SurvivalOutcome.from_arrays(table["time"].to_numpy(), table["event"].to_numpy(), "days")
    )
    counts = golden[key]["counts"]
    assert (found.concordant, found.discordant) == (counts["concordant"], counts["discordant"])
    assert (found.tied_risk, found.tied_time, found.tied_both) == (
        counts["tied.x"],
        counts["tied.y"],
        counts["tied.xy"],
    )
    assert found.concordance == pytest.approx(golden[key]["value"], rel=1e-12)


def test_concordance_is_nan_where_no_pair_is_comparable():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [0, 0], "days")
    assert np.isnan(pair_counts(np.array([1.0, 2.0]), outcome).concordance)


def test_bad_risks_are_refused():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "days")
    with pytest.raises(InvalidValueError, match="one value per instance"):
        pair_counts(np.zeros(3), outcome)
    with pytest.raises(InvalidValueError, match="1 such values"):
        pair_counts(np.array([0.0, np.nan]), outcome)


@settings(max_examples=60, deadline=None)
@given(outcome=whole_outcomes(max_size=14), data=st.data())
def test_entries_weights_and_strata_by_a_loop_over_pairs(outcome, data):
    n = len(outcome)
    risk = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=float)
    time, event = outcome.numpy()
    entry, weight, stratum = (part.numpy() for part in (outcome.entry, outcome.weight, outcome.stratum))
    expected = np.zeros(5)
    for i in range(n):
        for j in range(n):
            if i == j or not event[i] or stratum[i] != stratum[j]:
                continue
            pair = weight[i] * weight[j]
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                if entry[j] < time[i]:
                    expected[0 if risk[i] > risk[j] else 1 if risk[i] < risk[j] else 2] += pair
            elif time[j] == time[i] and i < j:
                expected[4 if risk[i] == risk[j] else 3] += pair
    counts = pair_counts(risk, outcome)
    found = [counts.concordant, counts.discordant, counts.tied_risk, counts.tied_time, counts.tied_both]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)
