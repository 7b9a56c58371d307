"""The `--set KEY=VALUE` of the command line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from survlens.core.errors import UsageError
from survlens.study.toml_lines import Key

_BARE_WORD = re.compile(r"[A-Za-z_/.~][\w./-]*")


def model_names(document: Mapping[str, Any]) -> dict[Key, str]:
    """Names of the models by their path, so that a message can say model.coxvae."""
    rows = document.get("model", [])
    if not isinstance(rows, list):
        return {}
    named = ((row, at) for at, row in enumerate(rows) if isinstance(row, dict) and isinstance(row.get("name"), str))
    return {("model", at): row["name"] for row, at in named}


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[Key, str]:
    """Puts the values of the command line into `document` and returns where they went.

    Args:
        document: The parsed study file; changed in place.
        overrides: Texts like "model.coxvae.tau=0.3".

    Raises:
        UsageError: If a text cannot be read, or names a model that the study does not have.
    """
    seen: dict[Key, str] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        parts = [part.strip() for part in name.split(".")]
        if not equals or len(parts) < 2 or not all(parts):
            raise UsageError(f"`--set` must read SECTION.KEY=VALUE; got {text!r}. Example: --set study.seed=1.")
        key = _override_key(document, parts, text)
        _table_of(document, key[:-1], text)[str(key[-1])] = _override_value(value.strip(), text)
        seen[key] = text
    return seen


def _table_of(document: dict[str, Any], path: Key, text: str) -> dict[str, Any]:
    """The table at `path`, made where it is not there yet."""
    table: Any = document
    for part in path:
        found: Any = table[part] if isinstance(part, int) else table.setdefault(part, {})
        table = found
        if not isinstance(found, dict | list):
            raise UsageError(f"`--set` must name a key of a section; got {text!r}, and `{part}` is no section.")
    return table


def _override_key(document: Mapping[str, Any], parts: Sequence[str], text: str) -> Key:
    if parts[0] != "model":
        return tuple(parts)
    names = list(model_names(document).values())
    places = {name: key for key, name in model_names(document).items()}
    for end in range(2, len(parts)):
        if ".".join(parts[1:end]) in places:
            return (*places[".".join(parts[1:end])], *parts[end:])
    raise UsageError(
        f"`--set` must read model.NAME.KEY=VALUE with a model of the study; got {text!r}. Models: {', '.join(names)}."
    )


def _override_value(value: str, text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {value}")
        if list(parsed) == ["value"]:
            return parsed["value"]
    except tomllib.TOMLDecodeError:
        if _BARE_WORD.fullmatch(value):
            return value
    raise UsageError(f'`--set` must give a TOML value after "="; got {text!r}. Texts need quotes, lists brackets.')
