"""Are the predicted risks of the right size, and for whom: calibration, risk groups, subgroups."""

from __future__ import annotations

from survlens.report.blocks import Block, Column, Estimate, Paragraph, Plot, Section, Table, left_out, score_cell
from survlens.report.figures.calibration import calibration_figure
from survlens.report.figures.comparison import Panel, comparison_figure
from survlens.report.figures.groups import risk_group_figure
from survlens.report.records import Calibration, Metrics, ModelResult, RiskGroup, RunContent
from survlens.report.sections.performance import SCORE_NAMES, shown_models
from survlens.report.wording import (
    MISSING,
    calibration_text,
    compact,
    decimal,
    logrank_text,
    range_text,
    score_text,
    whole,
)


def calibration(content: RunContent) -> Section:
    """Predicted against observed risk."""
    metrics = content.metrics
    known = [model for model in metrics.models if model.calibration]
    if not known:
        return left_out("calibration", "Calibration", "no model was assessed for calibration")
    drawn = [model for model in shown_models(metrics) if model.calibration] or known[:1]
    rest = [model for model in known if model not in drawn]
    blocks: list[Block] = [
        Paragraph(
            "A calibrated model predicts risks of the right size: of patients given a risk of 30 %, "
            "30 % have the event."
        ),
        _calibration_table("Observed against predicted events", drawn, metrics.unit),
        _calibration_plot(drawn, metrics.unit),
    ]
    if rest:
        blocks.append(_calibration_table("Calibration of the other models", rest, metrics.unit, folded=True))
    return Section("calibration", "Calibration", tuple(blocks))


def _calibration_table(caption: str, models: list[ModelResult], unit: str, *, folded: bool = False) -> Table:
    heads = (
        Column("Model", numeric=False),
        Column(f"By ({unit})"),
        Column("Observed / expected"),
        Column("Slope"),
        Column("ICI"),
        Column("E50"),
        Column("E90"),
        Column("Reading", numeric=False),
    )
    rows = tuple(_calibration_row(model.label, member) for model in models for member in model.calibration)
    note = (
        "Slope: 1 is ideal, below 1 the risks are too extreme, above 1 too alike. "
        "ICI, E50, E90: mean, median and 90th percentile of the distance between predicted and observed risk."
    )
    return Table(caption, heads, rows, folded=folded, note="" if folded else note)


def _calibration_row(label: str, c: Calibration) -> tuple[str, ...]:
    distances = (decimal(value, 3) for value in (c.ici, c.e50, c.e90))
    ratios = (decimal(value, 2) for value in (c.observed_expected, c.slope))
    return (label, compact(c.horizon), *ratios, *distances, calibration_text(c.observed_expected, c.slope))


def _calibration_plot(models: list[ModelResult], unit: str) -> Plot:
    heads = (
        Column("Model", numeric=False),
        Column(f"By ({unit})"),
        Column("Patients"),
        Column("Predicted risk"),
        Column("Observed risk"),
    )
    rows = tuple(
        (
            model.label,
            compact(c.horizon),
            whole(group.n),
            decimal(group.predicted, 3),
            Estimate(decimal(group.observed, 3), range_text(group.lower, group.upper, 3)),
        )
        for model in models
        for c in model.calibration
        for group in c.groups
    )
    names = " and ".join(model.label for model in models)
    return Plot(
        "calibration",
        calibration_figure([(model.label, model.calibration) for model in models], unit=unit),
        "Observed against predicted risk. Markers: groups of patients with 95 % limits. Line: smooth curve. "
        "Dashed: perfect calibration.",
        f"Observed against predicted risk at each horizon for {names}; the diagonal is perfect calibration.",
        Table("Data of this figure", heads, rows),
        wide=True,
    )


def risk_groups(content: RunContent) -> Section:
    """Kaplan-Meier by predicted-risk group."""
    metrics = content.metrics
    drawn = [model for model in shown_models(metrics) if model.risk_groups is not None and model.risk_groups.groups]
    if not drawn:
        return left_out("risk-groups", "Risk groups", "no risk groups were formed")
    blocks: list[Block] = [
        Paragraph("Patients are grouped by predicted risk. The cut points were fixed on training patients.")
    ]
    for model in drawn:
        blocks += _group_blocks(model, metrics.unit)
    return Section("risk-groups", "Risk groups", tuple(blocks))


def _group_blocks(model: ModelResult, unit: str) -> list[Block]:
    found = model.risk_groups
    if found is None:
        return []
    test = logrank_text(found.chi2, found.df, found.p)
    heads = [Column(f"Time ({unit})")]
    for group in found.groups:
        heads += [Column(f"{group.label}: survival"), Column("At risk")]
    rows = []
    for position, time in enumerate(found.at_risk_times):
        row: list[str | Estimate] = [compact(time)]
        for group, counts in zip(found.groups, found.at_risk, strict=True):
            row += [_survival_at(group, time), whole(counts[position])]
        rows.append(tuple(row))
    ends = ", ".join(f"{group.label}: {group.n_events} of {group.n} with the event" for group in found.groups)
    plot = Plot(
        f"risk-groups-{model.name}",
        risk_group_figure(found, unit=unit),
        f"{model.label}: Kaplan-Meier survival by predicted risk, with 95 % limits. {test}",
        f"Survival curves over time in {unit} by risk group of {model.label}. {ends}. {test}",
        Table("Data of this figure", tuple(heads), tuple(rows)),
    )
    return [plot]


def _survival_at(group: RiskGroup, time: float) -> Estimate | str:
    passed = [position for position, known in enumerate(group.times) if known <= time]
    if not passed:
        return Estimate(decimal(1.0, 2))
    last = passed[-1]
    if last == len(group.times) - 1 and time > group.times[last]:
        return MISSING
    return Estimate(decimal(group.survival[last], 2), range_text(group.lower[last], group.upper[last], 2))


def subgroups(content: RunContent) -> Section:
    """Scores within levels of a covariate."""
    metrics = content.metrics
    model = next((m for m in [*shown_models(metrics), *metrics.models] if m.subgroups), None)
    if model is None:
        return left_out("subgroups", "Subgroups", "no subgroups were scored")
    note = Paragraph(
        f"{model.label} within subgroups. Small groups have wide intervals; differences between groups are not tested.",
        small=True,
    )
    return Section("subgroups", "Subgroups", (note, _subgroup_plot(metrics, model)))


def _subgroup_plot(metrics: Metrics, model: ModelResult) -> Plot:
    whole_score = model.score(model.subgroups[0].score.name)
    labels = ["All patients", *(f"{s.variable}: {s.level}" for s in model.subgroups)]
    scores = [whole_score, *(s.score for s in model.subgroups)]
    name = SCORE_NAMES.get(model.subgroups[0].score.name, model.subgroups[0].score.name)
    counts = [(metrics.n_patients, metrics.n_events), *((s.n, s.n_events) for s in model.subgroups)]
    sized = [f"{label} ({events} of {n})" for label, (n, events) in zip(labels, counts, strict=True)]
    panel = Panel(scores, f"{name} (probability)", 0.5)
    figure = comparison_figure(sized, [panel], inputs=[model.inputs] * len(labels), strong=0)
    heads = (Column("Subgroup", numeric=False), Column("Patients"), Column("Events"), Column(name))
    rows = tuple(
        (label, whole(n), whole(events), score_cell(score))
        for label, (n, events), score in zip(labels, counts, scores, strict=True)
    )
    told = "; ".join(f"{label} {score_text(score, name=name)}" for label, score in zip(labels, scores, strict=True))
    return Plot(
        "subgroups",
        figure,
        f"{model.label}: {name} by subgroup (events of patients), with intervals. Dashed: chance.",
        f"Dot plot with intervals, one row per subgroup. {told}.",
        Table("Data of this figure", heads, rows),
    )
