"""The scikit-learn face of neural models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import CorruptFileError, FitError, InvalidTypeError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction, Times
from survlens.core.protocols import CompetingRisksHead, Inputs
from survlens.data.dealing import part_of
from survlens.data.loaders import TensorSource
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.models.estimator import State, SurvivalEstimator
from survlens.models.matrix import Covariates, covariate_matrix
from survlens.models.proportional import StratumOfRows
from survlens.training.fit import FitSettings, fit
from survlens.training.head_choice import GridRule, HeadFacts, HeadKind, build_head, cut
from survlens.training.history import FitHistory
from survlens.training.objectives import Objective, SurvivalObjective

_ROWS_AT_ONCE = 1024


class NeuralEstimator(SurvivalEstimator):
    """What every neural model can do, in scikit-learn's manners.

    `X` may be a data frame or matrix (a table), an array of (instance, channel, height, width) or (instance, height,
    width) (images), or a mapping from modality to array. Networks want inputs of a like size: scale a table first, with
    `sklearn.pipeline.make_pipeline(StandardScaler(), ...)`, and images to [0, 1].

    A share `validation_fraction` of the training patients is kept back to stop early and to choose the best epoch.

    Attributes:
        model_: The trained module, in eval mode.
        history_: What the training looked like.
    """

    _fitted: ClassVar[tuple[str, ...]] = ("shapes_", "weights_")

    validation_fraction: float
    seed: int

    model_: Any
    history_: FitHistory
    shapes_: dict[str, list[int]]
    weights_: dict[str, np.ndarray]

    @abstractmethod
    def _network(self) -> nn.Module:
        """The untrained network for inputs of `shapes_`."""

    @abstractmethod
    def _fit_settings(self, *, stop_early: bool) -> FitSettings: ...

    def _objective(self) -> Objective:
        return SurvivalObjective()

    def _meet(self, train: SurvivalOutcome, everyone: SurvivalOutcome) -> None:
        """Keeps what the network has to know of the outcome, before it is built.

        Args:
            train: Of the rows to learn from.
            everyone: Of those and the rows kept back.
        """

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> Self:
        """Trains the network.

        Args:
            X: Table, images, or both.
            y: Outcome of the same instances.
            groups: Patient of each row, so that no patient is on both sides of early stopping.

        Raises:
            InvalidValueError: If `X` is not finite, `X` and `y` differ in length, or `y` has strata and the head is
                `CoxTime`.
            InvalidTypeError: If a setting is not a member of its enumeration, such as a string.
            FitError: If there is no event, or the loss is no longer finite.
        """
        self._check_choices()
        self.modalities_, self.feature_names_ = (), ()
        inputs, outcome = self._inputs(X, fitting=True), self._outcome(y)
        _check_rows(inputs, outcome)
        self.shapes_ = {name: list(tensor.shape[1:]) for name, tensor in inputs.items()}
        self.n_features_in_, self.unit_ = int(next(iter(inputs.values())).shape[1]), outcome.unit
        train, validation = self._parts(TensorSource(inputs, outcome), groups)
        self._meet(train.outcome, outcome)
        self.model_ = self._fresh_network()
        _check_strata(getattr(self.model_, "head", None), outcome)
        settings = self._fit_settings(stop_early=validation is not None)
        self.history_ = fit(self.model_, train, validation, self._objective(), settings)
        self.weights_ = {name: tensor.numpy().copy() for name, tensor in self.model_.state_dict().items()}
        return self

    def predict(self, X: Covariates) -> Float64[np.ndarray, " instance"]:
        """Risk of each row; higher is worse."""
        return self._in_batches(X, lambda inputs: self.model_.risk(inputs).double()).numpy()

    def predict_survival(
        self, X: Covariates, times: Times | None = None, *, stratum: StratumOfRows | None = None
    ) -> SurvivalPrediction:
        """Survival curves of the rows, at the knots of the head or at `times`.

        Args:
            X: Table, images, or both.
            times: Times at which to give the curves; None for the knots.
            stratum: Stratum of each row, or one for all; for a `CoxPH` head that was fitted with strata.

        Raises:
            InvalidValueError: If `times` reach past the end of the head's curves, as a rule the last observed time, or
                `stratum` is missing, unknown, or given to a model without strata.
        """
        self._check_fitted()
        head = self.model_.head
        with torch.no_grad():
            if stratum is None:
                return head.predict(self._embedding(X), _as_times(times))
            if not isinstance(head, CoxPH) or not len(head.baseline.strata):
                raise InvalidValueError(
                    "`stratum` must be None for a model without baselines by stratum; "
                    f"got one for {type(head).__name__}. Leave it out."
                )
            embedding = self._embedding(X)
            of_rows = torch.as_tensor(stratum)
            of_rows = of_rows.repeat(len(embedding)) if of_rows.ndim == 0 else of_rows
            return head.predict(embedding, _as_times(times), stratum=of_rows)

    def predict_incidence(self, X: Covariates, times: Times | None = None) -> CompetingRisksPrediction:
        """Cumulative incidence of each cause, at the knots of the head or at `times`.

        Raises:
            InvalidTypeError: If the head does not tell causes apart.
            InvalidValueError: If `times` reach past the last knot.
        """
        self._check_fitted()
        if not isinstance(self.model_.head, CompetingRisksHead):
            raise InvalidTypeError(
                f"the head must tell causes apart to predict incidences; got {type(self.model_.head).__name__}. "
                "Fit TableSurvival(head=HeadKind.DEEP_HIT), or use predict_survival."
            )
        with torch.no_grad():
            return self.model_.head.predict_incidence(self._embedding(X), _as_times(times))

    def embed(self, X: Covariates) -> Float64[np.ndarray, "instance embedding"]:
        """What the head sees of each row: features for another model."""
        return self._embedding(X).double().numpy()

    def _embedding(self, X: Covariates) -> Float[Tensor, "instance embedding"]:
        return self._in_batches(X, lambda inputs: self.model_.embed(inputs))

    @torch.no_grad()
    def _in_batches(self, X: Covariates, function: Callable[[Inputs], Tensor]) -> Tensor:
        self._check_fitted()
        inputs = self._inputs(X, fitting=False)
        rows = len(next(iter(inputs.values())))
        starts = range(0, max(rows, 1), _ROWS_AT_ONCE)
        parts = [{name: tensor[i : i + _ROWS_AT_ONCE] for name, tensor in inputs.items()} for i in starts]
        return torch.cat([function(part) for part in parts])

    def _inputs(self, X: Covariates, *, fitting: bool) -> dict[str, Tensor]:
        if isinstance(X, Mapping):
            inputs = {str(name): _as_tensor(name, values) for name, values in X.items()}
        elif not isinstance(X, pd.DataFrame) and np.ndim(X) > 2:  # type: ignore[arg-type]
            inputs = {"image": _as_tensor("image", X)}
        else:
            matrix = covariate_matrix(X, names=None if fitting else self.feature_names_ or None)
            self.feature_names_ = matrix.names if fitting else self.feature_names_
            inputs = {"table": torch.from_numpy(matrix.values).float()}
        if not fitting:
            _check_shapes(inputs, self.shapes_)
        return inputs

    def _parts(self, source: TensorSource, groups: object | None) -> tuple[TensorSource, TensorSource | None]:
        if self.validation_fraction == 0:
            return source, None
        rows = np.arange(len(source))
        patient = rows if groups is None else np.asarray(groups)
        fraction, what = self.validation_fraction, "validation_fraction"
        kept, held_out = part_of(patient, source.outcome, rows, fraction=fraction, seed=self.seed, what=what)
        return TensorSource(*source.batch(kept)), TensorSource(*source.batch(held_out))

    def _fresh_network(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return self._network()

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted model of `state()`; it predicts the same bits.

        Raises:
            CorruptFileError: If the state is of another kind, lacks something, or its weights do not fit.
        """
        model = cast(Self, super().from_state(state))
        model.model_ = model._fresh_network()
        try:
            model.model_.load_state_dict({name: torch.as_tensor(array) for name, array in model.weights_.items()})
        except RuntimeError as error:
            raise CorruptFileError(f"`state` must hold weights that fit its settings; got others ({error}).") from error
        model.model_.eval()
        return model

    def _risk(self, values: Float64[np.ndarray, "instance feature"]) -> Float64[np.ndarray, " instance"]:
        return self.predict(values)

    def _curves(self, values: Float64[np.ndarray, "instance feature"]) -> SurvivalPrediction:
        return self.predict_survival(values)


class NeuralSurvival(NeuralEstimator):
    """Your own network with scikit-learn's manners.

    Args:
        build: From the shape of one instance per modality (`{"table": [9]}`) and the training outcome to a fresh
            network, such as a `SurvivalModel`.
        settings: How it is trained; `patience` counts only where `validation_fraction` > 0.
        objective: What is minimised.
        validation_fraction: Share of the training patients kept back to stop early; 0 for none.
        seed: Seed of the initial weights and of the share kept back.
        unit: Unit of time, for a `y` that does not know it.
    """

    def __init__(
        self,
        build: Callable[[Mapping[str, list[int]], SurvivalOutcome], nn.Module],
        settings: FitSettings,
        *,
        objective: Objective | None = None,
        validation_fraction: float = 0.2,
        seed: int = 0,
        unit: str = "time",
    ):
        self.build = build
        self.settings = settings
        self.objective = objective
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.unit = unit

    def _meet(self, train: SurvivalOutcome, everyone: SurvivalOutcome) -> None:
        self._training_outcome = everyone

    def _network(self) -> nn.Module:
        outcome = self._training_outcome
        del self._training_outcome  # patients do not stay in the model
        return self.build(self.shapes_, outcome)

    def _objective(self) -> Objective:
        return super()._objective() if self.objective is None else self.objective

    def _fit_settings(self, *, stop_early: bool) -> FitSettings:
        return self.settings

    def state(self) -> State:
        """Refused: a function cannot be stored; keep `model_` with `survlens.models.saving.save_model`."""
        raise InvalidTypeError(
            "`state` must be plain values; got a network built by a function. "
            "Save `model_` with survlens.models.saving.save_model instead."
        )


@dataclass(kw_only=True, eq=False, repr=False)
class TrainedEstimator(NeuralEstimator):
    """The settings that every named network has. Each class writes down only those it adds.

    They are dataclass fields, so a class has one constructor with all of them, which scikit-learn reads the names from.

    Attributes:
        epochs: Most passes over the training rows.
        batch: Rows in a batch.
        learning_rate: Step size of Adam.
        weight_decay: Pull of Adam towards zero.
        patience: Epochs without a better validation loss after which training ends.
        validation_fraction: Share of the training patients kept back to stop early; 0 for none.
        seed: Seed of everything random.
        device: "cpu", "cuda" or "auto".
        unit: Unit of time, for a `y` that does not know it.
    """

    epochs: int = 100
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 10
    validation_fraction: float = 0.2
    seed: int = 0
    device: str = "cpu"
    unit: str = "time"

    def _fit_settings(self, *, stop_early: bool) -> FitSettings:
        return FitSettings(
            epochs=self.epochs, batch=self.batch, learning_rate=self.learning_rate, weight_decay=self.weight_decay,
            patience=self.patience if stop_early else None, device=self.device, seed=self.seed,
        )  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)
class HeadedEstimator(TrainedEstimator):
    """The settings of every network whose head can be chosen.

    Attributes:
        head: Family of survival models.
        intervals: Number of intervals; `COX` and `COX_TIME` need none.
        grid: How intervals are cut.
        edges: Boundaries of your own, from 0, instead of `intervals` and `grid`.
        n_causes: Number of causes that `DEEP_HIT` tells apart; by default the largest that the fit has seen. Give it
            where folds may lack a rare cause.
        alpha: Weight of the likelihood beside the ranking loss of `DEEP_HIT`.
        sigma: Scale of that ranking loss.
        edges_: The boundaries of the fit.
        n_causes_: `n_causes`, or the largest cause in the fit.
        median_time_: Median observed time in the fit.
    """

    _fitted: ClassVar[tuple[str, ...]] = ("shapes_", "edges_", "n_causes_", "median_time_", "weights_")
    _choices: ClassVar[Mapping[str, type[Enum]]] = {"head": HeadKind, "grid": GridRule}

    head: HeadKind = HeadKind.COX
    intervals: int = 20
    grid: GridRule = GridRule.QUANTILE
    edges: Sequence[float] | None = None
    n_causes: int | None = None
    alpha: float = 0.2
    sigma: float = 0.1

    def _meet(self, train: SurvivalOutcome, everyone: SurvivalOutcome) -> None:
        last = float(everyone.time.max())
        grid = cut(train, intervals=self.intervals, rule=self.grid, edges=self.edges, last=last)
        self.edges_: Float64[np.ndarray, " edge"] = grid.edges.numpy()
        self.n_causes_: int = everyone.n_causes if self.n_causes is None else self.n_causes
        self.median_time_: float = float(everyone.time.median())

    def _head(self, width: int, last_hidden: int) -> nn.Module:
        grid = TimeGrid(torch.as_tensor(self.edges_, dtype=torch.float64), self.unit_)
        facts = HeadFacts(grid, self.n_causes_, self.median_time_, last_hidden, self.alpha, self.sigma)
        return build_head(self.head, width, facts)


def _as_times(times: Times | None) -> Float64[Tensor, " time"] | None:
    return None if times is None else torch.as_tensor(times, dtype=torch.float64).reshape(-1)


def _as_tensor(name: object, values: object) -> Tensor:
    tensor = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values))
    if tensor.dtype.is_complex or tensor.ndim < 2:
        raise InvalidTypeError(
            f"`X` must hold numbers with a row per instance; got {str(name)!r} of {tensor.dtype} and shape "
            f"{tuple(tensor.shape)}."
        )
    tensor = tensor.detach().cpu().float()
    tensor = tensor[:, None] if tensor.ndim == 3 else tensor  # (instance, height, width): one channel
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidValueError(
            f"`X` must be finite; got NaN or infinity in {str(name)!r}. Impute missing values first."
        )
    return tensor


def _check_rows(inputs: Inputs, outcome: SurvivalOutcome) -> None:
    rows = {name: len(tensor) for name, tensor in inputs.items()}
    if set(rows.values()) != {len(outcome)}:
        raise InvalidValueError(f"`X` and `y` must have one row per instance; got {rows} and {len(outcome)}.")
    if outcome.n_events == 0:
        raise FitError(
            f"`y` must hold at least one event; got none in {len(outcome)} rows. Check how events are coded."
        )


def _check_strata(head: nn.Module | None, outcome: SurvivalOutcome) -> None:
    """Refuses before the training what the baseline of `CoxTime` would refuse after it."""
    count = len(outcome.strata().unique())
    if isinstance(head, CoxTime) and count > 1:
        raise InvalidValueError(
            f"`y` must be of one stratum for a CoxTime head; got {count}. "
            "Give the stratum as a covariate: its risks may change with time, so hazards may cross."
        )


def _check_shapes(inputs: Inputs, shapes: Mapping[str, list[int]]) -> None:
    missing = [name for name in shapes if name not in inputs]
    if missing:
        raise InvalidValueError(f"`X` must hold {', '.join(shapes)} as in the fit; got {', '.join(inputs)}.")
    for name, shape in shapes.items():
        if list(inputs[name].shape[1:]) != list(shape):
            raise InvalidValueError(
                f"`X` must have instances of shape {tuple(shape)} in {name!r} as in the fit; got "
                f"{tuple(inputs[name].shape[1:])}. Resize them first."
            )
