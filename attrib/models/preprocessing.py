"""What a vision model is shown: resized, cropped and normalised pixels, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attrib.errors import UnsupportedModel

Size = int | tuple[int, int]

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Past this ratio of the sides the ends, which the crop drops anyway, are cut off before resizing:
# a 1 × 100000 image resized to a short side of 256 would take 20 GB.
_LONGEST_RATIO = 4


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop, scale to 0..1, subtract `mean`, divide by `std`.

    resize: the shorter side in pixels (the ratio of the sides is kept), or (height, width).
    crop: (height, width) of the centre that the model sees, or one number for a square.
    mean, std: per channel, in RGB order, for pixels in 0..1.
    interpolation: a key of INTERPOLATIONS; always antialiased.
    """

    resize: Size = 256
    crop: Size = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation {self.interpolation!r}: use one of {', '.join(INTERPOLATIONS)}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"mean {self.mean} and std {self.std} must hold one number for each of R, G, B")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be positive")
        height, width = self.shape
        short = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if not (0 < height <= short[0] and 0 < width <= short[1]):
            raise ValueError(f"a crop of {self.crop} cannot be taken from an image resized to {self.resize}")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of what the model sees."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    def picture(self, image: Image.Image) -> np.ndarray:
        """(height, width, 3) uint8: what the model sees of an RGB image."""
        image = self._resized(image)
        height, width = self.shape
        left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
        return np.array(image.crop((left, top, left + width, top + height)))

    def apply(self, image: Image.Image) -> Tensor:
        """(3, height, width) float32: the model's input for an RGB image."""
        return self.normalised(self.picture(image))

    def normalised(self, picture: np.ndarray) -> Tensor:
        """(..., 3, height, width) float32 of (..., height, width, 3) uint8."""
        values = torch.from_numpy(picture).movedim(-1, -3).float().div(255)
        mean, std = self._channels(values)
        return ((values - mean) / std).contiguous()

    def inverse(self, x: Tensor) -> np.ndarray:
        """(..., height, width, 3) uint8: the pictures whose preprocessing gives x, cut to what pixels can be."""
        x = x.detach().to("cpu", torch.float32)
        mean, std = self._channels(x)
        pixels = (x * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
        return np.ascontiguousarray(pixels.movedim(-3, -1).numpy())

    def bounds(self) -> tuple[Tensor, Tensor]:
        """(low, high), (1, 3, 1, 1) each: what black and white pixels become."""
        mean, std = self._channels(torch.empty(()))
        return ((0 - mean) / std)[None], ((1 - mean) / std)[None]

    def _channels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, dtype=torch.float32, device=like.device)
        std = torch.tensor(self.std, dtype=torch.float32, device=like.device)
        return mean[:, None, None], std[:, None, None]

    def _resized(self, image: Image.Image) -> Image.Image:
        resample = INTERPOLATIONS[self.interpolation]
        if not isinstance(self.resize, int):
            return image.resize((self.resize[1], self.resize[0]), resample)
        image = _without_far_ends(image)
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled = int(self.resize * long / short)
        size = (self.resize, scaled) if width <= height else (scaled, self.resize)
        return image if size == image.size else image.resize(size, resample)

    @classmethod
    def of(cls, transforms: Any) -> Preprocessing:
        """From `weights.transforms()` of torchvision's image classification weights."""
        try:
            resize, crop = _one_or_pair(transforms.resize_size), _one_or_pair(transforms.crop_size)
            mean, std = tuple(map(float, transforms.mean)), tuple(map(float, transforms.std))
            return cls(resize, crop, mean, std, transforms.interpolation.value)
        except (AttributeError, TypeError, ValueError) as error:
            raise UnsupportedModel(
                f"cannot read the preprocessing from {type(transforms).__name__} ({error}); "
                "give attrib.models.Preprocessing(resize, crop, mean, std, interpolation)"
            ) from error


def _one_or_pair(size: Any) -> Size:
    values = [size] if isinstance(size, int) else [int(s) for s in size]
    return values[0] if len(values) == 1 else (values[0], values[1])


def _without_far_ends(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = _LONGEST_RATIO * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    if left == 0 and top == 0:
        return image
    return image.crop((left, top, min(width, left + longest), min(height, top + longest)))
