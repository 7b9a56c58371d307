"""Reads a study file and the overrides of the command line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from survlens.core.errors import UsageError
from survlens.data.table import read_table
from survlens.study.agreement import check_agreement
from survlens.study.binding import Origin, bind, section
from survlens.study.covariate_names import expanded, has_patterns, image_columns
from survlens.study.model_section import read_models, with_references
from survlens.study.overrides import apply_overrides, model_names
from survlens.study.portrait_columns import coordinates_beside
from survlens.study.rules import shown
from survlens.study.settings import (
    DataSettings,
    EvaluationSettings,
    ReportSettings,
    SplitSettings,
    StudyInfo,
    StudyPaths,
    StudySettings,
)
from survlens.study.toml_lines import Key, key_lines

SECTIONS: Mapping[str, type] = {
    "study": StudyInfo,
    "data": DataSettings,
    "split": SplitSettings,
    "evaluation": EvaluationSettings,
    "report": ReportSettings,
}
_LARGEST_FILE = 1 << 20


def read_study(path: Path, overrides: Sequence[str] = ()) -> StudySettings:
    """Reads a study file.

    Args:
        path: The TOML file.
        overrides: Texts like "model.coxvae.tau=0.3"; the part after "=" is TOML.

    Raises:
        UsageError: If the file is missing, is no TOML, or says something unknown, missing, mistyped or out of range.
    """
    text = read_text(path)
    return parse_study(text, path.name, path.resolve().parent, overrides)


def read_text(path: Path) -> str:
    """The text of a study file."""
    if not path.is_file():
        raise UsageError(f"`STUDY` must be a study file; got {path}, which is not a file. Write one: survlens init.")
    if path.stat().st_size > _LARGEST_FILE:
        raise UsageError(f"`STUDY` must be a study file of at most 1 MB; got {path}, {path.stat().st_size} bytes.")
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"`STUDY` must be UTF-8 text; got {path} with byte {error.start} that is not. Save it as UTF-8."
        ) from None


def parse_study(text: str, file: str, folder: Path, overrides: Sequence[str] = ()) -> StudySettings:
    """Builds the settings that `text` says.

    Args:
        text: TOML.
        file: Name of the file, for messages.
        folder: Folder that `data.root` starts from.
        overrides: As in `read_study`.

    Raises:
        UsageError: As in `read_study`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: must be valid TOML; got: {error}. See https://toml.io.") from None
    lines = key_lines(text)
    set_here = apply_overrides(document, overrides)
    origin = Origin(file, lines, set_here, model_names(document))
    settings = build_study(document, origin, lambda data: _header(data, folder, origin))
    placed = _at(settings, folder, origin, model_names(document))
    _check_embedding(placed, origin)
    return placed


def _check_embedding(settings: StudySettings, origin: Origin) -> None:
    """Latent vectors of photographs that `survlens portrait embed` wrote must not pass for clinical columns."""
    if settings.paths is None:
        return
    known = set(image_columns(settings.data))
    hidden = [name for name in coordinates_beside(settings.paths.table, settings.data.covariates) if name not in known]
    if hidden:
        space = hidden[0].rstrip("0123456789")
        raise origin.error(
            ("data", "image_embedding"),
            "name the latent coordinates of photographs, which stand for the image",
            f"{len(hidden)} of them among the covariates that it does not name",
            f'Add image_embedding = ["{space}[1-9]*"] to [data].',
        )


def build_study(
    document: Mapping[str, object], origin: Origin, header: Callable[[DataSettings], Sequence[str]] | None = None
) -> StudySettings:
    """Builds settings from a parsed document.

    Args:
        document: What the file says.
        origin: Where the values came from.
        header: Gives the columns of the table, asked where covariates are patterns of names; None if there is no table.

    Raises:
        UsageError: As in `read_study`.
    """
    for name in document:
        if name not in (*SECTIONS, "model"):
            raise origin.unknown((name,), [*SECTIONS, "model"], "section")
    sections: dict[str, Any] = {}
    for name, cls in SECTIONS.items():
        sections[name] = bind(cls, section(document.get(name, {}), (name,), origin), (name,), origin)
    if header is not None and has_patterns(sections["data"]):
        sections["data"] = expanded(sections["data"], header(sections["data"]), origin)
    models = read_models(document.get("model", []), sections["study"].seed, origin)
    check_agreement(sections, models, origin)
    return StudySettings(**sections, models=with_references(models, sections["data"], sections["study"].seed))


def with_files(settings: StudySettings, folder: Path) -> StudySettings:
    """Settings that were read back from a run folder, with the data that lie where its study file lay.

    Args:
        settings: What `from_resolved` gave.
        folder: Folder of the study file.

    Raises:
        UsageError: If the data are not there.
    """
    names = {("model", at): entry.name for at, entry in enumerate(settings.models)}
    return _at(settings, folder.resolve(), Origin("resolved.json", names=names), names)


def _at(settings: StudySettings, folder: Path, origin: Origin, names: Mapping[Key, str]) -> StudySettings:
    """Settings that know their data, and the files of weights among them."""
    paths = _resolved_paths(settings.data, settings.split, folder, origin)
    places = {name: key for key, name in names.items()}
    for entry in settings.models:
        for each in entry.variants():
            if (weights := getattr(each.settings, "weights", None)) is not None:
                _inside(paths.root, weights, (*places[entry.name], "weights"), origin)
    return replace(settings, paths=paths, models=tuple(replace(each, root=paths.root) for each in settings.models))


def _header(data: DataSettings, folder: Path, origin: Origin) -> list[str]:
    table = _inside(_root(data, folder, origin), data.table, ("data", "table"), origin)
    return [str(name) for name in read_table(table).columns]


def _root(data: DataSettings, folder: Path, origin: Origin) -> Path:
    root = (folder / Path(data.root).expanduser()).resolve()
    if not root.is_dir():
        raise origin.error(("data", "root"), "be a folder", f"{shown(data.root)}, which is not there")
    return root


def _resolved_paths(data: DataSettings, split: SplitSettings, folder: Path, origin: Origin) -> StudyPaths:
    root = _root(data, folder, origin)
    external = None if split.table is None else _inside(root, split.table, ("split", "table"), origin)
    return StudyPaths(root=root, table=_inside(root, data.table, ("data", "table"), origin), external=external)


def _inside(root: Path, name: str, key: Key, origin: Origin) -> Path:
    """`name` as a file below `root`, links followed."""
    advice = "Move the file below the data root, or set data.root."
    if Path(name).is_absolute() or re.match(r"[A-Za-z]:|\\\\|~", name):
        raise origin.error(key, "be relative to the data root", shown(name), advice)
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise origin.error(key, "stay inside the data root", f"{shown(name)}, which leaves it", advice)
    if not path.is_file():
        raise origin.error(key, "be a file", f"{shown(name)}, which is not in the data root")
    return path
