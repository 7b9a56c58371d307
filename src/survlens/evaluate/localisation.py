"""Does an explanation point at what is known to matter? Masks of pixels, or of planted features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.score import Score
from survlens.evaluate.attribution_values import Part, items_by_instance, parts_of, times_of, top_membership
from survlens.evaluate.score_over_time import Intervals, ScoreOverTime, score_over_time

Mask = np.ndarray | Tensor
"""True where something is: one for all rows of an attribution, or one per row."""


@dataclass(frozen=True, slots=True, eq=False)
class Localisation:
    """How much of an explanation lies where it should.

    Attributes:
        pointing: Whether the largest contribution lies inside the mask.
        mass: Share of the contributions inside.
        mass_ratio: That share by the share of places inside; 1 is an even spread.
        top_k: Share of the largest contributions, as many as the mask has places, inside.
        against: Contribution per place inside against that inside a second mask; None without one.
    """

    pointing: ScoreOverTime
    mass: ScoreOverTime
    mass_ratio: ScoreOverTime
    top_k: ScoreOverTime
    against: ScoreOverTime | None = None

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores that there are."""
        found = (self.pointing, self.mass, self.mass_ratio, self.top_k, self.against)
        return tuple(each.score for each in found if each is not None)


def mask_localisation(
    attribution: Attribution,
    mask: Mask,
    *,
    against: Mask | None = None,
    part: Part = Part.ABSOLUTE,
    intervals: Intervals | None = None,
) -> Localisation:
    """Compares an explanation with a mask, per instance and time.

    Channels that the mask does not have are added up first. An instance with several items is one picture of all
    their places. An instance without a place inside the mask (or, against a second one, inside either) defines no
    score and is left out; `per_instance` is NaN there, and the settings count it. Of a survival probability, what
    raises the risk is Part.LOWERING.

    Args:
        attribution: Attributions of one modality.
        mask: Boolean, in the axes of the attribution or in those without its channel; one per row or one for all. A
            shape that could be either is taken as one per row.
        against: A second mask, such as healthy tissue beside a tumour.
        part: Which contributions count.
        intervals: How intervals are made.

    Raises:
        InvalidValueError: If a mask does not fit, or is not boolean.

    References:
        Zhang et al. 2018; Arras et al. 2022; Theiner et al. 2022.
    """
    check_choice("part", part, Part)
    parts_of(attribution)
    inside, channels = _fitted("mask", mask, attribution)
    other, others = (None, channels) if against is None else _fitted("against", against, attribution)
    if channels != others:
        raise InvalidValueError("`mask` and `against` must have the same axes; got one with channels and one without.")
    times, made = times_of(attribution), intervals or Intervals()
    found = np.full((5, attribution.instances, len(times)), np.nan)
    for i, items in enumerate(items_by_instance(attribution)):
        values = part.mass(attribution.values[items].detach().cpu().double().numpy())
        mass = (values.sum(1) if channels else values).reshape(-1, len(times))
        here = inside[items].reshape(-1)
        if here.any():
            found[:4, i] = _inside(mass, here)
        if other is not None and here.any() and (there := other[items].reshape(-1)).any():
            density = mass[here].mean(0), mass[there].mean(0)
            both = density[0] + density[1]
            found[4, i] = np.where(both > 0, density[0] / np.where(both > 0, both, 1.0), 0.5)
    names = ("pointing_game", "mass_inside", "mass_ratio", "top_k_inside", "mass_against")
    kept = names if other is not None else names[:4]
    settings = {"part": part.value}
    return Localisation(
        *(score_over_time(name, found[k], times, made, settings=settings) for k, name in enumerate(kept))
    )


def _inside(mass: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Pointing, mass, ratio and top-k of one instance at each time; ties count by their share inside."""
    size, total = here.mean(), mass.sum(0)
    largest = mass == mass.max(0)
    share = np.where(total > 0, mass[here].sum(0) / np.where(total > 0, total, 1.0), size)
    count = int(here.sum())
    top = top_membership(mass, count)[here].sum(0) / count
    return np.stack([largest[here].sum(0) / largest.sum(0), share, share / size, top])


def _fitted(name: str, mask: Mask, attribution: Attribution) -> tuple[np.ndarray, bool]:
    """The mask with one entry per row, and whether channels are to be added up."""
    found = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    shape = tuple(attribution.values.shape[:-1])
    flat = (shape[0], *shape[2:]) if attribution.dims[:1] == ("channel",) else None
    choices = [(shape, shape, False), (flat, flat, True), (flat and flat[1:], flat, True), (shape[1:], shape, False)]
    for given, expected, summed in choices:
        if expected is not None and found.shape == given and found.dtype == bool:
            return np.broadcast_to(found, expected), summed
    raise InvalidValueError(
        f"`{name}` must be boolean with the shape {shape} of the attribution, for one row or all, or that without the "
        f"channel; got {found.dtype} of shape {found.shape}."
    )
