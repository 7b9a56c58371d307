"""The scikit-learn face of every classical survival model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64
from sklearn.base import BaseEstimator
from torch import Tensor

from survlens.core.choices import check_choice
from survlens.core.errors import CorruptFileError, FitError, InvalidValueError, NotFittedError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.pair_counts import pair_counts
from survlens.core.prediction import SurvivalPrediction, Times
from survlens.data.table import outcome_from
from survlens.models.matrix import CovariateMatrix, Covariates, covariate_matrix

OPTIONAL_PARTS = ("entry", "weight", "stratum")
"""What an outcome may hold beside times and events."""

State = dict[str, object]
"""A fitted estimator as arrays and plain values (numbers, strings, lists, dictionaries): npz and json, no pickle."""


class SurvivalEstimator(BaseEstimator, ABC):
    """What every classical model can do, in scikit-learn's manners.

    A subclass says how to `fit`, and how a matrix of covariates turns into risks (`_risk`) and curves (`_curves`).
    Names of fitted attributes end in an underscore, and those listed in `_fitted` make up the saved state. What an
    outcome may hold beside times and events ("entry", "weight", "stratum") is refused by `fit` unless it is listed in
    `_honours`.

    `X` may be a data frame of numbers, a matrix, a tensor, or a mapping from modality to tensor; `y` anything that
    `survlens.data.table.outcome_from` understands. Every subclass has a setting `unit`: the unit of time, for a `y`
    that does not know it.
    """

    unit: str
    _fitted: ClassVar[tuple[str, ...]]
    _honours: ClassVar[tuple[str, ...]] = ()
    _choices: ClassVar[Mapping[str, type[Enum]]] = {}

    @abstractmethod
    def fit(self, X: Covariates, y: object, groups: object | None = None) -> SurvivalEstimator:
        """Fits the model.

        Args:
            X: Covariates.
            y: Outcome of the same instances.
            groups: Patient of each row, for models that divide the rows into folds; None where every row is a patient.

        Raises:
            InvalidValueError: If `X` is not finite, `X` and `y` differ in length, or `y` holds entries, weights or
                strata that the model cannot honour.
            InvalidTypeError: If a setting is not a member of its enumeration, such as a string.
            FitError: If there is no event, or the fit fails.
        """

    def predict(self, X: Covariates) -> Float64[np.ndarray, " instance"]:
        """Risk of each row, as an array; higher is worse."""
        return self._risk(self._matrix(X))

    def risk(self, X: Covariates) -> Float64[Tensor, " instance"]:
        """Risk of each row, as a tensor; higher is worse."""
        return torch.from_numpy(self.predict(X))

    def predict_survival(self, X: Covariates, times: Times | None = None) -> SurvivalPrediction:
        """Survival curves of the rows, at the knots of the fit or at `times`.

        Raises:
            InvalidValueError: If `times` reach past the last time of the training rows.
        """
        curves = self._curves(self._matrix(X))
        return curves if times is None else curves.at(times)

    def score(self, X: Covariates, y: object) -> float:
        """Harrell's concordance index of the risks; NaN where no pair is comparable.

        Weights of `y` count; a pair stays within a stratum, and with delayed entry the longer-lived of it had entered
        before the other's event.
        """
        return pair_counts(self.predict(X), self._outcome(y)).concordance

    @abstractmethod
    def _risk(self, values: Float64[np.ndarray, "instance feature"]) -> Float64[np.ndarray, " instance"]: ...

    @abstractmethod
    def _curves(self, values: Float64[np.ndarray, "instance feature"]) -> SurvivalPrediction: ...

    def _outcome(self, y: object) -> SurvivalOutcome:
        return y if isinstance(y, SurvivalOutcome) else outcome_from(y, unit=self.unit)

    def _training_rows(self, X: Covariates, y: object) -> tuple[CovariateMatrix, SurvivalOutcome]:
        self._check_choices()
        matrix, outcome = covariate_matrix(X), self._outcome(y)
        self.check_honoured(outcome)
        rows = len(matrix.values)
        if rows != len(outcome):
            raise InvalidValueError(f"`X` and `y` must have one row per instance; got {rows} and {len(outcome)}.")
        if outcome.n_events == 0:
            raise FitError(f"`y` must hold at least one event; got none in {rows} rows. Check how events are coded.")
        self.feature_names_ = matrix.names
        self.n_features_in_ = len(matrix.names)
        self.modalities_ = matrix.modalities
        self.unit_ = outcome.unit
        return matrix, outcome

    def _check_choices(self) -> None:
        """Refuses a setting that is the name of a choice, not the choice."""
        for name, kind in self._choices.items():
            check_choice(name, getattr(self, name), kind)

    def check_honoured(self, outcome: SurvivalOutcome) -> None:
        """Refuses what the fit would refuse of an outcome's optional parts, without a fit.

        Args:
            outcome: What would be fitted.

        Raises:
            InvalidValueError: If it holds entries, weights or strata that the model cannot honour.
        """
        unheard = tuple(name for name in OPTIONAL_PARTS if name not in self._honours)
        refuse_parts(outcome, unheard, type(self).__name__, "Use a model that honours it, such as CoxRegression.")

    def _matrix(self, X: Covariates) -> Float64[np.ndarray, "instance feature"]:
        self._check_fitted()
        return covariate_matrix(X, names=self.feature_names_, modalities=self.modalities_ or None).values

    def _check_fitted(self) -> None:
        if not hasattr(self, self._fitted[-1]):
            raise NotFittedError(f"{type(self).__name__} must be fitted first. Call fit(X, y).")

    def state(self) -> State:
        """The fitted model as arrays and plain values, without any training row."""
        self._check_fitted()
        params = {name: _plain(value) for name, value in self.get_params(deep=False).items()}
        return {
            "kind": type(self).__name__,
            "params": params,
            "feature_names_": list(self.feature_names_),
            "modalities_": list(self.modalities_),
            "unit_": self.unit_,
            **{name: _plain(getattr(self, name)) for name in self._fitted},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> SurvivalEstimator:
        """The fitted model of `state()`; it predicts the same bits.

        Raises:
            CorruptFileError: If the state is of another kind, or lacks something.
        """
        if state.get("kind") != cls.__name__:
            raise CorruptFileError(f"`state` must be of a {cls.__name__}; got {state.get('kind')!r}.")
        missing = [name for name in ("params", "feature_names_", "unit_", *cls._fitted) if name not in state]
        if missing:
            raise CorruptFileError(f"`state` must be complete; got none of {', '.join(missing)}. Save the model again.")
        params: Mapping[str, object] = state["params"]  # type: ignore[assignment]
        model = cls(**{name: cls._param(name, value) for name, value in params.items()})
        model.feature_names_ = tuple(state["feature_names_"])  # type: ignore[arg-type]
        model.n_features_in_ = len(model.feature_names_)
        model.modalities_ = tuple(state.get("modalities_", ()))  # type: ignore[arg-type]
        model.unit_ = state["unit_"]
        for name in cls._fitted:
            value = state[name]
            setattr(model, name, np.asarray(value) if isinstance(value, list) else value)
        return model

    @classmethod
    def _param(cls, name: str, value: object) -> object:
        if name in cls._choices:
            return cls._choices[name](value)
        return tuple(value) if isinstance(value, list) else value


def refuse_parts(outcome: SurvivalOutcome, parts: tuple[str, ...], who: str, next_step: str) -> None:
    """Refuses an outcome that holds one of the optional parts named.

    Raises:
        InvalidValueError: If it does.
    """
    for name in parts:
        if getattr(outcome, name) is not None:
            raise InvalidValueError(f"`y` must not hold `{name}`, which {who} cannot honour. {next_step}")


def restore(state: Mapping[str, object]) -> SurvivalEstimator:
    """The fitted estimator of any `state()`, by its kind.

    Raises:
        CorruptFileError: If no imported estimator has that name.
    """
    kinds: dict[str, type[SurvivalEstimator]] = {}
    waiting: list[type[SurvivalEstimator]] = [SurvivalEstimator]
    while waiting:
        found = waiting.pop()
        kinds[found.__name__] = found
        waiting.extend(found.__subclasses__())
    kind = state.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise CorruptFileError(
            f"`state` must name a known estimator; got {kind!r}. Import the module that defines it first: networks are "
            f"known after `import survlens.training`. Known: {', '.join(sorted(kinds))}."
        )
    return kinds[kind].from_state(state)


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
