"""Models of torchvision, timm and Hugging Face: from files and folders of one's own, and hubs that do not answer."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_resnets import LABELS, random_picture, small_resnet

import attrib
from attrib.errors import ModelUnavailable, UnsupportedModel
from attrib.models import embedded, hubs, hugging_face
from attrib.models.preprocessing import Preprocessing


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


def test_the_classes_of_a_file_without_a_head() -> None:
    assert hubs._classes_in({"conv1.weight": torch.zeros(3)}, lambda classes: small_resnet(num_classes=classes)) == 1000


@pytest.mark.parametrize("name", ["hf:some/model", "timm:resnet50.a1_in1k"])
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[str] = []

    def unreachable(url: str, **options: object) -> None:
        asked.append(url)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(ModelUnavailable, match="Name or service not known; connect to the internet"):
        attrib.load(name)
    assert len(asked) == 1
