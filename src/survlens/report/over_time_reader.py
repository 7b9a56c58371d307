"""Reads explanations over time from the folder of a model."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

import numpy as np

from survlens.artifacts.attribution_files import read_attributions
from survlens.artifacts.tensors import load_tensors
from survlens.core.attribution import Attribution
from survlens.core.errors import CorruptFileError
from survlens.core.score import Category, Direction
from survlens.report.json_node import JsonNode
from survlens.report.over_time_records import (
    Check,
    CheckCurve,
    Checks,
    ExplanationOverTime,
    GlobalRanking,
    RankedFeature,
)

_REMEDY = "Write it anew: survlens explain."
_CHOICE = TypeVar("_CHOICE", bound=Enum)


def read_over_time(folder: Path, label: str) -> tuple[tuple[ExplanationOverTime, ...], tuple[str, ...]]:
    """The finished explanations of a model, by name, and the names of those that were not finished.

    Args:
        folder: `explanations/NAME/over_time` of a run.
        label: Name of the model for people.

    Raises:
        CorruptFileError: If a file cannot be read, lacks a key that it must have, or does not fit the others.
    """
    if not folder.is_dir():
        return (), ()
    homes = sorted(home for home in folder.iterdir() if home.is_dir() and not home.name.startswith("."))
    finished = [home for home in homes if (home / "settings.json").is_file()]
    found = tuple(_explanation(home, folder.parent.name, label) for home in finished)
    return found, tuple(home.name for home in homes if home not in finished)


def _explanation(home: Path, model: str, label: str) -> ExplanationOverTime:
    top = JsonNode.read(home / "settings.json", remedy=_REMEDY)
    patients = [str(node.value) for node in top.each("patients")]
    chosen = tuple(_position(node, len(patients)) for node in top.each("chosen"))
    missing = []
    attributions: Mapping[str, Attribution] = {}
    if (home / "attributions.safetensors").is_file():
        attributions = read_attributions(home / "attributions.safetensors")
    else:
        missing.append("the attributions themselves")
    shown = {name: _shown(each, patients, chosen) for name, each in attributions.items()}
    pictures, rows = _pictures(home / "pictures.safetensors", len(chosen))
    if pictures is None and any("height" in each.dims for each in attributions.values()):
        missing.append("the pictures under the maps")
    ranking = _ranking(home / "global.json")
    checks = _checks(home / "checks.json")
    missing += ["the ranking over all patients"] if ranking is None else []
    missing += ["the checks of the explanation"] if checks is None else []
    return ExplanationOverTime(
        name=home.name,
        model=model,
        label=top.text("label", label),
        method=top.text("method_label", top.text("method", "attributions")),
        target=top.text("target"),
        unit=top.text("unit", ""),
        reference=top.text("reference", ""),
        rule=top.text("rule", ""),
        fold=top.whole("fold"),
        patients=len(patients),
        chosen=chosen,
        notes=tuple(str(node.value) for node in top.each("notes")),
        attributions=attributions,
        shown=shown,
        pictures=pictures,
        picture_rows=rows,
        ranking=ranking,
        checks=checks,
        missing=tuple(missing),
    )


def _position(node: JsonNode, count: int) -> int:
    value = node.as_number()
    if value is None or not 0 <= value < count:
        raise node.fail(f"be a position among {count} patients", str(value))
    return int(value)


def _shown(attribution: Attribution, patients: list[str], chosen: tuple[int, ...]) -> dict[int, int]:
    """Instance of each chosen patient: by position where all are kept, else by name."""
    if attribution.instances == len(patients):
        return {place: position for place, position in enumerate(chosen)}
    names = [str(name) for name in attribution.coords.get("instance", ())]
    found = {place: names.index(patients[at]) for place, at in enumerate(chosen) if patients[at] in names}
    if not found and attribution.instances == len(chosen):
        order = sorted(chosen)
        return {place: order.index(at) for place, at in enumerate(chosen)}
    return found


def _pictures(path: Path, chosen: int) -> tuple[np.ndarray | None, np.ndarray]:
    nothing = np.zeros(0, dtype=np.int64)
    if not path.is_file():
        return None, nothing
    tensors = load_tensors(path)
    image, row = tensors.get("image"), tensors.get("row")
    if image is None or row is None or image.ndim < 4 or row.shape != image.shape[:1]:
        raise CorruptFileError(
            f"`{path.name}` must hold `image` (item, channel, height, width) and `row` (item); "
            f"got {sorted(tensors)}. {_REMEDY}"
        )
    rows = row.numpy().astype(np.int64)
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < chosen:
        raise CorruptFileError(f"`row` in {path.name} must be positions among {chosen} chosen patients. {_REMEDY}")
    return image.double().numpy(), rows


def _ranking(path: Path) -> GlobalRanking | None:
    if not path.is_file():
        return None
    top = JsonNode.read(path, remedy=_REMEDY)
    columns = top.get("subgroups")
    subgroups = (
        {}
        if columns is None
        else {
            column: {value: tuple(_feature(each) for each in node.each(value)) for value, _ in node.items()}
            for column, node in columns.items()
        }
    )
    return GlobalRanking(tuple(_feature(node) for node in top.each("features")), subgroups)


def _feature(node: JsonNode) -> RankedFeature:
    importance = node.number("importance")
    return RankedFeature(
        node.text("modality", ""),
        node.text("feature"),
        float("nan") if importance is None else importance,
        *(node.number(key) for key in ("lower", "upper", "rank", "rank_lower", "rank_upper")),
    )


def _checks(path: Path) -> Checks | None:
    if not path.is_file():
        return None
    top = JsonNode.read(path, remedy=_REMEDY)
    curves = top.get("curves")
    found = {} if curves is None else {name: _curve(node) for name, node in curves.items()}
    return Checks(tuple(_check(node) for node in top.each("scores")), found, top.whole("patients"))


def _check(node: JsonNode) -> Check:
    name = node.text("name")
    return Check(
        name,
        node.text("label", name),
        node.number("value"),
        node.number("lower"),
        node.number("upper"),
        _one_of(node, "direction", {each.name.lower(): each for each in Direction}),
        _one_of(node, "category", {each.value: each for each in Category}),
        node.text("meaning", ""),
        node.number("standard"),
    )


def _one_of(node: JsonNode, key: str, choices: Mapping[str, _CHOICE]) -> _CHOICE:
    said = node.text(key)
    if said not in choices:
        raise node.need(key).fail(f"be one of {', '.join(choices)}", said)
    return choices[said]


def _curve(node: JsonNode) -> CheckCurve:
    share, value, lower, upper = (np.array(node.numbers(key)) for key in ("share", "value", "lower", "upper"))
    if value.shape != share.shape or any(len(each) not in (0, len(share)) for each in (lower, upper)):
        raise node.fail("have one value per share", f"{len(share)} shares and {len(value)} values")
    return CheckCurve(share, value, lower, upper)
