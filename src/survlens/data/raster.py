"""Raster images: PNG, JPEG and TIFF as (channel, height, width) arrays in [0, 1].

Nothing is decoded until it is asked for, and nothing before its header has shown a bearable size.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from survlens.core.errors import CorruptFileError, DataError, InvalidTypeError, InvalidValueError

PIXEL_LIMIT = 64_000_000
"""Largest number of pixels that is decoded, unless a reader is told otherwise."""

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in grey (ITU-R BT.601, as JPEG has it)."""

_FORMATS = ("PNG", "JPEG", "TIFF")
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error,
)  # fmt: skip


@runtime_checkable
class ImageReference(Protocol):
    """An image that is read when it is needed."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def identity(self) -> str:
        """Hash of its content: equal for equal files, whatever they are called."""
        ...

    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width, without decoding the pixels."""
        ...

    def read(self) -> Float32[np.ndarray, "channel height width"]:
        """Its pixels in [0, 1]."""
        ...

    def thumbnail(self, side: int) -> UInt8[np.ndarray, "height width"]:
        """A small grey square version of the whole image, for comparing images."""
        ...


@runtime_checkable
class Reader(Protocol):
    """Makes references to the files of some formats."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Endings of the file names it takes, in lower case."""
        ...

    def reference(self, path: Path, name: str) -> ImageReference:
        """A reference to the file at `path`, called `name` in messages."""
        ...


@dataclass(frozen=True, slots=True)
class RasterReader:
    """Reads PNG, JPEG and TIFF.

    Attributes:
        pixel_limit: Largest number of pixels that is decoded.
        suffixes: Endings of the file names it takes.
    """

    pixel_limit: int = PIXEL_LIMIT
    suffixes: frozenset[str] = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff"))

    def reference(self, path: Path, name: str) -> FileImage:
        """A lazy reference to one raster file."""
        return FileImage(path, name, self.pixel_limit)


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image in a PNG, JPEG or TIFF file.

    Grey stays one channel and colour three. A palette becomes colours. Transparency is dropped where the image is
    opaque throughout, and laid on white elsewhere. Grey of 16 bits is divided by 65,535; colour of 16 bits is read with
    the 8 bits that Pillow keeps. The orientation noted by a camera (EXIF) is applied.

    Attributes:
        path: The file.
        name: What messages call it.
        pixel_limit: Largest number of pixels that is decoded.
    """

    path: Path
    name: str = ""
    pixel_limit: int = PIXEL_LIMIT

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "name", self.name or self.path.name)

    @property
    def identity(self) -> str:
        """SHA-256 of the bytes of the file."""
        return hashlib.sha256(self._bytes()).hexdigest()

    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width as `read` gives them, from the header."""
        with self._decoding(), self._opened() as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            channels = 1 if image.mode in {"1", "L", "LA", "I", "F"} or image.mode.startswith("I;") else 3
        return (channels, width, height) if turned else (channels, height, width)

    def read(self) -> Float32[np.ndarray, "channel height width"]:
        """Its pixels in [0, 1].

        Raises:
            CorruptFileError: If the file is missing, truncated or no raster image.
            DataError: If the image is larger than `pixel_limit`, has several pages, or values outside the range.
        """
        with self._decoding(), self._opened() as image:
            array = _array(_upright(image))
        if array is None:
            raise DataError(
                f"{self.name} must hold values that fit 16 bits, or floats in [0, 1]; got others. Rescale the image."
            )
        return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))

    def thumbnail(self, side: int) -> UInt8[np.ndarray, "height width"]:
        """A small grey square version; a JPEG is decoded at a fraction of its size."""
        with self._decoding(), self._opened() as image:
            if image.format == "JPEG":
                image.draft("L", (4 * side, 4 * side))
            array = _array(_upright(image))
        if array is None:
            raise DataError(f"{self.name} must hold values in a known range; got others. Rescale the image.")
        return _small(array if array.ndim == 2 else array @ LUMINANCE, side)

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise CorruptFileError(f"{self.name} must be readable; got {error.strerror}. Check the file.") from error

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """Turns what a broken file makes Pillow raise into one error that names the file."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                yield
        except (DataError, CorruptFileError):
            raise
        except Image.DecompressionBombError as error:
            found = re.search(r"\d+", str(error))
            size = f"{int(found[0]):,} pixels" if found else "more"
            raise _too_large(self.name, size, self.pixel_limit) from error
        except _DECODING_ERRORS as error:
            reason = str(error).replace(str(self.path), self.name) or type(error).__name__
            raise CorruptFileError(
                f"{self.name} must be a whole PNG, JPEG or TIFF image; got: {reason}. Export the image again."
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        with Image.open(io.BytesIO(self._bytes()), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > self.pixel_limit:
                raise _too_large(self.name, f"{width:,} x {height:,}", self.pixel_limit)
            pages = getattr(image, "n_frames", 1)
            if pages > 1 and image.format != "MPO":
                raise DataError(f"{self.name} must hold one image; got {pages} pages. Export the page that is meant.")
            yield image


def _too_large(name: str, size: str, limit: int) -> DataError:
    return DataError(
        f"{name} must have at most {limit:,} pixels; got {size}. Cut it into tiles, shrink it, or pass a RasterReader "
        f"with a larger pixel_limit."
    )


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def _array(image: Image.Image) -> np.ndarray | None:
    """Pixels in [0, 1] as (height, width) or (height, width, channel); None where their range is unknown."""
    if image.mode == "I" or image.mode.startswith("I;"):
        array = np.asarray(image)
        fits = array.size == 0 or (array.min() >= 0 and array.max() <= 65535)
        return array.astype(np.float32) / np.float32(65535) if fits else None
    if image.mode == "F":
        array = np.asarray(image, dtype=np.float32)
        return array.copy() if np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1 else None
    if image.mode in {"P", "PA"} or "transparency" in image.info:
        transparent = "transparency" in image.info or image.mode == "PA"
        image = image.convert(("LA" if image.mode in {"1", "L"} else "RGBA") if transparent else "RGB")
    if image.mode in {"LA", "La", "RGBA", "RGBa"}:
        return _on_white(image)
    image = image.convert("L") if image.mode in {"1", "L"} else image.convert("RGB")
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _on_white(image: Image.Image) -> np.ndarray:
    image = image.convert("LA" if image.mode in {"LA", "La"} else "RGBA")
    array = np.asarray(image, dtype=np.float32) / np.float32(255)
    colour, alpha = array[..., :-1], array[..., -1:]
    flat = colour if alpha.min() == 1 else colour * alpha + (1 - alpha)
    return flat[..., 0] if flat.shape[-1] == 1 else flat


def _small(grey: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(grey.astype(np.float32), mode=None).resize((side, side), Image.Resampling.BOX)
    return np.clip(np.rint(np.asarray(image) * 255), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayImage:
    """An image in memory.

    Attributes:
        array: Grey (height, width) or (channel, height, width): 8 or 16 bits, boolean, or floats in [0, 1].
        name: What messages call it.

    Raises:
        InvalidValueError: If the shape is another one, or floats leave [0, 1].
        InvalidTypeError: If the numbers are of another type.
    """

    array: np.ndarray
    name: str = "array"

    def __post_init__(self) -> None:
        array = self.array
        if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or array.size == 0:
            raise InvalidValueError(
                f"`array` must be (height, width) or (channel, height, width); got shape {np.shape(array)}."
            )
        if array.dtype.kind == "f":
            low, high = float(array.min()), float(array.max())
            if not (low >= 0 and high <= 1):
                raise InvalidValueError(
                    f"`array` of floats must lie in [0, 1]; got {low:g} to {high:g} in {self.name}. Divide all images "
                    f"by the largest value they can have."
                )
        elif array.dtype not in (np.uint8, np.uint16, np.bool_):
            raise InvalidTypeError(f"`array` must be uint8, uint16, bool or float; got {array.dtype} in {self.name}.")

    @property
    def identity(self) -> str:
        """SHA-256 of type, shape and values."""
        head = f"{self.array.dtype.str}{self.array.shape}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.array).tobytes()).hexdigest()

    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width = self.array.shape[-2:]
        return (self.array.shape[0] if self.array.ndim == 3 else 1), height, width

    def read(self) -> Float32[np.ndarray, "channel height width"]:
        """Its pixels in [0, 1], as a copy."""
        scale = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(self.array.dtype, 1)
        return self.array.reshape(self.shape()).astype(np.float32) / np.float32(scale)

    def thumbnail(self, side: int) -> UInt8[np.ndarray, "height width"]:
        """A small grey square version."""
        pixels = self.read()
        return _small(np.tensordot(LUMINANCE, pixels, axes=1) if len(pixels) == 3 else pixels.mean(0), side)


@dataclass(frozen=True, slots=True)
class ReaderBySuffix:
    """Several readers as one: each file goes to the first that takes its ending."""

    readers: tuple[Reader, ...]

    @property
    def suffixes(self) -> frozenset[str]:
        """Endings that one of the readers takes."""
        return frozenset().union(*(reader.suffixes for reader in self.readers))

    def reference(self, path: Path, name: str) -> ImageReference:
        """A reference from the first reader that takes the ending of `path`."""
        for reader in self.readers:
            if path.suffix.lower() in reader.suffixes:
                return reader.reference(path, name)
        raise DataError(
            f"{name} must end in one of {', '.join(sorted(self.suffixes))}; got {path.suffix or 'no ending'}."
        )
