"""Late fusion: models fitted on their own covariates, and a Cox regression on their risks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float64
from sklearn.base import clone

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.models.classical import CoxRegression
from survlens.models.cross_fitting import patient_folds
from survlens.models.estimator import State, SurvivalEstimator, restore
from survlens.models.matrix import Covariates, columns_of, rows_of


class LateFusion(SurvivalEstimator):
    """Fits every member on its own covariates, and weighs their risks by a Cox regression.

    The weights are fitted on out-of-fold risks: each row's risk comes from a member that never saw its patient, so
    that a member that overfits gains no weight. The risks are scaled to mean 0 and standard deviation 1 out of fold.
    For risks that are out of fold already, fit a `CoxRegression` on them.

    Args:
        members: Name to estimator. Unfitted; they are cloned.
        columns: Name to the columns of a frame or matrix that a member sees, or the modalities of a mapping. Where a
            name
            is missing, a mapping gives the modality of that name, and a table all of its columns.
        penalty: Ridge of the weights, as in `CoxRegression`.
        folds: Folds in which the members are fitted for the weights.
        seed: Seed of the folds.
        unit: Unit of time, for a `y` that does not know it.

    Attributes:
        weights_: Log hazard ratio per standard deviation of each member's out-of-fold risk.
        members_: The members, fitted on all rows.
        fusion_: The Cox regression on the scaled risks.

    References:
        Wolpert 1992; van der Laan et al. 2007.
    """

    _fitted: ClassVar[tuple[str, ...]] = ("member_names_", "scale_", "fusion_")

    def __init__(
        self,
        members: Mapping[str, SurvivalEstimator],
        *,
        columns: Mapping[str, Sequence[str | int]] | None = None,
        penalty: float = 0.01,
        folds: int = 5,
        seed: int = 0,
        unit: str = "time",
    ):
        self.members = members
        self.columns = columns
        self.penalty = penalty
        self.folds = folds
        self.seed = seed
        self.unit = unit

    def fit(self, X: Covariates, y: object, groups: object | None = None) -> LateFusion:
        """Fits the members out of fold, the weights, and the members on all rows.

        Args:
            X: Covariates of all members.
            y: Outcome of the same instances.
            groups: Patient of each row; None where every row is a patient.
        """
        if not self.members:
            raise InvalidValueError("`members` must hold at least one estimator; got none.")
        parts = {name: self._part(name, X) for name in self.members}
        outcome = self._outcome(y)
        for part in parts.values():
            self._training_rows(part, outcome)
        fold = patient_folds(outcome, groups, folds=self.folds, seed=self.seed)
        risks = np.column_stack([self._out_of_fold(name, part, outcome, fold, groups) for name, part in parts.items()])
        self.member_names_ = self.feature_names_ = tuple(self.members)
        spread = risks.std(0)
        self.scale_ = np.stack([risks.mean(0), np.where(spread > 0, spread, 1.0)])
        self.members_ = {name: _fitted(self.members[name], part, outcome, groups) for name, part in parts.items()}
        self.fusion_ = CoxRegression(penalty=self.penalty).fit(self._frame(risks), outcome)
        self.unit_ = outcome.unit
        return self

    @property
    def weights_(self) -> dict[str, float]:
        """Log hazard ratio per standard deviation of each member's out-of-fold risk."""
        self._check_fitted()
        return {name: float(value) for name, value in zip(self.member_names_, self.fusion_.coef_, strict=True)}

    def _out_of_fold(
        self, name: str, part: Covariates, outcome: SurvivalOutcome, fold: np.ndarray, groups: object | None
    ) -> Float64[np.ndarray, " instance"]:
        risk = np.empty(len(outcome))
        for k in range(self.folds):
            training, held_out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            patients = None if groups is None else np.asarray(groups)[training]
            member = _fitted(self.members[name], rows_of(part, training), outcome[training], patients)
            risk[held_out] = member.predict(rows_of(part, held_out))
        return risk

    def _part(self, name: str, X: Covariates) -> Covariates:
        asked = (self.columns or {}).get(name)
        if isinstance(X, Mapping):
            return columns_of(X, [name] if asked is None else asked)
        return X if asked is None else columns_of(X, asked)

    def _frame(self, risks: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame((risks - self.scale_[0]) / self.scale_[1], columns=pd.Index(self.member_names_))

    def _matrix(self, X: Covariates) -> Float64[np.ndarray, "instance feature"]:
        """Scaled risks of the members."""
        self._check_fitted()
        risks = np.column_stack([self.members_[name].predict(self._part(name, X)) for name in self.member_names_])
        return self._frame(risks).to_numpy()

    def _risk(self, values: Float64[np.ndarray, "instance feature"]) -> Float64[np.ndarray, " instance"]:
        return self.fusion_._risk(values)

    def _curves(self, values: Float64[np.ndarray, "instance feature"]) -> SurvivalPrediction:
        return self.fusion_._curves(values)

    def state(self) -> State:
        """The fitted members and weights as arrays and plain values; names of a part start with its own."""
        self._check_fitted()
        settings = {"columns": self.columns, "penalty": self.penalty, "folds": self.folds}
        parts = {"fusion": self.fusion_, **{f"members/{name}": member for name, member in self.members_.items()}}
        return {
            "kind": type(self).__name__,
            "params": {**settings, "seed": self.seed, "unit": self.unit},
            "member_names_": list(self.member_names_),
            "scale_": self.scale_,
            "unit_": self.unit_,
            **{f"{part}/{key}": value for part, model in parts.items() for key, value in model.state().items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> LateFusion:
        """The fitted model of `state()`; it predicts the same bits."""
        missing = [name for name in ("params", "member_names_", "scale_", "unit_") if name not in state]
        if state.get("kind") != cls.__name__ or missing:
            raise CorruptFileError(f"`state` must be of a {cls.__name__} and complete; got {sorted(state)[:12]}.")
        names = tuple(state["member_names_"])  # type: ignore[arg-type]
        members = {name: restore(_below(f"members/{name}/", state)) for name in names}
        settings: Mapping[str, Any] = state["params"]  # type: ignore[assignment]
        unfitted: dict[str, Any] = {name: clone(member) for name, member in members.items()}
        model = cls(unfitted, **settings)
        model.members_, model.member_names_, model.scale_ = members, names, np.asarray(state["scale_"])
        model.fusion_ = CoxRegression.from_state(_below("fusion/", state))
        model.feature_names_, model.unit_ = names, state["unit_"]
        return model


def _fitted(
    member: SurvivalEstimator, part: Covariates, outcome: SurvivalOutcome, groups: object | None
) -> SurvivalEstimator:
    unfitted: SurvivalEstimator = clone(member)  # type: ignore[assignment]
    return unfitted.fit(part, outcome, groups=groups)


def _below(prefix: str, state: Mapping[str, object]) -> dict[str, object]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
