"""Pictures of an explanation over time, each with its caption and the data behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from survlens.core.attribution import Attribution
from survlens.report.blocks import Block, Column, Paragraph, Plot, Table, thinned
from survlens.report.figures.attribution_axes import figure_of
from survlens.report.figures.attribution_curves import draw_attribution_curves, draw_explained_prediction
from survlens.report.figures.attribution_force import draw_attribution_force
from survlens.report.figures.attribution_maps import draw_attribution_maps
from survlens.report.figures.attribution_removal import RemovalLine, draw_removal
from survlens.report.figures.attribution_shares import draw_attribution_stack
from survlens.report.figures.attribution_volumes import draw_attribution_slices
from survlens.report.figures.attribution_words import (
    listed,
    names_of,
    target_unit,
    target_words,
    when,
    with_unit,
)
from survlens.report.over_time_records import CheckCurve, ExplanationOverTime
from survlens.report.wording import MISSING, compact

GROUPS = "groups"
"""Key of the contributions of whole covariates and images."""

_MOST_ITEMS = 3
_MOST_ROWS = 15
_SMOOTH_SHARE, _LEAST_SHARE = 64, 16
_NAMES = "ABCDEFGH"


def patient_name(place: int) -> str:
    """What a chosen patient is called; no name or number of the data appears."""
    return f"patient {_NAMES[place % len(_NAMES)]}"


def _first_capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def features_in_a_list(explanation: ExplanationOverTime) -> tuple[str, Attribution] | None:
    """The contributions that lines and steps are drawn of: groups, else the first list of features."""
    order = [GROUPS, *explanation.attributions]
    found = ((name, explanation.attributions.get(name)) for name in order)
    return next(((name, each) for name, each in found if each is not None and len(each.dims) == 1), None)


def colour_order(attribution: Attribution) -> list[str]:
    """Names of features by mean absolute contribution over all, so that each keeps its colour among the figures."""
    size = np.abs(np.nan_to_num(listed(attribution))).mean(axis=(0, 2))
    names = names_of(attribution)
    return [names[feature] for feature in np.argsort(-size, kind="stable")]


def chosen_pictures(explanation: ExplanationOverTime, key: str) -> list[Block]:
    """Curves, stacks, steps and maps of the chosen patients."""
    blocks: list[Block] = []
    lines = features_in_a_list(explanation)
    if lines is None:
        blocks.append(Paragraph("Left out: curves per feature, since no list of features was explained.", small=True))
    else:
        name, attribution = lines
        for place, row in sorted(explanation.shown[name].items()):
            blocks += _of_patient(explanation, attribution, row, place, key)
    for name, attribution in explanation.attributions.items():
        if "height" in attribution.dims:
            blocks += _of_pictures(explanation, name, attribution, key)
    return blocks


def _of_patient(
    explanation: ExplanationOverTime, attribution: Attribution, row: int, place: int, key: str
) -> list[Block]:
    whom, said = patient_name(place), target_words(explanation.target)
    middle, order = (len(attribution.times) - 1) // 2, colour_order(attribution)
    data = _curve_table(attribution, row)
    if attribution.prediction is not None:
        upper, _ = draw_explained_prediction(attribution, row, order=order)
        mean = "" if attribution.reference_prediction is None else ", and its mean over the references"
        caption = f"{_first_capital(whom)}. Above: the predicted {said}{mean}. Below: "
    else:
        upper = draw_attribution_curves(attribution, row, order=order)
        caption = f"{_first_capital(whom)}: "
    caption += f"what each input adds to the {said}, or takes from it, by {explanation.method}."
    blocks: list[Block] = [Plot(f"{key}-curves-{place + 1}", figure_of(upper), caption, f"Line plot. {caption}", data)]
    if not attribution.additive:
        return blocks
    if len(attribution.times) > 1 and len(names_of(attribution)) > 1:
        stack = draw_attribution_stack(attribution, row, order=order)
        told = (
            f"{_first_capital(whom)}: the same contributions stacked, up where they raise the {said}, down where they "
        )
        told += "lower it. Black line: their sum."
        blocks.append(Plot(f"{key}-stack-{place + 1}", figure_of(stack), told, f"Stacked bands. {told}", data))
    time = float(attribution.times[middle])
    force = draw_attribution_force(attribution, row, time)
    told = (
        f"{_first_capital(whom)} {when(attribution, middle)}"
        f"{', the middle of the times' if len(attribution.times) > 1 else ''}: from the mean prediction of the "
        f"references to the prediction. Arrows to the right raise the {said}."
    )
    if attribution.sampling_error is not None:
        told += " SE: standard error from drawing references."
    blocks.append(Plot(f"{key}-steps-{place + 1}", figure_of(force), told, f"Arrows, one per input. {told}", data))
    return blocks


def _curve_table(attribution: Attribution, row: int) -> Table:
    values, names = np.nan_to_num(listed(attribution)[row]), names_of(attribution)
    order = np.argsort(-np.abs(values).mean(axis=1), kind="stable")[:_MOST_ROWS]
    columns = thinned(len(attribution.times), 5)
    heads = (Column("Input", numeric=False), *(Column(when(attribution, c).capitalize()) for c in columns))
    rows = tuple((names[f], *(compact(float(values[f, c])) for c in columns)) for f in order)
    note = "" if len(order) == len(names) else f"The largest {len(order)} of {len(names)}."
    return Table("Data of this figure, thinned", heads, rows, note=note)


def _of_pictures(explanation: ExplanationOverTime, name: str, attribution: Attribution, key: str) -> list[Block]:
    """Maps of the chosen patients over their pictures, or slices of volumes."""
    places = explanation.shown[name]
    if not places:
        return [Paragraph(f"Left out: maps of {name}, since those of the chosen patients were not kept.", small=True)]
    rows = np.arange(len(attribution)) if attribution.rows is None else attribution.rows.cpu().numpy()
    items, labels, left = [], [], 0
    for place, row in sorted(places.items()):
        own = np.flatnonzero(rows == row)
        left += max(len(own) - _MOST_ITEMS, 0)
        for count, item in enumerate(own[:_MOST_ITEMS], start=1):
            items.append(int(item))
            labels.append(patient_name(place) + (f", image {count}" if len(own) > 1 else ""))
    chosen = _items_of(attribution, items)
    pictures = _pictures_of(explanation, places, rows, items)
    told = "" if left == 0 else f" Not drawn: {left} further images of these patients."
    if "depth" in attribution.dims:
        return _of_volumes(explanation, chosen, pictures, labels, f"{key}-{name}", told)
    chosen, enlarged = _enlarged(chosen, pictures)
    told += enlarged
    size = chosen.values.shape[1 + chosen.dims.index("width")]
    smooth = min(max(size / _SMOOTH_SHARE, 1.0), size / _LEAST_SHARE)
    blocks: list[Block] = []
    for way, width in (("smoothed", smooth), ("raw", 0.0)):
        panels = draw_attribution_maps(chosen, pictures, names=labels, smooth=width)
        caption = (
            f"Where the {name} moves the {target_words(explanation.target)}, over time, "
            f"{f'smoothed by a Gaussian (σ = {compact(width)} px)' if width else 'pixel by pixel'}. Orange and solid "
            "outlines: raises it. Blue and dashed outlines: lowers it. One scale for all. Last column: the picture "
            f"only where the mean absolute map is in its largest tenth.{told}"
        )
        if pictures is None:
            caption += " The pictures themselves were not kept."
        blocks.append(
            Plot(
                f"{key}-{name}-{way}",
                figure_of(panels[0, 0]),
                caption,
                f"Grid of maps. {caption}",
                _map_table(chosen, labels),
                wide=True,
            )
        )
    return blocks


def _enlarged(attribution: Attribution, pictures: np.ndarray | None) -> tuple[Attribution, str]:
    """Maps of fewer pixels than their pictures, drawn as large as these, and a sentence that says so."""
    shape = attribution.numpy().shape
    at = 1 + attribution.dims.index("height")
    if pictures is None or pictures.shape[-2:] == shape[at : at + 2]:
        return attribution, ""
    from scipy.ndimage import zoom

    factors = np.ones(len(shape))
    factors[at : at + 2] = np.array(pictures.shape[-2:]) / np.array(shape[at : at + 2])
    large = zoom(attribution.numpy().astype(np.float64), factors, order=1, mode="nearest", grid_mode=True)
    said = f" Maps of {shape[at]} × {shape[at + 1]} values, enlarged to the pictures by interpolation."
    return replace(attribution, values=torch.from_numpy(large)), said


def _items_of(attribution: Attribution, items: Sequence[int]) -> Attribution:
    """Some items as instances of their own, without what stands per instance."""
    at = np.asarray(items)
    affine = attribution.affine
    if affine is not None and np.ndim(affine) == 3:
        rows = at if attribution.rows is None else attribution.rows.cpu().numpy()[at]
        affine = affine[rows]
    return Attribution(
        attribution.values[at], attribution.times, attribution.unit, attribution.target, attribution.method,
        attribution.dims, additive=attribution.additive, affine=affine,
    )  # fmt: skip


def _pictures_of(
    explanation: ExplanationOverTime, places: Mapping[int, int], rows: np.ndarray, items: Sequence[int]
) -> np.ndarray | None:
    """Pictures of the items, where as many were kept of each patient as were explained."""
    if explanation.pictures is None:
        return None
    of_item: dict[int, int] = {}
    for place, row in places.items():
        own, kept = np.flatnonzero(rows == row), np.flatnonzero(explanation.picture_rows == place)
        if len(own) != len(kept):
            return None
        of_item |= dict(zip(own.tolist(), kept.tolist(), strict=True))
    return explanation.pictures[[of_item[item] for item in items]]


def _of_volumes(
    explanation: ExplanationOverTime,
    attribution: Attribution,
    pictures: np.ndarray | None,
    labels: Sequence[str],
    key: str,
    told: str,
) -> list[Block]:
    blocks: list[Block] = []
    for item, label in enumerate(labels):
        volume = None if pictures is None else pictures[item]
        axes = draw_attribution_slices(attribution, item, volume=volume)
        caption = (
            f"{_first_capital(label)}: slices through the voxel that moves the {target_words(explanation.target)} "
            f"most, {when(attribution, len(attribution.times) - 1)}.{told}"
        )
        table = _map_table(_items_of(attribution, [item]), [label])
        blocks.append(
            Plot(f"{key}-slices-{item + 1}", figure_of(axes[0]), caption, f"Three slices. {caption}", table, wide=True)
        )
    return blocks


def _map_table(attribution: Attribution, labels: Sequence[str]) -> Table:
    """Sums and extremes of each map at a few times."""
    heads = (Column("Map", numeric=False), *(Column(head) for head in ("Time", "Sum", "Largest", "Smallest")))
    values = attribution.numpy().astype(np.float64)
    rows = []
    for item, label in enumerate(labels):
        for column in thinned(len(attribution.times), 5):
            here = values[item, ..., column]
            stated = (here.sum(), here.max(), here.min())
            rows.append((label, when(attribution, column), *(compact(float(each)) for each in stated)))
    return Table("Data of this figure, summarised", heads, tuple(rows))


def removal_picture(explanation: ExplanationOverTime, key: str) -> list[Block]:
    """The deletion curve against random order, where there is one."""
    curves = {} if explanation.checks is None else explanation.checks.curves
    found = curves.get("deletion")
    if found is None:
        return [Paragraph("Left out: the deletion curve, since it was not computed.", small=True)]
    random = curves.get("random")
    unit = target_unit(explanation.target, explanation.unit)
    said = target_words(explanation.target)
    axes = draw_removal(
        _line(found), None if random is None else _line(random), label=with_unit(f"|change of {said}|", unit)
    )
    caption = (
        f"Change of the predicted {said} as inputs are removed in the order of the explanation"
        f"{', and in random order' if random is not None else ''}, mean over patients and times. The faster the first "
        "curve rises above the second, the better the explanation found what the prediction rests on."
    )
    heads = (Column("Share removed"), Column("Order of the explanation"), Column("Random order"))
    places = thinned(len(found.share), 6)
    same = random is not None and random.value.shape == found.value.shape
    rows = tuple(
        (
            f"{100 * found.share[k]:.0f} %",
            compact(float(found.value[k])),
            compact(float(random.value[k])) if same and random is not None else MISSING,
        )
        for k in places
    )
    table = Table("Data of this figure, thinned", heads, rows)
    return [Plot(f"{key}-deletion", figure_of(axes), caption, f"Line plot. {caption}", table)]


def _line(curve: CheckCurve) -> RemovalLine:
    known = len(curve.lower) and len(curve.upper)
    return RemovalLine(curve.share, curve.value, curve.lower if known else None, curve.upper if known else None)
