"""Hostile and odd images: each gives a clear InputError, or the right pixels."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attrib.errors import InputError
from attrib.models import VisionModel, images
from attrib.models.images import pictures_of


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def pixels(source: Any) -> np.ndarray:
    (picture,) = pictures_of(source)
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims a size, whatever its data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_path_bytes_pil_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    array = noise()
    data = encoded(Image.fromarray(array), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (str(path), path, data, bytearray(data), Image.open(path), Image.fromarray(array), array):
        np.testing.assert_array_equal(pixels(source), array)


def test_lists_and_batches_keep_their_order() -> None:
    batch = np.stack([np.full((5, 6, 3), value, np.uint8) for value in (0, 100, 200)])
    for source in (batch, list(batch), tuple(Image.fromarray(a) for a in batch)):
        assert [int(np.asarray(p.image)[0, 0, 0]) for p in pictures_of(source)] == [0, 100, 200]


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("no picture at all")
    with pytest.raises(InputError, match="is not an image"):
        pictures_of(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated(kind: str) -> None:
    data = encoded(Image.fromarray(noise(200, 200)), kind)
    with pytest.raises(InputError, match=r"damaged or cut off|not an image"):
        pictures_of(data[: len(data) // 2])


def test_a_png_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*args: Any) -> None:
        pytest.fail("the bomb was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(InputError, match="is 2,500,000,000 pixels, more than the limit"):
        pictures_of(png(50_000, 50_000))


def test_more_pixels_than_the_limit_are_refused_below_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="8001 × 8000 = 64,008,000 pixels"):
        pictures_of(png(8001, 8000))
    monkeypatch.setattr(images, "MAX_PIXELS", 10)
    with pytest.raises(InputError, match="40 × 30"):
        pictures_of(Image.fromarray(noise()))
    with pytest.raises(InputError, match="40 × 30"):
        pictures_of(noise())


def test_a_text_chunk_bomb_is_refused() -> None:
    text = zlib.compress(b"a" * 100_000_000)
    content = b"k\x00\x00" + text
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    data = png(1, 1, b"\x00\x01\x02\x03")
    with pytest.raises(InputError, match="damaged"):
        pictures_of(data[:33] + chunk + data[33:])


def test_empty_file_and_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(InputError, match="0 bytes"):
        pictures_of(path)
    with pytest.raises(InputError, match="0 bytes"):
        pictures_of(b"")
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 2**20)
    path.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(InputError, match="limit of 1 MB"):
        pictures_of(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path / "none.png", "No such file"), (tmp_path, "is not a file")):
        with pytest.raises(InputError, match=reason):
            pictures_of(path)
    with pytest.raises(InputError, match="is not a file"):  # and does not wait for a writer
        pictures_of(tmp_path / "pipe")
    with pytest.raises(InputError, match="null"):
        pictures_of("a\0b")


@pytest.mark.parametrize(
    "thing", [None, 3, {"image": 1}, [], np.zeros((0, 3, 4, 3), np.uint8), np.zeros((2, 2, 5), np.uint8), object()]
)
def test_things_that_are_no_images(thing: Any) -> None:
    with pytest.raises(InputError):
        pictures_of(thing)


def test_addresses_and_long_names() -> None:
    with pytest.raises(InputError, match="nothing is fetched"):
        pictures_of("https://example.org/cat.png")
    with pytest.raises(InputError) as raised:
        pictures_of("a" * 5000)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "uint16", "object"])
def test_arrays_of_other_types_are_not_guessed_at(dtype: str) -> None:
    with pytest.raises(InputError, match=f"array of {dtype}"):
        pictures_of(np.zeros((4, 4, 3), dtype))


def test_formats_that_start_programs_are_not_tried() -> None:
    with pytest.raises(InputError, match="is not an image"):
        pictures_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def test_grey_and_16_bit() -> None:
    grey = noise(channels=1)
    deep = (grey.astype(np.uint16) << 8) + 7
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(pixels(grey), expected)
    np.testing.assert_array_equal(pixels(grey[:, :, None]), expected)
    for kind in ("PNG", "TIFF"):
        (picture,) = pictures_of(encoded(Image.fromarray(deep), kind))
        np.testing.assert_array_equal(np.asarray(picture.image), expected)
        assert "8 bits" in picture.notes[0]
    np.testing.assert_array_equal(pixels(Image.fromarray(deep.astype(np.int32))), expected)
    np.testing.assert_array_equal(pixels(Image.fromarray(grey.astype(np.int32))), expected)
    with pytest.raises(InputError, match="not 16-bit"):
        pictures_of(Image.fromarray(np.array([[70_000, 0]], np.int32)))
    with pytest.raises(InputError, match="floating-point"):
        pictures_of(Image.fromarray(np.zeros((2, 2), np.float32)))


def test_palette_cmyk_and_bilevel() -> None:
    palette = Image.fromarray(noise()).quantize(16)
    np.testing.assert_array_equal(pixels(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    red = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    seen = pixels(encoded(red, "JPEG"))[10, 10].astype(int)
    assert seen[0] > 240
    assert seen[1:].max() < 15
    np.testing.assert_array_equal(pixels(Image.new("1", (2, 2), 1)), np.full((2, 2, 3), 255))


def test_transparent_parts_are_white_and_said() -> None:
    array = noise(channels=4)
    array[:, :, 3] = 0
    (picture,) = pictures_of(encoded(Image.fromarray(array), "PNG"))
    np.testing.assert_array_equal(np.asarray(picture.image), np.full((30, 40, 3), 255))
    assert "transparent" in picture.notes[0]
    palette = Image.fromarray(noise()).quantize(4)
    (picture,) = pictures_of(encoded(palette, "PNG", transparency=0))
    assert "transparent" in picture.notes[0]
    array[:, :, 3] = 255
    (picture,) = pictures_of(Image.fromarray(array))
    np.testing.assert_array_equal(np.asarray(picture.image), array[:, :, :3])
    assert picture.notes == ()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    (picture,) = pictures_of(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless))
    assert picture.image.getpixel((8, 8)) == (255, 0, 0)
    assert "first frame" in picture.notes[0]


def test_exif_rotation_is_undone() -> None:
    array = noise()
    for orientation, back in ((3, 2), (6, 3), (8, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(array), "PNG", exif=exif)
        np.testing.assert_array_equal(pixels(data), np.rot90(array, back))


def test_a_file_that_pillow_opened_lazily_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    data = encoded(Image.fromarray(noise(200, 200)), "PNG")
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as image, pytest.raises(InputError, match="cut off"):
        pictures_of(image)


def test_the_callers_image_is_not_changed() -> None:
    image = Image.fromarray(noise(channels=4))
    before = image.tobytes()
    (picture,) = pictures_of(image)
    picture.image.putpixel((0, 0), (1, 2, 3))
    assert image.tobytes() == before
    assert image.mode == "RGBA"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_escape_as_another_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]))
    content = bytearray(encoded(Image.fromarray(noise(12, 9)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        (picture,) = pictures_of(bytes(content))
    except InputError:
        return
    assert picture.image.mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (1, 100_000), (100_000, 1), (3, 2)])
def test_tiny_and_extreme_images_are_predicted(squeezenet: VisionModel, size: tuple[int, int]) -> None:
    encoded_image = squeezenet.encode(Image.new("RGB", size, "green"))
    assert encoded_image.pictures is not None
    assert encoded_image.pictures.shape == (1, 224, 224, 3)
    assert (encoded_image.pictures == (0, 128, 0)).all()
    assert len(squeezenet.predict(Image.new("RGB", size, "green"))[0]) == 5
