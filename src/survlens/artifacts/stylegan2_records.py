"""What a StyleGAN2 checkpoint may mention, and the plain data that stands in for it."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import cast

import numpy as np
import torch
from torch import Tensor

from survlens.artifacts.inert_pickle import Make, Record, read_inert

_MOST_AXES = 8
_MOST_PARTS = 20_000
_NUMBERS = "fiub"
_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_STORAGE_PARTS = 5
_STORAGE_START = (119547037146038801333356, 1001)
"""Magic number and version in front of a storage that was pickled within a pickle."""


@dataclass(frozen=True, slots=True)
class Module:
    """A network of a PyTorch checkpoint: name of its class, and its attributes. The source text is dropped."""

    class_name: str
    state: Mapping[str, object]


class Budget:
    """How much a checkpoint may unfold to: objects may be shared in it, and would otherwise multiply.

    Args:
        nbytes: Bytes of all tensors together.
    """

    def __init__(self, nbytes: int):
        self._bytes, self._parts = nbytes, _MOST_PARTS

    def spend(self, nbytes: int = 0) -> None:
        """Counts one more network or tensor.

        Raises:
            ValueError: If there are more than the file has room for.
        """
        self._bytes -= nbytes
        self._parts -= 1
        if self._bytes < 0 or self._parts < 0:
            raise ValueError("networks that repeat their numbers, more than the file has room for")


def _module(arguments: tuple[object, ...]) -> Module:
    (meta,) = arguments
    if type(meta) is not dict or type(meta.get("class_name")) is not str or type(meta.get("state")) is not dict:
        raise ValueError("a network without class_name and state")
    return Module(meta["class_name"], meta["state"])


def _dictionary(arguments: tuple[object, ...]) -> dict[str, object]:
    if arguments:
        raise ValueError("a dictionary made from arguments")
    return {}


def _set(arguments: tuple[object, ...]) -> set[str]:
    (items,) = arguments or ([],)
    if type(items) is not list or any(type(item) is not str for item in items):
        raise ValueError("a set of something else than texts")
    return set(items)


def _storage(arguments: tuple[object, ...]) -> Tensor:
    """The numbers of a storage as one row.

    The pickles around it are read as data first: sizes they claim are checked against the bytes that are there before
    any memory is asked for.
    """
    (content,) = arguments
    if type(content) is not bytes:
        raise ValueError("a storage that is no bytes")
    file = io.BytesIO(content)
    names: dict[str, Make | None] = {f"torch {name}": None for name in _STORAGES}
    parts = [read_inert(file, names, size=len(content), persistent=_claim) for _ in range(_STORAGE_PARTS)]
    claim, keys = parts[3], parts[4]
    if tuple(parts[:2]) != _STORAGE_START or type(claim) is not Claim or keys != [claim.key]:
        raise ValueError("a storage of an unknown layout")
    rest = len(content) - file.tell()
    if rest != 8 + claim.length * claim.dtype.itemsize or file.read(8) != claim.length.to_bytes(8, "little"):
        raise ValueError(f"a storage of {claim.length} numbers in {rest} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # typed storages are deprecated, and what old files hold
            stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True).untyped()
    except (RuntimeError, UnpicklingError, AttributeError) as error:
        raise ValueError(f"a storage that PyTorch does not read ({error!s:.100})") from error
    return torch.empty(0, dtype=claim.dtype).set_(stored, 0, (claim.length,), (1,))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a storage says of itself."""

    dtype: torch.dtype
    key: str
    length: int


def _claim(arguments: tuple[object, ...]) -> Claim:
    (identifier,) = arguments
    if type(identifier) is not tuple or len(identifier) != 6:
        raise ValueError("an identifier that is no storage")
    kind, storage, key, place, length, view = identifier
    plain = type(key) is str and type(place) is str and type(length) is int and length >= 0 and view is None
    name = getattr(storage, "text", "").removeprefix("torch ")
    if kind != "storage" or name not in _STORAGES or not plain:
        raise ValueError("an identifier that is no storage")
    return Claim(_STORAGES[name], cast(str, key), cast(int, length))


def _tensor(arguments: tuple[object, ...]) -> Tensor:
    """A view of a storage that stays inside of it and does not repeat its numbers."""
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Tensor) or storage.ndim != 1:
        raise ValueError("a tensor without a storage")
    if not _are_counts(size) or not _are_counts(stride) or not _are_counts((offset,)):
        raise ValueError("a tensor whose sizes are no counts")
    size, stride, start = cast(tuple[int, ...], size), cast(tuple[int, ...], stride), cast(int, offset)
    if len(size) != len(stride) or len(size) > _MOST_AXES:
        raise ValueError(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    values, last = math.prod(size), start + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if values > len(storage) or (values and last >= len(storage)):
        raise ValueError(f"a tensor of {values} numbers up to place {last} in a storage of {len(storage)}")
    return storage.as_strided(size, stride, start) if values else storage.new_empty(size)


def _are_counts(values: object) -> bool:
    return type(values) is tuple and all(type(value) is int and 0 <= value < 2**62 for value in values)


def _parameter(arguments: tuple[object, ...]) -> Tensor:
    if not arguments or not isinstance(arguments[0], Tensor):
        raise ValueError("a parameter without a tensor")
    return arguments[0]


def _dtype(arguments: tuple[object, ...]) -> Record:
    return Record("dtype", arguments)


def _numpy_dtype(record: object) -> np.dtype:
    if type(record) is not Record or record.kind != "dtype" or type(record.arguments[0]) is not str:
        raise ValueError("an array without a number type")
    text = record.arguments[0]
    if len(text) != 2 or text[0] not in _NUMBERS or text[1] not in "1248":
        raise ValueError(f"an array of {text!r:.50}")
    order = record.state[1] if type(record.state) is tuple and len(record.state) > 1 else "<"
    if order not in ("<", ">", "=", "|"):
        raise ValueError("an array of an unknown byte order")
    return np.dtype(("<" if order in "=|" else cast(str, order)) + text)


def _scalar(arguments: tuple[object, ...]) -> float | int:
    kind, content = arguments
    dtype = _numpy_dtype(kind)
    if type(content) is not bytes or len(content) != dtype.itemsize:
        raise ValueError("a number of the wrong length")
    return np.frombuffer(content, dtype)[0].item()


def _array(arguments: tuple[object, ...]) -> Record:
    return Record("array", arguments)


def array_of(record: object) -> np.ndarray | None:
    """The numbers of an array of a pickle; None where the object is something else.

    Raises:
        ValueError: If its bytes do not have the length that its shape says.
    """
    if type(record) is not Record or record.kind != "array":
        return None
    state = record.state
    if type(state) is not tuple or len(state) != 5 or not _are_counts(state[1]) or type(state[4]) is not bytes:
        raise ValueError("an array of an unknown layout")
    _, shape, kind, by_column, content = state
    dtype = _numpy_dtype(kind)
    if len(shape) > _MOST_AXES or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} in {len(content)} bytes")
    values = np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")
    return np.array(values, dtype=dtype.newbyteorder("="))


def _network(arguments: tuple[object, ...]) -> Record:
    return Record("network", arguments)


NAMES: Mapping[str, Callable[[tuple[object, ...]], object] | None] = {
    "torch_utils.persistence _reconstruct_persistent_obj": _module,
    "dnnlib.util EasyDict": _dictionary,
    "dnnlib EasyDict": _dictionary,
    "collections OrderedDict": _dictionary,
    "builtins set": _set,
    "__builtin__ set": _set,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch.storage _load_from_bytes": _storage,
    "numpy dtype": _dtype,
    "numpy ndarray": None,
    "numpy.core.multiarray scalar": _scalar,
    "numpy.core.multiarray _reconstruct": _array,
    "numpy._core.multiarray scalar": _scalar,
    "numpy._core.multiarray _reconstruct": _array,
    "dnnlib.tflib.network Network": _network,
}
"""Everything that an official checkpoint may mention, in full."""
