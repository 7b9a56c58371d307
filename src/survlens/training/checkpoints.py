"""Checkpoints of a training: safetensors and json, never a pickle, and never half a file.

`last.safetensors` holds all that a resumed training needs (weights, optimiser, sources of random numbers, and the state
as json in its header), in one file, so that no kill can leave parts of two moments. `best.safetensors` holds the best
weights by their own names. `state.json` is the state once more, for people and other programs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from survlens.artifacts.run_folder import write_json
from survlens.artifacts.tensors import check_shapes, load_tensors, read_metadata, save_tensors, shapes_of
from survlens.core.errors import CorruptFileError
from survlens.training.history import EpochRow, row_from_json, row_to_json
from survlens.training.resuming import check_identity

_PARTS = ("model", "optimiser", "random")


@dataclass(slots=True)
class FitState:
    """Where a training stands, between two steps.

    Attributes:
        epoch: Epochs completed.
        step: Steps taken in the epoch in hand.
        sums: Sums over the rows of that epoch so far of the parts of the objective.
        rows_seen: How many rows that is.
        seconds: Time that epoch took so far.
        rows: History of the epochs completed.
        best_epoch: Epoch of the best validation value, 0 before there is one.
        best_value: That value.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    rows_seen: int = 0
    seconds: float = 0.0
    rows: list[EpochRow] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = float("inf")

    def to_json(self) -> dict[str, Any]:
        """The state as json holds it."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": {name: float(value) for name, value in self.sums.items()},
            "rows_seen": self.rows_seen,
            "seconds": self.seconds,
            "best_epoch": self.best_epoch,
            "best_value": self.best_value if self.best_epoch else None,
            "history": [row_to_json(row) for row in self.rows],
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> FitState:
        """The state that `to_json` wrote."""
        same = {name: content[name] for name in ("epoch", "step", "sums", "rows_seen", "seconds", "best_epoch")}
        best = float("inf") if content["best_value"] is None else float(content["best_value"])
        return FitState(**same, best_value=best, rows=[row_from_json(row) for row in content["history"]])


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: Folder of the model; the files lie in `checkpoints` inside it.
        identity: What must be the same when the training is resumed: settings, objective, fingerprint of the data.
    """

    def __init__(self, folder: Path | str, identity: Mapping[str, str]):
        self.folder = Path(folder) / "checkpoints"
        self.last, self.best = self.folder / "last.safetensors", self.folder / "best.safetensors"
        self._identity = dict(identity)
        self._cost, self._written = 0.0, float("-inf")

    def exist(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.last.exists()

    def due(self) -> bool:
        """Whether it is time for another checkpoint: writing them takes at most 5 % of the time."""
        return time.monotonic() - self._written >= 20 * self._cost

    def write(self, state: FitState, model: nn.Module, optimiser: Optimizer, random: Mapping[str, Tensor]) -> None:
        """Writes the last checkpoint.

        Raises:
            WriteError: If the disk is full; the checkpoint before is untouched.
        """
        start = time.monotonic()
        moments, numbers = _optimiser_state(optimiser)
        groups = dict(zip(_PARTS, (model.state_dict(), moments, random), strict=True))
        tensors = {f"{part}/{name}": value for part, group in groups.items() for name, value in group.items()}
        content = state.to_json() | {"identity": self._identity, "optimiser_numbers": numbers}
        save_tensors(self.last, tensors, metadata={"state": json.dumps(content)})
        write_json(self.folder / "state.json", content)
        self._written = time.monotonic()
        self._cost = self._written - start

    def write_best(self, weights: Mapping[str, Tensor], epoch: int) -> None:
        """Writes the best weights.

        Raises:
            WriteError: If the disk is full; the best weights before are untouched.
        """
        save_tensors(self.best, weights, metadata={"epoch": str(epoch)})

    def read(self, model: nn.Module, optimiser: Optimizer) -> tuple[FitState, dict[str, Tensor]]:
        """Puts the last checkpoint into model and optimiser; gives the state and the sources of random numbers.

        Raises:
            CorruptFileError: If a file is truncated, a pickle, or of another model.
            UsageError: If the checkpoint was written with other settings or data.
        """
        try:
            content, tensors = self._content(), load_tensors(self.last)
        except CorruptFileError as error:
            raise CorruptFileError(f"{error} Or remove {self.folder} to train this model from its start.") from error
        check_identity(
            content.get("identity", {}),
            self._identity,
            before="the checkpoint to resume from",
            step=f"Use the same settings and data, or another folder than {self.folder}.",
        )
        groups: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            groups.setdefault(part, {})[rest] = tensor
        check_shapes(self.last, groups["model"], shapes_of(model.state_dict()))
        model.load_state_dict(groups["model"])
        _load_optimiser(optimiser, groups["optimiser"], content["optimiser_numbers"])
        return FitState.from_json(content), groups["random"]

    def read_best(self, model: nn.Module) -> dict[str, Tensor]:
        """The best weights.

        Raises:
            CorruptFileError: If the file is truncated, a pickle, or of another model.
        """
        return load_tensors(self.best, shapes=shapes_of(model.state_dict()))

    def _content(self) -> dict[str, Any]:
        try:
            return json.loads(read_metadata(self.last)["state"])
        except (KeyError, ValueError) as error:
            raise CorruptFileError(
                f"`{self.last}` must be a checkpoint of a training; got a safetensors file without its state."
            ) from error


def _optimiser_state(optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in optimiser.state_dict()["state"].items():
        for key, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{index}/{key}"] = value
    return tensors, numbers


def _load_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers}.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
