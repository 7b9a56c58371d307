"""What features do over all rows: permutation importance and partial dependence over time, for any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import has_bags, modalities_of, rows_of_modality, select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Inputs, SurvivalPredictor
from survlens.core.targets import Target, survival
from survlens.explain.asked import AskedModel, asked, column_count, values_of
from survlens.explain.coalitions import Player, Table
from survlens.explain.layout import checked_times
from survlens.explain.memory import MEMORY
from survlens.explain.references import References

if TYPE_CHECKING:
    import xarray

Loss = Callable[[SurvivalPrediction | CompetingRisksPrediction, SurvivalOutcome], Tensor | np.ndarray]
"""From curves at the asked times and what was observed to one loss per time; smaller is better."""


@dataclass(frozen=True, slots=True, eq=False)
class ImportanceOverTime:
    """Importance of players at each time, over repeats of a random permutation.

    Attributes:
        values: Mean over the repeats.
        lower: Lower limit of the interval of the mean over all permutations; NaN with one repeat.
        upper: Upper limit.
        repeats: Importance in each repeat.
        whole: Loss of the unpermuted rows at each time; None where importance is the change of the target.
        names: Names of the players.
        times: Times of the columns; of a target without times its horizon, or NaN.
        unit: Unit of time.
        target: What is predicted.
        measure: What the values are, in words.
    """

    values: Float[Tensor, "player time"]
    lower: Float[Tensor, "player time"]
    upper: Float[Tensor, "player time"]
    repeats: Float[Tensor, "repeat player time"]
    whole: Float[Tensor, " time"] | None
    names: tuple[str, ...]
    times: Float[Tensor, " time"]
    unit: str
    target: str
    measure: str

    def to_xarray(self) -> xarray.Dataset:
        """A labelled data set: importance, lower, upper, and importance in each repeat."""
        import xarray

        axes = ("player", "time")
        variables = {
            "importance": (axes, self.values.numpy()),
            "lower": (axes, self.lower.numpy()),
            "upper": (axes, self.upper.numpy()),
            "repeats": (("repeat", *axes), self.repeats.numpy()),
        }
        if self.whole is not None:
            variables["whole"] = (("time",), self.whole.numpy())
        coords = {"player": np.array(self.names), "time": ("time", self.times.numpy(), {"units": self.unit})}
        return xarray.Dataset(variables, coords, {"target": self.target, "measure": self.measure, "unit": self.unit})


@dataclass(frozen=True, slots=True, eq=False)
class PermutationImportance:
    """Permutation importance over time: what it costs to give each row the features of another.

    With a loss L, importance_j(t) = L_t(curves with player j permuted, outcome) - L_t(curves, outcome). Without, it is
    the mean over rows of |F(t | permuted) - F(t | x)|: how much the model uses the player, be it right or wrong.

    It works for any model with `predict_survival`. Permuting breaks the correlation of a player with the others, so
    rows may arise that never occur; permute within `strata` of what it is correlated with to keep that correlation.
    The interval is that of the mean over permutations of these rows (Student's t over the repeats); it does not say how
    other patients would differ.

    Attributes:
        players: What is permuted together; every column of a table and every other modality as a whole where None.
        loss: One loss per time, such as a Brier score; the change of the target where None.
        repeats: Permutations of each player, >= 1; 2 at least for an interval.
        confidence: Level of the interval, in (0, 1).
        seed: Seed of the permutations, of which each player has its own.
        memory: Bytes that a batch may take.

    References:
        Breiman 2001; Fisher, Rudin and Dominici 2019.
    """

    players: Sequence[Player] | None = None
    loss: Loss | None = None
    repeats: int = 10
    confidence: float = 0.95
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if self.repeats < 1 or not 0 < self.confidence < 1:
            raise InvalidValueError(
                f"`repeats` must be >= 1 and `confidence` in (0, 1); got {self.repeats} and {self.confidence}."
            )

    def __call__(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target = survival,
        *,
        outcome: SurvivalOutcome | None = None,
        strata: Int64[Tensor, " instance"] | None = None,
    ) -> ImportanceOverTime:
        """The importance of every player at `times`.

        Args:
            model: Any model.
            inputs: Rows, best held out from the fit.
            times: Times asked for.
            target: What changes; with a loss, it only says whether the loss is given curves of survival or, with a
                cause, cumulative incidences.
            outcome: What was observed; needed with a loss.
            strata: Player of each row, within which rows are permuted.

        Raises:
            InvalidValueError: If a loss has no outcome, or lengths differ.
        """
        when = checked_times(times)
        if (self.loss is None) is not (outcome is None):
            raise InvalidValueError("`outcome` must be given exactly where `loss` is. Pass both or neither.")
        with asked(model) as held:
            ready = held.ready(inputs)
            table = Table.of(self.players, ready)
            rows = rows_of_modality(ready, next(iter(table.owners)))
            groups = torch.zeros(rows, dtype=torch.int64) if strata is None else strata.cpu()
            if groups.shape != (rows,) or (outcome is not None and len(outcome) != rows):
                raise InvalidValueError(f"`outcome` and `strata` must have one entry for each of the {rows} rows.")
            unit = held.unit(ready)
            if self.loss is None or outcome is None:
                whole, cost = None, self._change(held, ready, when, target)
            else:
                whole, cost = self._rise(held, ready, when, target, self.loss, outcome)
            repeats = self._permuted(table, ready, groups, cost)
        mean = repeats.mean(0)
        reach = _reach(repeats, self.confidence)
        return ImportanceOverTime(
            values=mean,
            lower=mean - reach,
            upper=mean + reach,
            repeats=repeats,
            whole=whole,
            names=tuple(player.name for player in table.players),
            times=target.axis(when) if self.loss is None else when,
            unit=unit,
            target=target.name,
            measure="mean absolute change of the target" if self.loss is None else "rise of the loss",
        )

    def _permuted(
        self, table: Table, ready: Inputs, groups: Tensor, cost: Callable[[Inputs], Tensor]
    ) -> Float[Tensor, "repeat player time"]:
        donors = References(ready, "the rows themselves")
        rows = torch.arange(len(groups))
        found = []
        for number in range(len(table)):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            others = torch.ones((1, len(table)), dtype=torch.bool)
            others[0, number] = False
            drawn = [permuted_within(groups, generator) for _ in range(self.repeats)]
            costs = [cost(table.mixed(ready, donors.starts(ready, rows, each), others)) for each in drawn]
            found.append(torch.stack(costs))
        return torch.stack(found, dim=1)

    def _change(self, held: AskedModel, ready: Inputs, when: Tensor, target: Target) -> Callable[[Inputs], Tensor]:
        whole = values_of(held, ready, when, target, self.memory)
        return lambda inputs: (values_of(held, inputs, when, target, self.memory) - whole).abs().mean(0).cpu()

    def _rise(
        self,
        held: AskedModel,
        ready: Inputs,
        when: Tensor,
        target: Target,
        loss: Loss,
        outcome: SurvivalOutcome,
    ) -> tuple[Tensor, Callable[[Inputs], Tensor]]:
        def loss_of(inputs: Inputs) -> Tensor:
            curves = _curves(held, inputs, when, target, self.memory)
            values = torch.as_tensor(loss(curves, outcome)).double().cpu()
            if values.shape != when.shape:
                raise InvalidValueError(
                    f"`loss` must return one number for each of the {len(when)} times; got {tuple(values.shape)}."
                )
            return values

        whole = loss_of(ready)
        return whole, lambda inputs: loss_of(inputs) - whole


def permuted_within(groups: Int64[Tensor, " row"], generator: torch.Generator) -> Int64[Tensor, " row"]:
    """A random permutation of rows that keeps every row in its group."""
    order = torch.randperm(len(groups), generator=generator)
    drawn = torch.empty_like(order)
    # Rows sorted by group, once in their order and once in a random one, meet one to one within each group.
    drawn[groups.argsort(stable=True)] = order[groups[order].argsort(stable=True)]
    return drawn


def _curves(
    held: AskedModel, inputs: Inputs, when: Tensor, target: Target, memory: int
) -> SurvivalPrediction | CompetingRisksPrediction:
    """Curves of all rows, predicted in batches."""
    rows = rows_of_modality(inputs, modalities_of(inputs)[0])
    places = torch.arange(rows).split(held.rows_at_once(inputs, len(when), memory))
    asked_curves = [held.curves(select_rows(inputs, each)) for each in places]
    if target.cause is None:
        parts = [each.survival(when) for each in asked_curves]
        logs = torch.cat([each.log_survival for each in parts])
        return SurvivalPrediction(parts[0].times, logs, parts[0].interpolation, parts[0].unit).to("cpu")
    found = [each.incidence(when) for each in asked_curves]
    incidence = torch.cat([each.cumulative_incidence for each in found], dim=1)
    return CompetingRisksPrediction(found[0].times, incidence, found[0].interpolation, found[0].unit)


def _reach(repeats: Tensor, confidence: float) -> Tensor:
    """Half the width of Student's interval of the mean over repeats."""
    from scipy.special import stdtrit

    count = len(repeats)
    if count < 2:
        return torch.full_like(repeats[0], torch.nan)
    return float(stdtrit(count - 1, 0.5 + confidence / 2)) * repeats.std(0) / count**0.5


@dataclass(frozen=True, slots=True, eq=False)
class DependenceOverTime:
    """A target as a feature moves over a grid, on average and row by row.

    Attributes:
        mean: Mean over the rows: partial dependence.
        individual: Curve of each row (individual conditional expectation); None where not asked for.
        grid: Values of the feature.
        share: Share of the rows at or below each value of the grid; it says where the data are.
        times: Times of the columns; of a target without times its horizon, or NaN.
        unit: Unit of time.
        target: What is predicted.
        feature: Name of the feature.
        centred: Whether values are differences from the first of the grid.
    """

    mean: Float[Tensor, "value time"]
    individual: Float[Tensor, "instance value time"] | None
    grid: Float[Tensor, " value"]
    share: Float[Tensor, " value"]
    times: Float[Tensor, " time"]
    unit: str
    target: str
    feature: str
    centred: bool

    def to_xarray(self) -> xarray.Dataset:
        """A labelled data set: mean, share, and individual curves where there are any."""
        import xarray

        variables = {"mean": (("value", "time"), self.mean.numpy()), "share": (("value",), self.share.numpy())}
        if self.individual is not None:
            variables["individual"] = (("instance", "value", "time"), self.individual.numpy())
        coords = {"value": self.grid.numpy(), "time": ("time", self.times.numpy(), {"units": self.unit})}
        words = {"target": self.target, "feature": self.feature, "unit": self.unit, "centred": int(self.centred)}
        return xarray.Dataset(variables, coords, words)


@dataclass(frozen=True, slots=True, eq=False)
class PartialDependence:
    """Partial dependence over time: the mean of the target over rows as one feature takes each value of a grid.

    PD(v, t) = mean over rows x of F(t | x with feature = v); the curves that are averaged are kept as well, since
    opposite effects cancel in the mean. Centred, both are differences from the first value of the grid.

    It works for any model with `predict_survival`. Where features are correlated, some of the rows so made never occur.

    Attributes:
        column: Column of the table.
        modality: The table.
        grid: Values, strictly increasing; by default the distinct values of the column where there are at most
            `points`, else quantiles at equal steps of probability.
        points: Most values of the default grid, >= 2.
        centred: Whether to subtract the value at the first of the grid.
        individual: Whether to keep the curve of each row: rows x values x times numbers.
        name: Name of the feature; modality and column by default.
        memory: Bytes that a batch may take.

    References:
        Friedman 2001; Goldstein, Kapelner, Bleich and Pitkin 2015.
    """

    column: int
    modality: str = "table"
    grid: Sequence[float] | None = None
    points: int = 20
    centred: bool = False
    individual: bool = True
    name: str | None = None
    memory: int = MEMORY

    def __call__(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target = survival,
    ) -> DependenceOverTime:
        """The dependence of `target` at `times` on the feature, over the rows of `inputs`.

        Raises:
            InvalidValueError: If there is no such column, or the grid does not increase.
        """
        when = checked_times(times)
        with asked(model) as held:
            ready = held.ready(inputs)
            own = self._own(ready)
            grid = self._values(own)
            columns = column_count(when, target)
            mean = torch.empty((len(grid), columns), dtype=torch.float64)
            curves = torch.empty((len(own), len(grid), columns), dtype=torch.float64) if self.individual else None
            start = torch.zeros(())
            for place, value in enumerate(grid.tolist()):
                table = ready[self.modality].clone()
                table[:, self.column] = value
                found = values_of(held, {**ready, self.modality: table}, when, target, self.memory).cpu()
                start = found if self.centred and place == 0 else start
                mean[place] = (found - start).mean(0)
                if curves is not None:
                    curves[:, place] = found - start
            unit = held.unit(ready)
        return DependenceOverTime(
            mean=mean,
            individual=curves,
            grid=grid,
            share=(own[:, None] <= grid).double().mean(0),
            times=target.axis(when),
            unit=unit,
            target=target.name,
            feature=self.name or f"{self.modality}_{self.column}",
            centred=self.centred,
        )

    def _own(self, ready: Inputs) -> Float[Tensor, " row"]:
        table = ready.get(self.modality)
        if table is None or table.ndim != 2 or has_bags(ready, self.modality):
            raise InvalidValueError(
                f"`modality` must name a table with one row per instance; got {self.modality!r} among "
                f"{', '.join(modalities_of(ready))}."
            )
        if not 0 <= self.column < table.shape[1]:
            raise InvalidValueError(f"`column` must lie in 0..{table.shape[1] - 1}; got {self.column}.")
        return table[:, self.column].double().cpu()

    def _values(self, own: Tensor) -> Float[Tensor, " value"]:
        if self.points < 2:
            raise InvalidValueError(f"`points` must be >= 2; got {self.points}.")
        if self.grid is None:
            levels = own.unique()
            shares = torch.linspace(0, 1, self.points, dtype=own.dtype)
            return levels if len(levels) <= self.points else own.quantile(shares).unique()
        grid = torch.as_tensor(self.grid, dtype=torch.float64)
        if grid.ndim != 1 or not len(grid) or bool((grid.diff() <= 0).any()) or not bool(torch.isfinite(grid).all()):
            raise InvalidValueError(f"`grid` must be finite and strictly increasing; got {grid.tolist()[:8]}.")
        return grid
