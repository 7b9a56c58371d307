"""On which line of a TOML text each key stands: `tomllib` does not say."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Key = tuple[str | int, ...]
"""Path of a value: names of tables and keys, and the position in an array of tables."""


@dataclass(slots=True)
class _Scan:
    """What has been seen so far while walking down the text."""

    lines: dict[Key, int] = field(default_factory=dict)
    counts: dict[Key, int] = field(default_factory=dict)
    table: Key = ()

    def note(self, key: Key, line: int) -> None:
        for end in range(1, len(key) + 1):
            self.lines.setdefault(key[:end], line)

    def inside_arrays(self, names: tuple[str, ...]) -> Key:
        """The path `names`, with the last position of every array of tables it passes through."""
        path: Key = ()
        for name in names:
            path = (*path, name)
            if path in self.counts:
                path = (*path, self.counts[path])
        return path

    def open_table(self, names: tuple[str, ...], line: int) -> None:
        self.table = self.inside_arrays(names)
        self.note(self.table, line)

    def open_array_row(self, names: tuple[str, ...], line: int) -> None:
        array = (*self.inside_arrays(names[:-1]), names[-1])
        self.counts[array] = self.counts.get(array, -1) + 1
        self.table = (*array, self.counts[array])
        self.note(self.table, line)


def key_lines(text: str) -> dict[Key, int]:
    """The line (from 1) of every table and key of a valid TOML text.

    Each statement is parsed on its own by `tomllib`: quoting, comments and multi-line values follow its rules.

    Args:
        text: A text that `tomllib.loads` accepts.
    """
    scan = _Scan()
    rows = text.split("\n")
    position = 0
    while position < len(rows):
        start = rows[position].lstrip()
        if not start.strip() or start.startswith("#"):
            position += 1
            continue
        parsed, length = _statement(rows[position:])
        if start.startswith("[["):
            scan.open_array_row(_header_names(parsed), position + 1)
        elif start.startswith("["):
            scan.open_table(_header_names(parsed), position + 1)
        else:
            for path in _paths(parsed):
                scan.note((*scan.table, *path), position + 1)
        position += length
    return scan.lines


def line_of(lines: Mapping[Key, int], key: Key) -> int | None:
    """The line of `key`, or of the nearest table around it; None where neither is in the text."""
    for end in range(len(key), 0, -1):
        if key[:end] in lines:
            return lines[key[:end]]
    return None


def _statement(rows: list[str]) -> tuple[dict[str, object], int]:
    """The first statement of `rows`, parsed, and how many rows it takes."""
    for length in range(1, len(rows)):
        try:
            return tomllib.loads("\n".join(rows[:length])), length
        except tomllib.TOMLDecodeError:
            continue
    return tomllib.loads("\n".join(rows)), len(rows)


def _header_names(parsed: object) -> tuple[str, ...]:
    names: list[str] = []
    while parsed:
        table = parsed[0] if isinstance(parsed, list) else parsed
        if not isinstance(table, dict) or not table:
            break
        name, parsed = next(iter(table.items()))
        names.append(name)
    return tuple(names)


def _paths(parsed: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    for name, value in parsed.items():
        yield (name,)
        if isinstance(value, dict):
            for path in _paths(value):
                yield (name, *path)
