"""Reads metrics.json."""

from __future__ import annotations

import math
from pathlib import Path

from survlens.core.score import Category, Direction, Interval, Score
from survlens.report.json_node import JsonNode
from survlens.report.records import (
    BrierCurve,
    Calibration,
    CalibrationGroup,
    Difference,
    Metrics,
    ModelResult,
    RiskGroup,
    RiskGroups,
    SeedSpread,
    StudyFacts,
    Subgroup,
)


def read_metrics(path: Path) -> Metrics:
    """Reads the scores and curves of a run.

    Args:
        path: `metrics.json` of a run folder.

    Raises:
        DataError: If the file is missing.
        CorruptFileError: If it is not json, or lacks a key that it must have.
    """
    top = JsonNode.read(path, remedy="Run `survlens evaluate` on this folder.")
    study, _ = top.need("study"), top.need("models")
    oracle = top.get("oracle")
    return Metrics(
        study=StudyFacts(
            name=study.text("name"),
            description=study.text("description", ""),
            seed=study.text("seed", ""),
            simulated=study.flag("simulated"),
            data_note=study.text("data_note", ""),
        ),
        unit=top.text("unit"),
        horizons=top.numbers("horizons"),
        scored_on=top.text("scored_on", "test patients"),
        n_patients=top.count("n_patients"),
        n_events=top.count("n_events"),
        primary=_name(top, "primary"),
        clinical=_name(top, "clinical"),
        reference=_name(top, "reference"),
        oracle=None if oracle is None else read_score(oracle),
        models=tuple(_model(node) for node in top.each("models")),
        differences=tuple(_difference(node) for node in top.each("differences")),
    )


def _name(node: JsonNode, key: str) -> str | None:
    found = node.get(key)
    return None if found is None else str(found.value)


def read_score(node: JsonNode) -> Score:
    """A score as `Score.to_json` wrote it."""
    value, lower, upper = (node.number(key) for key in ("value", "lower", "upper"))
    interval = None
    if lower is not None and upper is not None:
        if lower > upper:
            raise node.fail("have `lower` <= `upper`", f"{lower} and {upper}")
        interval = Interval(lower, upper, node.number("confidence") or 0.95, node.text("interval_method", ""))
    directions = {direction.name.lower(): direction for direction in Direction}
    categories = {category.value: category for category in Category}
    settings = node.get("settings")
    return Score(
        name=node.text("name"),
        value=math.nan if value is None else value,
        interval=interval,
        direction=directions.get(node.text("direction", ""), Direction.HIGHER),
        category=categories.get(node.text("category", ""), Category.DISCRIMINATION),
        settings={} if settings is None else {k: v.value for k, v in settings.items() if _is_plain(v.value)},  # type: ignore[misc]
    )


def _is_plain(value: object) -> bool:
    return isinstance(value, float | int | str)


def _model(node: JsonNode) -> ModelResult:
    curve = node.get("brier_curve")
    groups = node.get("risk_groups")
    return ModelResult(
        name=node.text("name"),
        label=node.text("label", node.text("name")),
        inputs=tuple(str(member.value) for member in node.each("inputs")),
        family=node.text("family", ""),
        note=node.text("note", ""),
        scores=tuple(read_score(member) for member in node.each("scores")),
        seed_spread=_seed_spread(node.get("seed_spread")),
        brier_curve=None if curve is None else _brier(curve),
        calibration=tuple(_calibration(member) for member in node.each("calibration")),
        risk_groups=None if groups is None else _risk_groups(groups),
        subgroups=tuple(_subgroup(member) for member in node.each("subgroups")),
    )


def _seed_spread(node: JsonNode | None) -> dict[str, SeedSpread]:
    spreads: dict[str, SeedSpread] = {}
    for key, member in [] if node is None else node.items():
        mean, sd = (None, None) if member.value is None else (member.number("mean"), member.number("sd"))
        if mean is not None and sd is not None:
            spreads[key] = SeedSpread(mean, sd, member.count("n"))
    return spreads


def _brier(node: JsonNode) -> BrierCurve:
    curve = BrierCurve(*(node.numbers(key) for key in ("times", "brier", "null", "ipa")))
    _same_length(node, {"times": curve.times, "brier": curve.brier, "null": curve.null, "ipa": curve.ipa})
    return curve


def _same_length(node: JsonNode, columns: dict[str, tuple[float, ...]]) -> None:
    sizes = {key: len(values) for key, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise node.fail("hold lists of one length", str(sizes))


def _calibration(node: JsonNode) -> Calibration:
    horizon = node.number("horizon")
    if horizon is None:
        raise node.fail("name its horizon", "none")
    curve = node.get("curve")
    predicted, observed = ((), ()) if curve is None else (curve.numbers("predicted"), curve.numbers("observed"))
    if curve is not None:
        _same_length(curve, {"predicted": predicted, "observed": observed})
    return Calibration(
        horizon,
        *(node.number(key) for key in ("observed_expected", "slope", "ici", "e50", "e90")),
        groups=tuple(_calibration_group(member) for member in node.each("groups")),
        curve_predicted=predicted,
        curve_observed=observed,
    )


def _calibration_group(node: JsonNode) -> CalibrationGroup:
    values = [node.number(key) for key in ("predicted", "observed", "lower", "upper")]
    return CalibrationGroup(*(math.nan if value is None else value for value in values), n=node.count("n"))


def _risk_groups(node: JsonNode) -> RiskGroups:
    groups = tuple(_risk_group(member) for member in node.each("groups"))
    at_risk, logrank = node.get("at_risk"), node.get("logrank")
    times = () if at_risk is None else at_risk.numbers("times")
    rows = [] if at_risk is None else at_risk.each("counts")
    counts = tuple(_counts(row) for row in rows)
    if at_risk is not None and (len(counts) != len(groups) or any(len(row) != len(times) for row in counts)):
        raise at_risk.fail(
            f"hold one row per group and one count per time ({len(groups)} by {len(times)})",
            f"rows of {[len(row) for row in counts]}",
        )
    test = (None, None, None) if logrank is None else tuple(logrank.number(key) for key in ("chi2", "df", "p"))
    return RiskGroups(groups, times, counts, *test)


def _counts(row: JsonNode) -> tuple[int, ...]:
    if not isinstance(row.value, list):
        raise row.fail("be a list of counts", type(row.value).__name__)
    return tuple(int(value) for value in row.value)


def _risk_group(node: JsonNode) -> RiskGroup:
    columns = {key: node.numbers(key) for key in ("times", "survival", "lower", "upper")}
    _same_length(node, columns)
    return RiskGroup(node.text("label"), node.count("n"), node.count("n_events"), **columns)


def _subgroup(node: JsonNode) -> Subgroup:
    score = read_score(node.need("score"))
    return Subgroup(node.text("variable"), node.text("level"), node.count("n"), node.count("n_events"), score)


def _difference(node: JsonNode) -> Difference:
    value = node.number("difference")
    return Difference(
        node.text("score"),
        node.text("model"),
        node.text("reference"),
        math.nan if value is None else value,
        node.number("lower"),
        node.number("upper"),
    )
