"""A json file that says where in it something is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from survlens.core.errors import CorruptFileError, DataError


@dataclass(frozen=True, slots=True)
class JsonNode:
    """A value of a json file with the path that leads to it.

    Attributes:
        value: What stands there.
        file: Name of the file, for messages.
        where: Path inside the file, for messages.
        remedy: Next step to name in messages.
    """

    value: object
    file: str
    where: str
    remedy: str

    @staticmethod
    def read(path: Path, *, remedy: str) -> JsonNode:
        """Reads a json file.

        Raises:
            DataError: If there is no such file.
            CorruptFileError: If it is not json text.
        """
        if not path.is_file():
            raise DataError(f"The run folder must hold `{path.name}`; got none. {remedy}")
        try:
            value: object = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise CorruptFileError(f"`{path.name}` must be json text; got an error: {err}. {remedy}") from err
        return JsonNode(value, path.name, "", remedy)

    def fail(self, rule: str, got: str) -> CorruptFileError:
        """The error of a value that breaks `rule`."""
        return CorruptFileError(f"`{self.where or 'the top'}` in {self.file} must {rule}; got {got}. {self.remedy}")

    def _step(self, key: str, value: object) -> JsonNode:
        return JsonNode(value, self.file, f"{self.where}.{key}" if self.where else key, self.remedy)

    def get(self, key: str) -> JsonNode | None:
        """The value under `key`, or None where it is missing or null."""
        if not isinstance(self.value, dict):
            raise self.fail("be a table of keys", type(self.value).__name__)
        value = self.value.get(key)
        return None if value is None else self._step(key, value)

    def need(self, key: str) -> JsonNode:
        """The value under `key`, which must be there."""
        found = self.get(key)
        if found is None:
            raise self._step(key, None).fail("be there", "nothing")
        return found

    def items(self) -> Iterator[tuple[str, JsonNode]]:
        """Keys and values of a table."""
        if not isinstance(self.value, dict):
            raise self.fail("be a table of keys", type(self.value).__name__)
        for key, value in self.value.items():
            yield str(key), self._step(str(key), value)

    def each(self, key: str) -> list[JsonNode]:
        """The members of the list under `key`; empty where it is missing or null."""
        found = self.get(key)
        if found is None:
            return []
        if not isinstance(found.value, list):
            raise found.fail("be a list", type(found.value).__name__)
        return [JsonNode(v, self.file, f"{found.where}[{i}]", self.remedy) for i, v in enumerate(found.value)]

    def text(self, key: str, default: str | None = None) -> str:
        """Text under `key`; `default` where it is missing."""
        found = self.get(key) if default is not None else self.need(key)
        return str(default) if found is None else str(found.value)

    def number(self, key: str) -> float | None:
        """A number under `key`; None where it is missing, null or not finite."""
        found = self.get(key)
        return None if found is None else found.as_number()

    def whole(self, key: str) -> int | None:
        """A whole number under `key`; None where it is missing."""
        value = self.number(key)
        return None if value is None else int(value)

    def count(self, key: str) -> int:
        """A whole number under `key`, which must be there."""
        value = self.need(key).as_number()
        if value is None:
            raise self.need(key).fail("be a whole number", "a value that is not finite")
        return int(value)

    def flag(self, key: str) -> bool:
        """Whether the value under `key` is true; False where it is missing."""
        found = self.get(key)
        return found is not None and bool(found.value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers under `key`, null as NaN; empty where it is missing."""
        return tuple(math.nan if node.value is None else _nan(node.as_number()) for node in self.each(key))

    def as_number(self) -> float | None:
        """This value as a number; None where it is not finite."""
        if not isinstance(self.value, int | float):
            raise self.fail("be a number", repr(self.value)[:40])
        return float(self.value) if math.isfinite(self.value) else None


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
