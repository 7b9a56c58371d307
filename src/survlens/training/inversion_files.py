"""Checkpoints of an embedding: a file per batch, found again by the hashes of its photographs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from survlens.artifacts.tensors import load_tensors, read_metadata, save_tensors
from survlens.core.errors import CorruptFileError
from survlens.training.resuming import check_identity

Row = Mapping[str, Tensor]
"""What is stored of one photograph."""


class BatchFiles:
    """The finished batches in a folder.

    Args:
        folder: Folder of the embedding; the files lie in `batches` inside it.
        identity: What must be the same when photographs are added: settings, generator, distance, encoder.
    """

    def __init__(self, folder: Path | str, identity: Mapping[str, str]):
        self.folder = Path(folder) / "batches"
        self._identity = dict(identity)

    def paths(self) -> list[Path]:
        """Files of finished batches."""
        return sorted(self.folder.glob("*.safetensors"))

    def read(self) -> dict[str, Row]:
        """The photographs embedded so far, by hash.

        Raises:
            CorruptFileError: If a file is damaged, or no batch of an embedding.
            UsageError: If a batch was embedded with other settings or networks.
        """
        found: dict[str, Row] = {}
        for path in self.paths():
            try:
                metadata = read_metadata(path)
                hashes, identity = json.loads(metadata["hashes"]), json.loads(metadata["identity"])
                tensors = load_tensors(path)
            except (KeyError, ValueError, CorruptFileError) as error:
                raise CorruptFileError(
                    f"`{path.name}` must be a whole batch of an embedding; got a file that is damaged or without its "
                    f"hashes. Remove it from {self.folder.name} to embed its photographs again."
                ) from error
            check_identity(
                identity,
                self._identity,
                before="the embedding to go on with",
                step="Use the same settings and networks, or another folder.",
            )
            if any(len(tensor) != len(hashes) for tensor in tensors.values()):
                raise CorruptFileError(
                    f"`{path.name}` must hold a row for each of its {len(hashes)} photographs; got other lengths. "
                    f"Remove it from {self.folder.name} to embed its photographs again."
                )
            for row, one in enumerate(hashes):
                found[one] = {name: tensor[row] for name, tensor in tensors.items()}
        return found

    def write(self, hashes: Sequence[str], rows: Mapping[str, Float[Tensor, "instance *_"]]) -> None:
        """Writes a finished batch.

        Raises:
            WriteError: If the disk is full; the batches before are untouched.
        """
        name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:24]
        metadata = {"hashes": json.dumps(list(hashes)), "identity": json.dumps(self._identity)}
        save_tensors(self.folder / f"{name}.safetensors", rows, metadata=metadata)
