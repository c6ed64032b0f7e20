from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrib.attribution import Attribution
from attrib.errors import InputError, UnknownName
from attrib.render import HOW, PALETTES, Display, drawn_maps, is_signed, scales
from attrib.render.scale import colours, number

SIGNED = np.array([[-2.0, 0.0], [1.0, 4.0]], dtype=np.float32)
UNSIGNED = np.array([[0.0, 10.0], [20.0, 30.0]], dtype=np.float32)


def test_raw_values_share_the_largest_magnitude() -> None:
    first, second = scales([SIGNED, UNSIGNED], [True, False], Display(how="raw", percentile=100))
    assert (first.low, first.limit, second.low, second.limit) == (-30, 30, 0, 30)


def test_own_scales_end_at_each_maps_largest_value() -> None:
    first, second = scales([SIGNED, UNSIGNED], [True, False], Display(how="own", percentile=100))
    assert (first.low, first.limit, second.limit) == (-4, 4, 30)


def test_by_default_every_map_goes_up_to_its_strongest_pixel() -> None:
    first, second = scales([SIGNED, UNSIGNED], [True, False], Display(percentile=100))
    assert first.ends == ("−100 %", "+100 %")
    assert second.ends == ("0", "100 %")
    assert (first.anchor, second.anchor) == (("100 %", 4), ("100 %", 30))
    assert first.normalised(np.array([2.0])) == 0.5


def test_density_does_not_depend_on_the_units_of_a_map() -> None:
    plain = scales([SIGNED, UNSIGNED], [True, False], Display(how="density", percentile=100))
    stretched = scales([SIGNED * 1000, UNSIGNED], [True, False], Display(how="density", percentile=100))
    assert plain[0].limit == plain[1].limit == pytest.approx(4 / 1.75)
    assert stretched[0].limit == pytest.approx(plain[0].limit)
    assert np.array_equal(plain[0].colour(SIGNED), stretched[0].colour(SIGNED * 1000))


def test_zero_has_the_middle_colour_of_a_signed_scale_and_the_first_of_an_unsigned_one() -> None:
    signed, unsigned = scales([SIGNED, UNSIGNED], [True, False], Display(how="own"))
    assert np.abs(signed.colour(np.zeros(1))[0].astype(int) - signed.table[128]).max() <= 2
    assert np.array_equal(unsigned.colour(np.zeros(1))[0], unsigned.table[0])


def test_a_percentile_keeps_one_outlier_from_fading_the_rest() -> None:
    values = np.ones((100, 100), dtype=np.float32)
    values[0, 0] = 1e6
    (robust,) = scales([values], [False], Display(how="own", percentile=99.5))
    (full,) = scales([values], [False], Display(how="own", percentile=100))
    assert robust.limit == 1
    assert full.limit == 1e6


def test_a_map_that_is_zero_almost_everywhere_keeps_its_colours() -> None:
    values = np.zeros((100, 100), dtype=np.float32)
    values[3, 3] = 5
    (scale,) = scales([values], [False], Display(how="own", percentile=99))
    assert scale.limit == 5


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
@pytest.mark.parametrize("how", HOW)
def test_empty_maps_have_a_scale_all_the_same(values: np.ndarray, how: str) -> None:
    (scale,) = scales([values.astype(np.float32)], [True], Display(how=how))
    assert np.isfinite(scale.limit)
    assert scale.limit > 0
    assert scale.colour(values).shape == (4, 4, 3)


def test_not_a_number_is_grey() -> None:
    (scale,) = scales([SIGNED], [True])
    assert scale.colour(np.array([np.nan])).tolist() == [[128, 128, 128]]


def test_ends_are_labelled_with_sign_and_unit() -> None:
    (scale,) = scales([SIGNED], [True], Display(how="density", percentile=100))
    assert scale.ends == ("−2.29× average", "+2.29× average")
    (raw,) = scales([UNSIGNED], [False], Display(how="raw", percentile=100))
    assert raw.ends == ("0", "30")


@pytest.mark.parametrize("name", PALETTES)
def test_a_diverging_palette_tells_the_signs_apart_without_red_and_green(name: str) -> None:
    table = colours(PALETTES[name][0]).astype(int)
    assert table.shape == (256, 3)
    low, high = table[20], table[235]
    # what a red- or green-blind reader keeps: blue against the rest, and lightness
    assert abs((low[2] - low[:2].mean()) - (high[2] - high[:2].mean())) > 40


def test_sequential_palettes_get_lighter_all_the_way() -> None:
    for _, name in PALETTES.values():
        lightness = colours(name) @ np.array([0.299, 0.587, 0.114])
        assert (np.diff(lightness[::16]) > 0).all(), name


def test_smoothing_keeps_the_sum_and_leaves_constants_alone() -> None:
    point = np.zeros((21, 21), dtype=np.float32)
    point[10, 10] = 1
    (blurred,) = drawn_maps([point], Display(blur=1.5))
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert 0 < blurred.max() < 0.2
    assert np.allclose(blurred, blurred.T)
    assert blurred.argmax() == point.argmax()
    (flat,) = drawn_maps([np.full((5, 7), 3.0, dtype=np.float32)], Display(blur=2))
    assert np.allclose(flat, 3)


def test_without_smoothing_maps_are_drawn_as_they_are() -> None:
    assert drawn_maps([SIGNED], Display())[0] is SIGNED


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"palette": "jet"}, UnknownName),
        ({"how": "nonsense"}, UnknownName),
        ({"opacity": 1.5}, InputError),
        ({"percentile": 3}, InputError),
        ({"blur": -1}, InputError),
    ],
)
def test_a_display_refuses_what_it_cannot_show(wrong: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=str(next(iter(wrong.values())))):
        Display(**wrong)  # type: ignore[arg-type]


@given(st.floats(-1e6, 1e6, allow_nan=False))
def test_numbers_keep_three_digits(value: float) -> None:
    assert float(number(value).replace("−", "-")) == pytest.approx(value, rel=0.06, abs=1e-30)


def test_a_strongest_channel_has_no_sign(made: Callable[..., Attribution]) -> None:
    assert is_signed(made())
    assert not is_signed(made(reduction="max_abs"))  # SmoothGrad's values have a sign, its heatmap has none
    assert not is_signed(made(signed=False))
    assert is_signed(made(torch.zeros(1, 4, 4), kind="layer", reduction="max_abs"))  # nothing left to reduce
