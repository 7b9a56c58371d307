"""Writes what a report shows of portraits: `portraits/portraits.json` and pictures of a few people in `edits.npz`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from survlens.artifacts.atomic import write_atomically
from survlens.artifacts.run_folder import write_json
from survlens.core.score import Score
from survlens.report.portrait_reader import FOLDER, PICTURES, RECORD
from survlens.study.portrait_comparison import EditComparison
from survlens.study.portrait_edits import AGE, JudgedEdit

UNIT, AGE_UNIT = "standard deviations of predicted risk", "standard deviations of predicted age"


@dataclass(frozen=True, slots=True, eq=False)
class PortraitFacts:
    """Everything but the edits.

    Attributes:
        embedding: Summary of the embedding.
        agreement: Restart agreement of each photograph.
        space: Latent space.
        fitted_on: Sentences: on whom what was fitted.
        transductive: Whether something was fitted on patients who are scored.
        scores: Concordance of each model.
        subgroups: Rows of column, level, n, n_events and score.
        remarks: Further sentences.
        readers: By what each value is read from edited pictures, and in which unit, by the name of the reader.
    """

    embedding: Mapping[str, str | float]
    agreement: Sequence[float]
    space: str
    fitted_on: Sequence[str]
    transductive: bool
    scores: Mapping[str, Score] = field(default_factory=dict)
    subgroups: Sequence[tuple[str, str, int, int, Score]] = ()
    remarks: Sequence[str] = ()
    readers: Mapping[str, str] = field(default_factory=dict)


def write_record(
    run_folder: Path,
    facts: PortraitFacts,
    edits: Sequence[JudgedEdit],
    comparisons: Mapping[str, EditComparison],
    photographs: Tensor,
    *,
    shown: int = 4,
) -> Path:
    """Writes the record, and the pictures of the first `shown` people along every direction that is no control.

    Args:
        run_folder: Folder of a run, or any folder.
        facts: Everything but the edits.
        edits: Judged edits of the same people.
        comparisons: Each of them beside the others, by its name.
        photographs: The photographs of these people.
        shown: People whose pictures are kept; 0 for none.
    """
    home = run_folder / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    records = [_edit(edit, comparisons[edit.name]) for edit in edits]
    write_json(
        home / RECORD,
        {
            "embedding": dict(facts.embedding),
            "agreement": list(facts.agreement),
            "space": facts.space,
            "fitted_on": list(facts.fitted_on),
            "transductive": facts.transductive,
            "steps": edits[0].latents.asked.tolist() if edits else [],
            "unit": UNIT,
            "readers": dict(facts.readers),
            "edits": records,
            "scores": [{"model": name, "score": score.to_json()} for name, score in facts.scores.items()],
            "subgroups": [
                {"column": column, "level": level, "n": n, "n_events": events, "score": score.to_json()}
                for column, level, n, events, score in facts.subgroups
            ],
            "remarks": list(facts.remarks),
        },
    )
    kept = {f"edit{k}": _bytes(edit.pictures[:shown]) for k, edit in enumerate(edits) if shown and not edit.control}
    if kept:
        kept["photographs"] = _bytes(photographs[:shown])
    write_atomically(home / PICTURES, lambda draft: _save(draft, kept))
    return home / RECORD


def _edit(edit: JudgedEdit, beside: EditComparison) -> dict[str, object]:
    controls, agreement = beside.controls, beside.agreement
    return {
        "name": edit.name,
        "control": edit.control,
        "remark": beside.remark,
        "unit": AGE_UNIT if edit.name == AGE else UNIT,
        "scores": {name: score.to_json() for name, score in edit.scores().items()},
        "slopes": {name: each.slope.to_json() for name, each in edit.readings.items()},
        "age_over_health": None if beside.age_over_health is None else beside.age_over_health.to_json(),
        "control_p": None if controls is None else controls.p_value,
        "capped": float(edit.latents.capped.mean()),
        "agreement": None if agreement is None else {
            "bootstrap": agreement.bootstrap.to_json(),
            "halves": agreement.halves.to_json(),
            "expected": agreement.expected,
            "reliable": agreement.reliable,
        },
    }  # fmt: skip


def _bytes(pictures: Tensor) -> np.ndarray:
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _save(draft: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with draft.open("wb") as file:
        np.savez_compressed(file, **dict(arrays))  # pyright: ignore[reportArgumentType]
