"""What an outcome accepts, converts and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.strategies import outcomes, permutations
from survlens.core.errors import InvalidTypeError, InvalidValueError, SurvlensError
from survlens.core.outcome import SurvivalOutcome


@pytest.mark.parametrize("event", [[True, False], [1, 0], np.array([1, 0], np.uint8), torch.tensor([True, False])])
@pytest.mark.parametrize("time", [[3, 1], [3.0, 1.0], np.array([3, 1], np.float32), torch.tensor([3.0, 1.0])])
def test_arrays_lists_and_tensors_make_the_same_outcome(time: Any, event: Any) -> None:
    outcome = SurvivalOutcome.from_arrays(time, event, "days")
    assert (outcome.time.tolist(), outcome.event.tolist(), outcome.unit) == ([3.0, 1.0], [1, 0], "days")
    assert (outcome.time.dtype, outcome.event.dtype) == (torch.float64, torch.int64)
    assert (len(outcome), outcome.n_events) == (2, 1)


def test_an_outcome_does_not_share_memory_with_its_source() -> None:
    time = np.array([1.0, 2.0])
    outcome = SurvivalOutcome.from_arrays(time, [1, 0], "days")
    time[0] = -5
    assert outcome.time.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("time", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_are_not_finite_and_positive_are_refused_with_their_position(time: float) -> None:
    with pytest.raises(InvalidValueError, match=r"`time` must be finite and > 0; got .* at position 1 \(1 such"):
        SurvivalOutcome.from_arrays([2.0, time], [1, 0], "days")


def test_floating_point_events_are_refused() -> None:
    for event in np.array([[0.5, 1.0], [1.0, np.nan]]):
        with pytest.raises(InvalidTypeError, match="whole numbers or booleans"):
            SurvivalOutcome.from_arrays([1.0, 2.0], event, "days")


def test_times_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(InvalidTypeError, match="`time` must be numeric"):
        SurvivalOutcome.from_arrays(np.array(["1", "2"]), [1, 0], "days")


def test_negative_events_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="got -1 at position 0"):
        SurvivalOutcome.from_arrays([1.0], [-1], "days")


def test_unequal_lengths_are_refused_with_both_sizes() -> None:
    with pytest.raises(InvalidValueError, match=r"\(3,\) and \(2,\)"):
        SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 0], "days")


def test_the_constructor_takes_no_other_types() -> None:
    with pytest.raises(InvalidTypeError, match="from_arrays"):
        SurvivalOutcome(torch.ones(2), torch.ones(2).long(), "days")


def test_a_unit_is_needed() -> None:
    missing: Any = None
    for unit in ("", missing):
        with pytest.raises(InvalidValueError, match="`unit`"):
            SurvivalOutcome.from_arrays([1.0], [1], unit)


def test_errors_are_survlens_errors_and_the_builtin_they_are() -> None:
    for error, builtin in ((InvalidValueError, ValueError), (InvalidTypeError, TypeError)):
        assert issubclass(error, SurvlensError)
        assert issubclass(error, builtin)


@settings(max_examples=25, deadline=None)
@given(outcome=outcomes(causes=3), data=st.data())
def test_indexing_takes_the_same_rows_of_time_and_event(outcome: SurvivalOutcome, data: st.DataObject) -> None:
    order = data.draw(permutations(len(outcome)))
    for rows in (order, np.array(order), torch.tensor(order)):
        taken = outcome[rows]
        assert taken.time.tolist() == [float(outcome.time[i]) for i in order]
        assert taken.event.tolist() == [int(outcome.event[i]) for i in order]
        assert taken.unit == outcome.unit
    mask = outcome.event > 0
    assert outcome[mask].n_events == len(outcome[mask]) == outcome.n_events
    assert len(outcome[mask.numpy()]) == outcome.n_events
    assert outcome[1:].time.tolist() == outcome.time.tolist()[1:]


def test_no_rows_may_be_taken() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "days")
    assert len(outcome[[]]) == len(outcome[np.array([], int)]) == 0


def test_reversed_and_read_only_arrays_are_indices_too() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "days")
    rows = np.arange(2)
    rows.flags.writeable = False
    assert outcome[rows[::-1]].time.tolist() == [2.0, 1.0]


def test_arrays_come_back() -> None:
    time, event = SurvivalOutcome.from_arrays([1.5, 2.0], [1, 0], "days").numpy()
    assert (time.dtype, event.dtype, time.tolist(), event.tolist()) == (np.float64, np.int64, [1.5, 2.0], [1, 0])


def test_scikit_learn_splits_an_outcome():
    from sklearn.model_selection import train_test_split

    outcome = SurvivalOutcome.from_arrays(np.arange(1.0, 11.0), np.arange(10) % 2, "days")
    train, test = train_test_split(outcome, test_size=0.3, random_state=0)
    assert isinstance(train, SurvivalOutcome)
    assert sorted([*train.time.tolist(), *test.time.tolist()]) == outcome.time.tolist()


def test_entry_weight_and_stratum_travel_with_the_rows():
    outcome = SurvivalOutcome.from_arrays(
        [3, 4, 5], [0, 1, 2], "years", entry=[0, 1, 2], weight=[1, 2, 0.5], stratum=[0, 0, 1]
    )
    part = outcome[[2, 0]]
    assert part.entry.tolist() == [2.0, 0.0]
    assert part.weight.tolist() == [0.5, 1.0]
    assert part.stratum.tolist() == [1, 0]
    assert part.to("cpu").weight.tolist() == [0.5, 1.0]
    assert not part.plain
    assert outcome.of_cause(2).event.tolist() == [0, 0, 1]
    assert outcome.of_cause(2).entry.tolist() == [0.0, 1.0, 2.0]
    assert outcome.n_causes == 2


def test_joined_outcomes_fill_in_what_a_part_lacks():
    plain = SurvivalOutcome.from_arrays([3, 4], [0, 1], "years")
    full = SurvivalOutcome.from_arrays([5], [1], "years", entry=[2.0], weight=[3.0], stratum=[1])
    both = SurvivalOutcome.concatenate([plain, full])
    assert both.entry.tolist() == [0.0, 0.0, 2.0]
    assert both.weight.tolist() == [1.0, 1.0, 3.0]
    assert both.stratum.tolist() == [0, 0, 1]
    assert SurvivalOutcome.concatenate([plain, plain]).plain


def test_outcomes_of_two_units_do_not_join():
    with pytest.raises(InvalidValueError, match="one unit"):
        SurvivalOutcome.concatenate(
            [SurvivalOutcome.from_arrays([1.0], [1], "years"), SurvivalOutcome.from_arrays([1.0], [1], "days")]
        )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"entry": [0.0, 4.0]}, "`entry` must be >= 0 and before `time`; got 4 at position 1"),
        ({"entry": [-1.0, 0.0]}, "`entry` must be >= 0"),
        ({"weight": [1.0, 0.0]}, "`weight` must be finite and > 0; got 0 at position 1"),
        ({"weight": [1.0, float("nan")]}, "`weight` must be finite"),
        ({"stratum": [0, -1]}, "`stratum` must be >= 0"),
        ({"stratum": [0.5, 1.0]}, "`stratum` must be whole numbers"),
        ({"weight": [1.0]}, "one value per instance"),
    ],
)
def test_impossible_entries_weights_and_strata_are_refused(column, message):
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        SurvivalOutcome.from_arrays([3.0, 4.0], [0, 1], "years", **column)
