"""Pictures of attributions: labelled, symmetric about zero, the right way round, and names that never overlap."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from report.explanations_over_time import attribution, picture_attribution
from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.figures.attribution_axes import signed_colours
from survlens.report.figures.attribution_curves import (
    draw_attribution_curves,
    draw_explained_prediction,
    draw_prediction,
)
from survlens.report.figures.attribution_force import draw_attribution_force
from survlens.report.figures.attribution_interactions import draw_interactions
from survlens.report.figures.attribution_labels import spread
from survlens.report.figures.attribution_maps import draw_attribution_maps
from survlens.report.figures.attribution_pictures import maps_of, symmetric_limit, top_mask
from survlens.report.figures.attribution_ranking import Importances, draw_attribution_ranking
from survlens.report.figures.attribution_removal import RemovalLine, draw_removal
from survlens.report.figures.attribution_shares import draw_attribution_shares, draw_attribution_stack
from survlens.report.figures.attribution_swarm import draw_attribution_swarm, offsets, rank_shares
from survlens.report.figures.attribution_volumes import draw_attribution_slices
from survlens.report.figures.attribution_words import moment, target_unit, target_words
from survlens.report.figures.canvas import new_figure
from survlens.report.palette import SERIES

NAN = [float("nan")]


def texts(figure):
    """Every text that is drawn, with its box."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            edge = 1e-9 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - edge <= tick.get_loc() <= high + edge:
                    hidden |= {tick.label1, tick.label2}
    found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    boxes = [(t.get_text(), Text.get_window_extent(t)) for t in found]
    return [(said, box) for said, box in boxes if box.width > 0]


def check_layout(figure):
    """No two texts overlap by more than a pixel, and none leaves the figure."""
    boxes = texts(figure)
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, up) <= 1.0, f"{first!r} overlaps {second!r}"
    for said, box in boxes:
        assert min(box.x0, box.y0) > -2, said
        assert box.x1 < figure.bbox.width + 2, said
        assert box.y1 < figure.bbox.height + 2, said


def test_the_check_of_overlaps_finds_one():
    axes = new_figure(3, 2).add_subplot()
    axes.text(0.5, 0.5, "first")
    axes.text(0.52, 0.5, "second")
    with pytest.raises(AssertionError, match="overlaps"):
        check_layout(axes.figure)


def equal_ends(features=20, **settings):
    made = attribution(1, features, **settings)
    values = 0.02 + 1e-7 * torch.arange(features)[None, :, None] * torch.ones(1, 1, len(made.times))
    return replace(made, values=values.double(), sampling_error=None)


def ranking(sets=1, features=12):
    size = np.abs(np.random.default_rng(0).normal(size=features)) * 0.05
    made = [Importances(f"group {k}", size * (1 + k / 3), size * 0.8, size * 1.5) for k in range(sets)]
    return draw_attribution_ranking([f"covariate {k}" for k in range(features)], made, label="Mean |φ| (probability)")


def removal():
    share = np.linspace(0, 1, 11)
    line = RemovalLine(share, share, share - 0.1, share + 0.1)
    return draw_removal(line, RemovalLine(share, share / 2), label="|change of survival| (probability)")


def interactions(count=6):
    values = np.random.default_rng(0).normal(size=(count, count))
    names = [f"covariate {k}" for k in range(count)]
    return draw_interactions(values, names, label="Interaction (probability)", title="At 24 months")


def volume_axes(**settings):
    return draw_attribution_slices(picture_attribution(1, depth=6, **settings))[0]


NAMED = [f"covariate with a long name {k}" for k in range(20)]
HARD = {
    "curves": lambda: draw_explained_prediction(attribution(names=NAMED))[0],
    "equal ends": lambda: draw_attribution_curves(equal_ends(), top=20),
    "equal ends, prediction above": lambda: draw_explained_prediction(equal_ends(names=NAMED), top=20)[0],
    "curves without prediction": lambda: draw_attribution_curves(attribution(predicted=False, errors=False)),
    "prediction": lambda: draw_prediction(attribution()),
    "stack": lambda: draw_attribution_stack(attribution(names=NAMED)),
    "equal stack": lambda: draw_attribution_stack(equal_ends()),
    "shares": lambda: draw_attribution_shares(attribution(names=NAMED), None),
    "force": lambda: draw_attribution_force(attribution(names=NAMED), feature_values=np.linspace(0, 1, 20), top=12),
    "equal force": lambda: draw_attribution_force(equal_ends(), top=20),
    "ranking": ranking,
    "subgroups": lambda: ranking(5),
    "interactions": interactions,
    "many interactions": lambda: interactions(20),
    "swarm": lambda: draw_attribution_swarm(
        attribution(30), 20, feature_values=np.random.default_rng(0).random((30, 20))
    ),
    "removal": removal,
    "maps": lambda: draw_attribution_maps(picture_attribution(4), names=["patient A, image 1"] * 4)[0, 0],
    "one map": lambda: draw_attribution_maps(picture_attribution(1, times=(24.0,)), smooth=1.0)[0, 0],
    "many times": lambda: draw_attribution_maps(picture_attribution(2, times=range(1, 9)), times=range(1, 8))[0, 0],
    "slices": volume_axes,
    "slices with letters": lambda: volume_axes(affine=np.diag([1.0, 1.0, 3.0, 1.0])),
    "one time": lambda: draw_explained_prediction(attribution(features=6, times=[24.0]))[0],
    "one time, equal": lambda: draw_attribution_curves(equal_ends(times=[24.0]), top=20),
    "no time": lambda: draw_explained_prediction(attribution(times=NAN, target="restricted_mean"))[0],
    "no time, stack": lambda: draw_attribution_stack(attribution(times=NAN, target="restricted_mean")),
    "no time, shares": lambda: draw_attribution_shares(attribution(times=NAN)),
    "no time, force": lambda: draw_attribution_force(attribution(times=NAN, target="survival_quantile")),
    "no time, swarm": lambda: draw_attribution_swarm(attribution(times=NAN)),
    "no time, maps": lambda: draw_attribution_maps(picture_attribution(1, times=NAN))[0, 0],
    "one feature": lambda: draw_explained_prediction(attribution(1, 1))[0],
    "one feature, stack": lambda: draw_attribution_stack(attribution(1, 1)),
    "one feature, shares": lambda: draw_attribution_shares(attribution(1, 1)),
    "one feature, force": lambda: draw_attribution_force(attribution(1, 1)),
    "one instance, swarm": lambda: draw_attribution_swarm(attribution(1, 1)),
    "one feature, interactions": lambda: interactions(1),
}


@pytest.mark.parametrize("name", HARD)
def test_texts_never_overlap(name):
    from matplotlib.axes import Axes

    axes = HARD[name]()
    assert isinstance(axes, Axes)
    check_layout(axes.figure)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("draw", [draw_attribution_curves, draw_attribution_stack, draw_attribution_force])
def test_texts_never_overlap_on_any_values(draw, seed):
    check_layout(draw(attribution(1, 14, seed=seed, times=[3.0, 17.0, 18.0]), top=14).figure)


def test_every_asked_name_stands_in_the_figure():
    said = {text for text, _ in texts(draw_attribution_curves(equal_ends(), top=20).figure)}
    assert {f"covariate {number}" for number in range(1, 21)} <= said


def test_low_axes_name_only_what_fits():
    axes = new_figure(3.5, 1.4).add_subplot()
    assert draw_attribution_curves(equal_ends(), top=20, ax=axes) is axes
    check_layout(axes.figure)


@pytest.mark.parametrize(
    "draw",
    [draw_attribution_curves, draw_attribution_stack, draw_attribution_shares, draw_attribution_force, draw_prediction],
)
def test_given_axes_are_used(draw):
    axes = new_figure(5, 4).add_subplot()
    assert draw(attribution(features=5), ax=axes) is axes


def test_features_keep_their_colour_among_figures():
    made = attribution(2, 4)
    names = [f"covariate {number}" for number in (1, 2, 3, 4)]
    for row in (0, 1):
        axes = draw_attribution_curves(made, row, order=names)
        drawn = {line.get_color(): line.get_ydata() for line in axes.get_lines() if len(line.get_ydata()) == 20}
        for number in range(4):
            assert drawn[SERIES[number]] == pytest.approx(made.values[row, number].numpy())


UNITS = [
    ("survival", "Contribution to survival (probability)"),
    ("hazard_rate", "Contribution to hazard rate (per month)"),
    ("restricted_mean", "Contribution to restricted mean survival time (months)"),
    ("incidence_2", "Contribution to cumulative incidence of cause 2 (probability)"),
    ("cumulative_hazard", "Contribution to cumulative hazard (no unit)"),
]


@pytest.mark.parametrize(("target", "label"), UNITS)
def test_axes_are_labelled_with_units(target, label):
    axes = draw_attribution_curves(attribution(features=3, target=target))
    assert axes.get_ylabel().replace("\n", " ") == label
    assert axes.get_xlabel() == "Time (months)"


def test_mean_times_are_up_to_a_time_and_others_at_it():
    assert moment(12.0, "restricted_mean", "months") == "up to 12 months"
    assert moment(12.0, "survival", "months") == "at 12 months"
    assert moment(float("nan"), "survival_quantile", "months") == "over the whole curve"


def test_unknown_targets_are_named_as_they_are():
    assert (target_words("my_score"), target_unit("my_score", "months")) == ("my score", "")


def test_a_value_of_the_whole_curve_has_no_time():
    axes = draw_attribution_curves(attribution(features=3, times=NAN, target="restricted_mean"))
    assert axes.get_xlabel() == "One value for the whole curve"


def test_values_that_do_not_add_up_are_not_called_contributions():
    axes = draw_attribution_curves(replace(attribution(features=3), additive=False, method="Grad"))
    assert axes.get_ylabel().replace("\n", " ") == "Attribution to survival (scale of Grad)"
    for draw in (draw_attribution_stack, draw_attribution_force):
        with pytest.raises(InvalidValueError, match="add up"):
            draw(replace(attribution(), additive=False))


@pytest.mark.parametrize(
    ("wanted", "gap", "expected"),
    [
        ([0.0, 0.0], 1.0, [-0.5, 0.5]),
        ([0.0, 5.0], 1.0, [0.0, 5.0]),
        ([9.0, 9.0, 0.0], 2.0, [8.0, 10.0, 0.0]),
        ([-20.0, -20.0], 2.0, [-10.0, -8.0]),
    ],
)
def test_names_stay_as_near_as_the_room_allows(wanted, gap, expected):
    assert spread(np.array(wanted), gap, -10, 10) == pytest.approx(expected)


def test_spread_is_the_nearest_in_squares():
    from scipy.optimize import minimize

    rng = np.random.default_rng(3)
    wanted = np.sort(rng.normal(size=6) * 2)
    limits = [{"type": "ineq", "fun": lambda y, k=k: y[k + 1] - y[k] - 1.0} for k in range(5)]
    slow = minimize(lambda y: ((y - wanted) ** 2).sum(), np.arange(6.0) - 3, constraints=limits, bounds=[(-4, 4)] * 6)
    assert spread(wanted, 1.0, -4, 4) == pytest.approx(slow.x, abs=1e-4)


def pixels(axes):
    """The drawn picture of an axes, as pixels (row, column, 3)."""
    figure = axes.figure
    figure.canvas.draw()
    box = axes.get_window_extent()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)
    height = drawn.shape[0]
    return drawn[round(height - box.y1) + 2 : round(height - box.y0) - 2, round(box.x0) + 2 : round(box.x1) - 2]


@pytest.mark.parametrize("place", [(0, 0), (0, 9), (7, 0), (7, 9), (2, 7)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_pixel_is_drawn_where_it_is(place, sign):
    values = np.zeros((1, 3, 8, 10, 1))
    values[0, :, place[0], place[1]] = sign
    planted = Attribution(
        torch.from_numpy(values), torch.tensor([12.0]), "months", "survival", "x", picture_attribution().dims
    )
    panels = draw_attribution_maps(planted, np.full((1, 3, 8, 10), 0.8), limit=1.0)
    for axes in panels[0, 1:]:
        drawn = pixels(axes)
        unlike = np.abs(drawn - np.median(drawn, axis=(0, 1))).max(axis=2) > 30
        rows, columns = np.nonzero(unlike)
        found = rows.mean() / drawn.shape[0] * 8 - 0.5, columns.mean() / drawn.shape[1] * 10 - 0.5
        assert found == pytest.approx(place, abs=0.35)
    drawn = pixels(panels[0, 1])
    red, _, blue = drawn[np.abs(drawn - np.median(drawn, axis=(0, 1))).max(axis=2) > 30].mean(axis=0)
    assert (red > blue) == (sign > 0)


def test_the_picture_itself_is_upright():
    picture = np.zeros((1, 1, 16, 20))
    picture[0, 0, :3, :3] = 1
    drawn = pixels(draw_attribution_maps(picture_attribution(1), picture)[0, 0])
    assert drawn[2, 2].mean() > 200
    assert drawn[-3, 2].mean() < 50
    assert drawn[2, -3].mean() < 50


def bar_limits(axes):
    return [bar.get_ylim() for bar in axes.figure.axes if bar.get_label() == "<colorbar>"]


@pytest.mark.parametrize("draw", [lambda: HARD["maps"](), volume_axes, interactions])
def test_limits_are_symmetric(draw):
    ((low, high),) = bar_limits(draw())
    assert low == -high
    assert high > 0


def test_one_limit_serves_all_pictures_and_times():
    maps = picture_attribution(3)
    ((_, high),) = bar_limits(draw_attribution_maps(maps)[0, 0])
    assert high == pytest.approx(np.quantile(np.abs(maps_of(maps)), 0.995))
    assert symmetric_limit(np.zeros((2, 3))) == 1.0


def test_colours_grow_darker_with_size_in_greyscale():
    grey = signed_colours()(np.linspace(0, 1, 257))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert grey[128] == pytest.approx(1.0)
    assert (np.diff(grey[:129]) > -1e-9).all()
    assert (np.diff(grey[128:]) < 1e-9).all()


def test_smoothing_is_said_and_keeps_the_sum():
    maps = picture_attribution(1)
    values = np.zeros(maps.values.shape)
    values[0, 1, 8, 8] = 2.0
    planted = replace(maps, values=torch.from_numpy(values))
    smooth = maps_of(planted, 1.0)
    assert smooth.sum(axis=(1, 2)) == pytest.approx(np.full((1, 2), 2.0))
    assert smooth.max() < 1
    assert "σ = 1.5 px" in draw_attribution_maps(planted, smooth=1.5)[0, 0].figure.get_suptitle()
    assert "raw" in draw_attribution_maps(planted)[0, 0].figure.get_suptitle()


def test_masked_view_keeps_the_asked_share():
    size = np.abs(np.random.default_rng(0).normal(size=(20, 30)))
    mask = top_mask(size, 0.1)
    assert mask.sum() == 60
    assert size[mask].min() > size[~mask].max()
    assert not top_mask(np.zeros((3, 3)), 0.5).any()


def test_bags_name_instance_and_item():
    panels = draw_attribution_maps(picture_attribution(3, rows=[0, 1, 1]))
    said = [axes.get_ylabel().replace("\n", " ") for axes in panels[:, 0]]
    assert said == ["instance 1, item 1", "instance 2, item 1", "instance 2, item 2"]


def test_items_of_a_bag_add_up_in_a_list():
    made = attribution(3, 4, errors=False, predicted=False)
    bag = replace(made, rows=torch.tensor([0, 0, 1]))
    line = draw_attribution_curves(bag, 0, top=4)
    wanted = made.values[:2].sum(0).numpy()
    drawn = [each.get_ydata() for each in line.get_lines() if len(each.get_ydata()) == 20]
    assert all(any(np.allclose(row, each) for each in drawn) for row in wanted)


def test_one_affine_places_every_axis_on_the_page():
    """A scan stored back to front, and head first, is drawn as radiologists read it: R left, A and S on top."""
    values = np.zeros((1, 1, 6, 8, 4, 1))
    values[0, 0, 1, 6, 3] = 1.0
    affine = np.array([[0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
    planted = Attribution(
        torch.from_numpy(values), torch.tensor([12.0]), "months", "survival", "x",
        ("channel", "height", "width", "depth"), affine=affine,
    )  # fmt: skip
    axes = draw_attribution_slices(planted, limit=1.0)
    assert [each.get_title("center").split(",")[0] for each in axes] == ["axial", "coronal", "sagittal"]
    # Height runs to the front, so row 1 of 6 is near the back: low on the axial page. Width runs to the left.
    shown = [np.argwhere(np.asarray(each.images[1].get_array())[..., 3] > 0)[0].tolist() for each in axes]
    assert shown == [[4, 6], [0, 6], [0, 4]]
    assert [each.get_aspect() for each in axes] == [1.0, 3.0, 3.0]


def test_slices_meet_at_the_largest_voxel_or_where_asked():
    maps = picture_attribution(1, depth=5)
    values = np.zeros(maps.values.shape)
    values[0, :, 3, 9, 4] = -1.0
    planted = replace(maps, values=torch.from_numpy(values))
    titles = [each.get_title("center") for each in draw_attribution_slices(planted)]
    assert titles == ["depth, slice 4", "width, slice 9", "height, slice 3"]
    titles = [each.get_title("center") for each in draw_attribution_slices(planted, voxel=(0, 1, 2))]
    assert titles == ["depth, slice 2", "width, slice 1", "height, slice 0"]


def test_force_goes_from_reference_to_prediction():
    made = attribution(2, 5)
    axes = draw_attribution_force(made, 1, 30.0)
    ends = [float(line.get_xdata()[0]) for line in axes.get_lines() if line.get_marker() == "D"]
    column = int(np.argmin(np.abs(made.times.numpy() - 30)))
    assert ends == pytest.approx([float(made.reference_prediction[1, column]), float(made.prediction[1, column])])


def test_force_says_what_other_inputs_and_the_gap_leave_open():
    made = attribution(1, 4)
    gap = torch.full_like(made.completeness_gap, 0.05)
    wide = replace(made, completeness_gap=gap, prediction=made.prediction + 0.15)
    said = {text for text, _ in texts(draw_attribution_force(wide).figure)}
    assert {"other inputs", "completeness gap", "+0.050", "+0.100"} <= said


def test_shares_sum_to_all():
    axes = draw_attribution_shares(attribution(4, 9), None, top=3)
    tops = np.max([path.vertices[:, 1].max() for band in axes.collections for path in band.get_paths()])
    assert tops == pytest.approx(100)


def test_stack_ends_at_the_sum():
    made = attribution(1, 9)
    axes = draw_attribution_stack(made, top=3)
    (line,) = [each for each in axes.get_lines() if each.get_color() == "#1a1a1a"]
    assert np.interp(made.times, line.get_xdata(), line.get_ydata()) == pytest.approx(made.total[0].numpy())


@pytest.mark.parametrize("count", [1, 5, 400])
def test_points_stay_in_the_panel(count):
    axes = draw_attribution_swarm(attribution(count, 6), feature_values=np.random.default_rng(0).random((count, 6)))
    axes.figure.draw_without_rendering()
    box = axes.get_window_extent()
    for points in axes.collections:
        at = axes.transData.transform(points.get_offsets())
        radius = np.sqrt(points.get_sizes().max()) / 2 * axes.figure.dpi / 72
        assert (at - radius >= [box.x0, box.y0]).all()
        assert (at + radius <= [box.x1, box.y1]).all()


def test_points_of_one_value_do_not_hide_each_other():
    away = offsets(np.full(9, 0.5), (0.0, 1.0))
    assert len(set(away.tolist())) == 9
    assert np.abs(away).max() <= 0.38
    assert away.mean() == pytest.approx(0)


def test_ranks_of_values():
    assert rank_shares(np.array([3.0, 1.0, np.nan, 3.0, 7.0])) == pytest.approx(
        [0.5, 0.0, np.nan, 0.5, 1.0], nan_ok=True
    )
    assert rank_shares(np.array([2.0, 2.0])) == pytest.approx([0.5, 0.5])


def test_the_most_important_feature_stands_on_top():
    size = np.array([0.1, 0.3, 0.2])
    axes = draw_attribution_ranking(["a", "b", "c"], [Importances("all", size, size, size)], label="x (y)")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


WRONG = [
    (lambda: draw_attribution_curves(attribution(), 3), "`row`"),
    (lambda: draw_attribution_curves(attribution(), top=0), "`top`"),
    (lambda: draw_attribution_curves(picture_attribution()), "one axis of features"),
    (lambda: draw_prediction(attribution(predicted=False)), "prediction"),
    (lambda: draw_attribution_force(attribution(), feature_values=[1]), "`feature_values`"),
    (lambda: draw_attribution_maps(attribution()), "channel, height, width"),
    (lambda: draw_attribution_maps(picture_attribution(), np.zeros((2, 3, 4, 4))), "`pictures`"),
    (lambda: draw_attribution_maps(picture_attribution(), smooth=-1), "`smooth`"),
    (lambda: draw_attribution_maps(picture_attribution(), top_share=0), "`share`"),
    (lambda: draw_attribution_maps(picture_attribution(), limit=0), "`limit`"),
    (lambda: draw_attribution_maps(picture_attribution(depth=3)), "slices"),
    (lambda: draw_attribution_slices(picture_attribution(depth=3), voxel=(0, 0, 9)), "`voxel`"),
    (lambda: draw_attribution_slices(picture_attribution(depth=3), mask=np.zeros((2, 2, 2))), "`mask`"),
    (lambda: draw_interactions(np.zeros((2, 3)), ["a", "b"], label="x"), "square"),
    (lambda: draw_attribution_ranking(["a"], [], label="x"), "`sets`"),
    (lambda: RemovalLine(np.zeros(3), np.zeros(2)), "per share"),
]


@pytest.mark.parametrize(("call", "told"), WRONG)
def test_what_cannot_be_drawn_is_refused(call, told):
    with pytest.raises(InvalidValueError, match=told):
        call()
