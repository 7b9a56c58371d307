"""The methods of `survlens explain` by name: what each needs, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from survlens.core.attribution import Attribution
from survlens.core.errors import UsageError
from survlens.explain.cam import GradCAM
from survlens.explain.coalitions import Player
from survlens.explain.expected import GradSHAP
from survlens.explain.gradient import Gradient
from survlens.explain.groups import Group, GroupedContributions
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.occlusion import Occlusion
from survlens.explain.references import References
from survlens.explain.shapley import ExactSHAP
from survlens.explain.smooth import SmoothGrad, feature_ranges
from survlens.explain.survlime import SurvLIME
from survlens.explain.survshap import KernelSurvSHAP, PermutationSurvSHAP

_WINDOWS = 8
"""As many windows of occlusion go into a side of an image."""

Explain = Callable[..., dict[str, Attribution]]
"""(model, inputs, times, target) -> attributions by modality."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What a method may be made of.

    Attributes:
        references: Training rows to compare with.
        players: Every covariate with all its features, and the images as a whole.
        features: Number of features of the table.
        side: The shorter side of the images in pixels; 1 without.
        seed: Seed of its draws.
        tolerance: Error of an integral, as a share of the largest contribution, that is small enough.
        memory: Bytes that it may take.
    """

    references: References
    players: tuple[Player, ...]
    features: int
    side: int
    seed: int
    tolerance: float
    memory: int

    @property
    def mean(self) -> References:
        """The mean of the references."""
        return References.mean(self.references.inputs)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The players as groups of features."""
        found = []
        for player in self.players:
            mask = None if player.columns is None else player.where((self.features,))
            found.append(Group(player.name, player.modality, mask))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Method:
    """A method that a user can name.

    Attributes:
        label: Its name for readers.
        make: Makes the explainer.
        network: Whether it takes gradients, which only networks have.
        image: Whether it explains images only.
        table: Whether it explains tables only.
        compares: Whether it compares with references.
        sums: Whether the values of features add up to those of groups.
        targets: Names of the targets that it can explain; empty for all.
    """

    label: str
    make: Callable[[Given], Explain]
    network: bool = True
    image: bool = False
    table: bool = False
    compares: bool = False
    sums: bool = True
    targets: tuple[str, ...] = ()

    def check(self, name: str, model: str, target: str, *, network: bool, sees: tuple[str, ...]) -> None:
        """Refuses a model or a target that the method cannot explain.

        Args:
            name: Name of the method.
            model: Name of the model.
            target: Name of the target.
            network: Whether the model is a network.
            sees: What it looks at: "image", "table".

        Raises:
            UsageError: If it cannot.
        """
        if self.network and not network:
            able = ", ".join(each for each, method in METHODS.items() if not method.network)
            raise UsageError(
                f"`method` must be one for any model, as {model!r} has no gradients; got {name!r}. Choose of: {able}."
            )
        for needed, modality, other in ((self.image, "image", "tables"), (self.table, "table", "images")):
            if needed and modality not in sees:
                raise UsageError(f"`method` must explain {other}, as {model!r} sees no {modality}; got {name!r}.")
        if self.targets and target not in self.targets:
            raise UsageError(f"`target` must be {' or '.join(self.targets)} for {name}; got {target!r}.")


METHODS: Mapping[str, Method] = {
    "gradient": Method("Grad(t)", lambda given: Gradient(), sums=False),
    "gradient_x_input": Method("Gradient x Input(t)", lambda given: Gradient(times_input=True)),
    "smoothgrad": Method(
        "SmoothGrad(t)",
        lambda given: SmoothGrad(Gradient(), feature_ranges(given.references.inputs), seed=given.seed),
        sums=False,
        compares=True,
    ),
    "intgrad": Method(
        "IntGrad(t)",
        lambda given: IntegratedGradients(given.mean, tolerance=given.tolerance, memory=given.memory),
        compares=True,
    ),
    "gradshap": Method(
        "GradSHAP(t)",
        lambda given: GradSHAP(given.references, tolerance=given.tolerance, memory=given.memory),
        compares=True,
    ),
    "gradshap_groups": Method(
        "GradSHAP(t) of groups",
        lambda given: GroupedContributions(
            given.groups, given.references, tolerance=given.tolerance, memory=given.memory
        ),
        compares=True,
    ),
    "gradcam": Method("Grad-CAM(t)", lambda given: GradCAM(), image=True, sums=False),
    "occlusion": Method(
        "Occlusion(t)",
        lambda given: Occlusion(given.mean, max(given.side // _WINDOWS, 1), memory=given.memory),
        network=False,
        compares=True,
        sums=False,
    ),
    "occlusion_groups": Method(
        "Occlusion(t) of groups",
        lambda given: Occlusion(given.mean, groups=given.groups, memory=given.memory),
        network=False,
        compares=True,
    ),
    "shap_exact": Method(
        "SHAP(t), exact",
        lambda given: ExactSHAP(given.references, given.players, given.memory),
        network=False,
        compares=True,
    ),
    "survshap": Method(
        "SurvSHAP(t)",
        lambda given: KernelSurvSHAP(given.references, given.players, seed=given.seed, memory=given.memory),
        network=False,
        compares=True,
    ),
    "survshap_permutation": Method(
        "SurvSHAP(t) by permutations",
        lambda given: PermutationSurvSHAP(given.references, given.players, seed=given.seed, memory=given.memory),
        network=False,
        compares=True,
    ),
    "survlime": Method(
        "SurvLIME",
        lambda given: SurvLIME(given.references, seed=given.seed, memory=given.memory),
        network=False,
        table=True,
        compares=True,
        sums=False,
        targets=("cumulative_hazard",),
    ),
}
"""The methods by the name that a user gives."""


def method_of(name: str) -> Method:
    """The method called `name`.

    Raises:
        UsageError: If there is none.
    """
    if name not in METHODS:
        raise UsageError(f"`method` must be one of {', '.join(METHODS)}; got {name!r}.")
    found: Any = METHODS[name]
    return found
