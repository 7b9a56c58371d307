"""SurvSHAP(t) from drawn coalitions, for more players than can be enumerated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.protocols import Inputs, SurvivalPredictor
from survlens.core.targets import Target, survival
from survlens.explain.coalitions import Game, Player, Question, Solution
from survlens.explain.memory import MEMORY
from survlens.explain.references import ReferenceSource

_COPIES = 32  # bytes held per player and time of an order


@dataclass(frozen=True, slots=True, eq=False)
class KernelSurvSHAP:
    """SurvSHAP(t) by weighted least squares over coalitions, at all times at once.

    phi(t) minimises sum over S of w(S) [v_t(S) - v_t(nobody) - sum over j in S of phi_j(t)]^2 with
    w(S) = (d - 1) / (C(d, |S|) |S| (d - |S|)), under sum phi_j(t) = F(t | x) - v_t(nobody), for the game v of
    `ExactSHAP`. Over all coalitions the minimum is the Shapley values. Sizes of coalitions are taken whole from the
    outside in (1 and d - 1, then 2 and d - 2, ...) while the budget lasts; of the other sizes, pairs of a coalition and
    its complement are drawn by their weights. One draw of coalitions serves every instance and all times.

    The contributions add up because they are made to; that says nothing about their error. `sampling_error` is the
    standard error from the drawn pairs for the given references (delta method on the least-squares solution), or None
    where all coalitions were taken.

    Like all Shapley values, these are not the Aumann-Shapley values that GradSHAP estimates; see `ExactSHAP`.

    Attributes:
        references: What the instances are compared with.
        players: Who plays; every column of a table and every other modality as a whole where None.
        coalitions: Budget of coalitions per instance, >= 2 d; each is asked with every reference.
        seed: Seed of the draws; the same seed gives the same values.
        memory: Bytes that a batch of mixed rows may take.

    References:
        Lundberg and Lee 2017; Covert and Lee 2021; Krzyzinski et al. 2023.
    """

    references: ReferenceSource
    players: Sequence[Player] | None = None
    coalitions: int = 2048
    seed: int = 0
    memory: int = MEMORY

    def __call__(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target = survival,
    ) -> dict[str, Attribution]:
        """The contributions of every row of `inputs` at `times`, by modality.

        Raises:
            InvalidValueError: If the budget is below 2 d, or players do not fit the inputs.
        """
        words = f"Least squares over at most {self.coalitions} coalitions (seed {self.seed}) for the given references."
        question = Question(
            self.references, self.players, self.memory, "SurvSHAP (kernel)", "Krzyzinski et al. 2023", (words,)
        )
        design = cache(lambda players: kernel_design(players, self.coalitions, self.seed))
        return question.answered(
            model, inputs, times, target, lambda game: _least_squares(game, design(len(game.table)))
        )


@dataclass(frozen=True, slots=True, eq=False)
class PermutationSurvSHAP:
    """SurvSHAP(t) as the mean over drawn orders in which players join, at all times at once.

    phi_j(t) = mean over orders of v_t(those before j, and j) - v_t(those before j), for the game v of `ExactSHAP`. Each
    drawn order is used with its reverse. The estimate is unbiased for any number of orders, and adds up exactly.
    `sampling_error` is its standard error from the drawn orders, for the given references: the spread over pairs of an
    order and its reverse. One draw of orders serves every instance and all times.

    Like all Shapley values, these are not the Aumann-Shapley values that GradSHAP estimates; see `ExactSHAP`.

    Attributes:
        references: What the instances are compared with.
        players: Who plays; every column of a table and every other modality as a whole where None.
        pairs: Pairs of an order and its reverse, >= 2; an instance costs 2 (d - 1) coalitions per pair at most.
        seed: Seed of the draws; the same seed gives the same values.
        memory: Bytes that a batch of mixed rows may take.

    References:
        Castro, Gomez and Tejada 2009; Mitchell et al. 2022; Krzyzinski et al. 2023.
    """

    references: ReferenceSource
    players: Sequence[Player] | None = None
    pairs: int = 25
    seed: int = 0
    memory: int = MEMORY

    def __call__(
        self,
        model: SurvivalPredictor,
        inputs: Inputs,
        times: Float[Tensor, " time"],
        target: Target = survival,
    ) -> dict[str, Attribution]:
        """The contributions of every row of `inputs` at `times`, by modality.

        Raises:
            InvalidValueError: If there are fewer than 2 pairs, or players do not fit the inputs.
        """
        if self.pairs < 2:
            raise InvalidValueError(f"`pairs` must be >= 2, to know the standard error; got {self.pairs}.")
        words = (
            f"Mean over {self.pairs} pairs of an order and its reverse (seed {self.seed}), for the given references."
        )
        question = Question(
            self.references, self.players, self.memory, "SurvSHAP (permutation)", "Krzyzinski et al. 2023", (words,)
        )
        drawn = cache(lambda players, at_once: walks(players, self.pairs, self.seed, at_once))

        def solve(game: Game) -> Solution:
            players = len(game.table)
            at_once = max(int(self.memory // (_COPIES * 2 * players * game.columns)), 1)
            return _along(game, drawn(players, at_once), self.pairs)

        return question.answered(model, inputs, times, target, solve)


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Coalitions of a least-squares fit.

    Attributes:
        coalitions: Each once, without nobody and everybody.
        weights: Weight of each; of a drawn one by how often it was drawn.
        drawn: Number of pairs drawn; 0 where all coalitions are there.
        pairs: Positions of a drawn coalition and its complement.
        share: Weight of one draw of a coalition.
    """

    coalitions: Bool[Tensor, "coalition player"]
    weights: Float[Tensor, " coalition"]
    drawn: int
    pairs: Tensor
    share: float


def kernel_design(players: int, budget: int, seed: int) -> Design:
    """Coalitions by size from the outside in while `budget` lasts, then pairs drawn by their weight.

    Raises:
        InvalidValueError: If the budget does not hold the coalitions of one and of all but one.
    """
    d = players
    if d > 1 and budget < min(2 * d, 2**d - 2):
        raise InvalidValueError(
            f"`coalitions` must be at least {2 * d}, twice the {d} players, for the least squares to have one "
            f"solution; got {budget}. Raise it, or group columns with column_players."
        )
    sizes, taken, left = list(range(1, d // 2 + 1)), [], budget
    while sizes and (needed := _of_size(d, sizes[0])) <= left:
        taken.append(sizes.pop(0))
        left -= needed
    blocks, weights = [torch.zeros((0, d), dtype=torch.bool)], [torch.zeros(0, dtype=torch.float64)]
    for size in taken:
        found = _all_of_size(d, size)
        found = found if 2 * size == d else torch.cat([found, ~found])
        blocks.append(found)
        weights.append(torch.full((len(found),), _weight(d, size) / math.comb(d, size), dtype=torch.float64))
    nothing = torch.zeros((0, 2), dtype=torch.int64)
    draws = left // 2
    if not sizes or not draws:
        return Design(torch.cat(blocks), torch.cat(weights), 0, nothing, 0.0)
    # Every draw stands for an equal share of the weight of the sizes that are left, half of it for each of the pair.
    mass = torch.tensor([_weight(d, size) * (1 if 2 * size == d else 2) for size in sizes], dtype=torch.float64)
    share = float(mass.sum()) / (2 * draws)
    generator = torch.Generator().manual_seed(seed)
    size_of = torch.tensor(sizes)[torch.multinomial(mass, draws, replacement=True, generator=generator)]
    rank = torch.rand((draws, d), generator=generator).argsort(1).argsort(1)
    pairs = rank < size_of[:, None]
    both = torch.cat([pairs, ~pairs])
    unique, place, counts = both.unique(dim=0, return_inverse=True, return_counts=True)
    known = sum(len(block) for block in blocks)
    return Design(
        torch.cat([*blocks, unique]),
        torch.cat([*weights, counts * share]),
        draws,
        place.reshape(2, -1).T + known,
        share,
    )


def _weight(players: int, size: int) -> float:
    """Kernel weight of all coalitions of a size together."""
    return (players - 1) / (size * (players - size))


def _of_size(players: int, size: int) -> int:
    """Number of coalitions of a size and of their complements."""
    return math.comb(players, size) * (1 if 2 * size == players else 2)


def _all_of_size(players: int, size: int) -> Bool[Tensor, "coalition player"]:
    members = torch.combinations(torch.arange(players), size)
    return torch.zeros((len(members), players), dtype=torch.bool).scatter(1, members, True)


def _least_squares(game: Game, design: Design) -> Solution:
    d = len(game.table)
    empty = game.worth(torch.zeros((1, d), dtype=torch.bool))[0]
    whole = game.own_value() - empty
    if d == 1:
        return Solution(whole[None], empty)
    members = design.coalitions.double()
    rise = game.worth(design.coalitions) - empty
    normal = members.T @ (design.weights[:, None] * members)
    inverse = torch.linalg.inv(normal)
    ones = inverse.sum(1)
    free = inverse - torch.outer(ones, ones) / ones.sum()  # inverse on contributions that add up to 0
    values = free @ (members.T @ (design.weights[:, None] * rise)) + torch.outer(ones, whole) / ones.sum()
    if design.drawn < 2:
        return Solution(values, empty)
    residual = rise - members @ values
    first, second = design.pairs.T
    # A pair moves the solution by share * (free z) e, z a coalition and e the difference of its two residuals.
    towards = (members[first] - members[second]) @ free * (design.share / 2)
    apart = residual[first] - residual[second]
    mean = towards.T @ apart / design.drawn
    spread = (towards**2).T @ apart**2 - design.drawn * mean**2
    return Solution(values, empty, (spread.clamp(min=0) * design.drawn / (design.drawn - 1)).sqrt())


@dataclass(frozen=True, slots=True, eq=False)
class Walks:
    """Orders in which players join, and the coalitions on the way, each once.

    Attributes:
        place: Place of each player in each order; an order is followed by its reverse.
        coalitions: Coalitions after the first, second, ... step, without repeats.
        passed: Number of the coalition after each step of each order.
    """

    place: Tensor
    coalitions: Bool[Tensor, "coalition player"]
    passed: Tensor


def walks(players: int, pairs: int, seed: int, at_once: int) -> list[Walks]:
    """Random orders and their reverses, in lots of at most `at_once` pairs."""
    generator = torch.Generator().manual_seed(seed)
    lots = []
    for some in torch.rand((pairs, players), generator=generator).argsort(1).split(at_once):
        place = torch.stack([some, players - 1 - some], 1).flatten(0, 1)
        prefixes = (place[:, None] < torch.arange(1, players)[:, None]).flatten(0, 1)
        coalitions, passed = prefixes.unique(dim=0, return_inverse=True)
        lots.append(Walks(place, coalitions, passed))
    return lots


def _along(game: Game, lots: list[Walks], pairs: int) -> Solution:
    empty = game.worth(torch.zeros((1, len(game.table)), dtype=torch.bool))[0]
    whole = game.own_value()
    start = total = squares = empty.new_zeros(())
    for number, lot in enumerate(lots):
        added = _added(game, lot, empty, whole).unflatten(0, (-1, 2)).mean(1)
        start = start if number else added[0]
        total = total + (added - start).sum(0)
        squares = squares + ((added - start) ** 2).sum(0)
    spread = (squares - total**2 / pairs).clamp(min=0)
    return Solution(start + total / pairs, empty, (spread / (pairs * (pairs - 1))).sqrt())


def _added(game: Game, lot: Walks, empty: Tensor, whole: Tensor) -> Float[Tensor, "order player column"]:
    """What each player adds when joining, in each order."""
    orders, players = lot.place.shape
    worth = torch.cat([game.worth(lot.coalitions), empty[None], whole[None]])
    passed = torch.nn.functional.pad(lot.passed.reshape(orders, players - 1), (1, 1))
    passed[:, 0], passed[:, -1] = len(worth) - 2, len(worth) - 1
    before = passed.gather(1, lot.place)
    return worth[passed.gather(1, lot.place + 1)] - worth[before]
