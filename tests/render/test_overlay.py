import numpy as np
import pytest
from PIL import Image

from attrib.render import Display, annotated, over, scales, verdict
from attrib.render.scale import SHARED

PHOTO = np.full((40, 60, 3), 200, dtype=np.uint8)


def spot(value: float = 1.0) -> np.ndarray:
    values = np.zeros((40, 60), dtype=np.float32)
    values[5:15, 40:55] = value
    return values


def drawn(values: np.ndarray, display: Display = SHARED, photo: np.ndarray | None = PHOTO) -> np.ndarray:
    (scale,) = scales([values], [True], display)
    return np.asarray(over(values, scale, photo, display, size=120)).astype(int)


def test_the_colour_sits_where_the_map_is() -> None:
    picture = drawn(spot())
    assert picture.shape == (80, 120, 3)
    red = picture[..., 0] - picture[..., 2]
    assert red[20, 95] > 40
    assert abs(red[60, 20]) < 5


def test_a_negative_value_has_the_other_hue() -> None:
    picture = drawn(spot(-1.0))
    assert (picture[..., 2] - picture[..., 0])[20, 95] > 30


def test_opacity_zero_is_the_photo() -> None:
    assert np.abs(drawn(spot(), Display(opacity=0)) - 200).max() <= 1


def test_the_map_alone_does_not_depend_on_the_photo() -> None:
    display = Display(raw=True)
    other = np.zeros_like(PHOTO)
    assert np.array_equal(drawn(spot(), display), drawn(spot(), display, other))


def test_a_coarse_map_is_stretched_over_the_photo() -> None:
    values = np.zeros((4, 6), dtype=np.float32)
    values[0, 5] = 1
    red = drawn(values)[..., 0] - drawn(values)[..., 2]
    assert red[8, 112] > 40
    assert abs(red[70, 8]) < 5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 4)), "all zero"),
        (np.ones((4, 4)), "constant"),
        (np.full((4, 4), np.nan), "no number"),
        (np.array([[np.nan, 1.0], [2.0, 3.0]]), "25.0 % of the map is not a number"),
    ],
)
def test_what_a_picture_would_hide_is_said_in_words(values: np.ndarray, words: str) -> None:
    assert words in (verdict(values) or "")
    assert len(np.unique(drawn(values.astype(np.float32)).reshape(-1, 3), axis=0)) > 3  # the words are on the picture


def test_an_ordinary_map_needs_no_words() -> None:
    assert verdict(spot()) is None


def test_not_a_number_does_not_spread() -> None:
    values = spot()
    values[0, 0] = np.nan
    picture = drawn(values, Display(raw=True))
    assert (picture == 128).all(-1).sum() < 30


def test_the_sheet_has_a_title_and_the_whole_colour_bar() -> None:
    (scale,) = scales([spot()], [True])
    picture = over(spot(), scale, PHOTO, size=300)
    sheet = annotated(picture, scale, "A title " * 40)
    assert sheet.width == picture.width
    assert sheet.height > picture.height
    bar = np.asarray(sheet)[picture.height + 26 + 12, 8:-8]
    assert np.abs(bar[0].astype(int) - scale.table[0]).max() < 12
    assert np.abs(bar[-1].astype(int) - scale.table[-1]).max() < 12
    assert isinstance(sheet, Image.Image)
