"""Settings as plain values, and back: resolved.json is a study file with nothing left unsaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from survlens.artifacts.run_folder import plain
from survlens.core.errors import CorruptFileError, UsageError
from survlens.study.binding import Origin
from survlens.study.model_settings import KINDS, ModelEntry
from survlens.study.overrides import apply_overrides, model_names
from survlens.study.settings import StudySettings
from survlens.study.toml_source import SECTIONS, build_study
from survlens.study.tune_section import written

LATER = ("evaluation", "report")
"""Sections that no fit depends on: they may change after it."""


def changed_later(document: dict[str, Any], overrides: Sequence[str]) -> StudySettings:
    """The settings of a run with other values in the sections that no fit depends on.

    Args:
        document: What `resolved` gave; changed in place.
        overrides: Texts like "evaluation.bootstrap=1000".

    Raises:
        UsageError: If an override is wrong, or belongs to a section that fits depend on.
        CorruptFileError: If `document` holds no settings.
    """
    from_resolved(document)
    for text in overrides:
        if text.partition(".")[0].strip() not in LATER:
            raise UsageError(
                f"`--set` must change [{'] or ['.join(LATER)}] once models are fitted; got {text!r}. "
                "Change what fits depend on with `survlens run`, into a new folder."
            )
    given = apply_overrides(document, overrides)
    return build_study(document, Origin("resolved.json", overrides=given, names=model_names(document)))


def resolved(settings: StudySettings) -> dict[str, Any]:
    """Every setting with its value, laid out as in a study file; settings that are None are left out.

    Paths stay as the study file wrote them, so no folder of this machine is in it.
    """
    sections = {name: _said(getattr(settings, name)) for name in SECTIONS}
    return {**sections, "model": [_model(entry) for entry in settings.models]}


def from_resolved(document: Mapping[str, Any]) -> StudySettings:
    """The settings that `resolved` gave; they know no data files.

    Raises:
        CorruptFileError: If `document` is no such thing.
    """
    if not isinstance(document, dict):
        raise CorruptFileError("resolved.json must hold settings; got something else. Run the study again.")
    try:
        return build_study(document, Origin("resolved.json", names=model_names(document)))
    except UsageError as error:
        raise CorruptFileError(
            f"resolved.json must hold the settings of a run; got a fault ({str(error).rstrip('.')}). "
            "Run the study again."
        ) from error


def _model(entry: ModelEntry) -> dict[str, Any]:
    named = {"name": entry.name, "kind": entry.kind, "label": entry.label, "seeds": list(entry.seeds)}
    named["inputs"] = [each.value for each in entry.inputs]
    if entry.columns is not None:
        named["columns"] = list(entry.columns)
    fit = {"fit": _said(entry.fit)} if KINDS[entry.kind].trained else {}
    tune = {} if entry.tune is None else {"tune": written(entry.tune, _said(entry.tune.rules))}
    return {**named, **_said(entry.settings), **fit, **tune}


def _said(settings: Any) -> dict[str, Any]:
    """Fields that are not None, of sections within the section too."""
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    said = {name: value for name, value in values.items() if value is not None}
    return {name: _said(value) if is_dataclass(value) else plain(value) for name, value in said.items()}
