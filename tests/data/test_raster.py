"""Raster images of every usual kind are read in [0, 1]; broken and hostile ones give one clear error."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from survlens.core.errors import CorruptFileError, DataError, InvalidTypeError, InvalidValueError
from survlens.data.raster import ArrayImage, FileImage, ImageReference, RasterReader, ReaderBySuffix

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (5, 7), dtype=np.uint16)


def _read(tmp_path, image: Image.Image, name: str = "x.png", **options: object) -> np.ndarray:
    image.save(tmp_path / name, **options)
    reference = FileImage(tmp_path / name)
    array = reference.read()
    assert array.dtype == np.float32
    assert array.shape == reference.shape()
    assert reference.thumbnail(4).shape == (4, 4)
    return array


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_grey_and_colour_keep_their_values(tmp_path, name):
    np.testing.assert_allclose(_read(tmp_path, Image.fromarray(GREY), name)[0], GREY / 255, atol=1e-7)
    colour = _read(tmp_path, Image.fromarray(COLOUR), name)
    np.testing.assert_allclose(colour, COLOUR.transpose(2, 0, 1) / 255, atol=1e-7)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_keep_their_values(tmp_path, name):
    np.testing.assert_allclose(_read(tmp_path, Image.fromarray(DEEP), name)[0], DEEP / 65535, atol=1e-7)


def test_bits_and_palettes_become_values(tmp_path):
    bits = Image.fromarray(GREY > 100)
    np.testing.assert_array_equal(_read(tmp_path, bits)[0], (GREY > 100).astype(np.float32))
    palette = Image.fromarray(COLOUR).quantize(16)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(_read(tmp_path, palette), expected, atol=1e-7)


def test_opaque_alpha_is_dropped_and_other_alpha_lies_on_white(tmp_path):
    full = np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)])
    np.testing.assert_allclose(_read(tmp_path, Image.fromarray(full)), COLOUR.transpose(2, 0, 1) / 255, atol=1e-7)
    alpha = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
    share = alpha / 255
    expected = COLOUR / 255 * share[..., None] + 1 - share[..., None]
    found = _read(tmp_path, Image.fromarray(np.dstack([COLOUR, alpha])))
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-6)
    grey = _read(tmp_path, Image.fromarray(np.dstack([GREY, alpha]), mode=None))
    np.testing.assert_allclose(grey[0], GREY / 255 * share + 1 - share, atol=1e-6)


def test_a_transparent_colour_lies_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 10], [20, 30]], dtype=np.uint8))
    np.testing.assert_allclose(_read(tmp_path, image, transparency=10)[0], [[0, 1], [20 / 255, 30 / 255]], atol=1e-6)


def test_the_orientation_of_the_camera_is_applied(tmp_path):
    pixels = np.zeros((16, 32), dtype=np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = _read(tmp_path, Image.fromarray(pixels), "x.jpg", exif=exif, quality=95)
    assert turned.shape == (1, 32, 16)
    assert turned[0, :12].mean() > 0.95
    assert turned[0, -12:].mean() < 0.05


def test_floats_are_taken_in_the_unit_range_only(tmp_path):
    floats = RANDOM.random((5, 7), dtype=np.float32)
    np.testing.assert_array_equal(_read(tmp_path, Image.fromarray(floats), "x.tif")[0], floats)
    Image.fromarray(floats * 300).save(tmp_path / "y.tif")
    with pytest.raises(DataError, match="y.tif must hold values"):
        FileImage(tmp_path / "y.tif").read()


def _png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and then ends."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def _jpeg(tmp_path) -> bytes:
    pixels = RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "whole.jpg", quality=95)
    return (tmp_path / "whole.jpg").read_bytes()


BROKEN = {
    "truncated jpeg": (lambda p: _jpeg(p)[:2000], "x.jpg", CorruptFileError, "must be a whole PNG, JPEG or TIFF"),
    "jpeg header only": (lambda p: _jpeg(p)[:300], "x.jpg", CorruptFileError, "x.jpg must be a whole"),
    "text": (lambda p: b"not an image", "x.png", CorruptFileError, "x.png must be a whole"),
    "empty": (lambda p: b"", "x.png", CorruptFileError, "x.png must be a whole"),
    "gif": (lambda p: b"GIF89a" + bytes(64), "x.png", CorruptFileError, "x.png must be a whole"),
    "png without pixels": (lambda p: _png_header(30, 30), "x.png", CorruptFileError, "x.png must be a whole"),
    "broken png header": (lambda p: _png_header(30, 30)[:20], "x.png", CorruptFileError, "x.png must be a whole"),
    "huge": (lambda p: _png_header(50_000, 50_000), "x.png", DataError, "at most 64,000,000 pixels; got 2,500,000,000"),
    "large": (lambda p: _png_header(9_000, 9_000), "x.png", DataError, "at most 64,000,000 pixels; got 9,000 x 9,000"),
    "wide": (lambda p: _png_header(2**30, 1), "x.png", DataError, "at most 64,000,000 pixels"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("method", [FileImage.read, lambda image: image.thumbnail(8)], ids=["read", "thumbnail"])
def test_a_broken_image_gives_one_clear_error(tmp_path, case, method):
    content, name, error, fragment = BROKEN[case]
    (tmp_path / name).write_bytes(content(tmp_path))
    with pytest.raises(error) as caught:
        method(FileImage(tmp_path / name))
    assert fragment.replace(",", "") in str(caught.value).replace(",", "")
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_file_and_several_pages_are_refused(tmp_path):
    with pytest.raises(CorruptFileError, match="No such file"):
        FileImage(tmp_path / "none.png").read()
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="got 2 pages"):
        FileImage(tmp_path / "pages.tif").read()


def test_the_limit_is_the_users(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.png")
    assert RasterReader(pixel_limit=35).reference(tmp_path / "x.png", "x").read().shape == (1, 5, 7)
    with pytest.raises(DataError, match="at most 34 pixels"):
        RasterReader(pixel_limit=34).reference(tmp_path / "x.png", "x").read()


def test_identity_follows_content_not_name(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(GREY).save(tmp_path / name)
    Image.fromarray(GREY + 1).save(tmp_path / "c.png")
    a, b, c = (FileImage(tmp_path / name).identity for name in ("a.png", "b.png", "c.png"))
    assert a == b != c
    assert ArrayImage(GREY).identity == ArrayImage(GREY.copy()).identity != ArrayImage(GREY.T).identity


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY / 255),
        (DEEP, DEEP / 65535),
        (GREY > 9, GREY > 9),
        (GREY / 255, GREY / 255),
        (GREY[None], GREY / 255),
    ],
)
def test_arrays_are_images(array, expected):
    image = ArrayImage(array)
    assert isinstance(image, ImageReference)
    assert image.shape() == (1, 5, 7)
    found = image.read()
    np.testing.assert_allclose(found[0], expected, atol=1e-7)
    found[:] = 0
    np.testing.assert_allclose(image.read()[0], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.zeros(3), InvalidValueError),
        (np.zeros((0, 3)), InvalidValueError),
        (np.full((2, 2), np.nan), InvalidValueError),
        (np.full((2, 2), -0.1), InvalidValueError),
        (np.zeros((2, 2), dtype=np.int64), InvalidTypeError),
    ],
)
def test_other_arrays_are_refused(array, error):
    with pytest.raises(error, match="`array`"):
        ArrayImage(array)


def test_a_reader_is_chosen_by_ending(tmp_path):
    class Other:
        suffixes = frozenset((".npy",))

        def reference(self, path, name):
            return ArrayImage(np.load(path), name)

    np.save(tmp_path / "a.npy", GREY)
    both = ReaderBySuffix((RasterReader(), Other()))
    assert {".npy", ".png"} <= both.suffixes
    np.testing.assert_allclose(both.reference(tmp_path / "a.npy", "a").read()[0], GREY / 255, atol=1e-7)
    with pytest.raises(DataError, match=r"must end in one of .jpeg"):
        both.reference(tmp_path / "a.dcm", "a")
