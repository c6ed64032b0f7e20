"""Weight files that are damaged, incomplete or made to run code: refused in a sentence, by every scheme."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import attrib
from attrib.errors import ModelUnavailable, UnsupportedModel

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


class Bomb:
    """Its unpickling makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code ran"


@pytest.fixture(params=["pickle", "zip", "legacy"])
def bomb(request: pytest.FixtureRequest, tmp_path: Path, mark: Path) -> bytes:
    if request.param == "pickle":
        return pickle.dumps(Bomb(mark), protocol=2)
    torch.save({"x": Bomb(mark)}, tmp_path / "bomb", _use_new_zipfile_serialization=request.param == "zip")
    return (tmp_path / "bomb").read_bytes()


def saved(kind: str, folder: Path) -> Path:
    """A small whole model of transformers."""
    if kind == "image":
        ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **SMALL)).save_pretrained(folder)
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    else:
        BertForSequenceClassification(BertConfig(vocab_size=8, **SMALL)).save_pretrained(folder)
        (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc")
        BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_the_bomb_goes_off(bomb: bytes, mark: Path) -> None:
    (mark.parent / "bomb").write_bytes(bomb)
    with contextlib.suppress(RuntimeError, pickle.UnpicklingError):  # a bare pickle is no checkpoint: seen too late
        torch.load(mark.parent / "bomb", weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("scheme", ["torchvision:resnet18@", "timm:resnet18@"])
def test_files(scheme: str, bomb: bytes, mark: Path) -> None:
    file = mark.parent / "weights.safetensors"
    file.write_bytes(bomb)
    with pytest.raises(ModelUnavailable, match=r"not a readable safetensors file.*can run code"):
        attrib.load(f"{scheme}{file}")
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["image", "text"])
def test_folders(kind: str, bomb: bytes, mark: Path) -> None:
    folder = saved(kind, mark.parent / "model")
    attrib.load(f"hf:{folder}")
    weights = folder / "model.safetensors"
    weights.write_bytes(bomb)
    with pytest.raises(ModelUnavailable, match="safetensors file is damaged"):
        attrib.load(f"hf:{folder}")
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match=r"model\.safetensors"):
        attrib.load(f"hf:{folder}")
    (folder / "model.safetensors.index.json").write_text(
        '{"metadata": {"total_size": 1}, "weight_map": {"x": "pytorch_model.bin"}}'
    )
    with pytest.raises((ModelUnavailable, UnsupportedModel)):
        attrib.load(f"hf:{folder}")
    assert not mark.exists()


def test_torchvisions_cache(bomb: bytes, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(mark.parent))
    cached = mark.parent / "hub" / "checkpoints" / os.path.basename(ResNet18_Weights.DEFAULT.url)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(bomb)
    with pytest.raises(ModelUnavailable, match="refused, because reading it could run code"):
        attrib.load("torchvision:resnet18")
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("damage", ["missing", "another shape"])
def test_weights_that_would_be_random(kind: str, damage: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    head = state.pop("classifier.weight")
    if damage == "another shape":
        state["classifier.weight"] = torch.cat([head, head])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=r"do not hold the weights .* classifier\.weight; they would be random"):
        attrib.load(f"hf:{folder}")


def test_a_name_longer_than_any_path() -> None:
    with pytest.raises(ModelUnavailable):
        attrib.load("hf:" + "a" * 5000)
