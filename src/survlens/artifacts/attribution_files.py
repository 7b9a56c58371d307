"""Attributions on disk: one safetensors file, its names, words and labels as json in the header; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from survlens.artifacts.tensors import load_tensors, read_metadata, save_tensors
from survlens.core.attribution import Attribution
from survlens.core.errors import CorruptFileError, InvalidTypeError, InvalidValueError

_KEY, _FORMAT = "survlens.attributions", 1
_TENSORS = (
    *("values", "times", "prediction", "reference_prediction", "completeness_gap", "quadrature_error"),
    *("sampling_error", "rows"),
)
_ARRAYS = ("affine", "coords")
_WORDS = tuple(each.name for each in fields(Attribution) if each.name not in (*_TENSORS, *_ARRAYS))
_PLAIN_KINDS = "biuf"


def write_attributions(path: Path | str, attributions: Mapping[str, Attribution]) -> None:
    """Writes attributions by name, such as one per modality, to one file in one step.

    Everything an `Attribution` holds comes back exactly: values bit for bit and in their own type, labels, words, notes
    and what is None. Values are stored without their graph.

    Args:
        path: File to write, by custom ending in .safetensors.
        attributions: Names to attributions.

    Raises:
        InvalidTypeError: If labels are neither numbers nor text.
        WriteError: If the disk is full or the folder cannot be written; the previous file is untouched.
    """
    tensors: dict[str, Tensor] = {}
    said = []
    for number, (name, attribution) in enumerate(attributions.items()):
        given = {each: getattr(attribution, each) for each in _TENSORS}
        tensors |= {f"{number}.{each}": value for each, value in given.items() if value is not None}
        arrays = {f"coords.{axis}": labels for axis, labels in attribution.coords.items()}
        if attribution.affine is not None:
            arrays["affine"] = attribution.affine
        stored = {each: _stored(f"{number}.{each}", value, tensors) for each, value in arrays.items()}
        words = {each: getattr(attribution, each) for each in _WORDS}
        said.append({"name": name, "words": words, "arrays": stored})
    header = json.dumps({"format": _FORMAT, "attributions": said})
    save_tensors(path, tensors, metadata={_KEY: header})


def read_attributions(path: Path | str) -> dict[str, Attribution]:
    """Reads what `write_attributions` wrote, to the CPU.

    Raises:
        CorruptFileError: If the file is missing, truncated, a pickle or of another kind, or its parts do not fit.
    """
    path = Path(path)
    text = read_metadata(path).get(_KEY)
    if text is None:
        raise _corrupt(path, "a file without them")
    tensors = load_tensors(path)
    try:
        said = json.loads(text)
        if said["format"] != _FORMAT:
            raise _corrupt(path, f"the format {said['format']!r} instead of {_FORMAT}")
        found = {each["name"]: _read(f"{number}.", each, tensors) for number, each in enumerate(said["attributions"])}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, InvalidValueError) as error:
        raise _corrupt(path, f"parts that do not fit together ({error})") from error
    if tensors:
        raise _corrupt(path, f"tensors that belong to none of them ({', '.join(sorted(tensors)[:3])})")
    return found


def _read(prefix: str, said: Mapping[str, Any], tensors: dict[str, Tensor]) -> Attribution:
    """One attribution; what it takes of `tensors` is taken out."""
    given: dict[str, Any] = {each: tensors.pop(prefix + each, None) for each in _TENSORS}
    arrays = {each: _restored(prefix + each, about, tensors) for each, about in said["arrays"].items()}
    words = {each: said["words"][each] for each in _WORDS}
    words |= {each: tuple(words[each]) for each in ("dims", "notes")}
    coords = {each.partition(".")[2]: array for each, array in arrays.items() if each.startswith("coords.")}
    return Attribution(**given, **words, coords=coords, affine=arrays.get("affine"))


def _stored(name: str, value: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Puts an array of numbers among `tensors`, and says here what is no number."""
    array = np.asarray(value)
    if array.dtype.kind in _PLAIN_KINDS:
        native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        try:
            tensors[name] = torch.from_numpy(native.copy())
        except TypeError as error:
            raise InvalidTypeError(f"`coords` must be of a type that tensors have; got {array.dtype}.") from error
        return {"type": array.dtype.str}
    entries = array.tolist()
    plain = all(each is None or isinstance(each, bool | int | float | str) for each in entries)
    if array.dtype.kind not in "OU" or array.ndim != 1 or not plain:
        raise InvalidTypeError(f"`coords` must be numbers or text; got {array.dtype}. Turn them into text first.")
    return {"type": array.dtype.str, "entries": entries}


def _restored(name: str, about: Mapping[str, Any], tensors: dict[str, Tensor]) -> np.ndarray:
    dtype = np.dtype(about["type"])
    if "entries" not in about:
        return tensors.pop(name).numpy().astype(dtype, copy=False)
    array = np.empty(len(about["entries"]), dtype=dtype)
    array[:] = about["entries"]
    return array


def _corrupt(path: Path, got: str) -> CorruptFileError:
    return CorruptFileError(
        f"`{path}` must be a whole file of attributions; got {got}. Write it again: survlens explain."
    )
