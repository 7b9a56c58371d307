"""Tensors on disk: safetensors files, checked when they are read; never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from survlens.artifacts.atomic import write_bytes
from survlens.core.errors import CorruptFileError, InvalidTypeError

_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")
_NEXT_STEP = "Copy the file again, or use an earlier one."


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors and a few strings to one safetensors file, in one step.

    Args:
        path: File to write.
        tensors: Tensors of any shape and device; each is stored whole, also where two share memory.
        metadata: Strings kept in the header of the file.

    Raises:
        InvalidTypeError: If a value is not a tensor.
        WriteError: If the disk is full or the folder cannot be written; the previous file is untouched.
    """
    wrong = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if wrong:
        raise InvalidTypeError(f"`tensors` must hold tensors only; got something else under {', '.join(wrong)}.")
    own = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    write_bytes(path, save(own, metadata=dict(metadata) if metadata else None))


def load_tensors(path: Path | str, *, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """Reads all tensors of a safetensors file to the CPU.

    Args:
        path: File to read.
        shapes: Names and shapes that the file must hold, exactly; no check where it is None.

    Raises:
        CorruptFileError: If the file is missing, truncated, a pickle, or holds other tensors than `shapes`.
    """
    path = Path(path)
    content = _read(path)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise _corrupt(path, f"{len(content)} bytes that do not fit together ({error})") from error
    if shapes is not None:
        check_shapes(path, tensors, shapes)
    return tensors


def read_metadata(path: Path | str) -> dict[str, str]:
    """Reads the strings in the header of a safetensors file, without its tensors.

    Raises:
        CorruptFileError: If the file is missing, truncated or a pickle.
    """
    path = Path(path)
    _check_start(path, _read(path, 9))
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _corrupt(path, f"a file that does not fit together ({error})") from error


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes, as `load_tensors` takes them."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def same_tensors(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors have the same names and the same bits."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def check_shapes(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises if `tensors`, read from `path`, differ from `shapes` in names or shapes.

    Raises:
        CorruptFileError: Naming the first differences.
    """
    wrong = [f"no {name}" for name in shapes.keys() - tensors.keys()]
    wrong += [f"an unknown {name}" for name in tensors.keys() - shapes.keys()]
    wrong += [
        f"{name} of shape {tuple(tensors[name].shape)} instead of {tuple(shapes[name])}"
        for name in shapes.keys() & tensors.keys()
        if tuple(tensors[name].shape) != tuple(shapes[name])
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more differences" if len(wrong) > 3 else ""
        raise CorruptFileError(
            f"`{path}` must hold the tensors of this model; got {', '.join(sorted(wrong)[:3])}{more}. "
            "Use the settings that the file was written with."
        )


def _read(path: Path, length: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(length)
    except OSError as error:
        raise CorruptFileError(
            f"`{path}` must be a readable file; got {error.strerror or error}. Check the path."
        ) from error
    _check_start(path, content)
    return content


def _check_start(path: Path, content: bytes) -> None:
    # A safetensors file starts with 8 bytes of length, which may look like a pickle, and then a brace.
    if content.startswith(_PICKLE_STARTS) and content[8:9] != b"{":
        raise CorruptFileError(
            f"`{path}` must be a safetensors file; got a Python pickle, which can run code when it is opened. "
            "It was not opened. Ask its author for the weights as safetensors."
        )


def _corrupt(path: Path, got: str) -> CorruptFileError:
    return CorruptFileError(f"`{path}` must be a complete safetensors file; got {got}. {_NEXT_STEP}")
