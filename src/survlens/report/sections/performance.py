"""How good the models are on patients they have not seen."""

from __future__ import annotations

import math

from survlens.core.score import Direction, Score
from survlens.report.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Estimate,
    Paragraph,
    Plot,
    Section,
    Table,
    score_cell,
    thinned,
)
from survlens.report.figures.comparison import Panel, comparison_figure
from survlens.report.figures.curves import error_figure
from survlens.report.records import Difference, Metrics, ModelResult, RunContent
from survlens.report.wording import MISSING, compact, decimal, is_unclear, range_text, score_text

SCORE_NAMES = {
    "concordance_index": "Harrell's C",
    "concordance_index_ipcw": "Uno's C",
    "concordance_index_antolini": "Antolini's C",
    "integrated_brier_score": "Integrated Brier",
    "integrated_ipa": "Integrated IPA",
    "ipa": "IPA",
    "brier_score": "Brier",
    "cumulative_dynamic_auc": "AUC",
}
_MAIN = ("concordance_index", "concordance_index_ipcw", "integrated_brier_score", "integrated_ipa")
_GUIDE = (
    "C is the chance that, of two patients, the one with the higher predicted risk has the event first. "
    "0.5 is chance, 1 is perfect.",
    "The Brier score is the mean squared error of a predicted probability. Lower is better.",
    "IPA is the share of that error which the model removes from the Kaplan-Meier curve of the scored patients. "
    "0 is no gain, below 0 is harm; that curve is known only afterwards, so Kaplan-Meier of the training patients "
    "lies a little below 0 as a rule.",
)
_SEES = {"image": "image", "table": "table"}


def comparison(content: RunContent) -> Section:
    """Every model with its intervals, always beside clinical-only Cox and Kaplan-Meier."""
    metrics = content.metrics
    ordered = in_order(metrics)
    blocks: list[Block] = [Bullets(_GUIDE), _main_table(metrics, ordered)]
    if metrics.oracle is not None:
        blocks.append(
            Paragraph(
                f"The true hazard of the simulation has C {decimal(metrics.oracle.value, 3)}. "
                "On average, no model can do better."
            )
        )
    if any(model.score("concordance_index") for model in ordered):
        blocks.append(_forest(metrics, ordered))
    blocks += _differences(metrics) + _curve_blocks(metrics) + _by_horizon(metrics, ordered)
    blocks += [_makes(ordered), _definitions(metrics)]
    return Section("comparison", "Comparison of models", tuple(blocks))


def in_order(metrics: Metrics) -> list[ModelResult]:
    """Kaplan-Meier and clinical-only Cox first: the bar that the others have to clear."""
    bar = {metrics.reference: 0, metrics.clinical: 1}
    return sorted(metrics.models, key=lambda model: bar.get(model.name, 2))


def sees(model: ModelResult) -> str:
    """What a model is given, for a table cell."""
    return " + ".join(_SEES.get(member, member) for member in model.inputs) or "nothing"


def _main_table(metrics: Metrics, ordered: list[ModelResult]) -> Table:
    spread = any(model.seed_spread.get("concordance_index") for model in ordered)
    heads = [Column("Model", numeric=False), Column("Sees", numeric=False), *(Column(SCORE_NAMES[n]) for n in _MAIN)]
    if spread:
        heads.append(Column("C over seeds"))
    rows = [_main_row(model, spread=spread) for model in ordered]
    if metrics.model(metrics.clinical) is None:
        rows.insert(1, ("Clinical-only Cox: not possible, no clinical table", "table", *[MISSING] * (len(heads) - 2)))
    if metrics.model(metrics.reference) is None:
        rows.insert(0, ("Kaplan-Meier: not in this run", "nothing", *[MISSING] * (len(heads) - 2)))
    strong = frozenset(i for i, row in enumerate(rows) if (m := metrics.model(metrics.primary)) and row[0] == m.label)
    note = f"Below each score is its {_method(metrics)}. Bold: the primary model."
    if spread:
        note += " Over seeds: mean ± standard deviation of C over repeats of the training (number of repeats)."
    return Table(f"Scores on {metrics.scored_on}", tuple(heads), tuple(rows), strong=strong, note=note)


def _main_row(model: ModelResult, *, spread: bool) -> tuple[Cell, ...]:
    row: list[Cell] = [model.label, sees(model), *(score_cell(model.score(name)) for name in _MAIN)]
    if spread:
        repeats = model.seed_spread.get("concordance_index")
        row.append(
            MISSING if repeats is None else f"{decimal(repeats.mean, 3)} ± {decimal(repeats.sd, 3)} ({repeats.n})"
        )
    return tuple(row)


def _method(metrics: Metrics) -> str:
    for model in metrics.models:
        for score in model.scores:
            if score.interval is not None:
                by = f" ({score.interval.method})" if score.interval.method else ""
                return f"{100 * score.interval.confidence:g} % interval{by}"
    return "interval"


def _forest(metrics: Metrics, ordered: list[ModelResult]) -> Plot:
    best = None if metrics.oracle is None else metrics.oracle.value
    c = [model.score("concordance_index") for model in ordered]
    ipa = [model.score("integrated_ipa") for model in ordered]
    panels = [Panel(c, "Harrell's C (probability)", 0.5, best)]
    if any(score is not None for score in ipa):
        panels.append(Panel(ipa, "Integrated IPA (share of error)", 0.0))
    strong = next((i for i, model in enumerate(ordered) if model.name == metrics.primary), None)
    labels = [model.label for model in ordered]
    figure = comparison_figure(labels, panels, inputs=[model.inputs for model in ordered], strong=strong)
    oracle = "" if best is None else " Dotted: the true hazard of the simulation."
    heads = (Column("Model", numeric=False), Column("Harrell's C"), Column("Integrated IPA"))
    rows = tuple((m.label, score_cell(a), score_cell(b)) for m, a, b in zip(ordered, c, ipa, strict=True))
    told = "; ".join(f"{model.label} {score_text(score)}" for model, score in zip(ordered, c, strict=True) if score)
    return Plot(
        "comparison",
        figure,
        f"Scores with their intervals. Dashed: no skill (C 0.5, IPA 0).{oracle}",
        f"Dot plot of scores with intervals, one row per model. {told}.",
        Table("Data of this figure", heads, rows),
        wide=True,
    )


def _differences(metrics: Metrics) -> list[Block]:
    """Paired differences: those of Harrell's C from the clinical table in the open, the others behind a click."""
    known = [d for d in metrics.differences if not math.isnan(d.difference)]
    bar = metrics.clinical if metrics.model(metrics.clinical) is not None else None
    main = [d for d in known if d.score == "concordance_index" and bar in (None, d.reference)]
    rest = [d for d in known if d not in main]
    blocks: list[Block] = []
    if main:
        blocks.append(_difference_table(metrics, "Differences in Harrell's C", main))
    if rest:
        blocks.append(_difference_table(metrics, "Further differences", rest, folded=True))
    return blocks


def _difference_table(metrics: Metrics, caption: str, found: list[Difference], *, folded: bool = False) -> Table:
    labels = {model.name: model.label for model in metrics.models}
    texts = ("Model", "Against", *(("Score",) if folded else ()))
    heads = (*(Column(title, numeric=False) for title in texts), Column("Difference"), Column("Reading", numeric=False))
    rows = tuple(
        (
            labels.get(d.model, d.model),
            labels.get(d.reference, d.reference),
            *((SCORE_NAMES.get(d.score, d.score),) if folded else ()),
            Estimate(decimal(d.difference, 3), range_text(d.lower, d.upper, 3)),
            _judged(metrics, d.score, d.difference, d.lower, d.upper),
        )
        for d in found
    )
    note = (
        "Paired: both models on the same resampled patients. Unclear: the interval covers 0. "
        "Not corrected for the number of comparisons."
    )
    return Table(caption, heads, rows, note=note, folded=folded or len(rows) > 24)


def _judged(metrics: Metrics, name: str, difference: float, lower: float | None, upper: float | None) -> str:
    if is_unclear(lower, upper, 0.0):
        return "unclear"
    example: Score | None = next((s for m in metrics.models if (s := m.score(name)) is not None), None)
    better = difference < 0 if example is not None and example.direction is Direction.LOWER else difference > 0
    return "better" if better else "worse"


def shown_models(metrics: Metrics) -> list[ModelResult]:
    """The primary model and clinical-only Cox: those whose curves are drawn."""
    names = [metrics.primary, metrics.clinical]
    return [model for name in dict.fromkeys(names) if (model := metrics.model(name)) is not None]


def _curve_blocks(metrics: Metrics) -> list[Block]:
    curves = [
        (m.label, m.brier_curve) for m in shown_models(metrics) if m.brier_curve is not None and m.brier_curve.times
    ]
    if not curves:
        return []
    heads = [Column(f"Time ({metrics.unit})"), Column("Kaplan-Meier Brier")]
    for label, _ in curves:
        heads += [Column(f"{label}: Brier"), Column("IPA")]
    first = curves[0][1]
    rows = []
    for position in thinned(len(first.times), 12):
        row = [compact(first.times[position]), decimal(first.null[position], 3)]
        for _, curve in curves:
            same = position < len(curve.times) and curve.times[position] == first.times[position]
            row += [decimal(curve.brier[position], 3), decimal(curve.ipa[position], 3)] if same else [MISSING, MISSING]
        rows.append(tuple(row))
    names = " and ".join(label for label, _ in curves)
    plot = Plot(
        "error-over-time",
        error_figure(curves, unit=metrics.unit),
        "Prediction error over time, and the share of the Kaplan-Meier error that each model removes.",
        f"Two line plots over time in {metrics.unit} for {names} and Kaplan-Meier: Brier score, and IPA.",
        Table("Data of this figure", tuple(heads), tuple(rows)),
        wide=True,
    )
    return [plot]


def _by_horizon(metrics: Metrics, ordered: list[ModelResult]) -> list[Block]:
    if not metrics.horizons:
        return []
    wanted = [(n, h) for n in ("ipa", "cumulative_dynamic_auc") for h in metrics.horizons]
    wanted = [(n, h) for n, h in wanted if any(model.score(n, h) is not None for model in ordered)]
    if not wanted:
        return []
    heads = (
        Column("Model", numeric=False),
        *(Column(f"{SCORE_NAMES[name]} at {compact(horizon)}") for name, horizon in wanted),
    )
    rows = tuple((m.label, *(score_cell(m.score(name, horizon)) for name, horizon in wanted)) for m in ordered)
    return [Table(f"Scores at single times ({metrics.unit})", heads, rows, folded=True)]


def _makes(ordered: list[ModelResult]) -> Table:
    heads = tuple(Column(title, numeric=False) for title in ("Model", "Sees", "Kind", "Note"))
    rows = tuple((model.label, sees(model), model.family, model.note) for model in ordered)
    return Table("What the models are", heads, rows, folded=True)


def _definitions(metrics: Metrics) -> Table:
    model = metrics.model(metrics.primary) or next(iter(metrics.models), None)
    rows = []
    for score in () if model is None else model.scores:
        settings = "; ".join(f"{key} {_setting(value)}" for key, value in score.settings.items())
        method = "" if score.interval is None else score.interval.method
        rows.append((SCORE_NAMES.get(score.name, score.name), score.direction.value, settings, method))
    heads = tuple(Column(t, numeric=False) for t in ("Score", "Direction", "Settings", "Interval"))
    return Table("How the scores are defined", heads, tuple(rows), folded=True)


def _setting(value: object) -> str:
    return compact(value) if isinstance(value, float) and math.isfinite(value) else str(value)
