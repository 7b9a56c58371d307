"""Global importance: means, ranks and their doubt, where the right answer is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from evaluate.attribution_toys import TIMES, attribution, drawn
from survlens.core.errors import InvalidValueError
from survlens.explain.importance import Regions, global_importance

WEIGHTS = np.array([1 / 6, 1 / 2, 1 / 3])
VALUES = drawn(60, 5, 3) * torch.tensor([1.0, 5.0, 0.1, 2.0, 3.0], dtype=torch.float64)[:, None]


def test_means_and_ranks_are_what_they_say():
    found = global_importance(attribution(VALUES), draws=200)
    size = VALUES.abs().mean(0).numpy()
    np.testing.assert_allclose(found.mean_absolute, size)
    np.testing.assert_allclose(found.signed, VALUES.mean(0).numpy())
    np.testing.assert_allclose(found.importance, size @ WEIGHTS)
    assert found.rank.tolist() == [4, 1, 5, 3, 2]
    assert (found.lower < found.importance).all()
    assert (found.importance < found.upper).all()
    assert (found.rank_lower <= found.rank).all()
    assert (found.rank <= found.rank_upper).all()
    assert found.rank_lower[1] == found.rank_upper[1] == 1
    assert found.feature == ("feature 1", "feature 2", "feature 3", "feature 4", "feature 5")


def test_limits_are_those_of_resampled_instances():
    found = global_importance(attribution(VALUES), draws=2000)
    size = (VALUES.abs().numpy() @ WEIGHTS).std(0) / math.sqrt(60)
    np.testing.assert_allclose((found.upper - found.lower) / (2 * 1.96 * size), 1, atol=0.12)


def test_intervals_cover_the_truth():
    covered = np.zeros(5)
    truth = math.sqrt(2 / math.pi) * np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    for seed in range(60):
        values = drawn(50, 5, 3, seed=seed) * torch.as_tensor(truth * math.sqrt(math.pi / 2))[:, None]
        found = global_importance(attribution(values), draws=200, seed=seed)
        covered += (found.lower <= truth) & (truth <= found.upper)
    assert (covered >= 50).all()


def test_equal_features_share_a_rank_and_single_instances_have_one():
    same = global_importance(attribution(torch.ones(4, 3, 2, dtype=torch.float64)), draws=50)
    assert same.rank.tolist() == same.rank_lower.tolist() == same.rank_upper.tolist() == [1, 1, 1]
    single = global_importance(attribution(VALUES[:1]), draws=50)
    np.testing.assert_allclose(single.lower, single.upper)
    np.testing.assert_array_equal(single.rank, single.rank_upper)


def test_permuting_instances_changes_no_importance():
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    plain, turned = (global_importance(attribution(VALUES[rows]), draws=50) for rows in (torch.arange(60), order))
    np.testing.assert_allclose(plain.importance, turned.importance)
    np.testing.assert_array_equal(plain.rank, turned.rank)


def test_seeds_decide():
    one, same, other = (global_importance(attribution(VALUES), draws=50, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.lower, same.lower)
    assert np.abs(one.lower - other.lower).max() > 0


def test_subgroups_are_their_own_rows():
    group = np.array(["low", "high", None] * 20, dtype=object)
    found = global_importance(attribution(VALUES), subgroups={"grade": group, "old": np.arange(60) > 40}, draws=50)
    assert list(found.subgroups["grade"]) == ["high", "low"]
    assert list(found.subgroups["old"]) == ["False", "True"]
    alone = global_importance(attribution(VALUES[group == "low"]), draws=50)
    inside = found.subgroups["grade"]["low"]
    for name in ("mean_absolute", "signed", "importance", "lower", "rank_upper"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(inside, name))
    assert inside.instances == 20
    numbers = global_importance(attribution(VALUES[:3]), subgroups={"age": [1.0, math.nan, 1.0]}, draws=50)
    assert list(numbers.subgroups["age"]) == ["1.0"]


def test_patients_are_drawn_together():
    twice = VALUES.repeat_interleave(2, 0)
    rows, patients, single = (
        global_importance(attribution(values), patient=patient, draws=1000)
        for values, patient in ((twice, None), (twice, np.repeat(np.arange(60), 2)), (VALUES, None))
    )
    np.testing.assert_allclose(patients.upper, single.upper)
    assert ((rows.upper - rows.lower) < 0.85 * (single.upper - single.lower)).all()
    assert "patients" in patients.bootstrap


def test_modalities_are_ranked_together_and_keep_their_labels():
    table = attribution(VALUES, coords={"feature": np.array(["a", "b", "c", "d", "e"])})
    groups = attribution(drawn(60, 1, 3), dims=("group",), coords={"group": np.array(["image"])})
    found = global_importance({"table": table, "groups": groups}, draws=50)
    assert found.modality == ("table",) * 5 + ("groups",)
    assert found.feature[-1] == "image"
    assert sorted(found.rank.tolist()) == [1, 2, 3, 4, 5, 6]


def test_images_count_by_channel_or_by_region():
    values = drawn(4, 2, 3, 3, 3)
    additive = attribution(values, additive=True)
    found = global_importance(additive, draws=50)
    assert found.feature == ("channel 1", "channel 2")
    np.testing.assert_allclose(found.mean_absolute, values.sum((2, 3)).abs().mean(0).numpy())
    slopes = global_importance(attribution(values), draws=50)
    np.testing.assert_allclose(slopes.mean_absolute, values.abs().sum((2, 3)).mean(0).numpy())
    labels = np.array([[0, 0, 1], [0, 0, 1], [-1, -1, 1]])
    regions = {"image": Regions(labels, ("tumour", "brain"))}
    by_region = global_importance({"image": additive}, regions=regions, draws=50)
    assert by_region.feature == ("tumour", "brain")
    tumour = values[:, :, :2, :2].sum((1, 2, 3))
    np.testing.assert_allclose(by_region.signed[0], tumour.mean(0).numpy())
    np.testing.assert_allclose(by_region.mean_absolute[0], tumour.abs().mean(0).numpy())
    maps = {"image": Regions(np.repeat(labels[None], 4, 0), ("tumour", "brain"))}
    np.testing.assert_allclose(
        global_importance({"image": additive}, regions=maps, draws=50).importance, by_region.importance
    )


def test_items_of_an_instance_count_together():
    values, rows = drawn(5, 1, 2, 2, 3), torch.tensor([0, 0, 1, 1, 1])
    found = global_importance(attribution(values, rows=rows, additive=True), draws=50)
    sums = torch.stack([values[:2].sum((0, 1, 2, 3)), values[2:].sum((0, 1, 2, 3))])
    np.testing.assert_allclose(found.mean_absolute[0], sums.abs().mean(0).numpy())
    assert found.instances == 2


def test_frames_and_records_hold_the_same_numbers():
    found = global_importance(attribution(VALUES), subgroups={"half": np.arange(60) < 30}, draws=50)
    frame = found.to_frame()
    assert len(frame) == 3 * 5 * 3
    whole = frame[frame["column"] == ""]
    np.testing.assert_array_equal(whole["mean_absolute"].to_numpy().reshape(5, 3), found.mean_absolute)
    np.testing.assert_array_equal(whole["time"].to_numpy()[:3], TIMES.numpy())
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [record["rank"] for record in plain["features"]] == [1, 2, 3, 4, 5]
    assert plain["features"][0]["feature"] == "feature 2"
    np.testing.assert_allclose(plain["features"][0]["mean_absolute"], found.mean_absolute[1])
    assert set(plain["features"][0]) == {
        *("modality", "feature", "mean_absolute", "signed", "importance"),
        *("lower", "upper", "rank", "rank_lower", "rank_upper"),
    }
    half = found.subgroups["half"]["True"]
    assert plain["subgroups"]["half"]["True"][0]["importance"] == pytest.approx(half.importance.max())
    assert "50 draws" in plain["bootstrap"]


def test_a_target_of_one_number_has_one_time():
    single = attribution(VALUES[..., :1], torch.tensor([math.nan], dtype=torch.float64))
    found = global_importance(single, draws=50)
    np.testing.assert_allclose(found.importance, found.mean_absolute[:, 0])


def test_what_does_not_fit_is_refused():
    image = attribution(drawn(2, 1, 3, 3, 3))
    with pytest.raises(InvalidValueError, match="at least one instance"):
        global_importance(attribution(VALUES[:0]))
    with pytest.raises(InvalidValueError, match="same instances and times"):
        global_importance({"table": attribution(VALUES), "image": image})
    with pytest.raises(InvalidValueError, match="`grade` must have a value for each"):
        global_importance(attribution(VALUES), subgroups={"grade": [1, 2]})
    with pytest.raises(InvalidValueError, match="`regions` must be of explained"):
        global_importance(attribution(VALUES), regions={"image": Regions(np.zeros((3, 3), int), ("all",))})
    with pytest.raises(InvalidValueError, match="must label each"):
        global_importance({"image": image}, regions={"image": Regions(np.zeros((4, 3), int), ("all",))})
    with pytest.raises(InvalidValueError, match="`names` must name every region"):
        Regions(np.full((3, 3), 2), ("one", "two"))
    with pytest.raises(InvalidValueError, match="`labels` must be integers"):
        Regions(np.zeros((3, 3)), ("one",))  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="`draws`"):
        global_importance(attribution(VALUES), draws=0)
