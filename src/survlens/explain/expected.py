"""Expected gradients (GradSHAP) of a target over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, survival
from survlens.explain.memory import MEMORY
from survlens.explain.over_references import PathMethod
from survlens.explain.path_rules.chosen_rule import ChosenRule
from survlens.explain.path_rules.halved_lines import HalvedLines
from survlens.explain.path_rules.path_integral import PathRule
from survlens.explain.references import ReferenceSource


@dataclass(frozen=True, slots=True)
class GradSHAP:
    """The mean over references of integrated gradients, with the position on the line not drawn.

        phi_j(t) = mean over x' of (x_j - x'_j) times the integral over a in (0, 1) of dF(t | x' + a (x - x')) / dx_j

    The usual estimator draws a reference and a position on the line together. Here every reference given counts with
    its weight and the position is integrated, so that drawing references is the only sampling left; its standard error
    is returned. Contributions add up to F(t | x) - mean over x' of F(t | x').

    Despite the name these are Aumann-Shapley values, averaged over references, and not the Shapley values that SurvSHAP
    estimates. The two agree where features do not interact, as in an additive target; elsewhere they differ, whatever
    the number of references.

    Attributes:
        references: What to compare with, such as `References.sample(training_inputs, 100)`.
        rule: How a line is integrated; chosen from the network where None: exactly where it is piecewise linear.
        tolerance: Estimated error, as a share of the largest contribution of a line, that the chosen rule refines to;
            where None 1e-7 for smooth networks and 1e-3 for those with too many kinks.
        modalities: Inputs to explain; all that the model needs where None.
        memory: Bytes that intermediate results may take.

    References:
        Erion et al. 2021; Langbein et al. 2025.
    """

    references: ReferenceSource
    rule: PathRule | None = None
    tolerance: float | None = None
    modalities: tuple[str, ...] | None = None
    memory: int = MEMORY

    def __call__(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], target: Target = survival
    ) -> dict[str, Attribution]:
        """The contributions of every row of `inputs` at `times`, by modality.

        Raises:
            InvalidTypeError: If `references` is none, or a model has no network.
            InvalidValueError: If `times` are not increasing, a modality is unknown or missing, or a time lies past the
                range of the model.
        """
        return self.of_targets(model, inputs, times, [target])[0]

    def of_targets(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], targets: Sequence[Target]
    ) -> list[dict[str, Attribution]]:
        """The same for several targets, for which the network is run once."""
        rule = ChosenRule(self.tolerance, self.memory) if self.rule is None else self.rule
        rule = HalvedLines(rule)
        method = PathMethod(self.references, rule, self.modalities, self.memory, "GradSHAP", "Erion et al. 2021")
        return method.attribute(model, inputs, times, targets)
