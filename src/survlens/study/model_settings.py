"""What a [[model]] section of a study file can say: one frozen dataclass per kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from survlens.study.network_settings import (
    ContinuousModel,
    CoxCnnModel,
    CoxVaeModel,
    DeepHitModel,
    DiscreteModel,
    FitPlan,
    PoolingKind,
)
from survlens.study.rules import (
    SettingError,
    at_least,
    between,
    check_rules,
    each_at_least,
    not_empty,
    plain_name,
    setting,
)
from survlens.study.tune_settings import Candidate, TunePlan
from survlens.training.settings import Device


class Modality(Enum):
    """What a model looks at."""

    IMAGE = "image"
    TABLE = "table"


class EstimatorKind(Enum):
    """Classical model fitted on an embedding."""

    COX = "cox"
    FOREST = "forest"
    LASSO_COX = "lasso_cox"


@dataclass(frozen=True, slots=True, kw_only=True)
class KaplanMeierModel:
    """One curve for everybody: the reference of every score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxModel:
    """Cox proportional hazards on the table.

    Attributes:
        penalty: Ridge penalty; 0 gives standard errors.
    """

    penalty: float = setting(0.0, at_least(0))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LassoCoxModel:
    """LASSO or elastic-net Cox path on the table, its penalty chosen by cross-validation.

    Attributes:
        l1_ratio: 1 is the LASSO; smaller values mix in the ridge penalty.
    """

    l1_ratio: float = setting(1.0, between(0.01, 1))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestModel:
    """Random survival forest on the table.

    Attributes:
        trees: Number of trees.
        leaf: Smallest number of rows in a leaf.
    """

    trees: int = setting(200, at_least(1))
    leaf: int = setting(15, at_least(1))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LateFusionModel:
    """A Cox model on the log-risks of models that were fitted apart.

    Attributes:
        members: Names of the models.
        folds: Inner folds in which members are fitted again to learn their weights.
    """

    members: tuple[str, ...] = setting(rule=not_empty())
    folds: int = setting(3, at_least(2))

    def __post_init__(self) -> None:
        check_rules(self)
        if len(set(self.members)) < 2:
            raise SettingError("members", "name at least two different models", str(list(self.members)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamModel:
    """A classical model on the embedding of a network.

    Attributes:
        embedding: Name of the model whose embedding is used.
        estimator: The classical model.
        penalty: Ridge penalty of "cox".
        l1_ratio: Mixing of "lasso_cox".
        trees: Number of trees of "forest".
    """

    embedding: str = setting(rule=not_empty())
    estimator: EstimatorKind = EstimatorKind.COX
    penalty: float = setting(0.0, at_least(0))
    l1_ratio: float = setting(1.0, between(0.01, 1))
    trees: int = setting(200, at_least(1))

    def __post_init__(self) -> None:
        check_rules(self)


KindSettings = (
    KaplanMeierModel
    | CoxModel
    | LassoCoxModel
    | ForestModel
    | ContinuousModel
    | DiscreteModel
    | DeepHitModel
    | CoxCnnModel
    | CoxVaeModel
    | LateFusionModel
    | DownstreamModel
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of model as a study file sees it.

    Attributes:
        settings: Dataclass of its own settings.
        label: Name shown where the study gives none.
        inputs: What it looks at where the study does not say.
        allowed: Everything it can look at.
        trained: Whether it is a network, with [model.fit] and [embeddings].

    Kinds that look at something of their own can be tuned; others are built on models that were fitted before.
    """

    settings: type
    label: str
    inputs: tuple[Modality, ...] = (Modality.TABLE,)
    allowed: tuple[Modality, ...] = (Modality.TABLE,)
    trained: bool = False


_IMAGE, _BOTH = Modality.IMAGE, (Modality.IMAGE, Modality.TABLE)
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "kaplan_meier": Kind(KaplanMeierModel, "Kaplan-Meier", (), ()),
        "cox": Kind(CoxModel, "Cox"),
        "lasso_cox": Kind(LassoCoxModel, "LASSO Cox"),
        "forest": Kind(ForestModel, "Random survival forest"),
        "deep_surv": Kind(ContinuousModel, "DeepSurv", allowed=_BOTH, trained=True),
        "cox_time": Kind(ContinuousModel, "Cox-Time", allowed=_BOTH, trained=True),
        "weibull": Kind(ContinuousModel, "Weibull network", allowed=_BOTH, trained=True),
        "logistic_hazard": Kind(DiscreteModel, "Logistic hazard", allowed=_BOTH, trained=True),
        "pmf": Kind(DiscreteModel, "PMF", allowed=_BOTH, trained=True),
        "mtlr": Kind(DiscreteModel, "MTLR", allowed=_BOTH, trained=True),
        "deep_hit": Kind(DeepHitModel, "DeepHit", allowed=_BOTH, trained=True),
        "pc_hazard": Kind(DiscreteModel, "PC-Hazard", allowed=_BOTH, trained=True),
        "cox_cnn": Kind(CoxCnnModel, "Cox CNN", (_IMAGE,), _BOTH, trained=True),
        "cox_vae": Kind(CoxVaeModel, "CoxVAE", (_IMAGE,), _BOTH, trained=True),
        "late_fusion": Kind(LateFusionModel, "Late fusion", (), ()),
        "downstream": Kind(DownstreamModel, "Downstream", (), ()),
    }
)
"""The kinds a study file can name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One [[model]] of a study.

    Attributes:
        name: Name of its files and of its row in every table.
        kind: Key of `KINDS`.
        settings: Settings of its kind.
        inputs: What it looks at.
        columns: Covariates that it takes, or shell-style patterns of their names; None takes all.
        label: Name for readers.
        seeds: One fit per seed.
        fit: How it is trained, for networks.
        tune: What is tried in each outer split before the fit; None where nothing is tuned.
        root: Folder that files of weights start from; None for settings read back from a run folder.
    """

    name: str = setting(rule=plain_name())
    kind: str
    settings: KindSettings
    inputs: tuple[Modality, ...] = ()
    columns: tuple[str, ...] | None = setting(None, not_empty())
    label: str = ""
    seeds: tuple[int, ...] = setting((0,), each_at_least(0))
    fit: FitPlan = field(default_factory=FitPlan)
    tune: TunePlan | None = None
    root: Path | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_rules(self)
        if len(set(self.seeds)) != len(self.seeds):
            raise SettingError("seeds", "be different numbers", str(list(self.seeds)))

    def with_candidate(self, candidate: Candidate) -> ModelEntry:
        """The same model with the settings of one candidate, and nothing left to tune."""
        return replace(self, settings=candidate.settings, fit=candidate.fit, tune=None)

    def variants(self) -> tuple[ModelEntry, ...]:
        """The model with each candidate that is tried; the model itself where nothing is."""
        return (self,) if self.tune is None else tuple(self.with_candidate(each) for each in self.tune.candidates)

    def on_device(self, device: Device) -> ModelEntry:
        """The same model, trained elsewhere."""
        tune = self.tune
        if tune is not None:
            moved = [replace(each, fit=replace(each.fit, device=device)) for each in tune.candidates]
            tune = replace(tune, candidates=tuple(moved))
        return replace(self, fit=replace(self.fit, device=device), tune=tune)

    @property
    def predicts(self) -> bool:
        """Whether the model itself predicts survival; the head of a plain autoencoder (tau = 1) is untrained."""
        return not (isinstance(self.settings, CoxVaeModel) and self.settings.tau == 1)

    @property
    def pooling(self) -> PoolingKind:
        """How the images of a patient become one row."""
        return getattr(self.settings, "pooling", PoolingKind.NONE)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the models that have to be fitted before this one."""
        if isinstance(self.settings, LateFusionModel):
            return self.settings.members
        return (self.settings.embedding,) if isinstance(self.settings, DownstreamModel) else ()
