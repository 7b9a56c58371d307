"""Does an edited picture show what its edit claims? Values read from edited pictures, against the steps of the edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from survlens.core.errors import InvalidValueError
from survlens.core.score import Category, Direction, Interval, Score
from survlens.evaluate.score_over_time import Intervals

Readings = Float64[np.ndarray, "instance step"]
"""What a reader says of each instance's picture at each step."""


@dataclass(frozen=True, slots=True, eq=False)
class EditResponse:
    """How readings follow the steps of an edit.

    Attributes:
        strict: Share of instances whose reading rises at every step.
        spearman: Mean over instances of the rank correlation of readings with steps; a reading that never changes
            counts as 0.
        slope: Mean over instances of the least-squares slope of readings on steps.
        slopes: That slope of each instance.
    """

    strict: Score
    spearman: Score
    slope: Score
    slopes: Float64[np.ndarray, " instance"]

    @property
    def scores(self) -> tuple[Score, ...]:
        """All three scores."""
        return self.strict, self.spearman, self.slope


def edit_response(
    steps: Sequence[float] | np.ndarray, readings: Readings, *, reader: str, intervals: Intervals | None = None
) -> EditResponse:
    """Judges whether what is read from edited pictures rises with the edit.

    A linear model's own prediction rises along its own direction by construction. So the readings must come from the
    pictures: from latent vectors found anew in the edited picture and a model fitted to other patients, or from a
    reader that knows nothing of the latent space.

    Args:
        steps: Steps of the edit, rising; two or more.
        readings: What the reader says at each step.
        reader: Who reads what, in words; it stands in the settings of every score.
        intervals: How intervals over instances are made.

    Raises:
        InvalidValueError: If shapes disagree, steps do not rise or a reading is not finite.
    """
    at, values = _checked(steps, readings)
    made = intervals or Intervals()
    centred = at - at.mean()
    slopes = np.asarray(values @ centred / (centred @ centred))
    strict = np.asarray((np.diff(values, axis=1) > 0).all(1), dtype=np.float64)
    settings: dict[str, float | int | str] = {"reader": reader, "n": len(values), "steps": len(at)}
    settings |= {"first_step": float(at[0]), "last_step": float(at[-1])}
    return EditResponse(
        _mean("edit_strictly_rising", strict, made, settings),
        _mean("edit_spearman", _rank_correlation(at, values), made, settings),
        _mean("edit_slope", slopes, made, settings, Direction.NONE),
        slopes,
    )


def slope_ratio(
    numerator: EditResponse, denominator: EditResponse, *, name: str, intervals: Intervals | None = None
) -> Score:
    """|mean slope of one response| over |mean slope of another| on the same instances, resampled together.

    Two uses: an edit's slope on age over its slope on health, both in standard deviations of the reader over training
    patients; and the slope on age after it was projected out over that before.

    Args:
        numerator: One response.
        denominator: The other, of the same instances.
        name: Name of the score.
        intervals: How the interval is made. Draws of a denominator near 0 make it wide, as they should.

    Raises:
        InvalidValueError: If the numbers of instances differ.
    """
    if len(numerator.slopes) != len(denominator.slopes):
        raise InvalidValueError(
            f"`numerator` and `denominator` must be of the same instances; got {len(numerator.slopes)} and "
            f"{len(denominator.slopes)}."
        )
    made = intervals or Intervals()
    both = np.stack([numerator.slopes, denominator.slopes], axis=1)
    lower, upper = made.limits(_ratio(made.means(both, np.ones(len(both), dtype=bool)))[:, None])
    settings = {"numerator": str(numerator.slope.settings["reader"]), "n": len(both)}
    settings |= {"denominator": str(denominator.slope.settings["reader"])}
    interval = Interval(float(lower[0]), float(upper[0]), made.confidence, made.method)
    value = float(_ratio(both.mean(0, keepdims=True))[0])
    return Score(name, value, interval, Direction.LOWER, Category.FAITHFULNESS, settings)


@dataclass(frozen=True, slots=True, eq=False)
class AgainstControls:
    """The response to an edit beside those to controls of the same instances.

    Attributes:
        excess: Mean slope of the edit minus the mean |slope| of a control's mean.
        largest: Largest |mean slope| of a control.
        p_value: Share of controls, the edit counted among them, whose |mean slope| is as large as that of the edit. It
            is a p-value only where edit and controls are exchangeable under the hypothesis, as directions of permuted
            outcomes are; random directions are not, and with them it is a share and no more.
        controls: Mean slope of each control.
    """

    excess: Score
    largest: float
    p_value: float
    controls: Mapping[str, float]


def against_controls(
    edit: EditResponse, controls: Mapping[str, EditResponse], *, intervals: Intervals | None = None
) -> AgainstControls:
    """Holds the slope of an edit against the slopes of edits along directions that ought to show nothing.

    Args:
        edit: Response to the edit.
        controls: Responses of the same instances to controls, by name.
        intervals: How the interval of the difference is made; instances are resampled, controls stay.

    Raises:
        InvalidValueError: If there is no control or the numbers of instances differ.
    """
    if not controls or any(len(each.slopes) != len(edit.slopes) for each in controls.values()):
        raise InvalidValueError(
            f"`controls` must hold at least one response of the same {len(edit.slopes)} instances; got "
            f"{[len(each.slopes) for each in controls.values()]}."
        )
    made = intervals or Intervals()
    columns = np.stack([edit.slopes, *(each.slopes for each in controls.values())], axis=1)
    means = columns.mean(0)
    drawn = made.means(columns, np.ones(len(columns), dtype=bool))
    lower, upper = made.limits((drawn[:, 0] - np.abs(drawn[:, 1:]).mean(1))[:, None])
    size = np.abs(means[1:])
    settings = {"n": len(columns), "controls": len(controls), "reader": str(edit.slope.settings["reader"])}
    interval = Interval(float(lower[0]), float(upper[0]), made.confidence, made.method)
    excess = Score(
        "edit_slope_over_controls", float(means[0] - size.mean()), interval, category=Category.FAITHFULNESS,
        settings=settings,
    )  # fmt: skip
    return AgainstControls(
        excess,
        float(size.max()),
        float((1 + (size >= abs(means[0])).sum()) / (1 + len(size))),
        dict(zip(controls, means[1:].tolist(), strict=True)),
    )


def _mean(
    name: str,
    values: np.ndarray,
    intervals: Intervals,
    settings: Mapping[str, float | int | str],
    direction: Direction = Direction.HIGHER,
) -> Score:
    drawn = intervals.means(values[:, None], np.ones(len(values), dtype=bool))
    lower, upper = intervals.limits(drawn)
    interval = Interval(float(lower[0]), float(upper[0]), intervals.confidence, intervals.method)
    return Score(name, float(values.mean()), interval, direction, Category.FAITHFULNESS, settings)


def _ratio(means: np.ndarray) -> np.ndarray:
    size = np.abs(means)
    return size[:, 0] / np.maximum(size[:, 1], 1e-12)


def _rank_correlation(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=1) - (len(steps) + 1) / 2
    order = np.arange(len(steps)) - (len(steps) - 1) / 2
    size = np.sqrt((ranks**2).sum(1) * (order @ order))
    return np.asarray(ranks @ order / np.where(size > 0, size, 1.0))


def _checked(steps: Sequence[float] | np.ndarray, readings: Readings) -> tuple[np.ndarray, np.ndarray]:
    at, values = np.asarray(steps, dtype=np.float64), np.asarray(readings, dtype=np.float64)
    if at.ndim != 1 or len(at) < 2 or (np.diff(at) <= 0).any():
        raise InvalidValueError(f"`steps` must be two or more and rise; got {at.tolist()}.")
    if values.ndim != 2 or not len(values) or values.shape[1] != len(at) or not np.isfinite(values).all():
        raise InvalidValueError(
            f"`readings` must be finite, one per instance and step; got shape {values.shape} for {len(at)} steps."
        )
    return at, values
