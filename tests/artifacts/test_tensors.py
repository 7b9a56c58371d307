"""Tensor files are whole, safe and checked."""

import errno
import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.artifacts.atomic import WriteError, write_text
from survlens.artifacts.tensors import load_tensors, read_metadata, same_tensors, save_tensors, shapes_of
from survlens.core.errors import CorruptFileError, InvalidTypeError

DTYPES = (torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16)


@st.composite
def named_tensors(draw):
    names = draw(st.lists(st.text("abc._/0", min_size=1, max_size=6), unique=True, max_size=4))
    shape = st.lists(st.integers(0, 3), max_size=3)
    return {name: (torch.rand(draw(shape)) * 100).to(draw(st.sampled_from(DTYPES))) for name in names}


@settings(max_examples=25, deadline=None)
@given(tensors=named_tensors())
def test_what_is_read_is_what_was_written(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "a.safetensors"
    save_tensors(path, tensors, metadata={"epoch": "3"})
    back = load_tensors(path, shapes=shapes_of(tensors))
    assert same_tensors(back, tensors)
    assert all(back[name].dtype == tensors[name].dtype for name in tensors)
    assert read_metadata(path) == {"epoch": "3"}


def test_no_length_of_header_looks_like_a_pickle(tmp_path):
    path = tmp_path / "a.safetensors"
    starts = set()
    for length in range(0, 700, 4):
        save_tensors(path, {"a": torch.zeros(2)}, metadata={"note": "x" * length})
        starts.add(path.read_bytes()[0])
        assert len(read_metadata(path)["note"]) == length
        assert load_tensors(path)["a"].shape == (2,)
    assert 0x80 in starts


def test_tied_and_transposed_weights_are_stored_whole(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save_tensors(tmp_path / "a.safetensors", {"a": weight, "tied": weight, "turned": weight.T})
    back = load_tensors(tmp_path / "a.safetensors")
    assert torch.equal(back["tied"], weight)
    assert torch.equal(back["turned"], weight.T)


@pytest.mark.parametrize("kept", [0, 5, 20, 60, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.zeros(50)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match=r"complete safetensors file.*(Copy|earlier)"):
        load_tensors(path)


class _Dangerous:
    def __reduce__(self):
        return (os.abort, ())


@pytest.mark.parametrize(
    "write", [lambda p: torch.save({"a": torch.zeros(2)}, p), lambda p: p.write_bytes(pickle.dumps(_Dangerous()))]
)
def test_a_renamed_pickle_is_never_opened(tmp_path, write):
    path = tmp_path / "a.safetensors"
    write(path)
    for read in (load_tensors, read_metadata):
        with pytest.raises(CorruptFileError, match="pickle, which can run code"):
            read(path)


def test_other_shapes_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"weight": torch.zeros(2, 3), "old": torch.zeros(1)})
    with pytest.raises(
        CorruptFileError, match=r"an unknown old, no bias, weight of shape \(2, 3\) instead of \(2, 4\)"
    ):
        load_tensors(path, shapes={"weight": (2, 4), "bias": (2,)})


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(CorruptFileError, match="No such file"):
        load_tensors(tmp_path / "none.safetensors")


def test_only_tensors_are_stored(tmp_path):
    with pytest.raises(InvalidTypeError, match="tensors only"):
        save_tensors(tmp_path / "a.safetensors", {"a": [1.0]})


def test_a_full_disk_leaves_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.ones(2)})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="disk is full.*previous file is untouched.*Free some space"):
        save_tensors(path, {"a": torch.zeros(2)})
    with pytest.raises(WriteError, match="Nothing was written"):
        write_text(tmp_path / "new.json", "{}")
    assert torch.equal(load_tensors(path)["a"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
