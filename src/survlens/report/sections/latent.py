"""What the model has learnt: the embedding, its dimensions, their reliability, and the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome
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
    left_out,
    thinned,
)
from survlens.report.figures.embedding import embedding_figure
from survlens.report.figures.training import training_figure
from survlens.report.figures.traversal import Strip, traversal_figure
from survlens.report.records import Dimension, EmbeddingPoints, Explanation, Ratio, RunContent, Traversal
from survlens.report.wording import (
    MISSING,
    compact,
    decimal,
    hazard_ratio_range,
    hazard_ratio_text,
    is_invisible,
    is_unclear,
    overlap_text,
    pixel_change_text,
    reliability_text,
    time_text,
    whole,
)

_MOST_PANELS = 6
_MOST_STRIPS = 8
_TRUSTED_SD = 3.0


def embedding(content: RunContent) -> Section:
    """The first two principal components, side by side."""
    if not content.embeddings:
        return left_out("embedding", "The embedding", "the run folder holds no embeddings")
    shares = {e.model: e.explained for e in content.explanations}
    panels = content.embeddings[:_MOST_PANELS]
    shown = tuple(replace(e, explained=e.explained or shares.get(e.model, ())) for e in panels)
    unit = content.metrics.unit
    parts = {e.part for e in shown if e.part}
    whom = f"{' and '.join(sorted(parts))} patients" if parts else "all patients"
    heads = (
        Column("Model", numeric=False),
        Column("Fifth of first component", numeric=False),
        Column("Points"),
        Column("Events"),
        Column(f"Median survival ({unit})"),
    )
    plot = Plot(
        "embedding",
        embedding_figure(shown, unit=unit),
        f"Embeddings of {whom}, first two principal components (PC). Filled: had the event, coloured by its time. "
        "Hollow: censored. The sign of a component has no meaning.",
        f"Scatter plots of the first two principal components: {', '.join(e.label for e in shown)}. "
        "Colour shows the time to event.",
        Table("Data of this figure, summarised", heads, tuple(row for e in shown for row in _fifths(e, unit))),
        wide=len(shown) > 1,
    )
    seen = (content.metrics.model(e.model) for e in shown)
    point = "one image" if any(model is not None and model.uses_image for model in seen) else "one row of the cohort"
    said = Paragraph(
        f"Each point is {point}. If the embedding has learnt survival, colours change along an axis; if not, they mix."
    )
    return Section("embedding", "The embedding", (said, _ordering(shown), plot))


def _ordering(embeddings: tuple[EmbeddingPoints, ...]) -> Table:
    """How closely the first component follows survival, by rank correlation."""
    truth = any(e.true_log_hazard is not None for e in embeddings)
    heads = [Column("Model", numeric=False), Column("Points"), Column("|ρ| with time to event")]
    heads += [Column("|ρ| with true log-hazard")] if truth else []
    rows = []
    for e in embeddings:
        row = [e.label, whole(len(e)), decimal(_rank_correlation(e.pc1[e.event], e.time[e.event]), 2)]
        if truth:
            row.append(decimal(_rank_correlation(e.pc1, e.true_log_hazard), 2))
        rows.append(tuple(row))
    note = "Spearman's ρ of the first component, without sign. Time to event: patients with the event only."
    return Table("How closely the first component follows survival", tuple(heads), tuple(rows), note=note)


def _rank_correlation(first: np.ndarray, second: np.ndarray | None) -> float | None:
    if second is None or len(first) < 3 or min(np.ptp(first), np.ptp(second)) == 0:
        return None
    ranks = [np.unique(values, return_inverse=True, return_counts=True)[1:] for values in (first, second)]
    middle = [(np.cumsum(counts) - (counts - 1) / 2)[places] for places, counts in ranks]
    return abs(float(np.corrcoef(middle[0], middle[1])[0, 1]))


def _fifths(e: EmbeddingPoints, unit: str) -> list[tuple[str, ...]]:
    position = np.argsort(np.argsort(e.pc1, kind="stable"), kind="stable") * 5 // len(e)
    rows = []
    for fifth in np.unique(position):
        chosen = position == fifth
        event = e.event[chosen].astype(np.int64)
        outcome = SurvivalOutcome.from_arrays(e.time[chosen], event, unit)
        median = time_text(kaplan_meier(outcome).quantile(0.5), "")
        rows.append((e.label, f"{fifth + 1} of 5", whole(int(chosen.sum())), whole(int(event.sum())), median))
    return rows


def dimensions(content: RunContent) -> Section:
    """Hazard ratios of the latent dimensions and what the decoder draws along them."""
    title = "The latent dimensions"
    if not content.explanations or not content.explanations[0].dimensions:
        return left_out("dimensions", title, "no latent dimensions were explained")
    main, *others = content.explanations
    clear = [d for d in main.dimensions if d.active and not _unclear(d.judged)]
    sentences = tuple(f"Dimension {d.dimension}: {_said(d)}, {_whom(d)}." for d in clear[:3])
    blocks: list[Block] = [Paragraph(_use(main))]
    blocks.append(Bullets(sentences) if sentences else Paragraph(_nothing_clear(main)))
    blocks.append(_dimension_table(main, f"{main.label}: latent dimensions by importance"))
    if main.traversal is not None:
        blocks += _traversal_blocks(main, main.traversal)
    blocks += [
        _dimension_table(o, f"{o.label}: latent dimensions by importance", folded=True) for o in others if o.dimensions
    ]
    return Section("dimensions", title, tuple(blocks))


_SEPARATED = "separated (alone or with others it orders the events so completely that no ratio is finite)"


def _unclear(ratio: Ratio | None) -> bool:
    return ratio is None or is_unclear(ratio.lower, ratio.upper, 1.0)


def _said(d: Dimension) -> str:
    ratio = d.judged
    if ratio is None:
        return "not estimated"
    return _SEPARATED if ratio.separated else hazard_ratio_text(ratio.value, ratio.lower, ratio.upper)


def _whom(d: Dimension) -> str:
    return "in training patients (optimistic)" if d.held_out is None else "in held-out patients"


def _nothing_clear(explanation: Explanation) -> str:
    said = "No dimension has a clear association with the hazard when adjusted for the others."
    overlapping = sum(bool(overlap_text(d.variance_inflation)) for d in explanation.dimensions)
    return f"{said} {overlapping} overlap with others: see the ratios of each alone." if overlapping else said


def _use(explanation: Explanation) -> str:
    """How many dimensions carry information, how many change the picture, and what their order is by."""
    numbers = explanation.dimensions
    inactive = sum(not d.active for d in numbers)
    said = f"{explanation.label} describes each image by {len(numbers)} numbers. "
    said += (
        f"{inactive} of them {'carries' if inactive == 1 else 'carry'} no information about the image (inactive)."
        if inactive
        else "All carry information about the image (mean KL above 0.05 nats)."
    )
    unseen = [d for d in numbers if d.active and is_invisible(d.pixel_change)]
    if unseen:
        named = f"{'dimension' if len(unseen) == 1 else 'dimensions'} {', '.join(str(d.dimension) for d in unseen)}"
        said += (
            f" No visible change of the decoded image from −2 to +2 SD along {named} (mean pixel change under 0.02)."
        )
    weighted = all(d.head_weight is not None for d in numbers)
    by = "|head weight| × SD" if weighted else "|log hazard ratio| per SD in training patients"
    return f"{said} Dimensions are ordered by {by}."


def _dimension_table(explanation: Explanation, caption: str, *, folded: bool = False) -> Table:
    columns = _dimension_columns(explanation)
    note = (
        "Hazard ratios: Cox fits on the latent means, per standard deviation (SD) in training patients, with 95 % "
        "interval. Training patients also trained the model: their ratios are optimistic, even for noise. "
        "Head's own: exp(weight × SD) of the model's Cox head."
    )
    if any(d.held_out is not None for d in explanation.dimensions):
        note += " The reading is taken from held-out patients."
    if any(d.variance_inflation is not None for d in explanation.dimensions):
        note += " VIF: variance inflation factor; above 10, adjusted ratios cannot tell the dimension from the others."
    errors = ", ".join(f"{key} {compact(value)}" for key, value in explanation.reconstruction.items())
    note += f" Error of the decoded images: {errors}." if errors else ""
    heads = tuple(column for column, _ in columns)
    rows = tuple(zip(*(cells for _, cells in columns), strict=True))
    return Table(caption, heads, rows, folded=folded, note=note)


def _dimension_columns(explanation: Explanation) -> list[tuple[Column, Sequence[Cell]]]:
    """Columns with their cells; what an older run did not write is left out."""
    known = explanation.dimensions
    adjusted = "Hazard ratio per SD, adjusted for the other dimensions,"
    columns: list[tuple[Column, Sequence[Cell]]] = [
        (Column("Dimension", numeric=False), [str(d.dimension) for d in known]),
        (Column(f"{adjusted} in training patients (optimistic)"), [_ratio_cell(d.training) for d in known]),
    ]
    if any(d.held_out is not None for d in known):
        columns.append((Column(f"{adjusted} in held-out patients"), [_ratio_cell(d.held_out) for d in known]))
    if any(d.univariable is not None for d in known):
        whom = "held-out" if any(d.univariable_held_out for d in known) else "training"
        columns.append((Column(f"Alone, in {whom} patients"), [_ratio_cell(d.univariable) for d in known]))
    columns += [
        (Column("Reading", numeric=False), [reading(d) for d in known]),
        (Column("Head's own ratio per SD"), [decimal(_own_ratio(d), 2) for d in known]),
        (Column("Head weight"), [decimal(d.head_weight, 3) for d in known]),
        (Column("Mean KL (nats)"), [decimal(d.mean_kl, 2) for d in known]),
    ]
    if any(d.pixel_change is not None for d in known):
        head = Column("Pixel change, −2 to +2 SD", numeric=False)
        columns.append((head, [pixel_change_text(d.pixel_change) for d in known]))
    return columns


def _ratio_cell(ratio: Ratio | None) -> Cell:
    if ratio is None or ratio.separated:
        return MISSING if ratio is None else "separated"
    return Estimate(decimal(ratio.value, 2), hazard_ratio_range(ratio.lower, ratio.upper))


def _own_ratio(d: Dimension) -> float | None:
    return None if d.head_weight_per_sd is None or d.head_weight_per_sd > 20 else math.exp(d.head_weight_per_sd)


def reading(d: Dimension) -> str:
    """A few words on a dimension, by held-out patients where they were fitted."""
    return "; ".join(filter(None, (_direction(d), overlap_text(d.variance_inflation))))


def _direction(d: Dimension) -> str:
    if not d.active:
        return "inactive"
    ratio = d.judged
    if ratio is None:
        return "not estimated"
    if ratio.value is None:
        return "separated"
    if _unclear(ratio):
        return "unclear"
    return "higher hazard" if ratio.value > 1 else "lower hazard"


def _traversal_blocks(explanation: Explanation, traversal: Traversal) -> list[Block]:
    rows = {number: row for row, number in enumerate(traversal.numbers)}
    drawable = [d for d in explanation.dimensions if d.dimension in rows]
    chosen = ([d for d in drawable if d.active] or drawable)[:_MOST_STRIPS]
    if not chosen:
        return []
    strips = [
        Strip(_strip_label(d), traversal.images[rows[d.dimension]], traversal.difference[rows[d.dimension]])
        for d in chosen
    ]
    step_unit = "standard deviations of the latent mean" if explanation.sd_scale else "latent units"
    first, last = compact(float(traversal.steps[0])), compact(float(traversal.steps[-1]))
    left = len(drawable) - len(chosen)
    caption = (
        f"{explanation.label}: decoded images from {first} to {last} along each dimension, "
        "the others held at their mean. The most important comes first. Last column: change from first to last image, "
        "with dashed outlines around falls and solid ones around rises."
    )
    trusted = _TRUSTED_SD if explanation.sd_scale else None
    if trusted is not None and any(abs(step) > trusted for step in traversal.steps):
        caption += f" Beyond ±{compact(trusted)} SD (grey labels) images are extrapolated."
    caption += f" Not drawn: {left} less important or inactive." if left else ""
    heads = (
        Column("Dimension", numeric=False),
        Column("Mean absolute change"),
        Column("Largest rise"),
        Column("Largest fall"),
        Column("Association with hazard", numeric=False),
    )
    data = tuple(_strip_row(d, strip) for d, strip in zip(chosen, strips, strict=True))
    told = "; ".join(f"dimension {d.dimension}, {_said(d)}" for d in chosen)
    return [
        Plot(
            "traversal",
            traversal_figure(strips, steps=[float(s) for s in traversal.steps], step_unit=step_unit, trusted=trusted),
            caption,
            f"Grid of decoded images, one row per latent dimension of {explanation.label}: {told}.",
            Table("Data of this figure, summarised (pixel value, 0 to 1)", heads, data),
            wide=True,
        )
    ]


def _strip_label(d: Dimension) -> str:
    lines, ratio = [f"Dim. {d.dimension}"], d.judged
    if ratio is not None and ratio.separated:
        lines.append("separated")
    elif ratio is not None:
        doubt = ", unclear" if _unclear(ratio) else ""
        lines.append(f"HR {decimal(ratio.value, 2)}{doubt}")
    if is_invisible(d.pixel_change):
        lines.append("no visible change")
    return "\n".join(lines)


def _strip_row(d: Dimension, strip: Strip) -> tuple[str, ...]:
    change = strip.difference
    rise, fall = max(float(change.max()), 0.0), min(float(change.min()), 0.0)
    return (str(d.dimension), decimal(float(np.abs(change).mean()), 3), decimal(rise, 3), decimal(fall, 3), _said(d))


def reliability(content: RunContent) -> Section:
    """Whether repeats with other seeds find the same dimensions."""
    title = "Reliability of the dimensions"
    if not content.explanations:
        return left_out("reliability", title, "no latent dimensions were explained")
    known = [e for e in content.explanations if any(d.reliability is not None for d in e.dimensions)]
    if not known:
        return left_out("reliability", title, "the training was not repeated with other seeds")
    explanation = known[0]
    heads = (Column("Dimension", numeric=False), Column("Reliability"), Column("Reading", numeric=False))
    rows = tuple(
        (str(d.dimension), decimal(d.reliability, 2), reliability_text(d.reliability)) for d in explanation.dimensions
    )
    said = Paragraph(
        "Training again with another seed may find other dimensions. Reliability is the agreement of each "
        "dimension with its best match in the repeats: 1 is the same, 0 is none. "
        "Do not interpret a dimension that is not stable."
    )
    note = "Stable: 0.8 or more. Partly stable: 0.5 to 0.8."
    return Section(
        "reliability", title, (said, Table(f"{explanation.label}: reliability over seeds", heads, rows, note=note))
    )


def training(content: RunContent) -> Section:
    """Training curves."""
    drawable = content.histories[:_MOST_PANELS]
    if not drawable:
        return left_out("training", "Training", "no training history was written")
    heads = (Column("Model", numeric=False), Column("Epoch"), Column("Training loss"), Column("Validation loss"))
    rows = []
    for history in drawable:
        for position in thinned(len(history.epoch), 8):
            losses = (history.training[position], history.validation[position])
            rows.append((history.label, whole(history.epoch[position]), *(decimal(float(loss), 4) for loss in losses)))
    plot = Plot(
        "training",
        training_figure(drawable),
        "Loss per epoch. Solid: training. Dashed: validation patients, taken from the training part. "
        "Dotted: lowest validation loss.",
        f"Line plots of training and validation loss over epochs for {', '.join(h.label for h in drawable)}.",
        Table("Data of this figure, thinned", heads, tuple(rows)),
        wide=len(drawable) > 1,
    )
    return Section("training", "Training", (plot,))
