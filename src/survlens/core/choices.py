"""Choices among the members of an enumeration."""

from __future__ import annotations

from enum import Enum

from survlens.core.errors import InvalidTypeError


def check_choice(name: str, value: object, kind: type[Enum]) -> None:
    """Refuses whatever is not a member of `kind`, such as its name as a string: no member would equal it.

    Args:
        name: Argument it came as.
        value: What was given.
        kind: The enumeration.

    Raises:
        InvalidTypeError: If `value` is no member of `kind`.
    """
    if not isinstance(value, kind):
        members = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
        raise InvalidTypeError(f"`{name}` must be a {kind.__name__}; got {value!r}. Choose one of {members}.")
