"""Which patients a bootstrap draws, and how often."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome

_CHUNK = 1 << 21
"""Multiplicities held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Resampling:
    """Draws of patients with replacement.

    Attributes:
        code: Number of the patient of each row.
        n_patients: Number of patients.
        draws: Number of draws.
        seed: The same seed, rows and patients give the same draws.
    """

    code: np.ndarray
    n_patients: int
    draws: int
    seed: int

    @staticmethod
    def of(
        outcome: SurvivalOutcome, patient: Sequence[object] | np.ndarray | None, draws: int, seed: int
    ) -> Resampling:
        """Draws for the rows of `outcome`; without `patient`, each row is a patient.

        Raises:
            InvalidValueError: If `patient` has another length than `outcome`, or `draws` < 1.
        """
        if draws < 1:
            raise InvalidValueError(f"`draws` must be >= 1; got {draws}.")
        if patient is None:
            return Resampling(np.arange(len(outcome)), len(outcome), draws, seed)
        if len(patient) != len(outcome):
            raise InvalidValueError(
                f"`patient` and `outcome` must have one length; got {len(patient)} and {len(outcome)}. "
                "Give the patient of every row."
            )
        number: dict[object, int] = {}
        code = np.array([number.setdefault(identity, len(number)) for identity in np.asarray(patient).tolist()], int)
        return Resampling(code, len(number), draws, seed)

    def multiplicities(self) -> Iterator[np.ndarray]:
        """Blocks (draw, instance): how often each row is drawn."""
        generator = np.random.default_rng(self.seed)
        block = max(1, _CHUNK // max(1, len(self.code)))
        for start in range(0, self.draws, block):
            counts = np.empty((min(block, self.draws - start), self.n_patients), dtype=np.int64)
            for row in counts:
                drawn = generator.integers(0, self.n_patients, self.n_patients)
                row[:] = np.bincount(drawn, minlength=self.n_patients)
            yield counts[:, self.code]

    def fingerprint(self) -> str:
        """Hash of everything that decides the draws."""
        digest = hashlib.sha256(np.ascontiguousarray(self.code, dtype=np.int64).tobytes())
        digest.update(f"{self.n_patients},{self.draws},{self.seed}".encode())
        return digest.hexdigest()
