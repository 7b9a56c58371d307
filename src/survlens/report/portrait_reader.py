"""Reads what a study wrote of portraits: `portraits/portraits.json`, and pictures in `portraits/edits.npz`."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from survlens.core.errors import CorruptFileError
from survlens.core.score import Score
from survlens.report.json_node import JsonNode
from survlens.report.metrics_reader import read_score
from survlens.report.portrait_records import DirectionTrust, EditRow, PortraitEdit, Portraits, PortraitSubgroup

FOLDER, RECORD, PICTURES = "portraits", "portraits.json", "edits.npz"
_REMEDY = "Run `survlens portrait edit` again."


def read_portraits(run_folder: Path) -> Portraits | None:
    """What a run folder holds of portraits; None where it holds nothing.

    Raises:
        CorruptFileError: If a file cannot be read, or lacks a key that it must have.
    """
    home = run_folder / FOLDER
    if not (home / RECORD).is_file():
        return None
    top = JsonNode.read(home / RECORD, remedy=_REMEDY)
    pictures = _pictures(home / PICTURES)
    embedding = top.get("embedding")
    known = {} if embedding is None else {key: node.value for key, node in embedding.items()}
    readers = top.get("readers")
    return Portraits(
        embedding={key: value for key, value in known.items() if isinstance(value, str | float | int)},
        agreement=np.array(top.numbers("agreement"), dtype=np.float64),
        space=top.text("space", "w"),
        fitted_on=tuple(str(node.value) for node in top.each("fitted_on")),
        transductive=top.flag("transductive"),
        steps=top.numbers("steps"),
        unit=top.text("unit", ""),
        edits=tuple(
            _edit(node, number, pictures, top.text("unit", "")) for number, node in enumerate(top.each("edits"))
        ),
        scores={node.text("model"): read_score(node.need("score")) for node in top.each("scores")},
        subgroups=tuple(_subgroup(node) for node in top.each("subgroups")),
        remarks=tuple(str(node.value) for node in top.each("remarks")),
        readers={} if readers is None else {key: str(node.value) for key, node in readers.items()},
    )


def _edit(node: JsonNode, number: int, pictures: dict[str, np.ndarray], unit: str) -> PortraitEdit:
    shown = pictures.get(f"edit{number}")
    photographs = pictures.get("photographs")
    rows: list[EditRow] = []
    for k, strip in enumerate(() if shown is None else shown):
        first = None if photographs is None or k >= len(photographs) else photographs[k] / 255
        rows.append(EditRow(f"person {k + 1}", strip / 255, first))
    ratio, trust = node.get("age_over_health"), node.get("agreement")
    return PortraitEdit(
        node.text("name"),
        node.flag("control"),
        node.text("remark", ""),
        _scores(node.get("scores")),
        tuple(rows),
        node.text("unit", unit),
        _scores(node.get("slopes")),
        None if ratio is None else read_score(ratio),
        node.number("control_p"),
        node.number("capped"),
        None if trust is None else _trust(trust),
    )


def _scores(node: JsonNode | None) -> dict[str, Score]:
    return {} if node is None else {key: read_score(each) for key, each in node.items()}


def _trust(node: JsonNode) -> DirectionTrust:
    expected = node.number("expected")
    return DirectionTrust(
        read_score(node.need("bootstrap")),
        read_score(node.need("halves")),
        math.nan if expected is None else expected,
        node.flag("reliable"),
    )


def _subgroup(node: JsonNode) -> PortraitSubgroup:
    return PortraitSubgroup(
        node.text("column"), node.text("level"), node.count("n"), node.count("n_events"), read_score(node.need("score"))
    )


def _pictures(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: np.asarray(content[name]) for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptFileError(f"`{path.name}` must hold pictures; got an error: {error}. {_REMEDY}") from error
