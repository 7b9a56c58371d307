"""Turns the tables of a TOML file into settings dataclasses, and says where a value is wrong."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, get_type_hints

from survlens.core.errors import UsageError
from survlens.study.rules import SettingError, shown
from survlens.study.toml_lines import Key, line_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values came from: a file's lines, or the command line.

    Attributes:
        file: Name of the study file.
        lines: Line of each key in it.
        overrides: Keys set on the command line, with the text that set them.
        names: Names of the entries of arrays of tables, by path.
    """

    file: str
    lines: Mapping[Key, int] = field(default_factory=dict)
    overrides: Mapping[Key, str] = field(default_factory=dict)
    names: Mapping[Key, str] = field(default_factory=dict)

    def of(self, key: Key) -> str:
        """Where `key` stands, in words."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.overrides:
                return f"--set {self.overrides[key[:end]]}"
        line = line_of(self.lines, key)
        return self.file if line is None else f"{self.file}, line {line}"

    def shown(self, key: Key) -> str:
        """`key` as a reader would write it: model.coxvae.tau."""
        parts: list[str] = []
        for end in range(1, len(key) + 1):
            part = key[end - 1]
            parts.append(self.names.get(key[:end], f"{part + 1}") if isinstance(part, int) else part)
        return ".".join(parts)

    def error(self, key: Key, rule: str, got: str, next_step: str = "") -> UsageError:
        """An error about the value of `key`."""
        tail = f" {next_step}" if next_step else ""
        return UsageError(f"{self.of(key)}: `{self.shown(key)}` must {rule}; got {got}.{tail}")

    def unknown(self, key: Key, known: Iterable[str], what: str = "setting") -> UsageError:
        """An error about a name that nothing answers to."""
        known = sorted(known)
        near = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.5)
        advice = f'Did you mean "{near[0]}"?' if near else f"Known here: {', '.join(known)}."
        return UsageError(f"{self.of(key)}: `{self.shown(key)}` must be a known {what}; got an unknown name. {advice}")


def bind(cls: type[T], table: Mapping[str, object], key: Key, origin: Origin, given: Mapping[str, object] = {}) -> T:
    """Builds the dataclass `cls` from a TOML table.

    Args:
        cls: A settings dataclass.
        table: What the file says.
        key: Path of the table.
        origin: Where the values came from.
        given: Fields that are already built and cannot be in the table.

    Raises:
        UsageError: If a key is unknown or missing, or a value has the wrong type or range.
    """
    hints = get_type_hints(cls)
    settable = [each for each in fields(cls) if each.name not in given]  # type: ignore[arg-type]
    names = [each.name for each in settable]
    for name in table:
        if name not in names:
            raise origin.unknown((*key, name), names)
    values: dict[str, Any] = dict(given)
    for each in settable:
        if each.name in table:
            values[each.name] = _converted(table[each.name], hints[each.name], (*key, each.name), origin)
        elif each.default is MISSING and each.default_factory is MISSING:
            where = f"[{origin.shown(key)}]" if key else "the file"
            raise origin.error((*key, each.name), "be given", "nothing", f"Add {each.name} = ... to {where}.")
    try:
        return cls(**values)
    except SettingError as error:
        raise origin.error((*key, error.key), error.rule, error.got, error.next_step) from None


def section(value: object, key: Key, origin: Origin) -> Mapping[str, object]:
    """`value`, which has to be a table of the file.

    Raises:
        UsageError: If it is something else.
    """
    if not isinstance(value, dict):
        raise origin.error(key, "be a section", shown(value), f"Write [{origin.shown(key)}] on a line of its own.")
    return value


def _converted(value: object, hint: Any, key: Key, origin: Origin) -> object:
    """`value` as the type `hint` asks for."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    outer, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return bind(hint, section(value, key, origin), key, origin)
    if outer is tuple:
        return _list(value, inner[0], key, origin)
    if outer is not None and issubclass(outer, Mapping):
        return _mapping(value, inner[1], key, origin)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(value, hint, key, origin)
    return _plain(value, hint, key, origin)


def _list(value: object, hint: Any, key: Key, origin: Origin) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise origin.error(key, f"be a list, each entry {_words(hint)}", _got(value), "Write it in brackets: [...].")
    return tuple(_converted(each, hint, key, origin) for each in value)


def _mapping(value: object, hint: Any, key: Key, origin: Origin) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise origin.error(key, "be a table", _got(value), "Write it in braces: { name = ... }.")
    return types.MappingProxyType({name: _converted(each, hint, (*key, name), origin) for name, each in value.items()})


def _choice(value: object, hint: type[Enum], key: Key, origin: Origin) -> Enum:
    choices = [str(each.value) for each in hint]
    if not isinstance(value, str) or value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
        advice = f'Did you mean "{near[0]}"?' if near else ""
        raise origin.error(key, f"be one of {', '.join(shown(each) for each in choices)}", _got(value), advice)
    return hint(value)


def _plain(value: object, hint: Any, key: Key, origin: Origin) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise origin.error(key, f"be {_words(hint)}", _got(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise origin.error(key, "be a finite number", str(value))
    return value


_WORDS: Mapping[object, str] = {
    str: "a text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _words(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "a name"
    return _WORDS.get(hint, "a value")


def _got(value: object) -> str:
    kind = _WORDS.get(type(value), f"a {type(value).__name__}")
    return f"{kind} ({shown(value)})"
