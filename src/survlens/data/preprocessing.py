"""From a cohort to the tensors a model sees; fitted on training rows only, and saved with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

from survlens.core.errors import DataError, InvalidValueError
from survlens.core.protocols import Inputs
from survlens.data.cohort import Cohort
from survlens.data.columns import column_of, nearest
from survlens.data.encoding import ColumnEncoding, encoding_from_json, encoding_to_json, fit_encoding
from survlens.data.pixels import Channels as Channels
from survlens.data.pixels import ImageEncoding
from survlens.data.pixels import ImageScaling as ImageScaling
from survlens.data.raster import ImageReference
from survlens.data.scan_rows import ScanEncoding, ScanImage


class Unseen(Enum):
    """What happens to a category that training rows did not have."""

    ERROR = "error"
    AS_MISSING = "as_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingSettings:
    """What a model sees of a cohort.

    Attributes:
        image_size: Side, or (height, width), that images are resized to; None keeps the size and refuses any other.
        channels: GREY, RGB or STAINS; None keeps what the first training image has.
        image_scaling: UNIT keeps [0, 1]; STANDARDISE gives each channel training mean 0 and standard deviation 1;
            EACH_IMAGE does so within each image.
        unseen: What happens to a category that training rows did not have.
        scale_table: Whether numbers get training mean 0 and standard deviation 1.
        mask_channel: Whether the mask is added to the image as a last channel of 0 and 1.
    """

    image_size: int | tuple[int, int] | None = None
    channels: Channels | None = None
    image_scaling: ImageScaling = ImageScaling.UNIT
    unseen: Unseen = Unseen.ERROR
    scale_table: bool = True
    mask_channel: bool = False

    def __post_init__(self) -> None:
        size = self.size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise InvalidValueError(f"`image_size` must be a side or (height, width) in pixels; got {self.image_size}.")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width, or None."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Everything that was learned from the training rows to make tensors of a cohort.

    Attributes:
        columns: Encoding of each covariate.
        image: Encoding of the images or scans, or None.
        settings: What was asked for.
    """

    columns: tuple[ColumnEncoding, ...]
    image: ImageEncoding | ScanEncoding | None
    settings: PreprocessingSettings

    @staticmethod
    def fit(cohort: Cohort, settings: PreprocessingSettings | None = None) -> Preprocessing:
        """Fits on the rows of `cohort`, which must be training rows: `Preprocessing.fit(cohort[split.train])`.

        Raises:
            DataError: If there are no rows, or a covariate has no value in any of them.
        """
        settings = settings or PreprocessingSettings()
        if len(cohort) == 0:
            raise DataError("training rows must not be empty; got none. Check the split.")
        if settings.mask_channel and cohort.masks is None:
            raise DataError("`mask_channel` needs masks; got a cohort without. Name the mask column in its schema.")
        columns = tuple(
            fit_encoding(covariate, column_of(cohort.table, covariate.name), scale=settings.scale_table)
            for covariate in cohort.covariates
        )
        return Preprocessing(columns, _image_encoding(cohort, settings), settings)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features of "table", in order."""
        return tuple(name for column in self.columns for name in column.features())

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """Channels (with that of the mask) and sides of "image", or None."""
        if self.image is None:
            return None
        if isinstance(self.image, ScanEncoding):
            return self.image.channels, *self.image.sides
        return self.image.channels + int(self.settings.mask_channel), self.image.height, self.image.width

    def transform(self, cohort: Cohort) -> Inputs:
        """Tensors of all rows: "table" where there are covariates, "image" where there are images.

        Raises:
            DataError: If a covariate or the images are missing, or a value was not seen in training.
        """
        inputs: dict[str, Tensor] = {}
        if self.columns:
            inputs["table"] = self.transform_table(cohort.table)
        if self.image is not None:
            inputs["image"] = torch.stack([self.image_at(cohort, row) for row in range(len(cohort))])
        if not inputs:
            raise DataError("a cohort must have covariates or images; got neither. Name columns in its schema.")
        return inputs

    def transform_table(self, table: pd.DataFrame) -> Float32[Tensor, "instance feature"]:
        """Features of the rows of a data frame that has the covariates as columns."""
        parts = [np.zeros((len(table), 0))]
        for column in self.columns:
            if column.name not in table.columns:
                raise DataError(
                    f"the table must have the covariate {column.name!r} of training; it has not. "
                    f"{nearest(column.name, [str(name) for name in table.columns])}"
                )
            parts.append(
                column.encode(
                    column_of(table, column.name), unseen_as_missing=self.settings.unseen is Unseen.AS_MISSING
                )
            )
        return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))

    def transform_image(self, array: np.ndarray, name: str = "image") -> Float32[Tensor, "channel *space"]:
        """One image in [0, 1], (channel, height, width) or (height, width), or one prepared scan."""
        if self.image is None:
            raise DataError("this preprocessing was fitted without images; got one. Fit it on a cohort with images.")
        return self.image.encode(array, name)

    def image_at(self, cohort: Cohort, row: int) -> Float32[Tensor, "channel *space"]:
        """The image of one row, with its mask as last channel where that was asked for."""
        if cohort.images is None:
            raise DataError("a cohort must have images, as in training; got none. Name the image column in its schema.")
        reference = cohort.images[row]
        pixels = self.transform_image(reference.read(), reference.name)
        if not self.settings.mask_channel or not isinstance(self.image, ImageEncoding):
            return pixels
        if cohort.masks is None:
            raise DataError("a cohort must have masks, as in training; got none. Name the mask column in its schema.")
        return torch.cat([pixels, self.image.encode_mask(cohort.masks[row].read(), cohort.masks[row].name)])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a json file; no row of any patient is in it."""
        settings = asdict(self.settings) | {
            "channels": None if self.settings.channels is None else self.settings.channels.value,
            "image_scaling": self.settings.image_scaling.value,
            "unseen": self.settings.unseen.value,
        }
        return {
            "columns": [encoding_to_json(column) for column in self.columns],
            "image": None if self.image is None else asdict(self.image),
            "settings": settings,
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing that `to_json` wrote.

        Raises:
            DataError: If a part is missing or of another kind.
        """
        try:
            settings = dict(plain["settings"])
            size = settings["image_size"]
            settings |= {
                "image_size": tuple(size) if isinstance(size, list | tuple) else size,
                "channels": None if settings["channels"] is None else Channels(settings["channels"]),
                "image_scaling": ImageScaling(settings["image_scaling"]),
                "unseen": Unseen(settings["unseen"]),
            }
            image = plain["image"]
            if image is not None and "sides" in image:
                image = ScanEncoding(**(image | {"sides": tuple(image["sides"])}))
            elif image is not None:
                image = ImageEncoding(**(image | {"mean": tuple(image["mean"]), "std": tuple(image["std"])}))
            columns = tuple(encoding_from_json(column) for column in plain["columns"])
            return Preprocessing(columns, image, PreprocessingSettings(**settings))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"saved preprocessing must be whole; got {error!r}. Save the model again.") from error


def _image_encoding(cohort: Cohort, settings: PreprocessingSettings) -> ImageEncoding | ScanEncoding | None:
    """What training pictures, or training scans, have in common."""
    if cohort.images is None:
        return None
    scans = [each for each in cohort.images if isinstance(each, ScanImage)]
    if scans:
        if settings.mask_channel:
            raise DataError("`mask_channel` must be off for scans, whose settings say it; got on. Set it in `scans`.")
        return ScanEncoding.fit(scans)
    pictures = [each for each in cohort.images if isinstance(each, ImageReference)]
    return ImageEncoding.fit(pictures, size=settings.size, channels=settings.channels, scaling=settings.image_scaling)
