"""Prepared scans on disk: equal bits, parallel writers, damage, full disks."""

from __future__ import annotations

import errno
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest

from survlens.data import scan_cache
from survlens.data.geometry import Volume
from survlens.data.nifti import write_nifti
from survlens.data.scan_cache import ScanCache
from survlens.data.scans import ScanReference, ScanSettings, ScanView, prepared

pytest.importorskip("nibabel", reason="reading NIfTI needs the extra `imaging`")

SETTINGS = ScanSettings(window=(-2.0, 2.0), spacing=(1.3, 0.9, 2.0), mask_channel=True)


@pytest.fixture
def reference(tmp_path) -> ScanReference:
    return written(tmp_path, 0)


def written(folder, seed) -> ScanReference:
    values = np.random.default_rng(seed).normal(size=(9, 8, 7)).astype(np.float32)
    affine = np.array([[0, 0, 1.1, 3], [-2, 0, 0, 1], [0, 1.7, 0, 2], [0, 0, 0, 1]])
    paths = folder / f"{seed}.nii.gz", folder / f"{seed}_mask.nii.gz"
    write_nifti(Volume(values, affine), paths[0])
    write_nifti(Volume((values > 0).astype(np.uint8), affine), paths[1])
    return ScanReference(*paths)


def fill(folder, references):
    """What one of several processes does."""
    return [ScanCache(folder).prepared(each, SETTINGS).values.sum().item() for each in references]


@pytest.fixture
def counted(monkeypatch):
    made = []

    def count(reference, settings, *, rank=0):
        made.append(reference)
        return prepared(reference, settings, rank=rank)

    monkeypatch.setattr(scan_cache, "prepared", count)
    return made


def test_what_is_read_back_is_equal_in_every_bit_and_prepared_once(tmp_path, reference, counted):
    cache, expected = ScanCache(tmp_path / "kept"), prepared(reference, SETTINGS)
    for _ in range(3):
        found = cache.prepared(reference, SETTINGS)
        assert found.values.tobytes() == expected.values.tobytes()
        assert found.values.shape == expected.values.shape
        assert found.affine.tobytes() == expected.affine.tobytes()
    assert len(counted) == 1
    assert isinstance(found.values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 1


def test_other_settings_ranks_and_contents_are_other_files(tmp_path, reference, counted):
    cache, kept = ScanCache(tmp_path / "kept"), tmp_path / "kept"
    slices = ScanSettings(window=(-2.0, 2.0), view=ScanView.SLICE)
    cache.prepared(reference, SETTINGS)
    cache.prepared(reference, replace(SETTINGS, window=(-1.0, 1.0)))
    cache.prepared(reference, slices)
    cache.prepared(reference, slices, rank=1)
    assert cache.prepared(reference, slices, rank=1).covered == prepared(reference, slices, rank=1).covered > 1
    assert len(list(kept.iterdir())) == len(counted) == 4
    # How many slices are rows changes no slice.
    cache.prepared(reference, replace(slices, slices=5))
    # An equal file of another name is the same scan.
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes(reference.scan.read_bytes())
    cache.prepared(replace(reference, scan=copy, name="another"), SETTINGS)
    assert len(counted) == 4
    other = written(tmp_path, 1)
    cache.prepared(other, SETTINGS)
    assert len(counted) == 5


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "values", "text", "huge header", "other tensors"])
def test_a_damaged_file_is_made_again(tmp_path, reference, damage):
    cache = ScanCache(tmp_path / "kept")
    expected = cache.prepared(reference, SETTINGS).values.tobytes()
    (path,) = (tmp_path / "kept").iterdir()
    raw = bytearray(path.read_bytes())
    whole = bytes(raw)
    if damage == "values":
        raw[-5] ^= 1
    elif damage == "header":
        raw[20] ^= 0xFF
    elif damage == "other tensors":
        from safetensors.numpy import save

        raw = bytearray(save({"values": np.zeros(3, np.float32)}, metadata={"scan": "{}"}))
    changed = {"empty": b"", "cut": whole[:-9], "text": b"hello", "huge header": b"\xff" * 8 + whole}.get(damage, raw)
    path.write_bytes(bytes(changed))
    assert cache.prepared(reference, SETTINGS).values.tobytes() == expected
    assert path.read_bytes() == whole
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_parallel_writers_leave_whole_files_and_nothing_else(tmp_path):
    references, kept = [written(tmp_path, seed) for seed in range(4)], tmp_path / "kept"
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        found = list(pool.map(fill, [kept] * 3, [references, references[::-1], references]))
    assert found[0] == found[1][::-1] == found[2]
    assert sorted(each.suffix for each in kept.iterdir()) == [".safetensors"] * 4
    expected = [prepared(each, SETTINGS).values.sum().item() for each in references]
    assert found[0] == expected


def test_a_full_or_read_only_disk_warns_and_goes_on(tmp_path, reference, monkeypatch):
    def full(path, scan):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scan_cache, "_write", full)
    with pytest.warns(UserWarning, match="the disk is full"):
        found = ScanCache(tmp_path / "kept").prepared(reference, SETTINGS)
    assert found.values.tobytes() == prepared(reference, SETTINGS).values.tobytes()
