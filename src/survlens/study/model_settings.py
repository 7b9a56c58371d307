"""What a [[model]] section of a study file can say: one frozen dataclass per kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from survlens.generators.vae import Likelihood
from survlens.study.rules import (
    SettingError,
    above,
    at_least,
    between,
    check_rules,
    each_at_least,
    inside,
    not_empty,
    plain_name,
    setting,
)
from survlens.training.settings import Device, Precision


class Modality(Enum):
    """What a model looks at."""

    IMAGE = "image"
    TABLE = "table"


class EncoderKind(Enum):
    """Network between an image and its embedding."""

    MLP = "mlp"
    CNN = "cnn"
    RESIDUAL = "residual"


class VaeEncoder(Enum):
    """Networks of an autoencoder."""

    MLP = "mlp"
    RESIDUAL = "residual"


class EstimatorKind(Enum):
    """Classical model fitted on an embedding."""

    COX = "cox"
    FOREST = "forest"
    LASSO_COX = "lasso_cox"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """Section [model.fit]: how a network is trained.

    Attributes:
        epochs: Passes over the training rows, at most.
        batch: Rows per step.
        learning_rate: Step size of encoder and decoder.
        head_learning_rate: Step size of the survival head; left out, it is `learning_rate`.
        patience: Epochs without a better validation score before training stops; 0 never stops early.
        weight_decay: Pull of the weights towards zero.
        precision: Numbers the network is trained in.
        device: Where it is trained.
    """

    epochs: int = setting(40, at_least(1))
    batch: int = setting(128, at_least(2))
    learning_rate: float = setting(1e-3, above(0))
    head_learning_rate: float | None = setting(None, above(0))
    patience: int = setting(10, at_least(0))
    weight_decay: float = setting(0.0, at_least(0))
    precision: Precision = Precision.SINGLE
    device: Device = Device.AUTO

    def __post_init__(self) -> None:
        check_rules(self)


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
class DeepSurvModel:
    """A dense network on the table with a Cox head.

    Attributes:
        hidden: Width of each hidden layer.
        dropout: Share of units dropped while training.
    """

    hidden: tuple[int, ...] = setting((32, 32), each_at_least(1))
    dropout: float = setting(0.1, inside(0, 1))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticHazardModel:
    """A network with a discrete-time hazard head.

    Attributes:
        hidden: Width of each hidden layer of the table's network.
        dropout: Share of units dropped while training.
        intervals: Number of intervals that time is cut into.
        encoder: Network on the image.
        channels: Channels of each stage of the image's network (units of each layer for "mlp").
    """

    hidden: tuple[int, ...] = setting((32, 32), each_at_least(1))
    dropout: float = setting(0.1, inside(0, 1))
    intervals: int = setting(20, at_least(2))
    encoder: EncoderKind = EncoderKind.CNN
    channels: tuple[int, ...] = setting((16, 32, 64), each_at_least(1))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxCnnModel:
    """An image network trained end to end on the Cox partial likelihood.

    Attributes:
        encoder: Network on the image.
        hidden: Channels of each stage (units of each layer for "mlp"); the last is the width of the embedding.
        dropout: Share of units dropped while training.
    """

    encoder: EncoderKind = EncoderKind.CNN
    hidden: tuple[int, ...] = setting((16, 32, 64), each_at_least(1))
    dropout: float = setting(0.1, inside(0, 1))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxVaeModel:
    """A variational autoencoder and a Cox head on its latents, trained together.

    Attributes:
        latent: Number of latent dimensions.
        tau: Weight of the evidence bound; 1 is the plain autoencoder, near 0 is nearly Cox alone.
        beta: Weight of the Kullback-Leibler term within the bound.
        warm_up: Epochs over which `beta` grows from 0.
        sample_head: Whether the head is trained on draws from the posterior, which keeps it from memorising.
        likelihood: Distribution of a pixel around its reconstruction.
        encoder: Network on the image; the decoder is its mirror.
        hidden: Channels of each stage (units of each layer for "mlp"); left out, it follows the size of the image.
    """

    latent: int = setting(8, at_least(1))
    tau: float = setting(0.5, between(0, 1))
    beta: float = setting(1.0, at_least(0))
    warm_up: int = setting(0, at_least(0))
    sample_head: bool = True
    likelihood: Likelihood = Likelihood.GAUSSIAN
    encoder: VaeEncoder = VaeEncoder.RESIDUAL
    hidden: tuple[int, ...] | None = setting(None, each_at_least(1))

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LateFusionModel:
    """A Cox model on the log-risks of models that were fitted apart.

    Attributes:
        members: Names of the models.
    """

    members: tuple[str, ...] = setting(rule=not_empty())

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
    | DeepSurvModel
    | LogisticHazardModel
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
    """

    settings: type
    label: str
    inputs: tuple[Modality, ...] = (Modality.TABLE,)
    allowed: tuple[Modality, ...] = (Modality.TABLE,)
    trained: bool = False


_IMAGE, _TABLE = Modality.IMAGE, Modality.TABLE
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "kaplan_meier": Kind(KaplanMeierModel, "Kaplan-Meier", (), ()),
        "cox": Kind(CoxModel, "Cox"),
        "lasso_cox": Kind(LassoCoxModel, "LASSO Cox"),
        "forest": Kind(ForestModel, "Random survival forest"),
        "deep_surv": Kind(DeepSurvModel, "DeepSurv", trained=True),
        "logistic_hazard": Kind(LogisticHazardModel, "Logistic hazard", allowed=(_IMAGE, _TABLE), trained=True),
        "cox_cnn": Kind(CoxCnnModel, "Cox CNN", (_IMAGE,), (_IMAGE, _TABLE), trained=True),
        "cox_vae": Kind(CoxVaeModel, "CoxVAE", (_IMAGE,), (_IMAGE, _TABLE), trained=True),
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
        label: Name for readers.
        seeds: One fit per seed.
        fit: How it is trained, for networks.
    """

    name: str = setting(rule=plain_name())
    kind: str
    settings: KindSettings
    inputs: tuple[Modality, ...] = ()
    label: str = ""
    seeds: tuple[int, ...] = setting((0,), each_at_least(0))
    fit: FitPlan = field(default_factory=FitPlan)

    def __post_init__(self) -> None:
        check_rules(self)
        if len(set(self.seeds)) != len(self.seeds):
            raise SettingError("seeds", "be different numbers", str(list(self.seeds)))

    @property
    def predicts(self) -> bool:
        """Whether the model itself predicts survival; the head of a plain autoencoder (tau = 1) is untrained."""
        return not (isinstance(self.settings, CoxVaeModel) and self.settings.tau == 1)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the models that have to be fitted before this one."""
        if isinstance(self.settings, LateFusionModel):
            return self.settings.members
        return (self.settings.embedding,) if isinstance(self.settings, DownstreamModel) else ()
