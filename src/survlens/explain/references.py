"""What an explanation compares an instance with: rows of the training data, their mean, or a blurred picture.

An explanation of F(x) - F(x') depends on x' as much as on x, so references are always given by the caller. They come
from the data that the model was fitted to, never from the rows that are explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import (
    check_tensors,
    count_key,
    has_bags,
    item_count,
    items_of_rows,
    modalities_of,
    present,
    present_key,
    present_values,
    row_of_item,
    rows_of_modality,
    select_rows,
)
from survlens.core.protocols import Inputs
from survlens.explain.given import check_finite


@runtime_checkable
class ReferenceSource(Protocol):
    """What names the references of each row: the same for all (`References`), or made of the row (`Blurred`)."""

    @property
    def description(self) -> str:
        """What the references are, in words."""
        ...

    @property
    def weights(self) -> Float[Tensor, " reference"]:
        """Weight of each reference of a row; they add up to 1."""
        ...

    @property
    def drawn(self) -> bool:
        """Whether the references are drawn from more, so that their number brings an error of its own."""
        ...

    def starts(
        self, inputs: Inputs, rows: Int64[Tensor, " path"], numbers: Int64[Tensor, " path"]
    ) -> dict[str, Tensor]:
        """Reference `numbers[i]` of row `rows[i]` of `inputs`, laid out as that row, for every i.

        Modalities and numbers of items are those of `inputs`, so that a straight line leads from a reference to
        `select_rows(inputs, rows)`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Rows that every instance is compared with.

    Where an explained row has several items of a modality (a bag), the items of a reference are repeated in turn to
    their number. Where it lacks a modality, so does the path, and nothing is said about it.

    Attributes:
        inputs: The rows, keyed by modality, as the model takes them.
        description: What they are, in words; it goes on to tables and figures.
        share: Weight of each row, adding up to 1; equal weights where None.
        drawn: Whether the rows are drawn at random, so that other draws would have given other values.

    Raises:
        InvalidValueError: If there are no rows, or the weights do not fit.
    """

    inputs: Inputs
    description: str
    share: Float[Tensor, " reference"] | None = None
    drawn: bool = False

    def __post_init__(self) -> None:
        check_tensors(self.inputs)
        if not len(self):
            raise InvalidValueError("`inputs` must hold at least one row to compare with; got none.")
        check_finite(self.inputs, modalities_of(self.inputs), "references.inputs")
        share = self.share
        if share is not None and (share.shape != (len(self),) or abs(float(share.sum()) - 1) > 1e-6):
            raise InvalidValueError(
                f"`share` must hold one weight for each of the {len(self)} rows, adding up to 1; "
                f"got {tuple(share.shape)} with the sum {float(share.sum()):g}."
            )

    def __len__(self) -> int:
        names = modalities_of(self.inputs)
        return rows_of_modality(self.inputs, names[0]) if names else 0

    @property
    def weights(self) -> Float[Tensor, " reference"]:
        """Weight of each row, adding up to 1."""
        if self.share is not None:
            return self.share.double()
        return torch.full((len(self),), 1 / len(self), dtype=torch.float64)

    @staticmethod
    def all(inputs: Inputs) -> References:
        """Every row of the training inputs."""
        count = _rows(inputs)
        return References(inputs, f"all {count} training rows", drawn=count > 1)

    @staticmethod
    def sample(inputs: Inputs, count: int, *, seed: int = 0) -> References:
        """Rows drawn without replacement from the training inputs.

        Args:
            inputs: Training inputs.
            count: How many, 1 <= `count` <= number of rows.
            seed: The same seed draws the same rows.

        Raises:
            InvalidValueError: If there are fewer rows.
        """
        rows = _drawn_rows(_rows(inputs), count, seed)
        words = f"{count} training rows, drawn at random (seed {seed})"
        return References(select_rows(inputs, rows), words, drawn=True)

    @staticmethod
    def where(inputs: Inputs, mask: Bool[Tensor, " row"], description: str) -> References:
        """The training rows that fulfil a condition, such as those of one sex or those without a diagnosis.

        Args:
            inputs: Training inputs.
            mask: Which rows.
            description: The condition in words.

        Raises:
            InvalidValueError: If no row fulfils it, or `mask` has another length.
        """
        rows = _rows(inputs)
        if mask.shape != (rows,) or not bool(mask.any()):
            raise InvalidValueError(
                f"`mask` must choose at least one of the {rows} rows; got the shape {tuple(mask.shape)} with "
                f"{int(mask.sum())} chosen."
            )
        chosen = mask.nonzero()[:, 0]
        return References(select_rows(inputs, chosen), f"{len(chosen)} training rows: {description}", drawn=True)

    @staticmethod
    def k_means(inputs: Inputs, count: int, *, modality: str = "table", seed: int = 0) -> References:
        """Real rows in the middle of k-means clusters of a table, weighted by the share of rows of each cluster.

        Columns are standardised; of each cluster the row nearest to the centre stands for it, with all its modalities.

        Args:
            inputs: Training inputs.
            count: Number of clusters.
            modality: The table that is clustered.
            seed: Seed of the first centres.

        Raises:
            InvalidValueError: If there are fewer rows than clusters, or `modality` is no complete table.
        """
        from sklearn.cluster import KMeans

        rows = _rows(inputs)
        _check_count(count, rows)
        table = inputs.get(modality)
        if table is None or table.ndim != 2 or not bool(present(inputs, modality).all()) or has_bags(inputs, modality):
            raise InvalidValueError(
                f"`modality` must name a table that every row has; got {modality!r} among "
                f"{', '.join(modalities_of(inputs))}. Draw rows by References.sample."
            )
        values = table.detach().double().cpu().numpy()
        spread = values.std(axis=0)
        scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
        fitted = KMeans(
            count,
            n_init=4,  # pyright: ignore[reportArgumentType]
            random_state=seed,
        ).fit(scaled)
        distance = np.linalg.norm(scaled - fitted.cluster_centers_[fitted.labels_], axis=1)
        clusters = [(fitted.labels_ == each).nonzero()[0] for each in range(count)]
        middle = [int(members[distance[members].argmin()]) for members in clusters if len(members)]
        share = torch.tensor([len(members) / rows for members in clusters if len(members)], dtype=torch.float64)
        chosen = torch.tensor(middle, device=table.device)
        return References(select_rows(inputs, chosen), f"middle rows of {len(middle)} k-means clusters", share)

    @staticmethod
    def mean(inputs: Inputs) -> References:
        """One reference: the mean of each feature, pixel by pixel, over the training rows that have it."""
        found: dict[str, Tensor] = {}
        for name in modalities_of(inputs):
            values = present_values(inputs, name)
            if not len(values):
                raise InvalidValueError(f"`inputs` must have {name} in some row to take its mean; got none.")
            found[name] = values.mean(0, keepdim=True) if values.is_floating_point() else values[:1]
            if has_bags(inputs, name):
                found[count_key(name)] = torch.ones(1, dtype=torch.int64, device=values.device)
        return References(found, "mean of the training rows")

    def starts(
        self, inputs: Inputs, rows: Int64[Tensor, " path"], numbers: Int64[Tensor, " path"]
    ) -> dict[str, Tensor]:
        """Row `numbers[i]` of the references, laid out as row `rows[i]` of `inputs`, for every i.

        Raises:
            InvalidValueError: If a reference lacks a modality that the row has.
        """
        found: dict[str, Tensor] = {}
        for name in modalities_of(inputs):
            found |= self._of_modality(inputs, name, rows, numbers)
        return found

    def _of_modality(self, inputs: Inputs, name: str, rows: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        if name not in self.inputs:
            raise InvalidValueError(
                f"The references must hold {name}; got {', '.join(modalities_of(self.inputs))}. "
                "Make them of training inputs with every modality of the model."
            )
        explained = inputs[name]
        if self.inputs[name].shape[1:] != explained.shape[1:]:
            raise InvalidValueError(
                f"The references must have the shape of the explained rows; got {tuple(self.inputs[name].shape[1:])} "
                f"of {name} for {tuple(explained.shape[1:])}. Prepare both alike."
            )
        rows, numbers = rows.to(explained.device), numbers.to(explained.device)
        wanted = item_count(inputs, name)[rows]
        offered = item_count(self.inputs, name).to(explained.device)[numbers]
        lacking = numbers[(wanted > 0) & (offered == 0)]
        if len(lacking):
            raise InvalidValueError(
                f"The references must have {name} where the explained row has it; got {len(lacking.unique())} "
                "references without. Choose those that have it by References.where."
            )
        beside = {key: inputs[key][rows] for key in (present_key(name), count_key(name)) if key in inputs}
        places = inputs[count_key(name)][rows] if has_bags(inputs, name) else torch.ones_like(wanted)
        path = row_of_item(places)
        within = torch.arange(len(path), device=explained.device) - (places.cumsum(0) - places)[path]
        stored = self.inputs[name].to(explained)
        counts = self.inputs.get(count_key(name), torch.ones(len(self), dtype=torch.int64)).to(explained.device)
        first = (counts.cumsum(0) - counts)[numbers]
        read = wanted[path] > 0
        taken = (first[path] + within % offered[path].clamp(min=1))[read]
        own = explained[items_of_rows(inputs[count_key(name)], rows) if has_bags(inputs, name) else rows]
        own = own.clone()
        own[read] = stored[taken]
        return {name: own} | beside


@dataclass(frozen=True, slots=True, eq=False)
class Blurred:
    """Each instance's own picture, blurred: the reference keeps its colours and place but loses its detail.

    x' = x convolved with a Gaussian along every axis of space, the border repeated.

    Attributes:
        sigma: Standard deviation of the Gaussian in pixels, > 0.
        modalities: The pictures that are blurred.
        others: References of the other modalities; where None they keep the values of the row and so contribute 0.

    Raises:
        InvalidValueError: If `sigma` is not > 0.
    """

    sigma: float
    modalities: Sequence[str] = ("image",)
    others: References | None = None

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InvalidValueError(f"`sigma` must be > 0 pixels; got {self.sigma}.")

    @property
    def description(self) -> str:
        """What the references are, in words."""
        words = f"{' and '.join(self.modalities)} of the row itself, blurred by {self.sigma:g} pixels"
        return words if self.others is None else f"{words}; otherwise {self.others.description}"

    @property
    def weights(self) -> Float[Tensor, " reference"]:
        """Weight of each reference of a row, adding up to 1."""
        return torch.ones(1, dtype=torch.float64) if self.others is None else self.others.weights

    @property
    def drawn(self) -> bool:
        """Whether the references of the other modalities are drawn."""
        return self.others is not None and self.others.drawn

    def starts(
        self, inputs: Inputs, rows: Int64[Tensor, " path"], numbers: Int64[Tensor, " path"]
    ) -> dict[str, Tensor]:
        """Reference `numbers[i]` of row `rows[i]` of `inputs`, for every i.

        Raises:
            InvalidValueError: If a blurred modality is not there or no picture, or another lacks its reference.
        """
        found = select_rows(inputs, rows)
        for name in self.modalities:
            if name not in inputs or inputs[name].ndim < 4:
                raise InvalidValueError(
                    f"`modalities` must name pictures (item, channel, height, width, ...); got {name!r} among "
                    f"{', '.join(modalities_of(inputs))}."
                )
            unique, places = rows.unique(return_inverse=True)
            of_unique = {name: inputs[name]} | {key: inputs[key] for key in (count_key(name),) if key in inputs}
            blurred = select_rows(of_unique, unique)
            blurred[name] = self._blurred(blurred[name])
            found[name] = select_rows(blurred, places)[name]
        if self.others is not None:
            kept = {name for each in self.modalities for name in (each, present_key(each), count_key(each))}
            rest = {name: tensor for name, tensor in inputs.items() if name not in kept}
            found |= self.others.starts(rest, rows, numbers)
        return found

    def _blurred(self, pictures: Tensor) -> Tensor:
        from scipy.ndimage import gaussian_filter

        sigmas = (0.0, 0.0, *[self.sigma] * (pictures.ndim - 2))
        smooth = gaussian_filter(pictures.detach().double().cpu().numpy(), sigmas, mode="nearest")
        return torch.from_numpy(smooth).to(pictures)


def _rows(inputs: Inputs) -> int:
    names = modalities_of(inputs)
    if not names:
        raise InvalidValueError("`inputs` must hold at least one modality; got none.")
    return rows_of_modality(inputs, names[0])


def _check_count(count: int, rows: int) -> None:
    if not 1 <= count <= rows:
        raise InvalidValueError(f"`count` must lie in 1..{rows}, the number of rows; got {count}.")


def _drawn_rows(rows: int, count: int, seed: int) -> Tensor:
    _check_count(count, rows)
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:count]
