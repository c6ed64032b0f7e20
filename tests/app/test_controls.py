from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

import attrib
from app import controls, drawing
from attrib.methods.base import Method, setting


@dataclass(frozen=True)
class Example(Method):
    name: ClassVar[str] = "example"
    preset: str = setting("b", "Which", choices=("a", "b"))
    steps: int = setting(5, "How many", low=1, high=10)
    noise: float = setting(0.1, "How much", low=0, high=1)
    tolerance: float | None = setting(None, "Or nothing", low=0)
    layer: str | None = setting(None, "Where", advanced=True)
    layers: str | tuple[str, ...] | None = setting(None, "Where, several")
    exact: bool = setting(False, "Exactly?")
    base: Any = setting(None, "Cannot be drawn")
    window: int = setting(3, "Of pictures", for_kinds=("image",))
    baseline: str = setting(
        "zero", {"image": "A picture", "text": "A text"}, choices={"image": ("zero", "blur"), "text": ("zero", "pad")}
    )


def test_every_field_that_can_be_drawn_becomes_a_control() -> None:
    found = {c.name: c.kind for c in controls.describe(Example, "image")}
    assert found == {
        "preset": "choice", "steps": "whole", "noise": "real", "tolerance": "real", "layer": "text", "layers": "list",
        "exact": "switch", "window": "whole", "baseline": "choice",
    }  # fmt: skip


def test_what_a_control_shows_at_first_gives_the_default_method() -> None:
    shown = {c.name: c.shown for c in controls.describe(Example, "image")}
    assert controls.build(Example, "image", shown) == Example()


def test_values_come_back_with_the_fields_own_types() -> None:
    values = {
        "preset": "a",
        "steps": 7.0,
        "noise": "0.5",
        "tolerance": 1,
        "layer": "x",
        "layers": "p, q,",
        "exact": "true",
    }
    built = controls.build(Example, "image", values)
    assert built == Example("a", 7, 0.5, 1.0, "x", ("p", "q"), True)
    assert [type(v) for v in (built.steps, built.noise, built.exact)] == [int, float, bool]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 11}, "example, steps: 11 is above 10"),
        ({"steps": 1.5}, "1.5 is not a whole number"),
        ({"noise": -1}, "example, noise: -1.0 is below 0"),
        ({"noise": "nan"}, "not a number"),
        ({"noise": "much"}, "'much' is not a number"),
        ({"preset": "c"}, "'c'"),
        ({"exact": "maybe"}, "'maybe' is not true or false"),
        ({"stesp": 3}, "did you mean steps"),
        ({"base": 3}, "'base'"),
    ],
)
def test_a_bad_value_is_named(values: Mapping[str, Any], words: str) -> None:
    with pytest.raises(attrib.AttribError, match=words):
        controls.build(Example, "image", values)


def test_a_field_is_drawn_for_the_kinds_of_input_it_means_something_for() -> None:
    image, text = ({c.name: c for c in controls.describe(Example, kind)} for kind in ("image", "text"))
    assert set(image) - set(text) == {"window"}
    assert (image["baseline"].choices, text["baseline"].choices) == (("zero", "blur"), ("zero", "pad"))
    assert (image["baseline"].help, text["baseline"].help) == ("A picture", "A text")
    with pytest.raises(attrib.UnknownName, match="'blur'"):
        controls.build(Example, "text", {"baseline": "blur"})
    with pytest.raises(attrib.UnknownName, match="'window'"):
        controls.build(Example, "text", {"window": 3})


EVERY = [(name, kind) for name, method in attrib.METHODS.items() for kind in sorted(method.applies_to)]


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_the_controls_of_every_method_can_be_drawn_and_read_back(name: str, kind: str) -> None:
    method = attrib.METHODS[name]
    described = controls.describe(method, kind)
    drawn = drawing.draw(described)
    assert [component.label for component in drawn] == [control.title for control in described]
    assert all(component.info for component in drawn)
    assert all(control.default in control.choices for control in described if control.choices and control.default)
    values = {control.name: component.value for control, component in zip(described, drawn, strict=True)}
    assert controls.build(method, kind, values) == method()


def test_a_text_is_offered_nothing_of_pictures_and_a_picture_nothing_of_texts() -> None:
    text = {
        (n, c.name): set(c.choices) for n, k in EVERY if k == "text" for c in controls.describe(attrib.METHODS[n], k)
    }
    image = {
        (n, c.name): set(c.choices) for n, k in EVERY if k == "image" for c in controls.describe(attrib.METHODS[n], k)
    }
    assert not {name for _, name in text} & {"window", "stride", "segments", "n_segments"}
    assert "unit" not in {name for _, name in image}
    assert not set().union(*text.values()) & {"blur", "white", "black", "mean", "guided_backprop", "epsilon_gamma_box"}
    assert not set().union(*image.values()) & {"pad", "mask", "unk", "token"}
