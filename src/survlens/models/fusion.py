"""How the embeddings of several modalities become one, and what stands in for those that a row lacks.

A fusion takes the embeddings by modality and, where some are missing, a mapping that says which rows have which. It
never looks at the embedding of a modality that a row lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError

Present = Mapping[str, Bool[Tensor, " instance"]]
"""Which rows have which modality."""


class Missing(Enum):
    """What stands in for the embedding of a modality that a row lacks.

    LEARNED: a vector that is learned, one per modality. ZERO: zeros, with a column per modality that is 1 where it is
    present.
    """

    LEARNED = "learned"
    ZERO = "zero"


class Concatenation(nn.Module):
    """Puts the embeddings side by side, in the order of `modalities`.

    Args:
        modalities: Names of the modalities, in order.
        widths: Width of the embedding of each modality. Without widths no modality may be missing in any row.
        missing: What stands in for an embedding that a row lacks; only with `widths`.
        modality_dropout: In training, probability with which a row loses a modality that it has, which teaches the
            model to do without. A row that would lose all keeps all. Drawn as dropout is; only with `widths`.

    Attributes:
        out_features: Width of the joint embedding; None without `widths`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        widths: Sequence[int] | None = None,
        *,
        missing: Missing = Missing.LEARNED,
        modality_dropout: float = 0.0,
    ):
        super().__init__()
        check_choice("missing", missing, Missing)
        self.modalities, self.missing, self.modality_dropout = tuple(modalities), missing, modality_dropout
        self.widths = None if widths is None else _checked_widths(self.modalities, widths)
        self.out_features = None
        _check_dropout(modality_dropout)
        if self.widths is None:
            if modality_dropout > 0:
                raise InvalidValueError("`modality_dropout` needs `widths`, so that something can stand in; got None.")
            return
        self.out_features = sum(self.widths)
        if missing is Missing.LEARNED:
            width_of = dict(zip(self.modalities, self.widths, strict=True))
            vectors = {name: nn.Parameter(torch.zeros(width)) for name, width in width_of.items()}
            self.stand_in = nn.ParameterDict(vectors)
        else:
            self.out_features += len(self.modalities)

    def forward(
        self, embeddings: Mapping[str, Tensor], present: Present | None = None
    ) -> Float[Tensor, "instance embedding"]:
        """The joint embedding.

        Args:
            embeddings: By modality, one row per instance; anything where it is missing.
            present: Which rows have which modality; all have all where None.

        Raises:
            InvalidValueError: If a modality is missing in a row and there is no rule for it, or a row has none.
        """
        if self.widths is None:
            _refuse_missing(self.modalities, present)
            parts = [embeddings[name] for name in self.modalities]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        shown = _shown(embeddings, self.modalities, present)
        shown = _dropped(shown, self.modality_dropout) if self.training else shown
        parts = []
        for place, name in enumerate(self.modalities):
            filler = self.stand_in[name] if self.missing is Missing.LEARNED else embeddings[name].new_zeros(())
            parts.append(torch.where(shown[:, place, None], embeddings[name], filler))
        if self.missing is Missing.ZERO:
            parts.append(shown.to(parts[0].dtype))
        return torch.cat(parts, dim=1)


class GatedFusion(nn.Module):
    """A weighted sum of the modalities, with weights that the modalities themselves decide in each row.

    h_m = tanh(W_m z_m + b_m), g = softmax over the present modalities, and one empty place, of c + sum of A_m h_m over
    them, and z = sum of g_m h_m, where z_m is the embedding of modality m, of width `widths[m]`, and h_m and z are of
    width `out_features`. A modality that a row lacks has g_m = 0 exactly, and has no part in the gates of the others.
    The empty place has a learned logit and adds nothing to z: without it, a modality would weigh about twice as much
    alone as beside another, and effects that add up could not be learned from rows that lack one.

    Args:
        modalities: Names of the modalities, in order.
        widths: Width of the embedding of each modality.
        out_features: Width of the joint embedding.
        modality_dropout: As in `Concatenation`.

    References:
        Arevalo et al. 2017.
    """

    def __init__(
        self, modalities: Sequence[str], widths: Sequence[int], out_features: int, *, modality_dropout: float = 0.0
    ):
        super().__init__()
        self.modalities, self.modality_dropout = tuple(modalities), modality_dropout
        self.widths, self.out_features = _checked_widths(self.modalities, widths), out_features
        _check_dropout(modality_dropout)
        if out_features < 1:
            raise InvalidValueError(f"`out_features` must be >= 1; got {out_features}.")
        count = len(self.modalities)
        self.projections = nn.ModuleList([nn.Linear(width, out_features) for width in self.widths])
        self.votes = nn.ModuleList([nn.Linear(out_features, count, bias=False) for _ in self.widths])
        self.preference = nn.Parameter(torch.zeros(count))
        self.empty_place = nn.Parameter(torch.ones(1))

    def forward(
        self, embeddings: Mapping[str, Tensor], present: Present | None = None
    ) -> Float[Tensor, "instance embedding"]:
        """The joint embedding.

        Args:
            embeddings: By modality, one row per instance; anything where it is missing.
            present: Which rows have which modality; all have all where None.

        Raises:
            InvalidValueError: If a row has none of the modalities.
        """
        shown = _shown(embeddings, self.modalities, present)
        shown = _dropped(shown, self.modality_dropout) if self.training else shown
        projected = self._projected(embeddings, shown)
        return (self._gates(projected, shown)[:, :, None] * projected).sum(dim=1)

    def gates(
        self, embeddings: Mapping[str, Tensor], present: Present | None = None
    ) -> Float[Tensor, "instance modality"]:
        """Weight of each modality in each row, in the order of `modalities`; a row adds up to less than 1.

        What is left is the weight of the empty place: how far the joint embedding is drawn to zero.
        """
        shown = _shown(embeddings, self.modalities, present)
        return self._gates(self._projected(embeddings, shown), shown)

    def _projected(self, embeddings: Mapping[str, Tensor], shown: Tensor) -> Float[Tensor, "instance modality _"]:
        parts = []
        for place, (name, projection) in enumerate(zip(self.modalities, self.projections, strict=True)):
            keep = shown[:, place, None]
            # Before and after: zeros in hide a value that is not finite, zeros out hide the bias.
            parts.append(torch.where(keep, torch.tanh(projection(embeddings[name].where(keep, 0.0))), 0.0))
        return torch.stack(parts, dim=1)

    def _gates(self, projected: Tensor, shown: Tensor) -> Float[Tensor, "instance modality"]:
        votes = [vote(projected[:, place]) for place, vote in enumerate(self.votes)]
        logits = self.preference + torch.stack(votes).sum(dim=0)
        empty = self.empty_place.to(logits.dtype).expand(logits.shape[0], 1)
        return torch.softmax(torch.cat([logits.masked_fill(~shown, -torch.inf), empty], dim=1), dim=1)[:, :-1]


def _checked_widths(modalities: tuple[str, ...], widths: Sequence[int]) -> tuple[int, ...]:
    widths = tuple(widths)
    if len(widths) != len(modalities) or min(widths, default=1) < 1:
        raise InvalidValueError(f"`widths` must give a width >= 1 for each of {modalities}; got {widths}.")
    return widths


def _check_dropout(probability: float) -> None:
    if not 0 <= probability < 1:
        raise InvalidValueError(f"`modality_dropout` must lie in [0, 1); got {probability}.")


def _shown(
    embeddings: Mapping[str, Tensor], modalities: tuple[str, ...], present: Present | None
) -> Bool[Tensor, "instance modality"]:
    first = embeddings[modalities[0]]
    if present is None:
        return torch.ones((first.shape[0], len(modalities)), dtype=torch.bool, device=first.device)
    shown = torch.stack([present[name] for name in modalities], dim=1)
    empty = (~shown.any(dim=1)).nonzero()[:, 0].tolist()
    if empty:
        listed = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise InvalidValueError(
            f"`inputs` must have one of {', '.join(modalities)} in every row; got {len(empty)} of {first.shape[0]} "
            f"rows with none (rows {listed}). Leave these rows out."
        )
    return shown


def _refuse_missing(modalities: tuple[str, ...], present: Present | None) -> None:
    for name in modalities if present is not None else ():
        lacking = int((~present[name]).sum())  # type: ignore[index]
        if lacking:
            raise InvalidValueError(
                f"`inputs` must have {name} in every row, because the model's fusion has no rule for rows without; "
                f"got {lacking} of {present[name].shape[0]} rows without. "  # type: ignore[index]
                "Build the model with fusion=Concatenation(modalities, widths) or GatedFusion, or leave these rows out."
            )


def _dropped(shown: Bool[Tensor, "instance modality"], probability: float) -> Bool[Tensor, "instance modality"]:
    if probability == 0:
        return shown
    kept = shown & (torch.rand(shown.shape, device=shown.device) >= probability)
    return torch.where(kept.any(dim=1, keepdim=True), kept, shown)
