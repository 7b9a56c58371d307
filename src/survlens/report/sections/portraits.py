"""Portraits: whom everything was fitted on, how well photographs were embedded, and what edits show."""

from __future__ import annotations

from survlens.report.blocks import Block, Bullets, Column, Paragraph, Plot, Section, Table, score_cell
from survlens.report.figures.comparison import Panel, comparison_figure
from survlens.report.figures.edits import edit_grid_figure, restart_figure
from survlens.report.portrait_records import PortraitEdit, Portraits
from survlens.report.records import RunContent
from survlens.report.wording import MISSING, compact, decimal, score_text, whole

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
    blocks: list[Block] = [*_slopes(shown), *_followed(shown), *_trusted(shown)]
    blocks += [
        _grid(shown, edit, number) for number, edit in enumerate(shown.edits, start=1) if edit.rows and not edit.control
    ]
    return blocks


def _slopes(shown: Portraits) -> list[Block]:
    """Age beside health along every direction, and edits beside controls."""
    names = list(dict.fromkeys(name for edit in shown.edits for name in edit.slopes))
    if not names:
        return []
    heads = [Column(f"Slope on {name}") for name in names]
    heads += [Column("|Age| over |health|"), Column("Share of controls as steep"), Column("Stopped at the edge")]
    rows = tuple(
        (
            _named(edit),
            *(score_cell(edit.slopes.get(name), 2) for name in names),
            score_cell(edit.age_over_health, 2),
            decimal(edit.control_p),
            _share(edit.capped),
        )
        for edit in shown.edits
    )
    controls = sum(edit.control for edit in shown.edits)
    note = (
        f"Slopes are changes per step of what is read from edited pictures. {_readers(shown, names)} Health is the "
        f"illness where it is known, else the risk. {_controls(controls)} The last column is the share of edits that "
        "were stopped where the training photographs end."
    )
    return [
        Table("Age beside health, along each direction", (Column("Direction", numeric=False), *heads), rows, note=note)
    ]


def _readers(shown: Portraits, names: list[str]) -> str:
    """Who reads what, in sentences; readers of one kind together."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(shown.readers.get(name, "a reader that the record does not describe"), []).append(name)
    return " ".join(f"Read by {kind}: {', '.join(read)}." for kind, read in kinds.items())


def _controls(count: int) -> str:
    """What the share of controls is, and is not."""
    if not count:
        return "There are no controls."
    told = "1 control" if count == 1 else f"{count} controls"
    return (
        f"The share of controls as steep counts the edit among them: of {told} and the edit, "
        f"those whose slope on health is as large, {decimal(1 / (1 + count))} at least. It is no p-value: random "
        "directions are not what the edit would be if latent vectors said nothing of the outcome."
    )


def _followed(shown: Portraits) -> list[Block]:
    names = list(dict.fromkeys(name for edit in shown.edits for name in edit.scores))
    if not names:
        return []
    heads = (Column("Direction", numeric=False), *(Column(name) for name in names))
    rows = tuple((_named(edit), *(score_cell(edit.scores.get(name)) for name in names)) for edit in shown.edits)
    note = (
        "Shares of people. Rises: at every step, read from the edited pictures, for risk from latent vectors found "
        "anew in them. Recognised: the edited picture is nearer to its own original than to anybody else's."
    )
    return [Table("What edited pictures show", heads, rows, note=note)]


def _trusted(shown: Portraits) -> list[Block]:
    known = [(edit.name, edit.trust) for edit in shown.edits if edit.trust is not None]
    if not known:
        return []
    rows = tuple(
        (
            name,
            score_cell(trust.bootstrap, 2),
            score_cell(trust.halves, 2),
            decimal(trust.expected),
            "yes" if trust.reliable else "NO",
        )
        for name, trust in known
    )
    heads = [Column(name) for name in ("Cosine with resamples", "Between halves", "Expected with the true one")]
    note = (
        "Cosines between directions fitted to different patients. Resamples share patients and flatter; halves share "
        "none. Age, where it is projected out, is held as it was fitted."
    )
    heads = (Column("Direction", numeric=False), *heads, Column("Reliable", numeric=False))
    return [Table("How far the directions come back", heads, rows, note=note)]


def _named(edit: PortraitEdit) -> str:
    return f"{edit.name} (control)" if edit.control else edit.name


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.0f} %"


def _grid(shown: Portraits, edit: PortraitEdit, number: int) -> Plot:
    rows = edit.rows[:_MOST_PEOPLE]
    read = {f"slope on {name}": score for name, score in edit.slopes.items()} | dict(edit.scores)
    table = Table(
        "What the pictures show",
        (Column("Score", numeric=False), Column("Value")),
        tuple((name, score_cell(score)) for name, score in read.items()),
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
