"""What the model has learnt: the embedding, its dimensions, their reliability, and the training."""

from __future__ import annotations

import math

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
from survlens.report.records import Dimension, EmbeddingPoints, Explanation, RunContent, Traversal
from survlens.report.wording import (
    MISSING,
    compact,
    decimal,
    hazard_ratio_range,
    hazard_ratio_text,
    is_unclear,
    reliability_text,
    time_text,
    whole,
)

_MOST_PANELS = 6
_MOST_STRIPS = 8


def embedding(content: RunContent) -> Section:
    """The first two principal components, side by side."""
    if not content.embeddings:
        return left_out("embedding", "The embedding", "the run folder holds no embeddings")
    shown, unit = content.embeddings[:_MOST_PANELS], content.metrics.unit
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
    inactive = sum(not d.active for d in main.dimensions)
    said = f"{main.label} describes each image by {len(main.dimensions)} numbers. "
    said += (
        "All are in use."
        if not inactive
        else f"{inactive} of them {'carries' if inactive == 1 else 'carry'} no information about the image (inactive)."
    )
    clear = [d for d in main.dimensions if d.active and not is_unclear(d.lower, d.upper, 1.0)]
    sentences = tuple(
        f"Dimension {d.dimension}: {hazard_ratio_text(d.hazard_ratio, d.lower, d.upper)}." for d in clear[:3]
    )
    blocks: list[Block] = [Paragraph(said)]
    blocks.append(
        Bullets(sentences) if sentences else Paragraph("No dimension has a clear association with the hazard.")
    )
    blocks.append(_dimension_table(main, f"{main.label}: latent dimensions by importance"))
    if main.traversal is not None:
        blocks += _traversal_blocks(main, main.traversal)
    blocks += [
        _dimension_table(o, f"{o.label}: latent dimensions by importance", folded=True) for o in others if o.dimensions
    ]
    return Section("dimensions", title, tuple(blocks))


def _dimension_table(explanation: Explanation, caption: str, *, folded: bool = False) -> Table:
    heads = (
        Column("Dimension", numeric=False),
        Column("Hazard ratio per SD"),
        Column("Reading", numeric=False),
        Column("Head's own ratio per SD"),
        Column("Head weight"),
        Column("Mean KL (nats)"),
    )
    note = (
        "Hazard ratio: Cox fit on the latent means of training patients, per standard deviation (SD), "
        "with 95 % interval. These patients also trained the model, so intervals are too narrow. "
        "Head's own: exp(weight × SD) of the model's Cox head."
    )
    errors = ", ".join(f"{key} {compact(value)}" for key, value in explanation.reconstruction.items())
    note += f" Error of the decoded images: {errors}." if errors else ""
    rows = tuple(_dimension_row(d) for d in explanation.dimensions)
    return Table(caption, heads, rows, folded=folded, note=note)


def _dimension_row(d: Dimension) -> tuple[Cell, ...]:
    known = d.hazard_ratio is not None and math.isfinite(d.hazard_ratio)
    ratio: Cell = Estimate(decimal(d.hazard_ratio, 2), hazard_ratio_range(d.lower, d.upper)) if known else MISSING
    own = None if d.head_weight_per_sd is None or d.head_weight_per_sd > 20 else math.exp(d.head_weight_per_sd)
    return (str(d.dimension), ratio, reading(d), decimal(own, 2), decimal(d.head_weight, 3), decimal(d.mean_kl, 2))


def reading(d: Dimension) -> str:
    """One or two words on a dimension."""
    if not d.active:
        return "inactive"
    if d.hazard_ratio is None:
        return "not estimated"
    if is_unclear(d.lower, d.upper, 1.0):
        return "unclear"
    return "higher hazard" if d.hazard_ratio > 1 else "lower hazard"


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
    caption += f" Not drawn: {left} less important or inactive." if left else ""
    heads = (
        Column("Dimension", numeric=False),
        Column("Mean absolute change"),
        Column("Largest rise"),
        Column("Largest fall"),
        Column("Association with hazard", numeric=False),
    )
    data = tuple(_strip_row(d, strip) for d, strip in zip(chosen, strips, strict=True))
    told = "; ".join(f"dimension {d.dimension}, {hazard_ratio_text(d.hazard_ratio, d.lower, d.upper)}" for d in chosen)
    return [
        Plot(
            "traversal",
            traversal_figure(strips, steps=[float(s) for s in traversal.steps], step_unit=step_unit),
            caption,
            f"Grid of decoded images, one row per latent dimension of {explanation.label}: {told}.",
            Table("Data of this figure, summarised (pixel value, 0 to 1)", heads, data),
            wide=True,
        )
    ]


def _strip_label(d: Dimension) -> str:
    if d.hazard_ratio is None:
        return f"Dim. {d.dimension}"
    doubt = "\nunclear" if is_unclear(d.lower, d.upper, 1.0) else ""
    return f"Dim. {d.dimension}\nHR {decimal(d.hazard_ratio, 2)}{doubt}"


def _strip_row(d: Dimension, strip: Strip) -> tuple[str, ...]:
    change = strip.difference
    rise, fall = max(float(change.max()), 0.0), min(float(change.min()), 0.0)
    said = hazard_ratio_text(d.hazard_ratio, d.lower, d.upper)
    return (str(d.dimension), decimal(float(np.abs(change).mean()), 3), decimal(rise, 3), decimal(fall, 3), said)


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
