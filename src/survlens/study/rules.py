"""The range of one setting, kept beside its default and checked whoever builds the dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from survlens.core.errors import UsageError


class SettingError(UsageError):
    """A setting breaks its rule; whoever knows the file adds where it stands.

    Attributes:
        key: Name of the setting within its own table.
        rule: What the setting must do.
        got: What it was, in words.
        next_step: What the user can do.
    """

    def __init__(self, key: str, rule: str, got: str, next_step: str = "") -> None:
        super().__init__(f"`{key}` must {rule}; got {got}.{' ' if next_step else ''}{next_step}")
        self.key = key
        self.rule = rule
        self.got = got
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must do, in words and as a test."""

    text: str
    holds: Callable[[Any], bool]


def setting(default: Any = MISSING, rule: Rule | None = None) -> Any:
    """A dataclass field with a rule.

    Args:
        default: Value where nothing is said; without one the setting is required.
        rule: What the value must do; None values are not tested.
    """
    return field(default=default, metadata={} if rule is None else {"rule": rule})


def check_rules(settings: Any) -> None:
    """Tests every field of the dataclass `settings` against its rule.

    Raises:
        SettingError: At the first field that breaks its rule.
    """
    for each in fields(settings):
        rule: Rule | None = each.metadata.get("rule")
        value = getattr(settings, each.name)
        if rule is not None and value is not None and not rule.holds(value):
            raise SettingError(each.name, rule.text, shown(value))


def shown(value: object) -> str:
    """A value as it would be written in a study file, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, tuple | list):
        text = "[" + ", ".join(shown(part) for part in value) + "]"
    else:
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def at_least(low: float) -> Rule:
    """A number of `low` or more."""
    return Rule(f"be at least {low:g}", lambda value: value >= low)


def above(low: float) -> Rule:
    """A number larger than `low`."""
    return Rule(f"be larger than {low:g}", lambda value: value > low)


def between(low: float, high: float) -> Rule:
    """A number from `low` to `high`, both included."""
    return Rule(f"lie in [{low:g}, {high:g}]", lambda value: low <= value <= high)


def inside(low: float, high: float) -> Rule:
    """A number from `low` up to, but not including, `high`; `low` is included."""
    return Rule(f"lie in [{low:g}, {high:g})", lambda value: low <= value < high)


def each_at_least(low: int) -> Rule:
    """A list of whole numbers of `low` or more, at least one of them."""
    text = f"hold at least one number, each {low} or more"
    return Rule(text, lambda values: bool(values) and all(value >= low for value in values))


def not_empty() -> Rule:
    """A text or a list with something in it."""
    return Rule("not be empty", lambda value: bool(value.strip() if isinstance(value, str) else value))


def increasing_times() -> Rule:
    """Times above zero that increase."""
    return Rule(
        "be times above 0 that increase",
        lambda times: all(0 < time for time in times) and all(a < b for a, b in zip(times, times[1:], strict=False)),
    )


def plain_name() -> Rule:
    """A name that can be a file name everywhere."""
    return Rule(
        "start with a letter or a digit and hold only letters, digits, '_', '-' and '.' (it names files)",
        lambda name: (
            0 < len(name) <= 64
            and name.isascii()
            and name[0].isalnum()
            and all(letter.isalnum() or letter in "_-." for letter in name)
            and not name.endswith(".")
        ),
    )
