"""Reads the [[model]] sections of a study file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from survlens.study.binding import Origin, bind, section
from survlens.study.covariate_names import clinical_columns
from survlens.study.model_settings import KINDS, DownstreamModel, Kind, Modality, ModelEntry
from survlens.study.network_settings import FitPlan, LossKind
from survlens.study.rules import shown
from survlens.study.settings import DataSettings
from survlens.study.toml_lines import Key
from survlens.study.tune_section import read_tune

_COX_NETWORKS = ("deep_surv", "cox_cnn")
CLINICAL_COX = "clinical_cox"
KAPLAN_MEIER = "kaplan_meier"


def read_models(rows: object, seed: int, origin: Origin) -> tuple[ModelEntry, ...]:
    """The models of a study, in the order of the file.

    Args:
        rows: What the file says under `model`.
        seed: Seed of models that name none.
        origin: Where the values came from.

    Raises:
        UsageError: If a model is wrong, or refers to one that does not stand before it.
    """
    if not isinstance(rows, list):
        raise origin.error(("model",), "be a list of sections", "one table", "Write [[model]] in double brackets.")
    entries: list[ModelEntry] = []
    for at, row in enumerate(rows):
        entry = _model(section(row, ("model", at), origin), ("model", at), seed, origin)
        if entry.name in [other.name for other in entries]:
            raise origin.error(("model", at, "name"), "be unique", shown(entry.name), "Name this model otherwise.")
        entries.append(entry)
    for at, entry in enumerate(entries):
        _check_links(entry, entries[:at], at, origin)
    return tuple(entries)


def _model(row: Mapping[str, object], key: Key, seed: int, origin: Origin) -> ModelEntry:
    kind_name = row.get("kind")
    if not isinstance(kind_name, str):
        got = "nothing" if kind_name is None else shown(kind_name)
        raise origin.error((*key, "kind"), "be given as a text", got, f"Known: {', '.join(KINDS)}.")
    if kind_name not in KINDS:
        raise origin.unknown((*key, "kind", kind_name), KINDS, "kind of model")
    kind = KINDS[kind_name]
    own = {each.name for each in fields(kind.settings)}
    sections = ({"fit"} if kind.trained else set()) | ({"tune"} if kind.allowed else set())
    shared = {"name", "kind", "inputs", "label", "seeds"} | sections
    shared |= {"columns"} if Modality.TABLE in kind.allowed else set()
    for name in row:
        if name not in own | shared:
            raise origin.unknown((*key, name), own | shared, f"setting of {kind_name}")
    said = {name: row[name] for name in row if name in own}
    settings = bind(kind.settings, said, key, origin)
    of_fit = section(row.get("fit", {}), (*key, "fit"), origin)
    fit = bind(FitPlan, of_fit, (*key, "fit"), origin)
    given: dict[str, object] = {"settings": settings, "fit": fit, "tune": None}
    if "tune" in row:
        table = section(row["tune"], (*key, "tune"), origin)
        given["tune"] = read_tune(table, kind, said, of_fit, (*key, "tune"), origin)
    if "inputs" not in row:
        given["inputs"] = kind.inputs
    if "seeds" not in row:
        given["seeds"] = (seed,)
    if "label" not in row:
        given["label"] = kind.label if row.get("name") == kind_name else f"{kind.label} ({row.get('name')})"
    rest = {name: row[name] for name in row if name in shared - sections}
    entry = bind(ModelEntry, rest, key, origin, given)
    _check_inputs(entry, kind, key, origin)
    for each in entry.variants():
        _check_fit(each, key, origin)
    return entry


def _check_inputs(entry: ModelEntry, kind: Kind, key: Key, origin: Origin) -> None:
    wrong = [each for each in entry.inputs if each not in kind.allowed]
    if wrong or len(set(entry.inputs)) != len(entry.inputs) or (kind.allowed and not entry.inputs):
        allowed = ", ".join(shown(each.value) for each in kind.allowed) or "nothing of its own"
        got = shown([each.value for each in entry.inputs])
        raise origin.error((*key, "inputs"), f"name each once, among {allowed}, for {entry.kind}", got)


def _check_fit(entry: ModelEntry, key: Key, origin: Origin) -> None:
    """Only Cox networks have martingales, and only what came from a file is worth keeping as it is."""
    if entry.fit.loss is LossKind.MARTINGALE and entry.kind not in _COX_NETWORKS:
        rule = f'be "batch" for {entry.kind}; "martingale" is for {" and ".join(_COX_NETWORKS)}'
        raise origin.error((*key, "fit", "loss"), rule, shown(entry.fit.loss.value))
    if entry.fit.frozen and getattr(entry.settings, "weights", None) is None:
        rule, advice = "stand beside `weights`", "Frozen, weights at random stay as they are. Name a file of weights."
        raise origin.error((*key, "fit", "frozen"), rule, shown(entry.fit.frozen), advice)


def _check_links(entry: ModelEntry, before: Sequence[ModelEntry], at: int, origin: Origin) -> None:
    """Members and embeddings must be models that stand before; the clinical Cox row always does."""
    known = {each.name: each for each in before}
    if isinstance(entry.settings, DownstreamModel):
        networks = [name for name, each in known.items() if KINDS[each.kind].trained]
        if entry.settings.embedding not in networks:
            raise origin.unknown(
                ("model", at, "embedding", entry.settings.embedding), networks, "network that stands before this model"
            )
        return
    members = [*known, CLINICAL_COX]
    for name in entry.needs:
        if name not in members:
            raise origin.unknown(("model", at, "members", name), members, "model that stands before this one")
        if name in known and not known[name].predicts:
            rule = "name models that predict survival"
            raise origin.error(("model", at, "members"), rule, f"{shown(name)}, a plain autoencoder (tau = 1)")


def with_references(models: tuple[ModelEntry, ...], data: DataSettings, seed: int) -> tuple[ModelEntry, ...]:
    """The two rows that every comparison has, before the models of the study."""
    kinds = {entry.kind for entry in models}
    names = {entry.name for entry in models}
    references: list[ModelEntry] = []
    wanted = [(KAPLAN_MEIER, "kaplan_meier", "Kaplan-Meier (no covariates)")]
    clinical = clinical_columns(data)
    if clinical:
        wanted.append((CLINICAL_COX, "cox", "Clinical Cox"))
    for name, kind, label in wanted:
        if name in names or (kind == "kaplan_meier" and kind in kinds):
            continue
        columns = clinical if name == CLINICAL_COX and len(clinical) < len(data.covariates) else None
        entry = ModelEntry(
            name=name, kind=kind, settings=KINDS[kind].settings(), inputs=KINDS[kind].inputs, label=label,
            seeds=(seed,), columns=columns,
        )  # fmt: skip
        references.append(entry)
    return (*references, *models)
