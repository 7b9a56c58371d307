"""Photographs as latent vectors, and how far these can be trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from survlens.artifacts.atomic import write_atomically
from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.training.inversion_settings import LatentSpace, Start

if TYPE_CHECKING:
    import pandas as pd

_ARRAYS = ("latents_of_starts", "distance_of_starts", "pyramid_error", "steps", "evaluations", "seen", "mean")
_HEADER = "embedding"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Embedding:
    """The latent vectors of photographs, found by descent. They are personal data: a face can be made from them.

    Attributes:
        hashes: SHA-256 of each photograph's pixels; it stands for the photograph, whose name is not kept.
        space: The latent space.
        start: Where the first descent started.
        distance_name: The distance that was minimised.
        latents_of_starts: Best latent vector of each start; the first is the embedding.
        distance_of_starts: Distance of its picture from the photograph.
        pyramid_error: Mean squared error of pixels of the first start's clamped pictures, over a pyramid of three
            levels; it depends on no network.
        steps: Steps of the first descent.
        evaluations: Pictures that the generator made for the photograph in the first start.
        shared_evaluations: Pictures that it made once for all photographs, to find starts.
        mean: Mean of the latent vectors that the generator was trained with: 0 in z.
        seen: Whether the encoder of a warm start was fitted on the photograph; never with other starts.
    """

    hashes: tuple[str, ...]
    space: LatentSpace
    start: Start
    distance_name: str
    latents_of_starts: Float[Tensor, "start instance embedding"]
    distance_of_starts: Float[Tensor, "start instance"]
    pyramid_error: Float[Tensor, " instance"]
    steps: Int64[Tensor, " instance"]
    evaluations: Int64[Tensor, " instance"]
    shared_evaluations: int
    mean: Float[Tensor, " embedding"]
    seen: Bool[Tensor, " instance"]

    def __post_init__(self) -> None:
        rows = {len(self.hashes), self.latents_of_starts.shape[1], self.distance_of_starts.shape[1]}
        rows |= {len(each) for each in (self.pyramid_error, self.steps, self.evaluations, self.seen)}
        if len(rows) != 1:
            raise InvalidValueError(f"Every field must have one row per photograph; got {sorted(rows)} rows.")
        if len(self.latents_of_starts) != len(self.distance_of_starts) or not len(self.latents_of_starts):
            raise InvalidValueError(
                "`latents_of_starts` and `distance_of_starts` must have the same starts, at least one; got "
                f"{len(self.latents_of_starts)} and {len(self.distance_of_starts)}."
            )

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def latents(self) -> Float[Tensor, "instance embedding"]:
        """The embedding: the latent vectors of the first start."""
        return self.latents_of_starts[0]

    @property
    def distance(self) -> Float[Tensor, " instance"]:
        """Distance of the picture of the embedding from the photograph."""
        return self.distance_of_starts[0]

    @property
    def agreement(self) -> Float64[Tensor, " instance"]:
        """Restart agreement: cosine between what two starts found for a photograph, after centring on the cohort.

        The mean over photographs is subtracted from the vectors of each start, so that what all photographs have in
        common does not count. Over more than two starts it is the mean of the pairs. Not a number with one start or one
        photograph.
        """
        latents = self.latents_of_starts.double()
        return _pairwise_cosine(latents - latents.mean(1, keepdim=True) if len(self) > 1 else latents * torch.nan)

    @property
    def agreement_about_mean(self) -> Float64[Tensor, " instance"]:
        """The same about the mean of the generator instead of the cohort's: in z the plain cosine of the vectors."""
        return _pairwise_cosine(self.latents_of_starts.double() - self.mean.double())

    def summary(self) -> dict[str, str | float]:
        """What a report says of the embedding, by name; means are over photographs."""
        return {
            "photographs": len(self),
            "space": self.space.value,
            "start": self.start.value,
            "distance": self.distance_name,
            "mean distance": float(self.distance.double().mean()),
            "mean pyramid error": float(self.pyramid_error.double().mean()),
            "mean steps": float(self.steps.double().mean()),
            "mean generator evaluations": float(self.evaluations.double().mean()),
            "starts": len(self.latents_of_starts),
            "restart agreement": float(self.agreement.mean()),
            "restart agreement about the generator's mean": float(self.agreement_about_mean.mean()),
            "photographs that the encoder was fitted on": int(self.seen.sum()),
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per photograph, under its hash: the latent vector (w1 ... or z1 ...) and what is known of it."""
        frame = self._frame_of(0)
        known = {
            "pyramid_error": self.pyramid_error,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "agreement": self.agreement,
            "agreement_about_mean": self.agreement_about_mean,
            "seen": self.seen,
        }
        return frame.assign(**{name: value.numpy() for name, value in known.items()})

    def save(self, path: Path | str) -> None:
        """Writes everything to one file, in one step: a table if it ends in .parquet, arrays if it ends in .npz.

        Raises:
            InvalidValueError: If the file has another ending.
            WriteError: If the disk is full; the previous file is untouched.
        """
        path = Path(path)
        header = {"hashes": list(self.hashes), "space": self.space.value, "start": self.start.value}
        header |= {"distance_name": self.distance_name, "shared_evaluations": self.shared_evaluations}
        if _is_table(path):
            write_atomically(path, lambda draft: self._write_table(draft, header))
        else:
            arrays = {name: getattr(self, name).numpy() for name in _ARRAYS}
            write_atomically(path, lambda draft: _write_arrays(draft, arrays | {_HEADER: np.array(json.dumps(header))}))

    @staticmethod
    def load(path: Path | str) -> Embedding:
        """Reads a file that `save` wrote, without running anything in it.

        Raises:
            InvalidValueError: If the file ends neither in .npz nor in .parquet.
            CorruptFileError: If the file cannot be read, or is no embedding.
        """
        path = Path(path)
        read = _read_table if _is_table(path) else _read_arrays
        try:
            header, arrays = read(path)
            tensors: dict[str, Any] = {name: torch.from_numpy(arrays[name]) for name in _ARRAYS}
            return Embedding(
                hashes=tuple(header["hashes"]),
                space=LatentSpace(header["space"]),
                start=Start(header["start"]),
                distance_name=str(header["distance_name"]),
                shared_evaluations=int(header["shared_evaluations"]),
                **tensors,
            )
        except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
            raise CorruptFileError(
                f"`{path.name}` must be an embedding that survlens wrote; got {error}. Embed the photographs again."
            ) from error

    def _frame_of(self, start: int) -> pd.DataFrame:
        import pandas as pd

        columns = [f"{self.space.value}{number}" for number in range(1, self.latents_of_starts.shape[2] + 1)]
        frame = pd.DataFrame(self.latents_of_starts[start].numpy(), columns=pd.Index(columns))
        frame.index = pd.Index(self.hashes, name="photograph")
        return frame.assign(distance=self.distance_of_starts[start].numpy())

    def _write_table(self, draft: Path, header: dict[str, Any]) -> None:
        import pandas as pd
        import pyarrow as pa
        from pyarrow import parquet

        rest = {name: getattr(self, name).numpy() for name in ("pyramid_error", "steps", "evaluations", "seen")}
        parts = [
            self._frame_of(start).assign(**rest).reset_index().assign(start=start)
            for start in range(len(self.latents_of_starts))
        ]
        table = pa.Table.from_pandas(pd.concat(parts, ignore_index=True), preserve_index=False)
        header = header | {"mean": self.mean.double().tolist(), "starts": len(parts)}
        parquet.write_table(table.replace_schema_metadata({_HEADER: json.dumps(header)}), draft)


def _pairwise_cosine(latents: Tensor) -> Tensor:
    pairs = combinations(range(len(latents)), 2)
    found = [torch.cosine_similarity(latents[left], latents[right], dim=1) for left, right in pairs]
    return torch.stack(found).mean(0) if found else latents.new_full((latents.shape[1],), torch.nan)


def _is_table(path: Path) -> bool:
    if path.suffix not in (".npz", ".parquet"):
        raise InvalidValueError(f"`path` must end in .npz or .parquet; got {path.name!r}.")
    return path.suffix == ".parquet"


def _write_arrays(draft: Path, arrays: dict[str, np.ndarray]) -> None:
    with draft.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    import zipfile

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
    except zipfile.BadZipFile as error:
        raise CorruptFileError(f"`{path.name}` must be a complete .npz file; got {error}.") from error
    return json.loads(str(arrays.pop(_HEADER))), arrays


def _read_table(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    header = json.loads((table.schema.metadata or {})[_HEADER.encode()])
    frame, starts, rows = table.to_pandas(), int(header["starts"]), len(header["hashes"])
    width = len(header["mean"])
    latents = frame[[f"{header['space']}{number}" for number in range(1, width + 1)]].to_numpy()
    first = frame[:rows]
    arrays = {name: first[name].to_numpy().copy() for name in ("pyramid_error", "steps", "evaluations", "seen")}
    arrays["latents_of_starts"] = latents.reshape(starts, rows, width).copy()
    arrays["distance_of_starts"] = frame["distance"].to_numpy().reshape(starts, rows).copy()
    arrays["mean"] = np.asarray(header["mean"], dtype=latents.dtype)
    return header, arrays
