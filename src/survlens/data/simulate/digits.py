"""Real pictures of digits with simulated survival: low digits live long (surv-digits and surv-MNIST)."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.simulate.hazards import CensoringTarget, exponential_outcome

LOG_HAZARD_PER_DIGIT = 0.6
"""Each step of the digit multiplies the hazard by exp(0.6) = 1.82."""
MEDIAN_OF_ZERO = 1000.0
"""Median survival of digit 0, in days."""


@dataclass(frozen=True, slots=True, eq=False)
class DigitsStudy:
    """Pictures of digits, the simulated outcome, and the truth behind it.

    Attributes:
        images: (instance, channel, height, width) float32 in [0, 1].
        digit: The digit in each picture: what the hazard depends on, hidden from every model.
        outcome: Simulated survival, in days.
        log_hazard: True log hazard rate of each instance.
    """

    images: np.ndarray
    digit: np.ndarray
    outcome: SurvivalOutcome
    log_hazard: np.ndarray

    def __len__(self) -> int:
        return len(self.digit)

    def __getitem__(self, rows: np.ndarray) -> DigitsStudy:
        return DigitsStudy(self.images[rows], self.digit[rows], self.outcome[rows], self.log_hazard[rows])


def _simulated(images: np.ndarray, digit: np.ndarray, seed: int, censored: float) -> DigitsStudy:
    log_hazard = np.log(np.log(2.0) / MEDIAN_OF_ZERO) + LOG_HAZARD_PER_DIGIT * digit
    generator = np.random.default_rng(seed)
    outcome = exponential_outcome(log_hazard, CensoringTarget(censored), generator, unit="days")
    return DigitsStudy(images.astype(np.float32), digit.astype(np.int64), outcome, log_hazard)


def scikit_digits_survival(*, seed: int = 0, censored: float = 0.17) -> DigitsStudy:
    """surv-digits: the 1,797 pictures of scikit-learn's `load_digits` (8 x 8), with survival simulated per digit.

    T ~ Exp(h_d) with h_d = (ln 2 / 1000) exp(0.6 d) per day for digit d, independent exponential censoring.

    Args:
        seed: Seed of the survival times.
        censored: Share of censored instances.
    """
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    images = np.asarray(pixels).reshape(-1, 1, 8, 8) / 16.0
    return _simulated(images, np.asarray(digit), seed, censored)


def mnist_survival(folder: Path, *, seed: int = 0, censored: float = 0.17) -> DigitsStudy:
    """surv-MNIST: every MNIST file found in `folder` (idx, gzipped or not), with survival simulated per digit.

    Args:
        folder: Holds `t10k-images-idx3-ubyte[.gz]` and its labels, `train-...` likewise, or both.
        seed: Seed of the survival times.
        censored: Share of censored instances.

    Raises:
        InvalidValueError: If no pair of files is found.
        CorruptFileError: If a file is not a complete idx file.
    """
    images, labels = [], []
    for part in ("train", "t10k"):
        picture_file = _existing(folder, f"{part}-images-idx3-ubyte")
        label_file = _existing(folder, f"{part}-labels-idx1-ubyte")
        if picture_file and label_file:
            images.append(read_idx(picture_file))
            labels.append(read_idx(label_file))
    if not images:
        raise InvalidValueError(
            f"`folder` must hold t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz (or train-...); "
            f"got {folder.name}/ without them. Put the MNIST files there."
        )
    pictures = np.concatenate(images)[:, None] / np.float32(255.0)
    return _simulated(pictures, np.concatenate(labels).astype(np.int64), seed, censored)


def _existing(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.exists()), None)


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of an idx file, gzipped or not.

    Raises:
        CorruptFileError: If the header or the length is wrong.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, rank = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    except (OSError, EOFError, struct.error) as err:
        raise CorruptFileError(f"{path.name} must be an idx file; it cannot be read ({err}). Fetch it again.") from err
    body = content[4 + 4 * rank :]
    if zeros != 0 or kind != 8 or len(body) != int(np.prod(shape, dtype=np.int64)):
        raise CorruptFileError(
            f"{path.name} must hold {'x'.join(map(str, shape))} unsigned bytes; got {len(body)} bytes. Fetch it again."
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
