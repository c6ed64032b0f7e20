"""A spec from TOML, flags and Python; what it must not say; and how it is written back."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attrib
from attrib.reports import Report, spec_of
from attrib.reports.api import asked_for

TOML = """
inputs = "photos"
models = ["squeezenet1_1", "efficientnet-lite0"]
targets = ["item", 3, "tabby vs lion", "log_prob: tabby"]
out = "there"
workers = 2

[columns]
id = "name"

[methods.integrated_gradients]
n_steps = 20

[methods.lrp]

[methods.flat]
method = "lrp"
preset = "epsilon_plus_flat"
"""

pytestmark = pytest.mark.usefixtures("without_pages")


def test_flags_override_the_file_and_keep_its_settings(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(TOML)
    document, running = asked_for({"inputs": str(tmp_path / "s.toml")}, {})
    spec = spec_of(document)
    assert running == {"out": "there", "workers": 2}
    assert spec == spec_of(document | {"inputs": "./photos/"})
    assert spec.methods == {
        "integrated_gradients": attrib.IntegratedGradients(n_steps=20),
        "lrp": attrib.LRP(),
        "flat": attrib.LRP(preset="epsilon_plus_flat"),
    }
    assert spec.targets == ("item", "3", "tabby vs lion", "log_prob: tabby")
    assert spec_of(tomllib.loads(spec.toml())) == spec
    flags = {"inputs": str(tmp_path / "s.toml"), "methods": ["normgrad", "integrated_gradients"], "out": "here"}
    document, running = asked_for(flags, {"normgrad": {"aggregate": "sum"}})
    changed = spec_of(document)
    assert running == {"out": "here", "workers": 2}
    assert changed.methods == {
        "normgrad": attrib.NormGrad(aggregate="sum"),
        "integrated_gradients": attrib.IntegratedGradients(n_steps=20),
    }
    assert changed.models == spec.models and changed.columns == {"id": "name"}
    assert spec_of(document | {"pdf_items": 0}).document()["pdf_items"] == 0 and spec.pdf_items == 24
    with pytest.raises(attrib.InputError, match="pdf_items = -1: give a whole number from 0"):
        spec_of(document | {"pdf_items": -1})


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        ({"metods": ["lrp"]}, attrib.UnknownName, "key .*'metods'; did you mean methods"),
        ({"methods": ["lrb"]}, attrib.UnknownName, "method is called 'lrb'; did you mean lrp"),
        ({"methods": {"lrp": {"presets": "x"}}}, attrib.UnknownName, "setting of lrp .*did you mean preset"),
        ({"methods": {"lrp": {"preset": "epsilom"}}}, attrib.UnknownName, "did you mean epsilon"),
        ({"methods": {"lrp": "epsilon"}}, attrib.InputError, r"\[methods.lrp\].*a table of settings"),
        ({"methods": {"integrated_gradients": {"n_steps": "20"}}}, attrib.InputError, "n_steps = '20': a int"),
        ({"methods": {"integrated_gradients": {"n_steps": True}}}, attrib.InputError, "n_steps = True"),
        ({"methods": {"integrated_gradients": {"n_steps": 0}}}, attrib.InputError, "n_steps = 0"),
        ({"methods": []}, attrib.InputError, "at least one method"),
        ({"models": []}, attrib.InputError, "at least one model"),
        ({"models": ["a", "a"]}, attrib.InputError, "same model"),
        ({"columns": {"txt": "a"}}, attrib.UnknownName, "did you mean text"),
        ({"format": "cvs"}, attrib.UnknownName, "did you mean csv"),
        ({"batch": 0}, attrib.InputError, "batch = 0"),
        ({"limit": "5"}, attrib.InputError, "limit = '5'"),
        ({"inputs": 3}, attrib.InputError, "inputs = 3"),
        ({"inputs": ""}, attrib.InputError, "names no inputs"),
        ({"targets": ["log_prob: "]}, attrib.TargetError, "names no class"),
        ({"targets": ["tabby vs "]}, attrib.TargetError, "names no class"),
    ],
)
def test_what_a_spec_must_not_say(change: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        spec_of({"inputs": "x", "models": ["m"], "methods": ["lrp"]} | change)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("inputs = ")
    with pytest.raises(attrib.InputError, match="cannot read the spec"):
        attrib.report(tmp_path / "s.toml")


def test_the_effective_spec_makes_the_same_report_again(
    make: Callable[..., Report], photos_of_noise: Path, tmp_path: Path
) -> None:
    from attrib.reports.identity import contents
    from tests.reports.conftest import tiny_model

    made = make(photos_of_noise, settings={"lrp": {"preset": "epsilon"}}, limit=3)
    again = attrib.report(made.folder / "spec.toml", tiny_model(), out=tmp_path / "again")
    assert again.counts["inputs"] == 3
    assert contents(made.folder) == contents(again.folder)


def test_models_and_methods_that_do_not_fit(make: Callable[..., Report], photos_of_noise: Path) -> None:
    with pytest.raises(attrib.NotApplicable, match="relp does not apply to image models"):
        make(photos_of_noise, methods="relp")
    with pytest.raises(attrib.UnknownName, match="no model is called"):
        make(photos_of_noise, models="squeezenet")
    with pytest.raises(attrib.InputError, match="model of your own"):
        make(photos_of_noise, workers=2)
