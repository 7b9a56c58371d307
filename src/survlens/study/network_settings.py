"""What a study file can say of a network: its layers, how inputs meet, how time is cut, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from survlens.data.augmentation import Augmentation
from survlens.generators.vae import Likelihood
from survlens.study.rules import above, at_least, between, check_rules, each_at_least, inside, not_empty, setting
from survlens.training.settings import Device, Precision


class EncoderKind(Enum):
    """Network between an image and its embedding.

    MLP, CNN and RESIDUAL have the widths that a study gives them; the others have their own, and take the files of
    weights that are usual for them.
    """

    MLP = "mlp"
    CNN = "cnn"
    RESIDUAL = "residual"
    CNN_SURVIVAL = "cnn_survival"
    RESNET_10 = "resnet10"
    RESNET_18 = "resnet18"
    RESNET_34 = "resnet34"
    RESNET_50 = "resnet50"
    VGG_16 = "vgg16"


class LossKind(Enum):
    """What a Cox network is trained on: the partial likelihood of each batch, or a cumulative hazard from memory."""

    BATCH = "batch"
    MARTINGALE = "martingale"


class VaeEncoder(Enum):
    """Networks of an autoencoder."""

    MLP = "mlp"
    RESIDUAL = "residual"


class FusionKind(Enum):
    """How the embeddings of several inputs become one."""

    CONCATENATION = "concatenation"
    GATED = "gated"


class PoolingKind(Enum):
    """How the images of a patient become one row; NONE leaves every image a row of its own."""

    NONE = "none"
    MEAN = "mean"
    ATTENTION = "attention"
    WORST = "worst"


class GridKind(Enum):
    """How time is cut into intervals."""

    QUANTILE = "quantile"
    EQUIDISTANT = "equidistant"


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
        flips: Whether training images are mirrored at random along each axis.
        quarter_turns: Whether square training images are turned at random by quarters.
        gain: Standard deviation of a random factor, around 1, on each channel of a training image.
        shift: Standard deviation of what is added to each channel, in standard deviations of the image's channel.
        frozen: Parts of the network that keep the weights of a file, such as "encoders" or "encoders.image".
        loss: Of "deep_surv" and "cox_cnn": the partial likelihood of each batch, or martingales with the cumulative
            hazard of all training rows, from the log-risk that each had when it was last in a batch.
        refresh: Steps between two estimates of that hazard.
    """

    epochs: int = setting(40, at_least(1))
    batch: int = setting(128, at_least(2))
    learning_rate: float = setting(1e-3, above(0))
    head_learning_rate: float | None = setting(None, above(0))
    patience: int = setting(10, at_least(0))
    weight_decay: float = setting(0.0, at_least(0))
    precision: Precision = Precision.SINGLE
    device: Device = Device.AUTO
    flips: bool = False
    quarter_turns: bool = False
    gain: float = setting(0.0, at_least(0))
    shift: float = setting(0.0, at_least(0))
    frozen: tuple[str, ...] = ()
    loss: LossKind = LossKind.BATCH
    refresh: int = setting(1, at_least(1))

    def __post_init__(self) -> None:
        check_rules(self)

    @property
    def augmentation(self) -> Augmentation:
        """What is changed at random in training images; rows that are validated or tested stay as they are."""
        return Augmentation(flips=self.flips, quarter_turns=self.quarter_turns, gain=self.gain, shift=self.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousModel:
    """A network whose head needs no intervals: "deep_surv", "cox_time" and "weibull".

    Attributes:
        hidden: Width of each hidden layer of the table's network.
        dropout: Share of units dropped while training.
        encoder: Network on the image.
        channels: Channels of each stage of the image's network (units of each layer for "mlp").
        fusion: How the embeddings of image and table become one.
        pooling: How the images of a patient become one row.
        max_items: Images of a patient that an epoch reads, at most, where they are pooled; all are read to predict.
        weights: File with the weights of the image's network, from the data root; left out, they start at random.
    """

    hidden: tuple[int, ...] = setting((32, 32), each_at_least(1))
    dropout: float = setting(0.1, inside(0, 1))
    encoder: EncoderKind = EncoderKind.CNN
    channels: tuple[int, ...] = setting((16, 32, 64), each_at_least(1))
    fusion: FusionKind = FusionKind.CONCATENATION
    pooling: PoolingKind = PoolingKind.NONE
    max_items: int = setting(8, at_least(1))
    weights: str | None = setting(None, not_empty())

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteModel:
    """A network whose head cuts time: "logistic_hazard", "pmf", "mtlr" and "pc_hazard".

    Attributes:
        hidden: Width of each hidden layer of the table's network.
        dropout: Share of units dropped while training.
        intervals: Number of intervals that time is cut into, at most.
        grid: Where time is cut: into equal falls of the training Kaplan-Meier curve, or into equal lengths.
        encoder: Network on the image.
        channels: Channels of each stage of the image's network (units of each layer for "mlp").
        fusion: How the embeddings of image and table become one.
        pooling: How the images of a patient become one row.
        max_items: Images of a patient that an epoch reads, at most, where they are pooled; all are read to predict.
        weights: File with the weights of the image's network, from the data root; left out, they start at random.
    """

    hidden: tuple[int, ...] = setting((32, 32), each_at_least(1))
    dropout: float = setting(0.1, inside(0, 1))
    intervals: int = setting(20, at_least(2))
    grid: GridKind = GridKind.QUANTILE
    encoder: EncoderKind = EncoderKind.CNN
    channels: tuple[int, ...] = setting((16, 32, 64), each_at_least(1))
    fusion: FusionKind = FusionKind.CONCATENATION
    pooling: PoolingKind = PoolingKind.NONE
    max_items: int = setting(8, at_least(1))
    weights: str | None = setting(None, not_empty())

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepHitModel:
    """A network with a DeepHit head.

    Attributes:
        alpha: Weight of the likelihood against the ranking loss; lower ranks better and calibrates worse.
        sigma: Scale of the differences that the ranking loss punishes.
        hidden: As in `DiscreteModel`, like all that follow.
        dropout: Share of units dropped while training.
        intervals: Number of intervals that time is cut into, at most.
        grid: Where time is cut.
        encoder: Network on the image.
        channels: Channels of each stage of the image's network.
        fusion: How the embeddings of image and table become one.
        pooling: How the images of a patient become one row.
        max_items: Images of a patient that an epoch reads, at most, where they are pooled; all are read to predict.
        weights: File with the weights of the image's network, from the data root; left out, they start at random.
    """

    alpha: float = setting(0.2, between(0, 1))
    sigma: float = setting(0.1, at_least(0.02))
    hidden: tuple[int, ...] = setting((32, 32), each_at_least(1))
    dropout: float = setting(0.1, inside(0, 1))
    intervals: int = setting(20, at_least(2))
    grid: GridKind = GridKind.QUANTILE
    encoder: EncoderKind = EncoderKind.CNN
    channels: tuple[int, ...] = setting((16, 32, 64), each_at_least(1))
    fusion: FusionKind = FusionKind.CONCATENATION
    pooling: PoolingKind = PoolingKind.NONE
    max_items: int = setting(8, at_least(1))
    weights: str | None = setting(None, not_empty())

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxCnnModel:
    """An image network trained end to end on the Cox partial likelihood.

    Attributes:
        encoder: Network on the image.
        hidden: Channels of each stage (units of each layer for "mlp"); the last is the width of the embedding.
        dropout: Share of units dropped while training.
        fusion: How the embeddings of image and table become one.
        pooling: How the images of a patient become one row.
        max_items: Images of a patient that an epoch reads, at most, where they are pooled; all are read to predict.
        weights: File with the weights of the image's network, from the data root; left out, they start at random.
    """

    encoder: EncoderKind = EncoderKind.CNN
    hidden: tuple[int, ...] = setting((16, 32, 64), each_at_least(1))
    dropout: float = setting(0.1, inside(0, 1))
    fusion: FusionKind = FusionKind.CONCATENATION
    pooling: PoolingKind = PoolingKind.NONE
    max_items: int = setting(8, at_least(1))
    weights: str | None = setting(None, not_empty())

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
        mask_channels: How many of the last channels are masks, whose voxels are drawn as shares, not as intensities.
    """

    latent: int = setting(8, at_least(1))
    tau: float = setting(0.5, between(0, 1))
    beta: float = setting(1.0, at_least(0))
    warm_up: int = setting(0, at_least(0))
    sample_head: bool = True
    likelihood: Likelihood = Likelihood.GAUSSIAN
    encoder: VaeEncoder = VaeEncoder.RESIDUAL
    hidden: tuple[int, ...] | None = setting(None, each_at_least(1))
    mask_channels: int = setting(0, at_least(0))

    def __post_init__(self) -> None:
        check_rules(self)
