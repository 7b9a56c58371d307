"""The photographs that a generator is trained on, and the record of which they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.artifacts.run_folder import read_json, write_json
from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.data.fitted_on import FittedOn
from survlens.data.loaders import Source
from survlens.generators.stylegan2.generator import Generator
from survlens.training.colour_drift import mean_lab
from survlens.training.inversion_encoder import check_pictures, picture_hash
from survlens.training.repeatability import epoch_generator

_PART = 64
FITTED_ON = "fitted_on.json"
"""File of the record in the folder of a trained generator."""


class Photographs:
    """Photographs in [0, 1] that are read a batch at a time.

    Args:
        given: A tensor of float32 in [0, 1], or of bytes, which take a quarter of the memory; or a source with the
            modality `modality`.
        modality: Modality of the photographs in a source.
    """

    def __init__(self, given: Tensor | Source, *, modality: str = "image"):
        self._given, self._modality = given, modality

    def __len__(self) -> int:
        return len(self._given)

    def read(self, rows: Int64[Tensor, " instance"]) -> Float[Tensor, "instance channel height width"]:
        """The photographs of some rows, in [0, 1]."""
        if not isinstance(self._given, Tensor):
            return self._given.batch(rows)[0][self._modality].float()
        chosen = self._given[rows]
        return chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen.float()

    def survey(self, generator: Generator) -> Survey:
        """Reads every photograph once, checks it, and takes its hash and its mean colour.

        Raises:
            InvalidValueError: If there are none, or one does not fit the generator or lies outside [0, 1].
        """
        if not len(self):
            raise InvalidValueError("`photographs` must hold at least one; got none.")
        hashes: list[str] = []
        colours: list[Tensor] = []
        for rows in torch.arange(len(self)).split(_PART):
            pictures = self.read(rows)
            check_pictures(generator, pictures)
            hashes += map(_hash, pictures)
            colours.append(mean_lab(pictures))
        return Survey(tuple(hashes), torch.cat(colours))


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What was found out about photographs in one pass.

    Attributes:
        hashes: Hash of the pixels of each.
        colours: Mean Lab colour of each.
    """

    hashes: tuple[str, ...]
    colours: Float[Tensor, "instance 3"]

    @property
    def fingerprint(self) -> str:
        """Number of the photographs and a hash of all in their order."""
        return f"{len(self.hashes)} photographs {hashlib.sha256(''.join(self.hashes).encode()).hexdigest()[:16]}"


def dealt_rows(photographs: int, batch: int, step: int, *, seed: int) -> Int64[Tensor, " batch"]:
    """Rows of the batch of one step: every photograph once, in random order, before any comes again.

    Which rows a step gets depends on its number only, so that a resumed training goes on with the same ones.

    Args:
        photographs: How many there are.
        batch: Rows of a batch.
        step: Number of the step, from 0.
        seed: Seed of the order.
    """
    first, after = step * batch, (step + 1) * batch
    rounds = range(first // photographs, (after - 1) // photographs + 1)
    order = torch.cat([torch.randperm(photographs, generator=epoch_generator(seed, turn)) for turn in rounds])
    return order[first - rounds[0] * photographs :][:batch]


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """Which photographs, and photographs of which patients, a generator was trained on; without names.

    Attributes:
        photographs: Hashes of the pixels of the photographs.
        patients: Hashes of the patients; None where they were not told.
    """

    photographs: frozenset[str]
    patients: FittedOn | None

    @staticmethod
    def of(hashes: Iterable[str], patients: Sequence[object] | None) -> TrainingRecord:
        """The record of photographs with these hashes, of these patients."""
        known = None if patients is None else FittedOn.of("generator", patients)
        return TrainingRecord(frozenset(hashes), known)

    @staticmethod
    def read(folder: Path | str) -> TrainingRecord:
        """The record in the folder of a trained generator.

        Raises:
            CorruptFileError: If it is missing or is not whole.
        """
        content = read_json(Path(folder) / FITTED_ON)
        try:
            patients = None if content["patients"] is None else FittedOn.from_json(content["patients"])
            return TrainingRecord(frozenset(map(str, content["photographs"])), patients)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"`{Path(folder) / FITTED_ON}` must be the record of a training; got a fault ({error}). Train again."
            ) from error

    def write(self, folder: Path | str) -> None:
        """Writes the record to the folder of a trained generator.

        Raises:
            WriteError: If the disk is full or the folder cannot be written.
        """
        patients = None if self.patients is None else self.patients.to_json()
        write_json(Path(folder) / FITTED_ON, {"photographs": sorted(self.photographs), "patients": patients})

    def joined(self, other: TrainingRecord) -> TrainingRecord:
        """The record of a generator that saw the photographs of both; the patients are known where both know theirs."""
        patients = None
        if self.patients is not None and other.patients is not None:
            patients = FittedOn(self.patients.what, self.patients.patients | other.patients.patients)
        return TrainingRecord(self.photographs | other.photographs, patients)

    def seen(self, pictures: Float[Tensor, "instance channel height width"]) -> list[bool]:
        """Whether the generator was trained on each of these photographs, pixel by pixel the same to a byte.

        Another photograph of the same patient is not found so; `patients` is for that.

        Args:
            pictures: Photographs in [0, 1].
        """
        return [_hash(picture) in self.photographs for picture in pictures]


def _hash(picture: Tensor) -> str:
    return picture_hash((picture * 255).round() / 255)
