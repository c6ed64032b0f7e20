"""What is said about settings that make no sense, whatever the method."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import attrib
from attrib.rules.presets import CP_LRP

SMALL = attrib.wrap(
    nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)).eval()
)
MODEL = attrib.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
NUMBERS = [
    (name, field.name)
    for name, method in attrib.METHODS.items()
    for field in dataclasses.fields(method)
    if field.type in ("int", "float", "float | None")
]


@pytest.mark.parametrize("value", ["9", float("nan"), True, [3]])
@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_a_number_that_is_none_is_named(name: str, setting: str, value: object) -> None:
    method = attrib.METHODS[name](**{setting: value})
    with pytest.raises(attrib.InputError, match=f"{name}: {setting} = "):
        attrib.explain(MODEL, torch.ones(1, 3, 2, 2), method)


@pytest.mark.parametrize(
    ("given", "words"), [(attrib.Saliency, r"Saliency\(\)"), (3, "not int"), (["saliency"], "not list")]
)
def test_what_is_no_method_is_told_what_would_be_one(given: object, words: str) -> None:
    with pytest.raises(attrib.InputError, match=words):
        attrib.explain(MODEL, torch.ones(1, 3, 2, 2), given)


def test_a_network_has_to_be_wrapped_first() -> None:
    with pytest.raises(attrib.UnsupportedModel, match=r"not Identity; give attrib\.wrap"):
        attrib.explain(nn.Identity(), torch.ones(1, 3, 2, 2), "saliency")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, -1, "1GB", float("nan")])
def test_a_limit_of_memory_is_a_number_of_bytes(limit: object) -> None:
    with pytest.raises(attrib.InputError, match="max_memory = "):
        attrib.explain(MODEL, torch.ones(1, 3, 2, 2), "saliency", max_memory=limit)  # type: ignore[arg-type]


def test_one_method_is_a_list_of_one_and_a_name_is_found_in_any_case() -> None:
    assert list(attrib.compare(MODEL, torch.ones(1, 3, 2, 2), "saliency")) == ["saliency"]
    with pytest.raises(attrib.UnknownName, match="did you mean lrp"):
        attrib.explain(MODEL, torch.ones(1, 3, 2, 2), "LRP")


def test_a_score_that_is_no_number_gives_no_numbers() -> None:
    found = attrib.explain(MODEL, torch.ones(1, 3, 2, 2), "kernel_shap", lambda outputs: outputs[:, 0] / 0)
    assert bool(found.values.isnan().all()) and "nothing can explain it" in found.notes[0]


_ODD = (
    0,
    -1,
    1e-300,
    10**30,
    10**400,
    float("inf"),
    "",
    b"x",
    [],
    [1],
    {},
    object(),
    torch.zeros(2),
    1j,
    nn.Identity(),
)
_KNOWN = (
    "int",
    "float",
    "float | None",
    "bool",
    "str",
    "str | None",
    "Bias",
    "Baseline",
    "Method | str",
    "Rules | None",
)
_FIELDS = [
    (name, field.name)
    for name, method in attrib.METHODS.items()
    for field in dataclasses.fields(method)
    if field.type
    in (*_KNOWN, "str | tuple[str, ...] | None", "str | tuple[float, ...]", "str | Rules", "float | Stabiliser")
    and "image" in method.applies_to
    and field.name not in ("n_samples", "n_steps", "steps")
]


@pytest.mark.parametrize(("name", "setting"), _FIELDS)
def test_any_value_is_a_result_or_a_sentence(name: str, setting: str) -> None:
    for value in _ODD:
        try:
            method = attrib.METHODS[name](**{setting: value})
            found = attrib.explain(SMALL, torch.ones(1, 3, 8, 8), method, target=1)
        except (attrib.AttribError, MemoryError):
            continue
        assert bool(found.values.isfinite().all()) or found.notes, value


def test_a_preset_may_be_a_table() -> None:
    x = torch.randn(1, 3, 8, 8)
    named, given = (attrib.explain(SMALL, x, attrib.LRP(preset=p), target=1) for p in ("cp_lrp", CP_LRP))
    assert torch.equal(named.values, given.values)


@pytest.mark.parametrize(
    "method",
    [
        attrib.LRP(value_path="no such"),
        attrib.LRP(position_aggregate=""),
        attrib.KernelSHAP(segments="no such"),
        attrib.IntegratedGradients(quadrature="no such"),
        attrib.IntegratedGradients(tolerance=-1.0),
        attrib.IntegratedGradients(n_steps=10**9),
        attrib.KernelSHAP(n_samples=10**12),
        attrib.ExcitationPullback(steps=1, step_size=-1.0),
        attrib.ExcitationPullback(steps=1, radius=0.0),
    ],
)
def test_names_that_are_not_known_and_errors_below_zero_are_refused_where_they_change_nothing_too(
    method: attrib.methods.base.Method,
) -> None:
    with pytest.raises((attrib.UnknownName, attrib.InputError)):
        attrib.explain(SMALL, torch.randn(1, 3, 8, 8), method, target=1)
