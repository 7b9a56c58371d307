"""Portraits: whom everything was fitted on, how well photographs were embedded, and what edits show."""

from __future__ import annotations

from survlens.report.blocks import Block, Bullets, Column, Paragraph, Plot, Section, Table, score_cell
from survlens.report.figures.comparison import Panel, comparison_figure
from survlens.report.figures.edits import edit_grid_figure, restart_figure
from survlens.report.portrait_records import PortraitEdit, Portraits
from survlens.report.records import RunContent
from survlens.report.wording import compact, score_text, whole

ETHICS = (
    "An edited picture is synthetic. It shows what the prediction sees, and is no forecast of how anybody will look or "
    "fare.",
    "A prediction says how patients who look alike fared in this cohort. It says nothing of a cause, and pictures of "
    "edits are not for showing to patients as their future.",
    "Photographs and latent vectors are personal data: a face can be made from a vector. Neither may be shared or "
    "logged, and this page holds pictures of people.",
)
"""What stands beside edits of portraits, always."""
_MOST_PEOPLE = 6


def portraits(content: RunContent) -> Section | None:
    """Embedding, survival, edits and the ethics note; None for a run without portraits."""
    shown = content.portraits
    if shown is None:
        return None
    blocks: list[Block] = [Bullets(ETHICS)]
    blocks += [Bullets(shown.fitted_on)] if shown.fitted_on else []
    if shown.transductive:
        blocks.append(
            Paragraph(
                "Something above was fitted on patients who are scored here. Scores of these patients are NOT out of "
                "sample: repeat with a generator that saw training patients only."
            )
        )
    blocks += _embedding(shown)
    blocks += _survival(shown)
    blocks += _edits(shown)
    blocks += [Bullets(shown.remarks)] if shown.remarks else []
    return Section("portraits", "Portraits", tuple(blocks))


def _embedding(shown: Portraits) -> list[Block]:
    if not shown.embedding:
        return []
    rows = tuple((name, _value(value)) for name, value in shown.embedding.items())
    heads = (Column("Fact", numeric=False), Column("Value", numeric=False))
    table = Table("How the photographs were embedded", heads, rows)
    if not (shown.agreement == shown.agreement).any():
        return [table]
    known = shown.agreement[shown.agreement == shown.agreement]
    plot = Plot(
        "portraits-restarts",
        restart_figure(known.tolist(), space=shown.space),
        "Agreement of two descents from different starts. A vector that depends on where the descent began says little "
        "about the person.",
        f"Histogram of the restart agreement of {len(known)} photographs, mean {compact(float(known.mean()))}.",
        Table(
            "Data of this figure, summarised",
            (Column("Photographs"), Column("Mean"), Column("Smallest"), Column("Largest")),
            ((whole(len(known)), *(compact(float(each)) for each in (known.mean(), known.min(), known.max()))),),
        ),
    )
    return [table, plot]


def _survival(shown: Portraits) -> list[Block]:
    blocks: list[Block] = []
    if shown.scores:
        rows = tuple((name, score_cell(score)) for name, score in shown.scores.items())
        blocks.append(Table("Concordance of held-out patients", (Column("Model", numeric=False), Column("C")), rows))
    if shown.subgroups:
        labels = [f"{each.column}: {each.level} ({each.n_events} of {each.n})" for each in shown.subgroups]
        scores = [each.score for each in shown.subgroups]
        rows = tuple(
            (f"{each.column}: {each.level}", whole(each.n), whole(each.n_events), score_cell(each.score))
            for each in shown.subgroups
        )
        heads = (Column("Subgroup", numeric=False), Column("Patients"), Column("Events"), Column("C"))
        told = "; ".join(f"{label} {score_text(score)}" for label, score in zip(labels, scores, strict=True))
        blocks.append(
            Plot(
                "portraits-subgroups",
                comparison_figure(labels, [Panel(scores, "C (probability)", 0.5)], inputs=[("image",)] * len(labels)),
                "Concordance by subgroup (events of patients), with intervals. Dashed: chance. Small groups have wide "
                "intervals; differences between groups are not tested.",
                f"Dot plot with intervals, one row per subgroup. {told}.",
                Table("Data of this figure", heads, rows),
            )
        )  # fmt: skip
    return blocks


def _edits(shown: Portraits) -> list[Block]:
    if not shown.edits:
        return []
    names = list(dict.fromkeys(name for edit in shown.edits for name in edit.scores))
    heads = (Column("Direction", numeric=False), *(Column(name) for name in names))
    rows = tuple(
        (
            f"{edit.name} (control)" if edit.control else edit.name,
            *(score_cell(edit.scores.get(name)) for name in names),
        )
        for edit in shown.edits
    )
    note = "Read from edited pictures: from latent vectors found anew in them, or by a reader that knows no vector."
    blocks: list[Block] = [Table("What edited pictures show", heads, rows, note=note)]
    blocks += [
        _grid(shown, edit, number) for number, edit in enumerate(shown.edits, start=1) if edit.rows and not edit.control
    ]
    return blocks


def _grid(shown: Portraits, edit: PortraitEdit, number: int) -> Plot:
    rows = edit.rows[:_MOST_PEOPLE]
    table = Table(
        "What the pictures show",
        (Column("Score", numeric=False), Column("Value")),
        tuple((name, score_cell(score)) for name, score in edit.scores.items()),
    )
    return Plot(
        f"portraits-edit-{number}",
        edit_grid_figure(rows, steps=shown.steps, unit=edit.unit, remark=edit.remark),
        f"Edits towards {edit.name}, in {edit.unit}. {edit.remark} Synthetic pictures, no forecast.",
        f"Grid of {len(rows)} people at {len(shown.steps)} steps of an edit towards {edit.name}.",
        table,
        wide=True,
    )


def _value(value: str | float) -> str:
    return compact(float(value)) if isinstance(value, int | float) else value
