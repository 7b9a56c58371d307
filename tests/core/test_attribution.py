"""Arrays, long tables and volumes of an attribution say the same; rows can be taken and put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import row_of_item

few = settings(max_examples=40, deadline=None)
PICTURE = ("channel", "height", "width")


def attribution(shape, times=3, *, dims=("feature",), counts=None, seed=0, **given):
    """An attribution whose every number is different; `counts` says how many items each instance has."""
    drawn = np.random.default_rng(seed)
    instances = shape[0] if counts is None else len(counts)
    rows = None if counts is None else row_of_item(torch.tensor(counts, dtype=torch.int64))
    full = (shape[0] if rows is None else len(rows), *shape[1:], times)

    def numbers(*size):
        return torch.from_numpy(drawn.normal(size=size))

    per_row = ("prediction", "reference_prediction", "completeness_gap", "quadrature_error")
    named = {name: numbers(instances, times) for name in per_row}
    error = numbers(*full)
    return Attribution(
        values=numbers(*full), times=torch.arange(1, times + 1).double() * 1.5, unit="months", target="survival",
        method="IntGrad", dims=dims, rows=rows, sampling_error=error,
        coords={"instance": np.array([f"p{number}" for number in range(instances)], dtype=object)}, **(named | given),
    )  # fmt: skip


@st.composite
def cases(draw):
    """Tables, pictures and bags of pictures, some with instances of no items."""
    times = draw(st.integers(1, 3))
    if draw(st.booleans()):
        shape, dims = (draw(st.integers(0, 5)), draw(st.integers(1, 13))), ("feature",)
    else:
        shape, dims = (draw(st.integers(0, 4)), draw(st.integers(1, 2)), 2, 3), PICTURE
    counts = draw(st.one_of(st.none(), st.lists(st.integers(0, 3), max_size=4)))
    return attribution(shape, times, dims=dims, counts=counts, seed=draw(st.integers(0, 99)))


def alike(one, other):
    """Whether two attributions are the same in every field."""
    for name in Attribution.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, torch.Tensor):
            assert b is not None, name
            assert torch.equal(a, b), name
        elif name == "coords":
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[axis], b[axis]) for axis in a)
        elif isinstance(a, np.ndarray):
            assert np.array_equal(a, b), name
        else:
            assert a == b, name
    return True


@few
@given(case=cases())
def test_the_long_table_is_the_array_row_by_row(case):
    """Every row is looked up by its positions, one by one, whatever the order of the table."""
    frame = case.to_frame()
    assert len(frame) == case.values.numel()
    assert np.array_equal(frame["value"].to_numpy().reshape(case.values.shape), case.numpy())
    when = {time: at for at, time in enumerate(case.times.tolist())}
    for record in frame.sample(frac=1, random_state=0).head(60).to_dict("records"):
        instance = int(record["instance"][1:])
        row = instance if case.rows is None else record["item"]
        assert case.rows is None or int(case.rows[row]) == instance
        column = when[record["time"]]
        at = (row, *(record[name] for name in case.dims), column)
        assert record["value"] == float(case.values[at])
        assert record["sampling_error"] == float(case.sampling_error[at])
        for name in ("prediction", "reference_prediction", "completeness_gap", "quadrature_error"):
            assert record[name] == float(getattr(case, name)[instance, column])


@pytest.mark.parametrize("features", [9, 11, 25])
def test_features_of_a_long_table_stay_in_their_order_beyond_ten(features):
    """Columns named x1 ... x11 sorted as text would mix up x10 and x2."""
    names = np.array([f"x{number + 1}" for number in range(features)])
    case = attribution((4, features), times=3).labelled({"feature": names})
    table = case.to_frame().set_index(["instance", "feature", "time"])["value"]
    for row, feature, column in [(0, 1, 0), (1, features - 1, 2), (3, features // 2, 1)]:
        found = table[f"p{row}", names[feature], 1.5 * (column + 1)]
        assert found == float(case.values[row, feature, column])
    assert list(case.to_frame().query("instance == 'p2' and time == 1.5")["feature"]) == list(names)


def test_a_long_table_of_a_picture_tells_height_from_width():
    case = attribution((2, 1, 3, 5), times=2, dims=PICTURE)
    frame = case.to_frame()
    assert list(frame.columns[:6]) == ["instance", *PICTURE, "time", "value"]
    assert (frame["height"].max(), frame["width"].max()) == (2, 4)
    row = frame.query("instance == 'p1' and height == 2 and width == 3 and time == 3.0")
    assert row["value"].item() == float(case.values[1, 0, 2, 3, 1])


def test_labels_may_repeat_and_a_target_without_time_has_no_time():
    plain = attribution((2, 3), times=1)
    case = replace(plain, times=torch.tensor([float("nan")], dtype=torch.float64))
    case = case.labelled({"instance": ["a", "a"], "feature": ["x", "x", "y"]})
    frame = case.to_frame()
    assert frame["time"].isna().all()
    assert list(frame["value"]) == case.values.flatten().tolist()
    assert list(frame["instance"]) == ["a"] * 6


@few
@given(case=cases())
def test_the_data_set_and_the_long_table_agree(case):
    data = case.to_xarray()
    assert np.array_equal(data["attribution"].to_numpy(), case.numpy())
    assert np.array_equal(data["attribution"].to_numpy().ravel(), case.to_frame()["value"].to_numpy())


@few
@given(case=cases(), data=st.data())
def test_rows_are_taken_with_all_their_items(case, data):
    n = case.instances
    index = data.draw(st.lists(st.integers(0, n - 1), max_size=4) if n else st.just([]))
    part = case[index]
    assert part.instances == len(index)
    whole = case.rows if case.rows is not None else torch.arange(len(case))
    wanted = [int(item) for row in index for item in (whole == row).nonzero()[:, 0]]
    assert torch.equal(part.values, case.values[wanted])
    assert torch.equal(part.prediction, case.prediction[index])
    assert list(part.coords["instance"]) == [f"p{row}" for row in index]
    if n:
        alike(case[-1], case[[n - 1]])
        alike(case[torch.arange(n) > 0], case[1:])


@few
@given(case=cases(), cut=st.integers(0, 4))
def test_what_was_parted_can_be_put_together(case, cut):
    alike(Attribution.concatenate([case[:cut], case[cut:]]), case)
    total = torch.cat([case[:cut].total, case[cut:].total])
    torch.testing.assert_close(total, case.total, rtol=0, atol=1e-12)


def test_items_may_stand_in_any_order():
    case = attribution((0, 2), counts=[2, 1, 2])
    mixed = replace(case, rows=torch.tensor([2, 0, 1, 0, 2]))
    part = mixed[[2, 0]]
    assert torch.equal(part.values, mixed.values[[0, 4, 1, 3]])
    assert part.rows.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(part.total, mixed.total[[2, 0]])


def test_affines_follow_their_instances():
    shared, other = np.diag([2.0, 2, 2, 1]), np.diag([3.0, 1, 1, 1])
    one = replace(attribution((2, 1, 2, 2, 2), dims=(*PICTURE, "depth")), affine=shared)
    two = replace(one, affine=other)
    assert np.array_equal(Attribution.concatenate([one, one]).affine, shared)
    both = Attribution.concatenate([one, two])
    assert both.affine.shape == (4, 4, 4)
    assert np.array_equal(both[[3, 0]].affine, np.stack([other, shared]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "hazard_rate"}, "`target`"),
        ({"unit": "days"}, "`unit`"),
        ({"prediction": None}, "know the same"),
        ({"times": torch.tensor([1.0, 2.0, 3.0]).double()}, "same times"),
        ({"coords": {"instance": np.arange(2), "feature": np.array(list("abd"))}}, "same labels"),
    ],
)
def test_attributions_of_different_kinds_are_not_put_together(change, said):
    case = attribution((2, 3)).labelled({"feature": list("abc")})
    with pytest.raises(InvalidValueError, match=said):
        Attribution.concatenate([case, replace(case, **change)])


def test_what_does_not_fit_is_refused():
    case = attribution((2, 3))
    with pytest.raises(InvalidValueError, match="at least one"):
        Attribution.concatenate([])
    with pytest.raises(InvalidValueError, match="same features"):
        Attribution.concatenate([case, attribution((2, 4))])
    with pytest.raises(InvalidValueError, match="must pick among 2"):
        case[[2]]
    with pytest.raises(InvalidValueError, match="one label per entry"):
        case.labelled({"feature": ["a"]})
    with pytest.raises(InvalidValueError, match="4 x 4"):
        replace(case, affine=np.eye(3))


def rotated():
    """Voxels of 2 x 3 x 4 mm, turned and shifted: no axis of the scan is an axis of the world."""
    return np.array([[0.0, -3, 0.5, 10], [2, 0.3, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])


def test_a_planted_voxel_keeps_its_place_in_the_world(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    plain = attribution((2, 2, 5, 6, 7), times=3, dims=(*PICTURE, "depth"))
    values = torch.zeros_like(plain.values)
    values[1, 0, 3, 4, 2, 1], values[1, 1, 3, 4, 2, 1] = 2.0, 0.5
    case = replace(plain, values=values, affine=rotated())
    image = nibabel.load(case.to_nifti(tmp_path / "map.nii.gz", instance=1, time=3.0))
    assert image.shape == (5, 6, 7)
    found = np.argwhere(image.get_fdata() != 0)
    assert found.tolist() == [[3, 4, 2]]
    assert image.get_fdata()[3, 4, 2] == 2.5, "channels are summed"
    world = nibabel.affines.apply_affine(image.affine, found[0])
    np.testing.assert_allclose(world, rotated()[:3, :3] @ [3, 4, 2] + rotated()[:3, 3], atol=1e-5)
    one = nibabel.load(case.to_nifti(tmp_path / "one.nii", instance=1, channel=1))
    assert one.shape == (5, 6, 7, 3)
    assert np.array_equal(one.get_fdata(), values[1, 1].numpy())


def test_a_picture_is_one_slice_and_each_instance_has_its_affine(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    case = attribution((0, 1, 3, 5), times=2, dims=PICTURE, counts=[1, 2])
    case = replace(case, affine=np.stack([np.eye(4), rotated()]))
    image = nibabel.load(case.to_nifti(tmp_path / "a.nii", instance=2, time=1.5))
    assert image.shape == (3, 5, 1)
    np.testing.assert_allclose(image.affine, rotated(), atol=1e-5)
    assert np.array_equal(image.get_fdata()[..., 0], case.values[2, 0, :, :, 0].numpy())
    flat = replace(case, values=case.values[:, 0], sampling_error=None, dims=PICTURE[1:])
    assert np.array_equal(
        nibabel.load(flat.to_nifti(tmp_path / "c.nii", instance=2)).get_fdata(),
        nibabel.load(case.to_nifti(tmp_path / "d.nii", instance=2)).get_fdata(),
    )
    without = replace(case, affine=None).to_nifti(tmp_path / "b.nii", instance=0, time=1.5)
    assert int(nibabel.load(without).header["sform_code"]) == 0, "no geometry is claimed where there is none"


def test_maps_that_cannot_be_written_are_refused(tmp_path):
    pytest.importorskip("nibabel")
    case = attribution((1, 1, 3, 5), times=2, dims=PICTURE)
    for asked, said in (({"instance": 1}, "pick among 1"), ({"time": 2.0}, "one of the times"), ({"channel": 3}, "1")):
        with pytest.raises(InvalidValueError, match=said):
            case.to_nifti(tmp_path / "a.nii", **asked)
    with pytest.raises(InvalidValueError, match="height, width"):
        attribution((1, 3)).to_nifti(tmp_path / "a.nii")
