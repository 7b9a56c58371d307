"""Neural survival models on tables and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.encoders.mlp import MLP
from survlens.models.survival_model import SurvivalModel
from survlens.training.estimator import HeadedEstimator
from survlens.training.head_choice import GridRule, HeadKind


@dataclass(kw_only=True, eq=False, repr=False)
class TableSurvival(HeadedEstimator):
    """A multilayer perceptron of the table under the head of your choice: `TableSurvival(head=HeadKind.PMF)`.

    The settings of training are those of `TrainedEstimator`, those of the head those of `HeadedEstimator`.

    Attributes:
        hidden: Width of each hidden layer. Under `COX_TIME` the last of them also sees the time.
        dropout: Share of units dropped in training.
        batch_norm: Whether to normalise after each activation.
    """

    hidden: Sequence[int] = (32, 32)
    dropout: float = 0.1
    batch_norm: bool = False

    def _network(self) -> nn.Module:
        hidden, timed = tuple(self.hidden), self.head is HeadKind.COX_TIME
        if timed and not hidden:
            raise InvalidValueError("`hidden` must name at least one layer under COX_TIME; got none.")
        layers = hidden[:-1] if timed else hidden
        encoder = MLP(self.shapes_["table"][0], layers, dropout=self.dropout, batch_norm=self.batch_norm)
        return SurvivalModel({"table": encoder}, self._head(encoder.out_features, hidden[-1] if timed else 0))


@dataclass(kw_only=True, eq=False, repr=False)
class DeepSurv(TableSurvival):
    """A Cox model whose log-risk is a multilayer perceptron of the table (Katzman et al. 2018).

    `TableSurvival` with `head=HeadKind.COX`; the settings are the same, without those of the head.
    """

    head: HeadKind = field(default=HeadKind.COX, init=False)
    intervals: int = field(default=1, init=False)
    grid: GridRule = field(default=GridRule.QUANTILE, init=False)
    edges: Sequence[float] | None = field(default=None, init=False)
    n_causes: int | None = field(default=None, init=False)
    alpha: float = field(default=0.2, init=False)
    sigma: float = field(default=0.1, init=False)


@dataclass(kw_only=True, eq=False, repr=False)
class DeepHazard(TableSurvival):
    """The hazard of every interval of time from a multilayer perceptron of the table; hazards need not be proportional.

    `TableSurvival` with `head=HeadKind.LOGISTIC_HAZARD` (Gensheimer and Narasimhan 2019).
    """

    head: HeadKind = field(default=HeadKind.LOGISTIC_HAZARD, init=False)
    n_causes: int | None = field(default=None, init=False)
    alpha: float = field(default=0.2, init=False)
    sigma: float = field(default=0.1, init=False)
