"""VisionModel: inputs, targets and models that cannot be explained, told in one sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.errors import InputError, OpaqueModel, TargetError, UnsupportedModel
from attrib.models import VisionModel
from tests.models.tiny_vision import tiny


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((1, 3, 8, 8), float("nan")), "input 0 of the batch holds NaN"),
        (torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), float("inf"))]), "input 1 of the batch holds NaN"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\).*\(batch, 3, height, width\).*x\[None\]"),
        (torch.zeros(1, 8, 8, 3), r"shape \(1, 8, 8, 3\).*\(batch, 3, height, width\)"),
        (torch.zeros(1, 1, 8, 8), r"\(1, 1, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"\(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), r"\(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "torch.uint8 is not preprocessed"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "torch.complex64 is not preprocessed"),
    ],
)
def test_tensors_that_cannot_be_explained(x: Tensor, message: str) -> None:
    model = attrib.wrap(tiny())
    with pytest.raises(InputError, match=message):
        model.encode(x)
    with pytest.raises(InputError, match=message):
        model.predict(x)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Linear(10, 2), torch.randn(4, 10)),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 18, 2)), torch.randn(4, 2, 20)),
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 2 * 3 * 4, 2)), torch.randn(2, 3, 4, 5, 6)),
    ],
    ids=["table", "signal", "film"],
)
def test_what_is_no_picture_is_explained_as_the_error_says(module: nn.Module, x: Tensor) -> None:
    with pytest.raises(InputError) as error:
        attrib.wrap(module).encode(x)
    recipe = re.search(r"explained as (.+) by attrib.wrap\((.+)\)$", str(error.value))
    assert recipe is not None
    picture, whole = (eval(code, {"torch": torch, "model": module, "x": x}) for code in recipe.groups())
    model = attrib.wrap(whole)
    result = attrib.explain(model, picture, "integrated_gradients", target=1)
    assert result.values.numel() == x.numel()
    assert result.relative_delta is not None
    assert float(result.relative_delta.max()) < 1e-4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chetah", "did you mean 'cheetah'"),
        ("zebr", "'zebra'"),
        ("", "has no class ''; its labels are '"),
        (1000, "target 1000 is out of range: efficientnet-lite0 has 1000 classes, 0 to 999"),
        (-1, "target -1 is out of range"),
        (True, "True"),
        (2.0, "float"),
        (None, "NoneType"),
    ],
)
def test_classes_that_are_not_there(efficientnet: VisionModel, name: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        efficientnet.index_of(name)


def test_predict_of_models_that_give_nonsense() -> None:
    class Dense(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) * float("nan")

    with pytest.raises(UnsupportedModel, match=r"shape \(1, 3, 4, 4\)"):
        attrib.wrap(Dense()).predict(torch.zeros(1, 3, 4, 4))
    with pytest.raises(UnsupportedModel, match="NaN"):
        attrib.wrap(Broken()).predict(torch.zeros(1, 3, 4, 4))


def test_a_model_that_raises_is_named_and_left_as_it_was() -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("from inside")

    module = Raises().train()
    with pytest.raises(
        UnsupportedModel, match=r"Raises failed on .*\(1, 3, 4, 4\) with ZeroDivisionError: from inside"
    ):
        attrib.wrap(module).predict(torch.zeros(1, 3, 4, 4))
    assert module.training
    module = attrib.load("squeezenet1_1").module
    with pytest.raises(UnsupportedModel, match="RuntimeError"):
        attrib.wrap(module).predict(torch.zeros(1, 3, 2, 2))


def test_models_that_cannot_be_explained() -> None:
    for thing in (None, "resnet", lambda x: x, nn.Linear):
        with pytest.raises(UnsupportedModel, match=r"torch.nn.Module"):
            attrib.wrap(thing)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModel, match="wrapped already"):
        attrib.wrap(attrib.wrap(tiny()))  # type: ignore[arg-type]
    with torch.device("meta"), pytest.raises(UnsupportedModel, match="no values yet"):
        attrib.wrap(tiny())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_opaque_models_are_refused() -> None:
    module = tiny().eval()
    with pytest.raises(OpaqueModel, match="TorchScript"):
        attrib.wrap(torch.jit.trace(module, torch.zeros(1, 3, 8, 8)))
    with pytest.raises(OpaqueModel, match=r"torch\.compile"):
        attrib.wrap(torch.compile(module))  # type: ignore[arg-type]
    module[0].compile()  # type: ignore[operator,union-attr]
    with pytest.raises(OpaqueModel, match="'0' is compiled"):
        attrib.wrap(module)
