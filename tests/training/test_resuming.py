"""What must be the same is compared by name, on both sides."""

import pytest

from survlens.core.errors import UsageError
from survlens.training.resuming import check_identity


def test_only_what_is_the_same_goes_on():
    words = {"before": "the folder", "step": "Use another folder."}
    check_identity({"a": None}, {"a": None}, **words)
    check_identity({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, **words)
    for stored, now, told in (
        ({"a": "1"}, {"a": "2"}, r"`a` must be as in the folder \(1\); got 2\. Use another folder\."),
        ({"a": "1"}, {}, r"`a` must be as in the folder \(1\); got nothing\."),
        ({}, {"a": "1"}, r"`a` must be as in the folder \(nothing\); got 1"),
        ({"a": None}, {}, r"`a` must be as in the folder \(None\); got nothing\."),
        ({}, {"a": None}, r"`a` must be as in the folder \(nothing\); got None\."),
        ({"b": "1", "a": "1"}, {"b": "2", "a": "2"}, "`a` must be"),
    ):
        with pytest.raises(UsageError, match=told):
            check_identity(stored, now, **words)
