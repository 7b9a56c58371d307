"""What the report is, and who is in it."""

from __future__ import annotations

from survlens.report.blocks import Block, Bullets, Column, Paragraph, Section, Table, left_out
from survlens.report.records import CohortFacts, Finding, Metrics, RunContent
from survlens.report.wording import compact, time_text, whole

_INPUT_NAMES = {"image": "images", "table": "a clinical table"}


def about(content: RunContent) -> Section:
    """What this is and is not."""
    metrics = content.metrics
    items = [
        f"What it is: a comparison of {_model_count(metrics)} that predict time to an event from {_inputs(metrics)}. "
        f"Scored on {metrics.scored_on} "
        f"({whole(metrics.n_patients)} patients, {whole(metrics.n_events)} with the event).",
        "What it is not: a medical device, or a basis for deciding on the care of any patient.",
        "It shows associations. It does not show what would happen if a patient, or an image, were changed.",
    ]
    if metrics.study.simulated:
        items.insert(1, "The survival times are simulated, so nothing here says anything about patients.")
    if metrics.study.data_note:
        items.append(f"Data: {metrics.study.data_note}")
    return Section("about", "What this is and is not", (Bullets(tuple(items)),))


def _model_count(metrics: Metrics) -> str:
    return "one model" if len(metrics.models) == 1 else f"{len(metrics.models)} models"


def _inputs(metrics: Metrics) -> str:
    seen = {member for model in metrics.models for member in model.inputs}
    names = [_INPUT_NAMES.get(member, member) for member in sorted(seen)]
    return " and ".join(names) if names else "no inputs"


MOST_COVARIATES = 40
"""Covariates that the report lists; radiomics has a thousand."""


def cohort(content: RunContent) -> Section:
    """Patient flow, covariates, follow-up and what the audit found."""
    facts = content.cohort
    blocks: list[Block] = []
    if facts is not None:
        blocks += _cohort_blocks(facts, content.metrics.unit)
    if content.findings is not None:
        blocks.append(_findings(content.findings))
    if not blocks:
        return left_out("cohort", "Patients", "the run folder holds no cohort.json")
    return Section("cohort", "Patients", tuple(blocks))


def _cohort_blocks(facts: CohortFacts, unit: str) -> list[Block]:
    blocks: list[Block] = []
    if facts.follow_up is not None:
        median, lower, upper = facts.follow_up
        end = "not reached" if upper is None else compact(upper)
        doubt = "" if lower is None else f" (95 % CI {compact(lower)} to {end})"
        blocks.append(
            Paragraph(f"Median follow-up was {time_text(median, facts.unit or unit)}{doubt}, by reverse Kaplan-Meier.")
        )
    if facts.flow:
        blocks.append(_flow(facts))
    if facts.covariates:
        blocks.append(_covariates(facts))
    return blocks


def _flow(facts: CohortFacts) -> Table:
    rows = tuple((s.step, whole(s.patients), whole(s.events), whole(s.instances)) for s in facts.flow)
    heads = (Column("Step", numeric=False), Column("Patients"), Column("Events"), Column("Images or rows"))
    return Table("Patient flow", heads, rows)


def _covariates(facts: CohortFacts) -> Table:
    parts = list(dict.fromkeys(part for covariate in facts.covariates for part in covariate.by_part))
    heads = (
        Column("Covariate", numeric=False),
        Column("All", numeric=False),
        *(Column(part.capitalize(), numeric=False) for part in parts),
        Column("Known"),
        Column("Missing"),
    )
    rows = tuple(
        (c.name, c.summary, *(c.by_part.get(part, "") for part in parts), whole(c.n - c.missing), whole(c.missing))
        for c in facts.covariates[:MOST_COVARIATES]
    )
    more = len(facts.covariates) - len(rows)
    note = f"{more:,} more covariates stand in cohort.json of the run folder." if more else ""
    return Table("Covariates", heads, rows, note=note)


def _findings(findings: tuple[Finding, ...]) -> Block:
    if not findings:
        return Paragraph("The check of the data before training found nothing to report.")
    heads = (Column("Severity", numeric=False), Column("Finding", numeric=False), Column("Rows"))
    rows = tuple(
        (f.severity, f"{f.message}{f' [{f.column}]' if f.column else ''}", whole(f.rows) if f.rows else "")
        for f in findings
    )
    return Table("What the check of the data found before training", heads, rows)
