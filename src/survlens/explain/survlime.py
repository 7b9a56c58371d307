"""SurvLIME: the Cox regression that is closest to a model around an instance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.inputs import has_bags, modalities_of, rows_of_modality, select_rows
from survlens.core.protocols import Inputs, SurvivalPredictor
from survlens.core.targets import Target, cumulative_hazard
from survlens.explain.asked import AskedModel, asked, values_of
from survlens.explain.layout import checked_times
from survlens.explain.memory import MEMORY
from survlens.explain.references import References

_LEAST_LOG = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class LocalCox:
    """Cox regressions around instances: log H(t | z) = log H0(t) + level + z' coefficients, for z near x.

    Attributes:
        coefficients: Log hazard ratio per unit of each feature, row by row.
        level: Level of each fit, which a baseline known up to a factor leaves open.
        r_squared: Weighted share of the variance of log H - log H0 around each instance that the fit explains; 1 where
            the model is a Cox regression. NaN where there is no variance.
        left_out: Share of the pairs of a neighbour and a time that were left out, with H = 0 or infinite.
        times: Times of the fit.
        unit: Unit of time.
    """

    coefficients: Float[Tensor, "instance feature"]
    level: Float[Tensor, " instance"]
    r_squared: Float[Tensor, " instance"]
    left_out: Float[Tensor, " instance"]
    times: Float[Tensor, " time"]
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class SurvLIME:
    """SurvLIME: coefficients of a Cox regression fitted to a model in the neighbourhood of each instance.

    Neighbours z_k of x are drawn from normal distributions with the standard deviations of the references, times
    `spread`. Coefficients b and a level a minimise

        sum over k, j of w_k v_kj^2 (t_{j+1} - t_j) [log H(t_j | z_k) - log H0(t_j) - a - z_k' b]^2 + penalty |s b|^2,

    with w_k = exp(-|z_k - x|^2 / (2 p width^2)) in standard deviations s of the p features, v = H / log H as published,
    and H0 the mean cumulative hazard of the references. The solution is closed form; there is one for all times.

    Two departures from the paper: the level a, since a baseline that is not the model's own is known up to a factor at
    best (with it the coefficients of a Cox model are found exactly); and |log H| is taken to be at least 0.1 in v,
    which is infinite at H = 1. The last time counts as long as the one before.

    It works for any model with `predict_survival`. The values are no shares of a prediction: they say how the log
    hazard changes per unit of a feature, near x, as far as one number can for all times; `LocalCox.r_squared` says how
    far that is. Other inputs than the table, and a column that is constant in the references, keep their values.

    Attributes:
        references: Rows that give the spread of the features and the baseline H0.
        modality: The table that is explained.
        neighbours: Neighbours per instance, > p + 1.
        spread: Standard deviation of the neighbours, in standard deviations of the references, > 0.
        width: Width of the kernel per feature, in the same unit, > 0.
        penalty: Weight of the ridge on coefficients per standard deviation, >= 0, relative to weights that sum to 1.
        seed: Seed of the draws; the same displacements serve every instance.
        memory: Bytes that a batch of neighbours may take.

    References:
        Kovalev, Utkin and Kasimov 2020.
    """

    references: References
    modality: str = "table"
    neighbours: int = 1000
    spread: float = 0.5
    width: float = 0.75
    penalty: float = 0.0
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if min(self.spread, self.width) <= 0 or self.penalty < 0:
            raise InvalidValueError(
                f"`spread` and `width` must be > 0 and `penalty` >= 0; got {self.spread}, {self.width} and "
                f"{self.penalty}."
            )

    def __call__(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target = cumulative_hazard,
    ) -> dict[str, Attribution]:
        """The coefficients around every row of `inputs`, one column for all `times`, by modality.

        Raises:
            InvalidTypeError: If `target` is not the cumulative hazard, of which the surrogate is made.
            InvalidValueError: If the modality is no table, or there are too few neighbours for its columns.
        """
        if target is not cumulative_hazard:
            raise InvalidTypeError(
                f"`target` must be cumulative_hazard, which SurvLIME fits; got {target.name}. "
                "Use KernelSurvSHAP for other targets."
            )
        fits = self.fit(model, inputs, times)
        quality = fits.r_squared
        notes = (
            f"Log hazard ratio per unit, near the instance; {self.neighbours} neighbours (seed {self.seed}).",
            f"R2 of the local fits: {float(quality.min()):.3g} to {float(quality.max()):.3g}.",
            f"Left out with H = 0 or infinite: {float(fits.left_out.mean()):.1%} of neighbours and times.",
        )
        found = Attribution(
            values=fits.coefficients[..., None],
            times=torch.tensor([float("nan")], dtype=torch.float64),
            unit=fits.unit,
            target="log_hazard_ratio",
            method="SurvLIME",
            reference=self.references.description,
            paper="Kovalev et al. 2020",
            notes=notes,
        )
        return {self.modality: found}

    def fit(self, model: SurvivalPredictor, inputs: Inputs, times: Float[Tensor, " time"]) -> LocalCox:
        """The local regressions, with their quality.

        Raises:
            InvalidValueError: If the modality is no table, there are too few neighbours for its columns, or no time has
                a cumulative hazard that is neither 0 nor infinite.
        """
        when = checked_times(times)
        with asked(model) as held:
            ready, background = held.ready(inputs), held.ready(self.references.inputs)
            self._check(ready, background)
            share = self.references.weights
            scale = _scale(background[self.modality].double().cpu(), share)
            hazard = values_of(held, background, when, cumulative_hazard, self.memory).cpu()
            log_baseline = (share @ hazard).log()
            steps = self._displacements(len(scale))
            rows = rows_of_modality(ready, self.modality)
            fits = [self._around(held, ready, row, steps, scale, log_baseline, when) for row in range(rows)]
            unit = held.unit(ready)
        coefficients, level, quality, left_out = (torch.stack(each) for each in zip(*fits, strict=True))
        return LocalCox(coefficients, level, quality, left_out, when, unit)

    def _check(self, ready: Inputs, background: Inputs) -> None:
        table = ready.get(self.modality)
        if table is None or table.ndim != 2 or has_bags(ready, self.modality) or not table.is_floating_point():
            raise InvalidValueError(
                f"`modality` must name a table of numbers with one row per instance; got {self.modality!r} among "
                f"{', '.join(modalities_of(ready))}. Explain pictures by KernelSurvSHAP with regions, or by occlusion."
            )
        if self.neighbours <= table.shape[1] + 1:
            raise InvalidValueError(
                f"`neighbours` must be more than {table.shape[1] + 1}, the {table.shape[1]} columns and the level; "
                f"got {self.neighbours}."
            )
        if background[self.modality].shape[1] != table.shape[1]:
            raise InvalidValueError("`references` must have the columns of `inputs`.")

    def _displacements(self, features: int) -> Float[Tensor, "neighbour feature"]:
        """Steps from an instance to its neighbours in standard deviations; the first is no step, then pairs +-."""
        generator = torch.Generator().manual_seed(self.seed)
        half = torch.randn((self.neighbours // 2, features), generator=generator, dtype=torch.float64)
        both = torch.cat([torch.zeros((1, features), dtype=torch.float64), half, -half])
        return self.spread * both[: self.neighbours]

    def _around(
        self,
        held: AskedModel,
        ready: Inputs,
        row: int,
        steps: Tensor,
        scale: Tensor,
        log_baseline: Tensor,
        when: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        near = select_rows(ready, torch.full((len(steps),), row))
        table = near[self.modality]
        near[self.modality] = table + (steps * scale).to(table)
        hazard = values_of(held, near, when, cumulative_hazard, self.memory).cpu()
        # What the model has seen, after rounding to its own type.
        points = (near[self.modality].double() - table.double()).cpu() / torch.where(scale > 0, scale, 1)
        kernel = torch.exp(-(points**2).sum(1) / (2 * max(points.shape[1], 1) * self.width**2))
        log_hazard = hazard.log()
        usable = torch.isfinite(log_hazard) & torch.isfinite(log_baseline)
        if not bool(usable.any()):
            raise InvalidValueError(
                "`times` must hold one with a cumulative hazard that is neither 0 nor infinite; got none. "
                "Ask after the first event."
            )
        widths = _widths(when)
        steepness = hazard / log_hazard.abs().clamp(min=_LEAST_LOG)
        weights = torch.where(usable, kernel[:, None] * widths * steepness**2, 0.0)
        weights = weights / weights.sum()
        response = torch.where(usable, log_hazard - log_baseline, 0.0)
        coefficients, level = self._solved(points, weights.sum(1), (weights * response).sum(1))
        fitted = (points @ coefficients + level)[:, None]
        centre = (weights * response).sum()
        total = (weights * (response - centre) ** 2).sum()
        left = (weights * (response - fitted) ** 2).sum()
        quality = 1 - left / total
        own = table[0].double().cpu()
        per_unit = torch.where(scale > 0, coefficients / torch.where(scale > 0, scale, 1), 0.0)
        return per_unit, level - own @ per_unit, quality, 1 - usable.double().mean()

    def _solved(self, points: Tensor, weights: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients per standard deviation and level; `moments` are weighted sums of the responses of a neighbour.

        Times of one neighbour share its point, so it enters by its weight and its weighted mean response. The least
        norm is taken where a column does not vary.
        """
        root = weights.sqrt()
        mean = torch.where(weights > 0, moments / torch.where(weights > 0, weights, 1), 0.0)
        design = torch.nn.functional.pad(points, (0, 1), value=1.0) * root[:, None]
        answer = mean * root
        if self.penalty:
            ridge = torch.eye(points.shape[1], points.shape[1] + 1, dtype=points.dtype) * self.penalty**0.5
            design, answer = torch.cat([design, ridge]), torch.cat([answer, answer.new_zeros(len(ridge))])
        found = torch.linalg.lstsq(design, answer[:, None], driver="gelsd").solution[:, 0]
        return found[:-1], found[-1]


def _scale(table: Tensor, share: Tensor) -> Float[Tensor, " feature"]:
    """Weighted standard deviation of each column, and exactly 0 for a constant one."""
    spread = (share @ (table - share @ table) ** 2).sqrt()
    return torch.where(table.amax(0) == table.amin(0), 0.0, spread)


def _widths(when: Tensor) -> Float[Tensor, " time"]:
    """Time until the next of `when`; after the last as long as before it, and 1 where there is only one."""
    if len(when) == 1:
        return torch.ones_like(when)
    return torch.cat([when.diff(), when.diff()[-1:]])
