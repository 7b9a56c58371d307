"""What must be the same for a computation to go on from what an earlier call left."""

from __future__ import annotations

from collections.abc import Mapping

from survlens.core.errors import UsageError


class _Absent:
    """Stands for a name that is missing on one side, which None does not: None may be a value."""

    def __str__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def check_identity(stored: Mapping[str, object], now: Mapping[str, object], *, before: str, step: str) -> None:
    """Refuses to go on from something else.

    Args:
        stored: What an earlier call noted, by name.
        now: The same of this call.
        before: Where the former stands, in words.
        step: What the user can do.

    Raises:
        UsageError: If a name is missing on one side, or its values differ; the first such name is told.
    """
    for name in sorted(now.keys() | stored.keys()):
        mine, theirs = now.get(name, _ABSENT), stored.get(name, _ABSENT)
        if mine != theirs:
            raise UsageError(f"`{name}` must be as in {before} ({theirs}); got {mine}. {step}")
