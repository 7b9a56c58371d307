"""Everything that the training of a generator against a discriminator goes on from, in one file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from survlens.artifacts.tensors import check_shapes, load_tensors, read_metadata, save_tensors, shapes_of
from survlens.core.errors import CorruptFileError
from survlens.training.adaptive_augmentation import AugmentationControl
from survlens.training.adversarial_history import AdversarialRow
from survlens.training.resuming import check_identity


@dataclass(slots=True)
class AdversarialState:
    """Where a training stands, between two steps. What a step draws follows from its number.

    Attributes:
        control: Probability of changes, and what was seen since it was adapted.
        step: Steps taken.
        overfitting: r as p was adapted last.
        usual_length: Running mean of path lengths; None before the first.
        broken: Steps with a gradient that was not finite.
        sums: Sums and counts since the last row, by name.
        rows: History.
        seconds: Time so far.
    """

    control: AugmentationControl
    step: int = 0
    overfitting: float = 0.0
    usual_length: float | None = None
    broken: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    rows: list[AdversarialRow] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The state as json holds it."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> AdversarialState:
        """The state that `to_json` wrote."""
        known = dict(content)
        rows = [AdversarialRow(**row) for row in known.pop("rows")]
        return AdversarialState(AugmentationControl(**known.pop("control")), rows=rows, **known)


class AdversarialCheckpoint:
    """The checkpoint in one folder: a safetensors file whose header holds the state.

    Args:
        folder: Folder of the result; the file lies in `checkpoints` inside it.
        identity: What must be the same when the training is resumed: settings, networks, photographs.
        modules: Networks by name.
        optimisers: Optimisers by name.
    """

    def __init__(
        self,
        folder: Path | str,
        identity: Mapping[str, str],
        modules: Mapping[str, nn.Module],
        optimisers: Mapping[str, Optimizer],
    ):
        self.path = Path(folder) / "checkpoints" / "last.safetensors"
        self._identity, self._modules, self._optimisers = dict(identity), modules, optimisers
        self._cost, self._written = 0.0, time.monotonic()

    def exists(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.path.exists()

    def due(self) -> bool:
        """Whether it is time for another one: writing takes at most 5 % of the time, and waits for 10 seconds."""
        return time.monotonic() - self._written >= max(20 * self._cost, 10.0)

    def write(self, state: AdversarialState) -> None:
        """Writes the checkpoint in one step.

        Raises:
            WriteError: If the disk is full; the checkpoint before is untouched.
        """
        start = time.monotonic()
        tensors = {f"{name}/{key}": value for name, part in self._parts().items() for key, value in part.items()}
        header = json.dumps({"state": state.to_json(), "identity": self._identity})
        save_tensors(self.path, tensors, metadata={"training": header})
        self._written = time.monotonic()
        self._cost = self._written - start

    def read(self) -> AdversarialState:
        """Puts the checkpoint into networks and optimisers, and gives the state.

        Raises:
            CorruptFileError: If the file is truncated, a pickle, or of other networks.
            UsageError: If it was written with other settings or photographs.
        """
        try:
            content = json.loads(read_metadata(self.path)["training"])
            state = AdversarialState.from_json(content["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"`{self.path}` must be a checkpoint of a training; got a file without its state. Train anew."
            ) from error
        check_identity(
            content["identity"],
            self._identity,
            before="the checkpoint to resume from",
            step=f"Use the same settings, networks and photographs, or another folder than {self.path.parent.parent}.",
        )
        tensors = load_tensors(self.path)
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in (*self._modules, *self._optimisers)}
        for name, tensor in tensors.items():
            part, _, key = name.partition("/")
            parts.setdefault(part, {})[key] = tensor
        for name, module in self._modules.items():
            check_shapes(self.path, parts[name], shapes_of(module.state_dict()))
            module.load_state_dict(parts[name])
        for name, optimiser in self._optimisers.items():
            _load_optimiser(optimiser, parts[name])
        return state

    def _parts(self) -> dict[str, Mapping[str, Tensor]]:
        networks: dict[str, Mapping[str, Tensor]] = {
            name: module.state_dict() for name, module in self._modules.items()
        }
        return networks | {name: _optimiser_tensors(optimiser) for name, optimiser in self._optimisers.items()}


def _optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}/{key}": value for index, values in state.items() for key, value in values.items()}


def _load_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for name, value in tensors.items():
        index, _, key = name.partition("/")
        weight = weights[int(index)]
        # In the layout of the weight, which may have its channels last.
        own = torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
        state.setdefault(int(index), {})[key] = own
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
