"""Reads which settings were chosen in each split of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from survlens.report.json_node import JsonNode
from survlens.report.records import Choice


def read_choices(run_folder: Path, labels: Mapping[str, str]) -> tuple[Choice, ...]:
    """The choices of every model that was tuned, split by split; none where nothing was tuned.

    Args:
        run_folder: Folder of the run.
        labels: Name and label of every model, in the order of the study.

    Raises:
        CorruptFileError: If a file is not json, or lacks a key that it must have.
    """
    found: list[Choice] = []
    for path in (run_folder / "models").glob("*/fold*/chosen.json"):
        model = path.parent.parent.name
        if model in labels:
            found.append(_choice(JsonNode.read(path, remedy="Run the study again."), labels[model]))
    order = list(labels.values())
    return tuple(sorted(found, key=lambda choice: (order.index(choice.label), choice.fold)))


def _choice(node: JsonNode, label: str) -> Choice:
    chosen = node.need("chosen")
    settings = ", ".join(f"{name} = {json.dumps(value.value, ensure_ascii=False)}" for name, value in chosen.items())
    return Choice(
        label,
        node.count("fold"),
        settings,
        node.text("score"),
        node.number("value"),
        node.count("candidates"),
        node.count("inner_folds"),
    )
