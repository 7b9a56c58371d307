"""Exact Shapley values over time, by enumeration of all coalitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import select_rows
from survlens.core.protocols import Inputs, SurvivalPredictor
from survlens.core.targets import Target, survival
from survlens.explain.coalitions import Game, Player, Question, Solution
from survlens.explain.memory import MEMORY
from survlens.explain.references import ReferenceSource

MOST_PLAYERS = 16
"""With so many players there are 65,536 coalitions, each asked with every reference."""


@dataclass(frozen=True, slots=True, eq=False)
class ExactSHAP:
    """SHAP(t) without approximation: the Shapley values of the game of each instance, at all times at once.

    phi_j(t) = sum over S without j of |S|! (d - |S| - 1)! / d! [v_t(S + j) - v_t(S)],
    v_t(S) = mean over references x' of F(t | x_S, x'_rest),

    for d players (columns, groups of columns, pictures, regions of them). All 2^d coalitions are asked with every
    reference; each row gives all times. A player whose value equals that of a reference is left out of the game
    against this reference, which changes no Shapley value and halves the rows.

    It works for any model with `predict_survival`. With a cause in the target the model needs `predict_incidence`.

    These are Shapley values. Integrated gradients and GradSHAP estimate Aumann-Shapley values, another quantity: the
    two agree where F has no interactions along the way, and can differ by more than half in relative L2 where it has.
    The game is interventional: features are mixed with those of references without regard to their correlation.

    `sampling_error` is the standard error over the references where these are drawn from more, else None.

    Attributes:
        references: What the instances are compared with.
        players: Who plays; every column of a table and every other modality as a whole where None. At most 16.
        memory: Bytes that a batch of mixed rows may take.

    References:
        Shapley 1953; Krzyzinski et al. 2023.
    """

    references: ReferenceSource
    players: Sequence[Player] | None = None
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
            InvalidValueError: If there are more than 16 players, or they do not fit the inputs.
        """
        note = "Exact by enumeration; the standard error is that of drawing the references."
        notes = (note,) if self.references.drawn else ("Exact by enumeration for the given references.",)
        question = Question(self.references, self.players, self.memory, "SHAP", "Krzyzinski et al. 2023", notes)
        return question.answered(model, inputs, times, target, _enumerated)


def all_coalitions(players: int) -> Bool[Tensor, "coalition player"]:
    """Every coalition of `players`: nobody first, everybody last."""
    codes = torch.arange(2**players)
    return (codes[:, None] >> torch.arange(players)) & 1 > 0


def shapley_weights(coalitions: Bool[Tensor, "coalition player"]) -> Float[Tensor, "player coalition"]:
    """What the worth of each of all coalitions counts for in the value of each player.

    (|S| - 1)! (d - |S|)! / d! in the value of a member of S, -|S|! (d - |S| - 1)! / d! in that of the others.
    """
    d = coalitions.shape[1]
    inside = [0.0] + [1 / (size * math.comb(d, size)) for size in range(1, d + 1)]
    outside = [1 / ((d - size) * math.comb(d, size)) for size in range(d)] + [0.0]
    sizes = coalitions.sum(1)
    with_, without = (torch.tensor(each, dtype=torch.float64)[sizes] for each in (inside, outside))
    return torch.where(coalitions, with_[:, None], -without[:, None]).T.contiguous()


def _enumerated(game: Game) -> Solution:
    d = len(game.table)
    if d > MOST_PLAYERS:
        raise InvalidValueError(
            f"`players` must be at most {MOST_PLAYERS} to enumerate all coalitions; got {d}. Group columns with "
            "column_players, or draw coalitions with KernelSurvSHAP or PermutationSurvSHAP."
        )
    weights = game.weights
    apart = game.source.drawn and len(weights) > 1
    mean = torch.zeros((d, game.columns), dtype=torch.float64)
    empty = torch.zeros(game.columns, dtype=torch.float64)
    by_reference = torch.zeros((d, len(weights) if apart else 0, game.columns), dtype=torch.float64)
    for block, references in game.blocks():
        patterns, pattern_of = game.table.differ(game.instance, references).unique(dim=0, return_inverse=True)
        for number, differing in enumerate(patterns):
            members = (pattern_of == number).nonzero()[:, 0]
            places = members + block.start
            coalitions, shapley = _game_of(differing)
            found = by_reference.new_zeros((len(shapley), len(places) if apart else 0, game.columns))
            for where, rows in game.batches(coalitions, select_rows(references, members)):
                worth = rows.averaged(weights[places])
                mean[differing] += shapley[:, where] @ worth
                if where.start == 0:
                    empty += worth[0]
                if apart:
                    found += rows.weighted(shapley[:, where])
            if apart:
                by_reference[differing.nonzero(), places] = found
    if not apart:
        return Solution(mean, empty)
    # Standard error of a weighted mean over drawn references.
    scatter = torch.einsum("r,drt->dt", weights**2, (by_reference - mean[:, None]) ** 2)
    return Solution(mean, empty, (scatter * len(weights) / (len(weights) - 1)).sqrt())


def _game_of(
    differing: Bool[Tensor, " player"],
) -> tuple[Bool[Tensor, "coalition player"], Float[Tensor, "member coalition"]]:
    """All coalitions of the players that differ from a reference, and what they count for in the value of each."""
    inner = all_coalitions(int(differing.sum()))
    coalitions = torch.zeros((len(inner), len(differing)), dtype=torch.bool)
    coalitions[:, differing] = inner
    return coalitions, shapley_weights(inner)
