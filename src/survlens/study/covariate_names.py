"""Covariates by name, or by a shell-style pattern of their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from survlens.study.binding import Origin
from survlens.study.settings import DataSettings


def matching(pattern: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that `pattern` stands for: the one that is written so, or else all that match it, in their order."""
    names = tuple(names)
    return (pattern,) if pattern in names else tuple(name for name in names if fnmatchcase(name, pattern))


def chosen(patterns: Iterable[str], names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that a pattern stands for, each once and in the order of `names`."""
    found = {name for pattern in patterns for name in matching(pattern, names)}
    return tuple(name for name in names if name in found)


def image_columns(data: DataSettings) -> tuple[str, ...]:
    """Covariates that stand for the image."""
    return chosen(data.image_embedding, data.covariates)


def clinical_columns(data: DataSettings) -> tuple[str, ...]:
    """Covariates that do not stand for the image."""
    embedded = set(image_columns(data))
    return tuple(name for name in data.covariates if name not in embedded)


def is_pattern(name: str) -> bool:
    """Whether a name may stand for others."""
    return "*" in name or "?" in name


def has_patterns(data: DataSettings) -> bool:
    """Whether a covariate of [data] may be a pattern."""
    return any(is_pattern(name) for name in (*data.numeric, *data.categorical))


def expanded(data: DataSettings, header: Sequence[str], origin: Origin) -> DataSettings:
    """Section [data] with the columns that its patterns of covariates stand for.

    A pattern stands for the columns that match it and have no part in [data] by their name.

    Args:
        data: Section [data].
        header: Columns of the table.
        origin: Where the settings came from.

    Raises:
        UsageError: If a pattern matches no column.
    """
    roles = (
        data.time,
        data.event,
        data.patient,
        data.image,
        data.scan,
        data.structure,
        data.mask,
        data.instance,
        data.entry,
        data.weight,
    )
    roles = (*roles, data.stratum, data.site, data.date, data.true_log_hazard, *data.keep, *data.ordered)
    plain = (name for name in (*data.numeric, *data.categorical) if name in header or not is_pattern(name))
    taken = {name for name in (*roles, *plain) if name is not None}
    found: dict[str, tuple[str, ...]] = {}
    for key in ("numeric", "categorical"):
        names: list[str] = []
        for said in getattr(data, key):
            if said in header or not is_pattern(said):
                names.append(said)
                continue
            free = matching(said, [name for name in header if name not in taken])
            if not free:
                raise origin.unknown(("data", key, said), header, "column of the table, or match free ones")
            names += free
            taken |= set(free)
        found[key] = tuple(names)
    return replace(data, numeric=found["numeric"], categorical=found["categorical"])
