"""How far a health direction can be trusted: does it come back from other patients?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from survlens.core.errors import FitError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.score import Category, Interval, Score
from survlens.core.score import Direction as Better
from survlens.explain.directions import Columns, LatentDirection, Metric, moves, steepest
from survlens.explain.latent_frame import Latents
from survlens.models.cross_fitting import patient_codes
from survlens.models.penalised import ridge_coefficients

RELIABLE = 0.7
"""Least expected cosine of a direction that is called reliable: 45 degrees."""


@dataclass(frozen=True, slots=True, eq=False)
class DirectionAgreement:
    """Cosines between directions fitted to different patients, in whitened space.

    Attributes:
        bootstrap: Mean cosine of the direction with those of resampled patients. It flatters: a resample shares two
            thirds of its patients with the whole.
        halves: Mean cosine between directions of two halves of the patients, which share nobody.
        expected: Estimated cosine with the direction that endless patients would give; see `direction_agreement`.
        chance: Standard deviation that the mean cosine between halves has where outcomes are noise. It is
            1 / sqrt(2 p) in p dimensions that count alike, and larger where a few lead.
        n_patients: Patients of the fit.
        n_events: Patients of the fit who had an event.
        width: Latent dimensions.
    """

    bootstrap: Score
    halves: Score
    expected: float
    chance: float
    n_patients: int
    n_events: int
    width: int

    @property
    def reliable(self) -> bool:
        """Whether the expected cosine is 0.7 or more, an angle of 45 degrees, and halves agree beyond twice chance."""
        return self.expected >= RELIABLE and self.halves.value > 2 * self.chance

    def sentence(self, of: str = "the hazard") -> str:
        """What a reader has to know beside every picture of an edit.

        Args:
            of: What the direction leads to, in words.
        """
        facts = (
            f"bootstrap cosine {self.bootstrap.value:.2f}, between halves {self.halves.value:.2f}, "
            f"expected cosine with the true direction {self.expected:.2f} ({self.n_events} events, "
            f"{self.width} dimensions)"
        )
        if self.reliable:
            return f"The direction of {of} is stable: {facts}."
        return f"The direction of {of} is UNRELIABLE, its pictures are mostly noise: {facts}."


def direction_agreement(
    direction: LatentDirection,
    latents: Latents,
    outcome: SurvivalOutcome,
    *,
    patient: Sequence[object] | np.ndarray | None = None,
    covariates: Columns | None = None,
    aside: LatentDirection | None = None,
    draws: int = 50,
    halvings: int = 10,
    seed: int = 0,
) -> DirectionAgreement:
    """Refits a health direction to resampled patients and to halves of them, at its own penalty.

    If a fitted direction is the true one plus independent noise whose variance falls with the number of patients, the
    cosine r between two halves and the cosine with the truth of the fit to all are related by 2 r / (1 + r) = cos^2
    (Spearman and Brown). `expected` is that root, 0 where r is negative. The penalty biases fits of all patients alike,
    which this does not see.

    Where outcomes are noise, coefficients are (k C + penalty)^-1 g with k the share of events and a score g of
    covariance k C / n. With l the eigenvalues of the correlation C, a whitened direction then has the variances
    m = (l / (k l + penalty))^2, that of the coefficients themselves m = (k l + penalty)^-2, up to a factor, and the
    mean cosine between halves has the standard deviation sqrt(sum m^2 / 2) / sum m, which is `chance`.

    Args:
        direction: As `health_direction` gave it, or after `aside` was projected out of it.
        latents: Latents of its training patients.
        outcome: Their outcome.
        patient: Patient of each row; whole patients are drawn.
        covariates: As the direction was fitted with.
        aside: Direction that is projected out of every refit, such as that of age; it is held as it is, so its own
            doubt is not counted.
        draws: Resamples.
        halvings: Times that patients are cut in halves.
        seed: Seed of both.

    Raises:
        InvalidValueError: If `draws` or `halvings` < 1.
        FitError: If hardly any resample has events.

    References:
        Spearman 1910; Brown 1910; Efron and Tibshirani 1993.
    """
    if draws < 1 or halvings < 1:
        raise InvalidValueError(f"`draws` and `halvings` must be >= 1; got {draws} and {halvings}.")
    v = direction.frame.standardise(latents)
    columns = v if covariates is None else np.hstack([v, np.asarray(covariates, dtype=np.float64)])
    code = patient_codes(len(v), patient)
    n_patients = int(code.max()) + 1
    rng = np.random.default_rng(seed)
    free = tuple(range(v.shape[1], columns.shape[1]))

    out = None if aside is None else direction.frame.root @ aside.weights

    def refitted(counts: np.ndarray) -> np.ndarray | None:
        return _refitted(direction, columns, outcome, counts[code], free, out)

    own = moves(direction)
    drawn = (np.bincount(rng.integers(0, n_patients, n_patients), minlength=n_patients) for _ in range(draws))
    resampled = [float(own @ found) for counts in drawn if (found := refitted(counts)) is not None]
    halved = []
    for _ in range(halvings):
        first = rng.permutation(n_patients) < n_patients // 2
        one, two = refitted(first.astype(np.int64)), refitted((~first).astype(np.int64))
        if one is not None and two is not None:
            halved.append(float(one @ two))
    if not resampled or not halved:
        raise FitError(f"`outcome` must have events enough to refit; got {outcome.n_events}. Use more patients.")
    between = float(np.mean(halved))
    positive = max(between, 0.0)
    return DirectionAgreement(
        _score("direction_cosine_bootstrap", resampled, f"{len(resampled)} resamples of patients"),
        _score("direction_cosine_halves", halved, f"{len(halved)} halvings of patients"),
        float(np.sqrt(2 * positive / (1 + positive))),
        _chance(direction, outcome),
        n_patients,
        int((np.bincount(code, weights=outcome.numpy()[1] > 0) > 0).sum()),
        direction.frame.width,
    )


def _chance(direction: LatentDirection, outcome: SurvivalOutcome) -> float:
    size = np.square(np.linalg.eigvalsh(direction.frame.root))
    bent = outcome.n_events / len(outcome) * size + direction.penalty
    whitened = direction.metric is Metric.WHITENED
    variance = np.square((size if whitened else 1.0) / bent)
    return float(np.sqrt(np.square(variance).sum() / 2) / variance.sum())


def _refitted(
    direction: LatentDirection,
    columns: np.ndarray,
    outcome: SurvivalOutcome,
    counts: np.ndarray,
    free: tuple[int, ...],
    out: np.ndarray | None,
) -> np.ndarray | None:
    """Direction in whitened coordinates, without `out`, of rows that count so often; None where the fit fails."""
    rows = np.flatnonzero(counts)
    part = outcome[rows]
    weight = part.weights().numpy() * counts[rows]
    weighted = SurvivalOutcome.from_arrays(
        part.time, part.event, part.unit, entry=part.entry, weight=weight, stratum=part.stratum
    )
    try:
        fitted = ridge_coefficients(columns[rows], weighted, direction.penalty, unpenalised=free)
    except FitError:
        return None
    weights = fitted[: direction.frame.width]
    whitened = direction.frame.inverse @ steepest(weights, direction.frame, direction.metric)
    if out is not None:
        whitened = whitened - out * float(out @ whitened) / float(out @ out)
    return whitened / max(float(np.linalg.norm(whitened)), 1e-300)


def _score(name: str, cosines: Sequence[float], method: str) -> Score:
    lower, upper = np.quantile(cosines, [0.025, 0.975])
    interval = Interval(float(lower), float(upper), 0.95, f"2.5 % and 97.5 % of {method}")
    return Score(name, float(np.mean(cosines)), interval, Better.HIGHER, Category.AGREEMENT, {"draws": len(cosines)})
