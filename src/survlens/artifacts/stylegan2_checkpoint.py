"""StyleGAN2 checkpoints: official pickles, read without executing them, and the safetensors they are converted to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from survlens.artifacts.inert_pickle import Record, read_inert
from survlens.artifacts.stylegan2_records import NAMES, Budget, Module
from survlens.artifacts.stylegan2_sizes import Sizes, agreed, check_filters, conditional, sizes_of_tensors
from survlens.artifacts.stylegan2_stated import stated_sizes, stated_sizes_tensorflow
from survlens.artifacts.stylegan2_tensorflow import discriminator_of, generator_of
from survlens.artifacts.tensors import load_tensors, read_metadata, save_tensors
from survlens.core.errors import CorruptFileError, InvalidValueError

LARGEST_FILE = 2 * 2**30
"""Bytes of the largest pickle that is read; a published network of 1024 pixels has 0.4 GB."""

_PARTS = ("generator", "discriminator", "generator_ema")
_FORMAT = "survlens StyleGAN2 1"
_DEEPEST = 8
_COPIES = 4


@dataclass(frozen=True, slots=True, eq=False)
class StyleGAN2Weights:
    """Tensors of the networks of a StyleGAN2, by the names of the published checkpoints.

    Attributes:
        generator: Tensors of the generator as it was trained last; empty where a file lacks it.
        discriminator: Tensors of the discriminator; empty where a file lacks it.
        generator_ema: Tensors of the moving average of the generator, which draws the better pictures.
        settings: Sizes of the networks by name.
    """

    generator: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor]
    generator_ema: Mapping[str, Tensor]
    settings: Mapping[str, int | float | None]


def read_official(path: Path | str, *, largest: int = LARGEST_FILE) -> StyleGAN2Weights:
    """Reads a pickle of the published PyTorch code, or of the TensorFlow code before it, without executing anything.

    The pickle is read as data: names that it mentions must be on an exact list and are not imported, source text in it
    is dropped, and sizes are checked against the bytes that are there. Sizes of the networks are taken from the
    settings in the file and from its tensors, which must agree.

    Args:
        path: Checkpoint with a `G_ema`, and perhaps `G` and `D`; or a tuple of three TensorFlow networks.
        largest: Bytes of the largest file that is read.

    Raises:
        CorruptFileError: If the file is missing, too large or damaged, or holds anything that a checkpoint of a
            StyleGAN2 does not.
        InvalidValueError: If the networks are conditional.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > largest:
            raise CorruptFileError(
                f"`{path}` must have at most {largest} bytes; got {size}. Raise `largest` if it is a checkpoint."
            )
        with path.open("rb") as file:
            content = read_inert(file, NAMES, size=size)
    except CorruptFileError as error:
        raise CorruptFileError(f"`{path}`: {error}") from error
    except OSError as error:
        raise CorruptFileError(
            f"`{path}` must be a readable file; got {error.strerror or error}. Check the path."
        ) from error
    try:
        unfold = _from_tensorflow if type(content) is tuple else _from_torch
        return unfold(content, Budget(_COPIES * size))
    except (CorruptFileError, InvalidValueError) as error:
        raise type(error)(f"`{path}`: {error}") from error
    except (ValueError, TypeError, IndexError) as error:
        raise CorruptFileError(
            f"`{path}` must hold the networks of a StyleGAN2; got {error}. Nothing in it was executed. "
            "Get the file from its author again."
        ) from error


def convert(path: Path | str, out: Path | str) -> StyleGAN2Weights:
    """Reads an official checkpoint once and writes it as safetensors, which nothing can hide in.

    Args:
        path: Official pickle; see `read_official`.
        out: File to write; it can be read by `load_weights`.

    Returns:
        What was written.

    Raises:
        CorruptFileError: If the pickle is refused; nothing is written then.
        InvalidValueError: If the networks are conditional.
        WriteError: If the disk is full or the folder cannot be written.
    """
    weights = read_official(path)
    with Path(path).open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    save_weights(out, weights, metadata={"source_sha256": source})
    return weights


def save_weights(path: Path | str, weights: StyleGAN2Weights, *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes the networks to one safetensors file whose header holds their sizes.

    Args:
        path: File to write.
        weights: Networks.
        metadata: Further strings for the header.

    Raises:
        WriteError: If the disk is full or the folder cannot be written; the previous file is untouched.
    """
    tensors = {f"{part}.{name}": value for part in _PARTS for name, value in getattr(weights, part).items()}
    header = {"format": _FORMAT, "settings": json.dumps(dict(weights.settings)), **(metadata or {})}
    save_tensors(path, tensors, metadata=header)


def load_weights(path: Path | str) -> StyleGAN2Weights:
    """Reads a file that `save_weights` or `convert` wrote.

    Raises:
        CorruptFileError: If the file is missing, truncated, a pickle, or holds something else.
    """
    path = Path(path)
    header = read_metadata(path)
    settings = _settings(header.get("settings", ""))
    if header.get("format") != _FORMAT or settings is None:
        raise CorruptFileError(
            f"`{path}` must hold a StyleGAN2 that survlens wrote; got another safetensors file. "
            "Convert the official checkpoint with `survlens portrait convert`."
        )
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, value in load_tensors(path).items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise CorruptFileError(f"`{path}` must hold {', '.join(_PARTS)}; got {name}. Convert the checkpoint again.")
        parts[part][rest] = value
    return StyleGAN2Weights(**parts, settings=settings)


def _settings(text: str) -> Sizes | None:
    try:
        settings = json.loads(text)
    except ValueError:
        return None
    if type(settings) is not dict or any(not isinstance(value, int | float | None) for value in settings.values()):
        return None
    return cast(Sizes, settings)


def _from_torch(content: object, budget: Budget) -> StyleGAN2Weights:
    if type(content) is not dict or type(content.get("G_ema")) is not Module:
        raise ValueError("no dictionary with G_ema")
    modules = {name: content.get(name) for name in ("G", "D", "G_ema")}
    for name, module in modules.items():
        if module is not None and type(module) is not Module:
            raise ValueError(f"{name} of another kind")
    tensors = {
        name: dict(_tensors(module, budget)) if type(module) is Module else {} for name, module in modules.items()
    }
    stated = stated_sizes(cast(Module, modules["G_ema"]), cast(Module | None, modules["D"]))
    return _weights(tensors["G"], tensors["D"], tensors["G_ema"], stated)


def _from_tensorflow(content: object, budget: Budget) -> StyleGAN2Weights:
    networks = cast(tuple[object, ...], content)
    if len(networks) != 3 or any(type(network) is not Record or network.kind != "network" for network in networks):
        raise ValueError("a tuple of something else than three networks")
    generator, discriminator, ema = cast(tuple[Record, Record, Record], networks)
    stated = stated_sizes_tensorflow(ema, discriminator)
    judge = discriminator_of(discriminator, budget)
    return _weights(generator_of(generator, budget), judge, generator_of(ema, budget), stated)


def _weights(
    generator: dict[str, Tensor], discriminator: dict[str, Tensor], ema: dict[str, Tensor], stated: Mapping[str, object]
) -> StyleGAN2Weights:
    if any(name.startswith("mapping.") for name in discriminator):
        raise conditional()
    sizes = agreed(sizes_of_tensors(ema), stated)
    for tensors in (generator, discriminator, ema):
        check_filters(tensors)
    return StyleGAN2Weights(generator, discriminator, ema, sizes)


def _tensors(module: Module, budget: Budget, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Parameters and lasting buffers by their dotted names; frozen parameters are buffers of the same names."""
    if depth > _DEEPEST:
        raise ValueError("networks nested too deeply")
    budget.spend()
    state = module.state
    parts = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    passing = state.get("_non_persistent_buffers_set", set())
    if any(type(part) is not dict for part in parts) or type(passing) is not set:
        raise ValueError("a network of another layout")
    parameters, buffers, modules = cast(list[dict[str, object]], parts)
    for name, value in (*parameters.items(), *buffers.items()):
        if isinstance(value, Tensor) and name not in passing:
            budget.spend(value.nbytes)
            yield prefix + name, value
        elif value is not None and name not in passing:
            raise ValueError(f"{prefix + name!r:.100}, which is no tensor")
    for name, child in modules.items():
        if type(child) is Module:
            yield from _tensors(child, budget, f"{prefix}{name}.", depth + 1)
        elif child is not None:
            raise ValueError(f"{prefix + name!r:.100}, which is no network")
