"""What the model sees is what torchvision's transforms would show it, and there is a way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from attrib.errors import UnsupportedModel
from attrib.models import Preprocessing, VisionModel


def scene(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (256, 256), (257, 301), (50, 60), (1000, 260)])
@pytest.mark.parametrize("mode", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
def test_equal_to_torchvision(size: tuple[int, int], mode: InterpolationMode) -> None:
    preset = ImageClassification(crop_size=224, resize_size=256, interpolation=mode)
    image = scene(*size)
    torch.testing.assert_close(Preprocessing.of(preset).apply(image), preset(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["ResNet50_Weights", "ViT_B_16_Weights", "Inception_V3_Weights", "EfficientNet_B7_Weights"]
)
def test_read_from_torchvisions_weights(name: str) -> None:
    import torchvision.models

    preset = getattr(torchvision.models, name).DEFAULT.transforms()
    image = scene(700, 640)
    torch.testing.assert_close(Preprocessing.of(preset).apply(image), preset(image), rtol=0, atol=1e-6)


def test_a_long_strip_takes_little_memory_and_keeps_its_centre() -> None:
    array = np.zeros((50, 20_000, 3), np.uint8)  # resized whole: 256 × 102400
    array[:, 9_990:10_010] = 255
    picture = Preprocessing().picture(Image.fromarray(array))
    assert picture.shape == (224, 224, 3)
    assert picture[112, 111:113].min() > 200
    assert picture[112, 0].max() == 0
    upright = Preprocessing().picture(Image.fromarray(array.transpose(1, 0, 2)))
    np.testing.assert_array_equal(upright, picture.transpose(1, 0, 2))


def test_squashed_and_not_square() -> None:
    image = scene(300, 200)
    squashed = Preprocessing(resize=(64, 96), crop=(64, 96), interpolation="bicubic").picture(image)
    np.testing.assert_array_equal(squashed, np.asarray(image.resize((96, 64), Image.Resampling.BICUBIC)))
    assert Preprocessing(resize=(64, 96), crop=(32, 80)).apply(image).shape == (3, 32, 80)


def test_inverse_is_exact(efficientnet: VisionModel) -> None:
    for preprocessing in (Preprocessing(), efficientnet.preprocessing):
        assert preprocessing is not None
        picture = preprocessing.picture(scene(300, 400))
        np.testing.assert_array_equal(preprocessing.inverse(preprocessing.normalised(picture)), picture)
        batch = np.stack([picture, 255 - picture])
        np.testing.assert_array_equal(preprocessing.inverse(preprocessing.normalised(batch)), batch)


def test_inverse_cuts_to_what_pixels_can_be() -> None:
    x = torch.tensor([-1e9, 0.0, 1e9]).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(Preprocessing().inverse(x)[0, 0, 0], [0, round(0.456 * 255), 255])


def test_bounds_are_black_and_white() -> None:
    preprocessing = Preprocessing()
    low, high = preprocessing.bounds()
    assert low.shape == high.shape == (1, 3, 1, 1)
    for bound, colour in ((low, "black"), (high, "white")):
        seen = preprocessing.apply(Image.new("RGB", (300, 300), colour))
        torch.testing.assert_close(seen, bound[0].expand_as(seen))


def test_lite0_takes_pixels_minus_127_by_128(efficientnet: VisionModel, cheetah: Path) -> None:
    encoded = efficientnet.encode(cheetah)
    assert encoded.pictures is not None
    expected = (torch.from_numpy(encoded.pictures).movedim(-1, 1).double() - 127) / 128
    torch.testing.assert_close(encoded.x.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"interpolation": "cubic"},
        {"crop": 300},
        {"resize": (224, 200)},
        {"mean": (0.5,)},
        {"std": (0.0, 1.0, 1.0)},
        {"crop": 0},
    ],
)
def test_settings_that_make_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(fields)):
        Preprocessing(**fields)


def test_unknown_transforms_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="cannot read the preprocessing"):
        Preprocessing.of(lambda image: image)
