"""What matters over all explained patients: ranking, subgroups, shares over time, every patient at one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from survlens.core.attribution import Attribution
from survlens.report.blocks import Block, Cell, Column, Estimate, Plot, Table, thinned
from survlens.report.figures.attribution_axes import figure_of
from survlens.report.figures.attribution_ranking import Importances, draw_attribution_ranking
from survlens.report.figures.attribution_shares import draw_attribution_shares
from survlens.report.figures.attribution_swarm import draw_attribution_swarm
from survlens.report.figures.attribution_words import listed, names_of, target_unit, target_words, when, with_unit
from survlens.report.over_time_records import ExplanationOverTime, RankedFeature
from survlens.report.sections.over_time_pictures import colour_order, features_in_a_list
from survlens.report.wording import MISSING, compact

_MOST_SETS = 5
_MOST_ROWS = 15
_SWARM_FROM = 10


def importance_pictures(explanation: ExplanationOverTime, key: str) -> list[Block]:
    """What matters over all explained patients: ranking, subgroups, shares over time, and every patient at one time."""
    blocks: list[Block] = []
    ranking = explanation.ranking
    lines = features_in_a_list(explanation)
    label = with_unit(
        f"mean |contribution| to {target_words(explanation.target)}", target_unit(explanation.target, explanation.unit)
    )
    if lines is not None and not lines[1].additive:
        label = f"mean |attribution| to {target_words(explanation.target)} (scale of {lines[1].method})"
    if ranking is not None and ranking.features:
        known = any(each.lower is not None for each in ranking.features)
        caption = (
            f"What matters over all {explanation.patients} explained patients: mean absolute contribution, averaged "
            f"over times{', with 95 % intervals over patients' if known else ''}."
        )
        names = [each.feature for each in ranking.features]
        axes = draw_attribution_ranking(names, [_importances("all", names, ranking.features)], label=label)
        table = _ranking_table(ranking.features)
        blocks.append(Plot(f"{key}-ranking", figure_of(axes), caption, f"Dot plot. {caption}", table))
        for number, (column, values) in enumerate(ranking.subgroups.items(), start=1):
            if len(values) <= _MOST_SETS:
                blocks.append(_subgroup_plot(f"{key}-ranking-{number}", names, column, values, label))
    if lines is None or lines[1].instances < 2:
        return blocks
    attribution = lines[1]
    if len(attribution.times) > 1 and len(names_of(attribution)) > 1:
        axes = draw_attribution_shares(attribution, None, order=colour_order(attribution))
        caption = "Share of each input in the absolute contributions over time, mean over the explained patients."
        table = _share_table(attribution)
        blocks.append(Plot(f"{key}-shares", figure_of(axes), caption, f"Stacked bands. {caption}", table))
    if attribution.instances >= _SWARM_FROM:
        middle = (len(attribution.times) - 1) // 2
        axes = draw_attribution_swarm(attribution, float(attribution.times[middle]))
        caption = f"Contributions {when(attribution, middle)}: one point per explained patient and input."
        blocks.append(
            Plot(
                f"{key}-swarm",
                figure_of(axes),
                caption,
                f"Clouds of points. {caption}",
                _swarm_table(attribution, middle),
            )
        )
    return blocks


def _importances(label: str, names: Sequence[str], features: Sequence[RankedFeature]) -> Importances:
    """Importances in the order of `names`; NaN where a feature is absent."""
    by_name = {each.feature: each for each in features}
    nothing = RankedFeature("", "", float("nan"), None, None, None, None, None)
    found = [by_name.get(name, nothing) for name in names]
    lower, upper = (
        np.array([np.nan if limit is None else limit for limit in limits])
        for limits in ([each.lower for each in found], [each.upper for each in found])
    )
    return Importances(label, np.array([each.importance for each in found]), lower, upper)


def _subgroup_plot(
    name: str,
    features: Sequence[str],
    column: str,
    values: Mapping[str, tuple[RankedFeature, ...]],
    label: str,
) -> Plot:
    drawn = [_importances(f"{column}: {value.removesuffix('.0')}", features, found) for value, found in values.items()]
    axes = draw_attribution_ranking(features, drawn, label=label)
    caption = f"The same by {column}, in the order of the first group. Groups differ by their patients too."
    heads = (Column("Input", numeric=False), *(Column(each.label) for each in drawn))
    rows = tuple(
        (feature, *(_interval(each.importance[k], each.lower[k], each.upper[k]) for each in drawn))
        for k, feature in enumerate(features)
    )
    return Plot(name, figure_of(axes), caption, f"Dot plot. {caption}", Table("Data of this figure", heads, rows))


def _interval(value: float, lower: float | None, upper: float | None) -> Cell:
    if not np.isfinite(value):
        return MISSING
    if lower is None or upper is None or not np.isfinite(lower) or not np.isfinite(upper):
        return Estimate(compact(float(value)))
    return Estimate(compact(float(value)), f"{compact(float(lower))} to {compact(float(upper))}")


def _ranking_table(features: Sequence[RankedFeature]) -> Table:
    heads = (Column("Input", numeric=False), Column("Part", numeric=False), Column("Importance"), Column("Rank"))
    rows = tuple(
        (each.feature, each.modality or MISSING, _interval(each.importance, each.lower, each.upper), _rank(each))
        for each in features
    )
    return Table("Data of this figure", heads, rows, note="95 % intervals of importance and rank.")


def _rank(each: RankedFeature) -> Cell:
    return MISSING if each.rank is None else _interval(each.rank, each.rank_lower, each.rank_upper)


def _share_table(attribution: Attribution) -> Table:
    size = np.abs(np.nan_to_num(listed(attribution))).mean(axis=0)
    whole = size.sum(axis=0)
    share = np.divide(100 * size, whole, out=np.zeros_like(size), where=whole > 0)
    names, columns = names_of(attribution), thinned(len(attribution.times), 5)
    order = np.argsort(-share.mean(axis=1), kind="stable")[:_MOST_ROWS]
    heads = (Column("Input", numeric=False), *(Column(when(attribution, c).capitalize()) for c in columns))
    rows = tuple((names[f], *(f"{share[f, c]:.1f} %" for c in columns)) for f in order)
    return Table("Data of this figure, thinned", heads, rows)


def _swarm_table(attribution: Attribution, column: int) -> Table:
    values, names = listed(attribution)[:, :, column], names_of(attribution)
    order = np.argsort(-np.nan_to_num(np.abs(values)).mean(axis=0), kind="stable")[:_MOST_ROWS]
    heads = (Column("Input", numeric=False), *(Column(head) for head in ("Lower quartile", "Median", "Upper quartile")))
    quartiles = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
    rows = tuple((names[f], *(compact(float(each)) for each in quartiles[:, f])) for f in order)
    return Table("Data of this figure, summarised", heads, rows)
