"""How much memory an explanation may take at a time, kept in one place."""

from __future__ import annotations

from collections.abc import Iterator

from survlens.core.errors import InvalidValueError

MEMORY = 512 * 2**20
"""Bytes that one step may take where nothing else is asked for."""


def rows_at_once(bytes_per_row: float, memory: int = MEMORY) -> int:
    """How many rows fit into `memory` bytes; one at least, whatever it takes.

    Raises:
        InvalidValueError: If `memory` is not > 0.
    """
    if memory <= 0:
        raise InvalidValueError(f"`memory` must be > 0 bytes; got {memory}. The default is {MEMORY}.")
    return max(1, int(memory / max(bytes_per_row, 1.0)))


def spans(rows: int, at_once: int) -> Iterator[slice]:
    """The rows in stretches of `at_once`; one empty stretch where there are none."""
    for start in range(0, max(rows, 1), at_once):
        yield slice(start, min(start + at_once, rows))
