"""Tensors of StyleGAN2 checkpoints from the TensorFlow era, under the names and in the layout of PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from survlens.artifacts.inert_pickle import Record
from survlens.artifacts.stylegan2_records import Budget, array_of
from survlens.artifacts.stylegan2_sizes import resampling_filter
from survlens.core.errors import CorruptFileError

Change = Callable[[np.ndarray], np.ndarray]
Weights = tuple[tuple[str, str, Change], ...]
Layers = dict[str, tuple[str, Weights]]
_DEEPEST = 4
_IGNORED = re.compile(r"lod")
_CONVOLVES = re.compile(r"\.(?:conv|conv0|conv1|fromrgb|skip)\.weight$")
_RESAMPLES = re.compile(r"(synthesis\.b\d+|b(?!4\.)\d+)\.")


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _kernel(values: np.ndarray) -> np.ndarray:
    return values.transpose(3, 2, 0, 1)


def _flipped_kernel(values: np.ndarray) -> np.ndarray:
    return _kernel(values)[:, :, ::-1, ::-1]


def _matrix(values: np.ndarray) -> np.ndarray:
    return values.T


def _plus_one(values: np.ndarray) -> np.ndarray:
    return values + 1


def _first(values: np.ndarray) -> np.ndarray:
    return values[0]


def _plane(values: np.ndarray) -> np.ndarray:
    return values[0, 0]


_STYLE: Weights = (
    ("bias", "bias", _same),
    ("mod_weight", "affine.weight", _matrix),
    ("mod_bias", "affine.bias", _plus_one),
)
_NOISY: Weights = (*_STYLE, ("noise_strength", "noise_strength", _same))
_DENSE: Weights = (("weight", "weight", _matrix), ("bias", "bias", _same))
_CONVOLUTION: Weights = (("weight", "weight", _kernel), ("bias", "bias", _same))

_GENERATOR_LAYERS: Layers = {
    "Conv": ("conv1", (*_NOISY, ("weight", "weight", _kernel))),
    "Conv0_up": ("conv0", (*_NOISY, ("weight", "weight", _flipped_kernel))),
    "Conv1": ("conv1", (*_NOISY, ("weight", "weight", _kernel))),
    "ToRGB": ("torgb", (*_STYLE, ("weight", "weight", _kernel))),
    "Const": ("", (("const", "const", _first),)),
}
_DISCRIMINATOR_LAYERS: Layers = {
    "FromRGB": ("fromrgb", _CONVOLUTION),
    "Conv0": ("conv0", _CONVOLUTION),
    "Conv1_down": ("conv1", _CONVOLUTION),
    "Skip": ("skip", (("weight", "weight", _kernel),)),
    "Conv": ("conv", _CONVOLUTION),
    "Dense0": ("fc", _DENSE),
}


def generator_of(network: Record, budget: Budget) -> dict[str, Tensor]:
    """Tensors of a generator and of the mapping and synthesis networks within it.

    Raises:
        CorruptFileError: If a variable is unknown.
    """
    pairs = (pair for path, array in _variables(network, budget) for pair in _generator(path, array))
    return _with_filters({name: _tensor(values) for name, values in pairs})


def discriminator_of(network: Record, budget: Budget) -> dict[str, Tensor]:
    """Tensors of a discriminator.

    Raises:
        CorruptFileError: If a variable is unknown.
    """
    pairs = (pair for path, array in _variables(network, budget) for pair in _discriminator(path, array))
    return _with_filters({name: _tensor(values) for name, values in pairs})


def _with_filters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds the filters, which a TensorFlow network keeps in its code: one per convolution and resampling block."""
    layers = {name.rpartition(".")[0] for name in tensors if _CONVOLVES.search(name)}
    blocks = {found[1] for name in tensors if (found := _RESAMPLES.match(name))}
    return {**tensors, **{f"{place}.resample_filter": resampling_filter() for place in sorted(layers | blocks)}}


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values).reshape(values.shape))


def _generator(path: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if path == "dlatent_avg":
        yield "mapping.w_avg", values
    elif dense := re.fullmatch(r"Dense(\d{1,3})/(weight|bias)", path):
        yield f"mapping.fc{int(dense[1])}.{dense[2]}", _matrix(values) if values.ndim == 2 else values
    elif noise := re.fullmatch(r"noise(\d{1,2})", path):
        # noise0 is of side 4; then come two of each side: of the doubling convolution, and of the one after it.
        number = int(noise[1])
        yield f"synthesis.b{2 ** ((number + 5) // 2)}.conv{1 - number % 2}.noise_const", _plane(values)
    elif path.startswith("LabelEmbed"):
        yield "mapping.embed.weight", values
    else:
        yield from _layer(path, values, _GENERATOR_LAYERS, "synthesis.")


def _discriminator(path: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if output := re.fullmatch(r"Output/(weight|bias)", path):
        yield f"b4.out.{output[1]}", _matrix(values) if values.ndim == 2 else values
    else:
        yield from _layer(path, values, _DISCRIMINATOR_LAYERS, "")


def _layer(path: str, values: np.ndarray, layers: Layers, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    parts = re.fullmatch(r"(\d{1,4})x\1/(\w+)/(\w+)", path)
    if parts is not None and parts[2] in layers:
        layer, weights = layers[parts[2]]
        for name, ours, change in weights:
            if name == parts[3]:
                yield ".".join(part for part in (f"{prefix}b{parts[1]}", layer, ours) if part), change(values)
                return
    raise CorruptFileError(
        f"the checkpoint must hold the variables of a StyleGAN2; got {path!r:.100}. "
        "Networks of another layout cannot be converted."
    )


def _variables(network: Record, budget: Budget, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    state = network.state
    if depth > _DEEPEST or type(state) is not dict:
        raise ValueError("a network without a state")
    budget.spend()
    for entry in state.get("variables", []):
        if type(entry) is not tuple or len(entry) != 2 or type(entry[0]) is not str:
            raise ValueError("a variable without a name")
        array = array_of(entry[1])
        values = np.asarray(entry[1], dtype=np.float32) if type(entry[1]) in (float, int) else array
        if values is None:
            raise ValueError(f"the variable {entry[0]!r:.100}, which is no array")
        budget.spend(values.nbytes)
        if not _IGNORED.fullmatch(entry[0]):
            yield entry[0], values
    for part in state.get("components", {}).values():
        if type(part) is Record:
            yield from _variables(part, budget, depth + 1)
