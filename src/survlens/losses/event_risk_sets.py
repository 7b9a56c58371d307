"""Risk sets of event times, for log-risks that change with time.

Where a log-risk depends on the time, each event needs the log-risks of its whole risk set at its own time: one number
per pair of an event time and an instance. `log_risk` is therefore a function, called as log_risk(times, rows) with
`rows` of the shape (..., width); its result has the shape to which `times` and the leading axes of `rows` broadcast.
Rows are sorted here by falling time, so that the risk sets of neighbouring event times share a prefix of them, and
pairs are evaluated in blocks. Where there are many, blocks are evaluated again on the way back instead of kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from survlens.core.outcome import SurvivalOutcome

LogRisk = Callable[[Tensor, Tensor], Tensor]

PAIRS_AT_ONCE = 2**16
PAIRS_KEPT = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class SortedRows:
    """Columns of an outcome by falling time, as arrays.

    Attributes:
        time: Observed times.
        died_at: Time of the event; 0 where there was none.
        entry: Entries; zeros where the outcome has none.
        stratum: Strata; zeros where it has none.
        log_weight: Logs of the weights; zeros where it has none.
    """

    time: np.ndarray
    died_at: np.ndarray
    entry: np.ndarray
    stratum: np.ndarray
    log_weight: np.ndarray

    def first(self, rows: int) -> SortedRows:
        """The latest `rows` rows."""
        return SortedRows(
            self.time[:rows], self.died_at[:rows], self.entry[:rows], self.stratum[:rows], self.log_weight[:rows]
        )


@dataclass(frozen=True, slots=True, eq=False)
class EventRiskSets:
    """Rows by falling time, and their events grouped by time and stratum.

    Attributes:
        order: Position of each sorted row in the outcome.
        rows: The sorted columns of the outcome, by row.
        events: Sorted rows that had an event.
        bounds: First event of each group, and the number of events.
        times: Time of each group, falling.
        reach: Of each group, how many sorted rows have its time or a later one.
    """

    order: np.ndarray
    rows: SortedRows
    events: np.ndarray
    bounds: np.ndarray
    times: np.ndarray
    reach: np.ndarray

    @staticmethod
    def of(outcome: SurvivalOutcome) -> EventRiskSets:
        """The risk sets of an outcome in any row order, with one event at least."""
        time, event = outcome.numpy()

        def column(values: Tensor | None, dtype: type) -> np.ndarray:
            return np.zeros(len(time), dtype) if values is None else values.cpu().numpy()[order]

        order = time.argsort() if outcome.stratum is None else np.lexsort((outcome.stratum.cpu().numpy(), time))
        order = order[::-1].copy()
        time, died = time[order], event[order] > 0
        stratum, weight = column(outcome.stratum, np.int64), column(outcome.weight, np.float64)
        log_weight = weight if outcome.weight is None else np.log(weight)
        rows = SortedRows(time, time * died, column(outcome.entry, np.float64), stratum, log_weight)
        events = np.flatnonzero(died)
        first = np.ones(len(events), dtype=bool)
        first[1:] = (np.diff(time[events]) != 0) | (np.diff(stratum[events]) != 0)
        bounds = np.append(np.flatnonzero(first), len(events))
        times = time[events[bounds[:-1]]]
        reach = len(time) - np.searchsorted(time[::-1], times)
        return EventRiskSets(order, rows, events, bounds, times, reach)

    def blocks(self) -> Iterator[EventRiskSets]:
        """Parts of neighbouring groups, each of as many as make `PAIRS_AT_ONCE` pairs, and of one at least."""
        if len(self.times) * int(self.reach[-1]) <= PAIRS_AT_ONCE:
            yield self
            return
        first = 0
        for group, reach in enumerate(self.reach.tolist()):
            if group > first and (group + 1 - first) * reach > PAIRS_AT_ONCE:
                yield self._part(first, group)
                first = group
        yield self._part(first, len(self.times))

    def _part(self, first: int, last: int) -> EventRiskSets:
        start, stop, reach = self.bounds[first], self.bounds[last], self.reach[first:last]
        bounds, count = self.bounds[first : last + 1] - start, int(reach[-1])
        times, events = self.times[first:last], self.events[start:stop]
        return EventRiskSets(self.order[:count], self.rows.first(count), events, bounds, times, reach)

    def over_blocks(self, found: Callable[[Tensor, EventRiskSets], Tensor], log_risk: LogRisk, rows: Tensor) -> Tensor:
        """`found` of the log-risks of each block, side by side; `rows` in the order of the outcome."""
        sorted_rows = rows.index_select(0, torch.from_numpy(self.order).to(rows.device))

        def of_block(block: EventRiskSets) -> Tensor:
            now = torch.from_numpy(block.times).to(rows.device)[:, None]
            return found(log_risk(now, sorted_rows[: len(block.order)]), block)

        if int(self.reach.sum()) <= PAIRS_KEPT or not torch.is_grad_enabled():
            parts = [of_block(block) for block in self.blocks()]
        else:
            parts = [checkpoint(of_block, block, use_reentrant=False) for block in self.blocks()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)  # type: ignore[arg-type,return-value]

    def terms(self, value: Tensor, efron: bool) -> Tensor:
        """Of each event the mean over l of log(R - (l/d) D), less its own log-risk, in float64."""
        if _compiled_serves(value):
            return _CompiledTerms.apply(value, self, efron)  # pyright: ignore[reportReturnType]
        return self.terms_in_torch(value, efron)

    def terms_in_torch(self, value: Tensor, efron: bool) -> Tensor:
        """The same by differentiable torch operations, on any device, to any order."""
        group, sizes = self.groups(value.device)
        peak, denominators = self.denominators(value, efron)
        logs = torch.zeros_like(peak).index_add(0, group, denominators.log()) / sizes
        events = torch.from_numpy(self.events).to(value.device)
        return (peak + logs)[group] - value[group, events].double()

    def groups(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of each event its group, and of each group how many events it has."""
        sizes = np.diff(self.bounds)
        group = np.repeat(np.arange(len(sizes)), sizes)
        return torch.from_numpy(group).to(device), torch.from_numpy(sizes).to(device)

    def denominators(self, value: Tensor, efron: bool) -> tuple[Tensor, Tensor]:
        """Of each group the largest log-risk at risk, and of each event R - (l/d) D relative to its exponential.

        It is found as (R - D) + (1 - l/d) D with R - D summed apart: nothing is subtracted, so nothing cancels.
        """
        device, rows = value.device, self.rows
        time, entry, stratum, log_weight = (
            torch.from_numpy(column).to(device) for column in (rows.time, rows.entry, rows.stratum, rows.log_weight)
        )
        now = torch.from_numpy(self.times).to(device)[:, None]
        group, sizes = self.groups(device)
        events, starts = (torch.from_numpy(part).to(device) for part in (self.events, self.bounds[:-1]))
        absent = (time < now) | (entry >= now) | (stratum != stratum[events[starts]][:, None])
        scored = value.double() + log_weight
        scored = scored.masked_fill(absent, -torch.inf)
        peak = scored.detach().amax(1)
        share = (scored - peak[:, None]).exp()
        if not efron:
            return peak, share.sum(1)[group]
        tied = torch.zeros_like(peak).index_add(0, group, share[group, events])
        others = share.index_put((group, events), torch.zeros_like(peak[:1])).sum(1)
        rank = torch.arange(len(events), device=device) - starts[group]
        return peak, others[group] + (1 - rank.double() / sizes[group]) * tied[group]


def _compiled_serves(value: Tensor) -> bool:
    """Whether the compiled pass can follow: it knows CPU memory and reverse mode only."""
    return (
        value.device.type == "cpu"
        and value.dtype in (torch.float32, torch.float64)
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and forward_ad.unpack_dual(value).tangent is None
    )


def _scan() -> ModuleType:
    from survlens.losses import cox_time_scan  # numba takes 0.5 s to import

    return cox_time_scan


class _CompiledTerms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, sets: EventRiskSets, efron: bool) -> Tensor:
        rows = sets.rows
        terms, slope = _scan().risk_set_terms(
            value.detach().contiguous().numpy(),
            *(sets.times, sets.reach, sets.bounds, sets.events),
            *(rows.died_at, rows.entry, rows.stratum, rows.log_weight, efron),
        )
        ctx.sets, ctx.efron, ctx.slope = sets, efron, slope
        ctx.save_for_backward(value)
        return torch.from_numpy(terms)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        (cotangent,) = cotangents
        sets, (value,) = ctx.sets, ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody asked for a derivative of this derivative
            terms = sets.terms_in_torch(value, ctx.efron)
            return torch.autograd.grad(terms, value, cotangent, create_graph=True)[0], None, None
        weight = cotangent.numpy()
        whole = np.add.reduceat(weight, sets.bounds[:-1]).astype(ctx.slope.dtype)
        gradient = ctx.slope * whole[:, None]
        gradient[np.repeat(np.arange(len(whole)), np.diff(sets.bounds)), sets.events] -= weight
        return torch.from_numpy(gradient), None, None
