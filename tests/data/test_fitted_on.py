"""Records of whom something was fitted on."""

from __future__ import annotations

import json

import pytest

from survlens.core.errors import DataError, InvalidValueError
from survlens.data.fitted_on import FittedOn


def test_patients_are_found_again_and_named_nowhere():
    record = FittedOn.of("generator", ["Ada", "Ada", "Berta"])
    assert len(record) == 2
    assert record.seen(["Ada", "Carla"]) == 1
    assert "Ada" not in json.dumps(record.to_json())
    assert FittedOn.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_the_remark_says_whether_held_out_patients_were_seen():
    record = FittedOn.of("generator", [1, 2, 3])
    assert "none of them held out" in record.remark([4, 5])
    assert "2 of the 3 held-out patients among them" in record.remark([2, 3, 4])
    assert "not out of sample" in record.remark([2, 2, 9])


def test_a_record_needs_patients_and_is_read_whole():
    with pytest.raises(InvalidValueError, match="`patients` must name"):
        FittedOn.of("generator", [])
    with pytest.raises(DataError, match="must hold 'patients'"):
        FittedOn.from_json({"what": "generator"})
