"""CoxVAE on phantoms: volumes as the network sees them, fits along a path of τ, and walks through the latent space."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from survlens.core.outcome import SurvivalOutcome
from survlens.data.loaders import TensorSource
from survlens.data.simulate.phantom import (
    LOG_HAZARD_PER_AGE,
    LOG_HAZARD_PER_LOAD,
    Organ,
    drawn_phantoms,
    phantom_covariates,
    phantom_hazard,
    phantom_outcome,
)
from survlens.data.simulate.published_hazards import PowerHazard
from survlens.evaluate.concordance import concordance_index
from survlens.explain.latent import LatentDimension, latent_dimensions
from survlens.generators.vae import active_dimensions, warn_if_collapsed
from survlens.losses.evidence import kl_to_standard_normal
from survlens.models.cox_vae import CoxVAE, cox_vae
from survlens.training.fit import fit
from survlens.training.objectives import CoxVAEObjective
from survlens.training.settings import FitSettings

WINDOW = (-160.0, 240.0)
"""Hounsfield units that become 0 and 1."""
CHANNELS = ("intensity", "liver", "tumour")
"""Windowed intensities, then the share of each voxel that is liver (tumours included), and that is tumour."""
_FINER = 2
"""Voxels drawn for each voxel of the network, along each axis."""
STEPS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Positions of a walk, in standard deviations of the training latents, towards higher hazard."""
_AT_ONCE = 32
"""Volumes that pass through a network together outside training."""
KEPT = 0.5
"""Least share of the variance that the best of the path explains which a τ that may be chosen explains, too."""


@dataclass(frozen=True, slots=True)
class CoxVAEPlan:
    """Sizes of the experiment.

    Attributes:
        size: Voxels along each axis.
        patients: Patients; 60 % train, 15 % validate, 25 % test.
        epochs: Passes over the training patients.
        taus: Path of τ; 1, the plain autoencoder, is always added.
        batch: Patients in a batch.
        learning_rate: Step size of encoder and decoder.
        head_learning_rate: Step size of the survival head.
        beta: Weight of the KL divergence.
        tumour_weight: Factor on the log-likelihood of the tumour mask.
        decorrelation: Weight of the covariances between latent dimensions; see `CoxVAEObjective`.
        plain_epochs: Passes of the plain autoencoder; as many as of the others where None. It starts at principal
            components, and at 16 voxels its error no longer falls after two.
        seed: Seed of the phantoms and of the fits.
    """

    size: int = 16
    patients: int = 2000
    epochs: int = 3
    taus: tuple[float, ...] = (0.9, 0.95, 0.99)
    batch: int = 16
    learning_rate: float = 1e-3
    head_learning_rate: float = 1e-2
    beta: float = 1.0
    tumour_weight: float = 10.0
    decorrelation: float = 0.1
    plain_epochs: int | None = None
    seed: int = 0

    def epochs_at(self, tau: float) -> int:
        """Passes of the fit at a τ."""
        return self.epochs if tau < 1 or self.plain_epochs is None else self.plain_epochs

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the four residual blocks: those of the paper's size at 64 voxels, half of them below."""
        return (16, 32, 64, 128) if self.size >= 64 else (8, 16, 32, 64)


def plan_of_size(
    size: int, *, patients: int | None = None, epochs: int = 3, taus: tuple[float, ...] | None = None, seed: int = 0
) -> CoxVAEPlan:
    """The plan of volumes with `size` voxels along each axis, with defaults that fit the time they take.

    Up to 32 voxels a single τ instead of a path, which takes a fit for each; at 16 a plain autoencoder of two passes.
    """
    path = (0.9, 0.95, 0.99) if size >= 64 else (0.9,)
    count = 2400 if size >= 64 else 2000
    return CoxVAEPlan(
        size=size,
        patients=patients or count,
        epochs=epochs,
        taus=taus or path,
        plain_epochs=min(epochs, 2) if size < 32 else None,
        seed=seed,
    )


@dataclass(frozen=True, slots=True, eq=False)
class PhantomParts:
    """A phantom cohort as the network sees it, the truth about it, and its split.

    Attributes:
        volumes: (instance, channel, x, y, z); see `CHANNELS`.
        spacing: Millimetres between voxels of each volume, (instance, 3).
        load: True volume of all tumours of each patient, in ml.
        liver: True volume of each liver, tumours included, in ml.
        covariates: What the hazard depends on: standardised log(1 + load) and standardised age.
        outcome: Simulated survival, in months.
        truth: The hazard, a head of the covariates.
        train: Rows to learn from.
        validation: Rows on which the epoch and τ are chosen.
        test: Rows on which everything is scored.
    """

    volumes: Tensor
    spacing: np.ndarray
    load: np.ndarray
    liver: np.ndarray
    covariates: np.ndarray
    outcome: SurvivalOutcome
    truth: PowerHazard
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def age(self) -> Tensor:
        """Standardised age, (instance, 1)."""
        return torch.from_numpy(self.covariates[:, 1:].astype(np.float32))

    @property
    def log_hazard(self) -> np.ndarray:
        """True log relative hazard."""
        return self.covariates @ np.array([LOG_HAZARD_PER_LOAD, LOG_HAZARD_PER_AGE])

    def inputs(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Inputs of a CoxVAE."""
        return {"image": self.volumes[rows], "table": self.age[rows]}

    def source(self, rows: np.ndarray) -> TensorSource:
        """Rows to fit on."""
        return TensorSource(self.inputs(rows), self.outcome[rows])

    @property
    def voxel(self) -> float:
        """Mean volume of a voxel, in millilitres."""
        return float(self.spacing.prod(axis=1).mean() / 1000)

    def measured(self, channel: str) -> np.ndarray:
        """Volume of an organ in the input of each patient, in ml: its shares summed over the voxels."""
        shares = self.volumes[:, CHANNELS.index(channel)].sum(dim=(1, 2, 3), dtype=torch.float64).numpy()
        return shares * self.spacing.prod(axis=1) / 1000


def phantom_parts(plan: CoxVAEPlan) -> PhantomParts:
    """Draws the cohort at twice the resolution, brings it down to that of the plan, and splits it.

    Intensities and labels are averaged over 2 x 2 x 2 voxels, so that a mask becomes the share of each voxel that is
    liver or tumour. That keeps volumes: a tumour smaller than half a voxel would vanish from a mask of whole voxels.
    """
    low, high = WINDOW
    volumes = torch.empty(plan.patients, len(CHANNELS), plan.size, plan.size, plan.size)
    load, liver, age = np.empty((3, plan.patients))
    spacing = np.empty((plan.patients, 3))
    for row, drawn in enumerate(drawn_phantoms(plan.patients, size=_FINER * plan.size, seed=plan.seed)):
        liver_mask, tumour_mask = drawn.labels >= Organ.LIVER.value, drawn.labels == Organ.TUMOUR.value
        fine = np.stack([((drawn.volume - low) / (high - low)).clip(0, 1), liver_mask, tumour_mask])
        volumes[row] = avg_pool3d(torch.from_numpy(fine.astype(np.float32)), _FINER)
        load[row], liver[row], age[row], spacing[row] = drawn.load, drawn.liver, drawn.age, _FINER * drawn.spacing
    ends = [round(share * plan.patients) for share in (0.6, 0.75)]
    return PhantomParts(
        volumes,
        spacing,
        load,
        liver,
        phantom_covariates(load, age),
        phantom_outcome(load, age, seed=plan.seed),
        phantom_hazard(),
        *np.split(np.arange(plan.patients), ends),
    )


@dataclass(frozen=True, slots=True, eq=False)
class FittedVAE:
    """A trained model and what was measured on it.

    Attributes:
        tau: Weight of the evidence bound it was trained with.
        model: The model.
        latents: Latent means of all patients.
        dimensions: The latent dimensions, read on training patients.
        unexplained: Share of the voxels' variance that is left unexplained on validation patients, by channel.
        concordance: C of its own head on validation patients; NaN for the plain autoencoder.
        active: Latent dimensions with mean KL above 0.05 nats.
        epoch: Epoch whose weights were kept.
    """

    tau: float
    model: CoxVAE
    latents: np.ndarray
    dimensions: tuple[LatentDimension, ...]
    unexplained: tuple[float, ...]
    concordance: float
    active: int
    epoch: int

    @property
    def error(self) -> float:
        """Mean of `unexplained`: each channel counts the same, so that tumours are not drowned by the body."""
        return sum(self.unexplained) / len(self.unexplained)

    @property
    def worst(self) -> LatentDimension:
        """The most hazardous dimension: that with the largest change of the log-hazard per standard deviation."""
        return max(self.dimensions, key=lambda each: each.importance)

    @property
    def towards_hazard(self) -> float:
        """1 where the hazard rises with the worst dimension, -1 where it falls."""
        worst = self.worst
        slope = np.log(worst.hazard_ratio) if worst.head_weight is None else worst.head_weight
        return 1.0 if slope >= 0 else -1.0


def started_vae(parts: PhantomParts, plan: CoxVAEPlan) -> CoxVAE:
    """The network before training, at the mean and the principal components of the training volumes."""
    shape = tuple(parts.volumes.shape[1:])
    model = cox_vae(
        shape,
        widths=plan.widths,
        mask_channels=2,
        mask_weights=(1.0, plan.tumour_weight),
        template=True,
        normalised_decoder=False,
        covariates=1,
        channels_last=True,
        seed=plan.seed,
    )
    model.vae.start_at(parts.volumes[parts.train])
    return model


def fit_phantom_vae(parts: PhantomParts, plan: CoxVAEPlan, tau: float, *, start: CoxVAE | None = None) -> FittedVAE:
    """Trains a CoxVAE on the training patients, or at τ = 1 a plain variational autoencoder.

    Args:
        parts: The cohort.
        plan: Sizes.
        tau: Weight of the evidence bound.
        start: `started_vae` of the same cohort and plan, which is left as it is; made anew by default.
    """
    model = started_vae(parts, plan) if start is None else copy.deepcopy(start)
    settings = FitSettings(
        epochs=plan.epochs_at(tau),
        batch=plan.batch,
        learning_rate=plan.learning_rate,
        head_learning_rate=plan.head_learning_rate,
        clip_gradient=5.0,
        deterministic=False,
        seed=plan.seed,
    )
    objective = CoxVAEObjective(tau=tau, beta=plan.beta, sample_head=True, decorrelation=plan.decorrelation)
    history = fit(model, parts.source(parts.train), parts.source(parts.validation), objective, settings)
    mean, log_var = _encoded(model, parts.volumes)
    kl = kl_to_standard_normal(mean, log_var)[parts.train]
    warn_if_collapsed(kl)
    weights = model.get_parameter("head.linear.weight").detach().double().numpy()[0, : model.vae.latent]
    latents = mean.double().numpy()
    seen = own_risk(model, parts, parts.validation), parts.outcome[parts.validation]
    return FittedVAE(
        tau,
        model,
        latents,
        latent_dimensions(
            latents[parts.train],
            parts.outcome[parts.train],
            mean_kl=kl.double().mean(0).numpy(),
            head_weights=weights if tau < 1 else None,
        ),
        unexplained(model, parts.volumes[parts.validation], parts.volumes[parts.train].mean(0)),
        concordance_index(*seen).value if tau < 1 else float("nan"),
        active_dimensions(kl),
        history.best_epoch,
    )


@torch.no_grad()
def _encoded(model: CoxVAE, volumes: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_var = zip(*(model.vae.encode(part) for part in volumes.split(_AT_ONCE)), strict=True)
    return torch.cat(mean), torch.cat(log_var)


@torch.no_grad()
def unexplained(model: CoxVAE, volumes: Tensor, centre: Tensor) -> tuple[float, ...]:
    """Squared error of decoded latent means over that of the mean training volume, by channel.

    0 is a perfect picture, 1 what the mean volume reaches.
    """
    missed = torch.zeros(len(CHANNELS), dtype=torch.float64)
    spread = torch.zeros_like(missed)
    for part in volumes.split(_AT_ONCE):
        decoded = model.decode(model.vae(part))
        missed += (decoded - part).double().square().sum(dim=(0, 2, 3, 4))
        spread += (centre - part).double().square().sum(dim=(0, 2, 3, 4))
    return tuple((missed / spread).tolist())


@torch.no_grad()
def own_risk(model: CoxVAE, parts: PhantomParts, rows: np.ndarray) -> np.ndarray:
    """Risk of the model's own head."""
    chunks = np.array_split(rows, -(-len(rows) // _AT_ONCE))
    return torch.cat([model.risk(parts.inputs(some)) for some in chunks]).double().numpy()


def chosen_on(path: Sequence[FittedVAE]) -> FittedVAE:
    """The rule for τ: the smallest that explains at least half of the variance that the best of the path explains.

    The paper asks for τ "as small as possible" while reconstructions stay meaningful; this is that sentence with a
    number, taken on validation patients. Variance is that over the mean training volume, averaged over the channels, so
    that a picture without anything of the patient explains none. The plain autoencoder (τ = 1), which spends every
    dimension on pictures, may be the best and is never chosen. Where no τ is allowed, the largest is taken, which comes
    nearest; a longer path, or longer training where nothing explains anything, would hold one that is.
    """
    survival = [each for each in path if each.tau < 1]
    allowed = [each for each in survival if each.error <= largest_allowed(path)]
    return min(allowed, key=lambda each: each.tau) if allowed else max(survival, key=lambda each: each.tau)


def largest_allowed(path: Sequence[FittedVAE]) -> float:
    """The largest reconstruction error of a τ that may be chosen; 0 where no model explains anything."""
    best = most_explained(path)
    return 1 - KEPT * best if best > 0 else 0.0


def most_explained(path: Sequence[FittedVAE]) -> float:
    """The largest share of the variance that a model of the path explains; 0 where each is no better than the mean."""
    return max([0.0, *(1 - each.error for each in path if math.isfinite(each.error))])


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """What the decoder draws along the most hazardous dimension, from the mean of the training latents.

    Attributes:
        volumes: (step, channel, x, y, z).
        tumour: Millilitres of decoded tumour by step: the decoded shares of all voxels, summed. No threshold is needed,
            because the decoded share is the mean of a voxel's share, so that the sum is the mean of the volume.
        liver: Millilitres of decoded liver by step, tumours included, in the same way.
    """

    volumes: np.ndarray
    tumour: np.ndarray
    liver: np.ndarray


def walk_towards_hazard(
    fitted: FittedVAE, parts: PhantomParts, start: np.ndarray | None = None, *, following: bool = False
) -> Walk:
    """Walks from -2 to 2 standard deviations along the most hazardous dimension and measures what is decoded.

    Args:
        fitted: The model.
        parts: The cohort.
        start: Latents to hold the other dimensions at; the mean of the training latents by default.
        following: Whether the other dimensions follow, each by its regression on the most hazardous one over the
            training patients. Where dimensions are correlated, moving one alone leaves the patients behind: what two of
            them draw together in every patient is drawn by one and not taken back by the other.
    """
    train = fitted.latents[parts.train]
    centre = train.mean(0) if start is None else start.copy()
    dimension = fitted.worst.dimension
    centre[dimension - 1] = train[:, dimension - 1].mean()
    together = np.corrcoef(train.T)[dimension - 1] if following else np.eye(len(centre))[dimension - 1]
    moved = fitted.towards_hazard * together * train.std(0)
    places = torch.from_numpy(centre + np.outer(STEPS, moved)).float()
    with torch.no_grad():
        volumes = fitted.model.decode(places).numpy()
    sums = volumes.sum(axis=(2, 3, 4), dtype=np.float64) * parts.voxel
    return Walk(volumes, sums[:, CHANNELS.index("tumour")], sums[:, CHANNELS.index("liver")])
