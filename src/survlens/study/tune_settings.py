"""What a [model.tune] section can say: the settings that are tried, and how one is chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from survlens.study.network_settings import FitPlan
from survlens.study.rules import at_least, check_rules, setting


class TuneScore(Enum):
    """What decides between candidates, averaged over the inner folds."""

    CONCORDANCE = "concordance"
    LOSS = "loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRules:
    """How a candidate of [model.tune] is chosen.

    Attributes:
        folds: Inner folds, by patient, of the training part of each outer split.
        score: Harrell's concordance (the highest wins) or the loss of a network (the lowest wins) on held-out patients
            of the inner folds.
        max_candidates: Most combinations that may be tried.
    """

    folds: int = setting(3, at_least(2))
    score: TuneScore = TuneScore.CONCORDANCE
    max_candidates: int = setting(32, at_least(1))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One combination of the settings that are tried.

    Attributes:
        values: Values of the settings in the search space, by name ("hidden", "fit.learning_rate").
        settings: All settings of the model's kind.
        fit: How it is trained.
    """

    values: Mapping[str, Any]
    settings: Any
    fit: FitPlan

    @property
    def key(self) -> str:
        """The values as text, the same however a file orders them."""
        return json.dumps(dict(self.values), sort_keys=True)


@dataclass(frozen=True, slots=True)
class TunePlan:
    """Section [model.tune].

    Attributes:
        rules: How one is chosen.
        space: Values that are tried, by setting, as the file wrote them.
        candidates: Every combination; of equally good ones the first is chosen, so simple values stand first.
    """

    rules: TuneRules
    space: Mapping[str, tuple[Any, ...]]
    candidates: tuple[Candidate, ...]
