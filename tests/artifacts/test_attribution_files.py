"""Attributions come back from their file exactly, and what is no such file is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.test_attribution import PICTURE, alike, attribution
from survlens.artifacts.attribution_files import read_attributions, write_attributions
from survlens.artifacts.tensors import save_tensors
from survlens.core.attribution import Attribution
from survlens.core.errors import CorruptFileError, InvalidTypeError

PER_ROW = ("prediction", "reference_prediction", "completeness_gap", "quadrature_error", "sampling_error", "affine")
LABELS = (
    np.array(["a", "ü", ""]), np.array(["x", None, "z"], dtype=object), np.array([1.5, np.nan, -0.0]),
    np.array([3, 1, 2], dtype=np.int32), np.array([True, False, True]),
)  # fmt: skip


@st.composite
def attributions(draw):
    """Attributions with any of their fields missing, and labels of every type."""
    counts = draw(st.one_of(st.none(), st.lists(st.integers(0, 2), min_size=1, max_size=3)))
    picture = draw(st.booleans())
    shape, dims = ((2, 1, 3, 4), PICTURE) if picture else ((2, 3), ("feature",))
    case = attribution(shape, dims=dims, counts=counts, seed=draw(st.integers(0, 99)))
    case = replace(case, affine=np.eye(4) * draw(st.floats(0.1, 3)), coords={})
    missing = draw(st.sets(st.sampled_from(PER_ROW)))
    words = {name: draw(st.text(max_size=5)) for name in ("method", "reference", "paper", "unit")}
    case = replace(
        case, **{name: None for name in missing}, **words, additive=draw(st.booleans()),
        notes=tuple(draw(st.lists(st.text(max_size=3), max_size=2))),
    )  # fmt: skip
    axis = "height" if picture else "feature"
    return case.labelled({axis: draw(st.sampled_from(LABELS))} if draw(st.booleans()) else {})


@settings(max_examples=40, deadline=None)
@given(table=attributions(), image=attributions())
def test_what_is_read_is_what_was_written(table, image, tmp_path_factory):
    path = tmp_path_factory.mktemp("a") / "attributions.safetensors"
    write_attributions(path, {"table": table, "image": image})
    back = read_attributions(path)
    assert list(back) == ["table", "image"]
    for one, other in ((back["table"], table), (back["image"], image)):
        for axis, labels in other.coords.items():
            found = one.coords[axis]
            assert found.dtype == labels.dtype
            assert [repr(each) for each in found.tolist()] == [repr(each) for each in labels.tolist()]
        alike(replace(one, coords={}), replace(other, coords={}))
        assert one.values.dtype == other.values.dtype


def test_bits_survive_that_print_alike(tmp_path):
    values = torch.tensor([[[0.1 + 0.2, -0.0, float("nan"), float("inf"), 5e-324]]], dtype=torch.float64)
    case = Attribution(values, torch.arange(1.0, 6).double(), "days", "survival", "Gradient")
    for kind in (torch.float64, torch.float32):
        write_attributions(tmp_path / "a.safetensors", {"table": replace(case, values=values.to(kind))})
        back = read_attributions(tmp_path / "a.safetensors")["table"].values
        whole = torch.int64 if kind is torch.float64 else torch.int32
        assert torch.equal(back.view(whole), values.to(kind).view(whole))


def test_a_graph_is_left_behind_and_the_same_attributions_give_the_same_file(tmp_path):
    case = attribution((2, 3))
    grown = replace(case, values=case.values.clone().requires_grad_() * 1)
    for name, each in (("a", grown), ("b", case), ("c", case)):
        write_attributions(tmp_path / name, {"table": each, "groups": each})
    assert not read_attributions(tmp_path / "a")["table"].values.requires_grad
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_no_attributions_are_a_file_too(tmp_path):
    write_attributions(tmp_path / "none", {})
    assert read_attributions(tmp_path / "none") == {}


def test_labels_of_other_kinds_are_refused(tmp_path):
    for labels in (np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), np.array([{}, 1, 2], dtype=object)):
        with pytest.raises(InvalidTypeError, match="numbers or text"):
            write_attributions(tmp_path / "a", {"table": attribution((2, 3)).labelled({"feature": labels})})
    assert not (tmp_path / "a").exists()


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    write_attributions(path, {"table": attribution((2, 3))})
    whole = path.read_bytes()
    broken = {
        "half": whole[: len(whole) // 2], "nothing": b"", "pickle": pickle.dumps({"a": 1}), "text": b"hello",
        "another format": whole.replace(b'\\"format\\": 1', b'\\"format\\": 7'),
        "another shape": whole.replace(b'\\"feature\\"]', b'\\"featur2\\"]').replace(b"\\\"dims\\\"", b"\\\"dimz\\\""),
    }  # fmt: skip
    for name, content in broken.items():
        assert content != whole, name
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"a\.safetensors"):
            read_attributions(path)
    path.unlink()
    with pytest.raises(CorruptFileError, match="readable"):
        read_attributions(path)


def test_tensors_of_something_else_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"weight": torch.zeros(3)})
    with pytest.raises(CorruptFileError, match="without them"):
        read_attributions(path)
