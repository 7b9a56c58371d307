"""Late fusion: models fitted on their own covariates, and a Cox regression on their risks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from sklearn.base import clone

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.core.inputs import present
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction, Times
from survlens.models.classical import CoxRegression
from survlens.models.cross_fitting import patient_folds
from survlens.models.estimator import State, SurvivalEstimator, restore
from survlens.models.matrix import Covariates, columns_of, rows_of

MemberRisks = Mapping[str, Float64[np.ndarray, " instance"]]
"""Risk of each row by each member; NaN where a member says nothing of a row."""


@dataclass(frozen=True, slots=True, eq=False)
class FusedRisks:
    """A Cox regression on the risks of members, as `fuse_risks` fits it.

    Attributes:
        names: The members.
        scale: Mean (row 0) and standard deviation (row 1) of each member's risk over the patients of the fit.
        regression: On the scaled risks, in the order of `names`, then on a 0/1 column "NAME missing" for every member
            that said nothing of some patient.
    """

    names: tuple[str, ...]
    scale: Float64[np.ndarray, "2 member"]
    regression: CoxRegression

    @property
    def weights(self) -> dict[str, float]:
        """Log hazard ratio per standard deviation of each member's risk."""
        return dict(zip(self.names, map(float, self.regression.coef_), strict=False))

    def columns(self, risks: MemberRisks) -> pd.DataFrame:
        """What the regression sees of some rows: scaled risks, 0 where missing, and what is missing.

        Raises:
            InvalidValueError: If a member is not among `risks`, one is infinite, or a row has no risk at all.
        """
        values = _columns_of_risks(risks, self.names)
        frame = _scaled(values, self.names, self.scale)
        return frame.loc[:, list(self.regression.feature_names_)]

    def risk(self, risks: MemberRisks) -> Float64[np.ndarray, " instance"]:
        """Log hazard ratio of each row against a patient with mean risks."""
        return self.regression.predict(self.columns(risks))

    def predict_survival(self, risks: MemberRisks, times: Times | None = None) -> SurvivalPrediction:
        """Survival curves of the rows, at the knots of the fit or at `times`."""
        return self.regression.predict_survival(self.columns(risks), times)


def fuse_risks(
    risks: MemberRisks, outcome: SurvivalOutcome, groups: object | None = None, *, penalty: float = 0.01
) -> FusedRisks:
    """Weighs members by a Cox regression on their risks, which also gives the baseline.

    The risks must be of patients whom no member was fitted to: out of fold, or set apart. In-sample risks give weight
    to whichever member overfits most. Every patient counts once, with the mean of the risks of their rows. A member
    that says nothing of a patient stands at its mean risk, and a column that says so takes up what is known of patients
    without it.

    Args:
        risks: Risk of each row by each member; NaN where it says nothing, such as for a patient without images.
        outcome: Outcome of the same rows.
        groups: Patient of each row; None where every row is a patient.
        penalty: Ridge of the weights, as in `CoxRegression`.

    Raises:
        InvalidValueError: If there is no member, lengths differ, a risk is infinite, or a row has no risk at all.
        FitError: If there is no event.

    References:
        Wolpert 1992; van der Laan et al. 2007.
    """
    if not risks:
        raise InvalidValueError("`risks` must hold those of at least one member; got none.")
    names = tuple(risks)
    values = _columns_of_risks(risks, names)
    if len(values) != len(outcome):
        raise InvalidValueError(
            f"`risks` and `outcome` must have one number of rows; got {len(values)} and {len(outcome)}."
        )
    if groups is not None:
        values, outcome = _by_patient(values, outcome, groups)
    given = np.isfinite(values)
    known = np.maximum(given.sum(0), 1)
    centre = np.where(given, values, 0.0).sum(0) / known
    spread = np.sqrt(np.square(np.where(given, values - centre, 0.0)).sum(0) / known)
    scale = np.stack([centre, np.where(spread > 0, spread, 1.0)])
    frame = _scaled(values, names, scale)
    kept = [*names, *(_missing_column(names[i]) for i in np.flatnonzero(~given.all(axis=0)))]
    return FusedRisks(names, scale, CoxRegression(penalty=penalty).fit(frame.loc[:, kept], outcome))


class LateFusion(SurvivalEstimator):
    """Fits every member on its own covariates, and weighs their risks by a Cox regression.

    The weights are fitted on out-of-fold risks: each row's risk comes from a member that never saw its patient, so
    that a member that overfits gains no weight. The risks are scaled to mean 0 and standard deviation 1 out of fold.
    For risks that are out of fold already, use `fuse_risks`.

    Delayed entry and weights reach the members, of whom each honours or refuses them, and the weighing; strata are
    refused.

    A member may be missing in some rows where `X` is a mapping that says so (`"image.present"`, see
    `survlens.core.inputs`): it is fitted on the rows that have all its modalities, and stands at its mean risk in the
    others, beside a column of the Cox regression that says which rows those are.

    Args:
        members: Name to estimator. Unfitted; they are cloned.
        columns: Name to the columns of a frame or matrix that a member sees, or the modalities of a mapping. Where a
            name is missing, a mapping gives the modality of that name, and a table all of its columns.
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
    _honours: ClassVar[tuple[str, ...]] = ("entry", "weight")

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
        seen = {name: self._seen(name, X) for name in self.members}
        outcome = self._outcome(y)
        for name, part in parts.items():
            self._training_rows(*_rows_seen(part, outcome, seen[name]))
        fold = patient_folds(outcome, groups, folds=self.folds, seed=self.seed)
        risks = {
            name: self._out_of_fold(name, part, outcome, np.where(_everywhere(seen[name], len(fold)), fold, -1), groups)
            for name, part in parts.items()
        }
        self.member_names_ = self.feature_names_ = tuple(self.members)
        fused = fuse_risks(risks, outcome, groups, penalty=self.penalty)
        self.members_ = {
            name: _fitted(self.members[name], *_rows_seen(part, outcome, seen[name]), _chosen(groups, seen[name]))
            for name, part in parts.items()
        }
        self.scale_, self.fusion_ = fused.scale, fused.regression
        self.unit_ = outcome.unit
        return self

    @property
    def weights_(self) -> dict[str, float]:
        """Log hazard ratio per standard deviation of each member's out-of-fold risk."""
        self._check_fitted()
        return self._fused().weights

    def _fused(self) -> FusedRisks:
        return FusedRisks(self.member_names_, self.scale_, self.fusion_)

    def _out_of_fold(
        self, name: str, part: Covariates, outcome: SurvivalOutcome, fold: np.ndarray, groups: object | None
    ) -> Float64[np.ndarray, " instance"]:
        """Risks by members that never saw the patient; NaN where `fold` is negative, in rows that lack the member."""
        risk = np.full(len(outcome), np.nan)
        for k in range(self.folds):
            training, held_out = np.flatnonzero((fold != k) & (fold >= 0)), np.flatnonzero(fold == k)
            patients = None if groups is None else np.asarray(groups)[training]
            member = _fitted(self.members[name], rows_of(part, training), outcome[training], patients)
            if held_out.size:
                risk[held_out] = member.predict(rows_of(part, held_out))
        return risk

    def _seen(self, name: str, X: Covariates) -> Bool[np.ndarray, " instance"] | None:
        """Which rows have all that a member sees; None for all."""
        if not isinstance(X, Mapping):
            return None
        modalities = [str(each) for each in (self.columns or {}).get(name, [name])]
        return np.logical_and.reduce([present(X, each).cpu().numpy() for each in modalities])

    def _part(self, name: str, X: Covariates) -> Covariates:
        asked = (self.columns or {}).get(name)
        if isinstance(X, Mapping):
            return columns_of(X, [name] if asked is None else asked)
        return X if asked is None else columns_of(X, asked)

    def _matrix(self, X: Covariates) -> Float64[np.ndarray, "instance feature"]:
        """Scaled risks of the members, and what is missing."""
        self._check_fitted()
        risks = {name: self._member_risk(name, X) for name in self.member_names_}
        return self._fused().columns(risks).to_numpy()

    def _member_risk(self, name: str, X: Covariates) -> Float64[np.ndarray, " instance"]:
        part, seen = self._part(name, X), self._seen(name, X)
        if seen is None or seen.all():
            return self.members_[name].predict(part)
        risk = np.full(len(seen), np.nan)
        if seen.any():
            risk[seen] = self.members_[name].predict(rows_of(part, np.flatnonzero(seen)))
        return risk

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


def _everywhere(seen: np.ndarray | None, rows: int) -> np.ndarray:
    return np.ones(rows, dtype=bool) if seen is None else seen


def _rows_seen(
    part: Covariates, outcome: SurvivalOutcome, seen: np.ndarray | None
) -> tuple[Covariates, SurvivalOutcome]:
    if seen is None or seen.all():
        return part, outcome
    rows = np.flatnonzero(seen)
    return rows_of(part, rows), outcome[rows]


def _chosen(groups: object | None, seen: np.ndarray | None) -> object | None:
    return groups if groups is None or seen is None else np.asarray(groups)[seen]


def _columns_of_risks(risks: MemberRisks, names: tuple[str, ...]) -> Float64[np.ndarray, "instance member"]:
    missing = [name for name in names if name not in risks]
    if missing:
        raise InvalidValueError(f"`risks` must hold those of {', '.join(names)}; got none of {', '.join(missing)}.")
    values = np.column_stack([np.asarray(risks[name], dtype=np.float64) for name in names])
    if np.isinf(values).any():
        raise InvalidValueError("`risks` must be finite, or NaN where a member says nothing; got infinity.")
    silent = np.flatnonzero(np.isnan(values).all(1))
    if silent.size:
        raise InvalidValueError(
            f"`risks` must have one of {', '.join(names)} in every row; got {silent.size} of {len(values)} rows with "
            f"none, such as row {silent[0]}. Leave these rows out."
        )
    return values


def _missing_column(name: str) -> str:
    return f"{name} missing"


def _scaled(values: np.ndarray, names: tuple[str, ...], scale: np.ndarray) -> pd.DataFrame:
    given = np.isfinite(values)
    scaled = np.where(given, (values - scale[0]) / scale[1], 0.0)
    columns = [*names, *map(_missing_column, names)]
    return pd.DataFrame(np.concatenate([scaled, ~given], axis=1), columns=pd.Index(columns))


def _by_patient(
    values: np.ndarray, outcome: SurvivalOutcome, groups: object
) -> tuple[Float64[np.ndarray, "patient member"], SurvivalOutcome]:
    labels = np.asarray(groups)
    if labels.shape != (len(outcome),):
        raise InvalidValueError(f"`groups` must name one patient per row; got {labels.shape} for {len(outcome)} rows.")
    patient = pd.factorize(labels)[0]
    if (patient < 0).any():
        raise InvalidValueError(f"`groups` must not be missing; got {int((patient < 0).sum())} such values.")
    first = np.unique(patient, return_index=True)[1]
    return pd.DataFrame(values).groupby(patient).mean().to_numpy(), outcome[first]
