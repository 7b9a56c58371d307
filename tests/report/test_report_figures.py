"""Figures: labelled, the same every time, and legible without colour."""

from dataclasses import replace

import numpy as np
import pytest

from survlens.report.content import read_content
from survlens.report.figures.calibration import calibration_figure
from survlens.report.figures.canvas import save_figure, steps
from survlens.report.figures.comparison import Panel, comparison_figure
from survlens.report.figures.curves import error_figure
from survlens.report.figures.embedding import embedding_figure
from survlens.report.figures.groups import risk_group_figure
from survlens.report.figures.training import training_figure
from survlens.report.figures.traversal import Strip, traversal_figure
from survlens.report.palette import DASHES, DIVERGING, MARKERS, SEQUENTIAL, SERIES


def strips(channels=1, size=8):
    rng = np.random.default_rng(0)
    images = rng.random((3, 9, channels, size, size))
    return [Strip(f"Dim. {k}", images[k], images[k, -1] - images[k, 0]) for k in range(3)]


@pytest.fixture(scope="module")
def content(tmp_path_factory, write_run):
    return read_content(write_run(tmp_path_factory.mktemp("figures") / "run"))


def draw(name, content):
    model = content.metrics.model("coxvae_0.5")
    scores = [m.score("concordance_index") for m in content.metrics.models]
    labels, inputs = [m.label for m in content.metrics.models], [m.inputs for m in content.metrics.models]
    return {
        "groups": lambda: risk_group_figure(model.risk_groups, unit="days"),
        "curves": lambda: error_figure([(model.label, model.brier_curve)], unit="days"),
        "calibration": lambda: calibration_figure([(model.label, model.calibration)], unit="days"),
        "comparison": lambda: comparison_figure(labels, [Panel(scores, "C (probability)", 0.5)], inputs=inputs),
        "embedding": lambda: embedding_figure(content.embeddings, unit="days"),
        "training": lambda: training_figure(content.histories),
        "traversal": lambda: traversal_figure(strips(), steps=range(-4, 5), step_unit="latent units"),
    }[name]()


NAMES = ("groups", "curves", "calibration", "comparison", "embedding", "training", "traversal")


@pytest.mark.parametrize("name", NAMES)
def test_axes_are_labelled_with_units(content, name):
    figure = draw(name, content)
    labels = [a.get_xlabel() for a in figure.axes] + [a.get_ylabel() for a in figure.axes]
    told = [label for label in labels if label]
    assert len(told) >= 2 or name == "comparison"
    assert all("(" in label and label.endswith(")") for label in told)


@pytest.mark.parametrize("name", ["groups", "embedding"])
def test_same_values_give_the_same_bytes(content, name, tmp_path):
    files = []
    for turn in ("a", "b"):
        (tmp_path / turn).mkdir()
        save_figure(draw(name, content), tmp_path / turn, name)
        files.append([(tmp_path / turn / f"{name}{end}").read_bytes() for end in (".svg", ".png")])
    assert files[0] == files[1]
    assert b"<dc:date>" not in files[0][0]


def test_figures_ignore_the_users_style_and_pyplot(content, tmp_path):
    import matplotlib
    from matplotlib import _pylab_helpers

    before = save_figure(draw("groups", content), tmp_path, "x")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        assert save_figure(draw("groups", content), tmp_path, "x") == before
    assert not _pylab_helpers.Gcf.figs


def test_series_differ_without_colour():
    assert len({str(d) for d in DASHES}) == len(set(MARKERS)) == len(set(SERIES)) == 6


def test_sequential_colours_grow_lighter_all_the_way():
    import matplotlib

    rgb = matplotlib.colormaps[SEQUENTIAL](np.linspace(0, 1, 64))[:, :3]
    assert (np.diff(rgb @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_zero_change_is_white():
    assert DIVERGING[len(DIVERGING) // 2] == "#ffffff"
    figure = traversal_figure(
        [Strip("d", np.zeros((2, 1, 4, 4)), np.zeros((1, 4, 4)))], steps=[-1, 1], step_unit="latent units"
    )
    (image,) = figure.axes[1].images
    assert np.asarray(image.get_array()).min() == 1.0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_channels_are_drawn(channels, tmp_path):
    save_figure(traversal_figure(strips(channels), steps=range(-4, 5), step_unit="latent units"), tmp_path, "x")


def test_mathematics_and_foreign_scripts_in_names_do_not_break_a_figure(content, tmp_path):
    scores = [content.metrics.models[3].score("concordance_index")] * 2
    labels = ["$x_{", "<script>肺癌</script>"]
    svg, _ = save_figure(
        comparison_figure(labels, [Panel(scores, "C (probability)", 0.5)], inputs=[("image",)] * 2), tmp_path, "x"
    )
    assert b"<script" not in svg


def test_endless_names_leave_room_for_the_curves(content, tmp_path):
    from dataclasses import replace

    found = content.metrics.model("coxvae_0.5").risk_groups
    groups = tuple(replace(group, label="<b>" * 60) for group in found.groups)
    figure = risk_group_figure(replace(found, groups=groups), unit="d" * 200)
    save_figure(figure, tmp_path, "x")
    assert figure.axes[0].get_position().width > 0.5


def test_matplotlib_is_loaded_only_when_a_figure_is_drawn():
    import subprocess
    import sys

    told = "import sys, survlens.report; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0


def test_steps_keep_the_shape_within_what_can_be_seen():
    rng = np.random.default_rng(1)
    times, values = np.sort(rng.random(5000)), np.sort(rng.random(5000))[::-1]
    kept = steps(times, values)
    drawn = kept[np.searchsorted(kept[:, 0], times, side="right") - 1, 1]
    assert np.abs(drawn - values).max() < 0.0015
    assert len(kept) < 1000


def test_missing_values_leave_a_figure_whole(tmp_path):
    save_figure(comparison_figure(["a"], [Panel([None], "C (probability)", 0.5)], inputs=[()]), tmp_path, "x")


def test_steps_where_no_picture_has_been_are_marked():
    figure = traversal_figure(strips(), steps=range(-4, 5), step_unit="standard deviations", trusted=3.0)
    texts = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert [k for k, text in enumerate(texts) if "extrapolated" in text] == [0, 8]


def test_share_of_variance_stands_on_the_axes(content):
    shown = [replace(content.embeddings[0], explained=(0.934, 0.041))]
    axes = embedding_figure(shown, unit="days").axes[0]
    assert axes.get_xlabel() == "PC 1 (93 % of the variance)"
    assert axes.get_ylabel() == "PC 2 (4 % of the variance)"
