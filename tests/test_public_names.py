"""What others rely on: the order and the defaults of a method's settings, and that methods and rules are values."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

import attrib
from attrib.rules.engine import Rules
from attrib.rules.linear import Epsilon, Gamma
from attrib.rules.presets import ATTN_LRP

SIGNATURES = {
    "Saliency": {},
    "InputXGradient": {},
    "SmoothGrad": {"base": "gradient", "n_samples": 25, "noise_level": 0.15, "seed": 0},
    "GuidedBackprop": {},
    "DeconvNet": {},
    "IntegratedGradients": {"n_steps": 50, "baseline": "zero", "quadrature": "gausslegendre", "tolerance": None},
    "DeepLift": {"baseline": "zero"},
    "Occlusion": {"window": 16, "stride": 8, "baseline": "zero"},
    "GradCAM": {"layer": None},
    "NormGrad": {
        "layers": None, "virtual": "conv1x1", "aggregate": "norm", "combine": "product", "meta_lr": None,
    },
    "ExcitationPullback": {"temperature": 0.3, "steps": 0, "step_size": 20.0, "radius": 100.0},
    "LRP": {"preset": "auto", "positions": False, "low": None, "high": None, "composite": None},
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_settings_by_position(name):
    wanted = SIGNATURES[name]
    given = list(inspect.signature(getattr(attrib, name)).parameters.values())
    assert [(p.name, p.default) for p in given[: len(wanted)]] == list(wanted.items())


BLANK = torch.zeros(3, 4, 4)
MINE = ATTN_LRP.inside("blocks.*", {"linear": Gamma(0.1)})
WITH_TENSORS = [
    attrib.IntegratedGradients(baseline=BLANK),
    attrib.GradientSHAP(baseline=BLANK),
    attrib.DeepLift(BLANK),
    attrib.Occlusion(baseline=BLANK),
    attrib.KernelSHAP(baseline=BLANK),
    attrib.LRP(low=BLANK, high=BLANK + 1),
    attrib.SmoothGrad(attrib.LRP(rules=MINE)),
]


@pytest.mark.parametrize("method", WITH_TENSORS, ids=lambda method: method.name)
def test_methods_are_values(method):
    for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert twin == method
        assert hash(twin) == hash(method)
    assert method != type(method)()
    assert method != attrib.Saliency()


def test_other_tensors_make_other_methods():
    one, other = attrib.IntegratedGradients(baseline=BLANK), attrib.IntegratedGradients(baseline=BLANK + 1)
    assert one != other
    model = attrib.wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)))
    told = [attrib.explain(model, torch.ones(1, 3, 4, 4), m, 0).provenance.settings["baseline"] for m in (one, other)]
    assert told[0] != told[1]


def test_rules_are_values():
    again = pickle.loads(pickle.dumps(MINE))
    assert again == MINE == ATTN_LRP.inside("blocks.*", {"linear": Gamma(0.1)})
    assert len({again, MINE, ATTN_LRP, Rules({"linear": Epsilon()})}) == 3
    assert again.find("linear", "blocks.1") == Gamma(0.1)


def test_the_package_lists_what_is_public_and_its_help_names_the_functions():
    assert dir(attrib) == sorted(attrib.__all__)
    functions = [name for name in attrib.__all__ if inspect.isfunction(getattr(attrib, name))]
    assert [name for name in functions if f"`{name}`" not in attrib.__doc__] == []
