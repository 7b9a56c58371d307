"""Reads the [model.tune] section of a study file, and writes it back."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from survlens.study.binding import Origin, bind, section
from survlens.study.model_settings import Kind
from survlens.study.network_settings import FitPlan
from survlens.study.rules import shown
from survlens.study.toml_lines import Key
from survlens.study.tune_settings import Candidate, TunePlan, TuneRules, TuneScore

FIT = "fit."
"""Start of the names of settings of [model.fit] in a search space."""


def read_tune(
    table: Mapping[str, object],
    kind: Kind,
    own: Mapping[str, object],
    fit: Mapping[str, object],
    key: Key,
    origin: Origin,
) -> TunePlan:
    """The search space of a model, every combination built and checked.

    Args:
        table: What the file says under `tune`.
        kind: Kind of the model.
        own: What the file says of the model's own settings.
        fit: What the file says under `fit`.
        key: Path of the section.
        origin: Where the values came from.

    Raises:
        UsageError: If a setting is unknown, a value is out of range, or there are too many combinations.
    """
    about_rules = {each.name for each in fields(TuneRules)}
    rules = bind(TuneRules, {name: said for name, said in table.items() if name in about_rules}, key, origin)
    if rules.score is TuneScore.LOSS and not kind.trained:
        raise origin.error((*key, "score"), f'be "{TuneScore.CONCORDANCE.value}"', '"loss", which is for networks')
    space = _space({name: said for name, said in table.items() if name not in about_rules}, kind, key, origin)
    count = math.prod(map(len, space.values()))
    if count > rules.max_candidates:
        product = " x ".join(str(len(values)) for values in space.values())
        raise origin.error(
            key,
            f"describe at most {rules.max_candidates} candidates",
            f"{product} = {count}",
            "Try fewer values, or set max_candidates.",
        )
    candidates = [
        _candidate(dict(zip(space, values, strict=True)), kind, own, fit, key, origin)
        for values in itertools.product(*space.values())
    ]
    return TunePlan(rules, space, tuple(candidates))


def written(plan: TunePlan, rules: Mapping[str, Any]) -> dict[str, Any]:
    """The section as a study file holds it; `rules` are its rules as plain values."""
    said: dict[str, Any] = dict(rules)
    for name, values in plan.space.items():
        home, name = (said.setdefault("fit", {}), name.removeprefix(FIT)) if name.startswith(FIT) else (said, name)
        home[name] = list(values)
    return said


def _space(table: Mapping[str, object], kind: Kind, key: Key, origin: Origin) -> dict[str, tuple[Any, ...]]:
    known = {each.name for each in fields(kind.settings)}
    named = {name: said for name, said in table.items() if name != "fit"}
    for name in named:
        if name not in known:
            raise origin.unknown((*key, name), known | {each.name for each in fields(TuneRules)}, "setting to tune")
    if "fit" in table:
        of_fit = section(table["fit"], (*key, "fit"), origin)
        settable = {each.name for each in fields(FitPlan)} if kind.trained else set()
        for name in of_fit:
            if name not in settable:
                raise origin.unknown((*key, "fit", name), settable or known, "setting to tune")
        named |= {f"{FIT}{name}": said for name, said in of_fit.items()}
    if not named:
        raise origin.error(key, "name a setting and the values to try", "none", "Write for example dropout = [0, 0.3].")
    for name, values in named.items():
        if not isinstance(values, list) or not values:
            raise origin.error((*key, *name.split(".")), "be a list of values to try", shown(values), "Use brackets.")
        if len({json.dumps(value) for value in values}) < len(values):
            raise origin.error((*key, *name.split(".")), "list each value once", shown(values))
    return {name: tuple(values) for name, values in named.items()}  # type: ignore[arg-type]


def _candidate(
    values: Mapping[str, Any],
    kind: Kind,
    own: Mapping[str, object],
    fit: Mapping[str, object],
    key: Key,
    origin: Origin,
) -> Candidate:
    of_fit = {name.removeprefix(FIT): value for name, value in values.items() if name.startswith(FIT)}
    of_kind = {name: value for name, value in values.items() if not name.startswith(FIT)}
    settings = bind(kind.settings, {**own, **of_kind}, key, origin)
    return Candidate(values, settings, bind(FitPlan, {**fit, **of_fit}, (*key, "fit"), origin))
