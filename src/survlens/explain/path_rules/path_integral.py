"""What a rule for path integrals answers, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.outer.outer_maps import OuterMap


@dataclass(frozen=True, slots=True, eq=False)
class PathIntegral:
    """Contributions along lines from references to instances.

    Attributes:
        values: Per modality, one row per path (or per item of it), its features, then the columns of the outer map.
        error: Estimated numerical error of a contribution, the largest over features.
        notes: What a reader should know of how the values came about.
    """

    values: Mapping[str, Float[Tensor, "path *feature column"]]
    error: Float[Tensor, "row column"]
    notes: tuple[str, ...] = ()


class PathRule(Protocol):
    """A way of integrating dF(t)/dx along straight lines."""

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals along the line from each row of `start` to that of `end`, times their difference.

        Args:
            held: The model.
            outers: Outer maps of the same head, of one target each; what the network gives may serve all of them.
            start: Ready inputs where the lines begin.
            end: Where they end, laid out alike.
            modalities: Names of the inputs whose contributions are asked for; the others move all the same.

        Returns:
            One result per outer map.
        """
        ...
