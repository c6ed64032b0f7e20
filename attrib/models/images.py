"""Pixels from whatever a caller may hand over: decoded within limits, upright, RGB, or a clear InputError."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from attrib.errors import InputError

MAX_PIXELS = 64_000_000  # decoded to RGB this is 192 MB; phone cameras make up to 50 million
MAX_FILE_BYTES = 64 * 2**20
# Formats whose decoders ship with Pillow and start no other program (EPS would start Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM", "AVIF")
_LONGEST_NAME = 200  # of a path in a message
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "TIFF", "AVIF"})  # an MPO's further frames are previews


@dataclass(frozen=True)
class Picture:
    """An upright RGB image, and what had to be decided to get it."""

    image: Image.Image
    notes: tuple[str, ...] = ()


def pictures_of(inputs: Any) -> list[Picture]:
    """The pictures in a path, bytes, a PIL image, a uint8 array (h, w[, c]) or (n, h, w, c), or a list of those."""
    if isinstance(inputs, (list, tuple)):
        if not inputs:
            raise InputError("the list of inputs is empty; give at least one image")
        return [_picture(item) for item in inputs]
    if isinstance(inputs, np.ndarray) and inputs.ndim == 4:
        if not len(inputs):
            raise InputError(f"an array of shape {inputs.shape} holds no image")
        return [_picture(item) for item in inputs]
    return [_picture(inputs)]


def _picture(item: Any) -> Picture:
    if isinstance(item, Image.Image):
        with _decoder_errors("the image"):
            return _upright_rgb(item)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return _decoded(bytes(item), "the image data")
    if isinstance(item, np.ndarray):
        return _upright_rgb(_from_array(item))
    if isinstance(item, (str, os.PathLike)):
        return _decoded(_read(item), _called(item))
    raise InputError(
        f"cannot read an image from {type(item).__name__}; give a path, bytes, a PIL image, a uint8 array "
        "(height, width, 3), a list of those, or a float tensor (batch, channel, height, width)"
    )


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{_called(path)} is not a file")
        _check_file_size(status.st_size, _called(path))
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        hint = "; nothing is fetched from an address: download it first" if "://" in os.fsdecode(path) else ""
        raise InputError(f"cannot read the image {_called(path)}: {reason}{hint}") from error


def _called(path: str | os.PathLike[str]) -> str:
    name = os.fsdecode(path)
    return repr(name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}")


def _check_file_size(size: int, name: str) -> None:
    if size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{name} is larger than the limit of {MAX_FILE_BYTES // 2**20} MB; make the image smaller")


def _decoded(data: bytes, name: str) -> Picture:
    _check_file_size(len(data), name)
    with _decoder_errors(name):
        Image.init()
        known = [kind for kind in FORMATS if kind in Image.OPEN]
        with Image.open(io.BytesIO(data), formats=known) as image:  # reads the header only
            _check_pixels(image.size, name)
            picture = _upright_rgb(image)
            if image.format in _ANIMATED and getattr(image, "is_animated", False):
                picture = replace(
                    picture, notes=("The image is animated; its first frame is explained.", *picture.notes)
                )
            return picture


@contextmanager
def _decoder_errors(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = re.search(r"\d+", str(error))  # the rest of Pillow's sentence is about a limit of its own
        count = f"{int(size[0]):,}" if size else "far more"
        raise InputError(f"{name} is {count} pixels, more than the limit of {MAX_PIXELS:,}; make it smaller") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that can be read; readable: {', '.join(FORMATS)}") from error
    except Exception as error:  # a decoder fed with hostile bytes may raise anything
        raise InputError(f"{name} is damaged or cut off: {error}") from error


def _check_pixels(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{name} has no pixels: {width} × {height}")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} is {width} × {height} = {width * height:,} pixels, more than the limit of {MAX_PIXELS:,}; "
            "make it smaller first"
        )


def _from_array(array: np.ndarray) -> Image.Image:
    wanted = "a uint8 array (height, width, 3), or a float tensor (batch, channel, height, width) already preprocessed"
    if array.dtype != np.uint8:
        raise InputError(f"cannot read an image from an array of {array.dtype}; give {wanted}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise InputError(f"cannot read an image from an array of shape {array.shape}; give {wanted}")
    return Image.fromarray(np.ascontiguousarray(array))


def _upright_rgb(image: Image.Image) -> Picture:
    _check_pixels(image.size, "the image")
    notes: list[str] = []
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bit(image)
        notes.append("The image has more than 8 bits a channel; it is explained at 8 bits.")
    # a copy also of upright images: what the caller does to the original later must not show here
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            notes.append("The image has transparent parts; they are explained as white.")
    return Picture(image.convert("RGB"), tuple(notes))


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise InputError("floating-point images have no agreed range; save the image with 8 or 16 bits a channel")
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"grey values from {values.min()} to {values.max()} are not 16-bit; save the image with 8 or 16 bits"
        )
    few = image.mode == "I" and values.max() < 256  # 32 bits that hold grey values of 8
    converted = Image.fromarray((values if few else values >> 8).astype(np.uint8))
    converted.info = dict(image.info)
    converted.getexif().update(image.getexif())
    return converted
