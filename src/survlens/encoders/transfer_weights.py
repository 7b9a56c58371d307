"""Weights of other people's networks: read without running anything, and fitted name by name."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from survlens.artifacts.tensors import load_tensors
from survlens.core.errors import CorruptFileError

_SAFETENSORS = ".safetensors"
_WRAPPERS = ("state_dict", "model_state_dict")
_PREFIX = "module."
_OWN_ENCODER, _OWN_POOLED = "encoders.image.", "encoders.image.encoder."
_COUNTER = "num_batches_tracked"
_SHOWN = 4


def load_weights(encoder: nn.Module, path: Path | str) -> tuple[str, ...]:
    """Fills an encoder with the weights of a file, all of them or none.

    A file ending in .safetensors is read as such, any other by `torch.load(weights_only=True)`, which runs no code of
    the file. Names and shapes must be those of the encoder, by these rules alone: a mapping under "state_dict" or
    "model_state_dict" is taken out first; a start "module." that all names have is cut off; names that begin as
    `encoder.dropped` says (fully connected layers, segmentation heads) are left out; "num_batches_tracked" of batch
    norm, which nothing reads in eval mode, may be missing; of the `weights.safetensors` of a saved `SurvivalModel` its
    network on the image is taken.

    Args:
        encoder: Such as `TransferResNet2D`.
        path: The file.

    Returns:
        Names in the file that were left out.

    Raises:
        CorruptFileError: If the file cannot be read, holds something else than tensors, or a name is missing, unknown
            or of another shape; the message lists which, and the encoder is as it was.
    """
    path = Path(path)
    given = _unwrapped(load_tensors(path) if path.suffix == _SAFETENSORS else _load_torch(path), path)
    dropped = tuple(getattr(encoder, "dropped", ()))
    left_out = tuple(name for name in given if name.startswith(dropped)) if dropped else ()
    given = {name: tensor for name, tensor in given.items() if name not in left_out}
    own = encoder.state_dict()
    missing = [name for name in own if name not in given and not name.endswith(_COUNTER)]
    unknown = [name for name in given if name not in own]
    differing = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    faults = [
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (("missing", missing), ("unexpected", unknown), ("of another shape", differing))
        if names
    ]
    if faults:
        raise CorruptFileError(
            f"`{path.name}` must hold the weights of {type(encoder).__name__}; got {', '.join(faults)}. "
            "Build the encoder with the depth, channels and shortcut that the weights were made with."
        )
    encoder.load_state_dict(own | given)
    return left_out


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CorruptFileError(
            f"`{path.name}` must be a readable file; got {error.strerror or error}. Check the path."
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"`{path.name}` must be a file of tensors that torch.load(weights_only=True) accepts; got one that it "
            "refuses, because it is damaged or would run code. Ask its author for the weights as safetensors."
        ) from error


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CorruptFileError(
            f"`{path.name}` must hold tensors by name, alone or under 'state_dict'; got something else. "
            "Save model.state_dict() as safetensors."
        )
    tensors = {str(name): value for name, value in content.items()}
    if tensors and all(name.startswith(_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    for start in (_OWN_POOLED, _OWN_ENCODER):
        if any(name.startswith(start) for name in tensors):
            return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    return tensors


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
