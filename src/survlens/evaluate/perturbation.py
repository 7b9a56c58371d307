"""Does a perturbation change the prediction by what the explanation says it should?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import select_rows
from survlens.core.protocols import Inputs
from survlens.core.score import Score
from survlens.evaluate.attribution_values import (
    Explained,
    Predict,
    items_by_instance,
    parts_of,
    time_weights,
    times_of,
)
from survlens.evaluate.removal import (
    Filling,
    Question,
    answered,
    check_fit,
    content_generator,
    removable_instances,
    words_of,
)
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime, statistic_over_time


@dataclass(frozen=True, slots=True, eq=False)
class Perturbed:
    """Changes of one instance, the first of which is none, and what its explanation says of each.

    Attributes:
        claimed: I . phi(t) of each change I.
        asked: From the positions of some changes to the question about them.
        fillings: Rows of the model that one change takes.
    """

    claimed: np.ndarray
    asked: Callable[[np.ndarray], Question]
    fillings: int = 1

    @property
    def rows(self) -> int:
        """Number of changes."""
        return len(self.claimed)

    def questions(self, batch: int) -> Iterator[Question]:
        """What to ask, in questions of at most `batch` rows, or of one change with all its fillings."""
        step = max(1, batch // self.fillings)
        for start in range(0, self.rows, step):
            yield self.asked(np.arange(start, min(start + step, self.rows)))


class Perturbation(Protocol):
    """How instances are changed: `SubsetRemoval` or `GaussianNoise`."""

    @property
    def description(self) -> str:
        """What it does, in words."""
        ...

    def changes(self, inputs: Inputs, explained: Explained, count: int, seed: int) -> Iterator[Perturbed]:
        """`count` changes of one instance after another."""
        ...


@dataclass(frozen=True, slots=True)
class SubsetRemoval:
    """Replaces a random set of features, of a random size from one to all, by a filling.

    I . phi is the sum of the contributions of what is removed, so this is for contributions (IntegratedGradients,
    SHAP, occlusion, Gradient x Input), not for slopes.

    Attributes:
        filling: What stands in the place of what is removed.
        patch: Side in pixels of the squares of an image that are removed as a whole.
    """

    filling: Filling
    patch: int = 1

    @property
    def description(self) -> str:
        """What it does, in words."""
        return f"random sets of features replaced by: {words_of(self.filling)}"

    def changes(self, inputs: Inputs, explained: Explained, count: int, seed: int) -> Iterator[Perturbed]:
        """`count` changes of one instance after another."""
        for each in removable_instances(inputs, explained, self.filling, self.patch):
            if not each.units:
                yield Perturbed(np.zeros((0, each.contributions.shape[1])), each.without)
                continue
            generator = each.generator(seed)
            sizes = generator.integers(1, each.units + 1, count)
            order = np.argsort(np.argsort(generator.random((count, each.units)), axis=1), axis=1)
            removed = np.concatenate([np.zeros((1, each.units), bool), order < sizes[:, None]])

            def asked(some: np.ndarray, each=each, removed=removed) -> Question:
                return each.without(removed[some])

            yield Perturbed(removed @ each.contributions, asked, len(each.weights))


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Subtracts Gaussian noise from every value of the explained modalities.

    I . phi is the noise times the slopes, so this is for slopes (Gradient, SmoothGrad), not for contributions.

    Attributes:
        scale: Standard deviation of the noise; one for all, or by modality a number or a tensor that broadcasts to a
            row, with 0 where a value must not move.

    Raises:
        InvalidValueError: If contributions are given where slopes are due.
    """

    scale: float | Mapping[str, float | Tensor] = 0.1

    @property
    def description(self) -> str:
        """What it does, in words."""
        size = f"{self.scale:g}" if isinstance(self.scale, float | int) else "a scale by modality"
        return f"Gaussian noise with a standard deviation of {size}"

    def changes(self, inputs: Inputs, explained: Explained, count: int, seed: int) -> Iterator[Perturbed]:
        """`count` changes of one instance after another."""
        parts = parts_of(explained)
        check_fit(inputs, explained, parts)
        if any(part.additive for part in parts.values()):
            raise InvalidValueError(
                "`explained` must hold slopes for an infidelity under noise; got additive contributions. "
                "Perturb by SubsetRemoval(filling)."
            )
        items = {name: items_by_instance(part) for name, part in parts.items()}
        for i in range(next(iter(parts.values())).instances):
            one = select_rows(inputs, torch.tensor([i]))
            generator = content_generator(one, seed)
            claimed, noise = 0.0, {}
            for name, part in parts.items():
                scale = self.scale[name] if isinstance(self.scale, Mapping) else self.scale
                drawn = torch.from_numpy(generator.standard_normal((count + 1, *one[name].shape)))
                drawn[0] = 0.0
                noise[name] = drawn * torch.as_tensor(scale, dtype=torch.float64)
                slopes = part.values[items[name][i]].detach().cpu().double().reshape(-1, len(part.times))
                claimed = claimed + noise[name].reshape(count + 1, -1) @ slopes

            def asked(some: np.ndarray, one=one, noise=noise) -> Question:
                found = select_rows(one, torch.zeros(len(some), dtype=torch.int64))
                for name, each in noise.items():
                    less = one[name] - each[torch.from_numpy(some)].to(one[name])
                    found[name] = less.reshape(-1, *one[name].shape[1:])
                return Question(found, np.ones(1), len(some))

            yield Perturbed(np.asarray(claimed), asked)


@dataclass(frozen=True, slots=True, eq=False)
class Infidelity:
    """How far explained changes are from true ones.

    Attributes:
        absolute: Mean squared distance, in squared units of the target.
        relative: The same as a share of the mean squared change: 0 is perfect, an explanation of zeros has 1. Over
            times, one mean by the other.
    """

    absolute: ScoreOverTime
    relative: ScoreOverTime

    @property
    def scores(self) -> tuple[Score, ...]:
        """Both scores."""
        return self.absolute.score, self.relative.score


def infidelity(
    predict: Predict,
    inputs: Inputs,
    explained: Explained,
    perturbation: Perturbation,
    *,
    draws: int = 100,
    scaled: bool = False,
    batch: int = 256,
    seed: int = 0,
    intervals: Intervals | None = None,
) -> Infidelity:
    """E (I . phi(t) - (F(t | x) - F(t | x - I)))^2 over random changes I of the instance.

    Args:
        predict: From inputs to the target (row, time) at the times of the attribution; all times in one call.
        inputs: The rows explained.
        explained: Attributions keyed by modality; only these modalities are changed, together.
        perturbation: How instances are changed: `SubsetRemoval` for contributions, `GaussianNoise` for slopes.
        draws: Number of changes per instance.
        scaled: Whether phi(t) is first multiplied, per instance and time, by the number that makes the infidelity
            smallest, E (I . phi) (F(x) - F(x - I)) / E (I . phi)^2; then only the shape of the explanation counts.
        batch: Rows that the model is asked about at once.
        seed: The same seed changes an instance in the same ways, whatever its position and company.
        intervals: How intervals are made.

    Raises:
        InvalidValueError: If shapes or times do not fit together, or `draws` or `batch` < 1.

    References:
        Yeh et al. 2019.
    """
    if min(draws, batch) < 1:
        raise InvalidValueError(f"`draws` and `batch` must be >= 1; got {draws} and {batch}.")
    times = times_of(explained)
    missed, changed = [], []
    inquiries = perturbation.changes(inputs, explained, draws, seed)
    for each, found in answered(predict, inquiries, batch, len(times)):
        if not each.rows:
            missed.append(np.full(len(times), np.nan))
            changed.append(missed[-1])
            continue
        claimed, true = each.claimed[1:], found[:1] - found[1:]
        if scaled:
            size = (claimed**2).sum(0)
            claimed = claimed * ((claimed * true).sum(0) / np.where(size > 0, size, 1.0))
        missed.append(((claimed - true) ** 2).mean(0))
        changed.append((true**2).mean(0))
    return _summary(np.asarray(missed), np.asarray(changed), times, intervals or Intervals(), {
        "perturbation": perturbation.description,
        "perturbations": draws,
        "scaled": int(scaled),
    })  # fmt: skip


def _summary(
    missed: np.ndarray, changed: np.ndarray, times: np.ndarray, intervals: Intervals, settings: dict
) -> Infidelity:
    weights = time_weights(times)
    sizes = [np.column_stack([each, each @ weights]) for each in (missed, changed)]
    width = len(times) + 1

    def ratio(means: np.ndarray) -> np.ndarray:
        return _ratio(means[:, :width], means[:, width:])

    absolute = statistic_over_time("infidelity", sizes[0], missed, times, intervals, settings=settings)
    relative = statistic_over_time(
        *("relative_infidelity", np.column_stack(sizes), _ratio(missed, changed), times, intervals),
        statistic=ratio,
        settings=settings,
    )
    return Infidelity(absolute, relative)


def _ratio(missed: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Missed by changed; where nothing changes, 0 if nothing is missed and else 1."""
    return np.where(changed > 0, missed / np.where(changed > 0, changed, 1.0), (missed > 0).astype(np.float64))
