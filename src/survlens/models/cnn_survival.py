"""CNN-Survival: its network under a discrete-time head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.encoders.cnn_survival import PAPER_SIZE, CNNSurvivalEncoder
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.survival_model import SurvivalModel


def half_life_grid(last: float, unit: str, *, intervals: int = 19) -> TimeGrid:
    """Intervals in which equal shares of an exponential survival time fall.

    Edge j is at the time by which a share j / (`intervals` + 1) has had the event, t_j = -log2(1 - j / (n + 1)) half
    lives, with the half-life such that the last edge is `last`. With 19 intervals these are the intervals of
    nnet-survival for a half-life of `last` / 4.32.

    Args:
        last: Last edge, > 0.
        unit: Unit of time.
        intervals: Number of intervals, >= 1.

    References:
        Gensheimer and Narasimhan 2019.
    """
    if intervals < 1 or not 0 < last < math.inf:
        raise InvalidValueError(f"`intervals` must be >= 1 and `last` finite and > 0; got {intervals} and {last}.")
    share = torch.arange(intervals + 1, dtype=torch.float64) / (intervals + 1)
    half_lives = -torch.log2(1 - share)
    edges = half_lives * (float(last) / half_lives[-1])
    edges[0], edges[-1] = 0.0, float(last)
    return TimeGrid(edges, unit)


def cnn_survival(
    grid: TimeGrid,
    image_size: Sequence[int] = PAPER_SIZE,
    *,
    channels: int = 32,
    pools: Sequence[int] = (2, 3, 3),
    padded: bool = False,
    dropout: float = 0.5,
    seed: int = 0,
) -> SurvivalModel:
    """The network of CNN-Survival with a hazard per interval of `grid`; the modality is "image".

    A row is a slice. Average the curves of a patient's slices before any score.

    Args:
        grid: Intervals, such as `half_life_grid`.
        image_size: Sides of a slice.
        channels: Width of convolutions and embedding; 32 in the paper.
        pools: Side of the max-pool of each stage.
        padded: Whether convolutions keep the size; see `CNNSurvivalEncoder`.
        dropout: Share dropped after each max-pool in training.
        seed: Seed of the weights.

    References:
        Zhang et al. 2020.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = CNNSurvivalEncoder(
            1, image_size, channels=channels, features=channels, pools=pools, dropout=dropout, padded=padded
        )
        return SurvivalModel({"image": encoder}, LogisticHazard(encoder.out_features, grid))
